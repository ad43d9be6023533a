//! Who is linked, and when each host was last heard. In memory only: a heartbeat
//! never reaches the disk.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gateway_core::liveness::{Heard, connectivity};
use gateway_core::pause::{Pulse, excuse};
use model::Timestamp;
use model::host::{Carrier, Connectivity};
use model::ids::HostId;
use model::tenancy::LivenessThresholds;
use tokio::sync::{broadcast, watch};

use super::mailbox::Mailbox;
pub use super::mailbox::ToSession;
use crate::state::records::HostSeenRecordV1;

/// One live link.
#[derive(Debug)]
pub struct LiveLink {
    /// Distinguishes links of one host.
    pub id: u64,
    /// The agent's process.
    pub instance: Vec<u8>,
    /// The boot it runs in.
    pub boot_id: String,
    /// When it came.
    pub since: Timestamp,
    /// How packets travel.
    pub carrier: Carrier,
    /// From where.
    pub address: SocketAddr,
    /// Generation of the certificate it came with.
    pub generation: u64,
    /// For streams beside the control stream.
    pub connection: quinn::Connection,
    /// Its certificate has expired: the link serves to renew it and for nothing else.
    pub renewal_only: bool,
    mailbox: Mailbox,
}

impl LiveLink {
    /// Asks the session something. False when it does not take requests any more.
    pub fn tell(&self, request: ToSession) -> bool {
        self.mailbox.put(request)
    }

    /// What the session is asked next. For the session itself.
    pub async fn asked(&self) -> ToSession {
        self.mailbox.next().await
    }

    /// The session takes no more requests.
    pub fn close(&self) {
        self.mailbox.close();
    }
}

/// What is known of a host's presence at this moment.
#[derive(Clone, Debug)]
pub struct Presence {
    /// Its connectivity.
    pub connectivity: Connectivity,
    /// Since when, if this gateway saw it change.
    pub since: Option<Timestamp>,
    /// When it was last heard in this life of the gateway.
    pub last_heard_at: Option<Timestamp>,
    /// Its link.
    pub link: Option<Arc<LiveLink>>,
}

/// What the liveness reconciler remembers of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// What it last computed.
    pub connectivity: Connectivity,
    /// Since when.
    pub since: Timestamp,
}

#[derive(Debug, Default)]
struct Entry {
    last_heard: Option<(Duration, Timestamp)>,
    link: Option<Arc<LiveLink>>,
    observed: Option<Observed>,
}

/// All links.
#[derive(Debug)]
pub struct Links {
    started: Instant,
    grace: Duration,
    next: AtomicU64,
    entries: Mutex<HashMap<HostId, Entry>>,
    /// Taken under the lock of the entries and never the other way round.
    pulse: Mutex<Pulse>,
    trust_epoch: watch::Sender<u64>,
    nudge: watch::Sender<u64>,
    host_changes: broadcast::Sender<HostId>,
}

/// Links that came or went, kept for a slow follower; one that lags is told and looks at
/// all.
const CHANGES_KEPT: usize = 4096;

impl Links {
    /// Nobody is linked. Hosts that were have `grace` from `started` to come back.
    pub fn new(started: Instant, grace: Duration) -> Self {
        Self {
            started,
            grace,
            next: AtomicU64::new(1),
            entries: Mutex::default(),
            pulse: Mutex::new(Pulse::beginning(started.elapsed())),
            trust_epoch: watch::Sender::new(0),
            nudge: watch::Sender::new(0),
            host_changes: broadcast::Sender::new(CHANGES_KEPT),
        }
    }

    /// Registers a link, which becomes the host's only one, and answers it with the one
    /// that it replaces.
    pub fn register(
        &self,
        host: HostId,
        link: NewLink,
        now: Timestamp,
    ) -> (Arc<LiveLink>, Option<Arc<LiveLink>>) {
        let link = Arc::new(LiveLink {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            instance: link.instance,
            boot_id: link.boot_id,
            since: now,
            carrier: link.carrier,
            address: link.address,
            generation: link.generation,
            connection: link.connection,
            renewal_only: link.renewal_only,
            mailbox: Mailbox::default(),
        });
        let mut entries = self.lock();
        let entry = entries.entry(host).or_default();
        let old = entry.link.replace(Arc::clone(&link));
        entry.last_heard = Some((self.started.elapsed(), now));
        drop(entries);
        self.nudge(host);
        (link, old)
    }

