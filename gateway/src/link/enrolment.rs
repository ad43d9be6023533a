//! Enrolment: a token and a key in, an identity out.
//!
//! The token is checked against the catalog, where a revocation shows before it
//! is answered; the spend is a condition on the token's record, so that of two
//! machines with the last use of a token exactly one gets in. The whole of it
//! (host, spend, history, audit) is one batch.

use std::net::SocketAddr;
use std::sync::Arc;

use gateway_core::admission::{self, Asked, Plan, TokenState, joined, place_of};
use gateway_core::host::Host;
use gateway_core::identity::Identity;
use gateway_core::refuse::{self, ASK_AGAIN, SOON};
use gateway_store::{Batch, CommitError, Condition};
use model::Timestamp;
use model::audit::Actor;
use model::facts::Facts;
use model::host::{HostEvent, Membership};
use model::ids::{AgentTokenId, HostId, WorkspaceId};
use model::labels::Labels;
use model::token::Secret;
use protocol::v1::{EnrolReply, EnrolRequest, Refusal, RefusalCode, enrol_reply};

use super::issue::{Issued, issue};
use super::refusal;
use crate::app::App;
use crate::handlers::agent_token::facts_of;
use crate::refusals;
use crate::state::catalog::{Kept, Tables};
use crate::state::change::{Origin, history};
use crate::state::records::{
    HostFactsRecordV1, HostRecordV1, HostSeenRecordV1, TokenRecordV1, key_of,
};

/// Hosts that a token remembers.
const RECENT_HOSTS: usize = 20;
/// Lost races before an enrolment is sent away to try again.
const ATTEMPTS: usize = 16;

/// Answers one request.
pub async fn answer(app: &Arc<App>, request: EnrolRequest, from: SocketAddr) -> EnrolReply {
    let outcome = enrol(app, request, from).await;
    let answer = match outcome {
        Ok(grant) => {
            app.metrics.enrolment("granted");
            enrol_reply::Answer::Granted(grant)
        }
        Err(refusal) => {
            let code = RefusalCode::try_from(refusal.code).unwrap_or(RefusalCode::Unspecified);
            app.metrics.enrolment(outcome_word(code));
            tracing::info!(source = %from, code = ?code, "enrolment refused");
            enrol_reply::Answer::Refused(refusal)
        }
    };
    EnrolReply {
        answer: Some(answer),
    }
}

async fn enrol(
    app: &Arc<App>,
    request: EnrolRequest,
    from: SocketAddr,
) -> Result<protocol::v1::Grant, Refusal> {
    if request.version_min > protocol::VERSION || request.version_max < protocol::VERSION_MIN {
        return Err(refuse::version(ASK_AGAIN, app.now()));
    }
    if let Err(wait) = app.rates.enrolment.check(&from.ip(), app.uptime()) {
        return Err(refusal(
            RefusalCode::RateLimited,
            "too many enrolments with bad tokens from this address",
            wait,
        ));
    }
    let secret: Secret<AgentTokenId> = match request.token.trim().parse() {
        Ok(secret) => secret,
        Err(_) => return Err(bad_token(app, from, "malformed", None).await),
    };
    let spki = app
        .ca
        .csr_key(&request.csr)
        .map_err(|error| refusal(RefusalCode::Invalid, error.to_string(), ASK_AGAIN))?;
    let facts: Facts = request.facts.clone().unwrap_or_default().into();
    for _ in 0..ATTEMPTS {
        let found = app.catalog.read().tokens.get(&secret.id()).cloned();
        let genuine = found.filter(|token| app.keys.matches(secret.key(), &token.digest));
        let Some(token) = genuine else {
            return Err(bad_token(app, from, "unknown", Some(secret.id())).await);
        };
        let now = app.now();
        let planned = plan(&app.catalog.read(), &token, &spki.0, &facts, now);
        let plan = match planned {
            Ok(plan) => plan,
            Err(state) => return Err(refused_by_state(app, &token, state, from, now).await),
        };
        match carry_out(app, &token, plan, &request, &facts, from, now).await? {
            Some(grant) => return Ok(grant),
            // Somebody else spent this token, or took this place, at the same moment.
            None => continue,
        }
    }
    Err(refusal(
        RefusalCode::Unavailable,
        "this token is in great demand; try again",
        SOON,
    ))
}

/// A plan, and the record it begins with.
struct Planned {
    plan: Plan,
    /// The key that is presented.
    spki: [u8; 32],
    kept: Option<Kept<HostRecordV1>>,
}

