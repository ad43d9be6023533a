//! Failed units, asked of systemd itself.
//!
//! systemd answers D-Bus on a private socket that only root may use; no bus is needed
//! and no program is started, which matters on a small host that is asked every few
//! seconds. One call is made, `ListUnitsFiltered(["failed"])`, so its bytes are written
//! out here and its answer is read by a few lines instead of a library.
//!
//! ```text
//! we                                        systemd
//!   "\0AUTH EXTERNAL <uid in hex>\r\n
//!    BEGIN\r\n"                         ─►
//!                                      ◄─   "OK <id>\r\n"
//!   the call                           ─►
//!                                      ◄─   the answer: a(ssssssouso)
//! ```
//!
//! `BEGIN` goes ahead of the answer: a call that systemd reads together with it lies in
//! its buffer until more comes, which never does.

use super::text::{Kind, Text};
use super::{Outcome, Readings};

/// Where systemd listens.
pub const SOCKET: &str = "/run/systemd/private";
/// Bytes before the variable part of a message.
pub const HEAD: usize = 16;
/// Thousands of failed units fit.
const MAX_MESSAGE: usize = 1 << 20;
/// Units that get a series of their own; all are counted.
const MAX_NAMED: usize = 100;

const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// systemd did not say which units have failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnswered;

/// What is said first, by a process of this user.
pub fn greeting(uid: u32) -> Vec<u8> {
    let hex: String = uid
        .to_string()
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").into_bytes()
}

/// What follows once the greeting was answered with a line that begins with `OK `.
pub fn call() -> Vec<u8> {
    let mut fields = Vec::new();
    for (code, signature, value) in [
        (1, "o", "/org/freedesktop/systemd1"),
        (2, "s", "org.freedesktop.systemd1.Manager"),
        (3, "s", "ListUnitsFiltered"),
    ] {
        pad(&mut fields, 8);
        fields.push(code);
        put_signature(&mut fields, signature);
        pad(&mut fields, 4);
        put_string(&mut fields, value);
    }
    pad(&mut fields, 8);
    fields.push(8);
    put_signature(&mut fields, "g");
    put_signature(&mut fields, "as");

    let mut states = Vec::new();
    put_string(&mut states, "failed");
    let mut body = length(&states);
    body.append(&mut states);

    // Little endian, a method call, no flags, version 1.
    let mut message = vec![b'l', 1, 0, 1];
    message.extend(length(&body));
    message.extend(1u32.to_le_bytes());
    message.extend(length(&fields));
    message.append(&mut fields);
    pad(&mut message, 8);
    message.append(&mut body);
    message
}

/// How many bytes follow the [`HEAD`] of a message.
pub fn rest(head: &[u8; HEAD]) -> Result<usize, NotAnswered> {
    let (body, fields) = sizes(head)?;
    Ok(fields.next_multiple_of(8) + body)
}

/// The names of the units in an answer; `None` when the message is none, a signal say.
pub fn answer(head: &[u8; HEAD], rest: &[u8]) -> Result<Option<Vec<String>>, NotAnswered> {
    let (_, fields) = sizes(head)?;
    match head[1] {
        METHOD_RETURN => {}
        ERROR => return Err(NotAnswered),
        _ => return Ok(None),
    }
    let body = rest.get(fields.next_multiple_of(8)..).ok_or(NotAnswered)?;
    let mut reader = Reader { body, at: 0 };
    let size = reader.number()?;
    reader.align(8);
    let end = reader.at.checked_add(size).ok_or(NotAnswered)?;
    let mut names = Vec::new();
    while reader.at < end {
        names.push(reader.string()?.to_owned());
        // Description, load, active and sub state, what it follows, its path.
        for _ in 0..6 {
            reader.string()?;
        }
        reader.number()?;
        // Type and path of its job.
        reader.string()?;
        reader.string()?;
        reader.align(8);
    }
    Ok(Some(names))
}

/// Writes what is known of failed units.
pub(super) fn failed(text: &mut Text, readings: &Readings) -> Outcome {
    let names = match &readings.failed_units {
        None => return Outcome::Absent,
        Some(Err(NotAnswered)) => return Outcome::Senseless,
        Some(Ok(names)) => names,
    };
    text.family("node_systemd_units", "Units by state.", Kind::Gauge)
        .sample(&[("state", "failed")], names.len());
    let mut family = text.family(
        "node_systemd_unit_state",
        "Units that have failed; others are not told one by one.",
        Kind::Gauge,
    );
    for name in names.iter().take(MAX_NAMED) {
        let labels = [("name", name.as_str()), ("state", "failed"), ("type", "")];
        family.sample(&labels, 1);
    }
    Outcome::Taken
}

fn sizes(head: &[u8; HEAD]) -> Result<(usize, usize), NotAnswered> {
    let number = |at: usize| {
        let bytes = [head[at], head[at + 1], head[at + 2], head[at + 3]];
        usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
    };
    let (body, fields) = (number(4), number(12));
    let good = head[0] == b'l' && body <= MAX_MESSAGE && fields <= MAX_MESSAGE;
    good.then_some((body, fields)).ok_or(NotAnswered)
}

fn length(bytes: &[u8]) -> Vec<u8> {
    u32::try_from(bytes.len())
        .unwrap_or(u32::MAX)
        .to_le_bytes()
        .to_vec()
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn put_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(length(text.as_bytes()));
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

fn put_signature(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, size: usize) -> Result<&'a [u8], NotAnswered> {
        let end = self.at.checked_add(size).ok_or(NotAnswered)?;
        let bytes = self.body.get(self.at..end).ok_or(NotAnswered)?;
        self.at = end;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<usize, NotAnswered> {
        self.align(4);
        let bytes = self.take(4)?.try_into().map_err(|_| NotAnswered)?;
        usize::try_from(u32::from_le_bytes(bytes)).map_err(|_| NotAnswered)
    }

    fn string(&mut self) -> Result<&'a str, NotAnswered> {
        let size = self.number()?;
        let bytes = self.take(size)?;
        self.take(1)?;
        std::str::from_utf8(bytes).map_err(|_| NotAnswered)
    }
}
