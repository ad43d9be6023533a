//! What one call may write into its plugin's log.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::logs::{Level, SharedRing};
use crate::scrub::Scrubber;

/// Longest line of standard output or standard error; what is longer is broken.
const LINE_BYTES: usize = 2_048;

/// Where text came from that is no line yet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    Stdout,
    Stderr,
}

/// The log as one call sees it: with what it may still write, and without its secrets.
pub(crate) struct CallLog {
    ring: SharedRing,
    call: String,
    inner: Mutex<Inner>,
}

struct Inner {
    bytes_left: usize,
    scrubber: Arc<Scrubber>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The last line of standard error: what a panic said.
    last_words: Option<String>,
}

impl CallLog {
    pub(crate) fn new(ring: SharedRing, call: &str, bytes: u32) -> Self {
        let inner = Inner {
            bytes_left: usize::try_from(bytes).unwrap_or(usize::MAX),
            scrubber: Arc::default(),
            stdout: Vec::new(),
            stderr: Vec::new(),
            last_words: None,
        };
        Self {
            ring,
            call: call.to_owned(),
            inner: Mutex::new(inner),
        }
    }

    /// Which values are not to be in a line from now on.
    pub(crate) fn hide(&self, scrubber: Arc<Scrubber>) {
        self.lock().scrubber = scrubber;
    }

    /// A line that the plugin wrote as such.
    pub(crate) fn line(&self, level: Level, message: String, fields: Vec<(String, String)>) {
        let mut inner = self.lock();
        self.put(&mut inner, level, message, fields);
    }

    /// Something written to standard output or standard error.
    pub(crate) fn stdio(&self, source: Source, bytes: &[u8]) {
        let mut inner = self.lock();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let buffer = inner.buffer(source);
            buffer.extend_from_slice(piece);
            if piece.ends_with(b"\n") || buffer.len() >= LINE_BYTES {
                self.end_line(&mut inner, source);
            }
        }
    }

    /// Takes over what has no line end yet, and answers the last words on standard error.
    pub(crate) fn end(&self) -> Option<String> {
        let mut inner = self.lock();
        self.end_line(&mut inner, Source::Stdout);
        self.end_line(&mut inner, Source::Stderr);
        inner.last_words.take()
    }

    fn end_line(&self, inner: &mut Inner, source: Source) {
        let bytes = std::mem::take(inner.buffer(source));
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end();
        if text.is_empty() {
            return;
        }
        let level = match source {
            Source::Stdout => Level::Debug,
            Source::Stderr => Level::Warn,
        };
        if matches!(source, Source::Stderr) && !text.starts_with("note: ") {
            let text = inner.scrubber.text(text.to_owned());
            // Two lines: a panic says where in the first and what in the second.
            let before = inner
                .last_words
                .take()
                .filter(|words| words.starts_with("thread '") && words.ends_with(':'));
            inner.last_words = Some(match before {
                Some(before) => format!("{before} {text}"),
                None => text,
            });
        }
        self.put(inner, level, text.to_owned(), Vec::new());
    }

    fn put(&self, inner: &mut Inner, level: Level, message: String, fields: Vec<(String, String)>) {
        let fields_len: usize = fields.iter().map(|(k, v)| k.len() + v.len()).sum();
        let bytes = message.len().saturating_add(fields_len);
        let Some(left) = inner.bytes_left.checked_sub(bytes) else {
            // Not even later, shorter ones: lines with holes between them mislead.
            inner.bytes_left = 0;
            self.ring.drop_one();
            return;
        };
        inner.bytes_left = left;
        let message = inner.scrubber.text(message);
        let fields: Vec<_> = fields
            .into_iter()
            .map(|(name, value)| (inner.scrubber.text(name), inner.scrubber.text(value)))
            .collect();
        self.ring
            .push(Instant::now(), &self.call, level, &message, &fields);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn buffer(&mut self, source: Source) -> &mut Vec<u8> {
        match source {
            Source::Stdout => &mut self.stdout,
            Source::Stderr => &mut self.stderr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(bytes: u32) -> (SharedRing, CallLog) {
        let ring = SharedRing::default();
        let log = CallLog::new(Arc::clone(&ring), "call_1", bytes);
        (ring, log)
    }

    #[test]
    fn standard_error_becomes_lines_and_the_last_words_are_kept() {
        let (ring, log) = log(1_000);
        log.stdio(
            Source::Stderr,
            b"thread 'main' panicked at src/lib.rs:1:1:\nno ",
        );
        log.stdio(Source::Stderr, b"luck\nnote: run with `RUST_BACKTRACE=1`\n");
        let words = log.end().expect("words");
        assert_eq!(words, "thread 'main' panicked at src/lib.rs:1:1: no luck");
        assert_eq!(ring.page(0, 9).lines.len(), 3);
    }

    #[test]
    fn a_call_writes_no_more_than_it_may() {
        let (ring, log) = log(10);
        for _ in 0..3 {
            log.line(Level::Info, "12345678".into(), Vec::new());
        }
        log.line(Level::Info, "1".into(), Vec::new());
        let page = ring.page(0, 9);
        assert_eq!((page.lines.len(), page.dropped), (1, 3));
    }

    #[test]
    fn values_of_secrets_are_in_no_line() {
        let (ring, log) = log(1_000);
        let mut scrubber = Scrubber::default();
        scrubber.add("token", b"hunter22");
        log.hide(Arc::new(scrubber));
        log.line(
            Level::Info,
            "is hunter22".into(),
            vec![("k".into(), "hunter22".into())],
        );
        log.stdio(Source::Stdout, b"hunter22\n");
        let text = format!("{:?}", ring.page(0, 9));
        assert!(!text.contains("hunter22"), "{text}");
    }
}
