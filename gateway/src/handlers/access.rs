//! Roles and who has them. Nobody gives more than they have, and nobody takes
//! away or changes what is beyond them.

use std::sync::Arc;

use api::endpoint::Nothing;
use api::v1::access::*;
use api::{Endpoint, Page, ProblemCode};
use gateway_store::{Batch, Condition};
use model::Timestamp;
use model::access::{BUILT_IN_ROLES, Rule};
use model::ids::{RoleBindingId, RoleId};
use model::permission::{Pattern, Permission};
use model::tenancy::Scope;

use super::page::page_of;
use super::tenancy::named;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::state::catalog::{Tables, built_in_role, built_in_role_id};
use crate::state::names::{self, Namespace};
use crate::state::records::{BindingRecordV1, RoleRecordV1, UserRecordV1, key_of};

/// Lists every permission.
pub async fn list_permissions(_: Arc<App>, _: Call<ListPermissions>) -> Result<Permissions> {
    Ok(Permissions {
        permissions: Permission::ALL.to_vec(),
    })
}

/// Lists roles, built-in ones first.
pub async fn list_roles(app: Arc<App>, call: Call<ListRoles>) -> Result<Page<Role>> {
    let tables = app.catalog.read();
    page_of(
        all_roles(&tables).into_iter(),
        |role| role.id,
        call.query.limit,
        call.query.after.as_deref(),
        Some,
    )
}

/// Makes a role.
pub async fn create_role(app: Arc<App>, call: Call<CreateRoleDefinition>) -> Result<Role> {
    check_rules("rules", &call.body.rules)?;
    call.proof
        .caller()
        .must_cover(&Scope::Deployment, &call.body.rules)?;
    if BUILT_IN_ROLES
        .iter()
        .any(|role| role.name == call.body.name.as_str())
    {
        return Err(Error {
            field: Some("name"),
            ..Error::new(
                ProblemCode::NameTaken,
                "a built-in role has this name; choose another",
            )
        });
    }
    let record = RoleRecordV1 {
        id: app.new_id(RoleId::new),
        name: call.body.name.clone(),
        description: call.body.description.clone(),
        rules: call.body.rules.clone(),
        created_at: call.meta.now,
    };
    let mut batch = Batch::new();
    names::take(&mut batch, Namespace::Role, &record.name, record.id)?;
    batch.put_record(&key_of::<RoleRecordV1>(record.id), &record)?;
    call.entry("role.create")
        .on(record.id)
        .with("name", &record.name)
        .with("rules", rules_text(&record.rules))
        .in_deployment(&mut batch);
    let reply = role_view(&record);
    named(
        call.try_finish(&app, batch, &reply).await?,
        Namespace::Role,
        &record.name,
    )?;
    Ok(reply)
}

/// Shows a role.
pub async fn get_role(app: Arc<App>, call: Call<GetRole>) -> Result<Role> {
    let found = all_roles(&app.catalog.read())
        .into_iter()
        .find(|role| role.id == call.path.role);
    found.ok_or_else(|| Error::not_found("role"))
}

/// Changes a role. Both the old and the new rules must be the caller's to give.
pub async fn update_role(app: Arc<App>, call: Call<UpdateRoleDefinition>) -> Result<Role> {
    let kept = made_role(&app, call.path.role)?;
    let mut record = (*kept.record).clone();
    call.proof
        .caller()
        .must_cover(&Scope::Deployment, &record.rules)?;
    if let Some(rules) = &call.body.rules {
        check_rules("rules", rules)?;
        call.proof.caller().must_cover(&Scope::Deployment, rules)?;
        record.rules.clone_from(rules);
    }
    record.description = call.body.description.clone().unwrap_or(record.description);
    let mut batch = Batch::new();
    let key = key_of::<RoleRecordV1>(record.id);
    batch.require(&key, Condition::RevIs(kept.rev));
    batch.put_record(&key, &record)?;
    call.entry("role.update")
        .on(record.id)
        .with("rules", rules_text(&record.rules))
        .in_deployment(&mut batch);
    let reply = role_view(&record);
    call.finish(&app, batch, reply).await
}

