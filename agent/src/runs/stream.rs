//! A run's stream at the agent: decides from the journal, then answers or carries.

use std::io;
use std::time::{Duration, SystemTime};

use agent_core::runs::journal::{Accepted, Asked, Journal, Lost, Now, Verdict, decide};
use link::frame::{FrameReader, MAX_FRAME, write_message};
use model::ids::CommandId;
use model::{Timestamp, error_chain};
use protocol::v1::{
    EndKind, RunEnded, RunOrder, RunReboot, RunRefusal, RunRefused, RunReport, RunRequest,
    run_order, run_report,
};
use quinn::{RecvStream, SendStream};
use tokio::io::{AsyncWriteExt, copy};
use tokio::net::UnixStream;

use super::journal::{RunFolder, Runs, SOCKET};
use super::spool::{Cursor, Found, Spool};
use crate::streams::Hands;
use crate::worker::job::{Job, RunJob, of};
use crate::worker::socket;

/// For the gateway, or a worker, to take a frame.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// For the gateway to store a result that it was told.
const RECEIPT: Duration = Duration::from_secs(600);
/// Free bytes without which no run is accepted: its journal must be written to its end.
const ROOM: u64 = 4 << 20;

/// What becomes of a request.
enum Course {
    /// It is declined.
    Refuse(RunRefusal, String),
    /// A worker is to start it.
    Start,
    /// A worker watches it.
    Attend,
    /// It has ended.
    Tell(Box<RunEnded>),
    /// It can be started again after so many reboots.
    Rebooted(u32),
}

/// Serves the stream of one run to its end.
pub(crate) async fn serve(
    request: RunRequest,
    mut send: SendStream,
    receive: FrameReader<RecvStream>,
    hands: &Hands,
) {
    let command = request.command.clone();
    if let Err(error) = go(request, &mut send, receive, hands).await {
        // The gateway asks again while there is a reason to.
        tracing::debug!(command.id = %model::names::clean(&command, 40), %error, "the stream of a run has ended");
    }
    let _ = send.finish();
    let _ = tokio::time::timeout(WRITE_WITHIN, send.stopped()).await;
}

async fn go(
    mut request: RunRequest,
    send: &mut SendStream,
    receive: FrameReader<RecvStream>,
    hands: &Hands,
) -> io::Result<()> {
    let refuse = |code, message: String| {
        run_report::Body::Refused(RunRefused {
            code: RunRefusal::into(code),
            message,
        })
    };
    let command = match check(&request, hands) {
        Ok(command) => command,
        Err((code, message)) => return say(send, refuse(code, message)).await,
    };
    let course = {
        let (runs, boot_id) = (hands.runs().clone(), hands.boot_id().to_owned());
        let paused = hands.is_paused();
        let room = hands.has_room();
        let asked = Question::of(&request);
        let decided = tokio::task::spawn_blocking(move || {
            course(&runs, command, &asked, &boot_id, paused, room)
        });
        decided.await.map_err(io::Error::other)?
    };
    let _room = hands.take_room();
    match course {
        Course::Refuse(code, message) => say(send, refuse(code, message)).await,
        Course::Rebooted(count) => say(send, run_report::Body::Rebooted(RunReboot { count })).await,
        Course::Tell(ended) => {
            let folder = hands.runs().of(command);
            tell(&folder, *ended, request.output_from, send, receive).await
        }
        Course::Attend => {
            let folder = hands.runs().of(command);
            let mut worker = socket::connect(folder.path(), SOCKET)?;
            request.spec = None;
            write_message(&mut worker, &request, MAX_FRAME, WRITE_WITHIN)
                .await
                .map_err(io::Error::other)?;
            carry(worker, send, receive).await
        }
        Course::Start => {
            let within = request
                .start_before_ms
                .saturating_sub(request.server_time_ms);
            let run = RunJob {
                folder: hands.runs().of(command).path().display().to_string(),
                request: Some(request),
                boot_id: hands.boot_id().to_owned(),
                start_within_ms: u64::try_from(within).unwrap_or(0),
            };
            let mut worker = hands.worker().await.inspect_err(|error| {
                let error = error_chain(error);
                tracing::warn!(%error, command.id = %command, "no worker for a run; the gateway will ask again");
            })?;
            let job = Job {
                kind: Some(of::Kind::Run(run)),
            };
            write_message(&mut worker, &job, 2 * MAX_FRAME, WRITE_WITHIN)
                .await
                .map_err(io::Error::other)?;
            drop(job);
            carry(worker, send, receive).await
        }
    }
}

