//! Puts pieces of output together to lines, so that lines of many hosts can stand one
//! below the other.

/// Longest line that is held back, in bytes. A longer one is cut into several: a host
/// must not fill this machine's memory by never ending its line. 64 KiB is what a pipe
/// holds.
pub const LONGEST: usize = 64 << 10;

/// The line of one stream that is not at its end yet.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Takes a piece in and hands on every line that is complete, without its end.
    pub fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            if self.pending.is_empty() && head.len() <= LONGEST {
                line(head);
                continue;
            }
            self.hold(head, &mut line);
            line(&std::mem::take(&mut self.pending));
        }
        self.hold(bytes, &mut line);
    }

    /// Hands on what is there of an unfinished line.
    pub fn flush(&mut self, line: impl FnOnce(&[u8])) {
        if !self.pending.is_empty() {
            line(&std::mem::take(&mut self.pending));
        }
    }

    /// Whether a line has begun and not ended.
    pub fn is_unfinished(&self) -> bool {
        !self.pending.is_empty()
    }

    fn hold(&mut self, mut bytes: &[u8], line: &mut impl FnMut(&[u8])) {
        while self.pending.len() + bytes.len() > LONGEST {
            let room = LONGEST - self.pending.len();
            let (head, rest) = bytes.split_at(room);
            self.pending.extend_from_slice(head);
            let cut = before_character(&self.pending);
            line(&self.pending[..cut]);
            self.pending.drain(..cut);
            bytes = rest;
        }
        self.pending.extend_from_slice(bytes);
    }
}

/// Where to cut so that the last character, if it is one of UTF-8 that goes on in the
/// next piece, is not cut in two.
fn before_character(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    match std::str::from_utf8(&bytes[tail..]) {
        Ok(_) => bytes.len(),
        Err(_) => (tail..bytes.len())
            .rev()
            // A byte that begins a character of several.
            .find(|at| bytes[*at] >= 0xc0)
            .filter(|at| {
                let length = match bytes[*at] {
                    0xc0..=0xdf => 2,
                    0xe0..=0xef => 3,
                    _ => 4,
                };
                *at > 0 && bytes.len() - at < length
            })
            .unwrap_or(bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let (mut it, mut out) = (Lines::default(), Vec::new());
        for piece in pieces {
            it.push(piece, |line| out.push(line.to_vec()));
            assert!(it.pending.len() <= LONGEST);
        }
        it.flush(|line| out.push(line.to_vec()));
        out
    }

    #[test]
    fn lines_come_when_they_end_and_the_last_when_it_is_flushed() {
        let mut it = Lines::default();
        let mut out = Vec::new();
        it.push(b"a\n\nb", |line| out.push(line.to_vec()));
        assert_eq!((out.len(), it.is_unfinished()), (2, true));
        it.push(b"c\n", |line| out.push(line.to_vec()));
        assert_eq!(out, [b"a".to_vec(), b"".to_vec(), b"bc".to_vec()]);
        it.flush(|_| panic!("nothing is unfinished"));
    }

    #[test]
    fn an_endless_line_is_cut_between_characters_and_loses_nothing() {
        let text = "x".to_owned() + &"ü".repeat(LONGEST);
        let out = lines(text.as_bytes().chunks(1000));
        assert!(out.len() >= 3 && out.iter().all(|line| line.len() <= LONGEST));
        assert!(out.iter().all(|line| std::str::from_utf8(line).is_ok()));
        assert_eq!(out.concat(), text.as_bytes());
        let noise = vec![0xff; 3 * LONGEST];
        assert_eq!(lines([noise.as_slice()]).concat(), noise);
    }

    proptest! {
        #[test]
        fn lines_are_those_of_the_whole_however_it_is_cut(
            bytes in prop::collection::vec(prop_oneof![Just(b'a'), Just(b'\n'), any::<u8>()], 0..80),
            size in 1_usize..10,
        ) {
            let mut expected: Vec<_> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            expected.pop_if(|last| last.is_empty());
            prop_assert_eq!(lines(bytes.chunks(size)), expected);
        }
    }
}
