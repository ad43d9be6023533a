//! Secrets of workspaces. Nothing here answers a value, or could: [`crate::plugins::secrets`]
//! is the only place where one is opened, for a plugin's call.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::endpoint::Nothing;
use api::v1::secret::*;
use api::{Page, ProblemCode};
use gateway_store::{Batch, Condition, Read, Record, Stored, fetch, list};
use model::ids::WorkspaceId;
use model::names::Name;
use zeroize::Zeroizing;

use super::page::page_of;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::power::records::PowerTargetRecordV1;
use crate::state::catalog::Tables;
use crate::state::plugin_records::{
    PluginGrantsRecordV1, PluginRecordV1, SecretRecordV1, SecretValueRecordV1,
};
use crate::state::records::{WorkspaceRecordV1, all_of, key_of};

/// Secrets of one workspace.
const MOST: usize = 1000;

/// Lists the secrets of a workspace.
pub async fn list_secrets(app: Arc<App>, call: Call<ListSecrets>) -> Result<Page<Secret>> {
    let tables = app.catalog.read();
    page_of(
        tables.secrets_of(call.proof.workspace()),
        |kept| kept.name.clone(),
        call.query.limit,
        call.query.after.as_deref(),
        |kept| Some(view(&tables, kept)),
    )
}

/// Sets a secret.
pub async fn set_secret(app: Arc<App>, mut call: Call<SetSecretValue>) -> Result<Secret> {
    let value = value_of(std::mem::take(&mut call.body))?;
    let workspace = call.proof.workspace();
    let name = call.path.secret.clone();
    let key = SecretRecordV1::key_of(workspace, &name)?;
    let found = fetch::<SecretRecordV1>(&*app.store, &key, Read::Linearizable).await?;
    if found.is_none() && app.catalog.read().secrets_of(workspace).count() >= MOST {
        let detail = format!("a workspace has at most {MOST} secrets; delete those of no use");
        return Err(Error::conflict(detail));
    }
    let (condition, version) = match &found {
        Some(Stored { record, rev }) => (Condition::RevIs(*rev), record.version + 1),
        None => (Condition::Absent, 1),
    };
    let record = SecretRecordV1 {
        workspace,
        name: name.clone(),
        version,
        updated_at: call.meta.now,
        updated_by: call.proof.caller().user.name.to_string(),
    };
    let context = SecretValueRecordV1::context(workspace, &name, version);
    let sealed = SecretValueRecordV1 {
        version,
        sealed: app.keys.seal(&context, &value),
    };
    let mut batch = Batch::new();
    batch.require(&key_of::<WorkspaceRecordV1>(workspace), Condition::Present);
    batch.require(&key, condition);
    batch.put_record(&key, &record)?;
    batch.put_record(&SecretValueRecordV1::key_of(workspace, &name)?, &sealed)?;
    // Not even its length: that of a short password tells something.
    call.entry("secret.set")
        .on(&name)
        .with("version", version)
        .in_workspace(workspace, &mut batch);
    let reply = view(&app.catalog.read(), &record);
    call.finish(&app, batch, reply).await
}

/// Deletes a secret.
pub async fn delete_secret(app: Arc<App>, call: Call<DeleteSecret>) -> Result<Nothing> {
    let workspace = call.proof.workspace();
    let name = &call.path.secret;
    let key = SecretRecordV1::key_of(workspace, name)?;
    // Before the plugins are read: a grant that is made meanwhile changes it.
    let marker_key = PluginGrantsRecordV1::the_key();
    let marker = fetch::<PluginGrantsRecordV1>(&*app.store, &marker_key, Read::Linearizable);
    let unchanged = marker
        .await?
        .map_or(Condition::Absent, |marker| Condition::RevIs(marker.rev));
    let found = fetch::<SecretRecordV1>(&*app.store, &key, Read::Linearizable).await?;
    let found = found.ok_or_else(|| Error::not_found("secret"))?;
    let users = users_of(&app, workspace, name).await?;
    if !users.is_empty() {
        let users: Vec<_> = users.iter().map(Name::as_str).collect();
        let detail = format!(
            "plugins use it: {}; take it out of their grants, and of power targets, first",
            users.join(", ")
        );
        return Err(Error::new(ProblemCode::Conflict, detail));
    }
    let mut batch = Batch::new();
    batch.require(&marker_key, unchanged);
    batch.require(&key, Condition::RevIs(found.rev));
    batch.delete(&key);
    batch.delete(&SecretValueRecordV1::key_of(workspace, name)?);
    call.entry("secret.delete")
        .on(name)
        .with("version", found.record.version)
        .in_workspace(workspace, &mut batch);
    call.finish(&app, batch, Nothing {}).await
}

fn value_of(body: SetSecret) -> Result<Zeroizing<Vec<u8>>> {
    let value = match (body.value, body.value_base64) {
        (Some(text), None) => Zeroizing::new(text.0.into_bytes()),
        (None, Some(text)) => {
            let text = Zeroizing::new(text.0);
            let bytes = data_encoding::BASE64.decode(text.as_bytes());
            // What the decoder says has a byte of the value in it.
            let bytes = bytes
                .map_err(|_| Error::invalid("value_base64", "it is not base64 with its padding"))?;
            Zeroizing::new(bytes)
        }
        _ => {
            let detail = "give either value or value_base64";
            return Err(Error::invalid("value", detail));
        }
    };
    match value.len() {
        1..=MAX_SECRET_BYTES => Ok(value),
        _ => {
            let detail = format!("a secret has 1 to {MAX_SECRET_BYTES} bytes");
            Err(Error::invalid("value", detail))
        }
    }
}

/// Plugins that get a secret by their grant or by a power target, asked of the store itself.
async fn users_of(app: &App, workspace: WorkspaceId, secret: &Name) -> Result<Vec<Name>> {
    let granted = names_of::<PluginRecordV1>(app, |plugin| {
        plugin.uses(workspace, secret).then(|| plugin.name.clone())
    });
    let mut users = granted.await?;
    let targets = names_of::<PowerTargetRecordV1>(app, |target| {
        target
            .uses(workspace, secret)
            .then(|| target.plugin.clone())
    });
    users.extend(targets.await?);
    users.sort();
    users.dedup();
    Ok(users)
}

/// What `pick` finds in all records of a kind.
async fn names_of<R: Record>(app: &App, pick: impl Fn(&R) -> Option<Name>) -> Result<Vec<Name>> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let all = all_of::<R>();
        let page = list::<R>(&*app.store, &all, after.as_ref(), 100, Read::Linearizable).await?;
        let these = page.records.iter().map(|(_, stored)| &stored.record);
        found.extend(these.filter_map(&pick));
        match page.records.last() {
            Some((key, _)) if page.more => after = Some(key.clone()),
            _ => return Ok(found),
        }
    }
}

fn view(tables: &Tables, record: &SecretRecordV1) -> Secret {
    let plugins = tables.plugins.values();
    let granted = plugins.filter(|plugin| plugin.uses(record.workspace, &record.name));
    let targets = tables.power.targets.values();
    let targets = targets.filter(|target| target.uses(record.workspace, &record.name));
    let users: BTreeSet<_> = granted
        .map(|plugin| plugin.name.clone())
        .chain(targets.map(|target| target.plugin.clone()))
        .collect();
    Secret {
        name: record.name.clone(),
        version: record.version,
        updated_at: record.updated_at,
        updated_by: record.updated_by.clone(),
        used_by: users.into_iter().collect(),
    }
}
