//! What the operator writes: which request is what.

use std::collections::BTreeMap;

use loopback_plugin_sdk::Diagnostic;
use loopback_plugin_sdk::power::{Action, State};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::template::unknown_places;

/// How a controller of your own is spoken with.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// What all addresses begin with, without a slash at its end.
    #[schemars(length(max = 2048))]
    pub(crate) url: String,
    /// The request for each action that there is.
    pub(crate) actions: BTreeMap<Word, Ask>,
    /// The request that tells how a machine is. Without it, nothing but the host's agent confirms.
    #[serde(default)]
    pub(crate) observe: Option<Observe>,
    /// Where actions go on after their answer: the request that tells how far they are.
    #[serde(default)]
    pub(crate) poll: Option<Poll>,
    /// Sign with the secret `signing`.
    #[serde(default)]
    pub(crate) sign: bool,
    /// Show the secret `token` as a bearer token.
    #[serde(default)]
    pub(crate) bearer: bool,
    /// How long the state may lag behind what was done.
    #[serde(default = "default_settle_ms")]
    #[schemars(range(max = 600_000))]
    pub(crate) settle_ms: u32,
    /// How long a request may take.
    #[serde(default = "default_timeout_ms")]
    #[schemars(range(min = 100, max = 30_000))]
    pub(crate) timeout_ms: u32,
}

fn default_settle_ms() -> u32 {
    10_000
}

/// A request has to end within a call, and a call of `begin` has two.
fn default_timeout_ms() -> u32 {
    4_000
}

/// An action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Word {
    /// Power on.
    On,
    /// Ask the operating system to shut down.
    Shutdown,
    /// Cut the power.
    Off,
    /// Ask the operating system to restart.
    Reboot,
    /// Restart at once, power staying on.
    Reset,
    /// Cut the power, wait, power on.
    Cycle,
    /// Send a non-maskable interrupt.
    Nmi,
}

/// A state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StateWord {
    /// Powered.
    On,
    /// Without power.
    Off,
    /// On its way to on.
    PoweringOn,
    /// On its way to off.
    PoweringOff,
    /// Restarts.
    Rebooting,
    /// Computes nothing and forgets nothing.
    Suspended,
    /// There is no such machine.
    Absent,
}

/// A method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Method {
    /// Has no body.
    Get,
    /// The usual one for actions.
    #[default]
    Post,
    /// Sets.
    Put,
    /// Changes.
    Patch,
    /// Has no body.
    Delete,
}

/// The request for an action.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    #[serde(default)]
    pub(crate) method: Method,
    /// What follows `url`, with `{address}`, `{host}`, `{action}` and `{operation}`.
    #[schemars(length(max = 2048))]
    pub(crate) path: String,
    /// JSON; the same places in its texts. Without it, an object of all of them.
    #[serde(default)]
    pub(crate) body: Option<Value>,
    /// For people who choose this action.
    #[serde(default)]
    pub(crate) note: String,
}

/// The request that tells how a machine is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Observe {
    /// What follows `url`, with `{address}` and `{host}`. It is a `GET`.
    #[schemars(length(max = 2048))]
    pub(crate) path: String,
    /// Where in the answer the state is: a JSON Pointer, as in `/power/state`.
    pub(crate) state: String,
    /// What its words mean. Those that are not here are unknown states.
    pub(crate) states: BTreeMap<String, StateWord>,
    /// Where in the answer something is that changes with each boot: a JSON Pointer.
    #[serde(default)]
    pub(crate) boot_mark: Option<String>,
}

/// The request that tells how far an action is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Poll {
    /// Where in an action's answer the job's name is: a JSON Pointer. Where there is nothing, the
    /// action was done at once.
    pub(crate) job: String,
    /// What follows `url`, with `{job}`, `{address}`, `{host}`, `{action}` and `{operation}`. It is
    /// a `GET`.
    #[schemars(length(max = 2048))]
    pub(crate) path: String,
    /// Where in the answer the job's state is: a JSON Pointer.
    pub(crate) state: String,
    /// Words for: it goes on.
    pub(crate) running: Vec<String>,
    /// Words for: it has happened.
    pub(crate) done: Vec<String>,
    /// Words for: it will not happen.
    pub(crate) failed: Vec<String>,
}

