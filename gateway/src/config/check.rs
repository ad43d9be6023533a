//! What values may be, alone and together.

use std::time::Duration;

use model::labels::Labels;
use model::tenancy::LivenessThresholds;

use super::{
    AgentTokens, Agents, Config, ConfigError, Limits, MassLoss, Plugins, Power, duration, invalid,
    seconds,
};

/// Ten years: longer is a slip of the keyboard.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

impl Config {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.state_dir.as_os_str().is_empty() {
            return Err(invalid("state_dir", "must name a folder"));
        }
        if self.https_certificate.is_some() != self.https_key.is_some() {
            return Err(invalid(
                "https_certificate",
                "needs https_key, and the reverse",
            ));
        }
        if let Some(address) = self.insecure_http_listen
            && !address.ip().to_canonical().is_loopback()
        {
            let reason = format!(
                "{address} can be reached from elsewhere, and passwords and tokens would travel \
                 in the clear; use a loopback address with a TLS proxy in front"
            );
            return Err(invalid("insecure_http_listen", reason));
        }
        self.agents.check()?;
        self.agent_tokens.check()?;
        self.mass_loss.check()?;
        self.limits.check()?;
        self.plugins.check()?;
        self.power.check()?;
        between(
            "shutdown_drain",
            self.shutdown_drain,
            Duration::ZERO,
            seconds(3600),
        )
    }
}

impl Power {
    fn check(&self) -> Result<(), ConfigError> {
        if !(1..=1000).contains(&self.endpoint_burst) {
            return Err(invalid("power.endpoint_burst", "must be 1 to 1000"));
        }
        for (label, most) in &self.interruptions_per_label {
            let what = "power.interruptions_per_label";
            if *most == 0 {
                let reason = format!("`{label}` must be at least 1; leave it out for no limit");
                return Err(invalid(what, reason));
            }
            let one = [(label.clone(), String::new())];
            Labels::new(one.into()).map_err(|error| invalid(what, error.to_string()))?;
        }
        between(
            "power.endpoint_interval",
            self.endpoint_interval,
            Duration::from_millis(1),
            seconds(3600),
        )?;
        between(
            "power.observe_interval",
            self.observe_interval,
            seconds(5),
            seconds(86_400),
        )
    }
}

impl Agents {
    fn check(&self) -> Result<(), ConfigError> {
        let shortest = Duration::from_millis(500);
        between("agents.heartbeat", self.heartbeat, shortest, seconds(300))?;
        let thresholds = LivenessThresholds::for_heartbeat(self.heartbeat);
        let unreachable = Duration::from_millis(thresholds.unreachable_ms.into());
        if self.grace_after_start <= unreachable {
            let reason = format!(
                "must be longer than {}, after which a silent host counts as unreachable; else \
                 every restart of the gateway is a mass loss",
                duration::format(unreachable)
            );
            return Err(invalid("agents.grace_after_start", reason));
        }
        between(
            "agents.certificate_lifetime",
            self.certificate_lifetime,
            seconds(1),
            LONGEST,
        )?;
        between(
            "agents.late_return",
            self.late_return,
            Duration::ZERO,
            LONGEST,
        )?;
        between(
            "agents.ephemeral_retire_after",
            self.ephemeral_retire_after,
            seconds(1),
            LONGEST,
        )
    }
}

impl AgentTokens {
    fn check(&self) -> Result<(), ConfigError> {
        between(
            "agent_tokens.short_validity",
            self.short_validity,
            seconds(1),
            LONGEST,
        )?;
        between(
            "agent_tokens.long_validity",
            self.long_validity,
            self.short_validity,
            LONGEST,
        )
    }
}

impl MassLoss {
    fn check(&self) -> Result<(), ConfigError> {
        if !(self.fraction > 0.0 && self.fraction <= 1.0) {
            return Err(invalid(
                "mass_loss.fraction",
                "must be above 0 and at most 1",
            ));
        }
        if self.minimum_hosts == 0 {
            return Err(invalid("mass_loss.minimum_hosts", "must be at least 1"));
        }
        between("mass_loss.window", self.window, seconds(1), seconds(86_400))
    }
}

impl Plugins {
    fn check(&self) -> Result<(), ConfigError> {
        if !(1..=1000).contains(&self.installed) {
            return Err(invalid("plugins.installed", "must be 1 to 1000"));
        }
        if !(1..=1000).contains(&self.calls) {
            return Err(invalid("plugins.calls", "must be 1 to 1000"));
        }
        self.registries
            .iter()
            .try_for_each(|(name, registry)| registry.check(name))
    }
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        let counts = [
            (
                "limits.requests_per_key_per_second",
                self.requests_per_key_per_second,
            ),
            ("limits.requests_per_key_burst", self.requests_per_key_burst),
            (
                "limits.failed_auth_per_source_per_minute",
                self.failed_auth_per_source_per_minute,
            ),
            (
                "limits.enrolments_per_source_per_minute",
                self.enrolments_per_source_per_minute,
            ),
        ];
        if let Some((key, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(invalid(key, "must be at least 1"));
        }
        let sizes = [
            ("limits.body_bytes", self.body_bytes, 16 << 10, 64 << 20),
            ("limits.file_bytes", self.file_bytes, 1 << 20, 1 << 40),
            // Below 8 KiB hyper does not go, and cookies and tokens need their room.
            ("limits.header_bytes", self.header_bytes, 8 << 10, 1 << 20),
            ("limits.scrape_bytes", self.scrape_bytes, 64 << 10, 16 << 20),
            ("limits.connections", self.connections, 16, 1 << 20),
            (
                "limits.connections_per_source",
                self.connections_per_source,
                4,
                1 << 20,
            ),
        ];
        match sizes
            .into_iter()
            .find(|(_, size, least, most)| size < least || size > most)
        {
            Some((key, _, least, most)) => {
                Err(invalid(key, format!("must be from {least} to {most}")))
            }
            None => Ok(()),
        }
    }
}

fn between(
    key: &'static str,
    value: Duration,
    least: Duration,
    most: Duration,
) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let (least, most) = (duration::format(least), duration::format(most));
    Err(invalid(key, format!("must be from {least} to {most}")))
}
