//! Plugins: each operation decides purely ([`gateway_core::plugin`]), writes one batch, and
//! leaves loading and dropping to the reconciler ([`crate::plugins`]).

use std::sync::Arc;
use std::time::Duration;

use api::endpoint::Nothing;
use api::v1::plugin::*;
use api::{Endpoint, Page, ProblemCode};
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use bytes::Bytes;
use egress::oci::{Pulled, Reference};
use gateway_core::plugin::{Accepts, Refusal, Upgraded};
use gateway_store::{Batch, CommitError, Condition};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use model::names::{Name, Text};
use model::permission::Permission;
use model::plugin::{Grant, PluginDigest, Workspaces};

use super::page::page_of;
use crate::app::App;
use crate::auth::Proof;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::plugins::engine::Component;
use crate::plugins::package::{self, Coming};
use crate::plugins::{values, view};
use crate::signal::dead;
use crate::state::catalog::{Kept, Tables};
use crate::state::change::Entry;
use crate::state::plugin_records::{
    ComponentV1, PluginEventV1, PluginGrantsRecordV1, PluginRecordV1, SecretRecordV1,
};
use crate::state::records::{WorkspaceRecordV1, key_of};

/// For 64 MiB on a bad line.
const RECEIVE_WITHIN: Duration = Duration::from_secs(300);
/// For a check of its own that a plugin makes, which may call servers.
pub const CHECK_WITHIN: Duration = Duration::from_secs(310);

/// Lists plugins.
pub async fn list_plugins(app: Arc<App>, call: Call<ListPlugins>) -> Result<Page<Plugin>> {
    let tables = app.catalog.read();
    page_of(
        tables.plugins.values(),
        |kept| kept.name.clone(),
        call.query.limit,
        call.query.after.as_deref(),
        |kept| Some(view::plugin(&app.plugins, kept)),
    )
}

/// Shows a plugin.
pub async fn get_plugin(app: Arc<App>, call: Call<GetPlugin>) -> Result<Plugin> {
    let kept = find(&app, &call.path.plugin)?;
    Ok(view::plugin(&app.plugins, &kept))
}

/// Installs a plugin.
pub async fn install_plugin(
    app: Arc<App>,
    call: Call<InstallPlugin>,
    parts: Parts,
    body: Body,
) -> Result<Plugin> {
    let _turn = app.plugins.turn()?;
    let bytes = receive(&parts, body).await?;
    let (signature, source) = (call.query.signature.as_ref(), call.query.source.as_ref());
    let arrived = Arrived::sent(bytes, signature, source);
    install(&app, &call, call.query.name.clone(), arrived).await
}

/// A component that has come, from wherever.
pub(super) struct Arrived {
    bytes: Bytes,
    digest: PluginDigest,
    signature: Option<String>,
    source: String,
    reference: Option<String>,
}

impl Arrived {
    fn sent(bytes: Bytes, signature: Option<&String>, source: Option<&Text>) -> Self {
        Self {
            digest: PluginDigest::of(&bytes),
            bytes,
            signature: signature.cloned(),
            source: source.map_or_else(String::new, ToString::to_string),
            reference: None,
        }
    }

    /// What a reference led to.
    pub(super) fn pulled(pulled: Pulled, reference: &Reference) -> Self {
        // One that is no text is no signature, and is to be refused as such, not left out.
        let signature = pulled.signature;
        let signature = signature.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Self {
            bytes: pulled.component.into(),
            digest: pulled.digest,
            signature,
            source: pulled.pinned.to_string(),
            reference: Some(reference.to_string()),
        }
    }

    /// An entry about it.
    fn entry<E: Endpoint>(&self, call: &Call<E>, what: &'static str) -> Entry {
        let entry = call.entry(what).with("digest", self.digest);
        match &self.reference {
            Some(reference) => entry.with("reference", reference),
            None => entry,
        }
    }
}

