//! Rehearsals: what would become of something, if it were asked for now.
//!
//! One host's provider is asked, since one answer comes soon; of many hosts it is said what is
//! known. Nothing is written, and nothing is told to a machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::v1::power::*;
use gateway_core::power::Trouble;
use gateway_core::power::bulk::at_least;
use gateway_core::power::limits::Counted;
use gateway_core::power::plan::{Step, Support, plan};
use model::ids::HostId;
use model::power::PowerAction;

use super::{ask_all, bulk, must_serve};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::power::ask::{self, Verb, Wanted};
use crate::power::provider::Machine;
use crate::power::{driver, view};
use crate::state::catalog::Tables;

/// Hosts that an answer names.
const NAMED: usize = 100;

/// Rehearses something for a host.
pub async fn plan_host_power(app: Arc<App>, call: Call<PlanHostPower>) -> Result<PowerPlan> {
    let (workspace, host) = (call.proof.workspace(), call.path.host);
    must_serve(&app, workspace, host)?;
    let wanted = Wanted::of(verb(call.body.action)?, &call.body)?;
    let mut plan = PowerPlan {
        host,
        action: wanted.action,
        ok: false,
        steps: Vec::new(),
        objections: Vec::new(),
        findings: Vec::new(),
        observed: None,
        before: 0,
    };
    let target = {
        let tables = app.catalog.read();
        let confirm = call.body.confirm.as_deref();
        let action = wanted.action;
        let refusals = [
            ("never_off", ask::never_off(&tables, host, action)),
            (
                "confirm",
                ask::confirmed(&tables, workspace, host, action, confirm),
            ),
            ("line_full", ask::room(&tables, host)),
        ];
        for (code, refusal) in refusals {
            plan.objections.extend(refused(code, refusal));
        }
        let before = tables.power.open_on(host).count();
        plan.before = u32::try_from(before).unwrap_or(u32::MAX);
        let target = tables.power.targets.get(&host);
        target.map(|target| Arc::clone(&target.record))
    };
    let (mut support, mut content) = (Some(Support::default()), true);
    if let Some(target) = &target {
        support = None;
        match app.power.providers.get(&target.plugin, workspace) {
            Err(failure) => plan.objections.push(view::trouble(&failure.trouble, None)),
            Ok(provider) => {
                let asked = ask_all(&*provider, &Machine::from(&**target)).await;
                content = asked.is_content();
                plan.findings = asked.findings;
                plan.observed = asked.observed.as_ref().map(view::observation);
                support = asked.support;
            }
        }
    }
    if let Some(support) = support {
        let linked = app.links.is_linked(host);
        match steps(&wanted, &support, target.is_some(), linked) {
            Ok(steps) => plan.steps = view::steps(&steps, None),
            Err(trouble) => plan.objections.push(view::trouble(&trouble, None)),
        }
    }
    plan.ok = plan.objections.is_empty() && content;
    Ok(plan)
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
    plan(
        wanted.action,
        wanted.escalate_after.is_some(),
        wanted.boot.as_ref(),
        support,
        linked,
    )
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
    let mut plan = BulkPowerPlan {
        action: wanted.action,
        hosts: u32::try_from(hosts.len()).unwrap_or(u32::MAX),
        at_once: bulk::at_once(asked),
        providers: BTreeMap::new(),
        endpoints: 0,
        at_least_ms: 0,
        objections: refused("confirm", confirmed).into_iter().collect(),
        failing_hosts: 0,
        failing: Vec::new(),
    };
    let mut endpoints: BTreeMap<String, u32> = BTreeMap::new();
    let mut limits: BTreeMap<Counted, (u32, u32)> = BTreeMap::new();
    for host in hosts {
        if let Err(trouble) = begins(&app, &tables, host, &wanted) {
            plan.failing_hosts += 1;
            if plan.failing.len() < NAMED {
                plan.failing.push(PlannedFailure {
                    host,
                    host_name: view::host_name(&tables, host),
                    trouble: view::trouble(&trouble, None),
                });
            }
            continue;
        }
        let target = tables.power.targets.get(&host);
        let provider = target.map_or_else(|| "agent".to_owned(), |it| it.plugin.to_string());
        *plan.providers.entry(provider).or_default() += 1;
        if let Some(target) = target {
            *endpoints.entry(target.shares()).or_default() += 1;
        }
        if wanted.action.interrupts() {
            for limit in driver::limits_of(&app, &tables, workspace, host) {
                limits.entry(limit.counted).or_insert((0, limit.most)).0 += 1;
            }
        }
    }
    plan.endpoints = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
    let configured = &app.config.power;
    let pace = (configured.endpoint_burst, configured.endpoint_interval);
    let least = at_least(endpoints.into_values(), pace, limits.into_values());
    plan.at_least_ms = u64::try_from(least.as_millis()).unwrap_or(u64::MAX);
    Ok(plan)
}

/// Whether it would at least begin on this host, by what its provider said last.
fn begins(
    app: &App,
    tables: &Tables,
    host: HostId,
    wanted: &Wanted,
) -> std::result::Result<(), Trouble> {
    ask::never_off(tables, host, wanted.action)
        .map_err(|error| Trouble::new("never_off", error.to_string()))?;
    let seen = tables.power.seen.get(&host);
    let known = seen.and_then(|seen| seen.support.clone());
    let has_target = tables.power.targets.contains_key(&host);
    let linked = app.links.is_linked(host);
    match known {
        // What nobody asked yet is found out when it has its turn.
        None if has_target => Ok(()),
        known => steps(wanted, &known.unwrap_or_default(), has_target, linked).map(drop),
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
fn refused(code: &str, refusal: Result<()>) -> Option<PowerTrouble> {
    let error = refusal.err()?;
    Some(view::trouble(&Trouble::new(code, error.to_string()), None))
}
