//! A run, from its start to the moment when the gateway has its result: what a worker
//! does with a run's job.
//!
//! ```text
//! lock ─► look again ─► prepare ─► `spawned` ─► the program runs ─► its tree is empty,
//!   │         │            │                      ▲         │       or it ended by itself
//!   └─────────┴── nothing  └─► not started ──┐    │ TERM, grace, KILL        │
//!                 to do here                 └────┴──► ended ─► told ─► `ended` on disk ─► taken
//! ```
//!
//! One loop, one thread. It serves one connection at a time, the newest: the agent's,
//! which carries it on to the gateway. Without one the run goes on; output collects in
//! the spool. While the gateway listens and does not keep up, output is not read from
//! the program any more, which then waits: back-pressure instead of memory.
//!
//! A program may ask for a reboot by an exit code. That is written first; then the host
//! is rebooted, and this process waits for its end. After the boot the gateway asks for
//! the run again, and another worker starts the program again.
//!
//! A program that ends by itself may leave others behind, on purpose: a daemon, say.
//! They live on and are counted (`left`). Their output is waited for a moment and then
//! lost: who starts a daemon redirects its output. What is cancelled or ran too long
//! leaves nobody: everything below this process is ended, and it is the proof, because
//! everything that was started and lost its parent becomes its child.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use agent_core::runs::mask::Masker;
use agent_core::runs::processes::Process;
use bytes::{Buf, BytesMut};
use link::frame::{Deadlines, FrameReader, MAX_FRAME};
use protocol::frame::encode;
use protocol::v1::{
    EndKind, RunAccepted, RunEnded, RunOrder, RunReboot, RunReport, RunRequest, RunSpec,
    RunStarted, run_order, run_report,
};
use rustix::process::{WaitOptions, getpid, set_child_subreaper, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::net::unix::pipe::Receiver;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::cgroup::{self, Base};
use super::journal::{Lock, MOST_REBOOTS, RunFolder, SOCKET};
use super::program::{Program, Started, forget_script};
use super::spool::{Cursor, Found, MEMORY, Spool};
use super::tree::Tree;
use crate::worker::job::RunJob;
use crate::worker::socket;

/// Most of one piece of output.
const PIECE: usize = 64 << 10;
/// Frames made ahead of the connection.
const AHEAD: usize = 256 << 10;
/// How long output is waited for once the program has ended and others hold its pipes.
const LINGER: Duration = Duration::from_secs(2);
/// How long the killed are waited for. Who is alive then hangs in the kernel.
const DEATH: Duration = Duration::from_secs(10);
/// How long a reboot that was asked for may take to begin, and services to stop.
const REBOOT: Duration = Duration::from_secs(300);
/// Between two rounds of killing.
const KILL_AGAIN: Duration = Duration::from_millis(100);
/// An agent may be silent for as long as it likes.
const READ: Deadlines = Deadlines {
    idle: Duration::from_secs(40 * 24 * 3600),
    frame: Duration::from_secs(30),
};

/// Starts the program, if that is still to be done, and watches it.
pub async fn run(job: RunJob, read: OwnedReadHalf, write: OwnedWriteHalf) -> io::Result<()> {
    let began = Instant::now();
    let folder = RunFolder::at(PathBuf::from(&job.folder));
    let Some(mut request) = job.request else {
        return Ok(());
    };
    // Whoever has the lock does what is to be done.
    let Some(lock) = folder.lock()? else {
        return Ok(());
    };
    let journal = folder.read()?;
    if journal.accepted.is_none() || journal.spawned || journal.ended || journal.never {
        return Ok(());
    }
    set_child_subreaper(Some(getpid()))?;
    let listener = socket::listen(folder.path(), SOCKET)?;
    listener.set_nonblocking(true)?;
    let spec = request.spec.take().unwrap_or_default();
    let secrets: Vec<_> = spec.secrets.iter().map(|it| it.value.as_bytes()).collect();
    let masks = [Masker::new(secrets.clone()), Masker::new(secrets)];
    let mut watch = Watch {
        spool: spool(&folder)?,
        boot_id: job.boot_id.clone(),
        reboot_code: spec.reboot_code,
        rebooting: None,
        tree: Tree::new(None),
        clock: (request.server_time_ms, began),
        command: request.command.clone(),
        grace: Duration::from_millis(u64::from(spec.grace_ms)),
        folder,
        lock,
        masks,
        started: None,
        first: None,
        exit: None,
        pipes: [None, None],
        ending: None,
        deadline: None,
        ended: None,
        persisted: false,
        broken_disk: false,
    };
    let signals = Signals::new()?;
    let orders = FrameReader::new(read, MAX_FRAME, READ);
    let conn = Connection::new(write, request.output_from);
    let late = began.elapsed() >= Duration::from_millis(job.start_within_ms);
    if late {
        watch.end(EndKind::Expired, "the worker came to it too late");
    } else if let Err(why) = watch.start(&request, &spec) {
        watch.end(EndKind::NotStarted, &why);
    } else if spec.run_timeout_ms > 0 {
        watch.deadline = Some(began + Duration::from_millis(spec.run_timeout_ms));
    }
    drop(spec);
    if request.cancel {
        watch.stop(EndKind::Cancelled);
    }
    watch
        .serve(UnixListener::from_std(listener)?, conn, orders, signals)
        .await
}

struct Signals {
    child: Signal,
    /// The host goes down. It is the program that is to end, and this process that
    /// writes how it did.
    terminate: Signal,
    // Listened for so that they do not end this process.
    _ignored: [Signal; 2],
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            _ignored: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
            ],
        })
    }
}

