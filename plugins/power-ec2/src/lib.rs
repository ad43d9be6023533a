//! Power of EC2 instances, by the query API with signed requests.
//!
//! | action | call |
//! |---|---|
//! | `on` | `StartInstances` |
//! | `shutdown` | `StopInstances` |
//! | `off` | `StopInstances` with `Force`, and with `SkipOsShutdown` where configured |
//! | `reboot` | `RebootInstances`, by which EC2 restarts hard what has not followed in minutes |
//!
//! There is no hard reset and no cycle in EC2, so neither is offered: a stop with a start behind it
//! may land on another machine, with another address, and whoever wants that asks for it by name.
//!
//! An action has no id to ask after: what becomes of it is seen at the instance's state. Starting
//! and stopping again changes nothing, and after a lost answer a state that is on its way says
//! that the action was taken. Of a reboot nothing remains to be seen.

mod answer;
mod config;
mod xml;

use loopback_plugin_sdk::host::{AwsKey, AwsRequest, Host};
use loopback_plugin_sdk::http::Request;
use loopback_plugin_sdk::log::{self, Level};
use loopback_plugin_sdk::power::{
    Action, Begun, FoundPage, Observation, Operation, Provider, Resumed, State, Support, Supported,
    Target,
};
use loopback_plugin_sdk::{Diagnostic, Error, ErrorKind, Plugin};
use sha2::{Digest, Sha256};

use answer::{DRY_RUN, Instance, NOT_FOUND, Refusal, STATE};
use config::{Config, Place};
use xml::Element;

/// The version of the API that calls name: the only one in use.
const VERSION: &str = "2016-11-15";
/// Instances on a page: as many as fit the limits, with all their disks and tags.
const PAGE: &str = "100";

struct Ec2;

impl Plugin for Ec2 {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        config.check()
    }
}

/// A call by its name, with what it takes beyond the instance.
type Call = (&'static str, &'static [(&'static str, &'static str)]);

fn call_for(config: &Config, action: Action) -> Option<Call> {
    match action {
        Action::On => Some(("StartInstances", &[])),
        Action::Shutdown => Some(("StopInstances", &[])),
        Action::Off if config.skip_os_shutdown => Some((
            "StopInstances",
            &[("Force", "true"), ("SkipOsShutdown", "true")],
        )),
        Action::Off => Some(("StopInstances", &[("Force", "true")])),
        Action::Reboot => Some(("RebootInstances", &[])),
        Action::Reset | Action::Cycle | Action::Nmi => None,
    }
}

impl Provider for Ec2 {
    fn inspect(_: &dyn Host, config: &Config, target: &Target) -> Result<Support, Error> {
        config.place_of(target)?;
        config::instance(target)?;
        let noted = |action, note: &str| Supported {
            action,
            note: note.to_owned(),
        };
        let off = if config.skip_os_shutdown {
            "passes over the operating system"
        } else {
            "EC2 asks the operating system first, and cuts the power some minutes later"
        };
        let actions = vec![
            Supported::plainly(Action::On),
            noted(Action::Shutdown, "addresses that are not elastic are lost"),
            noted(Action::Off, off),
            noted(
                Action::Reboot,
                "EC2 restarts hard when the operating system has not followed in some minutes",
            ),
        ];
        Ok(Support {
            actions,
            observable: true,
            boot_devices: Vec::new(),
            cancellable: false,
            // What is read may be older than what was done, as the API's documentation says.
            settle_ms: 30_000,
            max_parallel: 4,
        })
    }

