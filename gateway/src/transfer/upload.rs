//! From an HTTP body to a host.
//!
//! The host's word and the client's bytes are listened to at once: a host that has no more
//! room says so in the middle, and the rest of the body is not read for that. When the
//! client stops, what came stays with the host for a later request.

use axum::body::Body;
use http_body_util::BodyExt as _;
use model::file::Sha256;
use protocol::v1::FileMeta;

use super::STALLED;
use super::stream::{Hearing, Telling};
use crate::error::{Error, Result};
use api::ProblemCode;

/// A content on its way, of which `from` bytes are held.
pub struct Upload {
    /// Towards the host.
    pub telling: Telling,
    /// From the host.
    pub hearing: Hearing,
    /// Size of the whole content.
    pub size: u64,
    /// Bytes that the host has.
    pub at: u64,
}

impl Upload {
    /// Sends the body, and hears what the file has become.
    pub async fn run(&mut self, body: Body) -> Result<(FileMeta, Sha256)> {
        let Self {
            telling,
            hearing,
            size,
            at,
        } = self;
        let send = async {
            let sent = send(telling, body, *size, at).await;
            telling.end();
            match sent {
                // The host says how it came out.
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        let hear = async {
            let meta = hearing.meta().await?;
            Ok((meta, hearing.end().await?))
        };
        tokio::select! {
            biased;
            heard = hear => heard,
            error = send => Err(error),
        }
    }
}

/// Sends until the content is whole. An error is about the client; what the host has
/// against it, it says itself.
async fn send(telling: &mut Telling, mut body: Body, size: u64, at: &mut u64) -> Result<()> {
    while *at < size {
        let frame = tokio::time::timeout(STALLED, body.frame()).await;
        let frame = frame.map_err(|_| {
            let detail = format!(
                "the body stopped at {at} bytes, which the host keeps; go on from what it holds"
            );
            Error::new(ProblemCode::Timeout, detail)
        })?;
        let early = || {
            let detail = format!(
                "the body ended early, at {at} of {size} bytes, which the host keeps; go on from what it holds"
            );
            Error::new(ProblemCode::MalformedRequest, detail)
        };
        let Some(Ok(frame)) = frame else {
            return Err(early());
        };
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        if bytes.len() as u64 > size - *at {
            return Err(too_long(size));
        }
        if !telling.tell(&bytes).await {
            return Ok(());
        }
        *at += bytes.len() as u64;
    }
    Ok(())
}

fn too_long(size: u64) -> Error {
    Error::invalid(
        "size",
        format!("the body has more than the {size} bytes that were announced"),
    )
}
