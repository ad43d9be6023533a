//! Writes what is news of a command: standard output of the hosts to ours, standard
//! error to ours, remarks and progress to standard error.
//!
//! One host: its bytes as they are, as if the program ran here. Many hosts: whole
//! lines, each behind the name of its host. A line without end is written when its run
//! ends, when it grows too long, and, on a terminal only, when nothing more came of it
//! for a while: in a file it would depend on the clock what a line is.
//!
//! Where standard output is a terminal, nothing of a host drives it: see
//! [`super::escape`]. Elsewhere bytes pass as they are.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use model::command::OutputStream;
use model::ids::HostId;
use unicode_width::UnicodeWidthStr as _;

use super::escape::Neutraliser;
use super::lines::Lines;
use crate::failure::Failure;
use crate::output::{colours_wanted, printable};

/// How long a terminal waits for the rest of a line. Long enough for a program that
/// writes a line in pieces, short enough for who looks at a prompt.
const QUIET: Duration = Duration::from_secs(1);

/// Names longer than this are not waited for: other prefixes stay short.
const WIDEST: usize = 32;

/// Colours of host names: those that no state has, so that no name looks like alarm.
const COLOURS: [u8; 4] = [36, 35, 34, 96];

/// What the two ends are, and what is wanted of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Names before lines: there are many hosts.
    pub named: bool,
    /// Whether standard output is a terminal.
    pub out_terminal: bool,
    /// Whether standard error is a terminal.
    pub err_terminal: bool,
    /// Whether names are coloured on terminals.
    pub colours: bool,
    /// Pass bytes as they are to terminals, too.
    pub raw: bool,
}

impl Style {
    /// What this process has.
    pub fn of_process(named: bool, raw: bool) -> Self {
        Self {
            named,
            out_terminal: io::stdout().is_terminal(),
            err_terminal: io::stderr().is_terminal(),
            colours: colours_wanted(),
            raw,
        }
    }
}

/// Writes output, remarks and progress so that they do not disturb each other.
pub struct Screen<'a> {
    style: Style,
    out: Box<dyn Write + 'a>,
    err: Box<dyn Write + 'a>,
    names: BTreeMap<HostId, String>,
    width: usize,
    streams: HashMap<(HostId, OutputStream), Stream>,
    /// What was put together and not written yet, by end.
    ready: [Vec<u8>; 2],
    /// Whether a line of progress stands there.
    drawn: bool,
    /// Whether the last byte written to the terminal left a line unfinished.
    within_line: bool,
}

#[derive(Default)]
struct Stream {
    lines: Lines,
    guard: Neutraliser,
    /// When the unfinished line last grew.
    grew: Option<Instant>,
}

impl<'a> Screen<'a> {
    /// Writes to these.
    pub fn new(style: Style, out: impl Write + 'a, err: impl Write + 'a) -> Self {
        Self {
            style,
            out: Box::new(out),
            err: Box::new(err),
            names: BTreeMap::new(),
            width: 0,
            streams: HashMap::new(),
            ready: [Vec::new(), Vec::new()],
            drawn: false,
            within_line: false,
        }
    }

    /// Whether names stand before lines. To be said before there is output.
    pub fn named(&mut self, named: bool) {
        self.style.named = named;
    }

    /// Whether progress can be seen at all.
    pub fn has_progress(&self) -> bool {
        self.style.err_terminal
    }

    /// Learns what a host is called.
    pub fn name(&mut self, host: HostId, name: &str) {
        let name = printable(name);
        self.width = self.width.max(name.width().min(WIDEST));
        self.names.insert(host, name);
    }

    /// Takes in a piece of output.
    pub fn output(&mut self, host: HostId, stream: OutputStream, bytes: &[u8], now: Instant) {
        let guarded = self.guarded(stream);
        let ready = &mut self.ready[end(stream)];
        let it = self.streams.entry((host, stream)).or_default();
        if !self.style.named {
            if guarded {
                it.guard.push(bytes, ready);
            } else {
                ready.extend_from_slice(bytes);
            }
            return;
        }
        let prefix = prefix(&self.names, self.width, self.style, host, stream);
        it.lines
            .push(bytes, |line| write_line(ready, &prefix, line, guarded));
        it.grew = it.lines.is_unfinished().then_some(now);
    }

    /// Says that output of a host was not kept.
    pub fn gap(&mut self, host: HostId, bytes: u64) -> Result<(), Failure> {
        self.end_lines(host);
        self.write()?;
        let name = self.names.get(&host).map_or("", String::as_str);
        let remark = format!("{name}: {bytes} bytes of output were not kept here");
        self.remark(&remark);
        Ok(())
    }

