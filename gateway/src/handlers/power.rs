//! Power: shown, configured, asked for. What goes on by itself is in [`crate::power`].

use std::sync::Arc;

use api::Page;
use api::endpoint::{Endpoint, Nothing};
use api::v1::OfHost;
use api::v1::plugin::{FindingSeverity, PluginFinding};
use api::v1::power::*;
use gateway_core::power::operation::Failure;
use gateway_store::{Batch, Condition};
use model::facts::Facts;
use model::host::Membership;
use model::ids::{HostId, PowerBulkId, PowerOperationId, WorkspaceId};
use model::names::clean;
use model::plugin::PluginKind;
use model::power::PowerState;
use model::tenancy::Environment;

use super::page::limit_of;
use crate::app::App;
use crate::command::check::select;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::http::dispatch::{cursor, read_cursor};
use crate::policy;
use crate::power::ask::{self, MANY, Verb, Wanted};
use crate::power::provider::{Found, Machine, Provider};
use crate::power::records::{
    PowerBulkRecordV1, PowerOperationRecordV1, PowerSeenRecordV1, PowerTargetRecordV1,
};
use crate::power::{driver, view, watch};
use crate::state::edit::edit;
use crate::state::plugin_records::PluginGrantsRecordV1;
use crate::state::records::key_of;

/// For a provider to answer: it may ask a slow controller several things.
pub const WITHIN: std::time::Duration = std::time::Duration::from_secs(75);
/// Hosts at a time unless said.
const AT_ONCE: u32 = 10;
/// Failures of a bulk unless said.
const STOP_AFTER: u32 = 3;
/// Hosts that a bulk may have.
const MOST: usize = 10_000;
/// Hosts that an audit entry names.
const NAMED: usize = 16;

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
    let provider = app.power.providers.get(&asked.plugin, workspace);
    if let Ok(provider) = provider {
        let known = provider.secrets_of_machines();
        for name in asked.secrets.keys() {
            if !known.contains(name) {
                let what = format!("the provider has no secret of each machine named `{name}`");
                return Err(Error::invalid("secrets", what));
            }
        }
    } else if !asked.secrets.is_empty() {
        let what = "the provider is not enabled, so its secrets are not known";
        return Err(Error::invalid("secrets", what));
    }
    let tables = app.catalog.read();
    for secret in asked.secrets.values() {
        let there = tables
            .secrets
            .values()
            .any(|kept| kept.workspace == workspace && kept.name == *secret);
        if !there {
            let what = format!("this workspace has no secret `{secret}`");
            return Err(Error::invalid("secrets", what));
        }
    }
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
    let machine = Machine::from(&*target);
    let mut check = PowerCheck {
        ok: false,
        findings: Vec::new(),
        support: None,
        observed: None,
    };
    match app.power.providers.get(&target.plugin, workspace) {
        Err(failure) => check.findings.push(finding(&failure)),
        Ok(provider) => ask_all(&*provider, &machine, &mut check).await,
    }
    check.ok = !check
        .findings
        .iter()
        .any(|finding| finding.severity == FindingSeverity::Error);
    Ok(check)
}