/// Installs what has come.
pub(super) async fn install<E: Endpoint<Reply = Plugin>>(
    app: &App,
    call: &Call<E>,
    name: Option<Name>,
    arrived: Arrived,
) -> Result<Plugin> {
    let (component, loaded) = match admit(app, call, &arrived).await {
        Ok(admitted) => admitted,
        Err(error) => {
            let entry = arrived.entry(call, "plugin.install");
            return Err(refused(app, entry, error).await);
        }
    };
    let name = name.unwrap_or_else(|| component.manifest.name.clone());
    if name.as_str() == RESERVED_NAME {
        let detail = format!("`{RESERVED_NAME}` is a word of the API; choose another name");
        return Err(Error::invalid("name", detail));
    }
    let most = app.plugins.most();
    if app.catalog.read().plugins.len() >= most {
        let detail = format!("{most} plugins are installed, as many as plugins.installed allows");
        return Err(Error::conflict(detail));
    }
    if app.catalog.read().plugins.contains_key(&name) {
        return Err(taken(&name));
    }
    values::purge(&*app.store, &name).await?;
    let configuration = package::carried_over(app, &loaded, None).await?;
    let mut record = PluginRecordV1::installed(name.clone(), component, call.meta.now);
    if let Some(text) = configuration {
        let kept = package::keep_configuration(app, text, call.meta.now).await?;
        let decided = record.decided().configured();
        record = record.with(decided, &[]);
        (record.configuration, record.configuration_revision) = (Some(kept), 1);
    }
    note(&mut record, call, "plugin.install", arrived.digest);
    let key = PluginRecordV1::key_of(&name)?;
    let mut batch = Batch::new();
    batch.require(&key, Condition::Absent);
    batch.put_record(&key, &record)?;
    arrived
        .entry(call, "plugin.install")
        .on(&name)
        .with("version", &record.present.manifest.version)
        .with("kind", record.present.kind)
        .with("source", &record.present.source)
        .with(
            "signed_by",
            record.present.signed_by.as_deref().unwrap_or("nobody"),
        )
        .in_deployment(&mut batch);
    let reply = view::plugin(&app.plugins, &record);
    match call.try_finish(app, batch, &reply).await? {
        Ok(()) => Ok(reply),
        Err(CommitError::Conflict { key: at, .. }) if at == key => Err(taken(&name)),
        Err(error) => Err(error.into()),
    }
}

fn taken(name: &Name) -> Error {
    let detail = format!("a plugin `{name}` is installed; upgrade it, or choose another name");
    Error {
        field: Some("name"),
        ..Error::new(ProblemCode::NameTaken, detail)
    }
}

/// Replaces a plugin by another version, or holds that.
pub async fn upgrade_plugin(
    app: Arc<App>,
    call: Call<UpgradePlugin>,
    parts: Parts,
    body: Body,
) -> Result<UpgradedPlugin> {
    find(&app, &call.path.plugin)?;
    let _turn = app.plugins.turn()?;
    let bytes = receive(&parts, body).await?;
    let (signature, source) = (call.query.signature.as_ref(), call.query.source.as_ref());
    let arrived = Arrived::sent(bytes, signature, source);
    upgrade(&app, &call, arrived).await
}

/// Replaces a plugin by what has come, or holds that.
pub(super) async fn upgrade<E>(
    app: &App,
    call: &Call<E>,
    arrived: Arrived,
) -> Result<UpgradedPlugin>
where
    E: Endpoint<Path = OfPlugin, Reply = UpgradedPlugin>,
{
    let name = &call.path.plugin;
    let upgraded = async {
        let (component, loaded) = admit(app, call, &arrived).await?;
        let kept = find(app, name)?;
        let before = (*kept.record).clone();
        let carried = carry(app, &before, &loaded).await?;
        let accepts = accepts(carried.as_ref());
        let (decided, how) = before
            .decided()
            .upgrade(component.package(), accepts)
            .map_err(|refusal| refusal_of(&refusal))?;
        let mut record = before.clone().with(decided, &[component]);
        if how == Upgraded::Live {
            reconfigure(app, &before, &mut record, carried, call).await?;
        }
        Ok((kept, record, how))
    };
    let (kept, mut record, how) = match upgraded.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            let entry = arrived.entry(call, "plugin.upgrade").on(name);
            return Err(refused(app, entry, error).await);
        }
    };
    let (what, outcome) = match how {
        Upgraded::Live => ("plugin.upgrade", UpgradeOutcome::Live),
        Upgraded::Held => ("plugin.upgrade.hold", UpgradeOutcome::Held),
    };
    note(&mut record, call, what, arrived.digest);
    let entry = arrived
        .entry(call, what)
        .on(name)
        .with("before", kept.present.digest)
        .with("source", &arrived.source);
    let reply = UpgradedPlugin {
        outcome,
        plugin: view::plugin(&app.plugins, &record),
    };
    let batch = replacing(&kept, &record, entry)?;
    call.finish(app, batch, reply).await
}

