//! What a welcomed host is told, and what it may ask.
//!
//! A session is told *that* something changed and never what: [`look`] compares what
//! should be with what the agent was told, and says the rest. A missed nudge can do
//! no harm that the next one does not repair.

use std::time::Duration;

use model::Timestamp;
use model::host::Membership;
use protocol::v1::{Hello, Refusal, RefusalCode, Settings, Trust, Welcome};

use crate::host::Host;
use crate::identity::Proven;
use crate::refuse::{self, AT_ONCE, LONG, refusal};

/// The counter moves this often on a live link, so that a copy of a running host
/// soon belongs to the past.
pub const ADVANCE_EVERY: Duration = Duration::from_secs(3600);
/// For a host whose certificate is out of its time to get another: such a link is for
/// that and nothing else, and ends.
pub const RENEW_WITHIN: Duration = Duration::from_secs(60);
/// Reconnects of a whole fleet are spread over this.
pub const SPREAD: Duration = Duration::from_secs(30);
/// Frames that an agent may send in a burst, and how fast the burst refills: far
/// above what heartbeats, facts and renewals need.
const FRAMES_BURST: f64 = 64.0;
const FRAMES_PER_SECOND: f64 = 8.0;

/// What the agent was told, so that only changes are told again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// How often to send a heartbeat.
    pub heartbeat_ms: u32,
    /// Version of the trust bundle that it has.
    pub trust_version: u64,
    /// Whether it was welcomed into quarantine.
    pub quarantined: bool,
    /// Whether it was asked for a new key.
    pub reidentify: bool,
    /// Who signed certificates when the link began.
    pub authority: [u8; 32],
}

impl Told {
    /// What an agent knows that said `hello` and got `welcome`.
    pub fn after(hello: &Hello, welcome: &Welcome, authority: [u8; 32]) -> Self {
        let settings = welcome.settings.as_ref();
        let trust = welcome.trust.as_ref().map_or(0, |trust| trust.version);
        Self {
            heartbeat_ms: settings.map_or(0, |settings| settings.heartbeat_ms),
            trust_version: hello.trust_version.max(trust),
            quarantined: welcome.quarantined,
            reidentify: false,
            authority,
        }
    }
}

/// What a welcome is made of.
#[derive(Clone, Debug)]
pub struct Greeting<'a> {
    /// The host, as it stands when the link is registered.
    pub host: &'a Host,
    /// Its name in the fleet.
    pub name: String,
    /// The counter that was written for it.
    pub counter: u64,
    /// Its workspace's heartbeat.
    pub heartbeat_ms: u32,
    /// Whether the certificate it came with is out of its time.
    pub expired: bool,
    /// Digest of the facts on record; empty when they are not the agent's own.
    pub facts_digest: &'a [u8],
    /// The trust bundle in force.
    pub trust: Trust,
    /// Life of a certificate.
    pub lifetime: Duration,
    /// Who signs certificates.
    pub authority: [u8; 32],
    /// The time.
    pub now: Timestamp,
}

/// Welcomes a host.
pub fn greet(hello: &Hello, greeting: Greeting<'_>) -> Welcome {
    let now = greeting.now;
    let facts = greeting.facts_digest;
    // By what was presented, too: one certified in what is now the future looks young on
    // record for as long as the clock was ahead.
    let want_renewal = greeting.expired
        || greeting.host.identity.is_none_or(|identity| {
            identity.wants_renewal(now, greeting.lifetime, &greeting.authority)
        });
    Welcome {
        version: protocol::VERSION.min(hello.version_max),
        counter: greeting.counter,
        settings: Some(Settings {
            heartbeat_ms: greeting.heartbeat_ms,
        }),
        server_time_ms: now.as_millis(),
        want_facts: !greeting.expired && (facts.is_empty() || facts != hello.facts_digest),
        want_renewal,
        trust: Some(greeting.trust).filter(|trust| trust.version > hello.trust_version),
        display_name: greeting.name,
        quarantined: greeting.host.membership == Membership::Quarantined,
    }
}

/// What should be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The host.
    pub host: &'a Host,
    /// Its workspace's heartbeat, when the workspace is there.
    pub heartbeat_ms: Option<u32>,
    /// Version of the trust bundle in force.
    pub trust_version: u64,
    /// Who signs certificates.
    pub authority: [u8; 32],
    /// A number from anywhere, for spreading reconnects.
    pub dice: u32,
    /// The time.
    pub now: Timestamp,
}

/// Something to tell an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// Make a new key: an operator decided that it takes over another identity.
    Reidentify,
    /// The workspace's settings.
    Settings {
        /// How often to send a heartbeat.
        heartbeat_ms: u32,
    },
    /// The trust bundle.
    Trust,
}

