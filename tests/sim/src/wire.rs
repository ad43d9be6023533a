//! Stand-ins for cryptography, and the real encoding of messages.
//!
//! A key is a number, a signing request and a certificate hold it in the open: nobody in
//! the world forges one, which is what the real ones promise. Messages are really encoded
//! and decoded, each one, by `protocol`.

use model::Timestamp;
use prost::Message;
use protocol::frame::{HEADER, MAX_FRAME, body_length, decode, encode};
use protocol::v1::{
    AgentFrame, EnrolReply, EnrolRequest, GatewayFrame, agent_frame, gateway_frame,
};

/// A key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(pub(crate) u64);

impl Key {
    /// The signing request for it.
    pub(crate) fn request(self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }

    /// The key in a request.
    pub(crate) fn of_request(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 8] = bytes.try_into().ok()?;
        Some(Self(u64::from_be_bytes(bytes)))
    }

    /// Names it, as a digest does.
    pub(crate) fn spki(self) -> [u8; 32] {
        let mut spki = [0xaa; 32];
        spki[..8].copy_from_slice(&self.0.to_be_bytes());
        spki
    }
}

/// What is signed for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) key: Key,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

impl Certificate {
    /// As it travels.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.key.request();
        bytes.extend(self.not_before.as_millis().to_be_bytes());
        bytes.extend(self.not_after.as_millis().to_be_bytes());
        bytes
    }

    /// Reads it back.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (key, times) = bytes.split_at_checked(8)?;
        let (before, after) = times.split_at_checked(8)?;
        let time = |bytes: &[u8]| {
            let millis = i64::from_be_bytes(bytes.try_into().ok()?);
            Some(Timestamp::from_millis(millis))
        };
        Some(Self {
            key: Key::of_request(key)?,
            not_before: time(before)?,
            not_after: time(after)?,
        })
    }
}

/// What travels.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    /// A frame, encoded.
    Frame(Vec<u8>),
    /// The other end has closed.
    Close,
}

/// A frame of an agent.
pub(crate) fn from_agent(body: agent_frame::Body) -> Packet {
    Packet::Frame(encode(&AgentFrame { body: Some(body) }))
}

/// A frame of the gateway.
pub(crate) fn from_gateway(body: gateway_frame::Body) -> Packet {
    Packet::Frame(encode(&GatewayFrame { body: Some(body) }))
}

/// An enrolment's question.
pub(crate) fn question(request: &EnrolRequest) -> Packet {
    Packet::Frame(encode(request))
}

/// An enrolment's answer.
pub(crate) fn answer(reply: &EnrolReply) -> Packet {
    Packet::Frame(encode(reply))
}

/// Reads a message back.
pub(crate) fn read<M: Default + Message>(bytes: &[u8]) -> Option<M> {
    let header: [u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
    let length = body_length(header, MAX_FRAME).ok()?;
    decode(bytes.get(HEADER..HEADER + length)?).ok()
}
