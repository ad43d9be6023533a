//! Where cases run: a provider's component, one script, and a report of what held.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use data_encoding::BASE64;
use plugin_host::ports::{ErrorKind, GuestError, Services};
use plugin_host::power::{Action, Operation, State, Target};
use plugin_host::{Invocation, Reason};
use serde_json::{Value, json};

use super::peer::{Peer, Role};
use super::script::{Script, word};
use crate::fixture::{Exchange, Fixture};
use crate::runtime::{self, Ready};
use crate::surroundings::Scene;

/// A component with a script.
pub(super) struct Bench<'a> {
    ready: &'a Ready,
    pub(super) script: Script,
    pub(super) target: Target,
    pub(super) tally: Tally,
}

/// How cases went.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) passed: usize,
    pub(super) skipped: usize,
    pub(super) failed: usize,
    /// Reasons of the script that were good for something.
    used: BTreeSet<String>,
}

/// What is called.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Inspect,
    Observe,
    Begin(Action),
    Poll(Action, Vec<u8>),
    Resume(Action),
    Cancel(Action, Vec<u8>),
    Discover,
}

/// A call that was made, and what is wrong with it.
pub(super) struct Tried {
    case: &'static str,
    about: String,
    pub(super) outcome: Result<Value, GuestError>,
    pub(super) submits: Vec<Action>,
    pub(super) requests: usize,
    pub(super) complaints: Vec<String>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(ready: &'a Ready, script: Script) -> Result<Self> {
        let target = script.target()?;
        Ok(Self {
            ready,
            script,
            target,
            tally: Tally::default(),
        })
    }

    /// A peer of a machine in this state. Submitting does what the script says.
    pub(super) fn peer(&self, state: Option<State>) -> Peer {
        let described = state.and_then(|state| self.script.state(state));
        self.peer_telling(described.map_or(&[][..], |described| &described.http))
    }

    /// The same, with what it says of the state.
    pub(super) fn peer_telling(&self, state: &[Exchange]) -> Peer {
        let mut peer = Peer::new();
        for submit in &self.script.submits {
            if let Ok(action) = submit.action() {
                let http = std::slice::from_ref(&submit.http);
                peer = peer.knows(Role::Submit(action), http);
            }
        }
        peer.knows(Role::State, state)
            .knows(Role::Other, &self.script.always)
    }

    /// Makes a call; nothing if the script says that the case does not apply.
    pub(super) async fn try_it(
        &mut self,
        case: &'static str,
        about: &str,
        peer: Peer,
        ask: Ask,
    ) -> Result<Option<Tried>> {
        if let Some(why) = self.script.skip.get(case) {
            let first = self.tally.used.insert(case.to_owned());
            if first {
                println!("skip  {case}: {why}");
                self.tally.skipped += 1;
            }
            return Ok(None);
        }
        self.call(case, about, peer, ask).await.map(Some)
    }

    /// Makes a call.
    pub(super) async fn call(
        &self,
        case: &'static str,
        about: &str,
        peer: Peer,
        ask: Ask,
    ) -> Result<Tried> {
        let (function, input) = self.input(&ask);
        let peer = peer.shared();
        let names = self.script.secrets.iter();
        let secrets: Vec<_> = names
            .map(|name| (name, format!("conformance-{name}-5b1d")))
            .collect();
        let scene: Fixture = serde_json::from_value(json!({
            "now_ms": self.script.now_ms,
            "secrets": secrets.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        }))
        .context("set the scene")?;
        let scene = Scene::of(&scene);
        let services = Services {
            secrets: scene.clone(),
            egress: peer.clone(),
            state: scene.clone(),
        };
        let manifest = &self.ready.loaded.manifest;
        let grant = runtime::grant(manifest, self.script.secrets.iter().cloned())?;
        let config = self.script.config.to_string();
        let plugin = self.ready.plugin(grant, &config, services);
        let invocation = Invocation {
            call: Some("call_test".to_owned()),
            operation: Some("pop_1".to_owned()),
            clock: Some(scene),
            ..Invocation::default()
        };
        let outcome = plugin.call_recorded(invocation, function, input).await;

        let seen = peer.seen();
        let mut complaints = seen.complaints;
        let outcome = outcome.map_err(|error| match error.reason {
            Reason::Guest(own) => own,
            other => {
                complaints.push(format!("no answer: {other}"));
                GuestError::new(ErrorKind::Internal, other.code(), "")
            }
        });
        let mut said = format!("{outcome:?}");
        for line in plugin.logs(0, 1_000).lines {
            said.push_str(&format!("\n{} {:?}", line.message, line.fields));
        }
        let hidden = secrets.into_iter().map(|(_, value)| value);
        for text in hidden.chain(self.script.hide.iter().cloned()) {
            if said.contains(&text) || said.contains(&BASE64.encode(text.as_bytes())) {
                complaints.push(format!("the answer or the log shows {text:?}"));
            }
        }
        Ok(Tried {
            case,
            about: about.to_owned(),
            outcome,
            submits: seen.submits,
            requests: seen.requests,
            complaints,
        })
    }

