//! The content of one binary WebSocket message: datagrams, each after its length.
//!
//! ```text
//! message  = datagram+               at most 16 KiB
//! datagram = length:u16be bytes      1 to 1500 bytes
//! ```
//!
//! Several share a message because quinn hands out a burst at once, and a message
//! costs a system call and a TLS record.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest message, and so the largest a WebSocket needs to accept.
pub const MAX_MESSAGE: usize = 16 << 10;
/// Largest datagram: above what path MTU discovery tries (1452).
pub const MAX_DATAGRAM: usize = 1500;
/// Largest datagrams that surely share a message.
pub(crate) const MAX_BATCH: usize = MAX_MESSAGE / (LENGTH + MAX_DATAGRAM);

const LENGTH: usize = 2;

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// No datagram.
    #[error("empty carrier message")]
    Empty,
    /// More than [`MAX_MESSAGE`].
    #[error("carrier message of {0} bytes exceeds {MAX_MESSAGE}")]
    MessageTooLong(usize),
    /// A datagram of no bytes or of more than [`MAX_DATAGRAM`].
    #[error("datagram of {0} bytes, outside 1 to {MAX_DATAGRAM}")]
    DatagramLength(usize),
    /// The message ends within a datagram.
    #[error("carrier message ends within a datagram")]
    Truncated,
}

/// The message of `datagrams`.
pub fn encode<'a>(
    datagrams: impl Iterator<Item = &'a [u8]> + Clone,
) -> Result<Bytes, MessageError> {
    let length = datagrams
        .clone()
        .map(|datagram| LENGTH + datagram.len())
        .sum();
    match length {
        0 => return Err(MessageError::Empty),
        1..=MAX_MESSAGE => {}
        _ => return Err(MessageError::MessageTooLong(length)),
    }
    let mut message = BytesMut::with_capacity(length);
    for datagram in datagrams {
        let length = u16::try_from(datagram.len())
            .ok()
            .filter(|&length| (1..=MAX_DATAGRAM).contains(&length.into()))
            .ok_or(MessageError::DatagramLength(datagram.len()))?;
        message.put_u16(length);
        message.put_slice(datagram);
    }
    Ok(message.freeze())
}

/// The datagrams of `message`, without copying. Checks as it goes: the iterator ends
/// after the first error.
pub fn decode(message: Bytes) -> Result<Datagrams, MessageError> {
    match message.len() {
        0 => Err(MessageError::Empty),
        1..=MAX_MESSAGE => Ok(Datagrams(message)),
        length => Err(MessageError::MessageTooLong(length)),
    }
}

/// See [`decode`].
#[derive(Debug)]
pub struct Datagrams(Bytes);

impl Iterator for Datagrams {
    type Item = Result<Bytes, MessageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let datagram = take(&mut self.0);
        if datagram.is_err() {
            self.0.clear();
        }
        Some(datagram)
    }
}

fn take(rest: &mut Bytes) -> Result<Bytes, MessageError> {
    let length = usize::from(rest.try_get_u16().map_err(|_| MessageError::Truncated)?);
    if !(1..=MAX_DATAGRAM).contains(&length) {
        return Err(MessageError::DatagramLength(length));
    }
    if length > rest.len() {
        return Err(MessageError::Truncated);
    }
    Ok(rest.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(message: &[u8]) -> Result<Vec<Bytes>, MessageError> {
        decode(Bytes::copy_from_slice(message))?.collect()
    }

    /// These bytes are a promise to agents of other releases.
    #[test]
    fn golden_bytes() {
        let message = encode([&b"quic"[..], b"!"].into_iter()).unwrap();
        assert_eq!(
            data_encoding::HEXLOWER.encode(&message),
            "00047175696300".to_owned() + "0121"
        );
        assert_eq!(read(&message).unwrap(), [&b"quic"[..], b"!"]);
        assert_eq!(
            (PATH_AND_PROTOCOL.0, PATH_AND_PROTOCOL.1),
            ("/v1/agent/link", "loopback-link.1")
        );
    }

    const PATH_AND_PROTOCOL: (&str, &str) = (super::super::PATH, super::super::SUBPROTOCOL);

    #[test]
    fn bad_messages_are_named() {
        assert_eq!(read(b""), Err(MessageError::Empty));
        assert_eq!(read(&[0]), Err(MessageError::Truncated));
        assert_eq!(read(&[0, 0]), Err(MessageError::DatagramLength(0)));
        assert_eq!(read(&[0, 2, 7]), Err(MessageError::Truncated));
        assert_eq!(
            read(&[0xff, 0xff, 7]),
            Err(MessageError::DatagramLength(0xffff))
        );
        assert_eq!(read(&[0, 1, 7, 0]), Err(MessageError::Truncated));
        assert_eq!(
            read(&vec![0; MAX_MESSAGE + 1]),
            Err(MessageError::MessageTooLong(MAX_MESSAGE + 1))
        );
        let long = vec![0; MAX_DATAGRAM + 1];
        assert_eq!(
            encode([&long[..]].into_iter()),
            Err(MessageError::DatagramLength(long.len()))
        );
    }

    proptest! {
        #[test]
        fn datagrams_survive(
            datagrams in prop::collection::vec(
                prop::collection::vec(any::<u8>(), 1..=MAX_DATAGRAM), 1..=MAX_BATCH),
        ) {
            let message = encode(datagrams.iter().map(Vec::as_slice)).unwrap();
            prop_assert_eq!(read(&message).unwrap(), datagrams);
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            message in prop::collection::vec(prop_oneof![Just(0), 0..8u8, any::<u8>()], 0..200),
        ) {
            if let Ok(datagrams) = read(&message) {
                let again = encode(datagrams.iter().map(|datagram| &datagram[..])).unwrap();
                prop_assert_eq!(&again[..], &message[..]);
            }
        }
    }
}
