//! Tests of a plugin, as files: what goes in, what the plugin meets, and what is to come out.
//!
//! ```toml
//! [config]
//! url = "https://hooks.example/in"
//!
//! [[input]]                      # laid over a sample of the kind, so it holds what matters
//! kind = "host.unreachable"
//!
//! [[http]]                       # requests in their order, and what they are answered
//! url = "https://hooks.example/in"
//! contains = ['"kind":"host.unreachable"']
//! status = 429
//! headers = { retry-after = "30" }
//!
//! [expect]
//! answer = [{ Err = { kind = "Throttled", retry_after_ms = 30000 } }]
//! ```
//!
//! What is written under `answer` must be in the answer; the answer may have more.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use model::names::Name;
use model::plugin::PluginKind;
use plugin_host::ports::{Credential, ErrorKind, GuestError, HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::datagrams::Datagram;

/// A test.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fixture {
    /// Which function, as in `plugin.check-config`. The kind's own unless said.
    #[serde(default)]
    pub(crate) call: Option<String>,
    /// The configuration.
    #[serde(default = "nothing")]
    pub(crate) config: Value,
    /// What goes in.
    #[serde(default)]
    pub(crate) input: Value,
    /// The time.
    #[serde(default = "some_time")]
    pub(crate) now_ms: u64,
    /// What is left of the call, as the plugin is told.
    #[serde(default)]
    pub(crate) remaining_ms: Option<u64>,
    /// Secrets, by the plugin's names.
    #[serde(default)]
    pub(crate) secrets: BTreeMap<Name, String>,
    /// Values from earlier calls.
    #[serde(default)]
    pub(crate) state: BTreeMap<String, String>,
    /// Limits that differ, by their names in a grant: for seeing what happens at one.
    #[serde(default)]
    pub(crate) limits: serde_json::Map<String, Value>,
    /// Requests and answers.
    #[serde(default)]
    pub(crate) http: Vec<Exchange>,
    /// Datagrams and what comes back.
    #[serde(default)]
    pub(crate) datagram: Vec<Datagram>,
    /// Hardware addresses of machines that are woken, in their order.
    #[serde(default)]
    pub(crate) wake: Vec<String>,
    /// What is to come out.
    #[serde(default)]
    pub(crate) expect: Expect,
}

/// A request, and what it is answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exchange {
    /// `POST`, say.
    method: Option<String>,
    /// All of it.
    url: Option<String>,
    /// Headers that must be there, names in lower case.
    #[serde(default)]
    with: BTreeMap<String, String>,
    /// What the body must contain.
    #[serde(default)]
    contains: Vec<String>,
    /// Names of secrets in it.
    secrets: Option<Vec<String>>,
    /// The answer's status.
    #[serde(default = "ok")]
    status: u16,
    /// The answer's headers.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The answer's body.
    #[serde(default)]
    body: String,
    /// Instead of an answer: nothing came back.
    error: Option<Failure>,
}

/// How a request fails.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Failure {
    /// `unreachable`, `timeout` or `denied`.
    kind: String,
    #[serde(default)]
    outcome_unknown: bool,
}

/// What is to come out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    /// What must be in the answer.
    #[serde(default)]
    pub(crate) answer: Option<Value>,
    /// Texts that must be in the answer: of an installer, in its script.
    #[serde(default)]
    pub(crate) contains: Vec<String>,
    /// Texts that must not.
    #[serde(default)]
    pub(crate) lacks: Vec<String>,
    /// The code of the reason why there is no answer, as in `trap`, or of the plugin's own error.
    #[serde(default)]
    pub(crate) failed: Option<String>,
    /// Texts that lines of the log must contain, in this order.
    #[serde(default)]
    pub(crate) log: Vec<String>,
    /// Values there must be afterwards.
    #[serde(default)]
    pub(crate) state: BTreeMap<String, String>,
}

fn nothing() -> Value {
    json!({})
}

fn some_time() -> u64 {
    1_700_000_000_000
}

fn ok() -> u16 {
    200
}

