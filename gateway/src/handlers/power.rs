//! Power: shown, configured, asked for. What goes on by itself is in [`crate::power`].

mod bulk;
mod discover;
mod plan;

pub use bulk::{
    bulk_power_off, bulk_power_on, bulk_power_reset, cancel_power_bulk, get_power_bulk,
    list_power_bulks,
};
pub use discover::discover_power_targets;
pub use plan::{plan_bulk_power, plan_host_power};

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Page;
use api::endpoint::{Endpoint, Nothing};
use api::v1::OfHost;
use api::v1::plugin::{FindingSeverity, PluginFinding};
use api::v1::power::*;
use gateway_core::power::Seen;
use gateway_core::power::operation::Failure;
use gateway_core::power::plan::Support;
use gateway_store::{Batch, Condition};
use model::host::Membership;
use model::ids::{HostId, PowerOperationId, WorkspaceId};
use model::names::{Name, clean};
use model::plugin::PluginKind;
use model::power::PowerState;

use super::page::limit_of;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::http::dispatch::{cursor, read_cursor};
use crate::power::ask::{self, Verb, Wanted};
use crate::power::provider::{Machine, Provider};
use crate::power::records::{PowerOperationRecordV1, PowerSeenRecordV1, PowerTargetRecordV1};
use crate::power::{driver, view, watch};
use crate::state::edit::edit;
use crate::state::plugin_records::PluginGrantsRecordV1;
use crate::state::records::key_of;

/// For a provider to answer: it may ask a slow controller several things.
pub const WITHIN: std::time::Duration = std::time::Duration::from_secs(75);

/// A host that something can be done about.
fn must_serve(app: &App, workspace: WorkspaceId, host: HostId) -> Result<()> {
    let tables = app.catalog.read();
    let found = tables.host_in(workspace, host);
    let found = found.ok_or_else(|| Error::not_found("host"))?;
    if found.membership == Membership::Retired {
        return Err(Error::conflict("the host has retired"));
    }
    Ok(())
}

/// Shows what is known of a host's power.
pub async fn get_host_power(app: Arc<App>, call: Call<GetHostPower>) -> Result<HostPower> {
    let (workspace, host) = (call.proof.workspace(), call.path.host);
    let tables = app.catalog.read();
    let found = tables.host_in(workspace, host);
    found.ok_or_else(|| Error::not_found("host"))?;
    Ok(view::host_power(&app, &tables, host, call.meta.now))
}

/// Has the provider looked at now.
pub async fn observe_host_power(app: Arc<App>, call: Call<ObserveHostPower>) -> Result<HostPower> {
    let host = call.path.host;
    must_serve(&app, call.proof.workspace(), host)?;
    watch::look(&app, host).await?;
    let tables = app.catalog.read();
    Ok(view::host_power(&app, &tables, host, app.now()))
}

/// Says by which provider a host is turned on and off.
pub async fn set_power_target(app: Arc<App>, call: Call<SetPowerTarget>) -> Result<HostPower> {
    let (workspace, host) = (call.proof.workspace(), call.path.host);
    must_serve(&app, workspace, host)?;
    let record = target(&app, workspace, host, &call.body)?;
    let key = key_of::<PowerTargetRecordV1>(host);
    edit::<PowerTargetRecordV1>(&app, &key, |found, batch| {
        if found.as_ref() == Some(&record) {
            return Ok(None);
        }
        let changed = |before: &PowerTargetRecordV1| {
            (&before.plugin, &before.address, &before.params)
                != (&record.plugin, &record.address, &record.params)
        };
        if found.as_ref().is_none_or(changed) {
            // What was seen was seen of something else.
            batch.delete(&key_of::<PowerSeenRecordV1>(host));
        }
        // Who deletes a secret looks at who uses it, and starts again when this has changed.
        let marker = PluginGrantsRecordV1 { at: call.meta.now };
        batch.put_record(&PluginGrantsRecordV1::the_key(), &marker)?;
        let secrets: Vec<_> = record.secrets.values().map(ToString::to_string).collect();
        call.entry("power.configure")
            .on(host)
            .with("plugin", &record.plugin)
            .with("address", &record.address)
            .with("secrets", secrets.join(" "))
            .with("never_off", record.never_off)
            .with("mode", record.mode)
            .in_workspace(workspace, batch);
        Ok(Some(record.clone()))
    })
    .await?;
    app.power.forget(host);
    let tables = app.catalog.read();
    Ok(view::host_power(&app, &tables, host, app.now()))
}