/// What the journal is asked: a request without what is to be run.
struct Question {
    has_spec: bool,
    cancel: bool,
    life: u64,
    now: Timestamp,
    start_before: Timestamp,
}

impl Question {
    fn of(request: &RunRequest) -> Self {
        Self {
            has_spec: request.spec.is_some(),
            cancel: request.cancel,
            life: request.life,
            now: Timestamp::from_millis(request.server_time_ms),
            start_before: Timestamp::from_millis(request.start_before_ms),
        }
    }
}

/// Whether the request is for this host and makes sense.
fn check(request: &RunRequest, hands: &Hands) -> Result<CommandId, (RunRefusal, String)> {
    let not_mine = |why: &str| Err((RunRefusal::NotMine, why.to_owned()));
    let Some((host, generation)) = hands.identity() else {
        return not_mine("this host has not joined");
    };
    if request.host != host.to_string() {
        return not_mine("it is for another host");
    }
    if request.generation < generation {
        return not_mine("it is for an earlier identity of this host");
    }
    let Ok(command) = request.command.parse() else {
        return Err((
            RunRefusal::Invalid,
            "this is not the id of a command".to_owned(),
        ));
    };
    if let Some(spec) = &request.spec
        && spec.argv.is_empty() == spec.script.is_empty()
    {
        let why = "a run has a program or a script, one of the two";
        return Err((RunRefusal::Invalid, why.to_owned()));
    }
    Ok(command)
}

/// Decides, and writes what must be on disk before anything else happens.
fn course(
    runs: &Runs,
    command: CommandId,
    asked: &Question,
    boot_id: &str,
    paused: bool,
    room: bool,
) -> Course {
    let journal_failed = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Course::Refuse(RunRefusal::DiskFull, "the host's disk is full".to_owned())
        }
        _ => {
            let error = error_chain(&error);
            tracing::error!(%error, command.id = %command, "the journal of a run fails");
            Course::Refuse(
                RunRefusal::Journal,
                format!("the host's journal of runs: {error}"),
            )
        }
    };
    match runs.hear_life(asked.life) {
        Ok(true) => {}
        Ok(false) => {
            let why = "it comes from a gateway whose state has been restored over";
            return Course::Refuse(RunRefusal::NotMine, why.to_owned());
        }
        Err(error) => return journal_failed(error),
    }
    decided(runs, command, asked, boot_id, paused, room).unwrap_or_else(journal_failed)
}

