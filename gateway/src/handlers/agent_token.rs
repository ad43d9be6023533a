//! Agent tokens.

use std::sync::Arc;
use std::time::Duration;

use api::endpoint::Nothing;
use api::v1::agent_token::*;
use api::{Endpoint, Page};
use gateway_core::admission::{TokenFacts, TokenState, rotated_expiry, token_state};
use gateway_store::{Batch, Condition};
use model::Timestamp;
use model::ids::{AgentTokenId, WorkspaceId};
use model::token::Secret;

use super::page::page_of;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::state::catalog::Kept;
use crate::state::records::{TokenRecordV1, WorkspaceRecordV1, key_of};

/// The overlap of a rotation when the caller does not say.
const DEFAULT_OVERLAP: Duration = Duration::from_secs(3600);
/// The longest overlap: a month.
const MAX_OVERLAP: Duration = Duration::from_secs(30 * 86_400);

/// Lists the tokens of a workspace.
pub async fn list_agent_tokens(
    app: Arc<App>,
    call: Call<ListAgentTokens>,
) -> Result<Page<AgentToken>> {
    let tables = app.catalog.read();
    let tokens = tables
        .tokens_of(call.proof.workspace())
        .filter_map(|id| tables.tokens.get(&id));
    let all = call.query.all.unwrap_or(false);
    page_of(
        tokens,
        |token| token.id,
        call.query.limit,
        call.query.after.as_deref(),
        |token| {
            let view = token_view(token, call.meta.now);
            (all || view.state == AgentTokenState::Active).then_some(view)
        },
    )
}

/// Makes a token.
pub async fn create_agent_token(
    app: Arc<App>,
    call: Call<CreateAgentTokenRecord>,
) -> Result<CreatedAgentToken> {
    if call.body.use_limit == Some(0) {
        return Err(Error::invalid(
            "use_limit",
            "a token must be good for at least one host",
        ));
    }
    let tokens = &app.config.agent_tokens;
    let validity = if call.body.long_living_token {
        tokens.long_validity
    } else {
        tokens.short_validity
    };
    let (record, secret) = new_token(&app, &call, call.meta.now.saturating_add(validity));
    let record = TokenRecordV1 {
        description: call.body.description.clone(),
        long_living: call.body.long_living_token,
        use_limit: call.body.use_limit,
        labels: call.body.labels.clone(),
        ephemeral: call.body.ephemeral,
        ..record
    };
    let mut batch = Batch::new();
    batch.require(
        &key_of::<WorkspaceRecordV1>(record.workspace),
        Condition::Present,
    );
    batch.put_record(&key_of::<TokenRecordV1>(record.id), &record)?;
    call.entry("agent_token.create")
        .on(record.id)
        .with("expires_at", record.expires_at)
        .with(
            "use_limit",
            record
                .use_limit
                .map_or("none".to_owned(), |limit| limit.to_string()),
        )
        .in_workspace(record.workspace, &mut batch);
    let reply = created(&app, &record, &secret, call.meta.now);
    call.finish(&app, batch, reply).await
}

/// Shows a token.
pub async fn get_agent_token(app: Arc<App>, call: Call<GetAgentToken>) -> Result<AgentToken> {
    let kept = find(&app, call.proof.workspace(), call.path.token)?;
    Ok(token_view(&kept, call.meta.now))
}

/// Revokes a token. Enrolment asks the catalog, which shows the revocation before
/// this call is answered.
pub async fn delete_agent_token(app: Arc<App>, call: Call<DeleteAgentToken>) -> Result<Nothing> {
    let kept = find(&app, call.proof.workspace(), call.path.token)?;
    if kept.revoked_at.is_some() {
        return Ok(Nothing {});
    }
    let record = TokenRecordV1 {
        revoked_at: Some(call.meta.now),
        ..(*kept.record).clone()
    };
    let mut batch = Batch::new();
    let key = key_of::<TokenRecordV1>(record.id);
    batch.require(&key, Condition::RevIs(kept.rev));
    batch.put_record(&key, &record)?;
    call.entry("agent_token.revoke")
        .on(record.id)
        .with("uses", record.uses)
        .in_workspace(record.workspace, &mut batch);
    call.finish(&app, batch, Nothing {}).await
}

