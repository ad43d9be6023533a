//! Follows a command to its end.
//!
//! A thread reads events, this one shows them; the channel between them is short, so
//! that a reader of our output that is slow slows the gateway's stream and fills no
//! memory. When the stream is lost it is opened again, for as long as
//! [`Watch::reconnect_for`] says.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use api::v1::OfCommand;
use api::v1::command::{CommandEvent, FollowFilter, Run};
use model::command::RunState;

use super::interrupts::leaving;
use super::picture::{Counts, News, Picture};
use super::screen::{Screen, Style};
use super::verdict;
use crate::app::App;
use crate::client::{Client, ClientError, Followed};
use crate::failure::{Failure, LEFT};
use crate::output::{Format, Table, duration_text, note};

/// Events between the thread that reads and the one that shows.
const AHEAD: usize = 64;

/// How often the line of progress is drawn: as often as people can read it.
const REDRAW: Duration = Duration::from_millis(200);

/// Hosts named at the end; `command show` has the rest.
const NAMED: usize = 100;

/// How to follow.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// How long to try to reach the gateway again.
    pub reconnect_for: Duration,
    /// Pass bytes as they are to terminals, too.
    pub raw: bool,
}

type Heard = Result<Followed<CommandEvent>, ClientError>;

/// Follows a command to its end and answers with the exit code.
pub fn follow(
    app: &mut App,
    client: &Arc<Client>,
    path: OfCommand,
    watch: Watch,
) -> Result<u8, Failure> {
    let (sender, receiver) = sync_channel(AHEAD);
    let reader = Arc::clone(client);
    thread::spawn(move || read(&reader, path, &sender));
    let result = match app.out.format() {
        Format::Json => Followers::new(app, None).run(&receiver, path, watch),
        Format::Table => {
            // How many there are is known with the first event.
            let screen = Screen::new(
                Style::of_process(false, watch.raw),
                io::stdout(),
                io::stderr(),
            );
            Followers::new(app, Some(screen)).run(&receiver, path, watch)
        }
    };
    match result {
        Ok(code) => Ok(code),
        Err(failure) => {
            note(&leaving(&path.command.to_string()));
            // Who reads our output may go whenever they like. That is not an error, and
            // not the end of the command either.
            if failure.is_broken_pipe() {
                Ok(LEFT)
            } else {
                Err(failure)
            }
        }
    }
}

/// Hands on what is heard until nobody listens or nothing more comes.
fn read(client: &Client, path: OfCommand, sender: &SyncSender<Heard>) {
    let mut events = client
        .command_events(path, FollowFilter::default())
        .expected();
    loop {
        let heard = events.next_event();
        let last = heard.is_err();
        if sender.send(heard).is_err() || last {
            return;
        }
    }
}

/// Shows events as they come.
struct Followers<'a> {
    app: &'a mut App,
    /// None in JSON.
    screen: Option<Screen<'a>>,
    picture: Picture,
    /// Since when the gateway is not heard, and why.
    lost: Option<(Instant, String)>,
    drawn: Option<Instant>,
}

impl<'a> Followers<'a> {
    fn new(app: &'a mut App, screen: Option<Screen<'a>>) -> Self {
        Self {
            app,
            screen,
            picture: Picture::default(),
            lost: None,
            drawn: None,
        }
    }

    fn run(
        mut self,
        receiver: &Receiver<Heard>,
        path: OfCommand,
        watch: Watch,
    ) -> Result<u8, Failure> {
        loop {
            let mut next = match receiver.recv_timeout(REDRAW) {
                Ok(heard) => Some(heard),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Err(self.lost_sight(path)),
            };
            // Everything that is there, and then one write.
            for _ in 0..AHEAD {
                let Some(heard) = next.take() else { break };
                self.hear(heard?)?;
                if self.picture.is_over() {
                    return self.end();
                }
                next = receiver.try_recv().ok();
            }
            if let Some(heard) = next {
                self.hear(heard?)?;
                if self.picture.is_over() {
                    return self.end();
                }
            }
            if let Some((since, _)) = &self.lost
                && since.elapsed() >= watch.reconnect_for
            {
                return Err(self.lost_sight(path));
            }
            self.show()?;
        }
    }

    fn hear(&mut self, heard: Followed<CommandEvent>) -> Result<(), Failure> {
        match heard {
            Followed::Interrupted { why, pause } => {
                self.picture.interrupted();
                let text = format!(
                    "interrupted ({why}); connecting again in {}",
                    duration_text(pause)
                );
                match &mut self.screen {
                    Some(screen) => screen.remark(&text),
                    None => note(&text),
                }
                self.lost.get_or_insert((Instant::now(), why));
                Ok(())
            }
            Followed::Event { event, raw } => {
                self.lost = None;
                match (&mut self.screen, event) {
                    (None, None) => self.app.out.line(&raw.replace('\n', " ")),
                    // Of a newer gateway: nothing that can be shown.
                    (Some(_), None) => Ok(()),
                    (_, Some(event)) => {
                        let kind = event.kind();
                        let news = self
                            .picture
                            .learn(event)
                            .map_err(|error| ClientError::Cut {
                                url: format!("an event `{kind}`"),
                                source: io::Error::new(io::ErrorKind::InvalidData, error),
                            })?;
                        self.tell(news, &raw)
                    }
                }
            }
        }
    }

