//! Judges whether something may be done now.

use loopback_plugin_sdk::Plugin;
use loopback_plugin_sdk::policy::{Policy, Reason, Request, Verdict};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Environments in which a ticket must be named.
    environments: Vec<String>,
}

struct ThisPlugin;

impl Plugin for ThisPlugin {
    type Config = Config;
}

impl Policy for ThisPlugin {
    fn decide(config: &Config, request: Request) -> Verdict {
        let concerned = request.targets.iter().any(|target| {
            let environment = target.environment.as_ref();
            environment.is_some_and(|name| config.environments.contains(name))
        });
        if concerned && request.ticket.is_none() {
            return Verdict::Deny(Reason::new("ticket.missing", "name a ticket"));
        }
        Verdict::Abstain
    }
}

loopback_plugin_sdk::export_policy!(ThisPlugin);
