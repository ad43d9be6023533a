//! Calls written down, and made again.
//!
//! A recorded call holds what went in, what the plugin asked of its surroundings with what it was
//! answered, and what came out; secrets are left out. To make it again is to call the same plugin
//! with surroundings that answer from the record ([`Replay`]): nothing of the host is different, so
//! what a plugin does in a replay is what it does.

mod replay;
mod tap;

pub use replay::Replay;

use std::sync::{Arc, Mutex, PoisonError};

use model::names::Name;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::base::words::loopback::base::types;
use crate::ports::{GuestError, Services};
use crate::reason::Reason;
use crate::scrub::Scrubber;
use crate::surroundings::Clock;

/// Takes calls that were written down.
pub trait Recorder: Send + Sync {
    /// Called once at the end of each call that ran. Must not wait.
    fn record(&self, call: RecordedCall);
}

/// A call that was written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedCall {
    /// The plugin, by the name it is installed as.
    pub plugin: Name,
    /// As in `renderer.render`.
    pub function: String,
    /// `call_…`.
    pub call: String,
    /// What went in.
    pub input: Value,
    /// The configuration at the time.
    pub config: String,
    /// Its revision.
    pub config_revision: u64,
    /// What the plugin asked, in order.
    pub exchanges: Vec<Exchange>,
    /// What came out.
    pub outcome: Outcome,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// What it answered.
    Answer(Value),
    /// Why it did not.
    Failed {
        /// The reason's code.
        code: String,
        /// The reason in words.
        message: String,
    },
}

/// Something that a plugin asked of its surroundings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// What was asked.
    pub asked: Asked,
    /// What was answered.
    pub answered: Result<Answered, types::Error>,
}

/// What a plugin asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// For a secret.
    Secret(String),
    /// For a request to be sent.
    Http {
        /// The method.
        method: String,
        /// The address.
        url: String,
        /// The headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: Body,
        /// The secrets in it, by name.
        credentials: Vec<String>,
    },
    /// For a channel.
    Channel(String),
    /// For a datagram to be sent.
    Send(Body),
    /// For the next datagram.
    Receive,
    /// For a machine to be woken.
    Wake(String),
    /// For a value.
    Get(String),
    /// For a value to be set.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Body,
        /// On condition of this revision.
        if_revision: Option<u64>,
    },
    /// For a key to be removed.
    Delete(String),
    /// For keys.
    Keys(String),
    /// For the time.
    Now,
    /// For how long the call may still take.
    Remaining,
}

/// What a plugin was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answered {
    /// That it was done.
    Done,
    /// A number: a time, a revision, a version.
    Number(u64),
    /// Keys.
    Names(Vec<String>),
    /// Who is at the other end.
    Peer(std::net::SocketAddr),
    /// Bytes.
    Bytes(Body),
    /// A value, or that there is none.
    Entry(Option<(Body, u64)>),
    /// A response.
    Response {
        /// The status.
        status: u16,
        /// The headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: Body,
    },
}

/// Bytes, written as text where they are text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum BodyText {
    Text(String),
    Base64 { base64: String },
}

impl Serialize for Body {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => BodyText::Base64 {
                base64: data_encoding::BASE64.encode(&self.0),
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match BodyText::deserialize(deserializer)? {
            BodyText::Text(text) => Ok(Self(text.into_bytes())),
            BodyText::Base64 { base64 } => data_encoding::BASE64
                .decode(base64.as_bytes())
                .map(Self)
                .map_err(serde::de::Error::custom),
        }
    }
}

/// Exchanges as they come.
pub(crate) type Transcript = Arc<Mutex<Vec<Exchange>>>;

fn note(transcript: &Transcript, asked: Asked, answered: Result<Answered, &GuestError>) {
    let answered = answered.map_err(|error| crate::host::to_words(error.clone()));
    transcript
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Exchange { asked, answered });
}

/// A call that is being written down.
pub(crate) struct Recording {
    plugin: Name,
    function: &'static str,
    input: Value,
    config: String,
    config_revision: u64,
    transcript: Transcript,
}

impl Recording {
    pub(crate) fn begin(
        plugin: &Name,
        function: &'static str,
        input: Value,
        config: &str,
        config_revision: u64,
    ) -> Self {
        Self {
            plugin: plugin.clone(),
            function,
            input,
            config: config.to_owned(),
            config_revision,
            transcript: Transcript::default(),
        }
    }

    /// The same surroundings, and what is asked of them is written down.
    pub(crate) fn listen(
        &self,
        services: Services,
        clock: Arc<dyn Clock>,
    ) -> (Services, Arc<dyn Clock>) {
        tap::tap(services, clock, &self.transcript)
    }

