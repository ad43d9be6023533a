//! Takes secrets out of what comes back.
//!
//! Servers repeat what they were sent: in error pages, in redirects, in what a test endpoint
//! echoes. A plugin that may use a secret and not read it would read it there. So an answer is
//! searched for every secret that went into its request, in the forms in which servers write
//! things: as it is, base64 (both alphabets, also in the middle of something longer), hexadecimal,
//! percent-encoded, in JSON, in HTML.
//!
//! This is against accidents. A server that works with the plugin can write a secret backwards,
//! and nothing here would know; which servers get a secret at all is what the grant says.

use std::borrow::Cow;

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use zeroize::Zeroizing;

/// What stands in the place of a secret.
pub const REPLACEMENT: &str = "[secret]";

/// Shorter ones cannot be told from chance: an answer would be full of holes, and the holes would
/// tell the secret.
const MIN_SECRET: usize = 4;
/// Shortest piece of base64 that is looked for.
const MIN_PIECE: usize = 5;
/// Lines of a secret of several lines (a key in PEM) count one by one from this length on.
const MIN_LINE: usize = 16;

/// Finds secrets.
pub struct Scrubber {
    /// Longest first, so that a padded form goes before its beginning.
    patterns: Vec<Zeroizing<Vec<u8>>>,
    /// Which two bytes some pattern begins with: most of an answer is passed with one look.
    begins: Vec<u64>,
}

impl Scrubber {
    /// Looks for these.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut patterns = Vec::new();
        for secret in secrets {
            let secret = secret.trim_ascii();
            add_forms(secret, &mut patterns);
            for line in secret.split(|byte| *byte == b'\n') {
                let line = line.trim_ascii();
                if line.len() >= MIN_LINE && line.len() < secret.len() {
                    add_forms(line, &mut patterns);
                }
            }
        }
        patterns.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        patterns.dedup();
        let mut begins = vec![0_u64; 1 << 10];
        for pattern in &patterns {
            let (word, bit) = place(pattern[0], pattern[1]);
            begins[word] |= bit;
        }
        Self { patterns, begins }
    }

    /// `bytes` without secrets.
    pub fn scrub<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let mut clean: Option<Vec<u8>> = None;
        // Up to where `bytes` is in `clean`.
        let mut done = 0;
        let mut at = 0;
        while at + 1 < bytes.len() {
            let (word, bit) = place(bytes[at], bytes[at + 1]);
            let found = (self.begins[word] & bit != 0)
                .then(|| {
                    self.patterns
                        .iter()
                        .find(|pattern| bytes[at..].starts_with(pattern))
                })
                .flatten();
            let Some(found) = found else {
                at += 1;
                continue;
            };
            let clean = clean.get_or_insert_default();
            clean.extend_from_slice(&bytes[done..at]);
            clean.extend_from_slice(REPLACEMENT.as_bytes());
            at += found.len();
            done = at;
        }
        match clean {
            None => Cow::Borrowed(bytes),
            Some(mut clean) => {
                clean.extend_from_slice(&bytes[done..]);
                Cow::Owned(clean)
            }
        }
    }

    /// `text` without secrets.
    pub fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.scrub(text.as_bytes())).into_owned()
    }
}

fn place(first: u8, second: u8) -> (usize, u64) {
    let pair = usize::from(first) << 8 | usize::from(second);
    (pair / 64, 1 << (pair % 64))
}

fn add_forms(secret: &[u8], patterns: &mut Vec<Zeroizing<Vec<u8>>>) {
    if secret.len() < MIN_SECRET {
        return;
    }
    let mut add = |form: Vec<u8>| patterns.push(Zeroizing::new(form));
    add(secret.to_vec());
    for encoding in [&BASE64, &BASE64_NOPAD, &BASE64URL, &BASE64URL_NOPAD] {
        add(encoding.encode(secret).into_bytes());
    }
    for encoding in [&BASE64_NOPAD, &BASE64URL_NOPAD] {
        for shift in 0..3 {
            let piece = inner_base64(secret, shift, encoding);
            if piece.len() >= MIN_PIECE {
                add(piece);
            }
        }
    }
    add(HEXLOWER.encode(secret).into_bytes());
    add(HEXUPPER.encode(secret).into_bytes());
    for upper in [false, true] {
        add(percent(secret, upper, unreserved));
        add(percent(secret, upper, |byte| {
            unreserved(byte) || b"!$&'()*+,;=:@/".contains(&byte)
        }));
        add(percent(secret, upper, |_| false));
        let form = percent(secret, upper, |byte| unreserved(byte) || byte == b' ');
        add(replaced(&form, b' ', b"+"));
    }
    if let Ok(text) = std::str::from_utf8(secret) {
        let quoted = serde_json::to_string(text).unwrap_or_default();
        if let Some(inner) = quoted
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'))
        {
            add(inner.as_bytes().to_vec());
            add(inner.replace('/', "\\/").into_bytes());
        }
        let html = text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        add(html.clone().into_bytes());
        let html = html.replace('"', "&quot;");
        add(html.replace('\'', "&#39;").into_bytes());
        add(html.replace('\'', "&#x27;").into_bytes());
    }
}