    fn check_target(
        host: &dyn Host,
        config: &Config,
        target: &Target,
    ) -> Result<Vec<Diagnostic>, Error> {
        let mut found = Vec::new();
        let Some(seen) = instance(host, config, target)? else {
            let message = "there is no such instance in this region";
            return Ok(vec![Diagnostic::error("", message)]);
        };
        // What would change nothing comes first: a cloud that takes no notice of `DryRun` shows it
        // there.
        let actions = match seen.observation.state {
            State::On => ["StartInstances", "StopInstances", "RebootInstances"],
            State::Off => ["StopInstances", "StartInstances", "RebootInstances"],
            State::Absent => {
                let message = format!("the instance is {}", seen.observation.raw);
                return Ok(vec![Diagnostic::error("", message)]);
            }
            _ => {
                let message = "permissions were not looked at: it is neither running nor stopped";
                return Ok(vec![Diagnostic::info("", message)]);
            }
        };
        if seen.unstoppable {
            let message = "its root lies on an instance store: it cannot be stopped";
            found.push(Diagnostic::warning("", message));
        }
        let place = config.place_of(target)?;
        for action in actions {
            let asked = [
                ("InstanceId.1", target.address.as_str()),
                ("DryRun", "true"),
            ];
            match call(host, config, &place, Some(target), action, &asked) {
                Err(refusal) if matches!(refusal.code.as_str(), DRY_RUN | STATE) => {}
                Err(refusal) if refusal.error.kind == ErrorKind::Forbidden => {
                    let message = format!("{action} is refused: {}", refusal.error.message);
                    found.push(Diagnostic::warning("", message));
                }
                Err(refusal) => return Err(known(refusal.error)),
                Ok(_) => {
                    let message =
                        "the API takes no notice of DryRun: permissions were not looked at";
                    found.push(Diagnostic::info("", message));
                    break;
                }
            }
        }
        Ok(found)
    }

    fn observe(host: &dyn Host, config: &Config, target: &Target) -> Result<Observation, Error> {
        let seen = instance(host, config, target)?;
        Ok(match seen {
            Some(instance) => instance.observation,
            None => Observation::new(State::Absent, NOT_FOUND),
        })
    }

    fn begin(
        host: &dyn Host,
        config: &Config,
        operation: &Operation,
        target: &Target,
    ) -> Result<Begun, Error> {
        let Some((name, more)) = call_for(config, operation.action) else {
            let message = "EC2 has start, stop and reboot, and nothing else";
            return Err(Error::unsupported("ec2.action", message));
        };
        if operation.boot.is_some() {
            let message = "EC2 does not let choose what is booted from";
            return Err(Error::unsupported("ec2.boot", message));
        }
        let seen = Self::observe(host, config, target)?;
        if seen.is_where_it_leads(operation.action) {
            return Ok(Begun::Already(seen));
        }
        if seen.state == State::Absent {
            let message = format!("the instance is no more ({})", seen.raw);
            return Err(Error::new(ErrorKind::NotFound, "ec2.absent", message));
        }
        let place = config.place_of(target)?;
        let mut asked = vec![("InstanceId.1", target.address.as_str())];
        asked.extend(more);
        let answer = call(host, config, &place, Some(target), name, &asked);
        let text = answer.map_err(|refusal| on_its_way(refusal, seen.state))?;
        accepted(&text, name).map_err(|mut error| {
            error.outcome_unknown = true;
            error
        })?;
        Ok(Begun::Done)
    }

    fn resume(
        host: &dyn Host,
        config: &Config,
        operation: &Operation,
        target: &Target,
    ) -> Result<Resumed, Error> {
        let heading = match operation.action {
            Action::On => [State::On, State::PoweringOn],
            Action::Shutdown | Action::Off => [State::Off, State::PoweringOff],
            Action::Reboot | Action::Reset | Action::Cycle | Action::Nmi => {
                return Ok(Resumed::Unknown);
            }
        };
        let seen = Self::observe(host, config, target)?;
        // Where it has not left, the call may be yet to be seen: reads lag behind.
        Ok(if heading.contains(&seen.state) {
            Resumed::Done
        } else {
            Resumed::Unknown
        })
    }

    fn discover(
        host: &dyn Host,
        config: &Config,
        cursor: Option<&str>,
    ) -> Result<FoundPage, Error> {
        let place = config.own_place();
        let mut asked = vec![("MaxResults", PAGE)];
        asked.extend(cursor.map(|token| ("NextToken", token)));
        let answer = call(host, config, &place, None, "DescribeInstances", &asked);
        let (instances, next) = Instance::page(&answer.map_err(|refusal| known(refusal.error))?)?;
        let there = instances
            .into_iter()
            .filter(|instance| instance.observation.state != State::Absent);
        Ok(FoundPage {
            found: there
                .map(|instance| instance.found(&place.region))
                .collect(),
            next,
        })
    }
}

