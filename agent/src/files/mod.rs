//! Files to and from this host.
//!
//! Whoever asks has been allowed to by the gateway; what this module guards is the host's
//! own word. Its owner says which places are given out (`file_roots`), and nothing in
//! those places, be it a link, a device or somebody who renames things meanwhile, leads
//! anywhere else:
//!
//! * [`place`] turns a path into descriptors beneath a root, once; everything after that
//!   is done to descriptors and never to a path again;
//! * [`read`] sends a file, and says so when it is not the same any more at the end;
//! * [`mod@write`] takes a file beside its final name, which it gets whole, verified and
//!   synced, or not at all;
//! * [`parts`] remembers uploads that were not finished, to go on with or to remove.
//!
//! [`serve`] answers one request over any pair of streams, so that it can run in a process
//! with other rights than the agent's. Disks block: the work is done on a thread for
//! blocking work, with a few frames of room in each direction. When the peer stalls, the
//! queue is full, the disk waits; when the peer is gone, the queue is closed, and the
//! thread ends at its next frame.

mod owner;
mod parts;
mod place;
mod read;
mod refusal;
mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use link::frame::{Deadlines, FrameReader, MAX_FRAME, ReadError, WriteError, write_message};
use model::file::HostPath;
use protocol::v1::{
    FileOrder, FileRefusal, FileReply, FileRequest, FileWorking, MAX_FILE_DATA, file_order,
    file_reply, file_request,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, Semaphore, mpsc};

pub use parts::{SWEEP_EVERY, has_notes, sweep};
use place::Place;
pub use place::Resolver;
use refusal::{Answer, Refusal};

/// Frames between the stream and the disk, each way: 1 MiB at most.
const QUEUE: usize = 4;
/// For the gateway to take a frame, and to send the next piece of a file. Its own client
/// may be slow; one that does nothing for this long is gone.
const STALLED: Duration = Duration::from_secs(60);
/// A digest in the making says so this often, well within anybody's patience.
const WORKING_EVERY: Duration = Duration::from_secs(5);
/// Files at a time, whoever asks: each has a thread and some memory.
static SEATS: Semaphore = Semaphore::const_new(8);

/// What the host's owner and its identity say.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Id of this host.
    pub host: String,
    /// Generation of its identity.
    pub generation: u64,
    /// Places that are given out; none forbids files.
    pub roots: Vec<PathBuf>,
    /// Where uploads under way are remembered, in a folder of this one's.
    pub state_dir: PathBuf,
    /// The owner wants no work from the gateway for the time being.
    pub paused: bool,
    /// How paths are opened.
    pub resolver: Resolver,
}

