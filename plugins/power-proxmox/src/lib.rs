//! Turns virtual machines and containers of Proxmox VE on and off, through its API with a token.
//!
//! What is submitted becomes a task there, with a name (`UPID:...`) that is asked after until it
//! has ended. A task that ended well is the provider's word; what the gateway goes by is what it
//! observes then.

mod address;
mod api;
mod discover;
mod machine;

use loopback_plugin_sdk::host::Host;
use loopback_plugin_sdk::power::{
    Action, Begun, FoundPage, Observation, Operation, Progress, Provider, Resumed, State, Step,
    Support, Supported, Target,
};
use loopback_plugin_sdk::{Diagnostic, Error, ErrorKind, Plugin};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use address::{Kind, Machine};
use api::Client;
use machine::Current;

/// Who speaks, and with which server machines are looked for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// The token's name, as in `loopback@pve!power`. Targets may name another.
    token_id: Option<String>,
    /// The server whose machines are looked for, as in `https://pve.example:8006`.
    server: Option<String>,
    /// How that server proves itself: a profile's name from the grant.
    tls_profile: Option<String>,
    /// Through which agents that server is asked: a route's name from the grant.
    route: Option<String>,
}

/// What is set for a target.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    token_id: Option<String>,
}

/// What became of a task.
#[derive(Deserialize)]
struct Task {
    status: String,
    #[serde(default)]
    exitstatus: Option<String>,
}

/// When a task is asked after.
const POLL_MS: u32 = 2_000;

struct Proxmox;

impl Plugin for Proxmox {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        if config
            .token_id
            .as_deref()
            .is_some_and(|id| !is_token_id(id))
        {
            found.push(Diagnostic::error("/token_id", TOKEN_ID_FORM));
        }
        match config.server.as_deref() {
            Some(server) if address::server(server).is_none() => {
                let message = "must be as in https://pve.example:8006";
                found.push(Diagnostic::error("/server", message));
            }
            Some(server) if server.starts_with("http://") => {
                found.push(Diagnostic::warning("/server", WITHOUT_TLS));
            }
            Some(_) => {}
            None if config.tls_profile.is_some() || config.route.is_some() => {
                let message = "only used for the server whose machines are looked for, and none is \
                               named: targets have their own";
                found.push(Diagnostic::warning("/tls_profile", message));
            }
            None => {}
        }
        found
    }
}

impl Provider for Proxmox {
    fn inspect(_: &dyn Host, _: &Config, target: &Target) -> Result<Support, Error> {
        let machine = Machine::of(target)?;
        let mut actions = vec![
            Supported {
                action: Action::On,
                note: "a paused machine goes on".to_owned(),
            },
            Supported::plainly(Action::Shutdown),
            Supported::plainly(Action::Off),
            Supported::plainly(Action::Reboot),
        ];
        if machine.kind == Kind::Qemu {
            actions.push(Supported::plainly(Action::Reset));
        }
        Ok(Support {
            actions,
            observable: true,
            boot_devices: Vec::new(),
            cancellable: false,
            settle_ms: 15_000,
            max_parallel: 4,
        })
    }

    fn check_target(
        host: &dyn Host,
        config: &Config,
        target: &Target,
    ) -> Result<Vec<Diagnostic>, Error> {
        let (machine, client) = client(host, config, target)?;
        let current: Current = client.get(&machine.url("status/current"))?;
        let mut found = Vec::new();
        if machine.server.starts_with("http://") {
            found.push(Diagnostic::warning("/address", WITHOUT_TLS));
        }
        if let Some(lock) = current.lock {
            found.push(Diagnostic::info(
                "",
                format!("locked at the moment: {lock}"),
            ));
        }
        let path = format!("/vms/{}", machine.id);
        let url = format!(
            "{}/api2/json/access/permissions?path={path}",
            machine.server
        );
        // What the token may do is its own to ask; a server that does not say is none the worse.
        let known: Result<Map<String, Value>, _> = client.get(&url);
        let granted = known.ok().and_then(|all| all.get(&path).cloned());
        if granted.is_some_and(|granted| granted.get("VM.PowerMgmt").is_none()) {
            let message = "the token may look at the machine and not turn it on or off: it lacks \
                           VM.PowerMgmt";
            found.push(Diagnostic::error("", message));
        }
        Ok(found)
    }

    fn observe(host: &dyn Host, config: &Config, target: &Target) -> Result<Observation, Error> {
        let (machine, client) = client(host, config, target)?;
        match client.get::<Current>(&machine.url("status/current")) {
            Ok(current) => Ok(current.observation()),
            Err(error) if error.code == api::ABSENT => {
                Ok(Observation::new(State::Absent, "does not exist"))
            }
            Err(error) => Err(error),
        }
    }

