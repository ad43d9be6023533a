//! What the API answers: errors by its own codes, instances by their states.

use loopback_plugin_sdk::http::Response;
use loopback_plugin_sdk::power::{Found, Observation, State};
use loopback_plugin_sdk::serde_json::json;
use loopback_plugin_sdk::{Error, ErrorKind, Kv};

use crate::xml::Element;

/// The code of an instance that is not there.
pub(crate) const NOT_FOUND: &str = "InvalidInstanceID.NotFound";
/// The code that says that an action would have been done.
pub(crate) const DRY_RUN: &str = "DryRunOperation";
/// The code of an action that does not fit the state.
pub(crate) const STATE: &str = "IncorrectInstanceState";

/// Longer texts of a code are nobody's.
const CODE: usize = 100;

/// An error in the API's own words.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: String,
    pub(crate) error: Error,
}

/// The body of an answer, if it is one of success.
///
/// The API's code decides what an error is, and the status where there is none, as when something
/// between us and the API answers. `outcome_unknown` is set where the action may be under way all
/// the same: whoever has not submitted anything takes it off.
pub(crate) fn read(answer: Response, now_ms: u64) -> Result<String, Refusal> {
    let status = answer.status;
    let text = String::from_utf8_lossy(&answer.body);
    if (200..300).contains(&status) {
        return Ok(text.into_owned());
    }
    let said = Element::read(&text).ok().and_then(|root| {
        let error = match root.child("Errors") {
            Some(errors) => errors.child("Error")?,
            None => root.child("Error")?,
        };
        let code = error.text(&["Code"]).filter(|code| code.len() <= CODE)?;
        // Some clouds write `Client.InvalidInstanceID.NotFound`, as old versions of the API did.
        let code = code.strip_prefix("Client.").unwrap_or(code);
        let code = code.strip_prefix("Server.").unwrap_or(code);
        let message = error.text(&["Message"]).unwrap_or("it does not say why");
        let id = ["RequestID", "RequestId"]
            .iter()
            .find_map(|name| root.text(&[name]));
        Some((code.to_owned(), message.to_owned(), id.map(str::to_owned)))
    });
    let by_status = match answer.success("ec2", now_ms) {
        Err(error) => error,
        Ok(_) => Error::internal("ec2.status", "a status that is none"),
    };
    let Some((code, message, request_id)) = said else {
        let mut error = by_status;
        error.outcome_unknown = matches!(status, 408 | 500..=599) && status != 503;
        let code = String::new();
        return Err(Refusal { code, error });
    };
    let (kind, word, outcome_unknown) = kind_of(&code, status);
    let mut error = Error::new(kind, &format!("ec2.{word}"), format!("{code}: {message}"));
    error.outcome_unknown = outcome_unknown;
    // The API says when to come back by this header or not at all; its buckets refill in seconds
    // or minutes, by action and account, so anything else here would be made up.
    error.retry_after_ms = by_status.retry_after_ms;
    if let Some(id) = request_id {
        error = error.detail("request_id", id);
    }
    Err(Refusal { code, error })
}

/// What an error of the API is, and whether the action may be under way all the same.
fn kind_of(code: &str, status: u16) -> (ErrorKind, &'static str, bool) {
    match code {
        "AuthFailure"
        | "SignatureDoesNotMatch"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "UnrecognizedClientException"
        | "MissingAuthenticationToken"
        | "IncompleteSignature"
        | "ExpiredToken"
        | "ExpiredTokenException"
        // Of temporary credentials that have ended, or of a clock that is wrong.
        | "RequestExpired" => (ErrorKind::Auth, "auth", false),
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" | "OptInRequired" | "Blocked"
        | "PendingVerification" => (ErrorKind::Forbidden, "unauthorized", false),
        // Protected against being stopped, by who runs it.
        "OperationNotPermitted" => (ErrorKind::Forbidden, "not_permitted", false),
        NOT_FOUND => (ErrorKind::NotFound, "instance_not_found", false),
        STATE | "IncorrectState" => (ErrorKind::Conflict, "instance_state", false),
        "UnsupportedOperation" => (ErrorKind::Unsupported, "unsupported", false),
        "RequestLimitExceeded" | "Throttling" | "ThrottlingException" | "RequestThrottled"
        | "RequestThrottledException" | "TooManyRequestsException" => {
            (ErrorKind::Throttled, "throttled", false)
        }
        "Unavailable" | "ServiceUnavailable" => (ErrorKind::Busy, "unavailable", false),
        "InsufficientInstanceCapacity" | "InsufficientHostCapacity" | "InsufficientCapacity"
        | "InsufficientReservedInstanceCapacity" => {
            (ErrorKind::Upstream, "capacity", false)
        }
        "InstanceLimitExceeded" | "VcpuLimitExceeded" | "MaxSpotInstanceCountExceeded" => {
            (ErrorKind::Forbidden, "quota", false)
        }
        _ => match status {
            401 | 407 => (ErrorKind::Auth, "auth", false),
            403 => (ErrorKind::Forbidden, "refused", false),
            429 => (ErrorKind::Throttled, "throttled", false),
            500..=599 => (ErrorKind::Upstream, "failed", true),
            _ => (ErrorKind::Invalid, "refused", false),
        },
    }
}