/// Why a stream ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The gateway took no more.
    #[error("answer about a file")]
    Write(#[source] WriteError),
    /// The answer could not be ended.
    #[error("end the answer about a file")]
    End(#[source] std::io::Error),
    /// The work panicked.
    #[error("work on a file")]
    Work(#[source] tokio::task::JoinError),
}

/// Answers one request. `read` is what comes after the request.
pub async fn serve<R, W>(
    request: FileRequest,
    read: R,
    mut write: W,
    settings: Arc<Settings>,
) -> Result<(), ServeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (tell, mut told) = mpsc::channel(QUEUE);
    let (bring, brought) = mpsc::channel(QUEUE);
    let seat = SEATS.try_acquire();
    let work = match seat {
        Ok(seat) => tokio::task::spawn_blocking(move || {
            work(&request, &settings, &mut Talk { tell, brought });
            drop(seat);
        }),
        Err(_) => tokio::task::spawn_blocking(move || {
            let busy = Refusal::new(
                FileRefusal::Busy,
                "as many files as this host takes at a time are under way",
            );
            // A peer that is gone needs no answer.
            let _ = tell.blocking_send(busy.into_body());
        }),
    };
    let held = Notify::new();
    let answer = async {
        while let Some(body) = told.recv().await {
            let wants = matches!(body, file_reply::Body::Held(_));
            let reply = FileReply { body: Some(body) };
            write_message(&mut write, &reply, MAX_FRAME, STALLED)
                .await
                .map_err(ServeError::Write)?;
            if wants {
                held.notify_one();
            }
        }
        write.shutdown().await.map_err(ServeError::End)
    };
    let take = async {
        // Until then a digest is made of what is held, which may take long.
        held.notified().await;
        if let Err(why) = take(read, bring).await {
            tracing::debug!(%why, "an upload was cut");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        answered = answer => answered?,
        () = take => {}
    }
    work.await.map_err(ServeError::Work)
}

/// Brings what the gateway sends to the disk until the stream or the disk has enough.
async fn take<R: AsyncRead + Unpin>(
    read: R,
    bring: mpsc::Sender<Vec<u8>>,
) -> Result<(), ReadError> {
    let deadlines = Deadlines {
        idle: STALLED,
        frame: STALLED,
    };
    let mut reader = FrameReader::new(read, MAX_FILE_DATA + 64, deadlines);
    while let Some(FileOrder { body }) = reader.next().await? {
        // An order that this version does not know is not about content.
        if let Some(file_order::Body::Data(data)) = body
            && bring.send(data.bytes).await.is_err()
        {
            break;
        }
    }
    Ok(())
}

/// The ends of the queues that the blocking thread has.
struct Talk {
    tell: mpsc::Sender<file_reply::Body>,
    brought: mpsc::Receiver<Vec<u8>>,
}

impl Talk {
    /// The next bytes of an upload; nothing when its stream has ended.
    fn next(&mut self) -> Option<Vec<u8>> {
        self.brought.blocking_recv()
    }

    fn tell(&self, body: file_reply::Body) -> Result<(), Answer> {
        self.tell.blocking_send(body).map_err(|_| Answer::Gone)
    }

    /// Says that a digest is in the making, if it is time to.
    fn working(&self, said: &mut Instant) -> Result<(), Answer> {
        if said.elapsed() >= WORKING_EVERY {
            *said = Instant::now();
            self.tell(file_reply::Body::Working(FileWorking {}))?;
        }
        Ok(())
    }
}

fn work(request: &FileRequest, settings: &Settings, talk: &mut Talk) {
    match answer(request, settings, talk) {
        Ok(()) | Err(Answer::Gone) => {}
        Err(Answer::Refused(refusal)) => {
            // A peer that is gone needs no answer.
            let _ = talk.tell(refusal.into_body());
        }
    }
}

fn answer(request: &FileRequest, settings: &Settings, talk: &mut Talk) -> Result<(), Answer> {
    use file_request::Action;
    if request.host != settings.host || request.generation != settings.generation {
        let why = "this is another host, or it has another identity than when it was asked for";
        return Err(Refusal::new(FileRefusal::NotMine, why).into());
    }
    if settings.paused {
        let why = "the owner of this host has paused it";
        return Err(Refusal::new(FileRefusal::Paused, why).into());
    }
    let path: HostPath = request.path.parse().map_err(invalid)?;
    let place = || Place::find(&settings.roots, &path, settings.resolver);
    match &request.action {
        Some(Action::Stat(stat)) => read::stat(&place()?, *stat, request.max_bytes, talk),
        Some(Action::Read(read)) => read::send(&place()?, read, request.max_bytes, talk),
        Some(Action::Write(write)) => {
            // What others left is not to fill a disk that this one needs.
            sweep(settings);
            write::take(&place()?, &path, write, request.max_bytes, settings, talk)
        }
        Some(Action::Held(held)) => write::held(&place()?, &held.transfer, talk),
        None => Err(invalid("what is asked is not known to this agent; update it").into()),
    }
}

fn invalid(why: impl ToString) -> Refusal {
    Refusal::new(FileRefusal::Invalid, why.to_string())
}
