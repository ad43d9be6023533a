//! How the agent stands: one report, made by the running agent, printed by
//! `loopback-agent status`. The JSON form is a promise to scripts and grows by adding.

use std::fmt::Write;

use model::Timestamp;
use protocol::v1::RefusalCode;
use serde::{Deserialize, Serialize};

/// The whole report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `linked`, `connecting`, `enrolling`, `waiting` or `stopping`.
    pub state: String,
    /// The same in a sentence.
    pub summary: String,
    /// The agent's version.
    pub version: String,
    /// The agent's process.
    pub pid: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// The gateway, as `host:port`.
    pub gateway: String,
    /// The identity, once joined.
    pub identity: Option<IdentityView>,
    /// The link, when there is one.
    pub link: Option<LinkView>,
    /// When the next attempt begins, while waiting.
    pub next_attempt_at: Option<Timestamp>,
    /// The gateway's latest refusal, until it welcomes this host.
    pub refusal: Option<RefusalView>,
    /// The latest trouble on each rung, until it works.
    pub troubles: Vec<Trouble>,
    /// The clocks, once a gateway has told its time.
    pub clock: Option<ClockView>,
    /// What a person should look at on this host.
    pub warnings: Vec<String>,
}

/// Who this host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityView {
    /// The deployment's id.
    pub deployment: String,
    /// The workspace's id.
    pub workspace: String,
    /// The host's id.
    pub host: String,
    /// Which of its identities this is.
    pub generation: u64,
    /// End of the certificate's validity.
    pub certificate_expires_at: Timestamp,
}

/// The link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    /// `udp` or `websocket`.
    pub rung: String,
    /// The other end, with the proxy if there is one.
    pub via: String,
    /// Since when.
    pub since: Timestamp,
    /// The host's name in the fleet.
    pub display_name: String,
    /// Linked, and given nothing to do.
    pub quarantined: bool,
    /// Time of a round trip.
    pub rtt_ms: u64,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalView {
    /// Why, for programs.
    pub code: String,
    /// Why, for people.
    pub message: String,
    /// When it came.
    pub at: Timestamp,
}

/// Trouble on a rung.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// `udp` or `websocket`.
    pub rung: String,
    /// What happened.
    pub what: String,
    /// When.
    pub at: Timestamp,
}

/// Both clocks at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockView {
    /// This host's.
    pub host: Timestamp,
    /// The gateway's.
    pub gateway: Timestamp,
    /// How far this host's is ahead.
    pub skew_ms: i64,
}

/// From here on a clock is wrong enough to tell people.
pub const SKEW_WARNING_MS: i64 = 30_000;

/// The code's name for programs.
pub fn refusal_code(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::Unspecified => "unspecified",
        RefusalCode::TokenInvalid => "token_invalid",
        RefusalCode::TokenExpired => "token_expired",
        RefusalCode::TokenExhausted => "token_exhausted",
        RefusalCode::RateLimited => "rate_limited",
        RefusalCode::HostRetired => "host_retired",
        RefusalCode::Superseded => "superseded",
        RefusalCode::CertificateExpired => "certificate_expired",
        RefusalCode::VersionUnsupported => "version_unsupported",
        RefusalCode::Draining => "draining",
        RefusalCode::Invalid => "invalid",
        RefusalCode::Unavailable => "unavailable",
    }
}

impl Status {
    /// Whether the gateway has welcomed this host.
    pub fn is_linked(&self) -> bool {
        self.link.is_some()
    }

    /// Whether the gateway has refused this host for a reason that waiting does not
    /// cure: a revoked token, say.
    pub fn needs_a_person(&self) -> bool {
        let lasting = [
            RefusalCode::TokenInvalid,
            RefusalCode::TokenExpired,
            RefusalCode::TokenExhausted,
            RefusalCode::HostRetired,
            RefusalCode::VersionUnsupported,
            RefusalCode::Invalid,
        ];
        self.link.is_none()
            && self.refusal.as_ref().is_some_and(|refusal| {
                lasting
                    .iter()
                    .any(|code| refusal_code(*code) == refusal.code)
            })
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.summary);
        let mut line = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name:<12} {value}");
        };
        line("gateway", &self.gateway);
        if let Some(link) = &self.link {
            line(
                "link",
                &format!("{}, {}, round trip {} ms", link.rung, link.via, link.rtt_ms),
            );
            line("since", &link.since.to_string());
            line("name", &link.display_name);
        }
        if let Some(identity) = &self.identity {
            line(
                "host",
                &format!("{} (generation {})", identity.host, identity.generation),
            );
            line("workspace", &identity.workspace);
            line(
                "certificate",
                &format!("until {}", identity.certificate_expires_at),
            );
        }
        if let Some(at) = &self.next_attempt_at {
            line("next attempt", &at.to_string());
        }
        if let Some(refusal) = &self.refusal {
            line(
                "refused",
                &format!("{}: {} ({})", refusal.code, refusal.message, refusal.at),
            );
        }
        for trouble in &self.troubles {
            line(&trouble.rung, &format!("{} ({})", trouble.what, trouble.at));
        }
        if let Some(clock) = &self.clock
            && clock.skew_ms.abs() >= SKEW_WARNING_MS
        {
            line(
                "clock",
                &format!(
                    "this host says {}, the gateway {}",
                    clock.host, clock.gateway
                ),
            );
        }
        for warning in &self.warnings {
            line("warning", warning);
        }
        line(
            "agent",
            &format!(
                "{} (pid {}, since {})",
                self.version, self.pid, self.started_at
            ),
        );
        text
    }
}
