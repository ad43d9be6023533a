//! Takes secrets out of text before it leaves the host.
//!
//! A diagnosis is what other programs wrote: their arguments, their log lines. Nobody
//! can tell for certain which of that is secret, so what is taken out is told by its
//! looks, on the host, once; whatever has been through here may be stored and shown.
//!
//! | looks like | masked |
//! |---|---|
//! | a name that sounds secret ([`names`]) and `=`, `:` | the value: quoted, to the blank, or to the end of the line |
//! | `--name value`, `name value` of letters and digits | the word |
//! | `Bearer x`, `Authorization:`, `Cookie:` | the word, the rest of the line |
//! | `scheme://user:password@` | the password, or a long user |
//! | a private key in PEM | all lines of it |
//! | tokens with known beginnings, JSON web tokens, password hashes | the whole token |
//!
//! Text arrives in pieces that are cut anywhere, and what is shown must not depend on
//! where: a whole line is looked at, or none of it. A line that is too long to be kept
//! loses its end, back to a blank, so that no half of a secret stands there without what
//! would tell it.
//!
//! What does not look like a secret is beyond this: `echo hunter2`. Environments of
//! processes, where most secrets are, are never read at all. Masking by known values
//! ([`crate::runs::mask`]) is of no use here: nobody has told them.

mod line;
pub mod names;

use line::{Carried, redact};

/// Stands where something was taken out.
pub const MASK: &str = "***";
/// A line is kept up to here.
pub const MAX_LINE: usize = 64 << 10;
/// Stands where the end of a line was left out.
const CUT: &str = " [the line is longer]";
/// Arguments of one process that are shown, and bytes of them.
const MAX_ARGS: usize = 256;
const MAX_ARGS_BYTES: usize = 16 << 10;

/// One text, as it arrives.
#[derive(Debug, Default)]
pub struct Redactor {
    line: Vec<u8>,
    /// The line has more than is kept.
    longer: bool,
    carried: Carried,
}

impl Redactor {
    /// Appends to `out` what may be shown once `piece` has arrived: whole lines.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.keep(&rest[..end]);
            self.end_line(out);
            out.push(b'\n');
            rest = &rest[end + 1..];
        }
        self.keep(rest);
    }

    /// The last line, when nothing more will arrive.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.end_line(out);
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_LINE - self.line.len();
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.longer |= bytes.len() > room;
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        let mut line = std::mem::take(&mut self.line);
        let longer = std::mem::take(&mut self.longer);
        if longer {
            let blank = line.iter().rposition(u8::is_ascii_whitespace);
            line.truncate(blank.unwrap_or(0));
        }
        let shown = redact(&String::from_utf8_lossy(&line), &mut self.carried);
        out.extend_from_slice(shown.as_bytes());
        if longer {
            out.extend_from_slice(CUT.as_bytes());
        }
    }
}

/// A whole text without its secrets.
pub fn text(text: &str) -> String {
    let mut shown = Vec::with_capacity(text.len());
    let mut redactor = Redactor::default();
    redactor.feed(text.as_bytes(), &mut shown);
    redactor.finish(&mut shown);
    String::from_utf8_lossy(&shown).into_owned()
}

/// Arguments of a process, program first, without their secrets. Between arguments,
/// unlike in a line of a shell, it is certain where a value begins and ends.
pub fn args<'a>(argv: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut shown: Vec<String> = Vec::new();
    let mut room = MAX_ARGS_BYTES;
    let mut program = String::new();
    let mut before = String::new();
    for (place, bytes) in argv.into_iter().enumerate() {
        let raw = String::from_utf8_lossy(bytes);
        if place == 0 {
            program = raw.rsplit('/').next().unwrap_or_default().to_owned();
        }
        // After `-c` stands a line of a shell, in which more follows a value.
        let arg = if place > 0 && names::takes_secret(&program, &before) && !is_option(&raw) {
            MASK.to_owned()
        } else if let Some(option) = names::holds_secret(&program, &raw).filter(|_| before != "-c")
        {
            format!("{option}{MASK}")
        } else {
            text(&raw)
        };
        before = raw.into_owned();
        if shown.len() == MAX_ARGS || arg.len() > room {
            shown.push("[more]".to_owned());
            break;
        }
        room -= arg.len();
        shown.push(arg);
    }
    shown
}

/// `--verbose`: certainly no value.
fn is_option(arg: &str) -> bool {
    arg.strip_prefix("--")
        .is_some_and(|name| name.starts_with(|letter: char| letter.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests;
