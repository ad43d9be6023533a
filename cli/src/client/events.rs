//! Following streams of events across lost connections: what changes in a workspace,
//! how a command comes along.
//!
//! A connection that ends is opened again with the id of the last whole event,
//! after a pause that doubles up to [`LONGEST_PAUSE`] and is reset by every event
//! that arrives. A gateway that still has what came between goes on there; one
//! that does not sends a snapshot again. A command's stream has no ids: it begins at
//! the beginning each time, and who follows it knows what it has seen. A refusal (revoked key, deleted
//! workspace) ends it: trying again would not help.

use std::io::{BufReader, Read};
use std::time::Duration;

use api::Endpoint;
use api::endpoint::Nothing;
use api::v1::command::{CommandEvent, FollowCommand, FollowFilter};
use api::v1::event::{FollowEvents, WorkspaceEvent};
use api::v1::{InWorkspace, OfCommand};
use model::ids::WorkspaceId;
use serde::de::DeserializeOwned;

use super::sse::EventReader;
use super::{Call, Client, ClientError, jitter, to_value};

const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// An operation that answers with events.
pub trait Follow: Endpoint<Body = Nothing> {
    /// What they are.
    type Event: DeserializeOwned;
}

impl Follow for FollowEvents {
    type Event = WorkspaceEvent;
}

impl Follow for FollowCommand {
    type Event = CommandEvent;
}

/// Events of one workspace or one command.
pub struct EventStream<'a, E: Follow> {
    client: &'a Client,
    path: E::Path,
    query: E::Query,
    /// Whether the gateway is known to be there, so that it is waited for.
    expected: bool,
    last_id: Option<String>,
    reader: Option<EventReader<BufReader<Box<dyn Read + Send>>>>,
    failures: u32,
    pause: Duration,
}

/// What following brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed<T> {
    /// An event; `raw` is its text as it came, with what this version may not know.
    Event {
        /// The event, or `None` when it is of a kind this version does not know.
        event: Option<T>,
        /// The text.
        raw: String,
    },
    /// The connection ended; the next call waits this long and opens another.
    Interrupted {
        /// Why.
        why: String,
        /// How long the next call waits.
        pause: Duration,
    },
}

impl Client {
    /// Follows what changes in a workspace, from a snapshot on, or from after
    /// the event `last_id`.
    pub fn events(
        &self,
        workspace: WorkspaceId,
        last_id: Option<String>,
    ) -> EventStream<'_, FollowEvents> {
        let mut stream = EventStream::new(self, InWorkspace { workspace }, Nothing {});
        stream.last_id = last_id;
        stream
    }

    /// Follows a command from its beginning to its end. After an interruption it
    /// begins at the beginning again.
    pub fn command_events(
        &self,
        command: OfCommand,
        filter: FollowFilter,
    ) -> EventStream<'_, FollowCommand> {
        EventStream::new(self, command, filter)
    }
}

impl<'a, E: Follow> EventStream<'a, E> {
    fn new(client: &'a Client, path: E::Path, query: E::Query) -> Self {
        Self {
            client,
            path,
            query,
            expected: false,
            last_id: None,
            reader: None,
            failures: 0,
            pause: Duration::ZERO,
        }
    }

    /// Waits for a gateway that cannot be reached from the first attempt on: it has
    /// answered a moment ago, so its address is no mistake.
    pub fn expected(mut self) -> Self {
        self.expected = true;
        self
    }

    /// The id of the last event, to go on from later.
    pub fn last_id(&self) -> Option<&str> {
        self.reader
            .as_ref()
            .and_then(EventReader::last_id)
            .or(self.last_id.as_deref())
    }

    /// The next event, waited for as long as it takes. Errors are final.
    pub fn next_event(&mut self) -> Result<Followed<E::Event>, ClientError> {
        if self.reader.is_none() {
            std::thread::sleep(std::mem::take(&mut self.pause));
            match self.open() {
                Ok(reader) => {
                    self.reader = Some(EventReader::new(
                        BufReader::new(reader),
                        self.last_id.clone(),
                    ))
                }
                Err(error) if self.is_final(&error) => return Err(error),
                Err(error) => return Ok(self.interrupted(model::error_chain(&error))),
            }
        }
        let Some(reader) = &mut self.reader else {
            return Ok(self.interrupted("not connected".to_owned()));
        };
        match reader.next_event() {
            Ok(Some(found)) => {
                self.failures = 0;
                Ok(Followed::Event {
                    event: serde_json::from_str(&found.data).ok(),
                    raw: found.data,
                })
            }
            Ok(None) => Ok(self.interrupted("the gateway ended the stream".to_owned())),
            Err(error) => Ok(self.interrupted(model::error_chain(&error))),
        }
    }

    fn open(&self) -> Result<Box<dyn Read + Send>, ClientError> {
        let query = to_value::<E>(&self.query)?;
        let mut call = Call::new::<E>(&self.client.base, &self.path, &query, &Nothing {})?;
        call.last_event_id.clone_from(&self.last_id);
        let reply = self.client.attempt(&call.streaming(E::MEDIA))?;
        Ok(Box::new(
            reply
                .into_body()
                .into_with_config()
                .limit(u64::MAX)
                .reader(),
        ))
    }

    /// Before anything was heard, an unreachable gateway is most likely a
    /// mistake to be told about at once; later it is being restarted.
    fn is_final(&self, error: &ClientError) -> bool {
        let never_worked = !self.expected && self.last_id.is_none() && self.failures == 0;
        match error {
            ClientError::Connect { .. } => never_worked || error.is_distrust(),
            ClientError::Lost { .. } | ClientError::Cut { .. } => false,
            ClientError::NotOurs { .. } => never_worked,
            ClientError::Problem(problem) => !matches!(problem.status, 429 | 500..=599),
            _ => true,
        }
    }

    fn interrupted(&mut self, why: String) -> Followed<E::Event> {
        let asked = self
            .reader
            .as_ref()
            .and_then(EventReader::retry_ms)
            .map(Duration::from_millis)
            .unwrap_or_default();
        if let Some(reader) = self.reader.take() {
            self.last_id = reader.last_id().map(str::to_owned);
        }
        self.failures = self.failures.saturating_add(1);
        let ceiling = Duration::from_millis(250).saturating_mul(1 << self.failures.min(6));
        self.pause = ceiling
            .mul_f64(0.5 + jitter() / 2.0)
            .max(asked)
            .min(LONGEST_PAUSE);
        Followed::Interrupted {
            why,
            pause: self.pause,
        }
    }
}
