//! Turns machines on and off through management controllers that speak Redfish (DMTF DSP0266).
//!
//! What a controller can do it says itself: which ways of resetting, which devices to boot from.
//! Nothing is assumed that it does not offer, and its words are kept beside ours. Controllers lie
//! about time and not about facts: a state lags some seconds behind what was done, and while it does
//! they answer 409. That is `busy`, and the gateway comes again.
//!
//! An action is one POST. What is done before it (finding the system, reading its state, setting
//! what it boots from) may be done again without harm, so that errors before the POST never say that
//! the outcome is unknown, and errors of the POST say so whenever it may have arrived.

mod boot;
mod config;
mod connection;
mod discovery;
mod place;
mod refusal;
mod reset;
mod system;
mod task;

use loopback_plugin_sdk::host::Host;
use loopback_plugin_sdk::power::{
    Action, Begun, FoundPage, Observation, Operation, Provider, Resumed, State, Step, Support,
    Target,
};
use loopback_plugin_sdk::{Diagnostic, Error, ErrorKind, Plugin};
use serde_json::json;

use config::{Config, Params};
use connection::Connection;
use place::Place;
use reset::ResetType;
use system::{System, Ways};

/// How long controllers show the state from before.
const SETTLE_MS: u32 = 30_000;

/// Controllers are small computers: two at once is what all of them bear.
const PARALLEL: u32 = 2;

struct Redfish;

impl Plugin for Redfish {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        config.findings()
    }
}

impl Provider for Redfish {
    fn inspect(host: &dyn Host, config: &Config, target: &Target) -> Result<Support, Error> {
        let (connection, system) = reach(host, config, target)?;
        let ways = ways(&connection, &system)?;
        Ok(Support {
            actions: reset::supported(&ways),
            observable: true,
            boot_devices: boot::offered(system.json()),
            cancellable: false,
            settle_ms: SETTLE_MS,
            max_parallel: PARALLEL,
        })
    }

    fn check_target(
        host: &dyn Host,
        config: &Config,
        target: &Target,
    ) -> Result<Vec<Diagnostic>, Error> {
        let (connection, system) = reach(host, config, target)?;
        let mut found = Vec::new();
        if connection.origin.is_plain() {
            let message = "without TLS everybody on the way reads the password";
            found.push(Diagnostic::warning("/address", message));
        }
        let (state, raw) = system.state();
        if state == State::Unknown {
            let message = format!("the controller does not say whether it is on: {raw:?}");
            found.push(Diagnostic::warning("", message));
        }
        if system.reset_target(&connection.origin).is_err() {
            let message = "the controller has no action to reset this system";
            found.push(Diagnostic::error("/params/system", message));
        } else if matches!(system.ways(&connection.origin)?, Ways::Untold) {
            let message = "the controller does not say which ways of resetting it has: the usual ones are taken";
            found.push(Diagnostic::info("", message));
        }
        Ok(found)
    }

    fn observe(host: &dyn Host, config: &Config, target: &Target) -> Result<Observation, Error> {
        let (_, system) = reach(host, config, target)?;
        Ok(system.observation())
    }

    fn begin(
        host: &dyn Host,
        config: &Config,
        operation: &Operation,
        target: &Target,
    ) -> Result<Begun, Error> {
        let (connection, system) = reach(host, config, target)?;
        let action = operation.action;
        let offered = ways(&connection, &system)?;
        let Some(way) = ResetType::of(action, &offered) else {
            let what = format!("the controller offers {} only", offered.join(", "));
            return Err(Error::unsupported("redfish.action_not_offered", what));
        };
        let seen = system.observation();
        if seen.is_where_it_leads(action) {
            return Ok(Begun::Already(seen));
        }
        reset::may_be_sent(action, way, seen.state)?;
        let reset = system.reset_target(&connection.origin)?;
        if let Some(wanted) = &operation.boot {
            let change = boot::change(system.json(), wanted)?;
            set_boot(&connection, &system, &change)?;
        }
        let body = json!({ "ResetType": way.as_str() });
        let answer = connection.submit(connection.request_with("POST", &reset, &body)?)?;
        Ok(match task::begun(&answer, &connection.origin) {
            Some(progress) => Begun::Submitted(progress),
            None => Begun::Done,
        })
    }

