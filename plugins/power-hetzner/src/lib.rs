//! Power of servers in the Hetzner Cloud.
//!
//! Every action of ours is an action there, with an id that is asked after until it has ended, so
//! the cursor is that id. A server that does one thing is locked for others, which is `busy` here.
//!
//! There is no key by which a request that is sent twice would be known for one. After a lost
//! answer, an action of the same command that is under way is taken for ours: servers do one at a
//! time. One that has ended meanwhile cannot be told from somebody else's.

mod answer;

use loopback_plugin_sdk::host::Host;
use loopback_plugin_sdk::http::{Placement, Request, Response};
use loopback_plugin_sdk::power::{
    Action, Begun, FoundPage, Observation, Operation, Provider, Resumed, State, Step, Support,
    Supported, Target,
};
use loopback_plugin_sdk::{Diagnostic, Error, ErrorKind, Plugin};
use schemars::JsonSchema;
use serde::Deserialize;

use answer::{Actions, OneAction, OneServer, Servers};

/// The API's own limit of a page.
const PAGE: u32 = 50;

/// How the cloud is reached.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The API's address, without a slash at its end.
    #[serde(default = "default_endpoint")]
    #[schemars(length(max = 2048))]
    endpoint: String,
    /// How long a request may take.
    #[serde(default = "default_timeout_ms")]
    #[schemars(range(min = 100, max = 30_000))]
    timeout_ms: u32,
    /// How the API proves itself when machines are listed: a profile's name from the grant.
    /// Targets have their own.
    #[serde(default)]
    tls_profile: Option<String>,
    /// Through which agents machines are listed: a route's name from the grant. Targets have
    /// their own.
    #[serde(default)]
    route: Option<String>,
}

fn default_endpoint() -> String {
    "https://api.hetzner.cloud/v1".to_owned()
}

/// A request has to end within a call, and a call of `begin` has two.
fn default_timeout_ms() -> u32 {
    4_000
}

/// Nothing is to be said about a target beyond its id.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {}

struct Hetzner;

impl Plugin for Hetzner {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        let (scheme, rest) = config.endpoint.split_once("://").unwrap_or(("", ""));
        if !matches!(scheme, "https" | "http") || rest.is_empty() {
            found.push(Diagnostic::error(
                "/endpoint",
                "must be an https:// address",
            ));
        }
        if scheme == "http" {
            let message = "without TLS everybody on the way reads the token";
            found.push(Diagnostic::warning("/endpoint", message));
        }
        if rest.contains(['@', '?', '#']) || rest.ends_with('/') {
            let message = "must not have a user, a query, a fragment or a slash at its end";
            found.push(Diagnostic::error("/endpoint", message));
        }
        found
    }
}

/// An action as the API's path names it, and as its list of actions does.
fn words(action: Action) -> Option<(&'static str, &'static str)> {
    match action {
        Action::On => Some(("poweron", "start_server")),
        Action::Shutdown => Some(("shutdown", "shutdown_server")),
        Action::Off => Some(("poweroff", "stop_server")),
        Action::Reboot => Some(("reboot", "reboot_server")),
        Action::Reset => Some(("reset", "reset_server")),
        Action::Cycle | Action::Nmi => None,
    }
}

fn unsupported() -> Error {
    let message = "the cloud has no cycle and no interrupt";
    Error::unsupported("hetzner.action", message)
}

impl Provider for Hetzner {
    fn inspect(_: &dyn Host, _: &Config, target: &Target) -> Result<Support, Error> {
        server_id(target)?;
        let mut actions = [Action::On, Action::Shutdown, Action::Off, Action::Reboot]
            .map(Supported::plainly)
            .to_vec();
        actions.push(Supported {
            action: Action::Reset,
            note: "cuts the power and starts it again".to_owned(),
        });
        Ok(Support {
            actions,
            observable: true,
            boot_devices: Vec::new(),
            cancellable: false,
            settle_ms: 10_000,
            max_parallel: 4,
        })
    }

    fn check_target(
        host: &dyn Host,
        config: &Config,
        target: &Target,
    ) -> Result<Vec<Diagnostic>, Error> {
        let seen = Self::observe(host, config, target)?;
        Ok(match seen.state {
            State::Absent => {
                let message = format!(
                    "there is no such server in the token's project ({})",
                    seen.raw
                );
                vec![Diagnostic::error("", message)]
            }
            _ => Vec::new(),
        })
    }

    fn observe(host: &dyn Host, config: &Config, target: &Target) -> Result<Observation, Error> {
        let id = server_id(target)?;
        let answer = match get(host, config, Some(target), &format!("servers/{id}")) {
            Ok(answer) => answer,
            Err(error) if error.code == "hetzner.not_found" => {
                return Ok(Observation::new(State::Absent, "not_found"));
            }
            Err(error) => return Err(error),
        };
        let OneServer { server } = answer::read(&answer)?;
        if server.id != id {
            let message = "the answer is about another server";
            return Err(Error::upstream("hetzner.answer", message));
        }
        Ok(server.observation())
    }