/// Approves the upgrade that waits.
pub async fn approve_plugin_upgrade(
    app: Arc<App>,
    call: Call<ApprovePluginUpgrade>,
) -> Result<Plugin> {
    let kept = find(&app, &call.path.plugin)?;
    let before = (*kept.record).clone();
    // Asked of nobody but the record: that another waits is told before anything is compiled.
    let waiting = before.pending.as_ref().map(|pending| &pending.component);
    let carried = match waiting.filter(|waiting| waiting.digest == call.body.digest) {
        Some(waiting) => {
            let loaded = package::load_recorded(&app, waiting).await;
            let loaded = loaded.map_err(|fault| Error::conflict(fault.message))?;
            carry(&app, &before, &loaded).await?
        }
        None => None,
    };
    let decided = before
        .decided()
        .approve(call.body.digest, accepts(carried.as_ref()))
        .map_err(|refusal| refusal_of(&refusal))?;
    let mut record = before.clone().with(decided, &[]);
    reconfigure(&app, &before, &mut record, carried, &call).await?;
    let digest = record.present.digest;
    let widening = before.pending.iter().flat_map(|it| &it.widening);
    let more: Vec<_> = widening.map(|more| more.need.as_str()).collect();
    finish(
        &app,
        call,
        &kept,
        record,
        "plugin.upgrade.approve",
        |entry| {
            entry
                .with("before", before.present.digest)
                .with("more", more.join(", "))
                .with("after", digest)
        },
    )
    .await
}

/// Goes back to the version before, with the configuration that it had.
pub async fn rollback_plugin(app: Arc<App>, call: Call<RollbackPlugin>) -> Result<Plugin> {
    let kept = find(&app, &call.path.plugin)?;
    let before = (*kept.record).clone();
    let accepts = match before.previous_configuration {
        Some(_) => Accepts::Yes,
        None => Accepts::No,
    };
    let decided = before
        .decided()
        .rollback(accepts)
        .map_err(|refusal| refusal_of(&refusal))?;
    let mut record = before.clone().with(decided, &[]);
    record.configuration = before.previous_configuration;
    record.previous_configuration = accepted(&before);
    record.configuration_revision += 1;
    finish(&app, call, &kept, record, "plugin.rollback", |entry| {
        entry.with("before", before.present.digest)
    })
    .await
}

/// Says what a plugin may do.
pub async fn grant_plugin(app: Arc<App>, call: Call<GrantPlugin>) -> Result<Plugin> {
    let kept = find(&app, &call.path.plugin)?;
    let grant = call.body.clone();
    let mut batch = Batch::new();
    bind(&app, &call, &grant, &mut batch)?;
    let decided = kept
        .decided()
        .granted(grant.clone())
        .map_err(|refusal| refusal_of(&refusal))?;
    let mut record = (*kept.record).clone().with(decided, &[]);
    let digest = record.present.digest;
    note(&mut record, &call, "plugin.grant", digest);
    let key = PluginRecordV1::key_of(&record.name)?;
    batch.require(&key, Condition::RevIs(kept.rev));
    batch.put_record(&key, &record)?;
    let marker = PluginGrantsRecordV1 { at: call.meta.now };
    batch.put_record(&PluginGrantsRecordV1::the_key(), &marker)?;
    summary(entry(&call, "plugin.grant", &record.name, digest), &grant).in_deployment(&mut batch);
    let reply = view::plugin(&app.plugins, &record);
    call.finish(&app, batch, reply).await
}

