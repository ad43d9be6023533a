//! Following commands: their output as bytes, or everything as events.
//!
//! A follower keeps a place in the log of each run and looks when something moved. It
//! reads from memory and disk, so that one who stops holds nobody up. The stream ends
//! by itself when the caller loses access.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::endpoint::Endpoint;
use api::v1::command::*;
use axum::body::{Body, Bytes};
use axum::http::Response;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;
use data_encoding::BASE64;
use model::command::RunState;
use model::ids::{CommandId, HostId};
use tokio::sync::{mpsc, watch};

use super::command::{find, run_of};
use super::event::watch_access;
use crate::app::App;
use crate::command::output::frame::Frame;
use crate::command::output::{News, Reader};
use crate::command::view::{self, Seen};
use crate::error::Result;
use crate::http::call::Call;
use crate::state::command_records::CommandRecordV1;

/// Proxies close what is silent; a comment keeps the stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Chunks that wait for a slow reader. When it is full, the task waits with them.
const CHUNKS: usize = 4;
/// Between two looks at a command, for each thousand of its runs: a look goes over all of
/// them.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The output of one run.
pub async fn get_command_output(
    app: Arc<App>,
    call: Call<GetCommandOutput>,
    _: Parts,
) -> Result<Response<Body>> {
    let record = find(&app, &call, call.path.command)?;
    let seen = run_of(&app, &record, call.path.host).await?;
    Ok(stream(app, call, "output", move |app, call, chunks| {
        Box::pin(async move { read_out(&app, &call, record.id, seen, &chunks).await })
    }))
}

/// Nothing when the reader is gone.
async fn read_out(
    app: &App,
    call: &Call<GetCommandOutput>,
    command: CommandId,
    mut seen: Seen,
    chunks: &mpsc::Sender<Bytes>,
) -> Option<()> {
    let mut skip = call.query.from.unwrap_or(0);
    let mut reader: Option<Reader> = None;
    loop {
        // Before the look: what comes after it wakes us.
        let mut arrivals = app.commands.arrivals();
        let changes = app.commands.changes(command);
        if reader.is_none() {
            reader = seen.log.clone().map(Reader::new);
        }
        while let Some(reader) = &mut reader {
            match reader.read(&app.commands.objects).await {
                Ok(News::Frames(frames)) => {
                    for frame in frames {
                        let Frame::Piece { stream, data, .. } = frame else {
                            continue;
                        };
                        if call.query.stream.is_some_and(|wanted| wanted != stream) {
                            continue;
                        }
                        let over = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
                        skip -= over as u64;
                        if over < data.len() {
                            chunks.send(data.slice(over..)).await.ok()?;
                        }
                    }
                }
                Ok(News::End) => return Some(()),
                Ok(News::Nothing) => break,
                Err(error) => {
                    tracing::warn!(error = %model::error_chain(&error), command.id = %command, "output cannot be read");
                    return None;
                }
            }
        }
        if !call.query.follow || seen.run.is_final() {
            return Some(());
        }
        match changes {
            Some(mut changes) => {
                let _ = tokio::time::timeout(KEEP_ALIVE, changes.changed()).await;
            }
            None => arrival(&mut arrivals).await,
        }
        let record = app.catalog.read().commands.get(&command).cloned()?;
        let now = run_of(app, &record, seen.host).await.ok()?;
        // The log that is being read stays the one; it moves by itself.
        let log = seen.log.take().or(now.log);
        seen = Seen {
            host: now.host,
            run: now.run,
            log,
        };
    }
}

/// Everything about a command, as events.
pub async fn follow_command(
    app: Arc<App>,
    call: Call<FollowCommand>,
    _: Parts,
) -> Result<Response<Body>> {
    let record = find(&app, &call, call.path.command)?;
    Ok(stream(app, call, "follow", move |app, call, chunks| {
        Box::pin(async move {
            let mut follower = Follower {
                app: &app,
                chunks: &chunks,
                with_output: !call.query.without_output,
                runs: HashMap::new(),
            };
            follower.follow(record.id).await
        })
    }))
}

type Serving = std::pin::Pin<Box<dyn Future<Output = Option<()>> + Send>>;

/// A response whose body a task writes, until its reader is gone or may not read any
/// more.
fn stream<E>(
    app: Arc<App>,
    call: Call<E>,
    name: &'static str,
    serve: impl FnOnce(Arc<App>, Arc<Call<E>>, mpsc::Sender<Bytes>) -> Serving + Send + 'static,
) -> Response<Body>
where
    E: Endpoint,
    Call<E>: Sync,
{
    let (chunks, body) = mpsc::channel::<Bytes>(CHUNKS);
    let tasks = app.tasks.clone();
    let call = Arc::new(call);
    tasks.spawn(name, async move {
        let stop = app.tasks.stop().clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = chunks.closed() => {}
            () = watch_access(&app, &call) => tracing::info!("a stream of a command was closed: its caller lost access"),
            _ = serve(Arc::clone(&app), Arc::clone(&call), chunks.clone()) => {}
        }
    });
    let stream = futures_util::stream::unfold(body, |mut body| async move {
        let chunk = body.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), body))
    });
    let mut response = Response::new(Body::from_stream(stream));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(E::MEDIA));
    response
}