    fn begin(
        host: &dyn Host,
        config: &Config,
        operation: &Operation,
        target: &Target,
    ) -> Result<Begun, Error> {
        let (machine, client) = client(host, config, target)?;
        if operation.boot.is_some() {
            let message = "Proxmox VE knows no boot device for one boot alone";
            return Err(Error::unsupported("proxmox.boot", message));
        }
        let mut verb = match operation.action {
            Action::On => "start",
            Action::Shutdown => "shutdown",
            Action::Off => "stop",
            Action::Reboot => "reboot",
            Action::Reset if machine.kind == Kind::Qemu => "reset",
            Action::Reset | Action::Cycle | Action::Nmi => {
                let message = format!("Proxmox VE cannot do this with {}", machine.kind.word());
                return Err(Error::unsupported("proxmox.action", message));
            }
        };
        let current: Current = client.get(&machine.url("status/current"))?;
        let seen = current.observation();
        if seen.is_where_it_leads(operation.action) {
            return Ok(Begun::Already(seen));
        }
        // A machine whose memory lies on disk is locked until it is started.
        let hibernated = current.state() == State::Suspended && operation.action == Action::On;
        if let Some(lock) = current.lock.as_deref().filter(|_| !hibernated) {
            let message = format!("the machine is locked: {lock}");
            return Err(Error::busy(api::LOCKED, message));
        }
        if verb == "start" && current.is_paused() {
            verb = "resume";
        }
        let form = match verb {
            "shutdown" | "reboot" => {
                let left = operation.deadline_ms.saturating_sub(host.now_ms()) / 1000;
                format!("timeout={}", left.clamp(10, 3_600))
            }
            _ => String::new(),
        };
        let task = client.submit(&machine.url(&format!("status/{verb}")), &form)?;
        Ok(Begun::Submitted(progress(&task)))
    }

    fn poll(
        host: &dyn Host,
        config: &Config,
        _: &Operation,
        target: &Target,
        cursor: &[u8],
    ) -> Result<Step, Error> {
        let (machine, client) = client(host, config, target)?;
        let task = std::str::from_utf8(cursor).ok();
        let Some((task, node)) = task.and_then(|task| Some((task, api::node_of_task(task)?)))
        else {
            return Err(Error::invalid("proxmox.cursor", "the cursor is no task"));
        };
        let server = &machine.server;
        let url = format!("{server}/api2/json/nodes/{node}/tasks/{task}/status");
        let known: Task = client.get(&url)?;
        match (known.status.as_str(), known.exitstatus.as_deref()) {
            ("running", _) => Ok(Step::Running(progress(task))),
            ("stopped", Some(exit)) if exit == "OK" || exit.starts_with("WARNINGS") => {
                Ok(Step::Done)
            }
            ("stopped", exit) => {
                // Not tried again: the same task has failed for good. What it did before it did is
                // not known; a guest that did not shut down in time may still do it.
                let why = exit.unwrap_or("without saying why");
                let message = format!("the task failed: {why}");
                let mut error = Error::new(ErrorKind::Conflict, "proxmox.task_failed", message);
                error.outcome_unknown = true;
                Err(error.detail("task", task))
            }
            (other, _) => {
                let message = format!("the task is {other}, which is no word of this API");
                Err(Error::upstream("proxmox.answer", message))
            }
        }
    }

    /// Tasks carry nothing of ours, so that one that looks like it may be somebody else's. Where
    /// an action leads to a state and the machine is there, nothing is left to be done.
    fn resume(
        host: &dyn Host,
        config: &Config,
        operation: &Operation,
        target: &Target,
    ) -> Result<Resumed, Error> {
        let seen = Self::observe(host, config, target)?;
        Ok(if seen.is_where_it_leads(operation.action) {
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
        let Some(server) = config.server.as_deref() else {
            let message = "the configuration names no server to look at";
            return Err(Error::unsupported("power.no_list", message));
        };
        let server = address::server(server)
            .ok_or_else(|| Error::invalid("config.invalid", "server is not an address"))?;
        let client = Client {
            host,
            token_id: token_id(config, &Params::default())?,
            tls_profile: config.tls_profile.clone(),
            route: config.route.clone(),
        };
        discover::page(&client, &server, cursor)
    }
}

fn progress(task: &str) -> Progress {
    Progress {
        cursor: task.as_bytes().to_vec(),
        poll_after_ms: POLL_MS,
        remote_id: Some(task.to_owned()),
        percent: None,
        message: String::new(),
    }
}

fn client<'a>(
    host: &'a dyn Host,
    config: &Config,
    target: &Target,
) -> Result<(Machine, Client<'a>), Error> {
    let client = Client {
        host,
        token_id: token_id(config, &target.read_params()?)?,
        tls_profile: target.tls_profile.clone(),
        route: target.route.clone(),
    };
    Ok((Machine::of(target)?, client))
}

const WITHOUT_TLS: &str = "without TLS everybody on the way reads the token";
const TOKEN_ID_FORM: &str = "must be as in USER@REALM!TOKEN";

fn token_id(config: &Config, params: &Params) -> Result<String, Error> {
    let id = params.token_id.as_ref().or(config.token_id.as_ref());
    match id {
        Some(id) if is_token_id(id) => Ok(id.clone()),
        Some(_) => Err(Error::invalid(
            "target.params",
            format!("token_id {TOKEN_ID_FORM}"),
        )),
        None => {
            let message = "neither the target's params nor the configuration name a token";
            Err(Error::invalid("target.params", message))
        }
    }
}

/// It stands in a header in front of the secret.
fn is_token_id(text: &str) -> bool {
    let part = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_+".contains(c);
        !text.is_empty() && text.len() <= 64 && text.chars().all(plain)
    };
    text.rsplit_once('!').is_some_and(|(user, token)| {
        let user = user.rsplit_once('@');
        part(token) && user.is_some_and(|(name, realm)| part(name) && part(realm))
    })
}

loopback_plugin_sdk::export_power_provider!(Proxmox);

#[cfg(test)]
mod tests;
