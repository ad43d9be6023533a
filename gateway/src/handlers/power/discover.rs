//! Which machines a provider knows, and which hosts they are.

use std::sync::Arc;

use api::v1::power::*;
use gateway_core::power::operation::Failure;
use model::facts::Facts;

use super::check_secrets;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::power::provider::Found;

/// Asks a provider which machines it knows, and proposes which hosts they are.
pub async fn discover_power_targets(
    app: Arc<App>,
    call: Call<DiscoverPowerTargets>,
) -> Result<DiscoveredPower> {
    let workspace = call.proof.workspace();
    let refused = |failure: Failure| {
        Error::invalid(
            "plugin",
            format!("{} [{}]", failure.trouble.message, failure.trouble.code),
        )
    };
    let provider = app.power.providers.get(&call.body.plugin, workspace);
    let provider = provider.map_err(refused)?;
    let secrets = &call.body.secrets;
    check_secrets(&app, workspace, &call.body.plugin, secrets)?;
    let cursor = call.body.cursor.clone();
    let page = provider.discover(workspace, secrets, cursor).await;
    let (found, next) = page.map_err(refused)?;
    let tables = app.catalog.read();
    let known: Vec<_> = tables
        .hosts_of(workspace)
        .filter_map(|host| Some((host, tables.facts.get(&host)?.record()?)))
        .collect();
    let found = found.into_iter().map(|machine| {
        let matched = known
            .iter()
            .find_map(|(host, record)| same_machine(&machine, &record.facts).map(|by| (*host, by)));
        let linked = matched.is_some_and(|(host, _)| {
            tables.power.targets.get(&host).is_some_and(|target| {
                target.plugin == call.body.plugin && target.address == machine.address
            })
        });
        DiscoveredMachine {
            address: machine.address.clone(),
            params: serde_json::from_str(&machine.params).unwrap_or_else(|_| serde_json::json!({})),
            name: machine.name.clone(),
            macs: machine.macs.clone(),
            serial: machine.serial.clone(),
            state: machine.state,
            host: matched.map(|(host, _)| host),
            matched_by: matched.map(|(_, by)| by.to_owned()),
            linked,
        }
    });
    Ok(DiscoveredPower {
        found: found.collect(),
        next,
    })
}

/// By what a machine that a provider knows is the host that says this of itself.
fn same_machine(machine: &Found, host: &Facts) -> Option<&'static str> {
    let same = |one: &str, other: &str| !one.is_empty() && one.eq_ignore_ascii_case(other);
    let has = |mac: &String| host.macs.iter().any(|own| same(mac, own));
    if machine.macs.iter().any(has) {
        return Some("mac");
    }
    let serial = machine.serial.as_deref().unwrap_or_default();
    if same(serial, &host.serial) || same(serial, &host.system_uuid) {
        return Some("serial");
    }
    // Clouds put their own name for a machine into its firmware, each elsewhere.
    let id = machine.provider_id.as_deref().unwrap_or_default();
    let told = [&host.asset_tag, &host.serial, &host.system_uuid];
    told.iter()
        .any(|told| same(id, told))
        .then_some("provider_id")
}
