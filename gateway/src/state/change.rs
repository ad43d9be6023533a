//! Audit entries: who did it, written into the batch that does it.

use std::collections::BTreeMap;

use gateway_store::{AuditDraft, Batch};
use model::Timestamp;
use model::audit::{AUDIT_FORMAT, Actor, AuditEntry, AuditResult};
use model::host::HostEvent;
use model::ids::{HostId, RequestId, WorkspaceId};

use super::records::HistoryRecordV1;
use crate::error::Result;

/// The chain of entries that belong to no workspace.
pub const DEPLOYMENT_CHAIN: &str = "deployment";

/// Who acts, from where, in which request.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Who.
    pub actor: Actor,
    /// From which address.
    pub source: Option<String>,
    /// In which request.
    pub request: Option<RequestId>,
    /// Under which ticket.
    pub ticket: Option<String>,
}

impl Origin {
    /// The gateway by itself.
    pub fn gateway() -> Self {
        Self {
            actor: Actor::Gateway,
            source: None,
            request: None,
            ticket: None,
        }
    }

    /// A proven host.
    pub fn host(host: HostId, source: impl ToString) -> Self {
        Self {
            actor: Actor::Host { host },
            source: Some(source.to_string()),
            request: None,
            ticket: None,
        }
    }

    /// The name to put into a history, when a person acts.
    pub fn by(&self) -> Option<String> {
        match &self.actor {
            Actor::User { name, .. } => Some(name.clone()),
            Actor::Gateway | Actor::Host { .. } | Actor::AgentToken { .. } | Actor::Nobody => None,
        }
    }

    /// An entry about `action`, to be filled further and put into a batch.
    pub fn entry(&self, now: Timestamp, action: &'static str) -> Entry {
        Entry(AuditEntry {
            format: AUDIT_FORMAT,
            at: now,
            actor: self.actor.clone(),
            action: action.to_owned(),
            target: None,
            result: AuditResult::Done,
            source: self.source.clone(),
            request: self.request,
            ticket: self.ticket.clone(),
            details: BTreeMap::new(),
        })
    }
}

/// An audit entry in the making.
#[derive(Clone, Debug)]
#[must_use = "an entry is nothing until it is in a batch"]
pub struct Entry(AuditEntry);

impl Entry {
    /// On what.
    pub fn on(mut self, target: impl std::fmt::Display) -> Self {
        self.0.target = Some(target.to_string());
        self
    }

    /// One more detail. Never a secret.
    pub fn with(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        let value = model::names::clean(&value.to_string(), 512);
        self.0.details.insert(name.to_owned(), value);
        self
    }

    /// It was refused.
    pub fn refused(mut self, why: impl std::fmt::Display) -> Self {
        self.0.result = AuditResult::Refused;
        self.with("why", why)
    }

    /// It was noticed rather than done.
    pub fn noticed(mut self) -> Self {
        self.0.result = AuditResult::Noticed;
        self
    }

    /// Into the chain of a workspace.
    pub fn in_workspace(self, workspace: WorkspaceId, batch: &mut Batch) {
        self.into_chain(workspace.to_string(), batch);
    }

    /// Into the chain of the deployment.
    pub fn in_deployment(self, batch: &mut Batch) {
        self.into_chain(DEPLOYMENT_CHAIN.to_owned(), batch);
    }

    fn into_chain(self, chain: String, batch: &mut Batch) {
        let body =
            serde_json::to_vec(&self.0).expect("an entry has only text keys and plain values");
        batch.audit(AuditDraft { chain, body });
    }
}

/// Puts an event of a host's history into `batch`.
pub fn history(
    batch: &mut Batch,
    host: HostId,
    at: Timestamp,
    event: HostEvent,
    by: Option<String>,
) -> Result<()> {
    let nonce = u64::from_be_bytes(crate::keys::random());
    batch.put_record(
        &HistoryRecordV1::key(host, at, nonce)?,
        &HistoryRecordV1 { at, event, by },
    )?;
    Ok(())
}
