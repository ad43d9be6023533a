//! `tests/conformance.toml`: what the peer of a power provider is asked and answers, in the
//! provider's own words. docs/power/conformance.md describes it field by field.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use model::names::Name;
use plugin_host::power::{Action, State, Target};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::fixture::Exchange;

/// What providers pass on into every request about a target.
pub(super) const TLS_PROFILE: &str = "conformance-tls";
/// The same.
pub(super) const ROUTE: &str = "conformance-route";

/// A peer, as a provider's author describes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Script {
    /// Why there is nothing to script.
    #[serde(default)]
    pub(super) skip_all: Option<String>,
    #[serde(default = "nothing")]
    pub(super) config: Value,
    /// Names of the secrets there are; their values are the suite's.
    #[serde(default)]
    pub(super) secrets: Vec<Name>,
    /// Texts of the peer's that must show no more than secrets.
    #[serde(default)]
    pub(super) hide: Vec<String>,
    #[serde(default = "some_time")]
    pub(super) now_ms: u64,
    #[serde(default = "nothing")]
    target: Value,
    /// Cases that do not apply, and why.
    #[serde(default)]
    pub(super) skip: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) always: Vec<Exchange>,
    #[serde(default, rename = "state")]
    pub(super) states: Vec<Described>,
    #[serde(default, rename = "submit")]
    pub(super) submits: Vec<Submit>,
    #[serde(default, rename = "poll")]
    pub(super) polls: Vec<Poll>,
    #[serde(default)]
    pub(super) discover: Option<Discover>,
    #[serde(default)]
    pub(super) cancel: Option<Requests>,
    #[serde(default, rename = "refusal")]
    refusals: Vec<Refusal>,
}

/// How the peer says that the machine is in a state.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Described {
    is: String,
    #[serde(default)]
    pub(super) raw: Option<String>,
    pub(super) http: Vec<Exchange>,
}

/// The request that submits an action.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Submit {
    action: String,
    #[serde(default)]
    from: Option<String>,
    pub(super) http: Exchange,
}

/// How the peer says how something goes on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Poll {
    pub(super) is: Went,
    #[serde(default)]
    action: Option<String>,
    pub(super) http: Vec<Exchange>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Went {
    Running,
    Done,
    Failed,
}

/// The peer's list of machines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Discover {
    pub(super) http: Vec<Exchange>,
    /// Addresses that must be found.
    #[serde(default)]
    pub(super) found: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Requests {
    pub(super) http: Vec<Exchange>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    quirk: Quirk,
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
}

/// What a peer answers instead of what was hoped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Quirk {
    /// The credential is wrong.
    Auth,
    /// The credential may not.
    Forbidden,
    /// Not now: 7 seconds.
    Throttled,
    /// Not now either, for the same time.
    Busy,
    /// Something broke over there.
    Broken,
    /// Not in this state.
    Conflict,
    /// There is no such machine.
    Missing,
}

fn nothing() -> Value {
    json!({})
}

fn some_time() -> u64 {
    1_700_000_000_000
}

impl Script {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let understand = || format!("understand {}", path.display());
        let script: Self = toml::from_str(&text).with_context(understand)?;
        script.check().with_context(understand)?;
        Ok(script)
    }

    fn check(&self) -> Result<()> {
        self.target()?;
        for submit in &self.submits {
            submit.action()?;
            self.start(submit)?;
        }
        for described in &self.states {
            described.is()?;
            ensure!(
                !described.http.is_empty(),
                "a [[state]] without [[state.http]] is nothing that could be asked"
            );
        }
        for poll in &self.polls {
            poll.action()?;
        }
        Ok(())
    }

    pub(super) fn target(&self) -> Result<Target> {
        let text = |key: &str, usual: &str| match &self.target[key] {
            Value::Null => Ok(usual.to_owned()),
            Value::String(text) => Ok(text.clone()),
            Value::Object(table) if key == "params" => Ok(json!(table).to_string()),
            other => bail!("target.{key} is {other}"),
        };
        Ok(Target {
            host: text("host", "hst_1")?,
            address: text("address", "https://bmc.example")?,
            params: text("params", "{}")?,
            tls_profile: Some(TLS_PROFILE.to_owned()),
            route: Some(ROUTE.to_owned()),
        })
    }

    pub(super) fn state(&self, wanted: State) -> Option<&Described> {
        let mut states = self.states.iter();
        states.find(|state| state.is().is_ok_and(|is| is == wanted))
    }

    pub(super) fn submit(&self, wanted: Action) -> Option<&Submit> {
        let mut submits = self.submits.iter();
        submits.find(|submit| submit.action().is_ok_and(|action| action == wanted))
    }

    /// The state that an action is submitted in.
    pub(super) fn start(&self, submit: &Submit) -> Result<State> {
        match (&submit.from, submit.action()?) {
            (Some(word), _) => state(word),
            (None, Action::On) => Ok(State::Off),
            (None, _) => Ok(State::On),
        }
    }

    /// What the peer answers to tell of it.
    pub(super) fn quirk(&self, quirk: Quirk) -> Exchange {
        if let Some(own) = self.refusals.iter().find(|own| own.quirk == quirk) {
            return Exchange::answering(own.status, own.headers.clone(), &own.body);
        }
        let status = match quirk {
            Quirk::Auth => 401,
            Quirk::Forbidden => 403,
            Quirk::Throttled => 429,
            Quirk::Busy => 503,
            Quirk::Broken => 500,
            Quirk::Conflict => 409,
            Quirk::Missing => 404,
        };
        let mut headers = BTreeMap::new();
        if matches!(quirk, Quirk::Throttled | Quirk::Busy) {
            headers.insert("retry-after".to_owned(), "7".to_owned());
        }
        Exchange::answering(status, headers, "")
    }
}

impl Described {
    pub(super) fn is(&self) -> Result<State> {
        state(&self.is)
    }

    pub(super) fn word(&self) -> &str {
        &self.is
    }
}

impl Submit {
    pub(super) fn action(&self) -> Result<Action> {
        action(&self.action)
    }
}

impl Poll {
    pub(super) fn action(&self) -> Result<Option<Action>> {
        self.action.as_deref().map(action).transpose()
    }
}

/// Actions, as the contract writes them.
pub(super) const ACTIONS: [(&str, Action); 7] = [
    ("on", Action::On),
    ("shutdown", Action::Shutdown),
    ("off", Action::Off),
    ("reboot", Action::Reboot),
    ("reset", Action::Reset),
    ("cycle", Action::Cycle),
    ("nmi", Action::Nmi),
];

const STATES: [(&str, State); 8] = [
    ("on", State::On),
    ("off", State::Off),
    ("powering-on", State::PoweringOn),
    ("powering-off", State::PoweringOff),
    ("rebooting", State::Rebooting),
    ("suspended", State::Suspended),
    ("absent", State::Absent),
    ("unknown", State::Unknown),
];

fn action(word: &str) -> Result<Action> {
    let mut all = ACTIONS.iter();
    let found = all.find(|(name, _)| *name == word);
    found
        .map(|(_, action)| *action)
        .with_context(|| format!("there is no action {word:?}"))
}

fn state(word: &str) -> Result<State> {
    let mut all = STATES.iter();
    let found = all.find(|(name, _)| *name == word);
    found
        .map(|(_, state)| *state)
        .with_context(|| format!("there is no state {word:?}"))
}

/// As the contract writes it.
pub(super) fn word(action: Action) -> &'static str {
    let mut all = ACTIONS.iter();
    let found = all.find(|(_, known)| *known == action);
    found.map_or("", |(word, _)| word)
}
