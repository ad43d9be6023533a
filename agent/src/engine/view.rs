//! The engine's standing in words.

use agent_core::{Mono, Purpose, Standing, Waiting};
use link::dial::Path;
use model::Timestamp;

use super::Engine;
use crate::status::{ClockView, IdentityView, LinkView, Status};

impl Engine {
    pub(super) fn view(&self) -> Status {
        let standing = self.core.standing();
        Status {
            state: match standing {
                Standing::Linked { .. } => "linked",
                Standing::Trying(Purpose::Link) => "connecting",
                Standing::Trying(Purpose::Enrol) => "enrolling",
                Standing::Waiting { .. } => "waiting",
                Standing::Stopped => "stopping",
            }
            .to_owned(),
            summary: self.summary(),
            version: crate::VERSION.to_owned(),
            pid: std::process::id(),
            started_at: self.started_at,
            gateway: self.config.gateway.to_string(),
            identity: self.state.identity().map(|identity| IdentityView {
                deployment: identity.deployment.to_string(),
                workspace: identity.workspace.to_string(),
                host: identity.host.to_string(),
                generation: identity.generation,
                certificate_expires_at: identity.not_after,
            }),
            link: self.link_view(),
            next_attempt_at: match standing {
                Standing::Waiting { until, .. } => Some(self.wall_at(until)),
                _ => None,
            },
            refusal: self.board.refusal().cloned(),
            troubles: self.board.troubles(),
            clock: self.clock.sample().map(|sample| ClockView {
                host: sample.system,
                gateway: sample.gateway,
                skew_ms: sample.skew_ms(),
            }),
            warnings: self.warnings(),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.board.warnings();
        if self.hands.is_paused() {
            let text = "commands are paused here; `loopback-agent resume` lets them in again";
            warnings.push(text.to_owned());
        }
        warnings
    }

    /// One line: how it stands and, when it does not stand well, why.
    pub(super) fn summary(&self) -> String {
        let gateway = &self.config.gateway;
        match self.core.standing() {
            Standing::Linked {
                rung,
                quarantined: true,
                ..
            } => format!(
                "linked to {gateway} over {}, quarantined: this host looks like a copy of another",
                rung.as_str()
            ),
            Standing::Linked { rung, .. } => format!("linked to {gateway} over {}", rung.as_str()),
            Standing::Trying(Purpose::Enrol) => format!("joining {gateway}"),
            Standing::Trying(Purpose::Link) => format!("connecting to {gateway}"),
            Standing::Waiting { why, .. } => match why {
                Waiting::Unreachable => format!("not linked: {gateway} cannot be reached"),
                Waiting::Rejected => format!("not linked: {gateway} does not accept this host"),
                Waiting::Local => "not linked: something is missing on this host".to_owned(),
                Waiting::LinkLost => format!("not linked: the link to {gateway} was lost"),
                Waiting::Retired => "not linked: this host has been retired".to_owned(),
                Waiting::Refused | Waiting::UdpProbe => {
                    let why = self
                        .board
                        .refusal()
                        .map_or("", |refusal| refusal.message.as_str());
                    format!("not linked: {gateway} refused: {why}")
                }
            },
            Standing::Stopped => "stopping".to_owned(),
        }
    }

    fn link_view(&self) -> Option<LinkView> {
        let Standing::Linked {
            conn,
            rung,
            since,
            display_name,
            quarantined,
        } = self.core.standing()
        else {
            return None;
        };
        let (connection, path) = self.conns.get(&conn)?.link.as_ref()?;
        let via = match path {
            Path::Udp { remote } => format!("to {remote}"),
            Path::WebSocket {
                remote,
                proxy: None,
                ..
            } => format!("to {remote}"),
            Path::WebSocket {
                proxy: Some(proxy), ..
            } => format!("through the proxy {proxy}"),
        };
        Some(LinkView {
            rung: rung.as_str().to_owned(),
            via,
            since: self.wall_at(since),
            display_name: display_name.to_owned(),
            quarantined,
            rtt_ms: u64::try_from(connection.rtt().as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// What the system's clock said, or will say, at `at`.
    fn wall_at(&self, at: Mono) -> Timestamp {
        let (now, wall) = (self.clock.mono(), self.clock.system());
        if at > now {
            wall.saturating_add(at.since(now))
        } else {
            wall.saturating_sub(now.since(at))
        }
    }
}
