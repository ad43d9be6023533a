//! Makes bytes from a host harmless for a terminal, as they come.
//!
//! A terminal obeys what is written to it: sequences set its title, fill the
//! clipboard, make it answer as if somebody had typed. Output of a host is a
//! stranger's text, so on a terminal nothing of it is obeyed but the end of a line and
//! the tabulator. Everything else that could drive one is written out, as in the rest
//! of this program's tables and errors (see [`printable`](crate::output::printable)):
//! C0 and C1 controls, marks that turn the direction of writing, and bytes that are no
//! UTF-8. A carriage return before a line feed is part of the line's end; alone it
//! would let the end of a line hide its beginning, so it is shown.

use crate::output::drives_terminal;

/// Makes one stream harmless. Pieces may end anywhere, within a character too.
#[derive(Debug, Default)]
pub struct Neutraliser {
    /// The beginning of a character, or a carriage return: what follows decides.
    held: Vec<u8>,
}

impl Neutraliser {
    /// Appends `bytes`, made harmless, to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.held);
        let mut rest = all.as_slice();
        loop {
            let (good, bad) = match std::str::from_utf8(rest) {
                Ok(text) => (text, None),
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    // Valid up to there, by the line above.
                    let good = std::str::from_utf8(good).unwrap_or_default();
                    (good, Some((bad, error.error_len())))
                }
            };
            match bad {
                None => return self.text(good, out),
                Some((bad, None)) => {
                    self.text(good, out);
                    // A return that is held was followed by something else after all.
                    self.finish(out);
                    self.held.extend_from_slice(bad);
                    return;
                }
                Some((bad, Some(length))) => {
                    self.text(good, out);
                    self.finish(out);
                    let (wrong, after) = bad.split_at(length);
                    write_bytes(wrong, out);
                    rest = after;
                }
            }
        }
    }

    /// Writes out what was held: nothing more comes that could complete it.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        match std::mem::take(&mut self.held).as_slice() {
            b"\r" => out.extend_from_slice(b"\\r"),
            bytes => write_bytes(bytes, out),
        }
    }

    fn text(&mut self, text: &str, out: &mut Vec<u8>) {
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '\n' | '\t' => out.push(letter as u8),
                '\r' => match letters.peek() {
                    Some('\n') => {}
                    Some(_) => out.extend_from_slice(b"\\r"),
                    None => self.held.push(b'\r'),
                },
                letter if drives_terminal(letter) => {
                    out.extend(letter.escape_default().map(|letter| letter as u8));
                }
                letter => {
                    out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
    }
}

/// `\x9b`: a byte that belongs to no character.
fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(bytes: &[u8]) -> Vec<u8> {
        pieces([bytes])
    }

    fn pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let (mut it, mut out) = (Neutraliser::default(), Vec::new());
        for piece in pieces {
            it.push(piece, &mut out);
        }
        it.finish(&mut out);
        out
    }

    #[test]
    fn abuse_28_output_of_hosts_cannot_drive_a_terminal() {
        for (from, to) in [
            ("\x1b]0;owned\x07", "\\u{1b}]0;owned\\u{7}"),
            ("\x1b]52;c;cm0gLXJm\x1b\\", "\\u{1b}]52;c;cm0gLXJm\\u{1b}\\"),
            (
                "\x1b]8;;http://evil\x1b\\bank",
                "\\u{1b}]8;;http://evil\\u{1b}\\bank",
            ),
            ("\x1bP$q\"p\x1b\\", "\\u{1b}P$q\"p\\u{1b}\\"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("rm\u{202e}txt", "rm\\u{202e}txt"),
            ("secret\rharmless", "secret\\rharmless"),
            ("dos\r\n\ttab\n", "dos\n\ttab\n"),
        ] {
            assert_eq!(String::from_utf8(whole(from.as_bytes())).unwrap(), to);
        }
        assert_eq!(whole(b"a\x9b2J\xff"), b"a\\x9b2J\\xff");
    }

    #[test]
    fn a_character_cut_in_two_stays_one() {
        assert_eq!(
            pieces(["ü".as_bytes()[..1].as_ref(), &"ü".as_bytes()[1..]]),
            "ü".as_bytes()
        );
        assert_eq!(whole(&"ü".as_bytes()[..1]), b"\\xc3");
        assert_eq!(pieces([b"a\r".as_slice(), b"\nb\r", b"c"]), b"a\nb\\rc");
    }

    proptest! {
        #[test]
        fn where_pieces_end_makes_no_difference(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(0xc3), Just(0xbc)], 0..60),
            cuts in prop::collection::vec(0_usize..60, 0..6),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let parts = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
            prop_assert_eq!(pieces(parts), whole(&bytes));
        }

        #[test]
        fn what_comes_out_is_text_without_controls(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let text = String::from_utf8(whole(&bytes)).unwrap();
            prop_assert!(text.chars().all(|letter| letter == '\n' || letter == '\t' || !drives_terminal(letter)));
        }

        #[test]
        fn harmless_text_is_untouched(text in "[a-zäöü世 \\\\\\t\\n]{0,50}") {
            prop_assert_eq!(whole(text.as_bytes()), text.as_bytes());
        }
    }
}