    fn begin(
        host: &dyn Host,
        config: &Config,
        operation: &Operation,
        target: &Target,
    ) -> Result<Begun, Error> {
        let (word, _) = words(operation.action).ok_or_else(unsupported)?;
        if operation.boot.is_some() {
            let message = "the cloud does not let choose what is booted from";
            return Err(Error::unsupported("hetzner.boot", message));
        }
        let seen = Self::observe(host, config, target)?;
        if seen.is_where_it_leads(operation.action) {
            return Ok(Begun::Already(seen));
        }
        if seen.state == State::Absent {
            let message = format!("the server is no more ({})", seen.raw);
            return Err(Error::new(ErrorKind::NotFound, "hetzner.absent", message));
        }
        let id = server_id(target)?;
        let url = format!("{}/servers/{id}/actions/{word}", config.endpoint);
        let request = Request::post(&url, "application/json", b"{}".to_vec());
        let answer = send(host, config, Some(target), request).map_err(|mut error| {
            // Something came back, and was too long or not HTTP.
            error.outcome_unknown |= error.code.starts_with("http.response");
            error
        })?;
        let OneAction { action } = answer::read(&answer).map_err(taken)?;
        let progress = answer::progress(&action);
        Ok(
            match progress.map_err(|error| match error.kind {
                ErrorKind::Upstream => taken(error),
                _ => error,
            })? {
                Some(progress) => Begun::Submitted(progress),
                None => Begun::Done,
            },
        )
    }

    fn poll(
        host: &dyn Host,
        config: &Config,
        _: &Operation,
        target: &Target,
        cursor: &[u8],
    ) -> Result<Step, Error> {
        let id = str::from_utf8(cursor)
            .ok()
            .and_then(|text| text.parse::<u64>().ok());
        let id = id.ok_or_else(|| Error::invalid("hetzner.cursor", "that is no action's id"))?;
        let answer = get(host, config, Some(target), &format!("actions/{id}"))?;
        let OneAction { action } = answer::read(&answer)?;
        if action.id != id {
            let message = "the answer is about another action";
            return Err(Error::upstream("hetzner.answer", message));
        }
        Ok(match answer::progress(&action)? {
            Some(progress) => Step::Running(progress),
            None => Step::Done,
        })
    }

    fn resume(
        host: &dyn Host,
        config: &Config,
        operation: &Operation,
        target: &Target,
    ) -> Result<Resumed, Error> {
        let (_, command) = words(operation.action).ok_or_else(unsupported)?;
        let id = server_id(target)?;
        let path = format!("servers/{id}/actions?status=running&per_page={PAGE}");
        let Actions { actions } = answer::read(&get(host, config, Some(target), &path)?)?;
        for action in actions.iter().filter(|action| action.command == command) {
            if let Ok(Some(progress)) = answer::progress(action) {
                return Ok(Resumed::Running(progress));
            }
        }
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
        let page: u64 = match cursor {
            None => 1,
            Some(text) => text
                .parse()
                .map_err(|_| Error::invalid("hetzner.cursor", "that is no page"))?,
        };
        let path = format!("servers?page={page}&per_page={PAGE}&sort=id:asc");
        let listed: Servers = answer::read(&get(host, config, None, &path)?)?;
        let next = listed.meta.pagination.next_page;
        Ok(FoundPage {
            found: listed
                .servers
                .into_iter()
                .map(answer::Server::found)
                .collect(),
            // A page that leads back would be read forever.
            next: next
                .filter(|next| *next > page)
                .map(|next| next.to_string()),
        })
    }
}

/// The id in a target's address.
fn server_id(target: &Target) -> Result<u64, Error> {
    let Params {} = target.read_params()?;
    let plain = target.address.bytes().all(|byte| byte.is_ascii_digit());
    match target.address.parse() {
        Ok(id) if plain => Ok(id),
        _ => {
            let message = "the address of a target is a server's id, as in 4711";
            Err(Error::invalid("target.address", message))
        }
    }
}

/// Asks, and changes nothing, whatever the error.
fn get(
    host: &dyn Host,
    config: &Config,
    target: Option<&Target>,
    path: &str,
) -> Result<Response, Error> {
    let request = Request::get(&format!("{}/{path}", config.endpoint));
    send(host, config, target, request).map_err(|mut error| {
        error.outcome_unknown = false;
        error
    })
}

fn send(
    host: &dyn Host,
    config: &Config,
    target: Option<&Target>,
    mut request: Request,
) -> Result<Response, Error> {
    let (profile, route) = match target {
        Some(target) => (&target.tls_profile, &target.route),
        None => (&config.tls_profile, &config.route),
    };
    request.tls_profile.clone_from(profile);
    request.route.clone_from(route);
    request.timeout_ms = config.timeout_ms;
    let answer = host.send(&request.secret("token", Placement::Bearer))?;
    answer::success(answer, host.now_ms())
}

/// An error in what came back once the action was taken.
fn taken(mut error: Error) -> Error {
    error.outcome_unknown = true;
    error
}

loopback_plugin_sdk::export_power_provider!(Hetzner);

#[cfg(test)]
mod tests;