/// A target, if it makes sense.
fn target(
    app: &App,
    workspace: WorkspaceId,
    host: HostId,
    asked: &PowerTarget,
) -> Result<PowerTargetRecordV1> {
    let is_provider = {
        let tables = app.catalog.read();
        let plugin = tables.plugins.get(&asked.plugin);
        plugin.is_some_and(|plugin| {
            plugin.present.kind == PluginKind::Power
                && plugin.grant.workspaces.covers(Some(workspace))
        })
    };
    if !is_provider {
        let what = format!(
            "`{}` is no power provider that is granted for this workspace",
            asked.plugin
        );
        return Err(Error::invalid("plugin", what));
    }
    if asked.address.trim().is_empty() || asked.address != clean(&asked.address, 1024) {
        return Err(Error::invalid("address", "1 to 1,024 printable characters"));
    }
    if !asked.params.is_object() {
        return Err(Error::invalid("params", "a JSON object"));
    }
    let params = asked.params.to_string();
    if params.len() > 16 << 10 {
        return Err(Error::invalid("params", "at most 16 KiB"));
    }
    check_secrets(app, workspace, &asked.plugin, &asked.secrets)?;
    match asked.desired.state {
        None | Some(PowerState::On | PowerState::Off) => {}
        Some(_) => return Err(Error::invalid("desired/state", "`on` or `off`")),
    }
    Ok(PowerTargetRecordV1 {
        host,
        workspace,
        plugin: asked.plugin.clone(),
        address: asked.address.clone(),
        params,
        secrets: asked.secrets.clone(),
        tls_profile: asked.tls_profile.clone(),
        route: asked.route.clone(),
        endpoint: asked.endpoint.as_ref().map(ToString::to_string),
        never_off: asked.never_off,
        mode: asked.desired.mode,
        desired: asked.desired.state,
    })
}

/// Whether these are secrets of the workspace, under names that the provider has for those of a
/// machine.
fn check_secrets(
    app: &App,
    workspace: WorkspaceId,
    plugin: &Name,
    secrets: &BTreeMap<Name, Name>,
) -> Result<()> {
    if secrets.is_empty() {
        return Ok(());
    }
    let Ok(provider) = app.power.providers.get(plugin, workspace) else {
        let what = "the provider is not enabled, so its secrets are not known";
        return Err(Error::invalid("secrets", what));
    };
    let known = provider.secrets_of_machines();
    let tables = app.catalog.read();
    for (name, secret) in secrets {
        if !known.contains(name) {
            let what = format!("the provider has no secret of each machine named `{name}`");
            return Err(Error::invalid("secrets", what));
        }
        let mut kept = tables.secrets_of(workspace);
        if !kept.any(|kept| kept.name == *secret) {
            let what = format!("this workspace has no secret `{secret}`");
            return Err(Error::invalid("secrets", what));
        }
    }
    Ok(())
}

/// Takes the provider away from a host. What goes on is not known about any more, and says so.
pub async fn remove_power_target(app: Arc<App>, call: Call<RemovePowerTarget>) -> Result<Nothing> {
    let (workspace, host) = (call.proof.workspace(), call.path.host);
    let there = {
        let tables = app.catalog.read();
        let target = tables.power.targets.get(&host);
        target.is_some_and(|target| target.workspace == workspace)
    };
    if !there {
        return Err(Error::not_found("power target"));
    }
    let mut batch = Batch::new();
    batch.delete(&key_of::<PowerTargetRecordV1>(host));
    batch.delete(&key_of::<PowerSeenRecordV1>(host));
    call.entry("power.unconfigure")
        .on(host)
        .in_workspace(workspace, &mut batch);
    let done = call.finish(&app, batch, Nothing {}).await?;
    app.power.forget(host);
    Ok(done)
}