impl Fixture {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let fixture = if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            serde_json::from_str(&text).map_err(anyhow::Error::from)
        } else {
            toml::from_str(&text).map_err(anyhow::Error::from)
        };
        fixture.with_context(|| format!("understand {}", path.display()))
    }

    /// The function, and all that goes into it.
    pub(crate) fn call(&self, kind: PluginKind) -> Result<(&str, Value)> {
        let own = match kind {
            PluginKind::Installer => "renderer.render",
            PluginKind::Notifier => "sink.deliver",
            PluginKind::Policy => "authorizer.decide",
            PluginKind::Power => "provider.observe",
        };
        let function = self.call.as_deref().unwrap_or(own);
        let input = match function {
            "renderer.render" => over(installer(), &self.input),
            "authorizer.decide" => over(request(self.now_ms), &self.input),
            "sink.deliver" => match &self.input {
                Value::Null => json!([event(1, self.now_ms)]),
                Value::Array(events) => (1..)
                    .zip(events)
                    .map(|(number, with)| over(event(number, self.now_ms), with))
                    .collect(),
                _ => bail!("the input of sink.deliver is a list of events"),
            },
            "provider.discover" => over(json!({ "cursor": null }), &self.input),
            "provider.inspect" | "provider.check" | "provider.observe" => {
                within(json!({ "target": target() }), &self.input)
            }
            "provider.begin" | "provider.resume" => {
                let sample = json!({ "operation": operation(self.now_ms), "target": target() });
                within(sample, &self.input)
            }
            "provider.poll" | "provider.cancel" => {
                let sample = json!({
                    "operation": operation(self.now_ms), "target": target(), "cursor": [],
                });
                within(sample, &self.input)
            }
            // The configuration is what is looked at.
            _ => over(json!({ "json": self.config.to_string() }), &self.input),
        };
        Ok((function, input))
    }
}

impl Exchange {
    /// How a request differs from this one.
    pub(crate) fn differs(&self, request: &HttpRequest, credentials: &[Credential]) -> Vec<String> {
        let mut found = Vec::new();
        let mut same = |what: &str, wanted: &Option<String>, got: &str| {
            if let Some(wanted) = wanted.as_ref().filter(|wanted| *wanted != got) {
                found.push(format!("{what} is {got}, not {wanted}"));
            }
        };
        same("the method", &self.method, &request.method);
        same("the address", &self.url, &request.url);
        for (name, wanted) in &self.with {
            let got = request
                .headers
                .iter()
                .find(|(header, _)| header.eq_ignore_ascii_case(name));
            let got = got.map_or("missing", |(_, value)| value.as_str());
            same(&format!("header {name}"), &Some(wanted.clone()), got);
        }
        let body = String::from_utf8_lossy(&request.body);
        for text in self.contains.iter().filter(|text| !body.contains(*text)) {
            found.push(format!("the body has no {text}: {body}"));
        }
        let names: Vec<_> = credentials
            .iter()
            .map(|credential| credential.secret.name.to_string())
            .collect();
        if self.secrets.as_ref().is_some_and(|wanted| *wanted != names) {
            found.push(format!("it carries the secrets {names:?}"));
        }
        found
    }

    /// Whether a request is this one. `usual` is the method unless there is one.
    pub(crate) fn is(&self, request: &HttpRequest, usual: &str) -> bool {
        let method = self.method.as_deref().unwrap_or(usual);
        method == request.method && self.differs(request, &[]).is_empty()
    }

    /// Anything, answered with this.
    pub(crate) fn answering(status: u16, headers: BTreeMap<String, String>, body: &str) -> Self {
        Self {
            method: None,
            url: None,
            with: BTreeMap::new(),
            contains: Vec::new(),
            secrets: None,
            status,
            headers,
            body: body.to_owned(),
            error: None,
        }
    }

    /// Anything, and nothing comes back.
    pub(crate) fn failing(kind: &str, outcome_unknown: bool) -> Self {
        let kind = kind.to_owned();
        Self {
            error: Some(Failure {
                kind,
                outcome_unknown,
            }),
            ..Self::answering(200, BTreeMap::new(), "")
        }
    }