/// Deletes a role that nobody has.
pub async fn delete_role(app: Arc<App>, call: Call<DeleteRole>) -> Result<Nothing> {
    let kept = made_role(&app, call.path.role)?;
    if app
        .catalog
        .read()
        .bindings
        .values()
        .any(|binding| binding.role == kept.id)
    {
        return Err(Error::new(
            ProblemCode::NotEmpty,
            "somebody has this role; take it away first",
        ));
    }
    let mut batch = Batch::new();
    let key = key_of::<RoleRecordV1>(kept.id);
    batch.require(&key, Condition::RevIs(kept.rev));
    batch.delete(&key);
    names::free(&mut batch, Namespace::Role, &kept.name)?;
    call.entry("role.delete")
        .on(kept.id)
        .with("name", &kept.name)
        .in_deployment(&mut batch);
    call.finish(&app, batch, Nothing {}).await
}

macro_rules! bindings {
    ($($list:ident $list_endpoint:ident, $create:ident $create_endpoint:ident, $delete:ident $delete_endpoint:ident;)*) => {$(
        /// Lists who has roles at the scope of the path.
        pub async fn $list(app: Arc<App>, call: Call<$list_endpoint>) -> Result<Page<RoleBinding>> {
            list_bindings(&app, call.proof.scope(), call.query.limit, call.query.after.as_deref())
        }

        /// Gives a role at the scope of the path.
        pub async fn $create(app: Arc<App>, call: Call<$create_endpoint>) -> Result<RoleBinding> {
            create_binding(&app, &call, &call.body).await
        }

        /// Takes a role at the scope of the path away.
        pub async fn $delete(app: Arc<App>, call: Call<$delete_endpoint>) -> Result<Nothing> {
            delete_binding(&app, &call, call.path.binding).await
        }
    )*};
}

bindings! {
    list_deployment_bindings ListDeploymentBindings,
        create_deployment_binding CreateDeploymentBinding,
        delete_deployment_binding DeleteDeploymentBinding;
    list_project_bindings ListProjectBindings,
        create_project_binding CreateProjectBinding,
        delete_project_binding DeleteProjectBinding;
    list_workspace_bindings ListWorkspaceBindings,
        create_workspace_binding CreateWorkspaceBinding,
        delete_workspace_binding DeleteWorkspaceBinding;
}

fn list_bindings(
    app: &App,
    scope: Scope,
    limit: Option<u32>,
    after: Option<&str>,
) -> Result<Page<RoleBinding>> {
    let tables = app.catalog.read();
    page_of(
        tables.bindings.values(),
        |binding| binding.id,
        limit,
        after,
        |binding| (binding.scope == scope).then(|| binding_view(binding)),
    )
}

async fn create_binding<E>(
    app: &App,
    call: &Call<E>,
    body: &CreateRoleBinding,
) -> Result<RoleBinding>
where
    E: Endpoint<Reply = RoleBinding>,
{
    let scope = call.proof.scope();
    let rules = app
        .catalog
        .read()
        .rules_of(body.role)
        .ok_or_else(|| Error::invalid("role", "there is no such role"))?;
    call.proof.caller().must_cover(&scope, &rules)?;
    let record = BindingRecordV1 {
        id: app.new_id(RoleBindingId::new),
        user: body.user,
        role: body.role,
        scope,
        created_at: call.meta.now,
    };
    let mut batch = Batch::new();
    {
        let tables = app.catalog.read();
        if !tables.users.contains_key(&body.user) {
            return Err(Error::invalid("user", "there is no such user"));
        }
        if let Some(same) = tables
            .bindings_of(body.user)
            .find(|have| have.role == body.role && have.scope == scope)
        {
            return Ok(binding_view(same));
        }
        batch.require(&key_of::<UserRecordV1>(body.user), Condition::Present);
        // The rules that were checked must still be the rules.
        if let Some(role) = tables.roles.get(&body.role) {
            batch.require(
                &key_of::<RoleRecordV1>(body.role),
                Condition::RevIs(role.rev),
            );
        }
    }
    batch.put_record(&key_of::<BindingRecordV1>(record.id), &record)?;
    scoped(
        call.entry("access.grant")
            .on(record.id)
            .with("user", record.user)
            .with("role", record.role),
        scope,
        &mut batch,
    );
    let reply = binding_view(&record);
    call.finish(app, batch, reply).await
}

