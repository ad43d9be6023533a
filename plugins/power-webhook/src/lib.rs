//! Power by a controller of one's own: a relay board, a script in front of a rack's own protocol.
//!
//! The operator says which request is which action, which one tells the state and in which words,
//! and which one tells how far a job is. Nothing is assumed of the controller beyond that, so what
//! it does not tell is not known: without `observe` nothing is already so, and nothing is confirmed
//! but by the host's agent.
//!
//! With `sign`, `Loopback-Signature: t=SECONDS,v1=HEX` is the HMAC-SHA256 of `SECONDS.BODY`, as
//! notifications have it. `Idempotency-Key: OPERATION/ATTEMPT` is the same whenever a request for
//! one submission arrives, however often that is.

mod config;
mod template;

use loopback_plugin_sdk::host::{Hash, Host};
use loopback_plugin_sdk::http::{Placement, Request, Response};
use loopback_plugin_sdk::power::{
    Begun, Observation, Operation, Progress, Provider, Resumed, State, Step, Support, Supported,
    Target,
};
use loopback_plugin_sdk::{Diagnostic, Error, ErrorKind, Plugin};
use serde::Deserialize;
use serde_json::{Value, json};

use config::{Config, Poll, Word};
use template::Values;

/// What a cursor begins with, so that one of something else is not asked after.
const CURSOR: &str = "job:";
/// Names of jobs are at most this long.
const JOB: usize = 512;

/// Nothing is to be said about a target beyond its address.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {}

struct Webhook;

impl Plugin for Webhook {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        config.check()
    }
}

impl Provider for Webhook {
    fn inspect(_: &dyn Host, config: &Config, target: &Target) -> Result<Support, Error> {
        let Params {} = target.read_params()?;
        let actions = config.actions.iter().map(|(word, ask)| Supported {
            action: word.action(),
            note: ask.note.clone(),
        });
        Ok(Support {
            actions: actions.collect(),
            observable: config.observe.is_some(),
            boot_devices: Vec::new(),
            cancellable: false,
            settle_ms: config.settle_ms,
            max_parallel: 0,
        })
    }

    fn check_target(
        host: &dyn Host,
        config: &Config,
        target: &Target,
    ) -> Result<Vec<Diagnostic>, Error> {
        if config.observe.is_none() {
            let Params {} = target.read_params()?;
            let message =
                "the controller was not asked: no request is configured that tells states";
            return Ok(vec![Diagnostic::info("", message)]);
        }
        let seen = Self::observe(host, config, target)?;
        Ok(match seen.state {
            State::Absent => {
                let message = format!("the controller knows no such machine ({})", seen.raw);
                vec![Diagnostic::error("", message)]
            }
            State::Unknown => {
                let message = format!("what `{}` means is not configured", seen.raw);
                vec![Diagnostic::warning("", message)]
            }
            _ => Vec::new(),
        })
    }

    fn observe(host: &dyn Host, config: &Config, target: &Target) -> Result<Observation, Error> {
        let Params {} = target.read_params()?;
        let Some(observe) = &config.observe else {
            let message = "no request is configured that tells states";
            return Err(Error::unsupported("webhook.no_observe", message));
        };
        let values = values(target, None);
        let answer = get(host, config, target, &observe.path, &values)?;
        let raw = word(&answer, &observe.state)?;
        let raw = raw.ok_or_else(|| strange("there is no state in it"))?;
        let state = observe.states.get(&raw).map(|word| word.state());
        let mut seen = Observation::new(state.unwrap_or(State::Unknown), raw);
        if let Some(pointer) = &observe.boot_mark {
            seen.boot_mark = word(&answer, pointer)?;
        }
        Ok(seen)
    }

    fn begin(
        host: &dyn Host,
        config: &Config,
        operation: &Operation,
        target: &Target,
    ) -> Result<Begun, Error> {
        let Params {} = target.read_params()?;
        let named = Word::of(operation.action);
        let Some(ask) = config.actions.get(&named) else {
            let message = format!("no request is configured for {}", named.text());
            return Err(Error::unsupported("webhook.action", message));
        };
        if operation.boot.is_some() {
            let message = "what is booted from cannot be chosen by this provider";
            return Err(Error::unsupported("webhook.boot", message));
        }
        if config.observe.is_some() {
            let seen = Self::observe(host, config, target)?;
            if seen.is_where_it_leads(operation.action) {
                return Ok(Begun::Already(seen));
            }
            if seen.state == State::Absent {
                let message = format!("the controller knows no such machine ({})", seen.raw);
                return Err(Error::new(ErrorKind::NotFound, "webhook.absent", message));
            }
        }
        let values = values(target, Some(operation));
        let url = format!("{}{}", config.url, template::path(&ask.path, &values)?);
        let mut request = Request::new(ask.method.text(), &url);
        if ask.method.has_body() {
            let body = match &ask.body {
                Some(body) => template::body(body, &values),
                None => json!({
                    "action": named.text(),
                    "address": target.address,
                    "host": target.host,
                    "operation": operation.id,
                    "attempt": operation.attempt,
                }),
            };
            request.body = serde_json::to_vec(&body)?;
            request = request.header("content-type", "application/json");
        }
        let key = format!("{}/{}", operation.id, operation.attempt);
        let request = request.header("idempotency-key", &key);
        let answer = send(host, config, target, request).map_err(|mut error| {
            // Something came back, and was too long or not HTTP.
            error.outcome_unknown |= error.code.starts_with("http.response");
            error
        })?;
        let Some(poll) = &config.poll else {
            return Ok(Begun::Done);
        };
        // An answer without a body names no job.
        if answer.body.is_empty() {
            return Ok(Begun::Done);
        }
        let job = job(&answer, poll).map_err(|mut error| {
            error.outcome_unknown = true;
            error
        })?;
        Ok(match job {
            Some(job) => Begun::Submitted(progress(&job, "taken")),
            None => Begun::Done,
        })
    }

