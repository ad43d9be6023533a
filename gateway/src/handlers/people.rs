//! Users, service accounts and API keys.
//!
//! Whoever can act as a user can do what that user may. So everything that hands
//! out or takes over another's rights (making a key for them, enabling them)
//! demands that the caller has those rights too.

use std::sync::Arc;

use api::endpoint::Nothing;
use api::v1::people::*;
use api::{Endpoint, Page, ProblemCode};
use gateway_store::{Batch, Condition, Rev};
use model::Timestamp;
use model::access::{Authority, Limits};
use model::ids::{ApiKeyId, UserId};
use model::tenancy::Scope;
use model::token::Secret;

use super::page::page_of;
use super::tenancy::named;
use crate::app::App;
use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::state::names::{self, Namespace};
use crate::state::records::{ApiKeyRecordV1, BindingRecordV1, UserRecordV1, key_of};

/// Who the caller is and what it may do.
pub async fn get_self(app: Arc<App>, call: Call<GetSelf>) -> Result<api::v1::people::Caller> {
    let caller = call.proof.caller();
    let holdings = caller
        .authority
        .holdings
        .iter()
        .cloned()
        .map(Held::from)
        .collect();
    Ok(api::v1::people::Caller {
        user: user_view(&caller.user),
        api_key: api_key_view(&app, &caller.api_key),
        holdings,
    })
}

/// Lists the caller's keys.
pub async fn list_own_api_keys(app: Arc<App>, call: Call<ListOwnApiKeys>) -> Result<Page<ApiKey>> {
    list_keys(
        &app,
        call.proof.caller().user.id,
        call.query.limit,
        call.query.after.as_deref(),
    )
}

/// Makes a key for the caller.
pub async fn create_own_api_key(
    app: Arc<App>,
    call: Call<CreateOwnApiKey>,
) -> Result<CreatedApiKey> {
    let user = call.proof.caller().user.id;
    create_key(&app, &call, user, &call.body).await
}

/// Revokes a key of the caller.
pub async fn delete_own_api_key(app: Arc<App>, call: Call<DeleteOwnApiKey>) -> Result<Nothing> {
    let user = call.proof.caller().user.id;
    revoke_key(&app, &call, user, call.path.api_key).await
}

/// Lists users.
pub async fn list_users(app: Arc<App>, call: Call<ListUsers>) -> Result<Page<User>> {
    let tables = app.catalog.read();
    page_of(
        tables.users.values(),
        |user| user.id,
        call.query.limit,
        call.query.after.as_deref(),
        |user| Some(user_view(user)),
    )
}

/// Makes a user.
pub async fn create_user(app: Arc<App>, call: Call<CreateUserAccount>) -> Result<User> {
    let record = UserRecordV1 {
        id: app.new_id(UserId::new),
        name: call.body.name.clone(),
        service_account: call.body.kind == UserKind::ServiceAccount,
        display_name: call.body.display_name.clone(),
        disabled: false,
        created_at: call.meta.now,
    };
    let mut batch = Batch::new();
    names::take(&mut batch, Namespace::User, &record.name, record.id)?;
    batch.put_record(&key_of::<UserRecordV1>(record.id), &record)?;
    call.entry("user.create")
        .on(record.id)
        .with("name", &record.name)
        .in_deployment(&mut batch);
    let reply = user_view(&record);
    named(
        call.try_finish(&app, batch, &reply).await?,
        Namespace::User,
        &record.name,
    )?;
    Ok(reply)
}

/// Shows a user.
pub async fn get_user(app: Arc<App>, call: Call<GetUser>) -> Result<User> {
    let tables = app.catalog.read();
    tables
        .users
        .get(&call.path.user)
        .map(|record| user_view(record))
        .ok_or_else(|| Error::not_found("user"))
}

/// Changes a user.
pub async fn update_user(app: Arc<App>, call: Call<UpdateUserAccount>) -> Result<User> {
    let (mut record, rev) = user_for_change(&app, call.proof.caller(), call.path.user)?;
    if call.body.disabled == Some(true) {
        keep_an_owner(&app, record.id)?;
    }
    record.display_name = call
        .body
        .display_name
        .clone()
        .unwrap_or(record.display_name);
    record.disabled = call.body.disabled.unwrap_or(record.disabled);
    let mut batch = Batch::new();
    let key = key_of::<UserRecordV1>(record.id);
    batch.require(&key, Condition::RevIs(rev));
    batch.put_record(&key, &record)?;
    call.entry("user.update")
        .on(record.id)
        .with("disabled", record.disabled)
        .in_deployment(&mut batch);
    let reply = user_view(&record);
    call.finish(&app, batch, reply).await
}