/// Workspaces and secrets of a grant: they are there, and the caller may give these secrets.
/// That is asked of all of them, also of those that an earlier grant had: who says where a
/// secret is sent could as well read it.
fn bind(app: &App, call: &Call<GrantPlugin>, grant: &Grant, batch: &mut Batch) -> Result<()> {
    const MOST_WORKSPACES: usize = 32;
    let tables = app.catalog.read();
    let authority = &call.proof.caller().authority;
    if let Workspaces::Only(these) = &grant.workspaces {
        if these.is_empty() || these.len() > MOST_WORKSPACES {
            let detail = format!("name 1 to {MOST_WORKSPACES} workspaces, or all");
            return Err(Error::invalid("workspaces", detail));
        }
        for workspace in these {
            if !tables.workspaces.contains_key(workspace) {
                let detail = format!("there is no workspace {workspace}");
                return Err(Error::invalid("workspaces", detail));
            }
        }
    }
    routes_exist(&tables, &call.proof, grant)?;
    let mut bound = std::collections::BTreeSet::new();
    for (name, binding) in &grant.secrets {
        let may = tables.workspaces.get(&binding.workspace).is_some_and(|it| {
            authority.allows(
                Permission::WorkspaceSecretWrite,
                &it.scope(),
                Some(it.environment),
            )
        });
        if !may {
            let detail = format!(
                "secrets.{name}: you lack the permission `{}` in workspace {}, or there is none; who \
                 gives a secret to a plugin must be allowed to set it",
                Permission::WorkspaceSecretWrite,
                binding.workspace
            );
            return Err(Error::new(ProblemCode::ExceedsMaker, detail));
        }
        if !bound.insert((binding.workspace, binding.secret.clone())) {
            continue;
        }
        let key = SecretRecordV1::key_of(binding.workspace, &binding.secret)?;
        let mut there = tables.secrets_of(binding.workspace);
        if !there.any(|secret| secret.name == binding.secret) {
            let detail = format!(
                "secrets.{name}: workspace {} has no secret `{}`; set it first",
                binding.workspace, binding.secret
            );
            return Err(Error::invalid("secrets", detail));
        }
        batch.require(&key, Condition::Present);
        batch.require(
            &key_of::<WorkspaceRecordV1>(binding.workspace),
            Condition::Present,
        );
        call.entry("secret.grant")
            .on(&binding.secret)
            .with("plugin", &call.path.plugin)
            .in_workspace(binding.workspace, batch);
    }
    // Conditions and audit entries of one batch have a limit.
    if bound.len() > 16 {
        return Err(Error::invalid("secrets", "at most 16 secrets in a grant"));
    }
    Ok(())
}

/// Hosts of a grant's routes: the caller sees them, and they are where the route says.
fn routes_exist(tables: &Tables, proof: &Proof<GrantPlugin>, grant: &Grant) -> Result<()> {
    for (name, route) in &grant.routes {
        let sees = tables.workspaces.get(&route.workspace).is_some_and(|it| {
            let authority = &proof.caller().authority;
            authority.allows(Permission::HostList, &it.scope(), Some(it.environment))
        });
        if !sees {
            let detail = format!(
                "routes.{name}: you lack the permission `{}` in workspace {}, or there is none; who \
                 routes a plugin through hosts must see them",
                Permission::HostList,
                route.workspace
            );
            return Err(Error::new(ProblemCode::ExceedsMaker, detail));
        }
        for host in &route.hosts {
            let record = tables.hosts.get(host);
            if record.is_none_or(|record| record.workspace != route.workspace) {
                let detail = format!(
                    "routes.{name}: workspace {} has no host {host}",
                    route.workspace
                );
                return Err(Error::invalid("routes", detail));
            }
        }
    }
    Ok(())
}

