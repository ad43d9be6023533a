//! What is known of a command that is followed, and what of an event is news.
//!
//! The stream of a command begins at the beginning each time it is opened. Output of
//! one run comes in one order, both of its streams and its gaps, so a place in it is
//! one number: bytes from the beginning, those of gaps included. What lies before the
//! furthest place of an earlier stream has been shown. That also holds where a gap is
//! told now and its bytes were seen live, or some of them.

use std::collections::BTreeMap;

use api::v1::command::{Command, CommandEvent, Run};
use data_encoding::BASE64;
use model::command::{CommandState, OutputStream, RunState};
use model::ids::HostId;

/// What is known of a command.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    command: Option<Command>,
    runs: BTreeMap<HostId, Run>,
    places: BTreeMap<HostId, Place>,
}

/// Places in the output of one run.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// The furthest that was ever reached.
    shown: u64,
    /// Where the stream of now is.
    here: u64,
}

/// What an event says that was not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing.
    Nothing,
    /// The command as a whole is new, or has changed.
    Command,
    /// A run is new, or has changed.
    Run(HostId),
    /// A piece of output.
    Output {
        /// Of which host.
        host: HostId,
        /// Which stream.
        stream: OutputStream,
        /// The bytes not shown yet.
        bytes: Vec<u8>,
        /// Whether these are all bytes of the event.
        whole: bool,
    },
    /// Output that was not kept and not seen.
    Gap {
        /// Of which host.
        host: HostId,
        /// How many bytes.
        bytes: u64,
    },
}

/// How many runs are how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub total: u32,
    /// Queued, on the way, or waiting on the host.
    pub waiting: u32,
    /// Started and not ended.
    pub running: u32,
    /// Ended with exit code 0.
    pub succeeded: u32,
    /// Final, in another way.
    pub failed: u32,
}

/// An event that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("output is not in base64")]
pub struct BadEvent;

impl Picture {
    /// Takes an event in and says what of it is news.
    pub fn learn(&mut self, event: CommandEvent) -> Result<News, BadEvent> {
        Ok(match event {
            CommandEvent::Command { command } => {
                if self.command.as_ref() == Some(&*command) {
                    News::Nothing
                } else {
                    self.command = Some(*command);
                    News::Command
                }
            }
            CommandEvent::Run { run } => {
                let host = run.host;
                if self.runs.get(&host) == Some(&*run) {
                    News::Nothing
                } else {
                    self.runs.insert(host, *run);
                    News::Run(host)
                }
            }
            CommandEvent::Output { host, stream, data } => {
                let mut bytes = BASE64.decode(data.as_bytes()).map_err(|_| BadEvent)?;
                let length = bytes.len() as u64;
                let new = self.places.entry(host).or_default().pass(length);
                if new == 0 {
                    return Ok(News::Nothing);
                }
                let whole = new == length;
                // At most `length`, which is that of a vector.
                bytes.drain(..usize::try_from(length - new).unwrap_or(usize::MAX));
                News::Output {
                    host,
                    stream,
                    bytes,
                    whole,
                }
            }
            CommandEvent::Gap { host, bytes } => {
                match self.places.entry(host).or_default().pass(bytes) {
                    0 => News::Nothing,
                    bytes => News::Gap { host, bytes },
                }
            }
        })
    }

    /// The stream was lost; the next begins at the beginning.
    pub fn interrupted(&mut self) {
        for place in self.places.values_mut() {
            place.here = 0;
        }
    }

    /// The command, once it has been told.
    pub fn command(&self) -> Option<&Command> {
        self.command.as_ref()
    }

    /// Whether the command has come to its end: no event follows.
    pub fn is_over(&self) -> bool {
        self.command
            .as_ref()
            .is_some_and(|command| command.state != CommandState::Running)
    }

    /// A run that has been told.
    pub fn run(&self, host: HostId) -> Option<&Run> {
        self.runs.get(&host)
    }

    /// All runs that have been told.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.values()
    }

    /// How many are how far.
    pub fn counts(&self) -> Counts {
        let told = u32::try_from(self.runs.len()).unwrap_or(u32::MAX);
        let mut counts = Counts {
            total: self
                .command
                .as_ref()
                .map_or(told, |command| command.targets),
            ..Counts::default()
        };
        for run in self.runs.values() {
            match run.state {
                RunState::Queued | RunState::Sending | RunState::Delivered => counts.waiting += 1,
                RunState::Started => counts.running += 1,
                RunState::Exited if run.code == Some(0) => counts.succeeded += 1,
                RunState::Exited
                | RunState::Signalled
                | RunState::NotStarted
                | RunState::TimedOut
                | RunState::Expired
                | RunState::Cancelled
                | RunState::Refused
                | RunState::Lost => counts.failed += 1,
            }
        }
        counts
    }
}

