//! Hosts: inventory, labels, maintenance, clones, retirement.
//!
//! Nothing here talks to a host. A handler writes what should be true; the link
//! steward sees the change and tells the agent.

use std::sync::Arc;
use std::time::Duration;

use api::v1::host::*;
use api::{Endpoint, Page};
use gateway_core::host;
use gateway_store::{Batch, Condition, Key};
use model::host::{Connectivity, HostEvent, Maintenance, Membership};
use model::ids::HostId;
use model::names::clean;
use model::selector::Selector;

use super::page::{limit_of, page_of};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::http::dispatch::{cursor, read_cursor};
use crate::state::catalog::Kept;
use crate::state::change::history;
use crate::state::records::{HistoryRecordV1, HostRecordV1, WorkspaceRecordV1, key_of};
use crate::view;

/// The longest maintenance. Longer ones are forgotten.
const MAX_MAINTENANCE: Duration = Duration::from_secs(90 * 86_400);

/// Lists hosts.
pub async fn list_hosts(app: Arc<App>, call: Call<ListHosts>) -> Result<Page<Host>> {
    let filter = &call.query;
    let selector: Selector = filter
        .selector
        .as_deref()
        .unwrap_or_default()
        .parse()
        .map_err(|error: model::selector::BadSelector| {
            Error::invalid("selector", error.to_string())
        })?;
    let name = filter.name.as_deref().map(str::to_lowercase);
    let after: Option<HostId> = filter.after.as_deref().map(read_cursor).transpose()?;
    let tables = app.catalog.read();
    page_of(
        tables.hosts_after(call.proof.workspace(), after),
        |host| *host,
        filter.limit,
        filter.after.as_deref(),
        |id| {
            let record = tables.hosts.get(&id)?;
            let wanted = match filter.membership {
                Some(membership) => record.membership == membership,
                None => {
                    record.membership != Membership::Retired
                        || filter.summary == Some(model::host::Summary::Retired)
                }
            };
            let matches_name = |name: &String| {
                let hostname = view::hostname_of(&tables, record);
                view::name_of(record, hostname)
                    .to_lowercase()
                    .contains(name)
                    || tables
                        .facts
                        .get(&id)
                        .is_some_and(|facts| facts.hostname().to_lowercase().contains(name))
            };
            if !wanted
                || !selector.matches(&record.labels)
                || !name.as_ref().is_none_or(matches_name)
            {
                return None;
            }
            let host = view::host(&tables, &app.links, id, call.meta.now)?;
            let matches = filter.summary.is_none_or(|summary| host.summary == summary)
                && filter
                    .connectivity
                    .is_none_or(|connectivity| host.connectivity == connectivity);
            matches.then_some(host)
        },
    )
}

/// Puts a host into the inventory.
pub async fn create_host(app: Arc<App>, call: Call<CreateHostRecord>) -> Result<Host> {
    let hostname = call.body.hostname.as_str();
    let good = (1..=128).contains(&hostname.len())
        && hostname
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !good {
        return Err(Error::invalid(
            "hostname",
            "a hostname has 1 to 128 of a-z, A-Z, 0-9, `.`, `_`, `-`",
        ));
    }
    let record = HostRecordV1 {
        id: app.new_id(HostId::new),
        workspace: call.proof.workspace(),
        membership: Membership::Unknown,
        display_name: call.body.display_name.clone(),
        labels: call.body.labels.clone(),
        maintenance: None,
        ephemeral: false,
        clone_of: None,
        awaited_hostname: Some(hostname.to_owned()),
        identity: None,
        token: None,
        created_at: call.meta.now,
        enrolled_at: None,
        retired_at: None,
        pending_adoption: None,
        adopting_generation: None,
    };
    let mut batch = Batch::new();
    batch.require(
        &key_of::<WorkspaceRecordV1>(record.workspace),
        Condition::Present,
    );
    batch.put_record(&key_of::<HostRecordV1>(record.id), &record)?;
    history(
        &mut batch,
        record.id,
        call.meta.now,
        HostEvent::Created,
        call.origin().by(),
    )?;
    call.entry("host.create")
        .on(record.id)
        .with("hostname", hostname)
        .in_workspace(record.workspace, &mut batch);
    let reply = preview(&app, &call, &record);
    call.finish(&app, batch, reply).await
}

/// Shows a host.
pub async fn get_host(app: Arc<App>, call: Call<GetHost>) -> Result<Host> {
    let host = find(&app, &call, call.path.host)?;
    show(&app, &call, host.id)
}

