//! Rehearsals: what would become of something, if it were asked for now.
//!
//! One host's provider is looked at, as whoever may read may have it looked at; of many hosts it is
//! said what is known. Nothing is written, and nothing is told to a machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::v1::power::*;
use gateway_core::power::bulk::at_least;
use gateway_core::power::limits::Counted;
use gateway_core::power::operation::{Failure, is_already};
use gateway_core::power::plan::{By, Step, Support, plan};
use gateway_core::power::{Seen, Trouble};
use model::ids::{HostId, WorkspaceId};
use model::power::PowerAction;

use super::{bulk, must_serve};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::power::ask::{self, Verb, Wanted};
use crate::power::provider::Machine;
use crate::power::records::PowerTargetRecordV1;
use crate::power::{driver, view};
use crate::state::catalog::Tables;

/// Hosts that an answer names.
const NAMED: usize = 100;

/// Rehearses something for a host.
pub async fn plan_host_power(app: Arc<App>, call: Call<PlanHostPower>) -> Result<PowerPlan> {
    let (workspace, host) = (call.proof.workspace(), call.path.host);
    must_serve(&app, workspace, host)?;
    let asked = &call.body;
    let wanted = Wanted::of(verb(asked.action)?, asked)?;
    let (mut objections, waits_for, target) = {
        let tables = app.catalog.read();
        let stay = |supersede: bool| {
            let open = tables.power.open_on(host);
            open.filter(|it| !supersede || !it.operation.is_untouched())
                .count()
        };
        let target = tables.power.targets.get(&host);
        (
            refusals(&app, &tables, workspace, host, &wanted, asked),
            u32::try_from(stay(asked.supersede)).unwrap_or(u32::MAX),
            target.map(|target| Arc::clone(&target.record)),
        )
    };
    let looked = match &target {
        Some(target) => look(&app, target).await,
        None => Ok((Support::default(), None)),
    };
    let linked = app.links.is_linked(host);
    let (mut steps_to_take, mut already, mut observed) = (Vec::new(), false, None);
    match looked {
        Err(failure) => objections.push(failure.trouble),
        Ok((support, seen)) => {
            let boot = wanted.boot.as_ref();
            already = is_already(wanted.action, boot, seen.as_ref(), linked);
            match steps(&wanted, &support, target.is_some(), linked) {
                Ok(steps) if !already => steps_to_take = steps,
                Ok(_) => {}
                Err(trouble) => objections.push(trouble),
            }
            observed = seen;
        }
    }
    Ok(PowerPlan {
        host,
        action: wanted.action,
        ok: objections.is_empty(),
        steps: view::steps(&steps_to_take, None),
        already,
        objections: shown(&objections),
        observed: observed.as_ref().map(view::observation),
        waits_for,
    })
}

/// Why the request itself would be refused, or would wait.
fn refusals(
    app: &App,
    tables: &Tables,
    workspace: WorkspaceId,
    host: HostId,
    wanted: &Wanted,
    asked: &AskPower,
) -> Vec<Trouble> {
    let (action, confirm) = (wanted.action, asked.confirm.as_deref());
    let confirmed = ask::confirmed(tables, workspace, host, action, confirm);
    let room = if asked.supersede {
        Ok(())
    } else {
        ask::room(tables, host)
    };
    let each = [
        ("never_off", ask::never_off(tables, host, action)),
        ("confirm", confirmed),
        ("line_full", room),
    ];
    let refused = each
        .into_iter()
        .filter_map(|(code, judged)| refused(code, judged));
    refused.chain(frozen(app)).collect()
}

/// What the provider can do, and how the machine is.
async fn look(
    app: &App,
    target: &PowerTargetRecordV1,
) -> std::result::Result<(Support, Option<Seen>), Failure> {
    let provider = app.power.providers.get(&target.plugin, target.workspace)?;
    driver::check(&*provider, &Machine::from(target)).await
}

/// The steps of what is wanted, by what is known.
fn steps(
    wanted: &Wanted,
    support: &Support,
    has_target: bool,
    linked: bool,
) -> std::result::Result<Vec<Step>, Trouble> {
    if !has_target && !linked {
        return Err(Trouble::new(
            "nobody",
            "the host has no power provider and its agent is not linked: nobody can do it",
        ));
    }
    let escalate = wanted.escalate_after.is_some();
    let boot = wanted.boot.as_ref();
    plan(wanted.action, escalate, boot, support, linked)
}

