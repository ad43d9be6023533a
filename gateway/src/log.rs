//! The gateway's log, on standard error.
//!
//! Text in it comes from anywhere: paths that strangers ask for, what agents say, what the system
//! says of a peer. A terminal that shows the log, or a program that reads it line by line, must not
//! take any of that for its own: control characters (C0, DEL and C1) are written as escapes, and
//! so an event is always one line. It happens at the very end, where no field can be forgotten.

use std::io::{self, Write};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Config, LogFormat};

/// Starts logging as configured.
///
/// # Errors
/// The filter cannot be read.
pub fn start(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log.filter).context("read the log filter")?;
    let format = config.log.format;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would complain about a standard error that cannot be written (a log file on a full
        // disk) on that very standard error, and panic because it cannot.
        .log_internal_errors(false)
        .with_writer(Escaping::new(io::stderr, format));
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// Makes writers of which each takes one event.
struct Escaping<M> {
    inner: M,
    format: LogFormat,
}

impl<M> Escaping<M> {
    fn new(inner: M, format: LogFormat) -> Self {
        Self { inner, format }
    }
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Escaping<M> {
    type Writer = Line<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line {
            writer: self.inner.make_writer(),
            format: self.format,
        }
    }
}

/// A writer that is given whole events.
struct Line<W> {
    writer: W,
    format: LogFormat,
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.writer.write_all(&escaped(event, self.format))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn escaped(event: &[u8], format: LogFormat) -> Vec<u8> {
    let text = String::from_utf8_lossy(event);
    let (text, end) = match text.strip_suffix('\n') {
        Some(text) => (text, "\n"),
        None => (&*text, ""),
    };
    let mut clean = String::with_capacity(event.len());
    for letter in text.chars() {
        match format {
            _ if !letter.is_control() => clean.push(letter),
            LogFormat::Text => clean.extend(letter.escape_default()),
            LogFormat::Json => clean.push_str(&format!("\\u{:04x}", u32::from(letter))),
        }
    }
    clean.push_str(end);
    clean.into_bytes()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Title reports, clipboard writes, cursor movements, a forged line, a bell, and the same as
    /// C1 characters, which some terminals understand, too.
    const HOSTILE: &str = "a\u{1b}]0;x\u{7}\u{1b}]52;c;cm0=\u{7}\u{1b}[2J\r\n2026-01-01 ERROR forged\u{7f}\u{9b}31m\u{85}\u{90}z";

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics with it").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat) -> String {
        let memory = Memory::default();
        let sink = memory.clone();
        let builder = tracing_subscriber::fmt()
            .with_writer(Escaping::new(move || sink.clone(), format))
            .with_max_level(tracing::Level::INFO);
        let log = || {
            let error = io::Error::other(HOSTILE);
            let _span = tracing::info_span!("request", path = HOSTILE).entered();
            tracing::warn!(name = HOSTILE, shown = %HOSTILE, debug = ?HOSTILE, %error, "{HOSTILE}");
        };
        match format {
            LogFormat::Text => {
                tracing::subscriber::with_default(builder.with_ansi(false).finish(), log)
            }
            LogFormat::Json => tracing::subscriber::with_default(builder.json().finish(), log),
        }
        let bytes = memory.0.lock().expect("no test panics with it").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn abuse_28_control_characters_reach_no_log_and_an_event_is_one_line() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(format);
            let line = text.strip_suffix('\n').expect("whole lines");
            assert!(!line.chars().any(char::is_control), "{line:?}");
            assert!(line.contains("forged"), "nothing is lost: {line}");
        }
    }

    #[test]
    fn abuse_28_lines_for_machines_stay_json_and_say_what_was_said() {
        let line: serde_json::Value = serde_json::from_str(&logged(LogFormat::Json)).unwrap();
        assert_eq!(line["fields"]["name"], HOSTILE);
        assert_eq!(line["fields"]["message"], HOSTILE);
    }
}