/// Has the provider say whether what is configured works.
pub async fn check_power_target(app: Arc<App>, call: Call<CheckPowerTarget>) -> Result<PowerCheck> {
    let (workspace, host) = (call.proof.workspace(), call.path.host);
    must_serve(&app, workspace, host)?;
    let target = {
        let tables = app.catalog.read();
        let target = tables.power.targets.get(&host);
        Arc::clone(
            &target
                .ok_or_else(|| Error::not_found("power target"))?
                .record,
        )
    };
    let asked = match app.power.providers.get(&target.plugin, workspace) {
        Err(failure) => Asked {
            findings: vec![finding(&failure)],
            ..Asked::default()
        },
        Ok(provider) => ask_all(&*provider, &Machine::from(&*target)).await,
    };
    Ok(PowerCheck {
        ok: asked.is_content(),
        findings: asked.findings,
        support: asked.support.as_ref().map(view::support),
        observed: asked.observed.as_ref().map(view::observation),
    })
}

/// What a provider says of a machine.
#[derive(Debug, Default)]
struct Asked {
    findings: Vec<PluginFinding>,
    support: Option<Support>,
    observed: Option<Seen>,
}

impl Asked {
    /// Whether nothing speaks against using it.
    fn is_content(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.all(|finding| finding.severity != FindingSeverity::Error)
    }
}

async fn ask_all(provider: &dyn Provider, machine: &Machine) -> Asked {
    let mut asked = Asked::default();
    match provider.check(machine).await {
        Ok(found) => asked.findings.extend(found),
        Err(failure) => {
            asked.findings.push(finding(&failure));
            return asked;
        }
    }
    match provider.inspect(machine).await {
        Ok(support) => {
            if support.observable {
                match provider.observe(machine).await {
                    Ok(seen) => asked.observed = Some(seen),
                    Err(failure) => asked.findings.push(finding(&failure)),
                }
            }
            asked.support = Some(support);
        }
        Err(failure) => asked.findings.push(finding(&failure)),
    }
    asked
}

fn finding(failure: &Failure) -> PluginFinding {
    PluginFinding {
        severity: FindingSeverity::Error,
        at: String::new(),
        message: format!("{} [{}]", failure.trouble.message, failure.trouble.code),
    }
}

/// Turns a host on.
pub async fn power_on(app: Arc<App>, call: Call<PowerOn>) -> Result<PowerOperation> {
    let (host, asked) = (call.path.host, call.body.clone());
    act(app, call, host, Verb::On, asked).await
}

/// Turns a host off.
pub async fn power_off(app: Arc<App>, call: Call<PowerOff>) -> Result<PowerOperation> {
    let (host, asked) = (call.path.host, call.body.clone());
    act(app, call, host, Verb::Off, asked).await
}

/// Restarts a host.
pub async fn power_reset(app: Arc<App>, call: Call<PowerReset>) -> Result<PowerOperation> {
    let (host, asked) = (call.path.host, call.body.clone());
    act(app, call, host, Verb::Reset, asked).await
}

async fn act<E>(
    app: Arc<App>,
    call: Call<E>,
    host: HostId,
    verb: Verb,
    asked: AskPower,
) -> Result<PowerOperation>
where
    E: Endpoint<Path = OfHost, Body = AskPower, Reply = PowerOperation>,
{
    let workspace = call.proof.workspace();
    must_serve(&app, workspace, host)?;
    let wanted = Wanted::of(verb, &asked)?;
    let now = call.meta.now;
    let mut batch = Batch::new();
    {
        let tables = app.catalog.read();
        let linked = app.links.is_linked(host);
        if !tables.power.targets.contains_key(&host) && !linked {
            return Err(Error::conflict(
                "the host has no power provider and its agent is not linked: nobody can do it",
            ));
        }
        ask::never_off(&tables, host, wanted.action)?;
        let confirm = asked.confirm.as_deref();
        ask::confirmed(&tables, workspace, host, wanted.action, confirm)?;
        // Those that wait are taken back then, and do not count.
        if !asked.supersede {
            ask::room(&tables, host)?;
        }
    }
    let superseded = if asked.supersede {
        supersede(&app, host).await?
    } else {
        0
    };
    let by = (
        call.origin().by().unwrap_or_default(),
        call.meta.ticket.clone(),
    );
    let mut record = ask::record(&app, host, workspace, &wanted, by, now);
    if let Some(until) = call.permit.until() {
        // What policies permit for a time is not begun after it.
        record.operation.deadline = record.operation.deadline.min(until);
    }
    let key = key_of::<PowerOperationRecordV1>(record.id);
    batch.require(&key, Condition::Absent);
    batch.put_record(&key, &record)?;
    let mut entry = call
        .entry("power.request")
        .on(host)
        .with("operation", record.id)
        .with("action", wanted.action);
    if let Some(after) = wanted.escalate_after {
        entry = entry.with("then_hard_after_ms", after.as_millis());
    }
    if superseded > 0 {
        entry = entry.with("superseded", superseded);
    }
    entry.in_workspace(workspace, &mut batch);
    let reply = view::operation(&app.catalog.read(), &record);
    let reply = call.finish(&app, batch, reply).await?;
    follow_desired(&app, host, &wanted).await?;
    Ok(reply)
}

