//! Streams that the gateway opens beside the control stream: what each is for is in its
//! first frame, and what is done about it in a module of its own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use link::frame::{Deadlines, FrameReader, MAX_FRAME};
use model::ids::HostId;
use protocol::v1::{Opening, opening};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::diagnose;
use crate::runs;
use crate::runs::journal::Runs;
use crate::scrape::Scraper;
use crate::worker::Workers;

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
}

impl Hands {
    /// For the agent with this state folder.
    pub fn new(state_dir: &Path, boot_id: &str) -> std::io::Result<Self> {
        let runs = Runs::open(state_dir)?;
        Ok(Self(Arc::new(Inner {
            workers: Workers::new(runs.folder()),
            runs,
            boot_id: boot_id.to_owned(),
            state_dir: state_dir.to_owned(),
            identity: Mutex::new(None),
            room: Semaphore::new(RUNS),
        })))
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

    /// Processes that work outside this one.
    pub fn workers(&self) -> &Workers {
        &self.0.workers
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
        (Some(opening::Kind::Diagnose(request)), _) => {
            diagnose::answer(request, send).await;
        }
        (Some(opening::Kind::Scrape(_)) | None, _) => {
            let _ = send.reset(UNKNOWN_KIND);
        }
    }
}