/// Makes a successor; the old token ends after the overlap.
pub async fn rotate_agent_token(
    app: Arc<App>,
    call: Call<RotateAgentTokenRecord>,
) -> Result<CreatedAgentToken> {
    let overlap = call
        .body
        .overlap_ms
        .map_or(DEFAULT_OVERLAP, Duration::from_millis);
    if overlap > MAX_OVERLAP {
        return Err(Error::invalid(
            "overlap_ms",
            "the overlap is at most 30 days",
        ));
    }
    let kept = find(&app, call.proof.workspace(), call.path.token)?;
    if token_state(&facts_of(&kept), call.meta.now) == TokenState::Revoked {
        return Err(Error::conflict(
            "the token is revoked; make a new one instead",
        ));
    }
    let tokens = &app.config.agent_tokens;
    let validity = if kept.long_living {
        tokens.long_validity
    } else {
        tokens.short_validity
    };
    let (record, secret) = new_token(&app, &call, call.meta.now.saturating_add(validity));
    let record = TokenRecordV1 {
        description: kept.description.clone(),
        long_living: kept.long_living,
        use_limit: kept.use_limit,
        labels: kept.labels.clone(),
        ephemeral: kept.ephemeral,
        ..record
    };
    let old = TokenRecordV1 {
        expires_at: rotated_expiry(kept.expires_at, call.meta.now, overlap),
        replaced_by: Some(record.id),
        ..(*kept.record).clone()
    };
    let mut batch = Batch::new();
    let old_key = key_of::<TokenRecordV1>(old.id);
    batch.require(&old_key, Condition::RevIs(kept.rev));
    batch.put_record(&old_key, &old)?;
    batch.put_record(&key_of::<TokenRecordV1>(record.id), &record)?;
    call.entry("agent_token.rotate")
        .on(old.id)
        .with("successor", record.id)
        .with("old_expires_at", old.expires_at)
        .in_workspace(record.workspace, &mut batch);
    let reply = created(&app, &record, &secret, call.meta.now);
    call.finish(&app, batch, reply).await
}

fn new_token<E: Endpoint>(
    app: &App,
    call: &Call<E>,
    expires_at: Timestamp,
) -> (TokenRecordV1, Secret<AgentTokenId>) {
    let secret = Secret::new(app.new_id(AgentTokenId::new), crate::keys::random());
    let record = TokenRecordV1 {
        id: secret.id(),
        workspace: call.proof.workspace(),
        digest: app.keys.hash_secret(secret.key()),
        description: Default::default(),
        long_living: false,
        created_by: call.proof.caller().user.id,
        created_at: call.meta.now,
        expires_at,
        revoked_at: None,
        use_limit: None,
        uses: 0,
        last_used_at: None,
        recent_hosts: Vec::new(),
        labels: Default::default(),
        ephemeral: false,
        replaced_by: None,
    };
    (record, secret)
}

fn find(app: &App, workspace: WorkspaceId, token: AgentTokenId) -> Result<Kept<TokenRecordV1>> {
    let tables = app.catalog.read();
    let found = tables
        .tokens
        .get(&token)
        .filter(|record| record.workspace == workspace)
        .cloned();
    found.ok_or_else(|| Error::not_found("agent token"))
}

/// What decisions need to know of a token.
pub fn facts_of(record: &TokenRecordV1) -> TokenFacts {
    TokenFacts {
        expires_at: record.expires_at,
        revoked_at: record.revoked_at,
        use_limit: record.use_limit,
        uses: record.uses,
    }
}

fn created(
    app: &App,
    record: &TokenRecordV1,
    secret: &Secret<AgentTokenId>,
    now: Timestamp,
) -> CreatedAgentToken {
    CreatedAgentToken {
        token: token_view(record, now),
        secret: secret.reveal(),
        install: InstallInfo {
            url: format!("{}{}", app.public_url, script_path(app, record.workspace)),
            pin: app.ca.https_pin(),
        },
    }
}

/// The workspace's own path only where an installer plugin is meant for it: the other one is
/// shorter to type.
fn script_path(app: &App, workspace: WorkspaceId) -> String {
    if app.installers.is_special(workspace) {
        super::system::workspace_script_path(workspace)
    } else {
        gateway_core::install::SCRIPT_PATH.to_owned()
    }
}

fn token_view(record: &TokenRecordV1, now: Timestamp) -> AgentToken {
    AgentToken {
        id: record.id,
        workspace: record.workspace,
        description: record.description.clone(),
        long_living_token: record.long_living,
        state: match token_state(&facts_of(record), now) {
            TokenState::Active => AgentTokenState::Active,
            TokenState::Expired => AgentTokenState::Expired,
            TokenState::Exhausted => AgentTokenState::Exhausted,
            TokenState::Revoked => AgentTokenState::Revoked,
        },
        created_by: record.created_by,
        created_at: record.created_at,
        expires_at: record.expires_at,
        revoked_at: record.revoked_at,
        use_limit: record.use_limit,
        uses: record.uses,
        last_used_at: record.last_used_at,
        recent_hosts: record.recent_hosts.clone(),
        labels: record.labels.clone(),
        ephemeral: record.ephemeral,
        replaced_by: record.replaced_by,
    }
}