impl Place {
    /// Moves on by `length` and says how many of these bytes, the last ones, are new.
    fn pass(&mut self, length: u64) -> u64 {
        self.here = self.here.saturating_add(length);
        let new = self.here.saturating_sub(self.shown).min(length);
        self.shown = self.shown.max(self.here);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{command, host, run};
    use super::*;
    use proptest::prelude::*;

    fn output(number: u8, bytes: &[u8]) -> CommandEvent {
        CommandEvent::Output {
            host: host(number),
            stream: OutputStream::Stdout,
            data: BASE64.encode(bytes),
        }
    }

    fn gap(bytes: u64) -> CommandEvent {
        CommandEvent::Gap {
            host: host(1),
            bytes,
        }
    }

    fn news(picture: &mut Picture, event: CommandEvent) -> String {
        match picture.learn(event).unwrap() {
            News::Output { bytes, .. } => String::from_utf8(bytes).unwrap(),
            News::Gap { bytes, .. } => format!("gap {bytes}"),
            News::Nothing => "-".to_owned(),
            News::Run(_) => "run".to_owned(),
            News::Command => "command".to_owned(),
        }
    }

    #[test]
    fn what_was_shown_is_not_shown_again_after_a_lost_stream() {
        let mut picture = Picture::default();
        assert_eq!(news(&mut picture, output(1, b"abc")), "abc");
        assert_eq!(news(&mut picture, output(2, b"x")), "x");
        picture.interrupted();
        assert_eq!(news(&mut picture, output(1, b"ab")), "-");
        assert_eq!(news(&mut picture, output(1, b"cde")), "de");
        assert_eq!(news(&mut picture, output(2, b"xy")), "y");
        assert_eq!(news(&mut picture, output(1, b"f")), "f");
        picture.interrupted();
        assert_eq!(news(&mut picture, output(1, b"abcdef")), "-");
    }

    #[test]
    fn a_gap_whose_bytes_were_seen_is_not_told() {
        let mut picture = Picture::default();
        assert_eq!(news(&mut picture, output(1, b"head12345ta")), "head12345ta");
        picture.interrupted();
        assert_eq!(news(&mut picture, output(1, b"head")), "-");
        assert_eq!(news(&mut picture, gap(5)), "-");
        assert_eq!(news(&mut picture, output(1, b"tail")), "il");
    }

    #[test]
    fn of_a_gap_only_what_was_not_seen_is_told() {
        let mut picture = Picture::default();
        assert_eq!(news(&mut picture, output(1, b"head12")), "head12");
        picture.interrupted();
        assert_eq!(news(&mut picture, output(1, b"head")), "-");
        assert_eq!(news(&mut picture, gap(5)), "gap 3");
        assert_eq!(news(&mut picture, output(1, b"tail")), "tail");
    }

    #[test]
    fn a_run_or_command_told_again_as_it_was_is_no_news() {
        let mut picture = Picture::default();
        let event = CommandEvent::Run {
            run: Box::new(run(1, RunState::Queued)),
        };
        assert_eq!(picture.learn(event.clone()).unwrap(), News::Run(host(1)));
        assert_eq!(picture.learn(event).unwrap(), News::Nothing);
        let event = CommandEvent::Command {
            command: Box::new(command(1, CommandState::Running)),
        };
        assert_eq!(picture.learn(event.clone()).unwrap(), News::Command);
        assert_eq!(picture.learn(event).unwrap(), News::Nothing);
        assert!(!picture.is_over());
        let over = CommandEvent::Command {
            command: Box::new(command(1, CommandState::Failed)),
        };
        assert_eq!(picture.learn(over).unwrap(), News::Command);
        assert!(picture.is_over());
    }

    #[test]
    fn runs_are_counted_by_how_far_they_are() {
        let mut picture = Picture::default();
        for (number, state) in RunState::ALL.iter().enumerate() {
            let run = Box::new(run(u8::try_from(number).unwrap(), *state));
            picture.learn(CommandEvent::Run { run }).unwrap();
        }
        let counts = picture.counts();
        assert_eq!((counts.total, counts.waiting, counts.running), (12, 3, 1));
        assert_eq!((counts.succeeded, counts.failed), (1, 7));
    }

    #[test]
    fn output_that_is_no_base64_is_refused() {
        let event = CommandEvent::Output {
            host: host(1),
            stream: OutputStream::Stdout,
            data: "?".to_owned(),
        };
        assert!(Picture::default().learn(event).is_err());
    }

    proptest! {
        /// Streams are cut anywhere, and begin again in other pieces.
        #[test]
        fn every_byte_is_shown_once_and_in_order(
            text in "[a-z]{0,40}",
            tries in prop::collection::vec((0_usize..=40, 1_usize..7), 0..6),
        ) {
            let mut picture = Picture::default();
            let mut shown = String::new();
            for (until, size) in tries.into_iter().chain([(40, 3)]) {
                for piece in text.as_bytes()[..until.min(text.len())].chunks(size) {
                    if let News::Output { bytes, .. } = picture.learn(output(1, piece)).unwrap() {
                        shown.push_str(std::str::from_utf8(&bytes).unwrap());
                    }
                }
                picture.interrupted();
            }
            prop_assert_eq!(shown, text);
        }
    }
}