async fn ask_all(provider: &dyn Provider, machine: &Machine, check: &mut PowerCheck) {
    match provider.check(machine).await {
        Ok(found) => check.findings.extend(found),
        Err(failure) => {
            check.findings.push(finding(&failure));
            return;
        }
    }
    match provider.inspect(machine).await {
        Ok(support) => {
            if support.observable {
                match provider.observe(machine).await {
                    Ok(seen) => check.observed = Some(view::observation(&seen)),
                    Err(failure) => check.findings.push(finding(&failure)),
                }
            }
            check.support = Some(view::support(&support));
        }
        Err(failure) => check.findings.push(finding(&failure)),
    }
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

/// Turns many hosts on.
pub async fn bulk_power_on(app: Arc<App>, call: Call<BulkPowerOn>) -> Result<PowerBulk> {
    let asked = call.body.clone();
    act_on_many(app, call, Verb::On, asked).await
}

/// Turns many hosts off.
pub async fn bulk_power_off(app: Arc<App>, call: Call<BulkPowerOff>) -> Result<PowerBulk> {
    let asked = call.body.clone();
    act_on_many(app, call, Verb::Off, asked).await
}

/// Restarts many hosts.
pub async fn bulk_power_reset(app: Arc<App>, call: Call<BulkPowerReset>) -> Result<PowerBulk> {
    let asked = call.body.clone();
    act_on_many(app, call, Verb::Reset, asked).await
}

async fn act_on_many<E>(
    app: Arc<App>,
    call: Call<E>,
    verb: Verb,
    asked: AskBulkPower,
) -> Result<PowerBulk>
where
    E: Endpoint<Body = AskBulkPower, Reply = PowerBulk>,
{
    let workspace = call.proof.workspace();
    let wanted = Wanted::new(
        verb.action(asked.action)?,
        asked.then_hard_after_ms,
        asked.boot.clone(),
        asked.timeout_ms,
    )?;
    // A host that never joined may be turned on so that it does.
    let there = |membership| membership != Membership::Retired;
    let hosts = select(&app.catalog.read(), workspace, &asked.targets, there)?;
    if hosts.len() > MOST {
        return Err(Error::invalid("targets", format!("at most {MOST} hosts")));
    }
    confirmed(
        &app,
        workspace,
        &wanted,
        hosts.len(),
        asked.confirm.as_deref(),
    )?;
    let what = serde_json::to_vec(&asked).map_err(|error| Error::internal(&error))?;
    let permit = policy::on_hosts(&app, &call.proof, &call.meta, &hosts, &what).await?;
    let record = PowerBulkRecordV1 {
        id: app.new_id(PowerBulkId::new),
        workspace,
        action: wanted.action,
        escalate_after: wanted.escalate_after,
        boot: wanted.boot.clone(),
        timeout: wanted.timeout,
        at_once: asked.at_once.unwrap_or(AT_ONCE).clamp(1, 1000),
        canary: asked.canary,
        stop_after: asked.stop_after.unwrap_or(STOP_AFTER),
        created_by: call.origin().by().unwrap_or_default(),
        ticket: call.meta.ticket.clone(),
        created_at: call.meta.now,
        permitted_until: permit.until(),
        begun: 0,
        cancelled: false,
        ended: None,
        hosts,
    };
    let mut batch = Batch::new();
    let key = key_of::<PowerBulkRecordV1>(record.id);
    batch.require(&key, Condition::Absent);
    batch.put_record(&key, &record)?;
    let named: Vec<_> = record
        .hosts
        .iter()
        .take(NAMED)
        .map(ToString::to_string)
        .collect();
    call.entry("power.bulk_request")
        .on(record.id)
        .with("action", record.action)
        .with("hosts", record.hosts.len())
        .with("on", named.join(" "))
        .with("at_once", record.at_once)
        .in_workspace(workspace, &mut batch);
    let reply = view::bulk(&app.catalog.read(), &record);
    call.finish(&app, batch, reply).await
}

/// The workspace's name is to be typed before many hosts, or hosts in production, are interrupted.
fn confirmed(
    app: &App,
    workspace: WorkspaceId,
    wanted: &Wanted,
    hosts: usize,
    confirm: Option<&str>,
) -> Result<()> {
    let tables = app.catalog.read();
    let Some(record) = tables.workspaces.get(&workspace) else {
        return Err(Error::not_found("workspace"));
    };
    let grave = record.environment == Environment::Production || hosts > MANY;
    if wanted.action.interrupts() && grave && confirm != Some(record.name.as_str()) {
        let what = format!(
            "{} on {hosts} hosts: repeat the request with the workspace's name, `{}`, to confirm it",
            wanted.action, record.name
        );
        return Err(Error::invalid("confirm", what));
    }
    Ok(())
}

/// Lists what was asked for many hosts, newest first.
pub async fn list_power_bulks(
    app: Arc<App>,
    call: Call<ListPowerBulks>,
) -> Result<Page<PowerBulk>> {
    let limit = limit_of(call.query.limit)?;
    let before: Option<PowerBulkId> = call.query.after.as_deref().map(read_cursor).transpose()?;
    let workspace = call.proof.workspace();
    let tables = app.catalog.read();
    let mut page = Page {
        items: Vec::new(),
        next: None,
    };
    let to = before.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
    let range = tables.power.bulks.range((std::ops::Bound::Unbounded, to));
    for (_, record) in range.rev().filter(|(_, it)| it.workspace == workspace) {
        if page.items.len() == limit {
            page.next = page.items.last().map(|last: &PowerBulk| cursor(&last.id));
            break;
        }
        page.items.push(view::bulk(&tables, record));
    }
    Ok(page)
}

/// Shows how far something for many hosts is.
pub async fn get_power_bulk(app: Arc<App>, call: Call<GetPowerBulk>) -> Result<PowerBulk> {
    let tables = app.catalog.read();
    let found = tables.power.bulk_in(call.proof.workspace(), call.path.bulk);
    let found = found.ok_or_else(|| Error::not_found("power bulk"))?;
    Ok(view::bulk(&tables, found))
}

/// Calls off what has not begun, and what has as far as that can be.
pub async fn cancel_power_bulk(app: Arc<App>, call: Call<CancelPowerBulk>) -> Result<PowerBulk> {
    let (workspace, id) = (call.proof.workspace(), call.path.bulk);
    let there = app.catalog.read().power.bulk_in(workspace, id).is_some();
    if !there {
        return Err(Error::not_found("power bulk"));
    }
    let key = key_of::<PowerBulkRecordV1>(id);
    edit::<PowerBulkRecordV1>(&app, &key, |found, batch| {
        let Some(mut record) = found.filter(|it| it.ended.is_none() && !it.cancelled) else {
            return Ok(None);
        };
        record.cancelled = true;
        call.entry("power.bulk_cancel")
            .on(id)
            .with("begun", record.begun)
            .with("hosts", record.hosts.len())
            .in_workspace(workspace, batch);
        Ok(Some(record))
    })
    .await?;
    let open: Vec<_> = {
        let tables = app.catalog.read();
        let of_bulk = tables.power.of_bulk(id);
        let open = of_bulk.filter(|record| !record.operation.is_over());
        open.map(|record| record.id).collect()
    };
    for operation in open {
        driver::change(&app, operation, |operation, now| operation.call_off(now)).await?;
    }
    let tables = app.catalog.read();
    let found = tables.power.bulk_in(workspace, id);
    let found = found.ok_or_else(|| Error::not_found("power bulk"))?;
    Ok(view::bulk(&tables, found))
}

/// Asks a provider which machines it knows, and proposes which hosts they are.
pub async fn discover_power_targets(
    app: Arc<App>,
    call: Call<DiscoverPowerTargets>,
) -> Result<DiscoveredPower> {
    let workspace = call.proof.workspace();
    let refused = |failure: Failure| {
        Error::invalid(
            "plugin",
            format!("{} [{}]", failure.trouble.message, failure.trouble.code),
        )
    };
    let provider = app.power.providers.get(&call.body.plugin, workspace);
    let provider = provider.map_err(refused)?;
    let page = provider.discover(workspace, call.body.cursor.clone()).await;
    let (found, next) = page.map_err(refused)?;
    let tables = app.catalog.read();
    let known: Vec<_> = tables
        .hosts_of(workspace)
        .filter_map(|host| Some((host, tables.facts.get(&host)?.record()?)))
        .collect();
    let found = found.into_iter().map(|machine| {
        let matched = known
            .iter()
            .find_map(|(host, record)| same_machine(&machine, &record.facts).map(|by| (*host, by)));
        let linked = matched.is_some_and(|(host, _)| {
            tables.power.targets.get(&host).is_some_and(|target| {
                target.plugin == call.body.plugin && target.address == machine.address
            })
        });
        DiscoveredMachine {
            address: machine.address.clone(),
            params: serde_json::from_str(&machine.params).unwrap_or_else(|_| serde_json::json!({})),
            name: machine.name.clone(),
            macs: machine.macs.clone(),
            serial: machine.serial.clone(),
            state: machine.state,
            host: matched.map(|(host, _)| host),
            matched_by: matched.map(|(_, by)| by.to_owned()),
            linked,
        }
    });
    Ok(DiscoveredPower {
        found: found.collect(),
        next,
    })
}

/// By what a machine that a provider knows is the host that says this of itself.
fn same_machine(machine: &Found, host: &Facts) -> Option<&'static str> {
    let same = |one: &str, other: &str| !one.is_empty() && one.eq_ignore_ascii_case(other);
    let has = |mac: &String| host.macs.iter().any(|own| same(mac, own));
    if machine.macs.iter().any(has) {
        return Some("mac");
    }
    let serial = machine.serial.as_deref().unwrap_or_default();
    if same(serial, &host.serial) || same(serial, &host.system_uuid) {
        return Some("serial");
    }
    // Clouds put their own name for a machine into its firmware, each elsewhere.
    let id = machine.provider_id.as_deref().unwrap_or_default();
    let told = [&host.asset_tag, &host.serial, &host.system_uuid];
    told.iter()
        .any(|told| same(id, told))
        .then_some("provider_id")
}