    fn poll(
        host: &dyn Host,
        config: &Config,
        operation: &Operation,
        target: &Target,
        cursor: &[u8],
    ) -> Result<Step, Error> {
        let Params {} = target.read_params()?;
        let Some(poll) = &config.poll else {
            let message = "no request is configured any more that tells how far a job is";
            return Err(Error::unsupported("webhook.no_poll", message));
        };
        let job = str::from_utf8(cursor).ok();
        let job = job.and_then(|text| text.strip_prefix(CURSOR));
        let job = job.ok_or_else(|| Error::invalid("webhook.cursor", "that is no job"))?;
        let mut values = values(target, Some(operation));
        values.job = Some(job);
        let answer = get(host, config, target, &poll.path, &values)?;
        let word = word(&answer, &poll.state)?;
        let word = word.ok_or_else(|| strange("there is no job's state in it"))?;
        if poll.done.contains(&word) {
            Ok(Step::Done)
        } else if poll.running.contains(&word) {
            Ok(Step::Running(progress(job, &word)))
        } else if poll.failed.contains(&word) {
            // Its end, so not of a kind that is tried again.
            let message = format!("the controller says that the job is `{word}`");
            let error = Error::new(ErrorKind::Conflict, "webhook.job_failed", message);
            Err(error.detail("job", job))
        } else {
            Err(strange(&format!(
                "what a job that is `{word}` does is not configured"
            )))
        }
    }

    fn resume(
        host: &dyn Host,
        config: &Config,
        operation: &Operation,
        target: &Target,
    ) -> Result<Resumed, Error> {
        if config.observe.is_none() {
            return Ok(Resumed::Unknown);
        }
        let seen = Self::observe(host, config, target)?;
        Ok(if seen.is_where_it_leads(operation.action) {
            Resumed::Done
        } else {
            Resumed::Unknown
        })
    }
}

fn values<'a>(target: &'a Target, operation: Option<&'a Operation>) -> Values<'a> {
    Values {
        address: &target.address,
        host: &target.host,
        action: operation.map(|operation| Word::of(operation.action).text()),
        operation: operation.map(|operation| operation.id.as_str()),
        job: None,
    }
}

fn progress(job: &str, message: &str) -> Progress {
    Progress {
        cursor: format!("{CURSOR}{job}").into_bytes(),
        poll_after_ms: 0,
        remote_id: Some(job.to_owned()),
        percent: None,
        message: message.to_owned(),
    }
}

/// The job in an action's answer, if there is one.
fn job(answer: &Response, poll: &Poll) -> Result<Option<String>, Error> {
    let job = word(answer, &poll.job)?;
    if job
        .as_ref()
        .is_some_and(|job| job.is_empty() || job.len() > JOB)
    {
        return Err(strange("the job's name is empty or too long"));
    }
    Ok(job)
}

/// What stands at this place of the answer, as a text.
fn word(answer: &Response, pointer: &str) -> Result<Option<String>, Error> {
    let said: Value =
        serde_json::from_slice(&answer.body).map_err(|error| strange(&error.to_string()))?;
    match said.pointer(pointer) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => Ok(Some(value.to_string())),
        Some(Value::Array(_) | Value::Object(_)) => {
            Err(strange(&format!("there is more than a word at {pointer}")))
        }
    }
}

fn strange(why: &str) -> Error {
    let message = format!("the answer is not as configured: {why}");
    Error::upstream("webhook.answer", message)
}

/// Asks, and changes nothing, whatever the error.
fn get(
    host: &dyn Host,
    config: &Config,
    target: &Target,
    path: &str,
    values: &Values<'_>,
) -> Result<Response, Error> {
    let url = format!("{}{}", config.url, template::path(path, values)?);
    send(host, config, target, Request::get(&url)).map_err(|mut error| {
        error.outcome_unknown = false;
        error
    })
}

fn send(
    host: &dyn Host,
    config: &Config,
    target: &Target,
    mut request: Request,
) -> Result<Response, Error> {
    request.tls_profile.clone_from(&target.tls_profile);
    request.route.clone_from(&target.route);
    request.timeout_ms = config.timeout_ms;
    request = request.header("user-agent", "loopback-power-webhook");
    if config.sign {
        let signature = signature(host, &request.body)?;
        request = request.header("loopback-signature", &signature);
    }
    if config.bearer {
        request = request.secret("token", Placement::Bearer);
    }
    let answer = host.send(&request)?;
    let status = answer.status;
    answer
        .success("webhook", host.now_ms())
        .map_err(|mut error| {
            // Whoever breaks in the middle of an action may have begun it; 503 refuses.
            error.outcome_unknown = matches!(status, 408 | 500..=599) && status != 503;
            error
        })
}

fn signature(host: &dyn Host, body: &[u8]) -> Result<String, Error> {
    use std::fmt::Write as _;
    let seconds = host.now_ms() / 1000;
    let mut signed = format!("{seconds}.").into_bytes();
    signed.extend_from_slice(body);
    let mac = host.hmac("signing", Hash::Sha256, &signed)?;
    let mut header = format!("t={seconds},v1=");
    for byte in mac {
        let _ = write!(header, "{byte:02x}");
    }
    Ok(header)
}

loopback_plugin_sdk::export_power_provider!(Webhook);

#[cfg(test)]
mod tests;