struct Watch {
    folder: RunFolder,
    lock: Lock,
    command: String,
    spool: Spool,
    masks: [Masker; 2],
    tree: Tree,
    grace: Duration,
    /// The gateway's time at a moment of ours.
    clock: (i64, Instant),
    started: Option<RunStarted>,
    first: Option<i32>,
    /// Exit code or signal of the first process, and when.
    exit: Option<(Exit, Instant)>,
    pipes: [Option<Receiver>; 2],
    ending: Option<Ending>,
    /// When to act next: the longest time is over, grace is over, kill again.
    deadline: Option<Instant>,
    ended: Option<RunEnded>,
    persisted: bool,
    broken_disk: bool,
    boot_id: String,
    reboot_code: Option<i32>,
    /// Which reboot follows, once it asked for one.
    rebooting: Option<u32>,
}

/// What was written before a reboot is kept until it is stored.
fn spool(folder: &RunFolder) -> io::Result<Spool> {
    let mut spool = Spool::left_in(folder.path())?;
    spool.end_at(folder.pieces_before());
    Ok(spool)
}

#[derive(Clone, Copy)]
enum Exit {
    Code(i32),
    Signal(i32),
}

/// The tree is being ended.
struct Ending {
    kind: EndKind,
    others: BTreeSet<Process>,
    /// Since when KILL is used.
    killing: Option<Instant>,
}

impl Watch {
    fn start(&mut self, request: &RunRequest, spec: &RunSpec) -> Result<(), String> {
        let limits = spec.limits.unwrap_or_default();
        let base = std::env::var(cgroup::VARIABLE).ok();
        let group = match base.as_deref().and_then(Base::from_text) {
            Some(base) => Some(base.make(&request.command, &limits)?),
            None if cgroup::are_needed(&limits) => return Err(cgroup::MISSING.to_owned()),
            None => None,
        };
        let folder = self.folder.path();
        let reboots = self.folder.reboots();
        let program = Program::prepare(request, spec, folder, group.as_ref(), reboots);
        self.tree = Tree::new(group);
        let program = program?;
        self.folder
            .spawned(&self.lock)
            .map_err(|error| format!("write the journal: {error}"))?;
        let Started {
            pid,
            stdout,
            stderr,
        } = program.start()?;
        self.first = Some(pid);
        self.started = Some(RunStarted {
            at_ms: self.now_ms(),
            pid: pid.unsigned_abs(),
        });
        for (pipe, end) in self.pipes.iter_mut().zip([stdout, stderr]) {
            // It runs: whatever fails from here on must not be told as not started.
            *pipe = Receiver::from_owned_fd(end.into()).ok();
        }
        Ok(())
    }