/// The target's instance, if there is one. Nothing was submitted, whatever the error.
fn instance(host: &dyn Host, config: &Config, target: &Target) -> Result<Option<Instance>, Error> {
    let place = config.place_of(target)?;
    let id = config::instance(target)?;
    let asked = [("InstanceId.1", id)];
    let text = match call(
        host,
        config,
        &place,
        Some(target),
        "DescribeInstances",
        &asked,
    ) {
        Ok(text) => text,
        Err(refusal) if refusal.code == NOT_FOUND => return Ok(None),
        Err(refusal) => return Err(known(refusal.error)),
    };
    let (instances, _) = Instance::page(&text)?;
    match instances.into_iter().find(|instance| instance.id == id) {
        Some(instance) => Ok(Some(instance)),
        None => Err(answer::strange("it is about another instance")),
    }
}

/// An error where nothing was to be done.
fn known(mut error: Error) -> Error {
    error.outcome_unknown = false;
    error
}

/// What an action's refusal means, knowing the state that it was refused in: an instance that is
/// starting or stopping takes it a little later.
fn on_its_way(refusal: Refusal, state: State) -> Error {
    let mut error = refusal.error;
    let moving = matches!(state, State::PoweringOn | State::PoweringOff);
    if error.kind == ErrorKind::Conflict && moving {
        error.kind = ErrorKind::Busy;
    }
    // Something came back and was not taken for an answer: too long, or not HTTP.
    if refusal.code.is_empty() && error.kind == ErrorKind::Upstream {
        error.outcome_unknown = true;
    }
    error
}

/// Whether the answer is the one to this action.
fn accepted(text: &str, action: &str) -> Result<(), Error> {
    let root = Element::read(text).map_err(answer::strange)?;
    if root.name.strip_suffix("Response") != Some(action) {
        return Err(answer::strange("another element"));
    }
    let id = root.text(&["requestId"]).unwrap_or("none");
    log::write(
        Level::Info,
        "EC2 took the action",
        &[("action", action), ("request", id)],
    );
    Ok(())
}

/// Makes a call: a form, signed.
fn call(
    host: &dyn Host,
    config: &Config,
    place: &Place,
    target: Option<&Target>,
    action: &str,
    asked: &[(&str, &str)],
) -> Result<String, Refusal> {
    let mut body = String::new();
    for (key, value) in [("Action", action), ("Version", VERSION)]
        .iter()
        .chain(asked)
    {
        if !body.is_empty() {
            body.push('&');
        }
        encode(&mut body, key);
        body.push('=');
        encode(&mut body, value);
    }
    let content = "application/x-www-form-urlencoded; charset=utf-8";
    let mut request = Request::post(&place.url, content, body.into_bytes());
    let (profile, route) = match target {
        Some(target) => (&target.tls_profile, &target.route),
        None => (&config.tls_profile, &config.route),
    };
    request.tls_profile.clone_from(profile);
    request.route.clone_from(route);
    request.timeout_ms = config.timeout_ms;
    let unasked = |error| Refusal {
        code: String::new(),
        error,
    };
    let key = AwsKey {
        id: "access-key-id",
        secret: "secret-access-key",
        session_token: config.session_token.then_some("session-token"),
    };
    let signed = AwsRequest {
        region: place.region.clone(),
        service: "ec2".to_owned(),
        method: request.method.clone(),
        url: place.url.clone(),
        headers: request.headers.clone(),
        body_sha256: hex(&Sha256::digest(&request.body)),
    };
    let added = host.aws_sigv4(&key, signed).map_err(unasked)?;
    request.headers.extend(added);
    let answer = host.send(&request).map_err(unasked)?;
    answer::read(answer, host.now_ms())
}

fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                out.push('%');
                out.push_str(&hex(&[byte]).to_ascii_uppercase());
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

loopback_plugin_sdk::export_power_provider!(Ec2);

#[cfg(test)]
mod tests;
