//! Records of events on their way to notifiers.
//!
//! ```text
//! signal/MILLIS-COUNT        an event that some notifier does not have yet
//! signal_sink/PLUGIN         how far a notifier is
//! signal_dead/PLUGIN/EVENT   an event that was given up for a notifier
//! ```

use gateway_core::signal::Sink;
use gateway_store::{Key, KeyError, Prefix, Record};
use model::Timestamp;
use model::ids::{HostId, WorkspaceId};
use model::names::Name;
use serde::{Deserialize, Serialize};

macro_rules! records {
    ($($name:ident $kind:literal;)*) => {$(
        impl Record for $name {
            const KIND: &'static str = $kind;
            const VERSION: u16 = 1;
        }
    )*};
}

records! {
    SignalRecordV1 "signal";
    SignalSinkRecordV1 "signal_sink";
    DeadLetterRecordV1 "signal_dead";
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalRecordV1 {
    /// When.
    pub at: Timestamp,
    /// A dotted name.
    pub kind: String,
    /// `info`, `notice`, `warning` or `critical`.
    pub severity: String,
    /// The workspace, if the event itself says it; else the host's.
    pub workspace: Option<WorkspaceId>,
    /// The host, if it is about one.
    pub host: Option<HostId>,
    /// For people: one line.
    pub summary: String,
    /// Same trouble, same key.
    pub dedup_key: String,
    /// As the API shows it: JSON.
    pub body: String,
}

impl SignalRecordV1 {
    /// Keys sort by time, and by count within one gateway's life.
    pub fn key(at: Timestamp, count: u64) -> Result<Key, KeyError> {
        let millis = at.as_millis().max(0);
        <Self as Record>::key(&[&format!("{millis:015}-{count:016x}")])
    }
}

/// How far a notifier is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalSinkRecordV1 {
    /// The last event that was settled: the revision it was written at, and its key's text.
    /// Events come in this order.
    pub position: (u64, String),
    /// See [`Sink::next_sequence`].
    pub next_sequence: u64,
    /// See [`Sink::failures`].
    pub failures: u32,
    /// See [`Sink::failing_since`].
    pub failing_since: Option<Timestamp>,
    /// See [`Sink::not_before`].
    pub not_before: Option<Timestamp>,
    /// What the last failure was; empty after a success.
    pub last_error: String,
    /// Dead letters so far.
    pub dead: u64,
}

impl SignalSinkRecordV1 {
    /// A notifier that has everything up to here.
    pub fn starting_at(position: (u64, String)) -> Self {
        Self {
            position,
            next_sequence: 1,
            failures: 0,
            failing_since: None,
            not_before: None,
            last_error: String::new(),
            dead: 0,
        }
    }

    /// For deciding.
    pub fn sink(&self) -> Sink {
        Sink {
            next_sequence: self.next_sequence,
            failures: self.failures,
            failing_since: self.failing_since,
            not_before: self.not_before,
        }
    }

    /// After deciding.
    #[must_use]
    pub fn with(self, sink: &Sink) -> Self {
        Self {
            next_sequence: sink.next_sequence,
            failures: sink.failures,
            failing_since: sink.failing_since,
            not_before: sink.not_before,
            ..self
        }
    }
}

/// An event that was given up for a notifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterRecordV1 {
    /// The number it was delivered with.
    pub sequence: u64,
    /// Its id.
    pub id: String,
    /// What happened.
    pub event: SignalRecordV1,
    /// Why it was given up.
    pub code: String,
    /// When it was given up.
    pub given_up_at: Timestamp,
}

impl DeadLetterRecordV1 {
    /// By notifier and the event's id: in the order of what happened. Numbers begin again when a
    /// notifier is enabled again.
    pub fn key(plugin: &Name, id: &str) -> Result<Key, KeyError> {
        <Self as Record>::key(&[plugin.as_str(), id])
    }

    /// All of a notifier.
    pub fn prefix_of(plugin: &Name) -> Prefix {
        <Self as Record>::prefix(&[plugin.as_str()])
            .expect("names are never empty and hold no slash")
    }
}
