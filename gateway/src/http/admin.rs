//! What only the admin socket offers, besides everything the other doors do.
//!
//! These are for the people who own the machine and need no API key: whoever can open
//! the socket can read the state folder, too (`server` checks the peer's user). No
//! limit of attempts applies here, so nobody outside can keep them from it. They are
//! not part of the API, and the OpenAPI document does not know them; the program at
//! the other end is this one, of any release ([`crate::admin`]).
//!
//! | | |
//! |---|---|
//! | `GET /admin/v1/status` | [`Status`] |
//! | `POST /admin/v1/backup` | a backup, streamed; one at a time |

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use api::ProblemCode;
use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Extensions, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use gateway_store::{Batch, RedbStore};
use model::Timestamp;
use model::ids::DeploymentId;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

use super::problem;
use super::server::LocalAdmin;
use crate::app::App;
use crate::backup::take::{self, Taken};
use crate::error::{Error, Result};
use crate::state::change::Origin;

/// Pieces of a backup between the disk and the socket: 2 MiB, and when they are full
/// the reading waits.
const PIECES: usize = 8;
const PIECE: usize = 256 * 1024;

/// How the gateway is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its release.
    pub version: String,
    /// Whose it is.
    pub deployment: DeploymentId,
    /// By which URL hosts and people reach it.
    pub public_url: String,
    /// How long it has run.
    pub uptime_seconds: u64,
    /// Whether it has an owner.
    pub claimed: bool,
    /// Hosts in the inventory.
    pub hosts: usize,
    /// Hosts that are linked.
    pub linked: usize,
    /// Whether automatic actions stand still.
    pub frozen: bool,
    /// The store's revision.
    pub revision: u64,
    /// The life of the state: 0 unless it was ever restored.
    pub incarnation: u64,
    /// When it was restored the last time.
    #[serde(default)]
    pub restored_at: Option<Timestamp>,
}

struct Shared {
    app: Arc<App>,
    store: Arc<RedbStore>,
    /// A second backup at the same time would only make both slower.
    backups: Arc<Semaphore>,
}

/// The routes.
pub fn routes(app: Arc<App>, store: Arc<RedbStore>) -> Router {
    let shared = Arc::new(Shared {
        app,
        store,
        backups: Arc::new(Semaphore::new(1)),
    });
    let for_backup = Arc::clone(&shared);
    Router::new()
        .route(
            "/admin/v1/status",
            get(move || {
                let status = status(&shared);
                async move { Json(status) }
            }),
        )
        .route(
            "/admin/v1/backup",
            post(move |extensions: Extensions| {
                let shared = Arc::clone(&for_backup);
                async move {
                    let answer = backup(&shared, extensions.get::<LocalAdmin>().copied()).await;
                    answer.unwrap_or_else(|error| problem::respond(&error, None))
                }
            }),
        )
}

fn status(shared: &Shared) -> Status {
    let app = &shared.app;
    let tables = app.catalog.read();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        deployment: app.deployment,
        public_url: app.public_url.clone(),
        uptime_seconds: app.uptime().as_secs(),
        claimed: tables.claimed,
        hosts: tables.hosts.len(),
        linked: app.links.all().len(),
        frozen: app.frozen(),
        revision: shared.store.rev().number(),
        incarnation: app.incarnation(),
        restored_at: app.restored.as_ref().map(|restored| restored.at),
    }
}

async fn backup(shared: &Shared, admin: Option<LocalAdmin>) -> Result<Response<Body>> {
    // The router is behind one door only; this holds if somebody puts it behind another.
    let Some(LocalAdmin { uid }) = admin else {
        return Err(Error::not_found("path"));
    };
    let Ok(permit) = Arc::clone(&shared.backups).try_acquire_owned() else {
        return Err(Error::conflict(
            "another backup is being made; wait until it is done",
        ));
    };
    let app = &shared.app;
    write_down(app, uid).await;
    let taken = take::of_running(&shared.store, &app.config.state_dir, app.now()).await;
    let taken = taken.map_err(|error| {
        tracing::error!(error = %model::error_chain(&error), "a backup could not be made");
        let detail = model::error_chain(&error).to_string();
        Error::new(ProblemCode::Unavailable, detail)
    })?;
    let (pieces, mut arriving) = mpsc::channel(PIECES);
    app.tasks.spawn("backup", async move {
        let _permit = permit;
        // The runtime may go down and take no more work.
        let _ = tokio::task::spawn_blocking(move || produce(taken, pieces)).await;
    });
    let body = stream::poll_fn(move |context| arriving.poll_recv(context));
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    Ok(response)
}

/// Whoever has a backup has every secret, so its making is written down, and is in
/// the backup itself. A full disk is no reason to refuse one.
async fn write_down(app: &App, uid: u32) {
    let mut batch = Batch::new();
    Origin::gateway()
        .entry(app.now(), "system.backup")
        .on(app.deployment)
        .with("uid", uid)
        .in_deployment(&mut batch);
    if let Err(error) = app.commit(batch).await {
        tracing::error!(%error, uid, "a backup is made and could not be entered into the audit trail");
    }
}

fn produce(taken: Taken, pieces: mpsc::Sender<io::Result<Bytes>>) {
    let sink = BufWriter::with_capacity(PIECE, Pieces(pieces.clone()));
    match taken.write(sink) {
        Ok(_) => tracing::info!("a backup was made"),
        Err(error) => {
            let text = model::error_chain(&error).to_string();
            tracing::error!(error = text, "a backup broke off");
            // Ends the answer before its end, which the reader notices.
            let _ = pieces.blocking_send(Err(io::Error::other(text)));
        }
    }
}

/// Hands on what is written; an error when nobody reads any more.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(piece)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
