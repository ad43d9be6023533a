//! The log of a run's output, as it lies in memory, in files and in objects.
//!
//! Frames one after the other: a byte for the kind, eight for the sequence of the
//! piece, four for a length, all big-endian, then that many bytes. Kind 1 and 2 are
//! pieces of standard output and standard error, byte for byte. Kind 3 is a gap: its
//! sequence is the first piece that is missing, its body the first piece that is not
//! and the number of bytes between. Kind 9 is a label that makes the log of one run
//! differ from that of any other, so that two runs with the same output do not share
//! an object that one of them will delete.

use bytes::{Buf as _, Bytes, BytesMut};
use model::command::OutputStream;

/// Bytes before the body of a frame.
const HEADER: usize = 1 + 8 + 4;
/// Longest body that is believed: far above what an agent may send in one piece.
const MOST: usize = 1 << 20;

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const GAP: u8 = 3;
const LABEL: u8 = 9;

/// What a log tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A piece of output.
    Piece {
        /// Its place in the order of both streams.
        sequence: u64,
        /// Which stream.
        stream: OutputStream,
        /// The bytes.
        data: Bytes,
    },
    /// Pieces that are gone.
    Gap {
        /// The first that is gone.
        sequence: u64,
        /// The first that is not.
        resumes_at: u64,
        /// Bytes that are gone.
        bytes: u64,
    },
    /// Whose log it is.
    Label(Bytes),
}

impl Frame {
    /// The first sequence after this frame, if it has one.
    pub fn next(&self) -> Option<u64> {
        match self {
            Self::Piece { sequence, .. } => Some(sequence + 1),
            Self::Gap { resumes_at, .. } => Some(*resumes_at),
            Self::Label(_) => None,
        }
    }

    /// Bytes of output in it.
    pub fn payload(&self) -> u64 {
        match self {
            Self::Piece { data, .. } => data.len() as u64,
            Self::Gap { .. } | Self::Label(_) => 0,
        }
    }

    /// Appends it to a log.
    pub fn encode(&self, log: &mut Vec<u8>) {
        let mut put = |kind: u8, sequence: u64, body: &[u8]| {
            log.push(kind);
            log.extend_from_slice(&sequence.to_be_bytes());
            log.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
            log.extend_from_slice(body);
        };
        match self {
            Self::Piece {
                sequence,
                stream,
                data,
            } => {
                let kind = match stream {
                    OutputStream::Stdout => STDOUT,
                    OutputStream::Stderr => STDERR,
                };
                put(kind, *sequence, data);
            }
            Self::Gap {
                sequence,
                resumes_at,
                bytes,
            } => {
                let body = [resumes_at.to_be_bytes(), bytes.to_be_bytes()].concat();
                put(GAP, *sequence, &body);
            }
            Self::Label(text) => put(LABEL, 0, text),
        }
    }
}

/// The log is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log of a run's output is damaged")]
pub struct Damaged;

/// Takes the next whole frame off `log`. `None` when the rest is not a whole one.
pub fn take(log: &mut BytesMut) -> Result<Option<Frame>, Damaged> {
    let Some(mut header) = log.get(..HEADER) else {
        return Ok(None);
    };
    let kind = header.get_u8();
    let sequence = header.get_u64();
    let length = usize::try_from(header.get_u32()).unwrap_or(usize::MAX);
    if length > MOST {
        return Err(Damaged);
    }
    if log.len() < HEADER + length {
        log.reserve(HEADER + length - log.len());
        return Ok(None);
    }
    log.advance(HEADER);
    let mut body = log.split_to(length).freeze();
    let stream = match kind {
        STDOUT => OutputStream::Stdout,
        STDERR => OutputStream::Stderr,
        LABEL => return Ok(Some(Frame::Label(body))),
        GAP if length == 16 => {
            return Ok(Some(Frame::Gap {
                sequence,
                resumes_at: body.get_u64(),
                bytes: body.get_u64(),
            }));
        }
        _ => return Err(Damaged),
    };
    Ok(Some(Frame::Piece {
        sequence,
        stream,
        data: body,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let piece =
            (any::<u64>(), any::<bool>(), any::<Vec<u8>>()).prop_map(|(sequence, out, data)| {
                Frame::Piece {
                    sequence,
                    stream: if out {
                        OutputStream::Stdout
                    } else {
                        OutputStream::Stderr
                    },
                    data: data.into(),
                }
            });
        let gap = any::<(u64, u64, u64)>().prop_map(|(sequence, resumes_at, bytes)| Frame::Gap {
            sequence,
            resumes_at,
            bytes,
        });
        let label = any::<Vec<u8>>().prop_map(|text| Frame::Label(text.into()));
        proptest::collection::vec(prop_oneof![8 => piece, 1 => gap, 1 => label], 0..20)
    }

    proptest! {
        #[test]
        fn a_log_reads_back_however_it_arrives(frames in frames(), cut in 1usize..64) {
            let mut log = Vec::new();
            for frame in &frames {
                frame.encode(&mut log);
            }
            let mut arrived = BytesMut::new();
            let mut read = Vec::new();
            for part in log.chunks(cut) {
                arrived.extend_from_slice(part);
                while let Some(frame) = take(&mut arrived).unwrap() {
                    read.push(frame);
                }
            }
            prop_assert_eq!(read, frames);
            prop_assert!(arrived.is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut log = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take(&mut log) {}
        }
    }
}