    fn now_ms(&self) -> i64 {
        let (then, at) = self.clock;
        then.saturating_add(i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    async fn serve(
        mut self,
        listener: UnixListener,
        conn: Connection,
        orders: Orders,
        mut signals: Signals,
    ) -> io::Result<()> {
        let (mut conn, mut orders) = (Some(conn), Some(orders));
        let mut buffers = [vec![0; PIECE], vec![0; PIECE]];
        let (mut out, mut err) = (self.pipes[0].take(), self.pipes[1].take());
        loop {
            if let Some(conn) = &mut conn {
                conn.advance(&mut self);
            }
            if self.ended.is_some() && !self.persisted {
                self.persist();
            }
            if self.persisted && conn.is_none() {
                return Ok(());
            }
            if self.ended.is_none() && self.is_over(&mut [&mut out, &mut err], conn.is_some()) {
                let kind = self.ending.as_ref().map_or(EndKind::Itself, |it| it.kind);
                if !(kind == EndKind::Itself && self.asks_reboot()) {
                    self.end(kind, "");
                }
                continue;
            }
            let room = conn.is_none() || self.spool.in_memory() < MEMORY;
            let wake = self.wake();
            let [out_buffer, err_buffer] = &mut buffers;
            tokio::select! {
                biased;
                order = next_order(&mut orders) => match order {
                    Some(run_order::Body::Cancel(_)) => self.stop(EndKind::Cancelled),
                    Some(run_order::Body::OutputStored(it)) => self.spool.stored(it.sequence),
                    Some(run_order::Body::ResultStored(_)) if self.persisted => {
                        self.folder.take()?;
                        return Ok(());
                    }
                    Some(run_order::Body::ResultStored(_)) => {}
                    None => (conn, orders) = (None, None),
                },
                _ = signals.child.recv() => self.reap(),
                _ = signals.terminate.recv() => {
                    // Nothing is left to write: the host must not wait for us.
                    if self.rebooting.is_some() || self.persisted {
                        return Ok(());
                    }
                }
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted
                        && let Some((new, its, cancel)) = Connection::attach(stream).await
                    {
                        (conn, orders) = (Some(new), Some(its));
                        if cancel {
                            self.stop(EndKind::Cancelled);
                        }
                    }
                }
                () = until(wake) => self.late(),
                written = flush(&mut conn) => {
                    if written.is_err() {
                        (conn, orders) = (None, None);
                    }
                }
                read = next_output(&mut out, out_buffer), if room => {
                    self.took(0, read, out_buffer, &mut out, conn.is_some());
                }
                read = next_output(&mut err, err_buffer), if room => {
                    self.took(1, read, err_buffer, &mut err, conn.is_some());
                }
            }
        }
    }

    /// Output was read, or a pipe has ended.
    fn took(
        &mut self,
        stream: usize,
        read: io::Result<usize>,
        buffer: &[u8],
        pipe: &mut Option<Receiver>,
        heard: bool,
    ) {
        match read {
            Ok(length) if length > 0 => {
                let shown = self.masks[stream].feed(buffer.get(..length).unwrap_or_default());
                self.spool.push(stream_number(stream), shown);
                if !heard && self.spool.in_memory() >= MEMORY {
                    self.spill();
                }
            }
            Ok(_) | Err(_) => *pipe = None,
        }
    }

    fn spill(&mut self) {
        // The output is gone, and counted as such by what follows.
        self.broken_disk |= self.spool.spill().is_err();
    }

    /// Whether the program has asked for a reboot, which is on its way now.
    fn asks_reboot(&mut self) -> bool {
        let Some((Exit::Code(code), _)) = self.exit else {
            return false;
        };
        if self.reboot_code != Some(code) || self.folder.reboots() >= MOST_REBOOTS {
            return false;
        }
        for stream in 0..2 {
            let rest = self.masks[stream].finish();
            self.spool.push(stream_number(stream), rest);
        }
        let pieces = self.spool.next();
        self.spill();
        let written = self
            .spool
            .sync()
            .and_then(|()| self.folder.ask_reboot(&self.lock, &self.boot_id, pieces));
        let Ok(count) = written else {
            // It ends with its code: what is not written must not be relied upon.
            return false;
        };
        self.tree.leave();
        self.rebooting = Some(count);
        self.exit = None;
        self.deadline = Some(Instant::now() + REBOOT);
        let reboot = Command::new("systemctl")
            .arg("reboot")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if reboot.is_err() {
            self.deadline = Some(Instant::now());
        }
        true
    }

    /// Whether there is nothing more to wait for.
    fn is_over(&mut self, pipes: &mut [&mut Option<Receiver>; 2], heard: bool) -> bool {
        let killing = self.ending.as_ref().and_then(|ending| ending.killing);
        if killing.is_some_and(|since| since.elapsed() > DEATH) {
            // Who is alive cannot be got rid of.
            return true;
        }
        let Some((_, at)) = self.exit else {
            return false;
        };
        if !self.drain(pipes, heard) {
            return false;
        }
        let childless = !has_children();
        let pipes_ended = pipes.iter().all(|pipe| pipe.is_none());
        match self.ending {
            Some(_) => childless,
            None => childless || pipes_ended || at.elapsed() > LINGER,
        }
    }

    /// Reads what is in the pipes of a program that has ended. Whether that was all,
    /// for now.
    fn drain(&mut self, pipes: &mut [&mut Option<Receiver>; 2], heard: bool) -> bool {
        let mut buffer = vec![0; PIECE];
        for (stream, pipe) in pipes.iter_mut().enumerate() {
            while let Some(open) = pipe.as_ref() {
                if self.spool.in_memory() >= MEMORY {
                    if heard {
                        return false;
                    }
                    self.spill();
                }
                match open.try_read(&mut buffer) {
                    Ok(length) if length > 0 => {
                        let shown = self.masks[stream].feed(&buffer[..length]);
                        self.spool.push(stream_number(stream), shown);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Ok(_) | Err(_) => **pipe = None,
                }
            }
        }
        true
    }

    /// Notes how the run ended.
    fn end(&mut self, kind: EndKind, reason: &str) {
        for stream in 0..2 {
            let rest = self.masks[stream].finish();
            self.spool.push(stream_number(stream), rest);
        }
        let left = if has_children() {
            self.tree.alive().len()
        } else {
            0
        };
        let (killed, others) = match &self.ending {
            Some(ending) => {
                let others = ending.others.iter();
                let others = others.filter(|it| Some(it.pid) != self.first).count();
                (ending.killing.is_some(), others)
            }
            None => (false, 0),
        };
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let mut ended = RunEnded {
            kind: kind.into(),
            killed,
            others: count(others.saturating_sub(left)),
            left: count(left),
            started_at_ms: self.started.map(|started| started.at_ms),
            ended_at_ms: self.now_ms(),
            reason: reason.to_owned(),
            pieces: self.spool.next(),
            ..RunEnded::default()
        };
        match self.exit {
            Some((Exit::Code(code), _)) => ended.code = Some(code),
            Some((Exit::Signal(signal), _)) => ended.signal = Some(signal),
            None => {}
        }
        self.ended = Some(ended);
        self.deadline = None;
        self.tree.leave();
    }

    /// Ends everything the run has started.
    fn stop(&mut self, kind: EndKind) {
        if self.ended.is_some() || self.ending.is_some() || self.rebooting.is_some() {
            return;
        }
        if self.exit.is_some() {
            // It has ended by itself; what it left behind it left on purpose.
            return;
        }
        let others = self.tree.terminate();
        self.ending = Some(Ending {
            kind,
            others,
            killing: None,
        });
        self.deadline = Some(Instant::now() + self.grace);
    }

    /// A deadline has passed.
    fn late(&mut self) {
        if self.deadline.is_none_or(|at| Instant::now() < at) {
            return;
        }
        if self.rebooting.is_some() {
            self.exit = self
                .reboot_code
                .map(|code| (Exit::Code(code), Instant::now()));
            return self.end(
                EndKind::Itself,
                "it asked for a reboot, and the host did not reboot",
            );
        }
        let Some(ending) = &mut self.ending else {
            return self.stop(EndKind::TimedOut);
        };
        let killed = self.tree.kill();
        ending.others.extend(killed);
        ending.killing.get_or_insert_with(Instant::now);
        self.deadline = Some(Instant::now() + KILL_AGAIN);
        self.reap();
    }

    /// Collects whoever has ended: the program, and those that lost their parents.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if Some(pid.as_raw_nonzero().get()) == self.first {
                let exit = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Exit::Code(code),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => continue,
                };
                self.exit = Some((exit, Instant::now()));
            }
        }
    }

    /// When to look again though nothing happened.
    fn wake(&self) -> Option<Instant> {
        let lingering = self.exit.filter(|_| self.ended.is_none());
        let linger = lingering.map(|(_, at)| at + LINGER + Duration::from_millis(1));
        let linger = linger.filter(|_| self.ending.is_none());
        [self.deadline, linger].into_iter().flatten().min()
    }

    /// Puts the result and what was not told on disk.
    fn persist(&mut self) {
        self.persisted = true;
        self.spill();
        forget_script(&self.command);
        let Some(ended) = &mut self.ended else { return };
        if self.broken_disk && ended.reason.is_empty() {
            ended.reason = "the host's disk did not take all of the output".to_owned();
        }
        let synced = self.spool.sync();
        let written = self.folder.end(&self.lock, ended);
        // A disk that takes no result: it is told from here for as long as somebody
        // listens. After that nobody can tell, and the agent says so.
        if let Err(error) = synced.and(written) {
            tracing::warn!(%error, "the result of a run cannot be kept");
        }
    }
}