fn summary(entry: Entry, grant: &Grant) -> Entry {
    let workspaces = match &grant.workspaces {
        Workspaces::None => "none".to_owned(),
        Workspaces::All => "all".to_owned(),
        Workspaces::Only(these) => {
            let texts: Vec<_> = these.iter().map(ToString::to_string).collect();
            texts.join(" ")
        }
    };
    let hosts: Vec<_> = grant
        .http
        .iter()
        .flat_map(|rule| {
            rule.hosts
                .iter()
                .map(|host| format!("{}={host}", rule.need))
        })
        .collect();
    let secrets: Vec<_> = grant
        .secrets
        .iter()
        .map(|(name, binding)| format!("{name}={}/{}", binding.workspace, binding.secret))
        .collect();
    let routes: Vec<_> = grant
        .routes
        .iter()
        .map(|(name, route)| format!("{name}={}", route.workspace))
        .collect();
    entry
        .with("routes", routes.join(" "))
        .with("workspaces", workspaces)
        .with("hosts", hosts.join(" "))
        .with("secrets", secrets.join(" "))
}

/// Shows a plugin's configuration.
pub async fn get_plugin_configuration(
    app: Arc<App>,
    call: Call<GetPluginConfiguration>,
) -> Result<PluginConfiguration> {
    let kept = find(&app, &call.path.plugin)?;
    let Some(configuration) = kept.configuration else {
        return Err(Error::new(
            ProblemCode::NotFound,
            "the plugin has no configuration yet",
        ));
    };
    let text = package::read_configuration(&app, &configuration).await;
    let text = text.map_err(|fault| Error::internal(&fault))?;
    let configuration = serde_json::from_str(&text).map_err(|error| Error::internal(&error))?;
    Ok(PluginConfiguration { configuration })
}

/// Configures a plugin.
pub async fn configure_plugin(app: Arc<App>, call: Call<ConfigurePlugin>) -> Result<Plugin> {
    let kept = find(&app, &call.path.plugin)?;
    let text = call.body.configuration.to_string();
    if text.len() > MAX_CONFIGURATION_BYTES {
        let detail = format!("a configuration has at most {MAX_CONFIGURATION_BYTES} bytes");
        return Err(Error::invalid("configuration", detail));
    }
    let loaded = package::load_recorded(&app, &kept.present).await;
    let loaded = loaded.map_err(|fault| Error::conflict(fault.message))?;
    let findings = package::findings(&app, &loaded, &text).await;
    let findings = findings.map_err(|fault| {
        let detail = format!(
            "the plugin cannot judge it: [{}] {}",
            fault.code, fault.message
        );
        Error::invalid("configuration", model::names::clean(&detail, 1024))
    })?;
    if package::accepts(&findings) == Accepts::No {
        let texts: Vec<_> = findings
            .iter()
            .filter(|finding| finding.severity == FindingSeverity::Error)
            .map(|finding| match finding.at.as_str() {
                "" => finding.message.clone(),
                at => format!("{at}: {}", finding.message),
            })
            .collect();
        return Err(Error::invalid("configuration", texts.join("; ")));
    }
    let mut record = (*kept.record).clone();
    let decided = record.decided().configured();
    record = record.with(decided, &[]);
    let configuration = package::keep_configuration(&app, text, call.meta.now).await?;
    record.configuration = Some(configuration);
    record.configuration_revision += 1;
    let revision = record.configuration_revision;
    finish(&app, call, &kept, record, "plugin.configure", |entry| {
        let digest = data_encoding::HEXLOWER.encode(&configuration.digest);
        entry
            .with("revision", revision)
            .with("configuration", format!("sha256:{digest}"))
    })
    .await
}

/// Lets a plugin run.
pub async fn enable_plugin(app: Arc<App>, call: Call<EnablePlugin>) -> Result<Plugin> {
    let kept = find(&app, &call.path.plugin)?;
    let decided = kept.decided().enable();
    let decided = decided.map_err(|refusal| refusal_of(&refusal))?;
    let record = (*kept.record).clone().with(decided, &[]);
    finish(&app, call, &kept, record, "plugin.enable", |entry| entry).await
}

