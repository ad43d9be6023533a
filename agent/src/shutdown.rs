//! Whether the machine is going down, or only this service.
//!
//! Both look the same to the agent: a SIGTERM. The difference matters to whoever
//! watches the fleet: a host that reboots is expected back. systemd knows; it is
//! asked for its `SystemState` over its private socket, which root may use without a
//! bus daemon (that one may be gone already). The D-Bus message is the same forty
//! words every time, so it is written by hand: a D-Bus library would be larger than
//! the rest of the agent. Where there is no systemd or no answer, the agent says that
//! it was stopped, which is always true.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use protocol::v1::GoodbyeReason;

const SOCKET: &str = "/run/systemd/private";
/// systemd answers at once or is busy with something worse.
const LIMIT: Duration = Duration::from_millis(500);

/// Why a SIGTERM came.
pub fn reason() -> GoodbyeReason {
    let state = system_state();
    tracing::debug!(?state, "asked the service manager why");
    match state {
        Ok(state) if state == "stopping" => GoodbyeReason::HostShutdown,
        _ => GoodbyeReason::Stopping,
    }
}

fn system_state() -> io::Result<String> {
    let mut socket = UnixStream::connect(SOCKET)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    let uid = rustix::process::getuid().as_raw().to_string();
    let hex = data_encoding::HEXLOWER.encode(uid.as_bytes());
    socket.write_all(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes())?;
    // Asked before systemd has agreed, the question would lie in its buffer until
    // something else arrives.
    if !read_line(&mut socket)?.starts_with("OK ") {
        return Err(malformed());
    }
    socket.write_all(&question())?;
    answer(&mut socket)
}

/// A method call: `Get("org.freedesktop.systemd1.Manager", "SystemState")`.
fn question() -> Vec<u8> {
    let mut body = Vec::new();
    put_text(&mut body, "org.freedesktop.systemd1.Manager");
    put_text(&mut body, "SystemState");

    let mut fields = Vec::new();
    put_field(&mut fields, 1, "o", "/org/freedesktop/systemd1");
    put_field(&mut fields, 2, "s", "org.freedesktop.DBus.Properties");
    put_field(&mut fields, 3, "s", "Get");
    // Signatures have a length of one byte.
    align(&mut fields, 8);
    fields.extend([8, 1, b'g', 0, 2, b's', b's', 0]);

    // Little-endian, method call, no flags, version 1.
    let mut message = vec![b'l', 1, 0, 1];
    put_number(&mut message, body.len());
    put_number(&mut message, 1);
    put_number(&mut message, fields.len());
    message.extend(fields);
    align(&mut message, 8);
    message.extend(body);
    message
}

fn put_field(to: &mut Vec<u8>, code: u8, kind: &str, value: &str) {
    align(to, 8);
    to.extend([code, 1]);
    to.extend(kind.as_bytes());
    to.push(0);
    put_text(to, value);
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    align(to, 4);
    put_number(to, text.len());
    to.extend(text.as_bytes());
    to.push(0);
}

fn put_number(to: &mut Vec<u8>, number: usize) {
    to.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

fn align(to: &mut Vec<u8>, to_multiple_of: usize) {
    to.resize(to.len().next_multiple_of(to_multiple_of), 0);
}

/// The string in the reply. While it stops units, systemd sends signals about them to
/// everybody who is connected: those are passed over.
fn answer(from: &mut impl Read) -> io::Result<String> {
    for _ in 0..MAX_SIGNALS {
        let (kind, body) = read_message(from)?;
        match kind {
            METHOD_RETURN => return text_in_variant(&body),
            SIGNAL => {}
            _ => return Err(malformed()),
        }
    }
    Err(malformed())
}

const METHOD_RETURN: u8 = 2;
const SIGNAL: u8 = 4;
/// A machine going down stops some hundreds of units.
const MAX_SIGNALS: usize = 10_000;
const MAX_PART: usize = 64 << 10;

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// Type and body of the next message.
fn read_message(from: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 16];
    from.read_exact(&mut head)?;
    let [b'l', kind, ..] = head else {
        return Err(malformed());
    };
    let number = |at: usize| {
        let bytes = head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        let number = bytes
            .map(u32::from_le_bytes)
            .and_then(|number| usize::try_from(number).ok());
        number
            .filter(|&number| number <= MAX_PART)
            .ok_or_else(malformed)
    };
    let (body, fields) = (number(4)?, number(12)?.next_multiple_of(8));
    let mut rest = vec![0; fields + body];
    from.read_exact(&mut rest)?;
    Ok((kind, rest.split_off(fields)))
}

/// Signature "s" with its length and end, padding, the string with its length.
fn text_in_variant(body: &[u8]) -> io::Result<String> {
    let [1, b's', 0, _, a, b, c, d, text @ ..] = body else {
        return Err(malformed());
    };
    let length = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).map_err(|_| malformed())?;
    let text = text.get(..length).ok_or_else(malformed)?;
    String::from_utf8(text.to_vec()).map_err(|_| malformed())
}

fn read_line(from: &mut impl Read) -> io::Result<String> {
    let mut line = String::new();
    loop {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        match byte[0] {
            b'\n' => return Ok(line),
            _ if line.len() > 200 => return Err(malformed()),
            byte => line.push(char::from(byte)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![b'l', kind, 1, 1];
        put_number(&mut message, body.len());
        put_number(&mut message, 7);
        // One field: the serial replied to.
        put_number(&mut message, 8);
        message.extend([5, 1, b'u', 0, 1, 0, 0, 0]);
        message.extend(body);
        message
    }

    fn reply(state: &str) -> Vec<u8> {
        let mut body = vec![1, b's', 0];
        put_text(&mut body, state);
        let signal = message(SIGNAL, b"a unit was removed");
        [&signal[..], &signal, &message(METHOD_RETURN, &body)].concat()
    }

    #[test]
    fn the_state_is_found_among_signals() {
        assert_eq!(
            answer(&mut reply("stopping").as_slice()).unwrap(),
            "stopping"
        );
        assert_eq!(answer(&mut reply("running").as_slice()).unwrap(), "running");
    }

    #[test]
    fn other_answers_are_errors_and_never_panics() {
        let good = reply("stopping");
        for cut in 0..good.len() {
            answer(&mut &good[..cut]).unwrap_err();
        }
        for place in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[place] = value;
                let _ = answer(&mut bad.as_slice());
            }
        }
    }

    #[test]
    fn the_question_is_aligned_as_the_protocol_wants() {
        let question = question();
        assert_eq!(question[..4], [b'l', 1, 0, 1]);
        let number = |at: usize| u32::from_le_bytes(question[at..at + 4].try_into().unwrap());
        let (body, fields) = (number(4) as usize, number(12) as usize);
        assert_eq!(question.len(), (16 + fields).next_multiple_of(8) + body);
    }
}
