//! Server-sent events: a snapshot, then changes.
//!
//! The stream ends by itself as soon as the caller may not read it any more: the
//! proof is asked for again whenever access may have changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::Endpoint;
use api::v1::event::{FollowEvents, WorkspaceEvent};
use axum::body::{Body, Bytes};
use axum::http::Response;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;
use tokio::sync::mpsc;

use crate::app::App;
use crate::auth::still_allowed;
use crate::error::Result;
use crate::events::{News, Told};
use crate::http::call::Call;
use crate::view;

/// Proxies close what is silent; a comment keeps the stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Chunks that wait for a slow reader. When it is full, the task waits with them.
const CHUNKS: usize = 4;
/// Events in one chunk.
const AT_ONCE: usize = 256;
/// A key that expires is noticed within this.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Follows a workspace.
pub async fn follow_events(
    app: Arc<App>,
    call: Call<FollowEvents>,
    parts: Parts,
) -> Result<Response<Body>> {
    let last = parts
        .headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok());
    let resume = last.and_then(|id| app.events.seq_of(id));
    let (chunks, body) = mpsc::channel::<Bytes>(CHUNKS);
    let tasks = app.tasks.clone();
    tasks.spawn("events", async move {
        let stop = app.tasks.stop().clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = chunks.closed() => {}
            () = watch_access(&app, &call) => tracing::info!("an event stream was closed: its caller lost access"),
            _ = follow(&app, &call, resume, &chunks) => {}
        }
    });
    let stream = futures_util::stream::unfold(body, |mut body| async move {
        let chunk = body.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), body))
    });
    let mut response = Response::new(Body::from_stream(stream));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(FollowEvents::MEDIA));
    Ok(response)
}

/// Ends when the caller may not follow any more.
pub(crate) async fn watch_access<E: Endpoint>(app: &App, call: &Call<E>) {
    let mut epoch = app.catalog.access_epoch();
    loop {
        // Expiry changes nothing in the catalog: look by the clock as well.
        let _ = tokio::time::timeout(LOOK_AGAIN, epoch.changed()).await;
        if !still_allowed(app, &call.proof) {
            return;
        }
    }
}

/// Nothing when the reader is gone.
async fn follow(
    app: &App,
    call: &Call<FollowEvents>,
    resume: Option<u64>,
    chunks: &mpsc::Sender<Bytes>,
) -> Option<()> {
    let workspace = call.proof.workspace();
    let mut newest = app.events.watch();
    let mut at = match resume.filter(|seq| app.events.since(workspace, *seq, 0).is_some()) {
        Some(seq) => seq,
        None => snapshot(app, call, chunks).await?,
    };
    loop {
        newest.borrow_and_update();
        match app.events.since(workspace, at, AT_ONCE) {
            Some((told, upto)) => {
                let text = render(app, &told);
                let more = told.len() == AT_ONCE;
                at = upto;
                if !text.is_empty() {
                    chunks.send(text.into()).await.ok()?;
                }
                if more {
                    continue;
                }
            }
            // Too slow: begin again with what is true now.
            None => at = snapshot(app, call, chunks).await?,
        }
        match tokio::time::timeout(KEEP_ALIVE, newest.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            Err(_) => chunks
                .send(Bytes::from_static(b": still here\n\n"))
                .await
                .ok()?,
        }
    }
}

/// Events as text. A host that changed several times is told once, at its last
/// change, as it is now.
fn render(app: &App, told: &[Told]) -> String {
    let mut text = String::new();
    let mut last_changes = HashMap::new();
    for item in told {
        if let News::HostChanged(host) = item.news {
            last_changes.insert(host, item.seq);
        }
    }
    let now = app.now();
    let tables = app.catalog.read();
    for item in told {
        let id = app.events.id(item.seq);
        match &item.news {
            News::Happened(event) => push(&mut text, event, &id),
            News::HostChanged(host) if last_changes.get(host) == Some(&item.seq) => {
                if let Some(host) = view::host(&tables, &app.links, *host, now) {
                    let host = Box::new(host);
                    push(&mut text, &WorkspaceEvent::HostChanged { host }, &id);
                }
            }
            News::HostChanged(_) => {}
        }
    }
    text
}

/// Sends every host as it is, and answers from where changes follow.
async fn snapshot(
    app: &App,
    call: &Call<FollowEvents>,
    chunks: &mpsc::Sender<Bytes>,
) -> Option<u64> {
    let workspace = call.proof.workspace();
    // Taken first: a change during the snapshot is told again after it.
    let at = app.events.newest();
    let hosts: Vec<_> = app.catalog.read().hosts_of(workspace).collect();
    let mut count = 0;
    for some in hosts.chunks(AT_ONCE) {
        let mut text = String::new();
        {
            let tables = app.catalog.read();
            for id in some {
                let Some(host) = view::host(&tables, &app.links, *id, app.now()) else {
                    continue;
                };
                if host.membership == model::host::Membership::Retired {
                    continue;
                }
                count += 1;
                push(
                    &mut text,
                    &WorkspaceEvent::Snapshot {
                        host: Box::new(host),
                    },
                    "",
                );
            }
        }
        chunks.send(text.into()).await.ok()?;
    }
    let mut text = String::new();
    push(
        &mut text,
        &WorkspaceEvent::SnapshotEnd { hosts: count },
        &app.events.id(at),
    );
    chunks.send(text.into()).await.ok()?;
    Some(at)
}

fn push(text: &mut String, event: &WorkspaceEvent, id: &str) {
    let data = serde_json::to_string(event).expect("events are text, numbers and times");
    if !id.is_empty() {
        text.push_str("id: ");
        text.push_str(id);
        text.push('\n');
    }
    text.push_str("event: ");
    text.push_str(event.kind());
    text.push_str("\ndata: ");
    // JSON has no raw line breaks.
    text.push_str(&data);
    text.push_str("\n\n");
}
