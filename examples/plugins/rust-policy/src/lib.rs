//! Asks for a ticket where it matters: in production nobody acts without one that looks like those
//! of the company.

use loopback_plugin_sdk::Plugin;
use loopback_plugin_sdk::policy::{Policy, Reason, Request, Verdict};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What tickets begin with, as in `OPS-`; digits follow.
    prefix: String,
}

struct Ticket;

impl Plugin for Ticket {
    type Config = Config;
}

impl Policy for Ticket {
    fn decide(config: &Config, request: Request) -> Verdict {
        let production = request
            .targets
            .iter()
            .any(|target| target.environment.as_deref() == Some("production"));
        let ticket = request.ticket.as_deref().unwrap_or_default();
        let number = ticket.strip_prefix(&config.prefix).unwrap_or_default();
        let good = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if good || !production {
            return Verdict::Abstain;
        }
        let message = format!("name a ticket as in {}123", config.prefix);
        Verdict::Deny(Reason::new("ticket.missing", message))
    }
}

loopback_plugin_sdk::export_policy!(Ticket);
