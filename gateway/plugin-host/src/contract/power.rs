//! `loopback:power`: plugins that turn machines on and off.
//!
//! Eight functions of one shape: something about a target goes in, an answer or an error comes out.
//! The macro `step!` writes what they have in common.

wasmtime::component::bindgen!({
    path: ["../../wit/base/0.1.0", "../../wit/power/0.1.0"],
    world: "loopback:power/power",
    imports: { default: async | trappable },
    exports: { default: async },
    additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    with: {
        "loopback:base/types": crate::contract::base::words::loopback::base::types,
        "loopback:base/log": crate::contract::base::loopback::base::log,
        "loopback:base/config": crate::contract::base::loopback::base::config,
        "loopback:base/secrets": crate::contract::base::loopback::base::secrets,
        "loopback:base/http": crate::contract::base::loopback::base::http,
        "loopback:base/sign": crate::contract::base::loopback::base::sign,
        "loopback:base/datagram": crate::contract::base::loopback::base::datagram,
        "loopback:base/state": crate::contract::base::loopback::base::state,
        "loopback:base/task": crate::contract::base::loopback::base::task,
    },
});

use model::plugin::PluginKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wasmtime::Store;
use wasmtime::component::Instance;

use self::loopback::power::types;
use super::base::words::loopback::base::types::{Diagnostic, Error, Kv};
use super::base::{error_weight, findings, guest, json, written};
use super::{AnotherKind, Exports, KindExports};
use crate::host::line;
use crate::reason::Reason;
use crate::scrub::Scrubber;
use crate::store::{CallState, Operation};

impl types::Host for CallState {}

/// What is kept of a text for people, of a provider's own word, and of a list.
const MESSAGE_BYTES: usize = 1_024;
const RAW_BYTES: usize = 256;
const ENTRIES: usize = 100;
/// Machines on a page of `discover`.
const FOUND: usize = 1_000;
/// What the contract allows a cursor.
const CURSOR_BYTES: usize = 4_096;
/// A target's own JSON, as `discover` proposes it.
const PARAMS_BYTES: usize = 64 << 10;

/// An answer of a stranger, made safe to be kept and shown; or why it cannot be.
trait Kept: Sized {
    fn kept(self, scrubber: &Scrubber) -> Result<Self, Reason>;
}