type Orders = FrameReader<OwnedReadHalf>;

/// The agent's connection.
struct Connection {
    write: OwnedWriteHalf,
    out: BytesMut,
    cursor: Cursor,
    told: Told,
    told_reboot: bool,
}

/// What has been told, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    Accepted,
    Started,
    Ended,
}

impl Connection {
    fn new(write: OwnedWriteHalf, from: u64) -> Self {
        Self {
            write,
            out: BytesMut::new(),
            cursor: Cursor::at(from),
            told: Told::Nothing,
            told_reboot: false,
        }
    }

    /// Another connection, which says first from where on it wants output, and whether
    /// the run is cancelled.
    async fn attach(stream: tokio::net::UnixStream) -> Option<(Self, Orders, bool)> {
        let peer = stream.peer_cred().ok()?.uid();
        if peer != rustix::process::geteuid().as_raw() && peer != 0 {
            return None;
        }
        let (read, write) = stream.into_split();
        let deadlines = Deadlines {
            idle: Duration::from_secs(5),
            frame: Duration::from_secs(5),
        };
        let mut reader = FrameReader::new(read, MAX_FRAME, deadlines);
        let request: RunRequest = reader.next().await.ok()??;
        let orders = FrameReader::new(reader.into_inner(), MAX_FRAME, READ);
        Some((
            Self::new(write, request.output_from),
            orders,
            request.cancel,
        ))
    }

