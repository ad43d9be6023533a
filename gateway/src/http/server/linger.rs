//! Answers that come before the question was heard to its end.
//!
//! Most refusals need nothing of the body, and a body that is too long is not read on. hyper then
//! answers and closes; but a socket that is closed with unread bytes in it is reset, and the reset
//! takes the answer with it: the client sees a broken connection where it should see 401 or 413.
//! So what is left of the body is read and thrown away first, within limits that keep a peer from
//! being fed on forever. HTTP/2 needs none of this: it ends a stream without its connection.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// As much as the longest body that is allowed without asking the operator.
const MOST: usize = 1 << 20;
/// A client that has not sent that much within this waits for something else.
const LIMIT: Duration = Duration::from_secs(2);

/// A request's body; what its reader leaves goes back to [`Rest`].
pub(super) struct Lent {
    body: Option<Incoming>,
    rest: Rest,
}

/// What was not read.
#[derive(Clone, Default)]
pub(super) struct Rest(Arc<Mutex<Option<Incoming>>>);

/// Lends `body` out.
pub(super) fn lend(body: Incoming) -> (Lent, Rest) {
    let rest = Rest::default();
    let lent = Lent {
        body: Some(body),
        rest: rest.clone(),
    };
    (lent, rest)
}

impl Rest {
    /// Reads on for nobody.
    pub(super) async fn discard(self) {
        let left = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut body) = left else {
            return;
        };
        let read = async {
            let mut seen = 0;
            while seen <= MOST
                && let Some(Ok(frame)) = body.frame().await
            {
                seen += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        // Too slow or too long: the answer is sent all the same, and may be lost.
        let _ = tokio::time::timeout(LIMIT, read).await;
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let left = self.body.take().filter(|body| !body.is_end_stream());
        *self.rest.0.lock().unwrap_or_else(PoisonError::into_inner) = left;
    }
}