/// What is asked for by a person is what is desired from then on, where something is.
async fn follow_desired(app: &App, host: HostId, wanted: &Wanted) -> Result<()> {
    let Some(state) = wanted.action.leads_to() else {
        return Ok(());
    };
    let key = key_of::<PowerTargetRecordV1>(host);
    let written = edit::<PowerTargetRecordV1>(app, &key, |found, _| {
        let Some(mut record) = found else {
            return Ok(None);
        };
        if record.desired.is_none() || record.desired == Some(state) {
            return Ok(None);
        }
        record.desired = Some(state);
        Ok(Some(record))
    });
    written.await.map(drop)
}

async fn supersede(app: &App, host: HostId) -> Result<usize> {
    let open: Vec<PowerOperationId> = {
        let tables = app.catalog.read();
        tables.power.open_on(host).map(|record| record.id).collect()
    };
    let mut count = 0;
    for id in open {
        let done = driver::change(app, id, |operation, now| {
            operation.supersede(now);
        });
        count += usize::from(done.await?.is_some());
    }
    Ok(count)
}

/// Lists operations, newest first.
pub async fn list_power_operations(
    app: Arc<App>,
    call: Call<ListPowerOperations>,
) -> Result<Page<PowerOperation>> {
    let limit = limit_of(call.query.limit)?;
    let before: Option<PowerOperationId> =
        call.query.after.as_deref().map(read_cursor).transpose()?;
    let workspace = call.proof.workspace();
    let tables = app.catalog.read();
    let mut page = Page {
        items: Vec::new(),
        next: None,
    };
    let to = before.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
    let range = tables
        .power
        .operations
        .range((std::ops::Bound::Unbounded, to))
        .rev();
    for (id, record) in range {
        let wanted = record.workspace == workspace
            && call.query.host.is_none_or(|host| host == record.host)
            && call.query.bulk.is_none_or(|bulk| Some(bulk) == record.bulk)
            && call
                .query
                .open
                .is_none_or(|open| open != record.operation.is_over());
        if !wanted {
            continue;
        }
        if page.items.len() == limit {
            page.next = page
                .items
                .last()
                .map(|last: &PowerOperation| cursor(&last.id));
            break;
        }
        debug_assert_eq!(*id, record.id);
        page.items.push(view::operation(&tables, record));
    }
    Ok(page)
}

/// Shows an operation.
pub async fn get_power_operation(
    app: Arc<App>,
    call: Call<GetPowerOperation>,
) -> Result<PowerOperation> {
    let tables = app.catalog.read();
    let found = tables
        .power
        .operation_in(call.proof.workspace(), call.path.operation);
    let found = found.ok_or_else(|| Error::not_found("power operation"))?;
    Ok(view::operation(&tables, found))
}

/// Calls an operation off.
pub async fn cancel_power_operation(
    app: Arc<App>,
    call: Call<CancelPowerOperation>,
) -> Result<PowerOperation> {
    let (workspace, id) = (call.proof.workspace(), call.path.operation);
    let host = {
        let tables = app.catalog.read();
        let found = tables.power.operation_in(workspace, id);
        found
            .map(|it| it.host)
            .ok_or_else(|| Error::not_found("power operation"))?
    };
    let mut batch = Batch::new();
    call.entry("power.cancel")
        .on(host)
        .with("operation", id)
        .in_workspace(workspace, &mut batch);
    app.commit(batch).await?;
    driver::change(&app, id, |operation, now| operation.call_off(now)).await?;
    let tables = app.catalog.read();
    let found = tables.power.operation_in(workspace, id);
    let found = found.ok_or_else(|| Error::not_found("power operation"))?;
    Ok(view::operation(&tables, found))
}