    fn poll(
        host: &dyn Host,
        config: &Config,
        _: &Operation,
        target: &Target,
        cursor: &[u8],
    ) -> Result<Step, Error> {
        let connection = Connection::of(host, config, target, &Params::of(target)?)?;
        let place = task::place(cursor)?;
        let answer = connection.ask(connection.request("GET", &place))?;
        task::step(answer, &place, host.now_ms())
    }

    /// A state that is reached, and a reset that the machine counts since, are proof. Anything else
    /// is none: a controller that shows the old state may only be slow.
    fn resume(
        host: &dyn Host,
        config: &Config,
        operation: &Operation,
        target: &Target,
    ) -> Result<Resumed, Error> {
        let (_, system) = reach(host, config, target)?;
        let seen = system.observation();
        let before = operation.before.as_ref();
        let mark = before.and_then(|before| before.boot_mark.as_ref());
        let restarts = matches!(
            operation.action,
            Action::Reboot | Action::Reset | Action::Cycle
        );
        let restarted = restarts && mark.is_some() && seen.boot_mark.is_some();
        let restarted = restarted && seen.boot_mark.as_ref() != mark;
        if restarted || seen.is_where_it_leads(operation.action) {
            return Ok(Resumed::Done);
        }
        Ok(Resumed::Unknown)
    }

    fn discover(
        host: &dyn Host,
        config: &Config,
        cursor: Option<&str>,
    ) -> Result<FoundPage, Error> {
        discovery::page(host, config, cursor)
    }
}

/// The system of a target.
fn reach<'a>(
    host: &'a dyn Host,
    config: &Config,
    target: &Target,
) -> Result<(Connection<'a>, System), Error> {
    let params = Params::of(target)?;
    let connection = Connection::of(host, config, target, &params)?;
    let place = match &params.system {
        Some(text) => Place::system(text)?,
        None => only_system(&connection)?,
    };
    let page = connection.page(&place)?;
    let system = System::new(place, page);
    Ok((connection, system))
}

fn only_system(connection: &Connection<'_>) -> Result<Place, Error> {
    let mut places = discovery::systems(connection)?;
    match (places.pop(), places.len()) {
        (Some(only), 0) => Ok(only),
        (None, _) => Err(Error::new(
            ErrorKind::NotFound,
            "redfish.no_system",
            "the controller has no system",
        )),
        (Some(last), others) => {
            let what = format!(
                "the controller has {} systems: say in params.system which, as in {}",
                others + 1,
                last.as_str()
            );
            Err(Error::invalid("redfish.which_system", what))
        }
    }
}

/// Which ways of resetting the controller has.
fn ways(connection: &Connection<'_>, system: &System) -> Result<Vec<String>, Error> {
    match system.ways(&connection.origin)? {
        Ways::Told(ways) => Ok(ways),
        Ways::Elsewhere(place) => {
            let info = connection.page(&place)?;
            Ok(system::ways_of_info(&info.json).unwrap_or_else(system::usual_ways))
        }
        Ways::Untold => Ok(system::usual_ways()),
    }
}

/// Sets what the next boot is from. On condition that the system is as it was read, where the
/// controller has a word for that.
fn set_boot(
    connection: &Connection<'_>,
    system: &System,
    change: &serde_json::Value,
) -> Result<(), Error> {
    let request = |tag: Option<&str>| {
        let request = connection.request_with("PATCH", &system.place, change)?;
        Ok::<_, Error>(match tag {
            Some(tag) => request.header("if-match", tag),
            None => request,
        })
    };
    let mut answer = connection.ask(request(system.etag())?)?;
    // Some give out weak tags and then do not take them back. What is set is ours alone.
    if answer.status == 412 && system.etag().is_some_and(|tag| tag.starts_with("W/")) {
        answer = connection.ask(request(Some("*"))?)?;
    }
    refusal::judge(answer, connection.now_ms()).map(drop)
}

loopback_plugin_sdk::export_power_provider!(Redfish);

#[cfg(test)]
mod tests;
