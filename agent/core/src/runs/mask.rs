//! Hides secret values in a stream of bytes.
//!
//! Output arrives in pieces that are cut anywhere, and what is shown must not depend on
//! where. So the end of a piece that may be the beginning of a secret is held back until
//! the next one decides: at most one byte less than the longest secret. Of several that
//! begin at the same place the longest is hidden.
//!
//! This hides values that are printed as they are. A program that prints them reversed,
//! encoded or a letter at a time is beyond it; so is one that was given a secret of one
//! letter, all of which are hidden.

/// Stands where a secret was.
pub const MASK: &[u8] = b"***";

/// One stream.
#[derive(Clone)]
pub struct Masker {
    /// Longest first; none is empty.
    secrets: Vec<Vec<u8>>,
    /// Whether a byte begins a secret.
    begins: [bool; 256],
    held: Vec<u8>,
}

impl std::fmt::Debug for Masker {
    /// Shows nothing of secrets, or of output.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Masker")
            .field("secrets", &self.secrets.len())
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}

enum Found {
    /// This many bytes are a secret.
    Secret(usize),
    /// What follows decides.
    Undecided,
    Nothing,
}

impl Masker {
    /// For a stream in which these values are hidden. Empty ones hide nothing.
    pub fn new<S: Into<Vec<u8>>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let mut secrets: Vec<Vec<u8>> = secrets.into_iter().map(Into::into).collect();
        secrets.retain(|secret| !secret.is_empty());
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let mut begins = [false; 256];
        for first in secrets.iter().filter_map(|secret| secret.first()) {
            begins[usize::from(*first)] = true;
        }
        Self {
            secrets,
            begins,
            held: Vec::new(),
        }
    }

    /// What can be shown once `piece` has arrived.
    pub fn feed(&mut self, piece: &[u8]) -> Vec<u8> {
        if self.secrets.is_empty() {
            return piece.to_vec();
        }
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(piece);
        let (shown, held) = self.scan(&bytes, false);
        self.held = bytes.split_off(held);
        shown
    }

    /// The rest, when nothing more will arrive.
    pub fn finish(&mut self) -> Vec<u8> {
        let bytes = std::mem::take(&mut self.held);
        self.scan(&bytes, true).0
    }

    /// What is shown of `bytes`, and from where they are held back.
    fn scan(&self, bytes: &[u8], last: bool) -> (Vec<u8>, usize) {
        let mut shown = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.look(rest, last) {
                Found::Secret(length) => {
                    shown.extend_from_slice(MASK);
                    at += length;
                }
                Found::Undecided => return (shown, at),
                Found::Nothing => {
                    // On to the next byte that could begin one.
                    let begin = |byte: &u8| self.begins[usize::from(*byte)];
                    let clean = rest.iter().skip(1).position(begin);
                    let clean = clean.map_or(rest.len(), |position| position + 1);
                    shown.extend_from_slice(&rest[..clean]);
                    at += clean;
                }
            }
        }
        (shown, bytes.len())
    }

    fn look(&self, rest: &[u8], last: bool) -> Found {
        for secret in &self.secrets {
            if rest.starts_with(secret) {
                return Found::Secret(secret.len());
            }
            if !last && secret.starts_with(rest) {
                return Found::Undecided;
            }
        }
        Found::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masked(secrets: &[&str], pieces: &[&str]) -> String {
        let mut masker = Masker::new(secrets.iter().copied());
        let mut shown = Vec::new();
        for piece in pieces {
            shown.extend(masker.feed(piece.as_bytes()));
        }
        shown.extend(masker.finish());
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn a_secret_is_hidden_wherever_it_is_cut() {
        assert_eq!(masked(&["hunter2"], &["a hun", "te", "r2 b"]), "a *** b");
        assert_eq!(masked(&["hunter2"], &["a hunter"]), "a hunter");
        assert_eq!(masked(&["hunter2"], &["hunhunter2hunter2"]), "hun******");
    }

    #[test]
    fn of_two_that_begin_alike_the_longer_is_hidden() {
        assert_eq!(masked(&["ab", "abcd"], &["ab", "cd ab", "ce"]), "*** ***ce");
    }

    #[test]
    fn what_cannot_be_a_secret_is_shown_at_once() {
        let mut masker = Masker::new(["hunter2"]);
        assert_eq!(masker.feed(b"$ "), b"$ ");
        assert_eq!(masker.feed(b"h"), b"");
        assert_eq!(masker.feed(b"i\n"), b"hi\n");
        assert!(!format!("{masker:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn cuts_change_nothing_and_no_secret_is_left(
            secrets in proptest::collection::vec("[ab]{1,4}", 0..4),
            text in "[abc]{0,60}",
            cuts in proptest::collection::vec(0usize..60, 0..10),
        ) {
            let mut whole = Masker::new(secrets.iter().map(String::as_bytes));
            let mut expected = whole.feed(text.as_bytes());
            expected.extend(whole.finish());

            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= text.len()).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let longest = secrets.iter().map(String::len).max().unwrap_or(0);
            let mut masker = Masker::new(secrets.iter().map(String::as_bytes));
            let mut shown = Vec::new();
            for pair in cuts.windows(2) {
                shown.extend(masker.feed(&text.as_bytes()[pair[0]..pair[1]]));
                prop_assert!(masker.held.len() < longest.max(1));
            }
            shown.extend(masker.finish());
            prop_assert_eq!(&shown, &expected);
            let shown = String::from_utf8(shown).unwrap();
            for secret in &secrets {
                prop_assert!(shown.split("***").all(|part| !part.contains(secret)), "{} in {}", secret, shown);
            }
        }
    }
}
