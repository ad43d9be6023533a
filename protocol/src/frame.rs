//! Length-delimited frames, without I/O: four bytes of big-endian length, then
//! that many bytes of message.

use prost::Message;

/// Largest control frame, header not counted.
pub const MAX_FRAME: usize = 1 << 20;
/// Largest question and answer of an enrolment, header not counted: a token, a
/// certificate request, and facts that are cut to some 30 KiB when they arrive. Whoever
/// asks is a stranger, who gets no more room than that needs.
pub const MAX_ENROL_FRAME: usize = 256 << 10;
/// Bytes of a frame header.
pub const HEADER: usize = 4;

/// Why bytes are not a frame we read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The peer announced more than the limit.
    #[error("frame of {length} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Announced length.
        length: usize,
        /// The limit in force.
        limit: usize,
    },
    /// The body is not the message expected.
    #[error("malformed message")]
    Malformed(#[source] prost::DecodeError),
}

/// A message with its header.
pub fn encode(message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(HEADER + length);
    // A message that we build ourselves stays far below 4 GiB.
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes
}

/// Length of the body that follows `header`, checked before anything is
/// allocated for it.
pub fn body_length(header: [u8; HEADER], limit: usize) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if length > limit {
        Err(FrameError::TooLarge { length, limit })
    } else {
        Ok(length)
    }
}

/// The message in a body.
pub fn decode<M: Message + Default>(body: &[u8]) -> Result<M, FrameError> {
    M::decode(body).map_err(FrameError::Malformed)
}