/// Turns a plugin off.
pub async fn disable_plugin(app: Arc<App>, call: Call<DisablePlugin>) -> Result<Plugin> {
    let kept = find(&app, &call.path.plugin)?;
    let record = (*kept.record).clone();
    let decided = record.decided().disable();
    let record = record.with(decided, &[]);
    finish(&app, call, &kept, record, "plugin.disable", |entry| entry).await
}

/// Removes a plugin.
pub async fn remove_plugin(app: Arc<App>, call: Call<RemovePlugin>) -> Result<Nothing> {
    let kept = find(&app, &call.path.plugin)?;
    let removable = kept.decided().removable();
    removable.map_err(|refusal| refusal_of(&refusal))?;
    let key = PluginRecordV1::key_of(&kept.name)?;
    let mut batch = Batch::new();
    batch.require(&key, Condition::RevIs(kept.rev));
    batch.delete(&key);
    entry(&call, "plugin.remove", &kept.name, kept.present.digest).in_deployment(&mut batch);
    let reply = call.finish(&app, batch, Nothing {}).await?;
    // What is left over when this is cut short goes before another of this name is installed.
    values::purge(&*app.store, &kept.name).await?;
    dead::purge(&app, &kept.name).await?;
    Ok(reply)
}

/// Has a plugin look whether it works.
pub async fn check_plugin(app: Arc<App>, call: Call<CheckPlugin>) -> Result<PluginHealth> {
    let kept = find(&app, &call.path.plugin)?;
    let Some(instance) = app.plugins.ready(&kept.name) else {
        return Err(Error::conflict(
            "the plugin is not loaded; `running` of the plugin says why",
        ));
    };
    let began = std::time::Instant::now();
    let health = crate::plugins::outcome::ask(&app, &kept.name, &*instance).await?;
    Ok(PluginHealth {
        healthy: health.healthy,
        findings: health.findings,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// Reads what a plugin logs.
pub async fn list_plugin_logs(app: Arc<App>, call: Call<ListPluginLogs>) -> Result<PluginLogs> {
    let kept = find(&app, &call.path.plugin)?;
    let limit = super::page::limit_of(call.query.limit)?;
    let after = call.query.after.unwrap_or(0);
    let Some(instance) = app.plugins.ready(&kept.name) else {
        return Ok(PluginLogs {
            lines: Vec::new(),
            next: after,
            missed: 0,
        });
    };
    let logs = instance.logs(after, limit);
    // After a restart of the gateway numbers begin again.
    let newest = logs.lines.last().map_or(after, |line| line.sequence);
    Ok(PluginLogs {
        missed: match call.query.after {
            Some(after) => logs.oldest.saturating_sub(after.saturating_add(1)),
            None => 0,
        },
        next: newest,
        lines: logs.lines,
    })
}

pub(super) fn find(app: &App, name: &Name) -> Result<Kept<PluginRecordV1>> {
    let found = app.catalog.read().plugins.get(name).cloned();
    found.ok_or_else(|| Error::not_found("plugin"))
}

async fn receive(parts: &Parts, body: Body) -> Result<Bytes> {
    let kind = parts.headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !["application/wasm", "application/octet-stream"].contains(&kind) {
        return Err(Error::new(
            ProblemCode::UnsupportedMediaType,
            "send the component as the body, with `Content-Type: application/wasm`",
        ));
    }
    let most = usize::try_from(MAX_COMPONENT_BYTES).unwrap_or(usize::MAX);
    let read = tokio::time::timeout(RECEIVE_WITHIN, Limited::new(body, most).collect()).await;
    match read {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Error::new(
            ProblemCode::BodyTooLarge,
            format!("a component has at most {MAX_COMPONENT_BYTES} bytes"),
        )),
        Ok(Err(_)) => Err(Error::new(
            ProblemCode::MalformedRequest,
            "the body ended early",
        )),
        Err(_) => Err(Error::new(
            ProblemCode::Timeout,
            "the component took too long to arrive",
        )),
    }
}

async fn admit<E: Endpoint>(
    app: &App,
    call: &Call<E>,
    arrived: &Arrived,
) -> Result<(ComponentV1, Component)> {
    let coming = Coming {
        signature: arrived.signature.clone(),
        source: arrived.source.clone(),
        by: call.proof.caller().user.name.to_string(),
        at: call.meta.now,
    };
    package::admit(app, arrived.bytes.clone(), coming).await
}

/// The configuration of what is there, as another component wants it.
async fn carry(app: &App, before: &PluginRecordV1, loaded: &Component) -> Result<Option<String>> {
    let version = before.present.manifest.version.as_str();
    let configuration = before.configuration.map(|it| (version, it));
    package::carried_over(app, loaded, configuration).await
}

fn accepts(carried: Option<&String>) -> Accepts {
    match carried {
        Some(_) => Accepts::Yes,
        None => Accepts::No,
    }
}

fn accepted(record: &PluginRecordV1) -> Option<crate::state::plugin_records::ConfigurationV1> {
    let good = record.accepted_by == Some(record.present.digest);
    record.configuration.filter(|_| good)
}

/// Puts the configuration that the new component accepted in place, and keeps that of the one
/// before for a rollback.
async fn reconfigure<E: Endpoint>(
    app: &App,
    before: &PluginRecordV1,
    record: &mut PluginRecordV1,
    carried: Option<String>,
    call: &Call<E>,
) -> Result<()> {
    record.previous_configuration = accepted(before);
    if let Some(text) = carried {
        let kept = package::keep_configuration(app, text, call.meta.now).await?;
        if record.configuration.map(|it| it.digest) != Some(kept.digest) {
            record.configuration = Some(kept);
            record.configuration_revision += 1;
        }
    }
    Ok(())
}

fn entry<E: Endpoint>(
    call: &Call<E>,
    what: &'static str,
    name: &Name,
    digest: PluginDigest,
) -> Entry {
    call.entry(what).on(name).with("digest", digest)
}

fn note<E: Endpoint>(
    record: &mut PluginRecordV1,
    call: &Call<E>,
    what: &'static str,
    digest: PluginDigest,
) {
    record.note(PluginEventV1 {
        at: call.meta.now,
        what: what.to_owned(),
        by: Some(call.proof.caller().user.name.to_string()),
        digest,
    });
}

fn replacing(kept: &Kept<PluginRecordV1>, record: &PluginRecordV1, entry: Entry) -> Result<Batch> {
    let key = PluginRecordV1::key_of(&record.name)?;
    let mut batch = Batch::new();
    batch.require(&key, Condition::RevIs(kept.rev));
    batch.put_record(&key, record)?;
    entry.in_deployment(&mut batch);
    Ok(batch)
}

async fn finish<E: Endpoint<Reply = Plugin>>(
    app: &App,
    call: Call<E>,
    kept: &Kept<PluginRecordV1>,
    mut record: PluginRecordV1,
    what: &'static str,
    fill: impl FnOnce(Entry) -> Entry,
) -> Result<Plugin> {
    let digest = record.present.digest;
    note(&mut record, &call, what, digest);
    let entry = fill(entry(&call, what, &record.name, digest));
    let batch = replacing(kept, &record, entry)?;
    let reply = view::plugin(&app.plugins, &record);
    call.finish(app, batch, reply).await
}

/// Notes a component that was turned away, and answers the refusal.
pub(super) async fn refused(app: &App, entry: Entry, error: Error) -> Error {
    let mut batch = Batch::new();
    entry.refused(&error.detail).in_deployment(&mut batch);
    match app.commit(batch).await {
        Ok(_) => error,
        Err(failed) => failed,
    }
}

fn refusal_of(refusal: &Refusal) -> Error {
    match refusal {
        Refusal::Grant(fault) => Error::invalid("grant", fault.to_string()),
        Refusal::SameDigest
        | Refusal::Another { .. }
        | Refusal::Downgrade { .. }
        | Refusal::Ungranted(_)
        | Refusal::NotConfigured
        | Refusal::Enabled
        | Refusal::NothingPending
        | Refusal::OtherPending { .. }
        | Refusal::NothingBefore => Error::conflict(refusal.to_string()),
    }
}
