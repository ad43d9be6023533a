//! One run's stream: asks the host, keeps what it says, tells it what was kept.
//!
//! ```text
//! open ─► request ─► reports: accepted, started, ended, refused ─► the dispatcher
//!                    output ─► the log; what is on disk, the host may drop
//!         orders of the dispatcher: cancel; the result is written down: the end
//! ```
//!
//! Ends with the connection, with the result, or when the host talks nonsense. The
//! dispatcher hears so and opens another while there is a reason to.

use std::sync::Arc;
use std::time::Duration;

use ::link::frame::{Deadlines, FrameReader, write_message};
use gateway_core::command::active::Asking;
use gateway_core::command::dispatch::{Key, Report};
use model::Timestamp;
use model::command::OutputStream;
use protocol::frame::MAX_FRAME;
use protocol::v1::{
    Opening, RunCancel, RunOrder, RunOutputStored, RunReboot, RunReport, RunRequest,
    RunResultStored, RunSpec, opening, run_order, run_report,
};
use tokio::sync::mpsc;

use super::output::frame::Frame;
use super::output::{OutputLog, Writer};
use super::{Message, Reported};
use crate::app::App;
use crate::link::registry::LiveLink;

/// For the host to grant a stream and to take a frame.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// A run may be silent for as long as it likes: the connection's own silence ends it.
const READ: Deadlines = Deadlines {
    idle: Duration::from_secs(32 * 24 * 3600),
    frame: Duration::from_secs(30),
};
/// Output is synced, and its host told so, whenever this much has come.
const SYNC_EVERY: u64 = 1 << 20;

/// What the dispatcher tells a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// End the run.
    Cancel,
    /// The result is written down.
    Taken,
}

/// One stream, before it is opened.
pub(super) struct Task {
    pub(super) app: Arc<App>,
    pub(super) key: Key,
    pub(super) asking: Asking,
    pub(super) link: Arc<LiveLink>,
    pub(super) spec: Arc<RunSpec>,
    pub(super) log: Arc<OutputLog>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) reports: mpsc::Sender<Message>,
}