fn decided(
    runs: &Runs,
    command: CommandId,
    asked: &Question,
    boot_id: &str,
    paused: bool,
    room: bool,
) -> io::Result<Course> {
    let run = runs.of(command);
    let journal = run.read()?;
    let question = if asked.has_spec && !asked.cancel {
        Asked::Run {
            start_before: asked.start_before,
        }
    } else {
        Asked::Settle {
            cancel: asked.cancel,
        }
    };
    let now = Now {
        time: asked.now,
        boot_id,
        locked: run.is_locked(),
    };
    let end = |kind, reason: &str| end(&run, kind, reason, asked.now);
    match decide(&journal, question, now) {
        Verdict::AcceptAndStart => {
            if paused {
                let why = "the owner of this host has paused commands; `loopback-agent resume` there lets them in again";
                return Ok(Course::Refuse(RunRefusal::Paused, why.to_owned()));
            }
            if !room {
                let why = "as many runs as this host takes are under way";
                return Ok(Course::Refuse(RunRefusal::Busy, why.to_owned()));
            }
            let disk = rustix::fs::statvfs(runs.folder())?;
            if disk.f_bavail.saturating_mul(disk.f_frsize) < ROOM {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let accepted = Accepted {
                boot_id: boot_id.to_owned(),
                start_before: asked.start_before,
            };
            if journal.reboot.is_some() {
                run.accept_again(&accepted)?;
                return Ok(Course::Start);
            }
            match runs.accept(command, &accepted) {
                Ok(()) => Ok(Course::Start),
                // Another stream was quicker.
                Err(_) if run.read()? != Journal::default() => {
                    decided(runs, command, asked, boot_id, paused, room)
                }
                Err(error) => Err(error),
            }
        }
        Verdict::Start => Ok(Course::Start),
        Verdict::Attend { .. } => Ok(Course::Attend),
        Verdict::Rebooted => Ok(Course::Rebooted(
            journal.reboot.map_or(0, |reboot| reboot.count),
        )),
        Verdict::Tell => Ok(Course::Tell(Box::new(run.ended()?))),
        Verdict::EndCancelled => end(EndKind::Cancelled, "cancelled before it was started"),
        Verdict::EndExpired => end(EndKind::Expired, "it was not started in time"),
        Verdict::EndLost(Lost::Rebooted) => end(
            EndKind::Lost,
            "the host stopped while it ran, or was about to: how far it came cannot be known",
        ),
        Verdict::EndLost(Lost::WatcherKilled) => end(
            EndKind::Lost,
            "the process that watched it was killed: how it ended cannot be known, and it may still run",
        ),
        Verdict::Never => {
            if !journal.never {
                runs.never(command)?;
            }
            let why = "it was not in the journal, and it will not be started";
            Ok(Course::Refuse(RunRefusal::NeverStarted, why.to_owned()))
        }
        Verdict::TooLate => {
            let why = "it came too late to be started";
            Ok(Course::Refuse(RunRefusal::Expired, why.to_owned()))
        }
    }
}

/// Ends a run that nobody watches. Under the lock: a worker on its way starts nothing.
fn end(run: &RunFolder, kind: EndKind, reason: &str, now: Timestamp) -> io::Result<Course> {
    let Some(lock) = run.lock()? else {
        return Ok(Course::Attend);
    };
    // Between the look and the lock a worker may have come and gone.
    if run.read()?.ended {
        return Ok(Course::Tell(Box::new(run.ended()?)));
    }
    let ended = RunEnded {
        kind: kind.into(),
        reason: reason.to_owned(),
        ended_at_ms: now.as_millis(),
        pieces: Spool::left_in(run.path())?.next(),
        ..RunEnded::default()
    };
    run.end(&lock, &ended)?;
    Ok(Course::Tell(Box::new(ended)))
}

/// Tells of a run that has ended, and waits until the gateway has stored that.
async fn tell(
    folder: &RunFolder,
    ended: RunEnded,
    from: u64,
    send: &mut SendStream,
    mut receive: FrameReader<RecvStream>,
) -> io::Result<()> {
    let mut spool = Spool::left_in(folder.path())?;
    // What was stored before may be deleted: then nothing is left to say.
    spool.end_at(ended.pieces);
    let mut cursor = Cursor::at(from);
    loop {
        let body = match spool.read(&mut cursor) {
            Found::Piece(piece) => run_report::Body::Output(piece.into()),
            Found::Gap(gap) => run_report::Body::Gap(gap),
            Found::Nothing => break,
        };
        say(send, body).await?;
    }
    say(send, run_report::Body::Ended(ended)).await?;
    let receipt = async {
        loop {
            let order: Option<RunOrder> = receive.next().await.map_err(io::Error::other)?;
            match order.map(|order| order.body) {
                Some(Some(run_order::Body::ResultStored(_))) => return folder.take(),
                Some(_) => {}
                None => return Ok(()),
            }
        }
    };
    tokio::time::timeout(RECEIPT, receipt).await?
}

/// Carries bytes between the gateway and a worker, until either has said all.
pub(crate) async fn carry(
    worker: UnixStream,
    send: &mut SendStream,
    receive: FrameReader<RecvStream>,
) -> io::Result<()> {
    let (mut from_worker, mut to_worker) = worker.into_split();
    let mut receive = receive.into_inner();
    let down = async {
        // The end of the gateway's orders is not the end of the run's reports.
        let carried = copy(&mut receive, &mut to_worker).await;
        let _ = to_worker.shutdown().await;
        match carried {
            Ok(_) => std::future::pending().await,
            Err(error) => Err(error),
        }
    };
    let up = async { copy(&mut from_worker, send).await.map(drop) };
    tokio::select! {
        carried = up => carried,
        failed = down => failed,
    }
}

async fn say(send: &mut SendStream, body: run_report::Body) -> io::Result<()> {
    let report = RunReport { body: Some(body) };
    write_message(send, &report, MAX_FRAME, WRITE_WITHIN)
        .await
        .map_err(io::Error::other)
}

/// Deletes what is over for good. Called now and then.
pub(crate) fn sweep(runs: &Runs) {
    if let Err(error) = runs.sweep(SystemTime::now()) {
        tracing::warn!(%error, "old records of runs cannot be deleted");
    }
}
