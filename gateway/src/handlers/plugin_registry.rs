//! Plugins from registries: the gateway fetches a package itself, and then it is a component like
//! one that was sent. What is written down is the digest of what was fetched, never its tag.

use std::sync::Arc;

use api::v1::plugin::*;
use egress::oci::Reference;

use super::plugin::{self, Arrived};
use crate::app::App;
use crate::error::Result;
use crate::http::call::Call;
use crate::plugins::registries::Registries;
use crate::state::change::Entry;

/// Installs a plugin from a registry.
pub async fn install_plugin_from_registry(
    app: Arc<App>,
    call: Call<InstallPluginFromRegistry>,
) -> Result<Plugin> {
    let reference = Registries::reference(&call.body.reference)?;
    let _turn = app.plugins.turn()?;
    let arrived = fetch(&app, call.entry("plugin.install"), &reference).await?;
    plugin::install(&app, &call, call.body.name.clone(), arrived).await
}

/// Replaces a plugin by another version from a registry, or holds that.
pub async fn upgrade_plugin_from_registry(
    app: Arc<App>,
    call: Call<UpgradePluginFromRegistry>,
) -> Result<UpgradedPlugin> {
    plugin::find(&app, &call.path.plugin)?;
    let reference = Registries::reference(&call.body.reference)?;
    let _turn = app.plugins.turn()?;
    let entry = call.entry("plugin.upgrade").on(&call.path.plugin);
    let arrived = fetch(&app, entry, &reference).await?;
    plugin::upgrade(&app, &call, arrived).await
}

/// Fetches a package; that it could not be had is noted like one that was turned away.
async fn fetch(app: &App, entry: Entry, reference: &Reference) -> Result<Arrived> {
    match app.plugins.registries().pull(reference).await {
        Ok(pulled) => Ok(Arrived::pulled(pulled, reference)),
        Err(error) => {
            let entry = entry.with("reference", reference);
            Err(plugin::refused(app, entry, error).await)
        }
    }
}
