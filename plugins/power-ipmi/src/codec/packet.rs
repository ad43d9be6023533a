//! What a datagram is around a message: RMCP and the headers of sessions (section 13.6).

use super::crypt::{BLOCK, Keys, same};

/// RMCP 1.0, not to be acknowledged, class IPMI.
const RMCP: [u8; 4] = [6, 0, 0xff, 7];
/// Formats of headers, by their authentication type.
const FORMAT_1_5: u8 = 0;
const FORMAT_2_0: u8 = 6;
/// The payload is encrypted, and authenticated, and a message.
const SEALED_MESSAGE: u8 = 0xc0;
/// A trailer belongs to RMCP.
const NEXT_HEADER: u8 = 7;
/// In front of a payload: format, type, session, sequence, length.
const HEADER: usize = 12;

/// A packet outside of sessions, as version 1.5 has it.
pub(crate) fn plain(message: &[u8]) -> Vec<u8> {
    let mut packet = RMCP.to_vec();
    packet.extend_from_slice(&[FORMAT_1_5, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet.push(u8::try_from(message.len()).unwrap_or(0));
    packet.extend_from_slice(message);
    packet
}

/// The message in such a packet.
pub(crate) fn plain_message(packet: &[u8]) -> Option<&[u8]> {
    let rest = session_part(packet)?;
    let (head, payload) = rest.split_at_checked(10)?;
    if head[..9] != [FORMAT_1_5, 0, 0, 0, 0, 0, 0, 0, 0] {
        return None;
    }
    payload.get(..usize::from(head[9]))
}

/// A packet with a step of a handshake in it.
pub(crate) fn setup(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = RMCP.to_vec();
    packet.extend_from_slice(&header(kind, 0, 0, payload.len()));
    packet.extend_from_slice(payload);
    packet
}

/// The step of this kind in such a packet.
pub(crate) fn setup_payload(kind: u8, packet: &[u8]) -> Option<&[u8]> {
    let parts = Parts::of(session_part(packet)?)?;
    (parts.kind == kind && parts.session == 0).then_some(parts.payload)
}

/// A packet of a session.
pub(crate) fn seal(keys: &Keys, session: u32, sequence: u32, message: &[u8]) -> Vec<u8> {
    seal_with(keys, session, sequence, &keys.vector(sequence), message)
}

pub(crate) fn seal_with(
    keys: &Keys,
    session: u32,
    sequence: u32,
    vector: &[u8; BLOCK],
    message: &[u8],
) -> Vec<u8> {
    let payload = keys.encrypt(vector, message);
    let mut covered = header(SEALED_MESSAGE, session, sequence, payload.len()).to_vec();
    covered.extend_from_slice(&payload);
    // What is covered has a multiple of four bytes, with the two behind the padding.
    let padding = (4 - (covered.len() + 2) % 4) % 4;
    covered.extend(std::iter::repeat_n(0xff, padding));
    covered.extend_from_slice(&[u8::try_from(padding).unwrap_or(0), NEXT_HEADER]);
    let code = keys.code(&covered);
    [&RMCP[..], &covered, &code].concat()
}

/// The number and the message of a packet of this session, if it is from who has its keys.
pub(crate) fn open(keys: &Keys, session: u32, packet: &[u8]) -> Option<(u32, Vec<u8>)> {
    let rest = session_part(packet)?;
    let covered = rest.len().checked_sub(keys.suite.code_bytes())?;
    let (covered, code) = rest.split_at_checked(covered)?;
    if !same(&keys.code(covered), code) {
        return None;
    }
    let parts = Parts::of(covered)?;
    let fits = parts.kind == SEALED_MESSAGE
        && parts.session == session
        && parts.trailer.last() == Some(&NEXT_HEADER);
    if !fits {
        return None;
    }
    Some((parts.sequence, keys.decrypt(parts.payload)?))
}

fn session_part(packet: &[u8]) -> Option<&[u8]> {
    let (head, rest) = packet.split_at_checked(RMCP.len())?;
    // The sequence number is of no use without acknowledgements.
    (head[0] == RMCP[0] && head[3] == RMCP[3]).then_some(rest)
}

fn header(kind: u8, session: u32, sequence: u32, length: usize) -> [u8; HEADER] {
    let length = u16::try_from(length).unwrap_or(0).to_le_bytes();
    let [s0, s1, s2, s3] = session.to_le_bytes();
    let [q0, q1, q2, q3] = sequence.to_le_bytes();
    let [l0, l1] = length;
    [FORMAT_2_0, kind, s0, s1, s2, s3, q0, q1, q2, q3, l0, l1]
}

/// A packet of version 2.0, taken apart.
struct Parts<'a> {
    kind: u8,
    session: u32,
    sequence: u32,
    payload: &'a [u8],
    trailer: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEADER)?;
        let word = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        if head[0] != FORMAT_2_0 {
            return None;
        }
        let length = usize::from(u16::from_le_bytes([head[10], head[11]]));
        let (payload, trailer) = rest.split_at_checked(length)?;
        Some(Self {
            kind: head[1],
            session: word(2)?,
            sequence: word(6)?,
            payload,
            trailer,
        })
    }
}
