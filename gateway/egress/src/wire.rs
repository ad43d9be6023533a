//! One request over one connection.
//!
//! Each request has a connection of its own. A pool would save a handshake, and would let a
//! request of one plugin ride on a connection that was checked for another's grant, another
//! profile, another moment; a connection that is used once also cannot leave half an answer to
//! whoever comes next. Nothing runs beside the request: its future drives the connection, so that
//! dropping it closes the socket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use plugin_host::ports::{ErrorKind, GuestError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::audit::{Progress, Stage};
use crate::error::{code, failed};

/// Most headers of an answer.
const MAX_HEADERS: usize = 100;
/// Most bytes of an answer's headers.
const MAX_HEAD: usize = 32 << 10;
/// Most bytes that come before the end of the answer's headers. More than the headers may have:
/// any number of interim answers (1xx) may precede them.
const MAX_BEFORE_HEAD: u64 = 128 << 10;

/// A connection: TCP, TLS, or whatever a route leads through.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What a server answered, before anything is made of it.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Sends a request and reads the answer, with at most `max_body` bytes of a body.
pub(crate) async fn exchange(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
    max_body: u64,
    progress: &Arc<Progress>,
) -> Result<Answer, GuestError> {
    progress.enter(Stage::Answering);
    let allowed = Arc::new(AtomicU64::new(
        progress.bytes_in().saturating_add(MAX_BEFORE_HEAD),
    ));
    let metered = Metered {
        inner: stream,
        progress: Arc::clone(progress),
        allowed: Arc::clone(&allowed),
    };
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_buf_size(2 * MAX_HEAD)
        .handshake(metered)
        .await
        .map_err(|error| judged(&error, progress, &allowed))?;
    let conversation = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| judged(&error, progress, &allowed))?;
        progress.enter(Stage::Reading);
        // What chunks add, at its worst, and then some. Not less: a body that is a byte too long
        // must be told from a lost connection.
        let rest = max_body.saturating_mul(8).saturating_add(MAX_BEFORE_HEAD);
        allowed.store(progress.bytes_in().saturating_add(rest), Ordering::Relaxed);
        read(response, max_body, progress, &allowed).await
    };
    tokio::pin!(conversation);
    tokio::pin!(connection);
    tokio::select! {
        answer = &mut conversation => return answer,
        // It is over; what has arrived is still to be taken.
        _ = &mut connection => {}
    }
    conversation.await
}

async fn read(
    response: Response<Incoming>,
    max_body: u64,
    progress: &Progress,
    allowed: &AtomicU64,
) -> Result<Answer, GuestError> {
    let (head, mut incoming) = response.into_parts();
    let size: usize = head
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if size > MAX_HEAD {
        return Err(head_too_large(progress));
    }
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect();
    let too_large = || {
        failed(
            ErrorKind::Upstream,
            code::RESPONSE_TOO_LARGE,
            format!("the answer's body is longer than {max_body} bytes"),
            progress,
        )
    };
    if incoming.size_hint().lower() > max_body {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| judged(&error, progress, allowed))?;
        // Trailers are dropped: nothing needs them, and they would be headers after the check.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if (body.len() + data.len()) as u64 > max_body {
            return Err(too_large());
        }
        body.extend_from_slice(&data);
    }
    Ok(Answer {
        status: head.status.as_u16(),
        headers,
        body,
    })
}

fn head_too_large(progress: &Progress) -> GuestError {
    failed(
        ErrorKind::Upstream,
        code::RESPONSE_HEAD_TOO_LARGE,
        "the answer's headers are too many or too long",
        progress,
    )
}

fn judged(error: &hyper::Error, progress: &Progress, allowed: &AtomicU64) -> GuestError {
    let exhausted = progress.bytes_in() >= allowed.load(Ordering::Relaxed);
    if error.is_parse_too_large() || (exhausted && progress.stage() == Stage::Answering) {
        return head_too_large(progress);
    }
    if exhausted {
        return failed(
            ErrorKind::Upstream,
            code::RESPONSE_TOO_LARGE,
            "the answer takes far more bytes than its body has",
            progress,
        );
    }
    if error.is_parse() {
        return failed(
            ErrorKind::Upstream,
            code::RESPONSE_MALFORMED,
            "the answer is not HTTP/1.1",
            progress,
        );
    }
    failed(
        ErrorKind::Unreachable,
        code::CONNECTION_LOST,
        "the connection ended before the answer did",
        progress,
    )
}

/// Counts what passes, and ends a connection that brings more than allowed.
struct Metered {
    inner: Box<dyn Stream>,
    progress: Arc<Progress>,
    /// How far `progress.bytes_in` may come.
    allowed: Arc<AtomicU64>,
}

impl hyper::rt::Read for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self
            .allowed
            .load(Ordering::Relaxed)
            .saturating_sub(self.progress.bytes_in());
        if left == 0 {
            return Poll::Ready(Err(io::Error::other("more bytes than allowed")));
        }
        // Through a buffer of ours: writing into hyper's own would take unsafe code.
        let mut space = [0; 8 << 10];
        let most = space
            .len()
            .min(buffer.remaining())
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut filled = ReadBuf::new(&mut space[..most]);
        std::task::ready!(Pin::new(&mut self.inner).poll_read(context, &mut filled))?;
        self.progress.read(filled.filled().len());
        buffer.put_slice(filled.filled());
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
        self.progress.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