/// Deletes a user with its keys and roles. Ids are never used again.
pub async fn delete_user(app: Arc<App>, call: Call<DeleteUser>) -> Result<Nothing> {
    let (record, rev) = user_for_change(&app, call.proof.caller(), call.path.user)?;
    keep_an_owner(&app, record.id)?;
    let mut batch = Batch::new();
    let key = key_of::<UserRecordV1>(record.id);
    batch.require(&key, Condition::RevIs(rev));
    batch.delete(&key);
    names::free(&mut batch, Namespace::User, &record.name)?;
    {
        // What does not fit stays behind without its user, and allows nothing.
        let tables = app.catalog.read();
        for binding in tables.bindings_of(record.id).take(24) {
            batch.delete(&key_of::<BindingRecordV1>(binding.id));
        }
        for api_key in tables.keys_of(record.id).take(24) {
            batch.delete(&key_of::<ApiKeyRecordV1>(api_key));
        }
    }
    call.entry("user.delete")
        .on(record.id)
        .with("name", &record.name)
        .in_deployment(&mut batch);
    call.finish(&app, batch, Nothing {}).await
}

/// Lists a user's keys.
pub async fn list_user_api_keys(
    app: Arc<App>,
    call: Call<ListUserApiKeys>,
) -> Result<Page<ApiKey>> {
    list_keys(
        &app,
        call.path.user,
        call.query.limit,
        call.query.after.as_deref(),
    )
}

/// Makes a key for a user.
pub async fn create_user_api_key(
    app: Arc<App>,
    call: Call<CreateUserApiKey>,
) -> Result<CreatedApiKey> {
    user_for_change(&app, call.proof.caller(), call.path.user)?;
    create_key(&app, &call, call.path.user, &call.body).await
}

/// Revokes a user's key.
pub async fn delete_user_api_key(app: Arc<App>, call: Call<DeleteUserApiKey>) -> Result<Nothing> {
    revoke_key(&app, &call, call.path.user, call.path.api_key).await
}

fn list_keys(
    app: &App,
    user: UserId,
    limit: Option<u32>,
    after: Option<&str>,
) -> Result<Page<ApiKey>> {
    let tables = app.catalog.read();
    if !tables.users.contains_key(&user) {
        return Err(Error::not_found("user"));
    }
    let keys = tables
        .keys_of(user)
        .filter_map(|id| tables.api_keys.get(&id));
    page_of(
        keys,
        |key| key.id,
        limit,
        after,
        |key| Some(api_key_view(app, key)),
    )
}

async fn create_key<E>(
    app: &App,
    call: &Call<E>,
    user: UserId,
    body: &CreateApiKey,
) -> Result<CreatedApiKey>
where
    E: Endpoint<Reply = CreatedApiKey>,
{
    if body.expires_at.is_some_and(|end| end <= call.meta.now) {
        return Err(Error::invalid(
            "expires_at",
            "the end must lie in the future",
        ));
    }
    let asked = body
        .limits
        .as_ref()
        .map(|limits| limits_of(app, limits))
        .transpose()?;
    let (record, secret) = new_key(app, user, call.meta.now);
    let record = ApiKeyRecordV1 {
        description: body.description.clone(),
        expires_at: body.expires_at,
        limits: narrowed(call.proof.caller(), asked)?,
        ..record
    };
    let mut batch = Batch::new();
    batch.require(&key_of::<UserRecordV1>(user), Condition::Present);
    batch.put_record(&key_of::<ApiKeyRecordV1>(record.id), &record)?;
    call.entry("api_key.create")
        .on(record.id)
        .with("user", user)
        .in_deployment(&mut batch);
    let reply = CreatedApiKey {
        api_key: api_key_view(app, &record),
        secret: secret.reveal(),
    };
    call.finish(app, batch, reply).await
}

/// A key without limits, and its secret.
pub(super) fn new_key(
    app: &App,
    user: UserId,
    now: Timestamp,
) -> (ApiKeyRecordV1, Secret<ApiKeyId>) {
    let secret = Secret::new(app.new_id(ApiKeyId::new), crate::keys::random());
    let record = ApiKeyRecordV1 {
        id: secret.id(),
        user,
        digest: app.keys.hash_secret(secret.key()),
        description: Default::default(),
        limits: None,
        created_at: now,
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
    };
    (record, secret)
}