/// What of the secret's base64 is the same whatever stands around it, when it begins `shift` bytes
/// behind a multiple of three.
fn inner_base64(secret: &[u8], shift: usize, encoding: &data_encoding::Encoding) -> Vec<u8> {
    let bytes = Zeroizing::new([&[0; 2][..shift], secret].concat());
    let text = encoding.encode(&bytes).into_bytes();
    let (from, to) = ((shift * 8).div_ceil(6), bytes.len() * 8 / 6);
    text[from..to].to_vec()
}

fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn percent(bytes: &[u8], upper: bool, kept: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut form = Vec::new();
    for byte in bytes {
        if kept(*byte) {
            form.push(*byte);
        } else if upper {
            form.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            form.extend_from_slice(format!("%{byte:02x}").as_bytes());
        }
    }
    form
}

fn replaced(bytes: &[u8], from: u8, to: &[u8]) -> Vec<u8> {
    bytes
        .iter()
        .flat_map(|byte| {
            if *byte == from {
                to.to_vec()
            } else {
                vec![*byte]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: &[u8] = b"s3cr3t/+<&\"'p\xc3\xa4ss w0rd";

    #[test]
    fn every_form_is_found() {
        let text = std::str::from_utf8(SECRET).expect("UTF-8");
        let forms: Vec<(&str, Vec<u8>)> = vec![
            ("raw", SECRET.to_vec()),
            ("base64", BASE64.encode(SECRET).into_bytes()),
            ("base64url", BASE64URL_NOPAD.encode(SECRET).into_bytes()),
            (
                "basic",
                BASE64.encode(&[b"user:", SECRET].concat()).into_bytes(),
            ),
            ("hex", HEXLOWER.encode(SECRET).into_bytes()),
            ("HEX", HEXUPPER.encode(SECRET).into_bytes()),
            (
                "query",
                b"s3cr3t%2F%2B%3C%26%22%27p%C3%A4ss%20w0rd".to_vec(),
            ),
            ("form", b"s3cr3t%2f%2b%3c%26%22%27p%c3%a4ss+w0rd".to_vec()),
            ("json", serde_json::to_vec(text).expect("JSON")),
            ("html", "s3cr3t/+&lt;&amp;&quot;&#39;p\u{e4}ss w0rd".into()),
        ];
        let scrubber = Scrubber::new([SECRET]);
        for (what, form) in forms {
            let answer = [b"before ", &form[..], b" after"].concat();
            let clean = String::from_utf8_lossy(&scrubber.scrub(&answer)).into_owned();
            assert!(clean.contains(REPLACEMENT), "{what}: {clean}");
            assert!(
                clean.starts_with("before ") && clean.ends_with(" after"),
                "{what}"
            );
            for trace in ["s3cr3t", "w0rd", "czNjcjN0", "7333637233"] {
                assert!(!clean.contains(trace), "{what}: {clean}");
            }
        }
    }

    #[test]
    fn a_line_of_a_key_is_a_secret_too() {
        let key = b"-----BEGIN KEY-----\nMIIBVQIBADANBgkqhkiG9w0\nAQEFAASCAT8wggE7AgEAAkE\n-----END KEY-----\n";
        let scrubber = Scrubber::new([&key[..]]);
        assert_eq!(scrubber.text("x AQEFAASCAT8wggE7AgEAAkE y"), "x [secret] y");
    }

    #[test]
    fn without_a_secret_nothing_is_copied_and_short_ones_do_not_shred() {
        let scrubber = Scrubber::new([&b"abc"[..], b"longer-one"]);
        assert!(matches!(scrubber.scrub(b"abcabc"), Cow::Borrowed(_)));
        assert!(matches!(Scrubber::new([]).scrub(b"x"), Cow::Borrowed(_)));
        assert_eq!(
            scrubber.text("alonger-onelonger-oneb"),
            "a[secret][secret]b"
        );
    }

    proptest! {
        #[test]
        fn nothing_of_it_is_left_wherever_it_stands(
            secret in proptest::collection::vec(any::<u8>(), 8..40),
            before in proptest::collection::vec(any::<u8>(), 0..20),
            after in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            prop_assume!(secret.trim_ascii().len() >= 8);
            let secret = secret.trim_ascii();
            let scrubber = Scrubber::new([secret]);
            let contains = |haystack: &[u8], needle: &[u8]| haystack.windows(needle.len()).any(|w| w == needle);
            let whole = [&before[..], secret, &after[..]].concat();
            prop_assert!(!contains(&scrubber.scrub(&whole), secret));
            // In the middle of something longer, as in Basic: the middle cannot be read back.
            let text = BASE64.encode(&whole);
            let clean = scrubber.scrub(text.as_bytes()).into_owned();
            prop_assert!(contains(&clean, REPLACEMENT.as_bytes()), "{}", text);
        }
    }
}