/// Compares what should be with what the agent was told. The rest, in this order; or
/// why the link ends.
pub fn look(told: &mut Told, proven: &Proven, wanted: &Wanted<'_>) -> Result<Vec<Tell>, Refusal> {
    let now = wanted.now;
    if !wanted.host.is_live() {
        return Err(refuse::retired(now));
    }
    if wanted
        .host
        .accepts(proven.workspace, proven.generation)
        .is_none()
    {
        return Err(refuse::superseded(now));
    }
    if told.quarantined && wanted.host.membership == Membership::Managed {
        let text = "this host is managed now; reconnect";
        return Err(refusal(RefusalCode::Unspecified, text, AT_ONCE, now));
    }
    let mut news = Vec::new();
    if wanted.host.pending_adoption.is_some() && !told.reidentify {
        told.reidentify = true;
        news.push(Tell::Reidentify);
    }
    if let Some(heartbeat_ms) = wanted.heartbeat_ms
        && heartbeat_ms != told.heartbeat_ms
    {
        told.heartbeat_ms = heartbeat_ms;
        news.push(Tell::Settings { heartbeat_ms });
    }
    if wanted.trust_version > told.trust_version {
        told.trust_version = wanted.trust_version;
        news.push(Tell::Trust);
    }
    // Promoted while this link was up: its certificate should come from the new
    // authority, and a welcome is what asks for that.
    if told.authority != wanted.authority {
        let spread = SPREAD.mul_f64(f64::from(wanted.dice) / f64::from(u32::MAX));
        let text = "another authority signs certificates; reconnect to renew";
        return Err(refusal(RefusalCode::Unspecified, text, spread, now));
    }
    Ok(news)
}

/// The end of a link that was for renewal only.
pub fn out_of_time(now: Timestamp) -> Refusal {
    let text = "the certificate is out of its time and was not renewed on this link; reconnect";
    refusal(RefusalCode::Unspecified, text, refuse::SHORTLY, now)
}

/// The end of a link whose agent deregistered itself.
pub fn deregistered(now: Timestamp) -> Refusal {
    refusal(RefusalCode::HostRetired, "goodbye", LONG, now)
}

/// A token bucket against an agent that floods its control stream.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    left: f64,
    at: Duration,
}

impl Allowance {
    /// Full, at the monotonic time `now`.
    pub fn new(now: Duration) -> Self {
        Self {
            left: FRAMES_BURST,
            at: now,
        }
    }

    /// Spends a frame at `now`; false when there is nothing left.
    pub fn spend(&mut self, now: Duration) -> bool {
        let refill = now.saturating_sub(self.at).as_secs_f64() * FRAMES_PER_SECOND;
        self.left = (self.left + refill).min(FRAMES_BURST) - 1.0;
        self.at = now;
        self.left >= 0.0
    }
}

/// What a flooding agent is told.
pub fn flooding(now: Timestamp) -> Refusal {
    let text = "too many frames on the control stream";
    refusal(RefusalCode::RateLimited, text, Duration::from_secs(30), now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ids::{HostId, WorkspaceId};

    fn at() -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000)
    }

    fn proven() -> Proven {
        Proven {
            workspace: WorkspaceId::new(at(), [1; 10]),
            host: HostId::new(at(), [2; 10]),
            generation: 1,
            spki_sha256: [7; 32],
            expired: false,
        }
    }

    fn told() -> Told {
        Told {
            heartbeat_ms: 10_000,
            trust_version: 1,
            quarantined: false,
            reidentify: false,
            authority: [1; 32],
        }
    }

    fn wanted(host: &Host) -> Wanted<'_> {
        Wanted {
            host,
            heartbeat_ms: Some(10_000),
            trust_version: 1,
            authority: [1; 32],
            dice: 0,
            now: at(),
        }
    }

    #[test]
    fn news_is_told_once() {
        let host = Host {
            pending_adoption: Some(HostId::new(at(), [3; 10])),
            ..Host::adopted(&proven(), at())
        };
        let wanted = Wanted {
            heartbeat_ms: Some(2000),
            trust_version: 2,
            ..wanted(&host)
        };
        let mut told = told();
        let first = look(&mut told, &proven(), &wanted).unwrap();
        assert_eq!(
            first,
            [
                Tell::Reidentify,
                Tell::Settings { heartbeat_ms: 2000 },
                Tell::Trust
            ]
        );
        assert_eq!(look(&mut told, &proven(), &wanted).unwrap(), []);
    }

    #[test]
    fn a_link_ends_when_its_identity_does() {
        let host = Host::adopted(&proven(), at());
        let ended = Host {
            identity: host
                .identity
                .map(|it| it.ended(crate::identity::Fence::NONE)),
            ..host
        };
        let retired = host.retired(at()).unwrap();
        let code = |host| {
            look(&mut told(), &proven(), &wanted(host))
                .unwrap_err()
                .code()
        };
        assert_eq!(code(&ended), RefusalCode::Superseded);
        assert_eq!(code(&retired), RefusalCode::HostRetired);
    }

    #[test]
    fn a_flood_is_cut_off_and_a_beat_never_is() {
        let mut flood = Allowance::new(Duration::ZERO);
        assert!((0..200).any(|_| !flood.spend(Duration::ZERO)));
        let mut beats = Allowance::new(Duration::ZERO);
        assert!((0..2000).all(|n| beats.spend(Duration::from_millis(500) * n)));
    }
}
