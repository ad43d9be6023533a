//! Refusals in the audit trail: every one that a person may ask about, but a
//! flood of them becomes an entry now and then, with nothing lost but repetition.

use std::net::IpAddr;

use gateway_store::Batch;
use model::audit::Actor;
use model::permission::Permission;
use model::tenancy::Scope;

use crate::app::App;
use crate::auth::Caller;
use crate::http::call::Meta;
use crate::state::change::{Entry, Origin};

/// A caller lacked a permission.
pub async fn forbidden(
    app: &App,
    caller: &Caller,
    permission: Permission,
    scope: Scope,
    meta: &Meta,
) {
    if !worth_an_entry(app, meta.source) {
        return;
    }
    let origin = Origin {
        actor: caller.actor(),
        source: meta.source.map(|source| source.to_string()),
        request: Some(meta.request),
        ticket: meta.ticket.clone(),
    };
    let entry = origin
        .entry(meta.now, "access.forbidden")
        .with("permission", permission)
        .refused("permission missing");
    write(app, scope, entry).await;
}

/// Somebody tries credentials from `source` faster than mistakes happen.
pub async fn burst(app: &App, source: IpAddr, kind: &'static str, meta: &Meta) {
    if !worth_an_entry(app, Some(source)) {
        return;
    }
    let origin = Origin {
        actor: Actor::Nobody,
        source: Some(source.to_string()),
        request: Some(meta.request),
        ticket: None,
    };
    let entry = origin
        .entry(meta.now, "authentication.burst")
        .with("kind", kind)
        .refused("too many failures from one source");
    write(app, Scope::Deployment, entry).await;
}

/// Writes an entry about a refusal to the chain of `scope`.
pub async fn write(app: &App, scope: Scope, entry: Entry) {
    let mut batch = Batch::new();
    match scope {
        Scope::Workspace { workspace, .. } => entry.in_workspace(workspace, &mut batch),
        Scope::Deployment | Scope::Project { .. } => entry.in_deployment(&mut batch),
    }
    app.outbox.add_to(&mut batch);
    // The refusal stands whether or not it could be written down.
    if let Err(error) = app.store.commit(batch).await {
        tracing::warn!(error = %error, "a refusal could not be written to the audit trail");
    }
}

/// Whether a refusal from `source` still gets an entry.
pub fn worth_an_entry(app: &App, source: Option<IpAddr>) -> bool {
    source.is_none_or(|source| app.rates.refusals.take(&source, app.uptime()).is_ok())
}
