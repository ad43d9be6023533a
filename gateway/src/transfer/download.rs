//! From a host to whoever reads an HTTP body.

use std::sync::Arc;

use api::Endpoint;
use axum::body::{Body, Bytes};
use model::file::Sha256;
use protocol::v1::{FileMeta, file_reply};
use sha2::{Digest as _, Sha256 as Hasher};
use tokio::sync::mpsc;

use super::STALLED;
use super::stream::{Hearing, nonsense};
use crate::app::App;
use crate::error::{Error, Result};
use crate::handlers::event::watch_access;
use crate::http::call::Call;
use crate::state::change::Entry;

/// Pieces that wait for a slow reader. When it is full, the host waits, too.
const PIECES: usize = 4;

/// Bytes, or nothing when that was all. A queue that is closed without saying so was cut,
/// and its body must not look whole.
type Piece = Option<Bytes>;

/// What a download came to, for the audit trail.
pub struct Outcome {
    /// Bytes that were passed on.
    pub passed: u64,
    /// Their digest, when all came and the host says the same.
    pub ended: Result<Sha256>,
}

/// Passes the content on in a task, and writes `entry` with how it came out.
pub fn pass<E>(
    app: &Arc<App>,
    call: Call<E>,
    hearing: Hearing,
    meta: &FileMeta,
    finish: impl FnOnce(Outcome) -> Entry + Send + 'static,
) -> Body
where
    E: Endpoint,
    Call<E>: Send + Sync,
{
    let (pieces, body) = mpsc::channel::<Piece>(PIECES);
    let (task, length) = (Arc::clone(app), meta.length);
    app.tasks.spawn("file", async move {
        let app = task;
        let stop = app.tasks.stop().clone();
        let mut pump = Pump {
            hearing,
            hasher: Hasher::new(),
            passed: 0,
        };
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Err(cut("the gateway is stopping")),
            () = watch_access(&app, &call) => Err(cut("the caller lost access")),
            ended = pump.run(length, &pieces) => ended,
        };
        drop(pieces);
        let outcome = Outcome {
            passed: pump.passed,
            ended,
        };
        let scope = call.proof.scope();
        crate::refusals::write(&app, scope, finish(outcome)).await;
    });
    let stream = futures_util::stream::unfold(Some(body), |body| async move {
        let mut body = body?;
        match body.recv().await {
            Some(Some(bytes)) => Some((Ok(bytes), Some(body))),
            Some(None) => None,
            None => Some((Err(std::io::Error::other("the transfer was cut")), None)),
        }
    });
    Body::from_stream(stream)
}

struct Pump {
    hearing: Hearing,
    hasher: Hasher,
    passed: u64,
}

impl Pump {
    async fn run(&mut self, length: u64, pieces: &mpsc::Sender<Piece>) -> Result<Sha256> {
        loop {
            match self.hearing.next().await? {
                file_reply::Body::Data(data) => {
                    let more = data.bytes.len() as u64;
                    if data.bytes.is_empty() || more > length - self.passed {
                        return Err(nonsense());
                    }
                    self.hasher.update(&data.bytes);
                    pass_on(pieces, Some(data.bytes.into())).await?;
                    self.passed += more;
                }
                file_reply::Body::End(end) => {
                    let digest: [u8; 32] = self.hasher.finalize_reset().into();
                    if self.passed != length || end.sha256 != digest {
                        return Err(nonsense());
                    }
                    // A reader that counts is gone by now.
                    let _ = pass_on(pieces, None).await;
                    return Ok(digest.into());
                }
                _ => return Err(nonsense()),
            }
        }
    }
}

async fn pass_on(pieces: &mpsc::Sender<Piece>, piece: Piece) -> Result<()> {
    match tokio::time::timeout(STALLED, pieces.send(piece)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(cut("whoever read it went away")),
        Err(_) => Err(cut("whoever read it took no more")),
    }
}

fn cut(why: &str) -> Error {
    Error::conflict(why)
}