/// Changes display name and labels.
pub async fn update_host(app: Arc<App>, call: Call<UpdateHostRecord>) -> Result<Host> {
    let kept = find(&app, &call, call.path.host)?;
    let mut record = (*kept.record).clone();
    refuse_retired(&record)?;
    let mut batch = Batch::new();
    if let Some(name) = &call.body.display_name {
        let hostname = app
            .catalog
            .read()
            .facts
            .get(&record.id)
            .map(|facts| facts.hostname().to_owned())
            .or_else(|| record.awaited_hostname.clone());
        let from = view::name_of(&record, hostname.as_deref());
        record.display_name = Some(name.clone()).filter(|name| !name.is_empty());
        let to = view::name_of(&record, hostname.as_deref());
        if from != to {
            history(
                &mut batch,
                record.id,
                call.meta.now,
                HostEvent::Renamed { from, to },
                call.origin().by(),
            )?;
        }
    }
    if !call.body.labels.is_empty() {
        record.labels = record
            .labels
            .with(&call.body.labels)
            .map_err(|error| Error::invalid("labels", error.to_string()))?;
        let event = HostEvent::Relabelled {
            labels: record.labels.to_string(),
        };
        history(
            &mut batch,
            record.id,
            call.meta.now,
            event,
            call.origin().by(),
        )?;
    }
    put(&mut batch, &kept, &record)?;
    call.entry("host.update")
        .on(record.id)
        .with("labels", &record.labels)
        .with(
            "display_name",
            record.display_name.clone().unwrap_or_default(),
        )
        .in_workspace(record.workspace, &mut batch);
    let reply = preview(&app, &call, &record);
    call.finish(&app, batch, reply).await
}

/// A host's history, newest first.
pub async fn list_host_history(
    app: Arc<App>,
    call: Call<ListHostHistory>,
) -> Result<Page<HistoryEntry>> {
    let host = find(&app, &call, call.path.host)?.id;
    let limit = limit_of(call.query.limit)?;
    let before: Option<String> = call.query.after.as_deref().map(read_cursor).transpose()?;
    // The store lists forward only; a host's history is pruned to a few
    // thousand entries, so it is read whole and cut from the end.
    let prefix = HistoryRecordV1::prefix_of(host);
    let mut entries = Vec::new();
    let mut after: Option<Key> = None;
    loop {
        let read = gateway_store::Read::Cached { at_least: None };
        let page = gateway_store::list::<HistoryRecordV1>(
            &*app.store,
            &prefix,
            after.as_ref(),
            1000,
            read,
        )
        .await?;
        after = page.records.last().map(|(key, _)| key.clone());
        entries.extend(page.records);
        if !page.more {
            break;
        }
    }
    let text = |key: &Key| String::from_utf8_lossy(key.as_bytes()).into_owned();
    let mut older = entries
        .into_iter()
        .rev()
        .filter(|(key, _)| before.as_ref().is_none_or(|before| text(key) < *before));
    let mut page = Page {
        items: Vec::new(),
        next: None,
    };
    let mut last = None;
    for (key, stored) in older.by_ref().take(limit) {
        last = Some(text(&key));
        page.items.push(HistoryEntry {
            at: stored.record.at,
            event: stored.record.event,
            by: stored.record.by,
        });
    }
    if older.next().is_some() {
        page.next = last.as_ref().map(cursor);
    }
    Ok(page)
}

/// Puts a host into maintenance.
pub async fn set_host_maintenance(app: Arc<App>, call: Call<SetHostMaintenance>) -> Result<Host> {
    let kept = find(&app, &call, call.path.host)?;
    let until = call.body.until;
    if until <= call.meta.now || until > call.meta.now.saturating_add(MAX_MAINTENANCE) {
        return Err(Error::invalid(
            "until",
            "maintenance ends in the future, at most 90 days ahead",
        ));
    }
    let mut record = (*kept.record).clone();
    refuse_retired(&record)?;
    record.maintenance = Some(Maintenance {
        until,
        reason: call.body.reason.clone(),
    });
    let mut batch = Batch::new();
    put(&mut batch, &kept, &record)?;
    let event = HostEvent::MaintenanceSet {
        until,
        reason: call.body.reason.to_string(),
    };
    history(
        &mut batch,
        record.id,
        call.meta.now,
        event,
        call.origin().by(),
    )?;
    call.entry("host.maintenance.set")
        .on(record.id)
        .with("until", until)
        .with("reason", &call.body.reason)
        .in_workspace(record.workspace, &mut batch);
    let reply = preview(&app, &call, &record);
    call.finish(&app, batch, reply).await
}

/// Ends maintenance.
pub async fn end_host_maintenance(app: Arc<App>, call: Call<EndHostMaintenance>) -> Result<Host> {
    let kept = find(&app, &call, call.path.host)?;
    let mut record = (*kept.record).clone();
    if record.maintenance.take().is_none() {
        return show(&app, &call, kept.id);
    }
    let mut batch = Batch::new();
    put(&mut batch, &kept, &record)?;
    history(
        &mut batch,
        record.id,
        call.meta.now,
        HostEvent::MaintenanceEnded { expired: false },
        call.origin().by(),
    )?;
    call.entry("host.maintenance.end")
        .on(record.id)
        .in_workspace(record.workspace, &mut batch);
    let reply = preview(&app, &call, &record);
    call.finish(&app, batch, reply).await
}