impl Word {
    pub(crate) fn of(action: Action) -> Self {
        match action {
            Action::On => Self::On,
            Action::Shutdown => Self::Shutdown,
            Action::Off => Self::Off,
            Action::Reboot => Self::Reboot,
            Action::Reset => Self::Reset,
            Action::Cycle => Self::Cycle,
            Action::Nmi => Self::Nmi,
        }
    }

    pub(crate) fn action(self) -> Action {
        match self {
            Self::On => Action::On,
            Self::Shutdown => Action::Shutdown,
            Self::Off => Action::Off,
            Self::Reboot => Action::Reboot,
            Self::Reset => Action::Reset,
            Self::Cycle => Action::Cycle,
            Self::Nmi => Action::Nmi,
        }
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Shutdown => "shutdown",
            Self::Off => "off",
            Self::Reboot => "reboot",
            Self::Reset => "reset",
            Self::Cycle => "cycle",
            Self::Nmi => "nmi",
        }
    }
}

impl StateWord {
    pub(crate) fn state(self) -> State {
        match self {
            Self::On => State::On,
            Self::Off => State::Off,
            Self::PoweringOn => State::PoweringOn,
            Self::PoweringOff => State::PoweringOff,
            Self::Rebooting => State::Rebooting,
            Self::Suspended => State::Suspended,
            Self::Absent => State::Absent,
        }
    }
}

impl Method {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    pub(crate) fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Put | Self::Patch)
    }
}

impl Config {
    pub(crate) fn check(&self) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("", ""));
        if !matches!(scheme, "https" | "http") || rest.is_empty() {
            found.push(Diagnostic::error("/url", "must be an https:// address"));
        }
        if scheme == "http" {
            let message = "without TLS everybody on the way reads what is asked and answered";
            found.push(Diagnostic::warning("/url", message));
        }
        if rest.contains(['@', '?', '#', '{']) || rest.ends_with('/') {
            let message = "must not have a user, a query, a fragment, places or a slash at its end";
            found.push(Diagnostic::error("/url", message));
        }
        if self.actions.is_empty() {
            found.push(Diagnostic::error("/actions", "must have at least one"));
        }
        if !self.sign && !self.bearer {
            let message = "with neither `sign` nor `bearer` the controller cannot know who asks";
            found.push(Diagnostic::warning("", message));
        }
        let mut path = |place: &str, path: &str, known: &[&str]| {
            if !path.starts_with('/') || path.contains('#') {
                let message = "must begin with a slash and have no fragment";
                found.push(Diagnostic::error(place, message));
            }
            for word in unknown_places(path, known) {
                let message = format!("{{{word}}} means nothing here");
                found.push(Diagnostic::error(place, message));
            }
        };
        const OF_ACTIONS: &[&str] = &["address", "host", "action", "operation"];
        for (word, ask) in &self.actions {
            path(
                &format!("/actions/{}/path", word.text()),
                &ask.path,
                OF_ACTIONS,
            );
        }
        if let Some(observe) = &self.observe {
            path("/observe/path", &observe.path, &["address", "host"]);
        }
        if let Some(poll) = &self.poll {
            let known = [OF_ACTIONS, &["job"]].concat();
            path("/poll/path", &poll.path, &known);
            if !poll.path.contains("{job}") {
                let message = "must have {job} in it";
                found.push(Diagnostic::error("/poll/path", message));
            }
        }
        let observed = self.observe.as_ref();
        let polled = self.poll.as_ref();
        for (place, pointer) in [
            ("/observe/state", observed.map(|one| one.state.as_str())),
            (
                "/observe/boot_mark",
                observed.and_then(|one| one.boot_mark.as_deref()),
            ),
            ("/poll/job", polled.map(|one| one.job.as_str())),
            ("/poll/state", polled.map(|one| one.state.as_str())),
        ] {
            if pointer.is_some_and(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
                let message = "must be a JSON Pointer, as in /power/state";
                found.push(Diagnostic::error(place, message));
            }
        }
        for (word, ask) in &self.actions {
            let place = format!("/actions/{}", word.text());
            if ask.body.is_some() && !ask.method.has_body() {
                let message = "GET and DELETE have no body";
                found.push(Diagnostic::error(&format!("{place}/body"), message));
            }
            if self.sign && !ask.method.has_body() {
                let message = "a signature covers the time and the body, and here is no body: \
                               whoever reads the request could ask for something else with it";
                found.push(Diagnostic::warning(&format!("{place}/method"), message));
            }
        }
        found
    }
}
