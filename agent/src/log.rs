//! Logs: one line per event, to the journal by standard error, or to a file that
//! rotates itself where there is no journal.
//!
//! Three things a general formatter does not do and an agent needs. Priorities for the
//! journal (`<4>`), so that `journalctl -p warning` works. A bound on repetition: a
//! line that comes again and again (a network that is down for a week) is let through
//! some times a minute and then counted. And no control characters, whoever wrote the
//! text. So this is a small layer of its own.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use link::verify::system_clock;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, callsite};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::config::Config;

/// Lines of one place in the program that are let through in a [`WINDOW`].
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// A handle on the running log.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    verbose: AtomicBool,
    output: Mutex<Output>,
}

struct Output {
    sink: Sink,
    seen: HashMap<callsite::Identifier, Seen>,
}

struct Seen {
    since: Instant,
    lines: u32,
}

enum Sink {
    /// Standard error that the journal reads: it adds the time.
    Journal,
    Terminal,
    File(CappedFile),
    #[cfg(test)]
    Memory(Arc<Mutex<String>>),
}

impl Log {
    /// Starts logging as configured. A log file that cannot be opened is no reason
    /// not to run: the lines go to standard error then, this one first.
    pub fn start(config: &Config) -> Self {
        let journal = std::env::var_os("JOURNAL_STREAM").is_some();
        let standard = || {
            if journal {
                Sink::Journal
            } else {
                Sink::Terminal
            }
        };
        let opened = config
            .log_file
            .as_ref()
            .map(|path| CappedFile::open(path, config.log_max_bytes).map_err(|e| (path, e)));
        let (sink, trouble) = match opened {
            None => (standard(), None),
            Some(Ok(file)) => (Sink::File(file), None),
            Some(Err(trouble)) => (standard(), Some(trouble)),
        };
        let log = Self::over(sink, config.verbose);
        let subscriber = tracing_subscriber::registry().with(log.clone());
        // Already set only in tests that start two agents.
        let _ = tracing::subscriber::set_global_default(subscriber);
        if let Some((path, error)) = trouble {
            tracing::warn!(path = %path.display(), %error, "cannot write the log file");
        }
        log
    }

    fn over(sink: Sink, verbose: bool) -> Self {
        let output = Mutex::new(Output {
            sink,
            seen: HashMap::new(),
        });
        Self(Arc::new(Inner {
            verbose: AtomicBool::new(verbose),
            output,
        }))
    }

    /// Follows a changed configuration.
    pub fn set_verbose(&self, verbose: bool) {
        if self.0.verbose.swap(verbose, Ordering::Relaxed) != verbose {
            callsite::rebuild_interest_cache();
        }
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let ours = ["agent", "link", "loopback_agent"]
            .iter()
            .any(|name| metadata.target().split("::").next() == Some(name));
        let most = match (ours, self.0.verbose.load(Ordering::Relaxed)) {
            (true, true) => Level::DEBUG,
            (true, false) => Level::INFO,
            (false, _) => Level::WARN,
        };
        *metadata.level() <= most
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let metadata = event.metadata();
        let mut output = self.0.output.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left_out) = output.admit(metadata.callsite(), Instant::now()) {
            if left_out > 0 {
                let _ = write!(line.fields, " ({left_out} such lines left out)");
            }
            output.write(*metadata.level(), &line);
        }
    }
}

impl Output {
    /// Whether a line may pass, and how many before it may not.
    fn admit(&mut self, place: callsite::Identifier, now: Instant) -> Option<u32> {
        let seen = self.seen.entry(place).or_insert(Seen {
            since: now,
            lines: 0,
        });
        if now.duration_since(seen.since) >= WINDOW {
            let left_out = seen.lines.saturating_sub(LINES);
            *seen = Seen {
                since: now,
                lines: 1,
            };
            return Some(left_out);
        }
        seen.lines = seen.lines.saturating_add(1);
        (seen.lines <= LINES).then_some(0)
    }

    fn write(&mut self, level: Level, line: &Line) {
        let text = printable(&format!("{}{}", line.message, line.fields));
        // A log that cannot be written has nowhere to say so.
        let _ = match &mut self.sink {
            Sink::Journal => writeln!(io::stderr(), "<{}>{text}", priority(level)),
            Sink::Terminal => writeln!(io::stderr(), "{} {level:>5} {text}", system_clock()()),
            Sink::File(file) => file.write(&format!("{} {level:>5} {text}\n", system_clock()())),
            #[cfg(test)]
            Sink::Memory(memory) => {
                memory
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&format!("{text}\n"));
                Ok(())
            }
        };
    }
}

/// What syslog calls the level.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            clean.extend(letter.escape_default());
        } else {
            clean.push(letter);
        }
    }
    clean
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        // Without quotes nobody sees where a sentence ends and the next field begins.
        if value.contains(char::is_whitespace) && !value.starts_with('"') {
            return self.record_str(field, &value);
        }
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            name => write!(self.fields, " {name}={value}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// A file that, when half of the cap is reached, becomes `<name>.1` and begins anew.
struct CappedFile {
    path: PathBuf,
    file: File,
    size: u64,
    cap: u64,
}

impl CappedFile {
    fn open(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let file = append_to(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            cap: max_bytes / 2,
        })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.size > 0 && self.size.saturating_add(length) > self.cap {
            self.rotate()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.size += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        fs::rename(&self.path, old)?;
        self.file = append_to(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_never_takes_more_than_its_cap() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        let mut file = CappedFile::open(&path, 1000).unwrap();
        for number in 0..200 {
            file.write(&format!("line {number:03} of a log\n")).unwrap();
        }
        drop(file);
        let sizes: u64 = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(sizes <= 1000, "{sizes} bytes");
        let mut again = CappedFile::open(&path, 1000).unwrap();
        again.write("line 200 of a log\n").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.ends_with("line 199 of a log\nline 200 of a log\n"),
            "{text}"
        );
    }

    #[test]
    fn repeated_lines_are_counted_instead_of_written_and_nothing_hidden_gets_through() {
        let memory = Arc::new(Mutex::new(String::new()));
        let log = Log::over(Sink::Memory(Arc::clone(&memory)), false);
        let subscriber = tracing_subscriber::registry().with(log.clone());
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..100 {
                tracing::warn!("network down");
            }
            tracing::info!(host = "\u{1b}[31mevil\n", "clean me");
            tracing::warn!(code = "gone", why = %"it was so", after = 5, "refused");
            tracing::debug!("not verbose");
        });
        let text = memory.lock().unwrap().clone();
        assert_eq!(text.matches("network down\n").count(), LINES as usize);
        assert!(text.contains("clean me host="), "{text}");
        let refused = "refused code=\"gone\" why=\"it was so\" after=5\n";
        assert!(text.contains(refused), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains("not verbose"));
    }

    #[test]
    fn what_was_left_out_is_said_in_the_next_window() {
        let log = Log::over(Sink::Terminal, false);
        let mut output = log.0.output.lock().unwrap();
        let place = || callsite::Identifier(&PLACE);
        let start = Instant::now();
        let passed = (0..30)
            .filter(|_| output.admit(place(), start).is_some())
            .count();
        assert_eq!(passed, LINES as usize);
        assert_eq!(output.admit(place(), start + WINDOW), Some(30 - LINES));
    }

    struct Place;
    static PLACE: Place = Place;
    impl tracing::Callsite for Place {
        fn set_interest(&self, _: tracing::subscriber::Interest) {}
        fn metadata(&self) -> &Metadata<'_> {
            unreachable!("only its address counts")
        }
    }
}
