//! Datagrams in tests: what a plugin sends, in its order, and what comes back.
//!
//! ```toml
//! [[datagram]]
//! endpoint = "bmc.example:623"
//! sends = "0600ff07"             # in hexadecimal; not written: whatever it is
//! answers = ["0600ff07", "00"]   # nothing: the peer is silent, and receiving times out at once
//! ```

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use plugin_host::ports::{Datagrams, ErrorKind, GuestError};
use serde::Deserialize;

use crate::surroundings::Scene;

/// A datagram that is sent, and those that come back.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Datagram {
    /// To whom.
    endpoint: Option<String>,
    sends: Option<Bytes>,
    #[serde(default)]
    answers: Vec<Bytes>,
}

/// Bytes in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Bytes(Vec<u8>);

impl TryFrom<String> for Bytes {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
        let bytes = digits.chunks(2).map(|pair| {
            let digits = [pair.first()?.to_digit(16)?, pair.get(1)?.to_digit(16)?];
            u8::try_from(digits[0] * 16 + digits[1]).ok()
        });
        let bytes: Option<_> = bytes.collect();
        bytes.map(Self).ok_or("not bytes in hexadecimal")
    }
}

/// A peer that answers from the test's list.
pub(crate) struct Channel {
    scene: Arc<Scene>,
    endpoint: String,
    waiting: VecDeque<Vec<u8>>,
}

impl Channel {
    pub(crate) fn new(scene: Arc<Scene>, endpoint: &str) -> Self {
        Self {
            scene,
            endpoint: endpoint.to_owned(),
            waiting: VecDeque::new(),
        }
    }
}

#[async_trait]
impl Datagrams for Channel {
    fn peer(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    async fn send(&mut self, data: &[u8]) -> Result<(), GuestError> {
        let Some((number, wanted)) = self.scene.next_datagram() else {
            let what = format!("an unexpected datagram: {}", hex(data));
            self.scene.complain(what.clone());
            return Err(GuestError::new(ErrorKind::Denied, "test.unexpected", what));
        };
        if let Some(other) = wanted.endpoint.filter(|to| *to != self.endpoint) {
            let what = format!("datagram {number} goes to {}, not {other}", self.endpoint);
            self.scene.complain(what);
        }
        if let Some(other) = wanted.sends.filter(|bytes| bytes.0 != data) {
            let what = format!("datagram {number} is {}, not {}", hex(data), hex(&other.0));
            self.scene.complain(what);
        }
        self.waiting
            .extend(wanted.answers.into_iter().map(|answer| answer.0));
        Ok(())
    }

    async fn recv(&mut self, _: Duration) -> Result<Vec<u8>, GuestError> {
        self.waiting.pop_front().ok_or_else(|| {
            let what = "the test's peer says no more";
            GuestError::new(ErrorKind::Timeout, "datagram.timeout", what)
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_pairs_of_digits() {
        let bytes = |text: &str| Bytes::try_from(text.to_owned()).map(|bytes| bytes.0);
        assert_eq!(bytes("06 00\nfF07"), Ok(vec![6, 0, 255, 7]));
        assert_eq!(bytes(""), Ok(vec![]));
        assert!(bytes("060").is_err() && bytes("0g").is_err() && bytes("+1").is_err());
    }
}
