//! Power, as the API shows it.

use api::v1::power::{
    DesiredPower, HostPower, PowerAgent, PowerBulk, PowerHistory, PowerObservation, PowerOperation,
    PowerProgress, PowerStep, PowerSupport, PowerTarget, PowerTrouble,
};
use gateway_core::power::bulk::Ending;
use gateway_core::power::facts::{Known, observability};
use gateway_core::power::operation::{CancelState, Phase};
use gateway_core::power::plan::{By, Step, Support, When};
use gateway_core::power::{Seen, Trouble};
use model::Timestamp;
use model::ids::HostId;

use super::records::{PowerBulkRecordV1, PowerOperationRecordV1, PowerTargetRecordV1};
use super::{agent_of, driver};
use crate::app::App;
use crate::state::catalog::Tables;

/// What is known of a host's power.
pub fn host_power(app: &App, tables: &Tables, host: HostId, now: Timestamp) -> HostPower {
    let target = tables.power.targets.get(&host);
    let record = tables.power.seen.get(&host);
    // The last look may be later than what was written.
    let seen = record.and_then(|it| it.seen.clone()).map(|seen| Seen {
        at: app.power.looked_at(host).unwrap_or(seen.at).max(seen.at),
        ..seen
    });
    let known = Known {
        configured: target.is_some(),
        observable: record.and_then(|it| it.support.as_ref().map(|it| it.observable)),
        seen: seen.clone(),
        failing: record.and_then(|it| it.failing.clone()),
    };
    let agent = agent_of(app, tables, host);
    HostPower {
        host,
        target: target.map(|target| shown_target(target)),
        observability: observability(&known, app.config.power.observe_interval, now),
        observed: seen.as_ref().map(observation),
        failing: known
            .failing
            .as_ref()
            .map(|(since, it)| trouble(it, Some(*since))),
        agent: PowerAgent {
            linked: agent.linked,
            boot_id: agent.boot_id,
        },
        contradiction: record
            .and_then(|it| it.contradiction.as_ref())
            .map(|it| trouble(it, None)),
        desired: target.map_or_else(DesiredPower::default, |target| desired(target)),
        support: record.and_then(|it| it.support.as_ref()).map(support),
        operations: tables
            .power
            .open_on(host)
            .map(|record| operation(tables, record))
            .collect(),
    }
}

fn shown_target(record: &PowerTargetRecordV1) -> PowerTarget {
    PowerTarget {
        plugin: record.plugin.clone(),
        address: record.address.clone(),
        params: serde_json::from_str(&record.params).unwrap_or_default(),
        secrets: record.secrets.clone(),
        tls_profile: record.tls_profile.clone(),
        route: record.route.clone(),
        endpoint: record.endpoint.as_ref().and_then(|it| it.parse().ok()),
        never_off: record.never_off,
        desired: desired(record),
    }
}

fn desired(record: &PowerTargetRecordV1) -> DesiredPower {
    DesiredPower {
        mode: record.mode,
        state: record.desired,
    }
}

/// What a provider saw.
pub fn observation(seen: &Seen) -> PowerObservation {
    PowerObservation {
        state: seen.state,
        raw: seen.raw.clone(),
        at: seen.at,
    }
}

/// What a provider can do.
pub fn support(support: &Support) -> PowerSupport {
    PowerSupport {
        actions: support.actions.clone(),
        observable: support.observable,
        boot_devices: support.boot_devices.clone(),
        cancellable: support.cancellable,
    }
}

/// Why something does not work.
pub fn trouble(trouble: &Trouble, since: Option<Timestamp>) -> PowerTrouble {
    PowerTrouble {
        code: trouble.code.clone(),
        message: trouble.message.clone(),
        since,
    }
}

/// What a host is called.
pub fn host_name(tables: &Tables, host: HostId) -> String {
    tables.hosts.get(&host).map_or_else(
        || host.to_string(),
        |record| crate::view::name_of(record, crate::view::hostname_of(tables, record)),
    )
}

/// The steps of an operation, and which it is at.
pub fn steps(plan: &[Step], present: Option<usize>) -> Vec<PowerStep> {
    let steps = plan.iter().enumerate().map(|(place, step)| {
        let when = match (place, step.when) {
            (0, _) => "first",
            (_, When::Done) => "after_success",
            (_, When::NotDone) => "after_failure",
        };
        PowerStep {
            action: step.action,
            by: match step.by {
                By::Provider => "provider",
                By::Agent => "agent",
            }
            .to_owned(),
            when: when.to_owned(),
            present: present == Some(place),
        }
    });
    steps.collect()
}

/// An operation.
pub fn operation(tables: &Tables, record: &PowerOperationRecordV1) -> PowerOperation {
    let operation = &record.operation;
    let progress = match &operation.phase {
        Phase::Submitted {
            remote_id,
            percent,
            message,
            ..
        } => Some(PowerProgress {
            remote_id: remote_id.clone(),
            percent: *percent,
            message: message.clone(),
        }),
        _ => None,
    };
    let (confirmation, ended_at) = match &operation.phase {
        Phase::Ended(outcome) => (outcome.confirmation, Some(outcome.at)),
        _ => (None, None),
    };
    PowerOperation {
        id: record.id,
        workspace: record.workspace,
        host: record.host,
        host_name: host_name(tables, record.host),
        action: operation.action,
        then_hard_after_ms: operation
            .escalate_after
            .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        boot: operation.boot.clone(),
        state: operation.state(),
        confirmation,
        trouble: operation.trouble.as_ref().map(|it| trouble(it, None)),
        steps: steps(&operation.plan, Some(operation.at)),
        progress,
        cancel: match operation.cancel {
            CancelState::No => None,
            CancelState::Asked => Some("asked".to_owned()),
            CancelState::TooLate => Some("too_late".to_owned()),
        },
        created_by: record.created_by.clone(),
        ticket: record.ticket.clone(),
        bulk: record.bulk,
        created_at: record.created_at,
        deadline: operation.deadline,
        ended_at,
        history: record
            .history
            .iter()
            .map(|it| PowerHistory {
                at: it.at,
                state: it.state,
                message: it.message.clone(),
            })
            .collect(),
    }
}

/// Many hosts at once.
pub fn bulk(tables: &Tables, record: &PowerBulkRecordV1) -> PowerBulk {
    let tally = driver::tally(tables, record);
    let state = match record.ended {
        None if record.cancelled => "cancelling",
        None => "running",
        Some((Ending::Complete, _)) => "complete",
        Some((Ending::Stopped, _)) => "stopped",
        Some((Ending::Cancelled, _)) => "cancelled",
    };
    PowerBulk {
        id: record.id,
        workspace: record.workspace,
        action: record.action,
        hosts: tally.hosts,
        waiting: tally.waiting(),
        active: tally.active,
        succeeded: tally.succeeded,
        failed: tally.failed,
        state: state.to_owned(),
        at_once: record.at_once,
        stop_after: record.stop_after,
        created_by: record.created_by.clone(),
        created_at: record.created_at,
        ended_at: record.ended.map(|(_, at)| at),
    }
}
