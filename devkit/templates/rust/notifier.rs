//! Carries events somewhere.

use loopback_plugin_sdk::host::Host;
use loopback_plugin_sdk::http::{Placement, Request};
use loopback_plugin_sdk::notifier::{Event, Notifier};
use loopback_plugin_sdk::serde_json::json;
use loopback_plugin_sdk::{Error, Plugin};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Where events go.
    url: String,
}

struct ThisPlugin;

impl Plugin for ThisPlugin {
    type Config = Config;
}

impl Notifier for ThisPlugin {
    fn deliver(host: &dyn Host, config: &Config, event: &Event) -> Result<(), Error> {
        let message = json!({ "id": event.id, "text": event.summary });
        let request = Request::post_json(&config.url, &message)?.secret("token", Placement::Bearer);
        host.send(&request)?.success("target", host.now_ms())?;
        Ok(())
    }
}

loopback_plugin_sdk::export_notifier!(ThisPlugin);