/// Rehearses something for many hosts.
pub async fn plan_bulk_power(app: Arc<App>, call: Call<PlanBulkPower>) -> Result<BulkPowerPlan> {
    let workspace = call.proof.workspace();
    let asked = &call.body;
    let wanted = Wanted::new(
        verb(asked.action)?.action(asked.action)?,
        asked.then_hard_after_ms,
        asked.boot.clone(),
        asked.timeout_ms,
    )?;
    let tables = app.catalog.read();
    let hosts = bulk::meant(&tables, workspace, asked)?;
    let confirm = asked.confirm.as_deref();
    let confirmed = bulk::confirmed(&tables, workspace, &wanted, hosts.len(), confirm);
    let objections: Vec<_> = refused("confirm", confirmed)
        .into_iter()
        .chain(frozen(&app))
        .collect();
    let mut rehearsed = BulkPowerPlan {
        action: wanted.action,
        hosts: u32::try_from(hosts.len()).unwrap_or(u32::MAX),
        at_once: bulk::at_once(asked),
        providers: BTreeMap::new(),
        endpoints: 0,
        at_least_ms: 0,
        objections: shown(&objections),
        failing_hosts: 0,
        failing: Vec::new(),
    };
    let mut endpoints: BTreeMap<String, u32> = BTreeMap::new();
    let mut limits: BTreeMap<Counted, (u32, u32)> = BTreeMap::new();
    for host in hosts {
        let first = match begins(&app, &tables, host, &wanted) {
            Ok(first) => first,
            Err(trouble) => {
                rehearsed.failing_hosts += 1;
                if rehearsed.failing.len() < NAMED {
                    rehearsed.failing.push(PlannedFailure {
                        host,
                        host_name: view::host_name(&tables, host),
                        trouble: view::trouble(&trouble, None),
                    });
                }
                continue;
            }
        };
        let target = tables.power.targets.get(&host);
        let provider = target.map_or_else(|| "agent".to_owned(), |it| it.plugin.to_string());
        *rehearsed.providers.entry(provider).or_default() += 1;
        // What agents are asked has no pace.
        if let Some(target) = target.filter(|_| first == By::Provider) {
            *endpoints.entry(target.shares()).or_default() += 1;
        }
        if wanted.action.interrupts() {
            for limit in driver::limits_of(&app, &tables, workspace, host) {
                limits.entry(limit.counted).or_insert((0, limit.most)).0 += 1;
            }
        }
    }
    rehearsed.endpoints = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
    let configured = &app.config.power;
    let pace = (configured.endpoint_burst, configured.endpoint_interval);
    let least = at_least(endpoints.into_values(), pace, limits.into_values());
    rehearsed.at_least_ms = u64::try_from(least.as_millis()).unwrap_or(u64::MAX);
    Ok(rehearsed)
}

/// By whom it would begin on this host, by what its provider said last.
fn begins(
    app: &App,
    tables: &Tables,
    host: HostId,
    wanted: &Wanted,
) -> std::result::Result<By, Trouble> {
    ask::never_off(tables, host, wanted.action)
        .map_err(|error| Trouble::new("never_off", error.to_string()))?;
    let seen = tables.power.seen.get(&host);
    let known = seen.and_then(|seen| seen.support.clone());
    let has_target = tables.power.targets.contains_key(&host);
    let linked = app.links.is_linked(host);
    match known {
        // What nobody asked yet is found out when it has its turn.
        None if has_target => Ok(By::Provider),
        known => {
            let steps = steps(wanted, &known.unwrap_or_default(), has_target, linked)?;
            Ok(steps.first().map_or(By::Provider, |step| step.by))
        }
    }
}

/// Which permission it would take; a rehearsal says what it rehearses.
fn verb(action: Option<PowerAction>) -> Result<Verb> {
    match action {
        Some(PowerAction::On) => Ok(Verb::On),
        Some(PowerAction::Shutdown | PowerAction::Off) => Ok(Verb::Off),
        Some(PowerAction::Reboot | PowerAction::Reset | PowerAction::Cycle | PowerAction::Nmi) => {
            Ok(Verb::Reset)
        }
        None => Err(Error::invalid("action", "a rehearsal needs it")),
    }
}

/// What the request itself would be answered with, under a stable word.
fn refused(code: &str, judged: Result<()>) -> Option<Trouble> {
    let error = judged.err()?;
    Some(Trouble::new(code, error.to_string()))
}

fn frozen(app: &App) -> Option<Trouble> {
    let message = "automatic actions stand still: nothing is submitted until they go on";
    app.frozen().then(|| Trouble::new("frozen", message))
}

fn shown(objections: &[Trouble]) -> Vec<PowerTrouble> {
    let each = objections.iter();
    each.map(|trouble| view::trouble(trouble, None)).collect()
}