    /// The whole call, without secrets.
    pub(crate) fn end(
        self,
        call: &str,
        outcome: Result<Value, Reason>,
        scrubber: &Scrubber,
    ) -> RecordedCall {
        let mut exchanges = std::mem::take(
            &mut *self
                .transcript
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let outcome = match outcome {
            Ok(answer) => Outcome::Answer(without_secrets(answer, scrubber)),
            Err(reason) => Outcome::Failed {
                code: reason.code().to_owned(),
                message: scrubber.text(reason.to_string()),
            },
        };
        if !scrubber.is_empty() {
            exchanges = exchanges
                .into_iter()
                .map(|exchange| exchange_without_secrets(exchange, scrubber))
                .collect();
        }
        RecordedCall {
            plugin: self.plugin,
            function: self.function.to_owned(),
            call: call.to_owned(),
            input: without_secrets(self.input, scrubber),
            config: scrubber.text(self.config),
            config_revision: self.config_revision,
            exchanges,
            outcome,
        }
    }
}

fn without_secrets(value: Value, scrubber: &Scrubber) -> Value {
    match value {
        Value::String(text) => Value::String(scrubber.text(text)),
        Value::Array(values) => values
            .into_iter()
            .map(|value| without_secrets(value, scrubber))
            .collect(),
        Value::Object(entries) => entries
            .into_iter()
            .map(|(key, value)| (scrubber.text(key), without_secrets(value, scrubber)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

fn exchange_without_secrets(exchange: Exchange, scrubber: &Scrubber) -> Exchange {
    let text = |text| scrubber.text(text);
    let body = |body: Body| Body(scrubber.bytes(body.0));
    let pairs = |pairs: Vec<(String, String)>| {
        pairs
            .into_iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    };
    let asked = match exchange.asked {
        Asked::Secret(name) => Asked::Secret(text(name)),
        Asked::Http {
            method,
            url,
            headers,
            body: content,
            credentials,
        } => Asked::Http {
            method: text(method),
            url: text(url),
            headers: pairs(headers),
            body: body(content),
            credentials,
        },
        Asked::Channel(endpoint) => Asked::Channel(text(endpoint)),
        Asked::Send(data) => Asked::Send(body(data)),
        Asked::Receive => Asked::Receive,
        Asked::Wake(mac) => Asked::Wake(text(mac)),
        Asked::Get(key) => Asked::Get(text(key)),
        Asked::Put {
            key,
            value,
            if_revision,
        } => Asked::Put {
            key: text(key),
            value: body(value),
            if_revision,
        },
        Asked::Delete(key) => Asked::Delete(text(key)),
        Asked::Keys(prefix) => Asked::Keys(text(prefix)),
        Asked::Now => Asked::Now,
        Asked::Remaining => Asked::Remaining,
    };
    let answered = exchange.answered.map(|answered| match answered {
        Answered::Names(names) => Answered::Names(names.into_iter().map(text).collect()),
        Answered::Bytes(bytes) => Answered::Bytes(body(bytes)),
        Answered::Entry(Some((value, revision))) => Answered::Entry(Some((body(value), revision))),
        Answered::Response {
            status,
            headers,
            body: content,
        } => Answered::Response {
            status,
            headers: pairs(headers),
            body: body(content),
        },
        Answered::Done | Answered::Number(_) | Answered::Peer(_) | Answered::Entry(None) => {
            answered
        }
    });
    let answered = answered.map_err(|mut error| {
        error.message = text(error.message);
        for kv in &mut error.details {
            kv.value = text(std::mem::take(&mut kv.value));
        }
        error
    });
    Exchange { asked, answered }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_text_where_they_are_text() {
        for (bytes, text) in [
            (b"plain".to_vec(), r#""plain""#),
            (vec![0xff, 0], r#"{"base64":"/wA="}"#),
        ] {
            let body = Body(bytes);
            assert_eq!(serde_json::to_string(&body).expect("writes"), text);
            assert_eq!(serde_json::from_str::<Body>(text).expect("reads"), body);
        }
    }

    #[test]
    fn secrets_are_left_out_of_bodies_too() {
        let mut scrubber = Scrubber::default();
        scrubber.add("token", b"hunter22");
        let exchange = Exchange {
            asked: Asked::Send(Body(b"\xff hunter22".to_vec())),
            answered: Ok(Answered::Bytes(Body(b"hunter22".to_vec()))),
        };
        let clean = exchange_without_secrets(exchange, &scrubber);
        assert_eq!(
            clean.asked,
            Asked::Send(Body(b"\xff [secret token]".to_vec()))
        );
        let expected = Answered::Bytes(Body(b"[secret token]".to_vec()));
        assert_eq!(clean.answered, Ok(expected));
    }
}