/// A key made with a narrowed key is at least as narrow: limits asked for must
/// lie within the maker's, and without any asked for, the maker's are inherited.
fn narrowed(caller: &Caller, asked: Option<Limits>) -> Result<Option<Limits>> {
    match (&caller.api_key.limits, asked) {
        (_, Some(asked)) => {
            // The owner's roles are asked at every use; here only the maker's
            // own limits matter.
            if let Some(own) = &caller.api_key.limits {
                let own = Authority {
                    holdings: vec![model::access::Holding {
                        scope: own.scope,
                        rules: own.rules.clone(),
                    }],
                    limits: None,
                };
                if !own.covers(&asked.scope, &asked.rules) {
                    return Err(Error::new(
                        ProblemCode::ExceedsMaker,
                        "the new key would be wider than the one you use",
                    ));
                }
            }
            Ok(Some(asked))
        }
        (own, None) => Ok(own.clone()),
    }
}

fn limits_of(app: &App, asked: &KeyLimits) -> Result<Limits> {
    if asked.rules.is_empty() || asked.rules.len() > 64 {
        return Err(Error::invalid(
            "limits.rules",
            "a narrowed key needs 1 to 64 rules",
        ));
    }
    super::access::check_rules("limits.rules", &asked.rules)?;
    let tables = app.catalog.read();
    let scope = match (asked.workspace, asked.project) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid(
                "limits",
                "give a workspace or a project, not both",
            ));
        }
        (Some(workspace), None) => tables
            .scope_of(workspace)
            .ok_or_else(|| Error::invalid("limits.workspace", "there is no such workspace"))?,
        (None, Some(project)) if tables.projects.contains_key(&project) => {
            Scope::Project { project }
        }
        (None, Some(_)) => {
            return Err(Error::invalid("limits.project", "there is no such project"));
        }
        (None, None) => Scope::Deployment,
    };
    Ok(Limits {
        scope,
        rules: asked.rules.clone(),
    })
}

async fn revoke_key<E>(app: &App, call: &Call<E>, user: UserId, id: ApiKeyId) -> Result<Nothing>
where
    E: Endpoint<Reply = Nothing>,
{
    let kept = app
        .catalog
        .read()
        .api_keys
        .get(&id)
        .filter(|key| key.user == user)
        .cloned();
    let kept = kept.ok_or_else(|| Error::not_found("API key"))?;
    if kept.revoked_at.is_some() {
        return Ok(Nothing {});
    }
    let record = ApiKeyRecordV1 {
        revoked_at: Some(call.meta.now),
        ..(*kept.record).clone()
    };
    let mut batch = Batch::new();
    let key = key_of::<ApiKeyRecordV1>(id);
    batch.require(&key, Condition::RevIs(kept.rev));
    batch.put_record(&key, &record)?;
    call.entry("api_key.revoke")
        .on(id)
        .with("user", user)
        .in_deployment(&mut batch);
    call.finish(app, batch, Nothing {}).await
}

/// A user whose every right the caller has too.
fn user_for_change(app: &App, caller: &Caller, user: UserId) -> Result<(UserRecordV1, Rev)> {
    let tables = app.catalog.read();
    let kept = tables
        .users
        .get(&user)
        .ok_or_else(|| Error::not_found("user"))?;
    if user != caller.user.id {
        for holding in tables.authority_of(user).holdings {
            caller.must_cover(&holding.scope, &holding.rules)?;
        }
    }
    Ok(((*kept.record).clone(), kept.rev))
}

/// Somebody must be left who can give access.
pub(super) fn keep_an_owner(app: &App, leaving: UserId) -> Result<()> {
    let tables = app.catalog.read();
    let rules = |user: UserId| {
        let authority = tables.authority_of(user);
        authority.allows(
            model::permission::Permission::DeploymentAccessCreate,
            &Scope::Deployment,
            None,
        )
    };
    let others = tables
        .users
        .values()
        .any(|user| user.id != leaving && !user.disabled && rules(user.id));
    if others || !rules(leaving) {
        return Ok(());
    }
    Err(Error::conflict(
        "this is the last user who can give access to others; make another owner first",
    ))
}

pub(super) fn user_view(record: &UserRecordV1) -> User {
    User {
        id: record.id,
        name: record.name.clone(),
        kind: if record.service_account {
            UserKind::ServiceAccount
        } else {
            UserKind::Person
        },
        display_name: record.display_name.clone(),
        disabled: record.disabled,
        created_at: record.created_at,
    }
}

pub(super) fn api_key_view(app: &App, record: &ApiKeyRecordV1) -> ApiKey {
    ApiKey {
        id: record.id,
        user: record.user,
        description: record.description.clone(),
        limits: record.limits.clone(),
        created_at: record.created_at,
        expires_at: record.expires_at,
        last_used_at: app.key_uses.pending(record.id).max(record.last_used_at),
        revoked_at: record.revoked_at,
    }
}