/// Waits for a command that was made a moment ago to be at work. One that has just ended
/// does not come back: it is looked at again all the same.
async fn arrival(arrivals: &mut watch::Receiver<u64>) {
    let _ = tokio::time::timeout(LOOK_EVERY, arrivals.changed()).await;
}

struct Follower<'a> {
    app: &'a App,
    chunks: &'a mpsc::Sender<Bytes>,
    with_output: bool,
    runs: HashMap<HostId, Told>,
}

/// What was told of a run.
#[derive(Default)]
struct Told {
    state: Option<(RunState, bool)>,
    reader: Option<Reader>,
}

impl Follower<'_> {
    /// Nothing when the reader is gone.
    async fn follow(&mut self, command: CommandId) -> Option<()> {
        let mut record = self.record(command)?;
        let event = CommandEvent::Command {
            command: Box::new(view::command(self.app, &record)),
        };
        tell(self.chunks, &[event]).await?;
        loop {
            let mut arrivals = self.app.commands.arrivals();
            let changes = self.app.commands.changes(command);
            let finished = record.finished.is_some();
            let runs = view::runs(self.app, &record).await.ok()?;
            let thousands = u32::try_from(runs.len() / 1000).unwrap_or(u32::MAX);
            for seen in runs {
                self.look(seen).await?;
            }
            if finished {
                let event = CommandEvent::Command {
                    command: Box::new(view::command(self.app, &record)),
                };
                return tell(self.chunks, &[event]).await;
            }
            match changes {
                Some(mut changes) => {
                    // Closed when it is finished: the store knows the rest.
                    if tokio::time::timeout(KEEP_ALIVE, changes.changed())
                        .await
                        .is_err()
                    {
                        let comment = Bytes::from_static(b": still here\n\n");
                        self.chunks.send(comment).await.ok()?;
                    }
                    tokio::time::sleep(LOOK_EVERY * thousands).await;
                }
                None => arrival(&mut arrivals).await,
            }
            record = self.record(command)?;
        }
    }

    fn record(&self, command: CommandId) -> Option<Arc<CommandRecordV1>> {
        let tables = self.app.catalog.read();
        let kept = tables.commands.get(&command)?;
        Some(Arc::clone(&kept.record))
    }

    /// Tells what is new of a run: output first, so that a final state comes last.
    async fn look(&mut self, seen: Seen) -> Option<()> {
        let told = self.runs.entry(seen.host).or_default();
        let is = (seen.run.state, seen.run.cancelling);
        let changed = told.state != Some(is);
        if changed && !seen.run.is_final() {
            told.state = Some(is);
            tell_run(self.app, self.chunks, &seen).await?;
        }
        if self.with_output {
            self.read(&seen).await?;
        }
        if changed && seen.run.is_final() {
            self.runs.entry(seen.host).or_default().state = Some(is);
            tell_run(self.app, self.chunks, &seen).await?;
        }
        Some(())
    }

    async fn read(&mut self, seen: &Seen) -> Option<()> {
        let told = self.runs.entry(seen.host).or_default();
        if told.reader.is_none() {
            told.reader = seen.log.clone().map(Reader::new);
        }
        let Some(mut reader) = told.reader.take() else {
            return Some(());
        };
        loop {
            match reader.read(&self.app.commands.objects).await {
                Ok(News::Frames(frames)) => {
                    let events: Vec<_> = frames
                        .into_iter()
                        .filter_map(|frame| event_of(seen.host, frame))
                        .collect();
                    tell(self.chunks, &events).await?;
                }
                Ok(News::Nothing | News::End) => break,
                Err(error) => {
                    tracing::warn!(error = %model::error_chain(&error), host.id = %seen.host, "output cannot be read");
                    break;
                }
            }
        }
        self.runs.entry(seen.host).or_default().reader = Some(reader);
        Some(())
    }
}

async fn tell_run(app: &App, chunks: &mpsc::Sender<Bytes>, seen: &Seen) -> Option<()> {
    let run = Box::new(view::run(&app.catalog.read(), seen));
    tell(chunks, &[CommandEvent::Run { run }]).await
}

async fn tell(chunks: &mpsc::Sender<Bytes>, events: &[CommandEvent]) -> Option<()> {
    let mut text = String::new();
    for event in events {
        let data = serde_json::to_string(event).expect("events are text and numbers");
        text.push_str("event: ");
        text.push_str(event.kind());
        text.push_str("\ndata: ");
        // JSON has no raw line breaks.
        text.push_str(&data);
        text.push_str("\n\n");
    }
    if text.is_empty() {
        return Some(());
    }
    chunks.send(text.into()).await.ok()
}

fn event_of(host: HostId, frame: Frame) -> Option<CommandEvent> {
    match frame {
        Frame::Piece { stream, data, .. } => Some(CommandEvent::Output {
            host,
            stream,
            data: BASE64.encode(&data),
        }),
        Frame::Gap { bytes, .. } => Some(CommandEvent::Gap { host, bytes }),
        Frame::Label(_) => None,
    }
}