/// An answer of success that is not what it should be.
pub(crate) fn strange(why: &str) -> Error {
    Error::upstream(
        "ec2.answer",
        format!("the answer is not what the API answers: {why}"),
    )
}

/// An instance.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) observation: Observation,
    /// Its root lies on a disk of the machine, and stopping would lose it: the API refuses to.
    pub(crate) unstoppable: bool,
    name: Option<String>,
    macs: Vec<String>,
}

impl Instance {
    /// The instances in an answer to `DescribeInstances`, and the token of the next page.
    pub(crate) fn page(text: &str) -> Result<(Vec<Self>, Option<String>), Error> {
        let root = Element::read(text).map_err(strange)?;
        if root.name != "DescribeInstancesResponse" {
            return Err(strange("another element"));
        }
        let reservations = root.items("reservationSet");
        let instances = reservations.flat_map(|one| one.items("instancesSet"));
        let instances = instances.map(Self::read).collect::<Result<_, _>>()?;
        Ok((instances, root.text(&["nextToken"]).map(str::to_owned)))
    }

    fn read(item: &Element<'_>) -> Result<Self, Error> {
        let id = item.text(&["instanceId"]);
        let id = id.ok_or_else(|| strange("an instance without an id"))?;
        let raw = item.text(&["instanceState", "name"]);
        let raw = raw.ok_or_else(|| strange("an instance without a state"))?;
        let mut observation = Observation::new(state(raw), raw);
        observation.boot_mark = item.text(&["launchTime"]).map(str::to_owned);
        for (key, path) in [
            ("reason", &["stateReason", "message"][..]),
            ("type", &["instanceType"]),
            ("zone", &["placement", "availabilityZone"]),
            ("lifecycle", &["instanceLifecycle"]),
        ] {
            if let Some(value) = item.text(path) {
                observation.extra.push(Kv {
                    key: key.to_owned(),
                    value: value.to_owned(),
                });
            }
        }
        let mut tags = item.items("tagSet");
        let name = tags.find(|tag| tag.text(&["key"]) == Some("Name"));
        let cards = item.items("networkInterfaceSet");
        let macs = cards.filter_map(|card| card.text(&["macAddress"]));
        Ok(Self {
            id: id.to_owned(),
            observation,
            unstoppable: item.text(&["rootDeviceType"]) == Some("instance-store"),
            name: name.and_then(|tag| tag.text(&["value"])).map(str::to_owned),
            macs: macs.map(str::to_ascii_lowercase).collect(),
        })
    }

    pub(crate) fn found(self, region: &str) -> Found {
        Found {
            address: self.id.clone(),
            params: json!({ "region": region }).to_string(),
            name: self.name.unwrap_or_else(|| self.id.clone()),
            macs: self.macs,
            // What firmware shows as such is not in the API.
            serial: None,
            provider_id: Some(self.id),
            state: self.observation.state,
            extra: self.observation.extra,
        }
    }
}

fn state(word: &str) -> State {
    match word {
        "pending" => State::PoweringOn,
        "running" => State::On,
        "stopping" => State::PoweringOff,
        "stopped" => State::Off,
        "shutting-down" | "terminated" => State::Absent,
        _ => State::Unknown,
    }
}