    /// Nothing more comes of this host: what is unfinished is written.
    pub fn end_lines(&mut self, host: HostId) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            self.end_line(host, stream);
        }
    }

    /// On terminals: writes unfinished lines of which nothing more came for a while.
    pub fn tick(&mut self, now: Instant) {
        let quiet: Vec<_> = self
            .streams
            .iter()
            .filter(|((_, stream), it)| {
                self.is_terminal(*stream)
                    && it.grew.is_some_and(|at| now.duration_since(at) >= QUIET)
            })
            .map(|(key, _)| *key)
            .collect();
        for (host, stream) in quiet {
            self.end_line(host, stream);
        }
    }

    fn end_line(&mut self, host: HostId, stream: OutputStream) {
        let guarded = self.guarded(stream);
        let Some(it) = self.streams.get_mut(&(host, stream)) else {
            return;
        };
        let ready = &mut self.ready[end(stream)];
        it.grew = None;
        if self.style.named {
            let prefix = prefix(&self.names, self.width, self.style, host, stream);
            it.lines
                .flush(|line| write_line(ready, &prefix, line, guarded));
        } else {
            it.guard.finish(ready);
        }
    }

    /// Writes what was taken in.
    pub fn write(&mut self) -> Result<(), Failure> {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let bytes = std::mem::take(&mut self.ready[end(stream)]);
            let Some(last) = bytes.last() else {
                continue;
            };
            self.clear();
            if self.is_terminal(stream) {
                self.within_line = *last != b'\n';
            }
            let sink = match stream {
                OutputStream::Stdout => &mut self.out,
                OutputStream::Stderr => &mut self.err,
            };
            sink.write_all(&bytes)
                .and_then(|()| sink.flush())
                .map_err(Failure::Output)?;
        }
        Ok(())
    }

    /// A remark beside the output. It is not worth failing for.
    pub fn remark(&mut self, text: &str) {
        self.clear();
        if std::mem::take(&mut self.within_line) {
            let _ = self.err.write_all(b"\n");
        }
        for line in text.lines() {
            let _ = writeln!(self.err, "{}", printable(line));
        }
    }

    /// Draws `text` as the line of progress, at most `columns` wide. Nothing where
    /// standard error is no terminal, or where output stands in the line.
    pub fn progress(&mut self, text: &str, columns: usize) {
        if self.style.err_terminal && !self.within_line {
            let text: String = text.chars().take(columns.saturating_sub(1)).collect();
            let _ = write!(self.err, "\r{text}\x1b[K").and_then(|()| self.err.flush());
            self.drawn = true;
        }
    }

    /// Takes the line of progress away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = write!(self.err, "\r\x1b[K").and_then(|()| self.err.flush());
        }
    }

    fn is_terminal(&self, stream: OutputStream) -> bool {
        match stream {
            OutputStream::Stdout => self.style.out_terminal,
            OutputStream::Stderr => self.style.err_terminal,
        }
    }

    fn guarded(&self, stream: OutputStream) -> bool {
        self.is_terminal(stream) && !self.style.raw
    }
}

