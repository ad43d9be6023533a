//! Asking for something to be done: what may be asked, and writing it down.

use std::time::Duration;

use api::v1::power::AskPower;
use gateway_core::power::Trouble;
use gateway_core::power::operation::Operation;
use gateway_store::{Batch, Condition};
use model::Timestamp;
use model::ids::{HostId, PowerOperationId, WorkspaceId};
use model::power::{BootDevice, BootOnce, PowerAction};
use model::tenancy::Environment;

use super::records::{HappenedV1, PowerBulkRecordV1, PowerOperationRecordV1};
use crate::app::App;
use crate::error::{Error, Result};
use crate::state::catalog::Tables;
use crate::state::records::key_of;

/// How long an operation may take unless said.
pub const USUAL: Duration = Duration::from_secs(600);
/// Operations that wait in line on one host.
const IN_LINE: usize = 4;
/// Hosts at once from which on the workspace's name is to be typed.
pub const MANY: usize = 10;
/// Operations of a bulk that are written together.
const AT_ONCE: usize = 16;

/// Which of the three permissions an action is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `power.on`.
    On,
    /// `power.off`.
    Off,
    /// `power.reset`.
    Reset,
}

impl Verb {
    /// What is asked for, if it is of this verb.
    pub fn action(self, asked: Option<PowerAction>) -> Result<PowerAction> {
        let able: &[PowerAction] = match self {
            Self::On => &[PowerAction::On],
            Self::Off => &[PowerAction::Shutdown, PowerAction::Off],
            Self::Reset => &[
                PowerAction::Reset,
                PowerAction::Reboot,
                PowerAction::Cycle,
                PowerAction::Nmi,
            ],
        };
        let action = asked.unwrap_or(able[0]);
        if able.contains(&action) {
            return Ok(action);
        }
        let words: Vec<_> = able.iter().map(|action| action.as_str()).collect();
        Err(Error::invalid(
            "action",
            format!("here it is one of: {}", words.join(", ")),
        ))
    }
}

/// What was asked, as it is decided about.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What.
    pub action: PowerAction,
    /// How long a soft action may take before the hard one follows.
    pub escalate_after: Option<Duration>,
    /// What the next boot is from.
    pub boot: Option<BootOnce>,
    /// How long it may take.
    pub timeout: Duration,
}

impl Wanted {
    /// Checks what its type does not say.
    pub fn new(
        action: PowerAction,
        then_hard_after_ms: Option<u64>,
        boot: Option<BootOnce>,
        timeout_ms: Option<u64>,
    ) -> Result<Self> {
        let escalate_after = then_hard_after_ms.map(Duration::from_millis);
        if escalate_after.is_some()
            && !matches!(action, PowerAction::Shutdown | PowerAction::Reboot)
        {
            return Err(Error::invalid(
                "then_hard_after_ms",
                "only `shutdown` and `reboot` can be followed by something harder",
            ));
        }
        let timeout = timeout_ms.map_or(USUAL, Duration::from_millis);
        if escalate_after.is_some_and(|after| after >= timeout) {
            return Err(Error::invalid(
                "then_hard_after_ms",
                "must be shorter than `timeout_ms`, or nothing harder ever happens",
            ));
        }
        if let Some(boot) = &boot {
            if !action.boots() {
                let what = format!("{action} does not boot");
                return Err(Error::invalid("boot", what));
            }
            if boot.url.is_some() != (boot.device == BootDevice::Http) {
                let what = "an address goes with the device `http`, and with no other";
                return Err(Error::invalid("boot/url", what));
            }
        }
        Ok(Self {
            action,
            escalate_after,
            boot,
            timeout,
        })
    }

    /// Of one host.
    pub fn of(verb: Verb, asked: &AskPower) -> Result<Self> {
        Self::new(
            verb.action(asked.action)?,
            asked.then_hard_after_ms,
            asked.boot.clone(),
            asked.timeout_ms,
        )
    }
}

