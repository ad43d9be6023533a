//! Many hosts at once: asked for, shown, called off.

use std::sync::Arc;

use api::Page;
use api::endpoint::Endpoint;
use api::v1::power::*;
use gateway_store::{Batch, Condition};
use model::host::Membership;
use model::ids::{HostId, PowerBulkId, WorkspaceId};
use model::tenancy::Environment;

use super::super::page::limit_of;
use crate::app::App;
use crate::command::check::select;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::http::dispatch::{cursor, read_cursor};
use crate::policy;
use crate::power::ask::{MANY, Verb, Wanted};
use crate::power::records::PowerBulkRecordV1;
use crate::power::{driver, view};
use crate::state::catalog::Tables;
use crate::state::edit::edit;
use crate::state::records::key_of;

/// Hosts at a time unless said.
const AT_ONCE: u32 = 10;
/// Failures of a bulk unless said.
const STOP_AFTER: u32 = 3;
/// Hosts that a bulk may have.
const MOST: usize = 10_000;
/// Hosts that an audit entry names.
const NAMED: usize = 16;

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
    let hosts = {
        let tables = app.catalog.read();
        let hosts = meant(&tables, workspace, &asked)?;
        let confirm = asked.confirm.as_deref();
        confirmed(&tables, workspace, &wanted, hosts.len(), confirm)?;
        hosts
    };
    let what = serde_json::to_vec(&asked).map_err(|error| Error::internal(&error))?;
    let permit = policy::on_hosts(&app, &call.proof, &call.meta, &hosts, &what).await?;
    let record = PowerBulkRecordV1 {
        id: app.new_id(PowerBulkId::new),
        workspace,
        action: wanted.action,
        escalate_after: wanted.escalate_after,
        boot: wanted.boot.clone(),
        timeout: wanted.timeout,
        at_once: at_once(&asked),
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

/// So many hosts at a time.
pub(super) fn at_once(asked: &AskBulkPower) -> u32 {
    asked.at_once.unwrap_or(AT_ONCE).clamp(1, 1000)
}

/// The hosts that it is about.
pub(super) fn meant(
    tables: &Tables,
    workspace: WorkspaceId,
    asked: &AskBulkPower,
) -> Result<Vec<HostId>> {
    // A host that never joined may be turned on so that it does.
    let there = |membership| membership != Membership::Retired;
    let hosts = select(tables, workspace, &asked.targets, there)?;
    if hosts.len() > MOST {
        return Err(Error::invalid("targets", format!("at most {MOST} hosts")));
    }
    Ok(hosts)
}

/// The workspace's name is to be typed before many hosts, or hosts in production, are interrupted.
pub(super) fn confirmed(
    tables: &Tables,
    workspace: WorkspaceId,
    wanted: &Wanted,
    hosts: usize,
    confirm: Option<&str>,
) -> Result<()> {
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
