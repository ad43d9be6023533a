//! Takes values of secrets out of what leaves a call.
//!
//! A plugin that may use a secret does not see it, but a server may echo it, and a plugin that may
//! read one can put it into a line of its log. So each value that a call opened is looked for, as
//! it is and in the forms that programs write down, in everything that goes to people or back to
//! the plugin. This is a net for accidents and not a wall: whoever may read a secret can write it
//! backwards. The wall is that reading takes a grant of its own.

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use memchr::memmem;
use zeroize::Zeroizing;

/// Values shorter than this are left alone: they would be found everywhere.
const LEAST: usize = 4;

/// Encoded pieces shorter than this are left alone, for the same reason.
const LEAST_ENCODED: usize = 6;

/// Values of secrets to be taken out.
#[derive(Clone, Default)]
pub(crate) struct Scrubber {
    /// Longest first, so that a form is replaced before a form within it.
    needles: Vec<Needle>,
}

#[derive(Clone)]
struct Needle {
    bytes: Zeroizing<Vec<u8>>,
    shown: String,
}

impl Scrubber {
    /// Looks for another value from now on.
    pub(crate) fn add(&mut self, name: &str, value: &[u8]) {
        if value.len() < LEAST {
            return;
        }
        let shown = format!("[secret {name}]");
        let mut forms = vec![value.to_vec()];
        forms.extend(
            encoded(value)
                .into_iter()
                .filter(|form| form.len() >= LEAST_ENCODED),
        );
        for form in forms {
            if self.needles.iter().any(|known| *known.bytes == form) {
                continue;
            }
            let shown = shown.clone();
            let bytes = Zeroizing::new(form);
            self.needles.push(Needle { bytes, shown });
        }
        self.needles
            .sort_by_key(|needle| std::cmp::Reverse(needle.bytes.len()));
    }

    /// Whether there is anything to look for.
    pub(crate) fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }

    /// Without values of secrets.
    pub(crate) fn bytes(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for needle in &self.needles {
            let finder = memmem::Finder::new(&*needle.bytes);
            let Some(first) = finder.find(&bytes) else {
                continue;
            };
            let mut rest = &bytes[first..];
            let mut clean = bytes[..first].to_vec();
            while let Some(at) = finder.find(rest) {
                clean.extend_from_slice(&rest[..at]);
                clean.extend_from_slice(needle.shown.as_bytes());
                rest = &rest[at + needle.bytes.len()..];
            }
            clean.extend_from_slice(rest);
            bytes = clean;
        }
        bytes
    }

    /// Without values of secrets.
    pub(crate) fn text(&self, text: String) -> String {
        if self.needles.is_empty() {
            return text;
        }
        // A value that is not UTF-8 may end within a character of the text.
        String::from_utf8(self.bytes(text.into_bytes()))
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

fn encoded(value: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![
        BASE64.encode(value).into_bytes(),
        BASE64_NOPAD.encode(value).into_bytes(),
        BASE64URL_NOPAD.encode(value).into_bytes(),
        HEXLOWER.encode(value).into_bytes(),
        HEXUPPER.encode(value).into_bytes(),
        percent(value, b"0123456789ABCDEF"),
        percent(value, b"0123456789abcdef"),
        json(value),
    ];
    // In the middle of something longer, as a password is in `Authorization: Basic`: base64 then
    // begins at another bit, and the characters at both ends depend on the neighbours.
    for shift in 0..3usize {
        let mut padded = vec![0; shift];
        padded.extend_from_slice(value);
        let first = (shift * 8).div_ceil(6);
        let last = padded.len() * 8 / 6;
        for encoding in [&BASE64_NOPAD, &BASE64URL_NOPAD] {
            let text = encoding.encode(&padded);
            forms.push(text.as_bytes()[first..last].to_vec());
        }
    }
    forms
}

fn percent(value: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    let mut text = Vec::with_capacity(value.len() * 3);
    for &byte in value {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte);
        } else {
            text.push(b'%');
            text.push(digits[usize::from(byte >> 4)]);
            text.push(digits[usize::from(byte & 15)]);
        }
    }
    text
}

fn json(value: &[u8]) -> Vec<u8> {
    let quoted = serde_json::to_vec(&String::from_utf8_lossy(value)).unwrap_or_default();
    match quoted.as_slice() {
        [b'"', inner @ .., b'"'] => inner.to_vec(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"p@ss/w\"ord?42";

    fn scrub(text: &str) -> String {
        let mut scrubber = Scrubber::default();
        scrubber.add("token", SECRET);
        scrubber.text(text.to_owned())
    }

    #[test]
    fn every_usual_form_is_found() {
        let percent = String::from_utf8(percent(SECRET, b"0123456789ABCDEF")).expect("ASCII");
        for form in [
            "p@ss/w\"ord?42".to_owned(),
            r#"{"x":"p@ss/w\"ord?42"}"#.to_owned(),
            BASE64.encode(SECRET),
            BASE64URL_NOPAD.encode(SECRET),
            HEXLOWER.encode(SECRET),
            HEXUPPER.encode(SECRET),
            percent.to_lowercase(),
            percent,
        ] {
            let shown = scrub(&format!("a {form} b {form}"));
            assert_eq!(shown.matches("[secret token]").count(), 2, "{shown}");
        }
    }

    #[test]
    fn a_secret_within_longer_base64_is_found_at_each_alignment() {
        for user in ["", "u", "us", "use"] {
            let basic = [user.as_bytes(), b":", SECRET, b"!tail"].concat();
            let shown = scrub(&BASE64.encode(&basic));
            assert!(shown.contains("[secret token]"), "{user}: {shown}");
        }
    }

    #[test]
    fn other_text_stays() {
        assert_eq!(scrub("nothing here"), "nothing here");
        let mut short = Scrubber::default();
        short.add("pin", b"12");
        assert!(short.is_empty());
    }
}