async fn delete_binding<E>(app: &App, call: &Call<E>, id: RoleBindingId) -> Result<Nothing>
where
    E: Endpoint<Reply = Nothing>,
{
    let scope = call.proof.scope();
    let (kept, rules) = {
        let tables = app.catalog.read();
        let kept = tables
            .bindings
            .get(&id)
            .filter(|binding| binding.scope == scope)
            .cloned();
        let kept = kept.ok_or_else(|| Error::not_found("role binding"))?;
        let rules = tables.rules_of(kept.role).unwrap_or_default();
        (kept, rules)
    };
    call.proof.caller().must_cover(&scope, &rules)?;
    if scope == Scope::Deployment {
        super::people::keep_an_owner(app, kept.user)?;
    }
    let mut batch = Batch::new();
    let key = key_of::<BindingRecordV1>(id);
    batch.require(&key, Condition::RevIs(kept.rev));
    batch.delete(&key);
    scoped(
        call.entry("access.revoke")
            .on(id)
            .with("user", kept.user)
            .with("role", kept.role),
        scope,
        &mut batch,
    );
    call.finish(app, batch, Nothing {}).await
}

/// Into the chain where the scope's people look.
fn scoped(entry: crate::state::change::Entry, scope: Scope, batch: &mut Batch) {
    match scope {
        Scope::Workspace { workspace, .. } => entry.in_workspace(workspace, batch),
        Scope::Project { project } => entry.with("project", project).in_deployment(batch),
        Scope::Deployment => entry.in_deployment(batch),
    }
}

/// Rules as a caller may write them: every pattern covers something.
pub(super) fn check_rules(field: &'static str, rules: &[Rule]) -> Result<()> {
    if rules.is_empty() || rules.len() > 128 {
        return Err(Error::invalid(field, "give 1 to 128 rules"));
    }
    for rule in rules {
        rule.allow
            .as_str()
            .parse::<Pattern>()
            .map_err(|error| Error::invalid(field, error.to_string()))?;
    }
    Ok(())
}

fn made_role(app: &App, id: RoleId) -> Result<crate::state::catalog::Kept<RoleRecordV1>> {
    if built_in_role(id).is_some() {
        return Err(Error::conflict(
            "built-in roles cannot be changed; make a role of your own",
        ));
    }
    app.catalog
        .read()
        .roles
        .get(&id)
        .cloned()
        .ok_or_else(|| Error::not_found("role"))
}

fn all_roles(tables: &Tables) -> Vec<Role> {
    let built_in = BUILT_IN_ROLES.iter().enumerate().map(|(place, role)| Role {
        id: built_in_role_id(place),
        name: role.typed_name(),
        description: role.typed_description(),
        built_in: true,
        rules: role.rules(),
        created_at: Timestamp::from_millis(0),
    });
    let mut roles: Vec<_> = built_in
        .chain(tables.roles.values().map(|record| role_view(record)))
        .collect();
    roles.sort_by_key(|role| role.id);
    roles
}

fn rules_text(rules: &[Rule]) -> String {
    let text = |rule: &Rule| {
        let places: Vec<_> = rule
            .environments
            .iter()
            .map(|place| place.as_str())
            .collect();
        if places.is_empty() {
            rule.allow.to_string()
        } else {
            format!("{}@{}", rule.allow, places.join("+"))
        }
    };
    rules.iter().map(text).collect::<Vec<_>>().join(",")
}

fn role_view(record: &RoleRecordV1) -> Role {
    Role {
        id: record.id,
        name: record.name.clone(),
        description: record.description.clone(),
        built_in: false,
        rules: record.rules.clone(),
        created_at: record.created_at,
    }
}

fn binding_view(record: &BindingRecordV1) -> RoleBinding {
    RoleBinding {
        id: record.id,
        user: record.user,
        role: record.role,
        scope: record.scope,
        created_at: record.created_at,
    }
}