    /// Takes a link out, unless another has taken over. Answers whether it was
    /// the host's link.
    pub fn deregister(&self, host: HostId, link: u64) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&host) else {
            return false;
        };
        let mine = entry.link.as_ref().is_some_and(|live| live.id == link);
        if mine {
            entry.link = None;
        }
        drop(entries);
        self.nudge(host);
        mine
    }

    /// Something arrived from a host.
    pub fn heard(&self, host: HostId, now: Timestamp) {
        self.lock().entry(host).or_default().last_heard = Some((self.started.elapsed(), now));
    }

    /// Forgets a host that is gone for good.
    pub fn forget(&self, host: HostId) {
        self.lock().remove(&host);
    }

    /// The live link of a host.
    pub fn live(&self, host: HostId) -> Option<Arc<LiveLink>> {
        self.lock().get(&host).and_then(|entry| entry.link.clone())
    }

    /// Whether a host has a live link.
    pub fn is_linked(&self, host: HostId) -> bool {
        self.live(host).is_some()
    }

    /// Every live link.
    pub fn all(&self) -> Vec<(HostId, Arc<LiveLink>)> {
        self.lock()
            .iter()
            .filter_map(|(host, entry)| Some((*host, entry.link.clone()?)))
            .collect()
    }

    /// Takes this process' own pulse, and excuses every host for a pause that lies
    /// behind: nobody could be heard. Answers that pause, if there was one, and all
    /// pauses together. Whoever judges silence calls this first.
    pub fn pulse(&self) -> (Option<Duration>, Duration) {
        let mut entries = self.lock();
        self.excuse_pause(&mut entries, self.started.elapsed())
    }

    fn excuse_pause(
        &self,
        entries: &mut HashMap<HostId, Entry>,
        now: Duration,
    ) -> (Option<Duration>, Duration) {
        let mut pulse = self.pulse.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = pulse.take(now);
        if let Some(pause) = pause {
            for (last, _) in entries.values_mut().filter_map(|it| it.last_heard.as_mut()) {
                *last = excuse(*last, pause, now, self.grace);
            }
            tracing::warn!(
                paused_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "this process stood still; the silence of hosts meanwhile does not count"
            );
        }
        (pause, pulse.paused())
    }

    /// A host's presence at this moment.
    pub fn presence(
        &self,
        host: HostId,
        seen: Option<&HostSeenRecordV1>,
        thresholds: &LivenessThresholds,
    ) -> Presence {
        let now = self.started.elapsed();
        let mut entries = self.lock();
        self.excuse_pause(&mut entries, now);
        let entry = entries.get(&host);
        let heard = heard_of(entry, seen);
        let connectivity = connectivity(heard, thresholds, now, self.grace);
        let observed = entry
            .and_then(|entry| entry.observed)
            .filter(|observed| observed.connectivity == connectivity);
        Presence {
            connectivity,
            since: observed.map(|observed| observed.since),
            last_heard_at: entry.and_then(|entry| entry.last_heard).map(|(_, at)| at),
            link: entry.and_then(|entry| entry.link.clone()),
        }
    }

    /// Computes a host's connectivity and remembers it. Answers what it was
    /// before, when it has changed in this life of the gateway.
    pub fn observe(
        &self,
        host: HostId,
        seen: Option<&HostSeenRecordV1>,
        thresholds: &LivenessThresholds,
        now: Timestamp,
    ) -> Looked {
        let uptime = self.started.elapsed();
        let mut entries = self.lock();
        self.excuse_pause(&mut entries, uptime);
        let heard = heard_of(entries.get(&host), seen);
        let connectivity = connectivity(heard, thresholds, uptime, self.grace);
        let next = gateway_core::liveness::next_look(heard, thresholds, uptime, self.grace);
        let entry = entries.entry(host).or_default();
        let before = entry.observed.map(|observed| observed.connectivity);
        if before != Some(connectivity) {
            entry.observed = Some(Observed {
                connectivity,
                since: now,
            });
        }
        Looked {
            before,
            connectivity,
            next,
        }
    }

    /// The trust bundle has changed: every agent should get it.
    pub fn trust_changed(&self) {
        self.trust_epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Moves with every change of the trust bundle.
    pub fn trust_epoch(&self) -> watch::Receiver<u64> {
        self.trust_epoch.subscribe()
    }

    /// Moves whenever a link came or went.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.nudge.subscribe()
    }

    /// Every host whose link came or went, from now on. Lossy for the slow: look at all
    /// then.
    pub fn host_changes(&self) -> broadcast::Receiver<HostId> {
        self.host_changes.subscribe()
    }

    fn nudge(&self, host: HostId) {
        self.nudge.send_modify(|epoch| *epoch += 1);
        // Nobody listening is fine.
        let _ = self.host_changes.send(host);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HostId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What looking at a host found.
#[derive(Clone, Copy, Debug)]
pub struct Looked {
    /// What this gateway last computed, if it ever did.
    pub before: Option<Connectivity>,
    /// What it is.
    pub connectivity: Connectivity,
    /// When silence alone would change it, since the gateway started.
    pub next: Option<Duration>,
}

/// What a link is registered with.
#[derive(Debug)]
pub struct NewLink {
    /// The agent's process.
    pub instance: Vec<u8>,
    /// The boot it runs in.
    pub boot_id: String,
    /// How packets travel.
    pub carrier: Carrier,
    /// From where.
    pub address: SocketAddr,
    /// Generation of the certificate.
    pub generation: u64,
    /// The connection.
    pub connection: quinn::Connection,
    /// Whether its certificate has expired.
    pub renewal_only: bool,
}

fn heard_of(entry: Option<&Entry>, seen: Option<&HostSeenRecordV1>) -> Heard {
    Heard {
        last: entry.and_then(|entry| entry.last_heard).map(|(at, _)| at),
        linked: entry.is_some_and(|entry| entry.link.is_some()),
        before: seen.map_or(Connectivity::Never, |seen| seen.connectivity),
    }
}
