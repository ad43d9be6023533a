//! `--dry-run`: what would become of it, and nothing else.

use std::time::Duration;

use api::v1::power::{
    AskBulkPower, AskPower, BulkPowerPlan, PlanBulkPower, PlanHostPower, PowerPlan,
};
use api::v1::{InWorkspace, OfHost};

use crate::app::App;
use crate::client::Client;
use crate::failure::{Failure, NOT_ALLOWED};
use crate::output::{Cell, Table, Tone};

pub(super) fn of_one(
    app: &mut App,
    client: &Client,
    path: &OfHost,
    body: &AskPower,
) -> Result<u8, Failure> {
    let plan = client.send::<PlanHostPower>(path, body)?;
    app.out.write(&plan, |plan, _| one(plan))?;
    Ok(exit_code(plan.ok))
}

pub(super) fn of_many(
    app: &mut App,
    client: &Client,
    path: &InWorkspace,
    body: &AskBulkPower,
) -> Result<u8, Failure> {
    let plan = client.send::<PlanBulkPower>(path, body)?;
    app.out.write(&plan, |plan, _| many(plan))?;
    Ok(exit_code(is_content(&plan)))
}

fn exit_code(ok: bool) -> u8 {
    if ok { 0 } else { NOT_ALLOWED }
}

fn is_content(plan: &BulkPowerPlan) -> bool {
    plan.objections.is_empty() && plan.failing_hosts == 0
}

fn verdict(ok: bool) -> Cell {
    let (word, tone) = if ok {
        ("nothing speaks against it", Tone::Good)
    } else {
        ("would not work", Tone::Bad)
    };
    Cell::new(word).tone(tone)
}

fn one(plan: &PowerPlan) -> Table {
    let mut table = Table::of_one();
    table.property("host", plan.host.to_string());
    table.property("action", plan.action.as_str());
    table.property("verdict", verdict(plan.ok));
    if let Some(seen) = &plan.observed {
        table.property("observed", format!("{} ({})", seen.state, seen.raw));
    }
    for step in &plan.steps {
        let step = format!("{} by {}, {}", step.action, step.by, step.when);
        table.property("step", step);
    }
    if plan.already {
        table.property("step", "none: it is so already");
    }
    if plan.waits_for > 0 {
        table.property("waits for", format!("{} operations", plan.waits_for));
    }
    for objection in &plan.objections {
        let text = format!("{} [{}]", objection.message, objection.code);
        table.property("objection", text);
    }
    table
}

fn many(plan: &BulkPowerPlan) -> Table {
    let mut table = Table::of_one();
    table.property("action", plan.action.as_str());
    table.property("verdict", verdict(is_content(plan)));
    table.property("hosts", plan.hosts.to_string());
    table.property("at once", plan.at_once.to_string());
    for (provider, hosts) in &plan.providers {
        table.property("by", format!("{provider}: {hosts} hosts"));
    }
    table.property("endpoints", plan.endpoints.to_string());
    let least = Duration::from_millis(plan.at_least_ms);
    table.property("takes at least", format!("{:.1} s", least.as_secs_f64()));
    for objection in &plan.objections {
        let text = format!("{} [{}]", objection.message, objection.code);
        table.property("objection", text);
    }
    for failing in &plan.failing {
        let trouble = &failing.trouble;
        let text = format!(
            "{}: {} [{}]",
            failing.host_name, trouble.message, trouble.code
        );
        table.property("fails", text);
    }
    let unnamed = usize::try_from(plan.failing_hosts).unwrap_or(usize::MAX);
    let unnamed = unnamed.saturating_sub(plan.failing.len());
    if unnamed > 0 {
        table.property("fails", format!("{unnamed} more"));
    }
    table
}
