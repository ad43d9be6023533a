//! Streams that the gateway opens beside the control stream: what each is for is in its
//! first frame, and what is done about it in a module of its own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use link::frame::{Deadlines, FrameReader, MAX_FRAME, write_message};
use model::ids::HostId;
use protocol::v1::{Opening, opening};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::diagnose::{self, Inputs};
use crate::files;
use crate::forward::Forwarder;
use crate::runs;
use crate::runs::journal::Runs;
use crate::scrape::Scraper;
use crate::worker::Workers;
use crate::worker::job::{Job, ServeJob, of};

/// For the first frame.
const WITHIN: Duration = Duration::from_secs(10);
/// After that, orders come when they come: the link's own silence ends it.
const READ: Deadlines = Deadlines {
    idle: Duration::from_secs(40 * 24 * 3600),
    frame: Duration::from_secs(30),
};
/// Told to a stream of a kind that this version does not know.
const UNKNOWN_KIND: VarInt = VarInt::from_u32(1);
/// Runs under way on this host at a time; more than a gateway sends.
const RUNS: usize = 64;
/// Files and diagnoses under way at a time; more wait.
const BESIDE: usize = 8;
/// While this file is in the state folder, nothing is run for anybody.
pub const PAUSED: &str = "paused";

/// What streams need of the agent. Clones share it.
#[derive(Clone, Debug)]
pub struct Hands(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    runs: Runs,
    workers: Workers,
    boot_id: String,
    state_dir: PathBuf,
    identity: Mutex<Option<(HostId, u64)>>,
    room: Semaphore,
    /// Files and diagnoses under way.
    beside: Semaphore,
}

impl Hands {
    /// For the agent with this state folder.
    pub fn new(state_dir: &Path, boot_id: &str) -> Self {
        let runs = Runs::new(state_dir);
        Self(Arc::new(Inner {
            workers: Workers::new(runs.folder()),
            runs,
            boot_id: boot_id.to_owned(),
            state_dir: state_dir.to_owned(),
            identity: Mutex::new(None),
            room: Semaphore::new(RUNS),
            beside: Semaphore::new(BESIDE),
        }))
    }