    fn tell(&mut self, news: News, raw: &str) -> Result<(), Failure> {
        let Some(screen) = &mut self.screen else {
            // As it came, with what this version may not know.
            let text = match news {
                News::Nothing => return Ok(()),
                News::Output {
                    host,
                    stream,
                    bytes,
                    whole: false,
                } => {
                    let data = data_encoding::BASE64.encode(&bytes);
                    serde_json::to_string(&CommandEvent::Output { host, stream, data })
                        .map_err(Failure::Json)?
                }
                News::Gap { host, bytes } => {
                    serde_json::to_string(&CommandEvent::Gap { host, bytes })
                        .map_err(Failure::Json)?
                }
                News::Command | News::Run(_) | News::Output { .. } => raw.replace('\n', " "),
            };
            return self.app.out.line(&text);
        };
        match news {
            News::Nothing => {}
            News::Command => {
                let many = self.picture.command().is_some_and(|it| it.targets > 1);
                screen.named(many);
            }
            News::Run(host) => {
                if let Some(run) = self.picture.run(host) {
                    screen.name(host, &run.name);
                    if run.state.is_final() {
                        screen.end_lines(host);
                    }
                }
            }
            News::Output {
                host,
                stream,
                bytes,
                whole: _,
            } => screen.output(host, stream, &bytes, Instant::now()),
            News::Gap { host, bytes } => screen.gap(host, bytes)?,
        }
        Ok(())
    }

    /// Writes what has come, and where things stand.
    fn show(&mut self) -> Result<(), Failure> {
        let Some(screen) = &mut self.screen else {
            return Ok(());
        };
        let now = Instant::now();
        screen.tick(now);
        screen.write()?;
        let due = self.drawn.is_none_or(|at| now.duration_since(at) >= REDRAW);
        if due && screen.has_progress() {
            self.drawn = Some(now);
            match progress_text(&self.picture) {
                Some(text) => screen.progress(&text, columns()),
                None => screen.clear(),
            }
        }
        Ok(())
    }

    fn end(mut self) -> Result<u8, Failure> {
        let Some(command) = self.picture.command() else {
            return Ok(0);
        };
        if let Some(screen) = &mut self.screen {
            for run in self.picture.runs() {
                screen.end_lines(run.host);
            }
            screen.write()?;
            let text = summary(&self.picture);
            if !text.is_empty() {
                screen.remark(&text);
            }
            screen.clear();
        }
        Ok(verdict::exit_code(command, self.picture.runs()))
    }

    fn lost_sight(mut self, path: OfCommand) -> Failure {
        if let Some(screen) = &mut self.screen {
            // What came before is worth showing; the other failure is the one to tell.
            let _ = screen.write();
            screen.clear();
        }
        Failure::LostSight {
            command: path.command.to_string(),
            why: self
                .lost
                .map_or_else(|| "the stream ended".to_owned(), |(_, why)| why),
        }
    }
}

/// `3 of 10 hosts done (1 not successful), 4 running, 3 waiting`. Of one host only what
/// it waits for: once it runs, its output speaks.
fn progress_text(picture: &Picture) -> Option<String> {
    let counts = picture.counts();
    if counts.total == 1 {
        let run = picture.runs().next()?;
        let waits = !run.state.is_final() && run.state != RunState::Started;
        return waits.then(|| format!("{}: {}", crate::output::printable(&run.name), run.state));
    }
    let Counts {
        total,
        waiting,
        running,
        succeeded,
        failed,
    } = counts;
    Some(format!(
        "{} of {total} hosts done ({failed} not successful), {running} running, {waiting} waiting",
        succeeded + failed
    ))
}

/// Which hosts did not succeed and how; of one host nothing when it did.
fn summary(picture: &Picture) -> String {
    let unsuccessful: Vec<&Run> = picture
        .runs()
        .filter(|run| !verdict::succeeded(run))
        .collect();
    let counts = picture.counts();
    if counts.total == 1 {
        return unsuccessful.first().map_or_else(String::new, |run| {
            let result = verdict::result_text(run);
            let gap = if result.is_empty() { "" } else { ", " };
            format!("{}: {}{gap}{result}", run.name, run.state)
        });
    }
    let mut text = format!("{} of {} hosts succeeded\n", counts.succeeded, counts.total);
    let Some(command) = picture.command() else {
        return text;
    };
    if let Some(stopped) = &command.stopped {
        text.push_str(&format!("stopped: {stopped}\n"));
    }
    if unsuccessful.is_empty() {
        return text;
    }
    let mut table = Table::new(&["HOST", "STATE", "RESULT"]);
    for run in unsuccessful.iter().take(NAMED) {
        table.row([
            run.name.as_str().into(),
            run.state.as_str().into(),
            verdict::result_text(run).into(),
        ]);
    }
    text.push_str(&table.plain());
    let id = command.id;
    match unsuccessful.len().saturating_sub(NAMED) {
        0 => {}
        more => text.push_str(&format!("and {more} more: loopback command show {id}\n")),
    }
    text.push_str(&format!(
        "again where it did not succeed: loopback command retry {id} --failed"
    ));
    text
}

/// How wide the terminal is; 80 where it does not say.
fn columns() -> usize {
    rustix::termios::tcgetwinsize(io::stderr())
        .map(|size| usize::from(size.ws_col))
        .ok()
        .filter(|columns| *columns > 0)
        .unwrap_or(80)
}
