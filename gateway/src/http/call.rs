//! One call of an operation, as its handler gets it.

use std::net::IpAddr;

use api::Endpoint;
use gateway_store::{Batch, CommitError, Condition, Key};
use model::Timestamp;
use model::audit::Actor;
use model::ids::RequestId;
use serde::Serialize;

use crate::app::App;
use crate::auth::Proof;
use crate::error::Result;
use crate::policy::Permit;
use crate::state::change::{Entry, Origin};
use crate::state::records::IdempotencyRecordV1;

/// What is known of every request.
#[derive(Clone, Debug)]
pub struct Meta {
    /// Its id.
    pub request: RequestId,
    /// From where, proxies considered; `None` over the local socket.
    pub source: Option<IpAddr>,
    /// `X-Loopback-Ticket`, for the audit trail.
    pub ticket: Option<String>,
    /// `X-Loopback-Break-Glass`: why policies are not to be obeyed.
    pub break_glass: Option<String>,
    /// When it arrived.
    pub now: Timestamp,
}

/// A call that was proven to be allowed.
pub struct Call<E: Endpoint> {
    /// The proof.
    pub proof: Proof<E>,
    /// Path parameters.
    pub path: E::Path,
    /// Query parameters.
    pub query: E::Query,
    /// The body.
    pub body: E::Body,
    /// What is known of every request.
    pub meta: Meta,
    /// What policies say, where they are asked before the handler.
    pub permit: Permit,
    /// Where to remember the answer, when the caller may repeat the request.
    pub remember: Option<Remember>,
}

/// A call that anybody may make.
pub struct PublicCall<E: Endpoint> {
    /// Path parameters.
    pub path: E::Path,
    /// Query parameters.
    pub query: E::Query,
    /// The body.
    pub body: E::Body,
    /// What is known of every request.
    pub meta: Meta,
}

/// Where the answer to a repeatable request is remembered.
#[derive(Clone, Debug)]
pub struct Remember {
    /// The record.
    pub key: Key,
    /// What the request was.
    pub request: [u8; 32],
}

impl<E: Endpoint> Call<E> {
    /// Who acts, for audit.
    pub fn origin(&self) -> Origin {
        Origin {
            actor: self.proof.caller().actor(),
            source: self.meta.source.map(|address| address.to_string()),
            request: Some(self.meta.request),
            ticket: self.meta.ticket.clone(),
        }
    }

    /// An audit entry by this caller.
    pub fn entry(&self, action: &'static str) -> Entry {
        self.origin().entry(self.meta.now, action)
    }

    /// Commits `batch` and answers `reply`. The reply is remembered in the same
    /// batch when the caller gave an idempotency key.
    pub async fn finish(&self, app: &App, batch: Batch, reply: E::Reply) -> Result<E::Reply> {
        match self.try_finish(app, batch, &reply).await? {
            Ok(()) => Ok(reply),
            Err(error) => Err(error.into()),
        }
    }

    /// Like [`Call::finish`], with the store's own refusals apart.
    pub async fn try_finish(
        &self,
        app: &App,
        mut batch: Batch,
        reply: &E::Reply,
    ) -> Result<Result<(), CommitError>> {
        if let Some(remember) = &self.remember {
            batch.require(&remember.key, Condition::Absent);
            batch.put_record(&remember.key, &remember.record(app, reply, self.meta.now)?)?;
        }
        Ok(app.try_commit(batch).await?.map(drop))
    }
}

impl Remember {
    fn record(
        &self,
        app: &App,
        reply: &impl Serialize,
        now: Timestamp,
    ) -> Result<IdempotencyRecordV1> {
        let bytes =
            serde_json::to_vec(reply).map_err(|error| crate::error::Error::internal(&error))?;
        let sealed_reply = app.keys.seal(self.key.as_bytes(), &bytes);
        Ok(IdempotencyRecordV1 {
            request: self.request,
            sealed_reply,
            at: now,
        })
    }
}

impl<E: Endpoint> PublicCall<E> {
    /// Nobody proven, for audit.
    pub fn origin(&self) -> Origin {
        Origin {
            actor: Actor::Nobody,
            source: self.meta.source.map(|address| address.to_string()),
            request: Some(self.meta.request),
            ticket: None,
        }
    }
}
