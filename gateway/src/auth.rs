//! Who is calling, and the proof that they may.
//!
//! [`Proof`] cannot be made outside this file: a handler, which takes a
//! [`crate::http::call::Call`] with a proof of its own endpoint inside, can only be
//! reached through [`authorize`]. The scope in the proof is the one that was
//! checked, so that handlers take workspace and project from there.

use std::marker::PhantomData;
use std::sync::Arc;

use api::{Access, Endpoint};
use model::Timestamp;
use model::access::Authority;
use model::audit::Actor;
use model::ids::{ApiKeyId, HostId, ProjectId, WorkspaceId};
use model::tenancy::{Environment, Scope};
use model::token::Secret;

use crate::app::App;
use crate::error::{Error, Result};
use crate::state::catalog::Tables;
use crate::state::records::{ApiKeyRecordV1, UserRecordV1};
use api::ProblemCode;

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The user.
    pub user: Arc<UserRecordV1>,
    /// Its key.
    pub api_key: Arc<ApiKeyRecordV1>,
    /// What it may do.
    pub authority: Arc<Authority>,
}

impl Caller {
    /// As it stands in the audit trail.
    pub fn actor(&self) -> Actor {
        Actor::User {
            user: self.user.id,
            name: self.user.name.to_string(),
            api_key: self.api_key.id,
        }
    }

    /// Whether this caller could give `rules` at `scope`; the reason if not.
    pub fn must_cover(&self, scope: &Scope, rules: &[model::access::Rule]) -> Result<()> {
        if self.authority.covers(scope, rules) {
            return Ok(());
        }
        let detail = "this would give more than your own key allows there; ask somebody who has these permissions";
        Err(Error::new(ProblemCode::ExceedsMaker, detail))
    }
}

/// The proof that a caller may call `E` at a scope.
///
/// Only [`authorize`] makes one:
///
/// ```compile_fail,E0451
/// use gateway::auth::Proof;
/// fn forge(caller: std::sync::Arc<gateway::auth::Caller>) -> Proof<api::v1::host::RetireHostRecord> {
///     let scope = model::tenancy::Scope::Deployment;
///     Proof { caller, scope, endpoint: std::marker::PhantomData }
/// }
/// ```
pub struct Proof<E> {
    caller: Arc<Caller>,
    scope: Scope,
    endpoint: PhantomData<fn() -> E>,
}

impl<E: Endpoint> Proof<E> {
    /// Who was proven.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// Where.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// The workspace of the path.
    ///
    /// # Panics
    /// When the endpoint's path has no `{workspace}`: a fault in the program that
    /// the permission matrix test meets.
    pub fn workspace(&self) -> WorkspaceId {
        match self.scope {
            Scope::Workspace { workspace, .. } => workspace,
            Scope::Deployment | Scope::Project { .. } => {
                unreachable!("{} has no workspace in its path", E::ID)
            }
        }
    }

    /// The project of the path.
    ///
    /// # Panics
    /// When the endpoint's path has neither `{project}` nor `{workspace}`.
    pub fn project(&self) -> ProjectId {
        match self.scope {
            Scope::Workspace { project, .. } | Scope::Project { project } => project,
            Scope::Deployment => unreachable!("{} has no project in its path", E::ID),
        }
    }
}

/// Finds out who is calling. The answer is the same for every kind of wrong
/// credential.
pub fn authenticate(app: &App, authorization: Option<&str>, now: Timestamp) -> Result<Arc<Caller>> {
    let refused = || {
        Error::new(
            ProblemCode::Unauthenticated,
            "send a valid API key as `Authorization: Bearer lbk_…`; it may be wrong, expired or revoked",
        )
    };
    let text = authorization
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(refused)?;
    let secret: Secret<ApiKeyId> = text.trim().parse().map_err(|_| refused())?;
    let tables = app.catalog.read();
    let record = tables.api_keys.get(&secret.id());
    // The same work whether or not there is such a key, so that the time tells nothing.
    let digest = record.map_or(&[0; 32], |record| &record.digest);
    let matches = app.keys.matches(secret.key(), digest);
    let Some(record) = record.filter(|record| matches && live(&tables, record, now)) else {
        return Err(refused());
    };
    let user = tables.users.get(&record.user).ok_or_else(refused)?;
    Ok(Arc::new(Caller {
        user: Arc::clone(&user.record),
        api_key: Arc::clone(&record.record),
        authority: tables.authority_of_key(record),
    }))
}

fn live(tables: &Tables, key: &ApiKeyRecordV1, now: Timestamp) -> bool {
    key.revoked_at.is_none()
        && key.expires_at.is_none_or(|end| now < end)
        && tables
            .users
            .get(&key.user)
            .is_some_and(|user| !user.disabled)
}

/// What a path names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Target {
    /// `{workspace}`.
    pub workspace: Option<WorkspaceId>,
    /// `{project}`.
    pub project: Option<ProjectId>,
    /// `{host}`, in the workspace or not.
    pub host: Option<HostId>,
}

/// Why an authenticated caller may not.
pub enum Denied {
    /// What the path names is absent or invisible.
    NotFound(&'static str),
    /// It is there, and the permission is lacking.
    Forbidden(Scope),
}

/// Proves that `caller` may call `E` on `target`.
pub fn authorize<E: Endpoint>(
    app: &App,
    caller: &Arc<Caller>,
    target: Target,
) -> Result<Proof<E>, Denied> {
    let (scope, environment) = resolve(&app.catalog.read(), target)?;
    let Access::Needs(permission) = E::ACCESS else {
        return Err(Denied::Forbidden(scope));
    };
    if !caller.authority.allows(permission, &scope, environment) {
        return Err(match scope {
            Scope::Deployment => Denied::Forbidden(scope),
            Scope::Project { .. } | Scope::Workspace { .. }
                if caller.authority.sees(&scope, environment) =>
            {
                Denied::Forbidden(scope)
            }
            Scope::Project { .. } => Denied::NotFound("project"),
            Scope::Workspace { .. } => Denied::NotFound("workspace"),
        });
    }
    Ok(Proof {
        caller: Arc::clone(caller),
        scope,
        endpoint: PhantomData,
    })
}

fn resolve(tables: &Tables, target: Target) -> Result<(Scope, Option<Environment>), Denied> {
    if let Some(id) = target.workspace {
        let workspace = tables
            .workspaces
            .get(&id)
            .ok_or(Denied::NotFound("workspace"))?;
        return Ok((workspace.scope(), Some(workspace.environment)));
    }
    if let Some(project) = target.project {
        let known = tables.projects.contains_key(&project);
        return if known {
            Ok((Scope::Project { project }, None))
        } else {
            Err(Denied::NotFound("project"))
        };
    }
    Ok((Scope::Deployment, None))
}

/// Whether a stream that was opened with `E` may go on: asked again whenever
/// access may have changed.
pub fn still_allowed<E: Endpoint>(app: &App, proof: &Proof<E>) -> bool {
    let now = app.now();
    let tables = app.catalog.read();
    let Some(key) = tables.api_keys.get(&proof.caller.api_key.id) else {
        return false;
    };
    if !live(&tables, key, now) {
        return false;
    }
    let authority = tables.authority_of_key(key);
    let environment = match proof.scope {
        Scope::Workspace { workspace, .. } => tables
            .workspaces
            .get(&workspace)
            .map(|record| record.environment),
        Scope::Deployment | Scope::Project { .. } => None,
    };
    matches!(E::ACCESS, Access::Needs(permission) if authority.allows(permission, &proof.scope, environment))
}
