//! The gateway's parts, in one place, each owning its own state.
//!
//! [`App`] is what handlers, links and reconcilers share. It decides nothing: it
//! knows the clock, draws ids, and commits. A commit here is the whole of "do
//! it": the change, its audit entries and the history go to the store as one
//! batch, and the call returns when this gateway's own view shows it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use ::link::accept::Handshakes;
use ::link::carrier::Hub;
use gateway_core::identity::Fence;
use gateway_store::{Batch, CommitError, Mirror, Rev, Store};
use model::Timestamp;
use model::ids::{ApiKeyId, DeploymentId, HostId};
use tokio::sync::watch;

use crate::ca::CertificateAuthority;
use crate::command::Commands;
use crate::config::Config;
use crate::diagnose::Diagnoses;
use crate::error::Result;
use crate::events::EventHub;
use crate::installer::Installers;
use crate::keys::{OwnerSecret, ServerKeys};
use crate::link::registry::Links;
use crate::link::strangers::Strangers;
use crate::metrics::Metrics;
use crate::plugins::Plugins;
use crate::policy::Policies;
use crate::power::Power;
use crate::rate::{Limits, Quota};
use crate::releases::Releases;
use crate::scrape::Scrapes;
use crate::signal::delivery::Notifiers;
use crate::signal::outbox::Outbox;
use crate::state::catalog::Catalog;
use crate::state::records::RestoredRecordV1;
use crate::tasks::Tasks;
use crate::transfer::Transfers;
use crate::usage::KeyUses;

/// How long a request waits for its own change to become visible. Far above the
/// microseconds it takes; reaching it means that the mirror is stuck.
const VISIBLE_WITHIN: Duration = Duration::from_secs(5);

/// Everything shared.
pub struct App {
    /// As read at start.
    pub config: Config,
    /// Which deployment this is.
    pub deployment: DeploymentId,
    /// About the last time when the state was restored from a backup.
    pub restored: Option<RestoredRecordV1>,
    /// The durable state.
    pub store: Arc<dyn Store>,
    /// Its mirror in memory.
    pub catalog: Arc<Catalog>,
    /// Keeps the catalog current.
    pub mirror: Mirror,
    /// Server secrets.
    pub keys: Arc<ServerKeys>,
    /// The one-time secret of the first run.
    pub owner_secret: OwnerSecret,
    /// Certificates.
    pub ca: Arc<CertificateAuthority>,
    /// Who is linked.
    pub links: Links,
    /// Commands at work.
    pub commands: Commands,
    /// Scrapes of hosts.
    pub scrapes: Scrapes,
    /// Hosts that are being diagnosed.
    pub diagnoses: Arc<Diagnoses>,
    /// Files under way.
    pub transfers: Arc<Transfers>,
    /// What followers of a workspace are told.
    pub events: EventHub,
    /// Installer plugins that are enabled.
    pub installers: Installers,
    /// Policies that are enabled.
    pub policies: Policies,
    /// Hosts' power.
    pub power: Power,
    /// What notifiers are told.
    pub outbox: Outbox,
    /// Notifiers that are enabled; nothing until that is known, some time after the start.
    pub notifiers: watch::Sender<Option<Notifiers>>,
    /// When API keys were used, until it is written down.
    pub key_uses: KeyUses,
    /// Limits on attempts and requests.
    pub rates: Rates,
    /// Handshakes of agents, over UDP and the carrier.
    pub handshakes: Arc<Handshakes>,
    /// Room for peers that have proven nothing yet.
    pub strangers: Strangers,
    /// Counters.
    pub metrics: Metrics,
    /// Agent releases.
    pub releases: Releases,
    /// Plugins.
    pub plugins: Plugins,
    /// Everything that runs.
    pub tasks: Tasks,
    /// When this gateway started, on the monotonic clock.
    pub started: Instant,
    /// The URL hosts and people use.
    pub public_url: String,
    /// Where WebSockets that carry QUIC are attached, once the endpoint is there.
    pub hub: OnceLock<Arc<Hub>>,
    /// Whether automatic actions stand still.
    pub frozen: AtomicBool,
}

/// Limits on attempts and requests.
#[derive(Debug)]
pub struct Rates {
    /// Failed authentications, by source.
    pub failed_auth: Limits<IpAddr>,
    /// Enrolment attempts, by source.
    pub enrolment: Limits<IpAddr>,
    /// Requests, by API key.
    pub requests: Limits<ApiKeyId>,
    /// Audit entries about refusals, by source: a flood is one entry now and then.
    pub refusals: Limits<IpAddr>,
    /// Links, per host: what a host may do outlives each of them.
    pub links: Limits<HostId>,
    /// Frames that are written to the store, per host.
    pub host_writes: Limits<HostId>,
}

impl App {
    /// The wall clock.
    pub fn now(&self) -> Timestamp {
        wall_clock()
    }

    /// Time since this gateway started, by the monotonic clock.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Commits `batch` and waits until the catalog shows it.
    pub async fn commit(&self, batch: Batch) -> Result<Rev> {
        Ok(self.try_commit(batch).await??)
    }

    /// Like [`App::commit`], with the store's own refusals apart, for callers that
    /// know what a conflict means.
    pub async fn try_commit(&self, mut batch: Batch) -> Result<Result<Rev, CommitError>> {
        self.outbox.add_to(&mut batch);
        let entries = batch.audit_entries() as u64;
        let rev = match self.store.commit(batch).await {
            Ok(rev) => rev,
            Err(error) => {
                self.metrics.commit_failed(&error);
                return Ok(Err(error));
            }
        };
        self.metrics.committed();
        self.metrics.audit_entries.inc_by(entries);
        self.mirror.wait_for(rev, VISIBLE_WITHIN).await?;
        Ok(Ok(rev))
    }

    /// Stops automatic actions, or lets them go on.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Relaxed);
    }

    /// Whether automatic actions stand still.
    pub fn frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }

    /// The life of the state that this gateway serves: rises with each restore, 0 before
    /// the first.
    pub fn incarnation(&self) -> u64 {
        self.restored
            .as_ref()
            .map_or(0, |restored| restored.incarnation)
    }

    /// What keeps this life's generations apart from those of the lives before it.
    pub fn fence(&self) -> Fence {
        Fence::after(self.incarnation())
    }

    /// A new id.
    pub fn new_id<I>(&self, make: fn(Timestamp, [u8; 10]) -> I) -> I {
        make(self.now(), crate::keys::random())
    }
}

/// Links of one host. An agent on a bad network comes back every few seconds for a while;
/// its own pauses keep it below this.
const LINKS: Quota = Quota::every(Duration::from_secs(2), 30);
/// Frames of one host that are written down: a link has three or four of them.
const HOST_WRITES: Quota = Quota::every(Duration::from_millis(500), 120);

impl Rates {
    /// As configured.
    pub fn new(config: &Config) -> Self {
        // Sources remembered at a time: a few megabytes at most, and an attacker
        // with more addresses than that gets no more than one attempt from each.
        const SOURCES: usize = 65_536;
        Self {
            failed_auth: Limits::by_source(config.limits.failed_auth_per_source(), SOURCES),
            enrolment: Limits::by_source(config.limits.enrolments_per_source(), SOURCES),
            requests: Limits::new(config.limits.requests_per_key(), SOURCES),
            refusals: Limits::by_source(Quota::per(10, Duration::from_secs(60)), SOURCES),
            links: Limits::new(LINKS, SOURCES),
            host_writes: Limits::new(HOST_WRITES, SOURCES),
        }
    }
}

/// The wall clock, as a [`Timestamp`].
pub fn wall_clock() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