/// Refuses what is not confirmed: a host in production is interrupted when its name is typed.
pub fn confirmed(
    tables: &Tables,
    workspace: WorkspaceId,
    host: HostId,
    action: PowerAction,
    confirm: Option<&str>,
) -> Result<()> {
    let environment = tables.workspaces.get(&workspace).map(|it| it.environment);
    if environment != Some(Environment::Production) || !action.interrupts() {
        return Ok(());
    }
    let record = tables.hosts.get(&host);
    let name = record.map_or_else(String::new, |record| {
        crate::view::name_of(record, crate::view::hostname_of(tables, record))
    });
    if confirm == Some(&name) {
        return Ok(());
    }
    let what = format!(
        "this host is in production: repeat the request with its name, `{name}`, to confirm it"
    );
    Err(Error::invalid("confirm", what))
}

/// Refuses what would stand too far back in a host's line.
pub fn room(tables: &Tables, host: HostId) -> Result<()> {
    if tables.power.open_on(host).count() < IN_LINE {
        return Ok(());
    }
    Err(Error::conflict(
        "operations wait in line on this host already: call some off, or use `supersede`",
    ))
}

/// Refuses to interrupt a host that is never to be.
pub fn never_off(tables: &Tables, host: HostId, action: PowerAction) -> Result<()> {
    let target = tables.power.targets.get(&host);
    if action.interrupts() && target.is_some_and(|target| target.never_off) {
        return Err(Error::conflict(
            "this host is marked `never_off`: take the mark away first, if it is meant",
        ));
    }
    Ok(())
}

/// What ends an operation on such a host.
pub fn marked_never_off() -> Trouble {
    Trouble::new("never_off", "this host is marked `never_off`")
}

/// A new operation, as it is written down.
pub fn record(
    app: &App,
    host: HostId,
    workspace: WorkspaceId,
    wanted: &Wanted,
    by: (String, Option<String>),
    now: Timestamp,
) -> PowerOperationRecordV1 {
    let operation = Operation::new(
        wanted.action,
        wanted.boot.clone(),
        wanted.escalate_after,
        now.saturating_add(wanted.timeout),
    );
    PowerOperationRecordV1 {
        id: app.new_id(PowerOperationId::new),
        workspace,
        host,
        bulk: None,
        created_by: by.0,
        ticket: by.1,
        created_at: now,
        history: vec![HappenedV1 {
            at: now,
            state: operation.state(),
            message: None,
        }],
        operation,
        command: None,
    }
}

/// Writes operations of a bulk for the hosts whose turn it is. The bulk itself goes on with them,
/// so that none is written twice.
pub(super) async fn more(
    app: &App,
    bulk: &PowerBulkRecordV1,
    more: u32,
    now: Timestamp,
) -> Result<()> {
    let begun = usize::try_from(bulk.begun).unwrap_or(usize::MAX);
    let more = usize::try_from(more).unwrap_or(AT_ONCE).min(AT_ONCE);
    let wanted = Wanted {
        action: bulk.action,
        escalate_after: bulk.escalate_after,
        boot: bulk.boot.clone(),
        timeout: bulk.timeout,
    };
    let key = key_of::<PowerBulkRecordV1>(bulk.id);
    let rev = app
        .catalog
        .read()
        .power
        .bulks
        .get(&bulk.id)
        .map(|it| it.rev);
    let Some(rev) = rev else { return Ok(()) };
    let mut batch = Batch::new();
    batch.require(&key, Condition::RevIs(rev));
    let mut after = bulk.clone();
    for host in bulk.hosts.iter().skip(begun).take(more) {
        let by = (bulk.created_by.clone(), bulk.ticket.clone());
        let mut record = record(app, *host, bulk.workspace, &wanted, by, now);
        record.bulk = Some(bulk.id);
        if let Some(until) = bulk.permitted_until {
            record.operation.deadline = record.operation.deadline.min(until);
        }
        let never = never_off(&app.catalog.read(), *host, bulk.action).is_err();
        if never {
            record.operation.orphan(marked_never_off(), now);
            record.remember(now);
        }
        batch.put_record(&key_of::<PowerOperationRecordV1>(record.id), &record)?;
        after.begun += 1;
    }
    batch.put_record(&key, &after)?;
    // A lost race is looked at again.
    app.try_commit(batch).await?.map(drop).or(Ok(()))
}