/// Decides about a suspected clone, as [`gateway_core::host::repair`] says.
pub async fn repair_host_clone(app: Arc<App>, call: Call<RepairHostClone>) -> Result<Host> {
    let kept = find(&app, &call, call.path.host)?;
    let repair = call.body.repair;
    let original = kept.clone_of.and_then(|original| {
        let tables = app.catalog.read();
        tables.hosts.get(&original).cloned()
    });
    let repaired = host::repair(
        kept.decided(),
        original.as_ref().map(|original| original.decided()),
        kept.clone_of.is_some_and(|id| app.links.is_linked(id)),
        repair,
        app.fence(),
        call.meta.now,
    )
    .map_err(|refused| Error::conflict(refused.to_string()))?;
    let newcomer = (*kept.record).clone().with(&repaired.newcomer);
    let original_id = kept.clone_of.unwrap_or(kept.id);
    let mut batch = Batch::new();
    if let (Some(decided), Some(original)) = (repaired.original, original) {
        // A condition as well: nothing about the original may change meanwhile.
        let record = (*original.record).clone().with(&decided);
        put(&mut batch, &original, &record)?;
    }
    put(&mut batch, &kept, &newcomer)?;
    for (host, other) in [(newcomer.id, original_id), (original_id, newcomer.id)] {
        history(
            &mut batch,
            host,
            call.meta.now,
            HostEvent::CloneRepaired { repair, other },
            call.origin().by(),
        )?;
    }
    call.entry("host.repair_clone")
        .on(newcomer.id)
        .with("repair", repair)
        .with("original", original_id)
        .in_workspace(newcomer.workspace, &mut batch);
    let reply = preview(&app, &call, &newcomer);
    call.finish(&app, batch, reply).await
}

/// Retires a host.
pub async fn retire_host(app: Arc<App>, call: Call<RetireHostRecord>) -> Result<Host> {
    let kept = find(&app, &call, call.path.host)?;
    let Some(gone) = kept.decided().retired(call.meta.now) else {
        return show(&app, &call, kept.id);
    };
    let reason = if call.body.reason.is_empty() {
        "by an operator".to_owned()
    } else {
        call.body.reason.to_string()
    };
    let record = (*kept.record).clone().with(&gone);
    let mut batch = Batch::new();
    put(&mut batch, &kept, &record)?;
    history(
        &mut batch,
        record.id,
        call.meta.now,
        HostEvent::Retired {
            reason: reason.clone(),
        },
        call.origin().by(),
    )?;
    call.entry("host.retire")
        .on(record.id)
        .with("reason", reason)
        .in_workspace(record.workspace, &mut batch);
    let reply = preview(&app, &call, &record);
    call.finish(&app, batch, reply).await
}

/// Writes `record` on condition that it is still what `kept` was.
pub fn put(batch: &mut Batch, kept: &Kept<HostRecordV1>, record: &HostRecordV1) -> Result<()> {
    let key = key_of::<HostRecordV1>(record.id);
    batch.require(&key, Condition::RevIs(kept.rev));
    batch.put_record(&key, record)?;
    Ok(())
}

fn refuse_retired(record: &HostRecordV1) -> Result<()> {
    if record.membership == Membership::Retired {
        Err(Error::conflict("the host is retired"))
    } else {
        Ok(())
    }
}

fn find<E: Endpoint>(app: &App, call: &Call<E>, host: HostId) -> Result<Kept<HostRecordV1>> {
    let tables = app.catalog.read();
    tables
        .host_in(call.proof.workspace(), host)
        .cloned()
        .ok_or_else(|| Error::not_found("host"))
}

fn show<E: Endpoint>(app: &App, call: &Call<E>, host: HostId) -> Result<Host> {
    view::host(&app.catalog.read(), &app.links, host, call.meta.now)
        .ok_or_else(|| Error::not_found("host"))
}

/// The host as it will be once `record` is committed.
fn preview<E: Endpoint>(app: &App, call: &Call<E>, record: &HostRecordV1) -> Host {
    let shown = view::host(&app.catalog.read(), &app.links, record.id, call.meta.now);
    let maintenance = record.maintenance.clone();
    let connectivity = shown
        .as_ref()
        .map_or(Connectivity::Never, |host| host.connectivity);
    let hostname = shown
        .as_ref()
        .and_then(|host| host.facts.as_ref())
        .map(|facts| clean(&facts.hostname, 128));
    let hostname = hostname.or_else(|| record.awaited_hostname.clone());
    let base = shown.unwrap_or_else(|| Host {
        id: record.id,
        workspace: record.workspace,
        name: String::new(),
        display_name: None,
        summary: model::host::Summary::Unknown,
        membership: record.membership,
        connectivity,
        connectivity_since: record.created_at,
        last_seen_at: None,
        maintenance: None,
        labels: Default::default(),
        ephemeral: record.ephemeral,
        clone_of: None,
        carrier: None,
        address: None,
        boot_id: None,
        agent_version: None,
        clock_skew_ms: None,
        certificate: None,
        facts: None,
        created_at: record.created_at,
        enrolled_at: None,
        retired_at: None,
    });
    Host {
        name: view::name_of(record, hostname.as_deref()),
        display_name: record.display_name.clone(),
        summary: model::host::summary(record.membership, connectivity, maintenance.is_some()),
        membership: record.membership,
        maintenance,
        labels: record.labels.clone(),
        clone_of: record.clone_of,
        enrolled_at: record.enrolled_at,
        retired_at: record.retired_at,
        ..base
    }
}
