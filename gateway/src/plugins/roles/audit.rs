//! Requests that plugins make, in the audit trail.
//!
//! The client tells of a request from within it; writing waits for a disk. So records go through a
//! bounded channel to a task that writes many at once. When a plugin makes more than can be
//! written, the number of those that are missing is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use egress::{Audit, Outcome, Record};
use gateway_store::Batch;
use tokio::sync::mpsc;

use crate::app::App;
use crate::state::change::Origin;

/// Records that wait to be written: above a second's worth of what a disk takes.
const WAITING: usize = 4096;
/// Entries in one batch.
const IN_ONE: usize = 64;

/// Takes records of requests.
pub struct Requests {
    waiting: mpsc::Sender<Record>,
    missing: Arc<AtomicU64>,
}

/// Where records wait.
pub struct Waiting {
    records: mpsc::Receiver<Record>,
    missing: Arc<AtomicU64>,
}

impl Requests {
    /// The end that takes records, and the one that they are written from.
    pub fn channel() -> (Arc<Self>, Waiting) {
        let (waiting, records) = mpsc::channel(WAITING);
        let missing = Arc::new(AtomicU64::new(0));
        let requests = Self {
            waiting,
            missing: Arc::clone(&missing),
        };
        (Arc::new(requests), Waiting { records, missing })
    }
}

impl Audit for Requests {
    fn request_ended(&self, record: Record) {
        if self.waiting.try_send(record).is_err() {
            self.missing.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes records until the gateway stops, those that wait then included.
pub async fn write_requests(app: Arc<App>, mut waiting: Waiting) {
    let stop = app.tasks.stop().clone();
    loop {
        let mut records = Vec::new();
        let count = tokio::select! {
            biased;
            count = waiting.records.recv_many(&mut records, IN_ONE) => count,
            () = stop.cancelled() => return,
        };
        if count == 0 {
            return;
        }
        let mut batch = Batch::new();
        for record in records {
            entry(&app, record, &mut batch);
        }
        let missing = waiting.missing.swap(0, Ordering::Relaxed);
        if missing > 0 {
            tracing::warn!(
                missing,
                "plugins make more requests than can be written to the audit trail"
            );
            Origin::gateway()
                .entry(app.now(), "plugin.request")
                .with("missing", missing)
                .noticed()
                .in_deployment(&mut batch);
        }
        if let Err(error) = app.commit(batch).await {
            tracing::error!(error = %error, requests = count, "requests of plugins could not be written to the audit trail");
        }
    }
}

fn entry(app: &App, record: Record, batch: &mut Batch) {
    let mut entry = Origin::gateway()
        .entry(app.now(), "plugin.request")
        .on(&record.plugin)
        .with("call", &record.call)
        .with("method", &record.method)
        .with("host", &record.host)
        .with("port", record.port)
        .with("bytes_out", record.bytes_out)
        .with("bytes_in", record.bytes_in)
        .with("took_ms", record.took.as_millis());
    if let Some(address) = record.address {
        entry = entry.with("address", address);
    }
    if let Some(route) = &record.route {
        entry = entry.with("route", route);
    }
    if let Some(host) = &record.via {
        entry = entry.with("via", host);
    }
    entry = match &record.outcome {
        Outcome::Status(status) => entry.with("status", status),
        Outcome::Done => entry,
        Outcome::Failed(code) => entry.refused(code),
    };
    match record.workspace {
        Some(workspace) => entry.in_workspace(workspace, batch),
        None => entry.in_deployment(batch),
    }
}
