//! What the API answers.

use loopback_plugin_sdk::http::Response;
use loopback_plugin_sdk::power::{Found, Observation, Progress, State};
use loopback_plugin_sdk::{Error, ErrorKind, Kv};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The longest that a limit of requests is waited for. The header names the time at which all of
/// it is there again, up to an hour; it fills up steadily, so a minute brings some.
const LIMIT_MS: u64 = 60_000;

#[derive(Deserialize)]
pub(crate) struct OneServer {
    pub(crate) server: Server,
}

#[derive(Deserialize)]
pub(crate) struct Servers {
    pub(crate) servers: Vec<Server>,
    #[serde(default)]
    pub(crate) meta: Meta,
}

#[derive(Default, Deserialize)]
pub(crate) struct Meta {
    #[serde(default)]
    pub(crate) pagination: Pagination,
}

#[derive(Default, Deserialize)]
pub(crate) struct Pagination {
    pub(crate) next_page: Option<u64>,
}

/// A server. Only what is needed: fields come and go.
#[derive(Deserialize)]
pub(crate) struct Server {
    pub(crate) id: u64,
    #[serde(default)]
    name: String,
    status: String,
    #[serde(default)]
    locked: bool,
    #[serde(default)]
    rescue_enabled: bool,
    #[serde(default)]
    private_net: Vec<Card>,
    server_type: Option<Named>,
    datacenter: Option<Named>,
}

#[derive(Deserialize)]
struct Card {
    mac_address: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
pub(crate) struct OneAction {
    pub(crate) action: Action,
}

#[derive(Deserialize)]
pub(crate) struct Actions {
    pub(crate) actions: Vec<Action>,
}

/// Something that the cloud does.
#[derive(Deserialize)]
pub(crate) struct Action {
    pub(crate) id: u64,
    pub(crate) command: String,
    status: String,
    progress: Option<u8>,
    error: Option<Said>,
}

#[derive(Deserialize)]
struct Refused {
    error: Said,
}

#[derive(Deserialize)]
struct Said {
    code: String,
    #[serde(default)]
    message: String,
}

impl Server {
    pub(crate) fn observation(&self) -> Observation {
        let state = match self.status.as_str() {
            "running" => State::On,
            "off" => State::Off,
            "starting" | "initializing" => State::PoweringOn,
            "stopping" => State::PoweringOff,
            "deleting" => State::Absent,
            // While it moves or is made anew, the API does not say whether it runs.
            _ => State::Unknown,
        };
        let mut seen = Observation::new(state, self.status.as_str());
        let kv = |key: &str, value: &str| Kv {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        if self.locked {
            seen.extra.push(kv("locked", "an action is under way"));
        }
        if self.rescue_enabled {
            seen.extra.push(kv("next_boot", "the rescue system"));
        }
        for (key, named) in [
            ("type", &self.server_type),
            ("datacenter", &self.datacenter),
        ] {
            if let Some(named) = named {
                seen.extra.push(kv(key, &named.name));
            }
        }
        seen
    }

    pub(crate) fn found(self) -> Found {
        let seen = self.observation();
        let id = self.id.to_string();
        let macs = self
            .private_net
            .into_iter()
            .filter_map(|card| card.mac_address);
        Found {
            address: id.clone(),
            params: "{}".to_owned(),
            name: self.name,
            // Of public interfaces the API does not tell.
            macs: macs.map(|mac| mac.to_ascii_lowercase()).collect(),
            // The firmware of these machines shows the id as the system's serial number.
            serial: Some(id.clone()),
            provider_id: Some(id),
            state: seen.state,
            extra: seen.extra,
        }
    }
}

/// How an action goes on: `None` when it has happened.
pub(crate) fn progress(action: &Action) -> Result<Option<Progress>, Error> {
    match action.status.as_str() {
        "running" => Ok(Some(Progress {
            cursor: action.id.to_string().into_bytes(),
            poll_after_ms: 1_000,
            remote_id: Some(action.id.to_string()),
            percent: action.progress,
            message: format!("{} is under way", action.command),
        })),
        "success" => Ok(None),
        "error" => {
            let (code, message) = match &action.error {
                Some(said) => (said.code.as_str(), said.message.as_str()),
                None => ("", "it does not say why"),
            };
            // Its end, so not of a kind that is tried again.
            let message = format!("{} failed ({code}): {message}", action.command);
            let error = Error::new(ErrorKind::Conflict, "hetzner.action_failed", message);
            Err(error.detail("action", action.id.to_string()))
        }
        other => Err(strange(&format!("an action is `{other}`"))),
    }
}

/// The answer, as what it should be.
pub(crate) fn read<T: DeserializeOwned>(answer: &Response) -> Result<T, Error> {
    serde_json::from_slice(&answer.body).map_err(|error| strange(&error.to_string()))
}

fn strange(why: &str) -> Error {
    let message = format!("the answer is not what the API answers: {why}");
    Error::upstream("hetzner.answer", message)
}

/// The answer if it is one of success, or what the API says against it. `outcome_unknown` is set
/// where an action may be under way all the same.
pub(crate) fn success(answer: Response, now_ms: u64) -> Result<Response, Error> {
    let said = serde_json::from_slice::<Refused>(&answer.body);
    let (status, reset) = (answer.status, reset_ms(&answer, now_ms));
    let mut error = match answer.success("hetzner", now_ms) {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    error.outcome_unknown = matches!(status, 408 | 500..=599) && status != 503;
    if let Ok(Refused { error: said }) = said
        && status >= 400
    {
        error.message = format!("{}: {}", said.code, said.message);
        let known = match said.code.as_str() {
            "unauthorized" => Some((ErrorKind::Auth, "hetzner.unauthorized")),
            "forbidden" | "token_readonly" => Some((ErrorKind::Forbidden, "hetzner.forbidden")),
            "protected" => Some((ErrorKind::Forbidden, "hetzner.protected")),
            "resource_limit_exceeded" => Some((ErrorKind::Forbidden, "hetzner.limit")),
            "not_found" => Some((ErrorKind::NotFound, "hetzner.not_found")),
            "locked" => Some((ErrorKind::Busy, "hetzner.locked")),
            // Something changed the server meanwhile, says the API, and one may ask again.
            "conflict" => Some((ErrorKind::Busy, "hetzner.conflict")),
            "maintenance" => Some((ErrorKind::Busy, "hetzner.maintenance")),
            "rate_limit_exceeded" => Some((ErrorKind::Throttled, "hetzner.throttled")),
            "resource_unavailable" | "placement_error" => {
                Some((ErrorKind::Upstream, "hetzner.unavailable"))
            }
            "unsupported_error" => Some((ErrorKind::Unsupported, "hetzner.unsupported")),
            _ => None,
        };
        if let Some((kind, code)) = known {
            error.kind = kind;
            error.code = code.to_owned();
            error.outcome_unknown = false;
        }
    } else if status == 423 {
        error.kind = ErrorKind::Busy;
    }
    if error.kind == ErrorKind::Throttled {
        error.retry_after_ms = error.retry_after_ms.or(reset);
    }
    Err(error)
}

fn reset_ms(answer: &Response, now_ms: u64) -> Option<u64> {
    let seconds: u64 = answer.header("ratelimit-reset")?.trim().parse().ok()?;
    let left = seconds.saturating_mul(1000).saturating_sub(now_ms);
    Some(left.clamp(1_000, LIMIT_MS))
}
