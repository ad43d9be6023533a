//! The content of a section: the one way to it leads through the redactor.

use agent_core::diagnose::redact::{MASK, Redactor, names, text};
use model::diagnose::{MAX_SECTION, Outcome};
use serde::Serialize;
use serde_json::Value;

/// Lines that are looked at before the first that is shown: what is shown may begin in
/// the middle of a private key.
pub(super) const BEFORE: usize = 400;

/// What came of a section.
#[derive(Debug)]
pub(super) struct Gathered {
    /// Without secrets.
    pub(super) bytes: Vec<u8>,
    missing: Vec<String>,
    /// Whole or nothing.
    document: bool,
}

impl Gathered {
    /// Nothing, and why.
    pub(super) fn failed(why: &str) -> Self {
        Self {
            bytes: Vec::new(),
            missing: vec![text(why)],
            document: false,
        }
    }

    /// A JSON document. While it is too long, `shorten` makes it shorter, until it
    /// cannot.
    pub(super) fn json<T: Serialize>(
        mut value: T,
        mut shorten: impl FnMut(&mut T) -> bool,
    ) -> Self {
        loop {
            let json = serde_json::to_value(&value).map(clean);
            let bytes = json.and_then(|json| serde_json::to_vec_pretty(&json));
            match bytes {
                Ok(mut bytes) if bytes.len() < MAX_SECTION => {
                    bytes.push(b'\n');
                    return Self {
                        bytes,
                        missing: Vec::new(),
                        document: true,
                    };
                }
                Ok(_) if shorten(&mut value) => {}
                Ok(_) => return Self::failed("it is too long"),
                Err(error) => return Self::failed(&error.to_string()),
            }
        }
    }

    /// The latest `lines` of a text of which earlier lines are known, too.
    pub(super) fn latest(read: &[u8], lines: usize) -> Self {
        let mut redactor = Redactor::default();
        let mut bytes = Vec::new();
        redactor.feed(read, &mut bytes);
        redactor.finish(&mut bytes);
        let body = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let ends = body
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, it)| **it == b'\n');
        if let Some((before, _)) = ends.take(lines).nth(lines.saturating_sub(1)) {
            bytes.drain(..=before);
        }
        Self {
            bytes,
            missing: Vec::new(),
            document: false,
        }
    }

    /// Something is missing from it.
    pub(super) fn missing(mut self, what: impl AsRef<str>) -> Self {
        self.missing.push(text(what.as_ref()));
        self
    }

    /// The same, if it has room for the latest of its lines only. A document without its
    /// end is none.
    pub(super) fn within(mut self, room: usize) -> Self {
        if self.bytes.len() <= room {
            return self;
        }
        if self.document {
            return Self::failed("all sections together are too long");
        }
        let from = self.bytes.len() - room;
        let line = self.bytes[from..].iter().position(|byte| *byte == b'\n');
        self.bytes
            .drain(..line.map_or(self.bytes.len(), |line| from + line + 1));
        self.missing("earlier lines had no room")
    }

    pub(super) fn outcome(&self) -> Outcome {
        match (self.bytes.is_empty(), self.missing.is_empty()) {
            (_, true) => Outcome::Ok,
            (false, false) => Outcome::Partial,
            (true, false) => Outcome::Failed,
        }
    }

    pub(super) fn reason(&self) -> String {
        model::names::clean(&self.missing.join("; "), 512)
    }
}

/// A document without its secrets.
fn clean(value: Value) -> Value {
    match value {
        Value::String(said) => Value::String(text(&said)),
        Value::Array(items) => items.into_iter().map(clean).collect(),
        Value::Object(fields) => {
            let one = |(name, value): (String, Value)| {
                let value = match value {
                    Value::String(said) if names::is_secret(&name) && !said.starts_with('/') => {
                        Value::String(MASK.to_owned())
                    }
                    other => clean(other),
                };
                (name, value)
            };
            Value::Object(fields.into_iter().map(one).collect())
        }
        other => other,
    }
}

/// Halves a list that is too long.
pub(super) fn halve<T>(list: &mut Vec<T>, omitted: &mut u64) -> bool {
    let keep = list.len() / 2;
    *omitted += (list.len() - keep) as u64;
    let more = !list.is_empty();
    list.truncate(keep);
    more
}