    /// Who this host is from now on, and in which generation.
    pub fn set_identity(&self, identity: Option<(HostId, u64)>) {
        *self
            .0
            .identity
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// Who this host is.
    pub fn identity(&self) -> Option<(HostId, u64)> {
        *self
            .0
            .identity
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The runs of commands.
    pub fn runs(&self) -> &Runs {
        &self.0.runs
    }

    /// A connection to an idle worker.
    pub async fn worker(&self) -> std::io::Result<UnixStream> {
        self.0.runs.make_folder()?;
        self.0.workers.connect().await
    }

    /// The name of this boot.
    pub fn boot_id(&self) -> &str {
        &self.0.boot_id
    }

    /// Whether the host's owner has paused what operators may do here.
    pub fn is_paused(&self) -> bool {
        self.0.state_dir.join(PAUSED).exists()
    }

    /// Whether another run may begin.
    pub fn has_room(&self) -> bool {
        self.0.room.available_permits() > 0
    }

    /// Room for a run, as long as this is held. A run that is under way already is
    /// served even without.
    pub fn take_room(&self) -> Option<SemaphorePermit<'_>> {
        self.0.room.try_acquire().ok()
    }

    /// Called now and then.
    pub async fn tidy(&self) {
        let runs = self.0.runs.clone();
        let swept = tokio::task::spawn_blocking(move || runs::stream::sweep(&runs));
        let _ = swept.await;
        self.0.workers.tidy().await;
    }
}

/// Serves one stream.
pub async fn serve(
    mut send: SendStream,
    receive: RecvStream,
    hands: Hands,
    scraper: Option<Arc<Scraper>>,
    files: Option<Arc<files::Settings>>,
    forwarder: Option<Arc<Forwarder>>,
) {
    let deadlines = Deadlines {
        idle: WITHIN,
        frame: WITHIN,
    };
    let mut reader = FrameReader::new(receive, MAX_FRAME, deadlines);
    let opening: Option<Opening> = reader.next().await.ok().flatten();
    let reader = FrameReader::new(reader.into_inner(), MAX_FRAME, READ);
    match (opening.and_then(|opening| opening.kind), scraper) {
        (Some(opening::Kind::Run(request)), _) => {
            runs::stream::serve(request, send, reader, &hands).await;
        }
        (Some(opening::Kind::Scrape(request)), Some(scraper)) => {
            scraper.answer(&request, &mut send).await;
        }
        (Some(kind @ (opening::Kind::Diagnose(_) | opening::Kind::File(_))), _) => {
            if let Some(files) = files {
                beside(kind, send, reader, &hands, &files).await;
            }
        }
        (Some(opening::Kind::Forward(request)), _) => {
            if let Some(forwarder) = forwarder {
                let receive = reader.into_inner();
                let paused = hands.is_paused();
                forwarder.serve(request, send, receive, paused).await;
            }
        }
        (Some(opening::Kind::Scrape(_)) | None, _) => {
            let _ = send.reset(UNKNOWN_KIND);
        }
    }
}

/// Has a worker serve what needs the whole host. Where none can be had, the agent does
/// what its sandbox allows: a host that is to be diagnosed may well be in that state.
async fn beside(
    kind: opening::Kind,
    mut send: SendStream,
    receive: FrameReader<RecvStream>,
    hands: &Hands,
    files: &Arc<files::Settings>,
) {
    let (_seat, paused) = (hands.0.beside.acquire().await, hands.is_paused());
    // Here, because a worker's words are not in the agent's log.
    match &kind {
        opening::Kind::Diagnose(_) => tracing::info!("the gateway diagnoses this host"),
        opening::Kind::File(file) => {
            let path = model::names::clean(&file.path, 256);
            tracing::info!(%path, "the gateway asks for a file, or brings one");
        }
        opening::Kind::Run(_) | opening::Kind::Scrape(_) | opening::Kind::Forward(_) => {}
    }
    let worker = match hands.worker().await {
        Ok(worker) => worker,
        Err(error) => {
            tracing::warn!(%error, "no worker; answering from the agent's sandbox");
            return from_here(kind, send, receive, paused, files).await;
        }
    };
    let job = job(Some(Opening { kind: Some(kind) }), files, paused);
    let carried = async {
        let mut worker = worker;
        write_message(&mut worker, &job, 2 * MAX_FRAME, WITHIN)
            .await
            .map_err(std::io::Error::other)?;
        runs::stream::carry(worker, &mut send, receive).await
    };
    if let Err(error) = carried.await {
        tracing::debug!(%error, "a stream that a worker served was cut");
    }
    let _ = send.finish();
    let _ = tokio::time::timeout(WITHIN, send.stopped()).await;
}

fn job(opening: Option<Opening>, files: &files::Settings, paused: bool) -> Job {
    let roots = files.roots.iter().map(|it| it.display().to_string());
    Job {
        kind: Some(of::Kind::Serve(ServeJob {
            opening,
            config: Inputs::of_this_process().config.display().to_string(),
            host: files.host.clone(),
            generation: files.generation,
            roots: roots.collect(),
            state_dir: files.state_dir.display().to_string(),
            paused,
        })),
    }
}

/// Has a worker remove now and then what was left of uploads: the agent's sandbox keeps
/// it from doing so itself.
pub async fn keep_files_tidy(hands: Hands, files: Arc<files::Settings>) {
    loop {
        if files::has_notes(&files.state_dir)
            && let Ok(mut worker) = hands.worker().await
        {
            // One that fails is tried again the next time.
            let job = job(None, &files, false);
            let _ = write_message(&mut worker, &job, 2 * MAX_FRAME, WITHIN).await;
        }
        tokio::time::sleep(files::SWEEP_EVERY).await;
    }
}

async fn from_here(
    kind: opening::Kind,
    send: SendStream,
    receive: FrameReader<RecvStream>,
    paused: bool,
    files: &Arc<files::Settings>,
) {
    match kind {
        opening::Kind::Diagnose(request) => diagnose::answer(request, send).await,
        opening::Kind::File(request) => {
            let settings = files::Settings {
                paused,
                ..(**files).clone()
            };
            let served =
                files::serve(request, receive.into_inner(), send, Arc::new(settings)).await;
            if let Err(error) = served {
                tracing::debug!(error = %model::error_chain(&error), "a file's stream was cut");
            }
        }
        opening::Kind::Run(_) | opening::Kind::Scrape(_) | opening::Kind::Forward(_) => {}
    }
}
