//! Power at work: operations that go on, and providers that are looked at.
//!
//! ```text
//! catalog ── operations, targets ──┐
//! links ── who came, who went ─────┤► driver: one turn at a time for each operation
//! timers ──────────────────────────┘      │ written before and after each question
//!                                         ├─► a power provider (a plugin)
//!                                         └─► the host's agent (a command of its own)
//! ```
//!
//! Handlers write operations down ([`records`]); the driver finds them in the catalog, whoever
//! wrote them, and after a crash it goes on from what is written. What is decided is decided in
//! [`gateway_core::power`].

pub mod agent;
pub mod ask;
pub mod driver;
pub mod provider;
pub mod records;
pub mod tables;
pub mod view;
pub mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gateway_core::power::Agent;
use gateway_core::power::operation::Phase;
use gateway_store::Key;
use model::Timestamp;
use model::host::Membership;
use model::ids::HostId;

use self::provider::Providers;
use self::records::{
    PowerBulkRecordV1, PowerOperationRecordV1, PowerSeenRecordV1, PowerTargetRecordV1,
};
use crate::app::App;
use crate::error::Result;
use crate::reconcile::housekeeping::delete;
use crate::state::catalog::Tables;
use crate::state::records::key_of;

/// Operations are shown for this long after their end.
const KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// What is shared of power beside the catalog.
#[derive(Debug, Default)]
pub struct Power {
    /// Power providers that are enabled.
    pub providers: Providers,
    /// When providers were last seen to answer; what they said is written down when it is new.
    looked: Mutex<HashMap<HostId, Timestamp>>,
}

impl Power {
    /// When a host's provider last answered in this life of the gateway.
    pub fn looked_at(&self, host: HostId) -> Option<Timestamp> {
        self.lock().get(&host).copied()
    }

    /// It answered now.
    pub(crate) fn looked(&self, host: HostId, now: Timestamp) {
        self.lock().insert(host, now);
    }

    /// It has no provider any more.
    pub(crate) fn forget(&self, host: HostId) {
        self.lock().remove(&host);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HostId, Timestamp>> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts what runs.
pub fn spawn(app: &Arc<App>) {
    app.tasks
        .spawn_critical("power.driver", driver::run(Arc::clone(app)));
    app.tasks
        .spawn_critical("power.watch", watch::run(Arc::clone(app)));
}

/// What a host's agent proves at this moment.
pub(crate) fn agent_of(app: &App, tables: &Tables, host: HostId) -> Agent {
    match app.links.live(host) {
        Some(link) if !link.renewal_only => Agent {
            linked: true,
            since: Some(link.since),
            boot_id: Some(link.boot_id.clone()),
        },
        _ => {
            let seen = tables.seen.get(&host);
            Agent {
                linked: false,
                since: seen.and_then(|seen| seen.last_seen_at),
                boot_id: seen.and_then(|seen| seen.boot_id.clone()),
            }
        }
    }
}

/// Forgets operations and bulks that ended long ago, which the audit trail remembers, and what was
/// configured for hosts that have retired since.
pub(crate) async fn forget_old(app: &App) -> Result<()> {
    let horizon = app.now().saturating_sub(KEPT);
    let old: Vec<Key> = {
        let tables = app.catalog.read();
        let operations = tables.power.operations.values().filter(|record| {
            matches!(&record.operation.phase, Phase::Ended(outcome) if outcome.at < horizon)
        });
        let bulks = tables.power.bulks.values();
        let bulks = bulks.filter(|record| record.ended.is_some_and(|(_, at)| at < horizon));
        let gone = |host: &&HostId| {
            let record = tables.hosts.get(*host);
            record.is_none_or(|record| record.membership == Membership::Retired)
        };
        let targets = tables.power.targets.keys().filter(gone);
        let seen = tables.power.seen.keys().filter(gone);
        operations
            .map(|record| key_of::<PowerOperationRecordV1>(record.id))
            .chain(targets.map(key_of::<PowerTargetRecordV1>))
            .chain(seen.map(key_of::<PowerSeenRecordV1>))
            .chain(bulks.map(|record| key_of::<PowerBulkRecordV1>(record.id)))
            .collect()
    };
    delete(app, &old).await
}