    fn input(&self, ask: &Ask) -> (&'static str, Value) {
        let target = &self.target;
        let operation = |action| Operation {
            id: "pop_1".to_owned(),
            attempt: 1,
            action,
            boot: None,
            deadline_ms: self.script.now_ms + 300_000,
            before: None,
        };
        match ask {
            Ask::Inspect => ("provider.inspect", json!({ "target": target })),
            Ask::Observe => ("provider.observe", json!({ "target": target })),
            Ask::Discover => ("provider.discover", json!({ "cursor": null })),
            Ask::Begin(action) => (
                "provider.begin",
                json!({ "operation": operation(*action), "target": target }),
            ),
            Ask::Resume(action) => (
                "provider.resume",
                json!({ "operation": operation(*action), "target": target }),
            ),
            Ask::Poll(action, cursor) => (
                "provider.poll",
                json!({ "operation": operation(*action), "target": target, "cursor": cursor }),
            ),
            Ask::Cancel(action, cursor) => (
                "provider.cancel",
                json!({ "operation": operation(*action), "target": target, "cursor": cursor }),
            ),
        }
    }

    /// Writes down how it went.
    pub(super) fn report(&mut self, tried: Tried) {
        let Tried { case, about, .. } = &tried;
        let about = match about.as_str() {
            "" => String::new(),
            about => format!(" ({about})"),
        };
        if tried.complaints.is_empty() {
            println!("ok    {case}{about}");
            self.tally.passed += 1;
            return;
        }
        println!("FAIL  {case}{about}");
        for complaint in &tried.complaints {
            println!("      {complaint}");
        }
        self.tally.failed += 1;
    }

    /// Something that is wrong with the script.
    pub(super) fn wrong(&mut self, case: &str, what: &str) {
        println!("FAIL  {case}\n      {what}");
        self.tally.failed += 1;
    }

    /// Something that does not apply.
    pub(super) fn pass_over(&mut self, case: &str, why: &str) {
        println!("skip  {case}: {why}");
        self.tally.skipped += 1;
    }

    /// A reason for a case that there is not would go unnoticed.
    pub(super) fn end(&mut self) {
        let skips = self.script.skip.keys();
        let unused: Vec<_> = skips
            .filter(|case| !self.tally.used.contains(*case))
            .cloned()
            .collect();
        for case in unused {
            self.wrong(&case, "[skip] names it, and there was no such case");
        }
    }
}

impl Tried {
    pub(super) fn complain(&mut self, what: impl Into<String>) {
        self.complaints.push(what.into());
    }

    /// It is an error of one of these kinds.
    pub(super) fn fails(&mut self, kinds: &[ErrorKind]) -> &mut Self {
        match &self.outcome {
            Ok(answer) => self.complain(format!("answered {answer}, and not with an error")),
            Err(error) if !kinds.is_empty() && !kinds.contains(&error.kind) => {
                let what = format!(
                    "failed as {:?}, not as one of {kinds:?}: {error}",
                    error.kind
                );
                self.complain(what);
            }
            Err(_) => {}
        }
        self
    }

    /// If it is an error, it says this of the outcome.
    pub(super) fn outcome_unknown(&mut self, wanted: bool) -> &mut Self {
        let told = self
            .outcome
            .as_ref()
            .err()
            .map(|error| error.outcome_unknown);
        if told.is_some_and(|told| told != wanted) {
            self.complain(format!("the error's outcome-unknown is not {wanted}"));
        }
        self
    }

    /// It is to be tried again when the peer said.
    pub(super) fn later(&mut self, ms: u128) -> &mut Self {
        if let Err(error) = &self.outcome {
            let told = error.retry_after.map(|after| after.as_millis());
            if told != Some(ms) {
                self.complain(format!("retry-after-ms is {told:?}, not {ms}"));
            }
        }
        self
    }

    /// These were submitted.
    pub(super) fn submitted(&mut self, wanted: &[Action]) -> &mut Self {
        if self.submits != wanted {
            let words = |actions: &[Action]| {
                let words: Vec<_> = actions.iter().map(|action| word(*action)).collect();
                format!("[{}]", words.join(", "))
            };
            let what = format!("submitted {}, not {}", words(&self.submits), words(wanted));
            self.complain(what);
        }
        self
    }
}

/// Kinds of errors that the gateway tries again.
pub(super) fn is_transient(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Busy
        | ErrorKind::Throttled
        | ErrorKind::Unreachable
        | ErrorKind::Timeout
        | ErrorKind::Upstream
        | ErrorKind::Cancelled
        | ErrorKind::Internal
        | ErrorKind::Other => true,
        ErrorKind::Invalid
        | ErrorKind::Auth
        | ErrorKind::Forbidden
        | ErrorKind::NotFound
        | ErrorKind::Unsupported
        | ErrorKind::Conflict
        | ErrorKind::Denied => false,
    }
}