fn plan(
    tables: &Tables,
    token: &TokenRecordV1,
    spki: &[u8; 32],
    facts: &Facts,
    now: Timestamp,
) -> Result<Planned, TokenState> {
    let known = tables.host_by_key(spki).map(|host| host.decided());
    let mut waiting = tables
        .hosts_of(token.workspace)
        .filter_map(|id| tables.hosts.get(&id))
        .filter(|host| {
            host.membership == Membership::Unknown
                && host.awaited_hostname.as_deref() == Some(facts.hostname.as_str())
        });
    let asked = Asked {
        id: token.id,
        token: &facts_of(token),
        workspace: tables
            .workspaces
            .contains_key(&token.workspace)
            .then_some(token.workspace),
        known: known.as_ref(),
        awaited: waiting.next().map(|host| host.id),
        now,
    };
    let plan = admission::plan(&asked)?;
    let kept = match plan {
        Plan::New => None,
        Plan::Awaited(id) | Plan::Again(id) => tables.hosts.get(&id).cloned(),
    };
    Ok(Planned {
        plan,
        spki: *spki,
        kept,
    })
}

/// Writes what was planned. `None` when the world has changed meanwhile.
async fn carry_out(
    app: &Arc<App>,
    token: &Kept<TokenRecordV1>,
    planned: Planned,
    request: &EnrolRequest,
    facts: &Facts,
    from: SocketAddr,
    now: Timestamp,
) -> Result<Option<protocol::v1::Grant>, Refusal> {
    let mut batch = Batch::new();
    let Planned { plan, spki, kept } = planned;
    let rev = kept.as_ref().map(|kept| kept.rev);
    let record = match (plan, kept) {
        (Plan::New, _) | (_, None) => fresh(app, token, now),
        (Plan::Awaited(_), Some(kept)) => awaited(&kept, token),
        (Plan::Again(_), Some(kept)) => (*kept.record).clone(),
    };
    let host = record.decided();
    let seen = app.catalog.read().seen.get(&record.id).cloned();
    let counter = seen.as_ref().map_or(1, |seen| seen.issued);
    let Some(place) = place_of(&host, plan, &spki, app.fence()) else {
        return Ok(None);
    };
    let Issued { identity, grant } = issue(
        app,
        &request.csr,
        record.workspace,
        record.id,
        place.generation,
        counter,
    )
    .map_err(|error| refusal(RefusalCode::Invalid, error.to_string(), ASK_AGAIN))?;
    let again = matches!(plan, Plan::Again(_));
    let identity = Identity {
        previous: place.previous,
        ..Identity::from(&identity)
    };
    let host = joined(host, plan, token.id, identity, now);
    let record = record.with(&host);
    let host_key = key_of::<HostRecordV1>(record.id);
    batch.require(&host_key, rev.map_or(Condition::Absent, Condition::RevIs));
    let stored = batch.put_record(&host_key, &record).map(drop);
    let stored = stored.and_then(|()| {
        if again {
            Ok(())
        } else {
            spend(&mut batch, token, record.id, now)
        }
    });
    stored.map_err(|error| broken(&error))?;
    if !again {
        let written = first_records(&mut batch, &record, facts, request, token, now);
        written.map_err(|error| broken(&error))?;
        origin(token.id, from)
            .entry(now, "host.enrol")
            .on(record.id)
            .with("token", token.id)
            .with("hostname", &facts.hostname)
            .in_workspace(record.workspace, &mut batch);
    }
    match app.try_commit(batch).await {
        Ok(Ok(_)) => {
            tracing::info!(host.id = %record.id, workspace.id = %record.workspace, token.id = %token.id, source = %from, again, "host enrolled");
            Ok(Some(grant))
        }
        Ok(Err(CommitError::Conflict { .. })) => Ok(None),
        Ok(Err(error)) => {
            tracing::warn!(error = %model::error_chain(&error), "an enrolment could not be stored");
            Err(refusal(
                RefusalCode::Unavailable,
                "the gateway cannot store this at the moment",
                SOON,
            ))
        }
        Err(_) => Err(refusal(
            RefusalCode::Unavailable,
            "the gateway is behind; ask again",
            SOON,
        )),
    }
}

fn fresh(app: &App, token: &TokenRecordV1, now: Timestamp) -> HostRecordV1 {
    let host = Host {
        ephemeral: token.ephemeral,
        ..Host::unknown(app.new_id(HostId::new), token.workspace)
    };
    HostRecordV1 {
        labels: token.labels.clone(),
        ..HostRecordV1::fresh(&host, now)
    }
}

/// An entry of the inventory that gets its agent.
fn awaited(record: &HostRecordV1, token: &TokenRecordV1) -> HostRecordV1 {
    let set = |labels: &Labels| {
        let pairs = labels.iter();
        pairs
            .map(|(key, value)| (key.to_owned(), Some(value.to_owned())))
            .collect()
    };
    // The inventory's own labels win; a full set keeps what it has.
    let both = token.labels.with(&set(&record.labels));
    HostRecordV1 {
        labels: both.unwrap_or_else(|_| record.labels.clone()),
        ephemeral: token.ephemeral,
        ..record.clone()
    }
}