    /// The same, with half of its body, or with one that says nothing where there was none.
    pub(crate) fn cut(&self) -> Self {
        let mut cut = self.clone();
        let half = cut.body.chars().count() / 2;
        cut.body = cut.body.chars().take(half).collect();
        if cut.body.is_empty() {
            cut.status = 200;
            cut.body = "{\"cut".to_owned();
        }
        cut
    }

    pub(crate) fn answer(&self) -> Result<HttpResponse, GuestError> {
        if let Some(failure) = &self.error {
            let kind = match failure.kind.as_str() {
                "unreachable" => ErrorKind::Unreachable,
                "timeout" => ErrorKind::Timeout,
                "denied" => ErrorKind::Denied,
                _ => ErrorKind::Other,
            };
            let code = format!("http.{}", failure.kind);
            let mut error = GuestError::new(kind, &code, "the test says so");
            error.outcome_unknown = failure.outcome_unknown;
            error.retry_after = None::<Duration>;
            return Err(error);
        }
        let headers = self.headers.iter();
        Ok(HttpResponse {
            status: self.status,
            headers: headers
                .map(|(name, value)| (name.to_lowercase(), value.clone()))
                .collect(),
            body: self.body.clone().into_bytes(),
        })
    }
}

/// `sample` with the fields of `with` in it.
fn over(mut sample: Value, with: &Value) -> Value {
    match (&mut sample, with) {
        (Value::Object(sample), Value::Object(with)) => {
            for (key, value) in with {
                sample.insert(key.clone(), value.clone());
            }
        }
        (_, Value::Null) => {}
        (sample, with) => *sample = with.clone(),
    }
    sample
}

/// The same, and for the objects in it too: `target` and `operation` are laid over samples.
fn within(mut sample: Value, with: &Value) -> Value {
    for (key, value) in with.as_object().into_iter().flatten() {
        let part = sample.get(key).cloned().unwrap_or_default();
        sample[key] = over(part, value);
    }
    sample
}

fn target() -> Value {
    json!({
        "host": "hst_1",
        "address": "https://bmc.example",
        "params": "{}",
        "tls_profile": null,
        "route": null,
    })
}

fn operation(now_ms: u64) -> Value {
    json!({
        "id": "pop_1",
        "attempt": 1,
        "action": "On",
        "boot": null,
        "deadline_ms": now_ms + 300_000,
        "before": null,
    })
}

fn installer() -> Value {
    let binary = |arch: &str| {
        json!({
            "arch": arch,
            "name": format!("loopback-agent-linux-{arch}"),
            "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "size": 3_141_592,
        })
    };
    json!({
        "base_url": "https://gateway.example:8443",
        "channel": "stable",
        "verbose": false,
        "production": true,
        "workspace": "web",
        "version": "1.2.3",
        "binaries": [binary("x86_64"), binary("aarch64")],
        "ca_pem": "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIU\n-----END CERTIFICATE-----\n",
        "https_pin": "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "release_keys": [
            "loopback-release-1:0f1e2d3c4b5a6978:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        ],
        "paths": [
            { "key": "releases", "value": "/v1/agent/releases" },
            { "key": "script", "value": "/v1/agent/install.sh" },
        ],
        "extra": [],
    })
}

fn event(number: u64, now_ms: u64) -> Value {
    json!({
        "id": format!("evt_{number}"),
        "sequence": number,
        "time_ms": now_ms,
        "kind": "host.unreachable",
        "severity": "critical",
        "workspace": "web",
        "host": "hst_1",
        "summary": "web-1 is unreachable",
        "dedup_key": "hst_1",
        "body": "{}",
        "extra": [],
    })
}

fn request(now_ms: u64) -> Value {
    json!({
        "action": "project.workspace.host.command.run",
        "subject": { "id": "usr_ada", "name": "ada", "roles": ["operator"] },
        "targets": [{
            "kind": "host",
            "id": "hst_1",
            "name": "web-1",
            "workspace": "web",
            "environment": "production",
            "labels": [],
        }],
        "target_count": 1,
        "ticket": null,
        "now_ms": now_ms,
        "approvals": [],
        "break_glass": false,
        "extra": [],
    })
}
