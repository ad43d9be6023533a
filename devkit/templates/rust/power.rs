//! Turns machines on and off.

use loopback_plugin_sdk::host::Host;
use loopback_plugin_sdk::http::{Placement, Request};
use loopback_plugin_sdk::power::{
    Action, Begun, Observation, Operation, Provider, State, Support, Supported, Target,
};
use loopback_plugin_sdk::serde_json::{Value, from_slice, json};
use loopback_plugin_sdk::{Error, NoConfig, Plugin};

struct ThisPlugin;

impl Plugin for ThisPlugin {
    type Config = NoConfig;
}

impl Provider for ThisPlugin {
    fn inspect(_: &dyn Host, _: &NoConfig, _: &Target) -> Result<Support, Error> {
        let actions = [Action::On, Action::Off];
        Ok(Support {
            actions: actions.map(Supported::plainly).to_vec(),
            observable: true,
            boot_devices: Vec::new(),
            cancellable: false,
            settle_ms: 10_000,
            max_parallel: 1,
        })
    }

    fn observe(host: &dyn Host, _: &NoConfig, target: &Target) -> Result<Observation, Error> {
        let answer = host.send(&request("GET", target, None)?)?;
        let answer = answer.success("power", host.now_ms())?;
        let said: Value = from_slice(&answer.body)
            .map_err(|error| Error::upstream("power.not_json", error.to_string()))?;
        let raw = said["state"].as_str().unwrap_or_default();
        let state = match raw {
            "on" => State::On,
            "off" => State::Off,
            _ => State::Unknown,
        };
        Ok(Observation::new(state, raw))
    }

    fn begin(
        host: &dyn Host,
        config: &NoConfig,
        operation: &Operation,
        target: &Target,
    ) -> Result<Begun, Error> {
        let wanted = match operation.action {
            Action::On => "on",
            Action::Off => "off",
            _ => return Err(Error::unsupported("power.action", "on and off only")),
        };
        // Nothing has been submitted yet, whatever became of asking.
        let seen = Self::observe(host, config, target).map_err(|error| outcome(error, false))?;
        if seen.is_where_it_leads(operation.action) {
            return Ok(Begun::Already(seen));
        }
        let request = request("POST", target, Some(wanted))?;
        let answer = host.send(&request)?;
        // What breaks over there may break after it was done.
        let broke = answer.status >= 500;
        answer
            .success("power", host.now_ms())
            .map_err(|error| outcome(error, broke))?;
        Ok(Begun::Done)
    }
}

fn outcome(mut error: Error, unknown: bool) -> Error {
    error.outcome_unknown = unknown;
    error
}

fn request(method: &str, target: &Target, wanted: Option<&str>) -> Result<Request, Error> {
    let url = format!("{}/power", target.address);
    let mut request = match wanted {
        Some(state) => Request::post_json(&url, &json!({ "state": state }))?,
        None => Request::new(method, &url),
    };
    request.tls_profile.clone_from(&target.tls_profile);
    request.route.clone_from(&target.route);
    Ok(request.secret("token", Placement::Bearer))
}

loopback_plugin_sdk::export_power_provider!(ThisPlugin);
