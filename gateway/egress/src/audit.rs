//! What is written down about each request.
//!
//! Every request yields one [`Record`], refused ones and abandoned ones too: whoever asks later
//! whether a plugin tried something finds the attempt. No record contains a path, a query, a
//! header or a body.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::ids::WorkspaceId;
use model::names::Name;
use plugin_host::ports::{CallContext, GuestError};

use crate::error::code;

/// A request that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which plugin.
    pub plugin: Name,
    /// In which call.
    pub call: String,
    /// For which workspace, if for one.
    pub workspace: Option<WorkspaceId>,
    /// The HTTP method, `UDP`, or `WAKE` for a Wake-on-LAN packet. Empty when it was no method.
    pub method: String,
    /// The host. Empty when the address could not be read.
    pub host: String,
    /// The port. 0 when the address could not be read.
    pub port: u16,
    /// What was connected to last.
    pub address: Option<SocketAddr>,
    /// The route that was asked for.
    pub route: Option<String>,
    /// The host whose agent connected.
    pub via: Option<String>,
    /// How it went.
    pub outcome: Outcome,
    /// Bytes written to the server, within TLS.
    pub bytes_out: u64,
    /// Bytes read from the server, within TLS.
    pub bytes_in: u64,
    /// From the plugin's call to its answer.
    pub took: Duration,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server answered with this status.
    Status(u16),
    /// Done, where there is no status: a channel was opened, a packet was sent.
    Done,
    /// The error's code.
    Failed(String),
}

/// Who writes records down.
pub trait Audit: Send + Sync {
    /// A request ended. Called from within the request: what takes long is to be done elsewhere.
    fn request_ended(&self, record: Record);
}

/// Writes nothing down: for tools.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAudit;

impl Audit for NoAudit {
    fn request_ended(&self, _: Record) {}
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    Waiting,
    Resolving,
    Connecting,
    Securing,
    Answering,
    Reading,
}

impl Stage {
    fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Waiting,
            1 => Self::Resolving,
            2 => Self::Connecting,
            3 => Self::Securing,
            4 => Self::Answering,
            _ => Self::Reading,
        }
    }

    /// Completes "ran out of time while …".
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting for other requests to this server",
            Self::Resolving => "resolving the name",
            Self::Connecting => "connecting",
            Self::Securing => "agreeing on TLS",
            Self::Answering => "waiting for the answer",
            Self::Reading => "reading the answer's body",
        }
    }
}

/// How far a request has come; shared by whoever moves its bytes.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    out: AtomicU64,
    back: AtomicU64,
    stage: AtomicU8,
    address: Mutex<Option<SocketAddr>>,
}

impl Progress {
    pub(crate) fn bytes_out(&self) -> u64 {
        self.out.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes_in(&self) -> u64 {
        self.back.load(Ordering::Relaxed)
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        self.out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.back.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn stage(&self) -> Stage {
        Stage::of(self.stage.load(Ordering::Relaxed))
    }

    pub(crate) fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    pub(crate) fn connecting_to(&self, address: SocketAddr) {
        if let Ok(mut slot) = self.address.lock() {
            *slot = Some(address);
        }
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address.lock().ok().and_then(|slot| *slot)
    }
}

/// A record on its way. Dropped before its end (the call was stopped), it is written down as
/// abandoned.
pub(crate) struct Pending {
    audit: Arc<dyn Audit>,
    started: Instant,
    plugin: Name,
    call: String,
    workspace: Option<WorkspaceId>,
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) route: Option<String>,
    pub(crate) via: Option<String>,
    pub(crate) progress: Arc<Progress>,
    outcome: Option<Outcome>,
}

impl Pending {
    pub(crate) fn new(audit: Arc<dyn Audit>, call: &CallContext) -> Self {
        Self {
            audit,
            started: Instant::now(),
            plugin: call.plugin.clone(),
            call: call.call.clone(),
            workspace: call.workspace,
            method: String::new(),
            host: String::new(),
            port: 0,
            route: None,
            via: None,
            progress: Arc::default(),
            outcome: None,
        }
    }

    /// Notes how it went and hands the result on.
    pub(crate) fn end<T>(
        mut self,
        result: Result<T, GuestError>,
        status: impl FnOnce(&T) -> Outcome,
    ) -> Result<T, GuestError> {
        self.outcome = Some(match &result {
            Ok(value) => status(value),
            Err(error) => Outcome::Failed(error.code.clone()),
        });
        result
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.audit.request_ended(Record {
            plugin: self.plugin.clone(),
            call: std::mem::take(&mut self.call),
            workspace: self.workspace,
            method: std::mem::take(&mut self.method),
            host: std::mem::take(&mut self.host),
            port: self.port,
            address: self.progress.address(),
            route: self.route.take(),
            via: self.via.take(),
            outcome: self
                .outcome
                .take()
                .unwrap_or_else(|| Outcome::Failed(code::ABANDONED.to_owned())),
            bytes_out: self.progress.bytes_out(),
            bytes_in: self.progress.bytes_in(),
            took: self.started.elapsed(),
        });
    }
}