fn spend(
    batch: &mut Batch,
    token: &Kept<TokenRecordV1>,
    host: HostId,
    now: Timestamp,
) -> Result<(), gateway_store::EncodeError> {
    let mut record = (*token.record).clone();
    record.uses = record.uses.saturating_add(1);
    record.last_used_at = Some(now);
    record.recent_hosts.insert(0, host);
    record.recent_hosts.truncate(RECENT_HOSTS);
    let key = key_of::<TokenRecordV1>(record.id);
    batch.require(&key, Condition::RevIs(token.rev));
    batch.put_record(&key, &record).map(drop)
}

fn first_records(
    batch: &mut Batch,
    record: &HostRecordV1,
    facts: &Facts,
    request: &EnrolRequest,
    token: &TokenRecordV1,
    now: Timestamp,
) -> crate::error::Result<()> {
    batch.put_record(
        &key_of::<HostSeenRecordV1>(record.id),
        &HostSeenRecordV1::never(now),
    )?;
    if request.facts.is_some() {
        // The digest stays empty: the first link brings the agent's own.
        let facts = HostFactsRecordV1 {
            digest: Vec::new(),
            facts: facts.clone(),
            at: now,
        };
        batch.put_record(&key_of::<HostFactsRecordV1>(record.id), &facts)?;
    }
    history(
        batch,
        record.id,
        now,
        HostEvent::Enrolled {
            token: token.id.to_string(),
        },
        None,
    )
}

async fn bad_token(
    app: &App,
    from: SocketAddr,
    why: &'static str,
    claimed: Option<AgentTokenId>,
) -> Refusal {
    let burst = app.rates.enrolment.take(&from.ip(), app.uptime()).is_err();
    if refusals::worth_an_entry(app, Some(from.ip())) {
        let actor = claimed.map_or(Actor::Nobody, |token| Actor::AgentToken {
            token: token.to_string(),
        });
        let origin = Origin {
            actor,
            source: Some(from.ip().to_string()),
            request: None,
            ticket: None,
        };
        let action = if burst {
            "authentication.burst"
        } else {
            "host.enrol"
        };
        let entry = origin
            .entry(app.now(), action)
            .with("kind", "agent_token")
            .refused(format!("{why} token"));
        refusals::write(app, model::tenancy::Scope::Deployment, entry).await;
    }
    refusal(
        RefusalCode::TokenInvalid,
        "the agent token is not valid; it may be mistyped or revoked; make a new one and put it into the token file",
        ASK_AGAIN,
    )
}

async fn refused_by_state(
    app: &App,
    token: &TokenRecordV1,
    state: TokenState,
    from: SocketAddr,
    now: Timestamp,
) -> Refusal {
    let (code, action, message) = match state {
        TokenState::Expired => (
            RefusalCode::TokenExpired,
            "host.enrol",
            "the agent token has expired; make a new one",
        ),
        TokenState::Exhausted => (
            RefusalCode::TokenExhausted,
            "agent_token.overuse",
            "the agent token has been used as often as it may be; make a new one",
        ),
        TokenState::Revoked | TokenState::Active => (
            RefusalCode::TokenInvalid,
            "host.enrol",
            "the agent token has been revoked; make a new one",
        ),
    };
    if refusals::worth_an_entry(app, Some(from.ip())) {
        let entry = origin(token.id, from)
            .entry(now, action)
            .on(token.id)
            .refused(format!("{state:?}").to_lowercase());
        let scope = scope_of(app, token.workspace);
        refusals::write(app, scope, entry).await;
    }
    refusal(code, message, ASK_AGAIN)
}

fn scope_of(app: &App, workspace: WorkspaceId) -> model::tenancy::Scope {
    app.catalog
        .read()
        .scope_of(workspace)
        .unwrap_or(model::tenancy::Scope::Deployment)
}

fn origin(token: AgentTokenId, from: SocketAddr) -> Origin {
    Origin {
        actor: Actor::AgentToken {
            token: token.to_string(),
        },
        source: Some(from.ip().to_string()),
        request: None,
        ticket: None,
    }
}

fn broken(error: &(dyn std::error::Error + 'static)) -> Refusal {
    tracing::error!(error = %model::error_chain(error), "an enrolment failed by our own fault");
    refusal(
        RefusalCode::Unavailable,
        "the gateway has failed; its log has the details",
        SOON,
    )
}

fn outcome_word(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::TokenInvalid => "token_invalid",
        RefusalCode::TokenExpired => "token_expired",
        RefusalCode::TokenExhausted => "token_exhausted",
        RefusalCode::RateLimited => "rate_limited",
        RefusalCode::Invalid => "invalid",
        _ => "unavailable",
    }
}