impl Task {
    /// Runs until the stream has served.
    pub(super) async fn run(mut self) {
        let stop = self.app.tasks.stop().clone();
        let served = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            served = self.serve() => served,
        };
        if let Err(why) = served {
            let (command, host) = self.key;
            tracing::debug!(command.id = %command, host.id = %host, %why, "the stream of a run has ended");
        }
        self.tell(Report::Detached, None).await;
    }

    async fn tell(&self, report: Report, writer: Option<Writer>) {
        let output = match writer {
            Some(writer) => Some(writer.finish(&self.app.commands.objects).await),
            None => None,
        };
        // A dispatcher that is gone needs no reports.
        let _ = self
            .reports
            .send(Message::Report(Box::new(Reported {
                key: self.key,
                report,
                output,
            })))
            .await;
    }

    async fn serve(&mut self) -> Result<(), String> {
        let opened = tokio::time::timeout(WRITE_WITHIN, self.link.connection.open_bi()).await;
        let (mut send, receive) = opened
            .map_err(|_| "the host takes no more streams".to_owned())?
            .map_err(|error| model::error_chain(&error))?;
        let writer = self
            .log
            .writer()
            .await
            .map_err(|error| format!("open the log: {error}"))?;
        let opening = Opening {
            kind: Some(opening::Kind::Run(self.request())),
        };
        write_message(&mut send, &opening, MAX_FRAME, WRITE_WITHIN)
            .await
            .map_err(|error| model::error_chain(&error))?;
        let mut reader = FrameReader::new(receive, MAX_FRAME, READ);
        let mut writer = Some(writer);
        loop {
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    None => return Ok(()),
                    Some(Order::Cancel) => {
                        order_of(&mut send, run_order::Body::Cancel(RunCancel {})).await?;
                    }
                    Some(Order::Taken) => {
                        order_of(&mut send, run_order::Body::ResultStored(RunResultStored {})).await?;
                        let _ = send.finish();
                        let _ = tokio::time::timeout(WRITE_WITHIN, send.stopped()).await;
                        return Ok(());
                    }
                },
                report = reader.next::<RunReport>() => {
                    let report = report.map_err(|error| model::error_chain(&error))?;
                    let Some(RunReport { body }) = report else {
                        return Err("the host has ended the stream".to_owned());
                    };
                    // A body that this version does not know says nothing to it.
                    if let Some(body) = body {
                        self.hear(body, &mut writer, &mut send).await?;
                    }
                }
            }
        }
    }

    async fn hear(
        &self,
        body: run_report::Body,
        writer: &mut Option<Writer>,
        send: &mut quinn::SendStream,
    ) -> Result<(), String> {
        match body {
            run_report::Body::Accepted(_) => self.tell(Report::Accepted, None).await,
            run_report::Body::Started(started) => {
                let at = Timestamp::from_millis(started.at_ms);
                self.tell(Report::Started(at), None).await;
            }
            run_report::Body::Rebooting(RunReboot { count }) => {
                self.tell(Report::Reboot { count, done: false }, None).await;
            }
            run_report::Body::Rebooted(RunReboot { count }) => {
                self.tell(Report::Reboot { count, done: true }, None).await;
            }
            run_report::Body::Output(output) => {
                let stream = match output.stream {
                    1 => OutputStream::Stdout,
                    2 => OutputStream::Stderr,
                    other => return Err(format!("output of a stream {other}")),
                };
                let frame = Frame::Piece {
                    sequence: output.sequence,
                    stream,
                    data: output.data.into(),
                };
                self.keep(frame, writer, send).await?;
            }
            run_report::Body::Gap(gap) => {
                let frame = Frame::Gap {
                    sequence: gap.sequence,
                    resumes_at: gap.resumes_at,
                    bytes: gap.bytes,
                };
                self.keep(frame, writer, send).await?;
            }
            run_report::Body::Ended(ended) => {
                self.tell(Report::Ended(Box::new(ended)), writer.take())
                    .await;
            }
            run_report::Body::Refused(refused) => {
                self.tell(Report::Refused(Box::new(refused)), writer.take())
                    .await;
            }
        }
        Ok(())
    }

    async fn keep(
        &self,
        frame: Frame,
        writer: &mut Option<Writer>,
        send: &mut quinn::SendStream,
    ) -> Result<(), String> {
        let Some(writer) = writer else {
            return Err("output after the end".to_owned());
        };
        let expected = self.log.next();
        let (Frame::Piece { sequence, .. } | Frame::Gap { sequence, .. }) = &frame else {
            return Ok(());
        };
        if *sequence > expected {
            return Err(format!("output {sequence} came where {expected} was due"));
        }
        writer.add(frame).await;
        self.app.commands.touch(self.key.0);
        if writer.unsynced() >= SYNC_EVERY {
            writer
                .sync()
                .await
                .map_err(|error| format!("sync the log: {error}"))?;
            if let Some(sequence) = writer.safe() {
                order_of(
                    send,
                    run_order::Body::OutputStored(RunOutputStored { sequence }),
                )
                .await?;
            }
        }
        Ok(())
    }

    fn request(&self) -> RunRequest {
        let (command, host) = self.key;
        let now = self.app.now();
        let (start_before, spec, cancel) = match self.asking {
            Asking::Run { start_before } => (start_before, Some((*self.spec).clone()), false),
            Asking::Settle { cancel } => (now, None, cancel),
        };
        RunRequest {
            command: command.to_string(),
            host: host.to_string(),
            generation: self.link.generation,
            life: self.app.incarnation(),
            start_before_ms: start_before.as_millis(),
            server_time_ms: now.as_millis(),
            spec,
            output_from: self.log.next(),
            cancel,
        }
    }
}

async fn order_of(send: &mut quinn::SendStream, body: run_order::Body) -> Result<(), String> {
    let order = RunOrder { body: Some(body) };
    write_message(send, &order, MAX_FRAME, WRITE_WITHIN)
        .await
        .map_err(|error| model::error_chain(&error))
}
