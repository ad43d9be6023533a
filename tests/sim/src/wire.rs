//! Stand-ins for cryptography, and the real encoding of messages.
//!
//! A key is a number, a signing request and a certificate its bytes: nobody in the
//! world forges one, which is what the real ones promise. Messages are really encoded and decoded, each one, by `protocol`.

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

use prost::Message;