fn end(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

/// `web-1 | `
fn prefix(
    names: &BTreeMap<HostId, String>,
    width: usize,
    style: Style,
    host: HostId,
    stream: OutputStream,
) -> String {
    let id = host.to_string();
    let name = names.get(&host).map_or(id.as_str(), String::as_str);
    let pad = " ".repeat(width.saturating_sub(name.width()));
    let terminal = match stream {
        OutputStream::Stdout => style.out_terminal,
        OutputStream::Stderr => style.err_terminal,
    };
    if style.colours && terminal {
        // By name, so that a host has the same colour in the next command.
        let sum: usize = name.bytes().map(usize::from).sum();
        let colour = COLOURS[sum % COLOURS.len()];
        format!("\x1b[{colour}m{name}{pad} |\x1b[0m ")
    } else {
        format!("{name}{pad} | ")
    }
}

fn write_line(out: &mut Vec<u8>, prefix: &str, line: &[u8], guarded: bool) {
    out.extend_from_slice(prefix.as_bytes());
    if guarded {
        let mut guard = Neutraliser::default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        guard.push(line, out);
        guard.finish(out);
    } else {
        out.extend_from_slice(line);
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::super::tests::host;
    use super::*;
    use OutputStream::{Stderr, Stdout};

    /// What a screen of this style wrote to the two ends.
    fn written(style: Style, act: impl FnOnce(&mut Screen<'_>)) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut screen = Screen::new(style, &mut out, &mut err);
        screen.name(host(1), "web-1");
        screen.name(host(2), "db\x1b[2J");
        act(&mut screen);
        screen.write().unwrap();
        drop(screen);
        (
            String::from_utf8_lossy(&out).into_owned(),
            String::from_utf8_lossy(&err).into_owned(),
        )
    }

    fn many() -> Style {
        Style {
            named: true,
            ..Style::default()
        }
    }

    #[test]
    fn lines_of_many_hosts_stand_behind_aligned_names_and_streams_stay_apart() {
        let now = Instant::now();
        let (out, err) = written(many(), |screen| {
            screen.output(host(1), Stdout, b"a\nb", now);
            screen.output(host(2), Stdout, b"x\n", now);
            screen.output(host(1), Stderr, b"oops\n", now);
            screen.output(host(1), Stdout, b"c\nend", now);
            screen.tick(now + 2 * QUIET);
            screen.end_lines(host(1));
        });
        assert_eq!(
            out,
            "web-1       | a\ndb\\u{1b}[2J | x\nweb-1       | bc\nweb-1       | end\n"
        );
        assert_eq!(err, "web-1       | oops\n");
    }

    #[test]
    fn bytes_of_one_host_pass_as_they_are() {
        let now = Instant::now();
        let (out, err) = written(Style::default(), |screen| {
            screen.output(host(1), Stdout, b"\x1b[31mred", now);
            screen.output(host(1), Stderr, b"e", now);
            screen.end_lines(host(1));
        });
        assert_eq!((out.as_str(), err.as_str()), ("\x1b[31mred", "e"));
    }

    #[test]
    fn abuse_28_a_terminal_is_not_driven_by_one_host_or_many() {
        let now = Instant::now();
        for named in [false, true] {
            let style = Style {
                named,
                out_terminal: true,
                ..Style::default()
            };
            let act = |screen: &mut Screen<'_>| {
                screen.output(host(1), Stdout, b"\x1b]0;x\x07 \xc2", now);
                screen.output(host(1), Stdout, b"\x9b\r\n", now);
            };
            let (out, _) = written(style, act);
            assert!(out.ends_with("\\u{1b}]0;x\\u{7} \\u{9b}\n"), "{out}");
            let (out, _) = written(Style { raw: true, ..style }, act);
            assert!(out.contains("\x1b]0;x\x07"), "--raw passes it on");
        }
    }

    #[test]
    fn a_terminal_shows_an_unfinished_line_after_a_while() {
        let now = Instant::now();
        let style = Style {
            out_terminal: true,
            ..many()
        };
        let (out, _) = written(style, |screen| {
            screen.output(host(1), Stdout, b"password: ", now);
            screen.tick(now + QUIET / 2);
            screen.write().unwrap();
            screen.output(host(1), Stdout, b"? ", now + QUIET / 2);
            screen.tick(now + 2 * QUIET);
        });
        assert_eq!(out, "web-1       | password: ? \n");
    }

    #[test]
    fn names_are_coloured_on_terminals_alone() {
        let now = Instant::now();
        let style = Style {
            out_terminal: true,
            colours: true,
            ..many()
        };
        let (out, err) = written(style, |screen| {
            screen.output(host(1), Stdout, b"a\n", now);
            screen.output(host(1), Stderr, b"a\n", now);
        });
        assert!(out.contains("m web-1") || out.contains("mweb-1"), "{out:?}");
        assert!(!err.contains('\x1b'), "{err:?}");
    }

    #[test]
    fn progress_makes_room_for_output_and_waits_while_a_line_is_unfinished() {
        let now = Instant::now();
        let style = Style {
            out_terminal: true,
            err_terminal: true,
            ..Style::default()
        };
        let (out, err) = written(style, |screen| {
            screen.progress("1 of 2", 4);
            screen.output(host(1), Stdout, b"half", now);
            screen.write().unwrap();
            screen.progress("2 of 2", 80);
            screen.remark("over");
        });
        assert_eq!(out, "half");
        assert_eq!(err, "\r1 o\x1b[K\r\x1b[K\nover\n");
        let (_, err) = written(Style::default(), |screen| screen.progress("1", 80));
        assert_eq!(err, "", "nowhere but on a terminal");
    }
}