    /// Tells as much as the connection takes at once. When this returns there is
    /// nothing to tell, or something waits for room: nothing else would wake us.
    fn advance(&mut self, watch: &mut Watch) {
        loop {
            self.fill(watch);
            if self.out.is_empty() || !self.push() {
                return;
            }
        }
    }

    /// Makes frames of what is to be told next.
    fn fill(&mut self, watch: &mut Watch) {
        while self.out.len() < AHEAD {
            let body = match self.told {
                Told::Nothing => {
                    self.told = Told::Accepted;
                    run_report::Body::Accepted(RunAccepted {})
                }
                Told::Accepted => {
                    self.told = Told::Started;
                    match watch.started {
                        Some(started) => run_report::Body::Started(started),
                        None => continue,
                    }
                }
                Told::Started => match watch.spool.read(&mut self.cursor) {
                    Found::Piece(piece) => run_report::Body::Output(piece.into()),
                    Found::Gap(gap) => run_report::Body::Gap(gap),
                    Found::Nothing => match (&watch.ended, watch.rebooting) {
                        (Some(ended), _) => {
                            self.told = Told::Ended;
                            run_report::Body::Ended(ended.clone())
                        }
                        (None, Some(count)) if !self.told_reboot => {
                            self.told_reboot = true;
                            run_report::Body::Rebooting(RunReboot { count })
                        }
                        (None, _) => return,
                    },
                },
                Told::Ended => return,
            };
            let report = RunReport { body: Some(body) };
            self.out.extend_from_slice(&encode(&report));
        }
    }

    /// Writes what can be written at once. Whether that was all.
    fn push(&mut self) -> bool {
        while !self.out.is_empty() {
            match self.write.try_write(&self.out) {
                Ok(written) if written > 0 => self.out.advance(written),
                // A connection that is gone is noticed where it is read.
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }
}

async fn next_order(orders: &mut Option<Orders>) -> Option<run_order::Body> {
    match orders {
        // An order that this version does not know is none.
        Some(orders) => loop {
            let order: RunOrder = orders.next().await.ok()??;
            if let Some(body) = order.body {
                return Some(body);
            }
        },
        None => std::future::pending().await,
    }
}

async fn flush(conn: &mut Option<Connection>) -> io::Result<()> {
    match conn {
        Some(conn) if !conn.out.is_empty() => {
            let written = conn.write.write(&conn.out).await?;
            conn.out.advance(written);
            Ok(())
        }
        _ => std::future::pending().await,
    }
}

async fn next_output(pipe: &mut Option<Receiver>, buffer: &mut [u8]) -> io::Result<usize> {
    match pipe {
        Some(pipe) => pipe.read(buffer).await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn stream_number(stream: usize) -> u8 {
    if stream == 0 { 1 } else { 2 }
}

/// Whether anybody below this process is there, dead or alive.
fn has_children() -> bool {
    // Does not take anybody's status.
    let options = rustix::process::WaitIdOptions::EXITED
        | rustix::process::WaitIdOptions::NOHANG
        | rustix::process::WaitIdOptions::NOWAIT;
    let waited = rustix::process::waitid(rustix::process::WaitId::All, options);
    !matches!(waited, Err(rustix::io::Errno::CHILD))
}