/// A function of the provider: what goes in by name, what comes out, and how it is called.
macro_rules! step {
    ($(#[$about:meta])* $name:ident { $($field:ident: $type:ty),* } -> $output:ty,
     $function:literal, |$provider:ident, $store:ident, $asked:ident| $call:expr) => {
        $(#[$about])*
        #[derive(Serialize, Deserialize)]
        pub(crate) struct $name { $(pub(crate) $field: $type),* }

        impl Operation for $name {
            type Raw = Result<$output, Error>;
            type Output = $output;
            const FUNCTION: &'static str = $function;
            const PURE: bool = false;
            const KIND: Option<PluginKind> = Some(PluginKind::Power);

            fn input(&self) -> Value {
                json(self)
            }

            fn output(output: &Self::Output) -> Value {
                json(output)
            }

            async fn run(
                self,
                code: &Exports,
                store: &mut Store<CallState>,
                instance: &Instance,
            ) -> wasmtime::Result<Self::Raw> {
                let KindExports::Power(indices) = &code.kind else {
                    return Err(AnotherKind.into());
                };
                let world = indices.load(&mut *store, instance)?;
                let $provider = world.loopback_power_provider();
                let ($store, $asked) = (store, self);
                $call.await
            }

            fn weight(raw: &Self::Raw) -> usize {
                match raw {
                    // As it is written down: within a small factor of what it holds.
                    Ok(output) => written(output),
                    Err(error) => error_weight(error),
                }
            }

            fn finish(raw: Self::Raw, scrubber: &Scrubber) -> Result<Self::Output, Reason> {
                raw.map_err(|error| guest(error, scrubber))?.kept(scrubber)
            }
        }
    };
}

step!(
    /// `provider.inspect`.
    Inspect { target: types::Target } -> types::Support,
    "provider.inspect",
    |provider, store, asked| provider.call_inspect(store, &asked.target)
);
step!(
    /// `provider.check`.
    Check { target: types::Target } -> Vec<Diagnostic>,
    "provider.check",
    |provider, store, asked| provider.call_check(store, &asked.target)
);
step!(
    /// `provider.observe`.
    Observe { target: types::Target } -> types::Observation,
    "provider.observe",
    |provider, store, asked| provider.call_observe(store, &asked.target)
);
step!(
    /// `provider.begin`.
    Begin { operation: types::Operation, target: types::Target } -> types::Begun,
    "provider.begin",
    |provider, store, asked| provider.call_begin(store, &asked.operation, &asked.target)
);
step!(
    /// `provider.poll`.
    Poll { operation: types::Operation, target: types::Target, cursor: Vec<u8> } -> types::Step,
    "provider.poll",
    |provider, store, asked| provider.call_poll(
        store, &asked.operation, &asked.target, &asked.cursor
    )
);
step!(
    /// `provider.resume`.
    Resume { operation: types::Operation, target: types::Target } -> types::Resumed,
    "provider.resume",
    |provider, store, asked| provider.call_resume(store, &asked.operation, &asked.target)
);
step!(
    /// `provider.cancel`.
    Cancel { operation: types::Operation, target: types::Target, cursor: Vec<u8> } -> types::Cancelled,
    "provider.cancel",
    |provider, store, asked| provider.call_cancel(
        store, &asked.operation, &asked.target, &asked.cursor
    )
);
step!(
    /// `provider.discover`.
    Discover { cursor: Option<String> } -> types::FoundPage,
    "provider.discover",
    |provider, store, asked| provider.call_discover(store, asked.cursor.as_deref())
);

impl Kept for types::Support {
    fn kept(mut self, scrubber: &Scrubber) -> Result<Self, Reason> {
        self.actions.truncate(ENTRIES);
        self.boot_devices.truncate(ENTRIES);
        for action in &mut self.actions {
            said(&mut action.note, MESSAGE_BYTES, scrubber);
        }
        Ok(self)
    }
}

impl Kept for Vec<Diagnostic> {
    fn kept(self, scrubber: &Scrubber) -> Result<Self, Reason> {
        Ok(findings(self, scrubber))
    }
}

impl Kept for types::Observation {
    fn kept(mut self, scrubber: &Scrubber) -> Result<Self, Reason> {
        said(&mut self.raw, RAW_BYTES, scrubber);
        maybe_said(&mut self.boot_mark, RAW_BYTES, scrubber);
        if let Some(boot) = &mut self.boot {
            maybe_said(&mut boot.url, MESSAGE_BYTES, scrubber);
        }
        self.extra = notes(self.extra, scrubber);
        Ok(self)
    }
}

impl Kept for types::Progress {
    fn kept(mut self, scrubber: &Scrubber) -> Result<Self, Reason> {
        if self.cursor.len() > CURSOR_BYTES {
            let what = format!("a cursor of {} bytes", self.cursor.len());
            return Err(Reason::WrongContract(what));
        }
        maybe_said(&mut self.remote_id, RAW_BYTES, scrubber);
        self.percent = self.percent.map(|percent| percent.min(100));
        said(&mut self.message, MESSAGE_BYTES, scrubber);
        Ok(self)
    }
}

impl Kept for types::Begun {
    fn kept(self, scrubber: &Scrubber) -> Result<Self, Reason> {
        Ok(match self {
            Self::Already(seen) => Self::Already(seen.kept(scrubber)?),
            Self::Submitted(progress) => Self::Submitted(progress.kept(scrubber)?),
            Self::Done => Self::Done,
        })
    }
}

impl Kept for types::Step {
    fn kept(self, scrubber: &Scrubber) -> Result<Self, Reason> {
        Ok(match self {
            Self::Running(progress) => Self::Running(progress.kept(scrubber)?),
            Self::Done => Self::Done,
        })
    }
}

impl Kept for types::Resumed {
    fn kept(self, scrubber: &Scrubber) -> Result<Self, Reason> {
        Ok(match self {
            Self::Running(progress) => Self::Running(progress.kept(scrubber)?),
            Self::NotSubmitted | Self::Done | Self::Unknown => self,
        })
    }
}

impl Kept for types::Cancelled {
    fn kept(self, _: &Scrubber) -> Result<Self, Reason> {
        Ok(self)
    }
}

impl Kept for types::FoundPage {
    fn kept(mut self, scrubber: &Scrubber) -> Result<Self, Reason> {
        if let Some(next) = &self.next {
            within("a cursor", next, CURSOR_BYTES)?;
        }
        self.found.truncate(FOUND);
        for found in &mut self.found {
            said(&mut found.address, MESSAGE_BYTES, scrubber);
            within("parameters of a machine", &found.params, PARAMS_BYTES)?;
            found.params = scrubber.text(std::mem::take(&mut found.params));
            said(&mut found.name, RAW_BYTES, scrubber);
            found.macs.truncate(ENTRIES);
            for mac in &mut found.macs {
                said(mac, RAW_BYTES, scrubber);
            }
            maybe_said(&mut found.serial, RAW_BYTES, scrubber);
            maybe_said(&mut found.provider_id, RAW_BYTES, scrubber);
            found.extra = notes(std::mem::take(&mut found.extra), scrubber);
        }
        Ok(self)
    }
}

/// What is kept of a text for people.
fn said(text: &mut String, most: usize, scrubber: &Scrubber) {
    *text = line(scrubber.text(std::mem::take(text)), most);
}

fn maybe_said(text: &mut Option<String>, most: usize, scrubber: &Scrubber) {
    if let Some(text) = text {
        said(text, most, scrubber);
    }
}

/// What is handed back to the plugin is as it said it, or nothing.
fn within(what: &str, text: &str, most: usize) -> Result<(), Reason> {
    if text.len() > most {
        let what = format!("{what} of {} bytes", text.len());
        return Err(Reason::WrongContract(what));
    }
    Ok(())
}

fn notes(mut notes: Vec<Kv>, scrubber: &Scrubber) -> Vec<Kv> {
    notes.truncate(ENTRIES);
    for note in &mut notes {
        said(&mut note.key, RAW_BYTES, scrubber);
        said(&mut note.value, MESSAGE_BYTES, scrubber);
    }
    notes
}
