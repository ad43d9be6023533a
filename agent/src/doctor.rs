//! `loopback-agent doctor`: each step to the gateway, whether it works, and what to
//! do when it does not.
//!
//! It walks the same code as the agent, as a stranger: the connections it makes ask
//! for nothing and end at once, so it may run beside a linked agent without being
//! taken for its clone. A check says `ok` only for what it has seen happen; what it
//! could not look at is `skip`, with the reason.

use std::fmt::Write;
use std::fs;
use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use agent_core::Rung as Way;
use link::dial::{Class, DialError, Link, Path, Reason, Rung};
use link::trust::TrustBundle;
use link::verify::VerifyError;
use model::error_chain;
use quinn::VarInt;
use serde::Serialize;

use crate::clock::Clock;
use crate::config::Config;
use crate::local::{Answer, Question, ask};
use crate::plan::{Plan, first_trust};
use crate::state::{self, Identity, StateError};
use crate::status::SKEW_WARNING_MS;
use crate::token::TokenSource;

/// The checks, in the order in which they build on each other.
pub const CHECKS: [&str; 13] = [
    "config",
    "disk",
    "token",
    "certificate",
    "clock",
    "dns",
    "udp",
    "quic",
    "proxy",
    "tcp",
    "tls",
    "websocket",
    "agent",
];

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Seen to work.
    Ok,
    /// Works, or is not needed, but a person should know.
    Warn,
    /// Does not work.
    Fail,
    /// Not looked at.
    Skip,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was seen.
    pub what: String,
    /// What to do.
    pub advice: Option<String>,
}

/// All checks that were made.
#[derive(Debug, Default)]
pub struct Diagnosis {
    checks: Vec<Check>,
}

impl Diagnosis {
    /// Whether nothing failed.
    pub fn is_well(&self) -> bool {
        self.checks
            .iter()
            .all(|check| check.outcome != Outcome::Fail)
    }

    /// The checks.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let outcome = match check.outcome {
                Outcome::Ok => "ok",
                Outcome::Warn => "warn",
                Outcome::Fail => "FAIL",
                Outcome::Skip => "skip",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{outcome:<5}{:<12}{}", check.name, check.what);
            if let Some(advice) = &check.advice {
                let _ = writeln!(text, "                 -> {advice}");
            }
        }
        text
    }

    fn add(&mut self, name: &'static str, outcome: Outcome, what: impl Into<String>) {
        self.checks.push(Check {
            name,
            outcome,
            what: what.into(),
            advice: None,
        });
    }

    fn advise(&mut self, advice: impl Into<String>) {
        if let Some(check) = self.checks.last_mut() {
            check.advice = Some(advice.into());
        }
    }

    fn outcome(&self, name: &str) -> Option<Outcome> {
        self.checks
            .iter()
            .find(|check| check.name == name)
            .map(|check| check.outcome)
    }
}

/// Makes all checks, or those that tell about `only`.
pub async fn diagnose(config_path: &FilePath, only: Option<&str>) -> Diagnosis {
    let mut found = Diagnosis::default();
    let config = match Config::load(config_path, |name| std::env::var(name).ok()) {
        Ok(config) => {
            found.add(
                "config",
                Outcome::Ok,
                format!("{} is understood", config_path.display()),
            );
            config
        }
        Err(error) => {
            found.add("config", Outcome::Fail, error_chain(&error));
            found.advise("correct the file, or run the installer again");
            return found;
        }
    };
    let wants = |names: &[&str]| only.is_none_or(|only| names.contains(&only));
    let identity = state::peek(&config.state_dir);
    if wants(&["disk"]) {
        disk(&mut found, &config);
    }
    if wants(&["token"]) {
        token(&mut found, &config, &identity);
    }
    let last_known = identity.as_ref().ok().and_then(Option::as_ref);
    let clock = Clock::new(last_known.map_or_else(Default::default, |known| known.server_time));
    if wants(&["certificate"]) {
        certificate(&mut found, &identity, &clock);
    }
    if wants(&["clock"]) {
        check_clock(&mut found, &config);
    }
    let trust = match &identity {
        Ok(Some(identity)) => Ok(identity.trust.clone()),
        _ => first_trust(&config).map_err(|error| error_chain(&error)),
    };
    if wants(&["dns"]) {
        dns(&mut found, &config).await;
    }
    if wants(&["udp", "quic"]) {
        udp(&mut found, &config, &clock, &trust).await;
    }
    if wants(&["proxy", "tcp", "tls", "websocket"]) {
        websocket(&mut found, &config, &clock, &trust).await;
    }
    if wants(&["agent"]) {
        agent(&mut found, &config);
    }
    weigh(&mut found);
    if let Some(only) = only {
        found.checks.retain(|check| check.name == only);
    }
    found
}

/// A link needs one way, not both.
fn weigh(found: &mut Diagnosis) {
    let works = |name| found.outcome(name) == Some(Outcome::Ok);
    let (udp, websocket) = (works("quic"), works("websocket"));
    for check in &mut found.checks {
        let spare = match check.name {
            "udp" | "quic" => websocket,
            "proxy" | "tcp" | "tls" | "websocket" => udp,
            _ => false,
        };
        if spare && check.outcome == Outcome::Fail {
            check.outcome = Outcome::Warn;
        }
    }
}

fn disk(found: &mut Diagnosis, config: &Config) {
    let dir = &config.state_dir;
    let probe = dir.join(format!(".new-doctor-{}", std::process::id()));
    let written = fs::write(&probe, b"doctor").and_then(|()| fs::remove_file(&probe));
    let free = rustix::fs::statvfs(dir)
        .ok()
        .map(|size| size.f_bavail.saturating_mul(size.f_frsize));
    let free = free.map_or_else(String::new, |free| format!(", {} MiB free", free >> 20));
    match written {
        Ok(()) => found.add(
            "disk",
            Outcome::Ok,
            format!("{} can be written{free}", dir.display()),
        ),
        Err(error) => {
            found.add(
                "disk",
                Outcome::Fail,
                format!("write to {}{free}: {error}", dir.display()),
            );
            found.advise(
                "make room or make it writable; the agent stays linked but cannot remember",
            );
        }
    }
}

type Peeked = Result<Option<Identity>, StateError>;

fn token(found: &mut Diagnosis, config: &Config, identity: &Peeked) {
    if !matches!(identity, Ok(None)) {
        return found.add(
            "token",
            Outcome::Skip,
            "this host has joined and needs none",
        );
    }
    let variable = std::env::var(crate::token::VARIABLE).ok();
    match TokenSource::new(variable, config.token_file.clone()).read() {
        Ok(_) => found.add(
            "token",
            Outcome::Ok,
            "an agent token is there; the gateway judges it",
        ),
        Err(error) => {
            found.add("token", Outcome::Fail, error_chain(&error));
            found.advise("run the installer again with a fresh token");
        }
    }
}

fn certificate(found: &mut Diagnosis, identity: &Peeked, clock: &Clock) {
    match identity {
        Ok(Some(identity)) if identity.not_after < clock.best() => {
            let what = format!("host {}, expired at {}", identity.host, identity.not_after);
            found.add("certificate", Outcome::Warn, what);
            found.advise("nothing: it is renewed at the next contact, unless the host was retired");
        }
        Ok(Some(identity)) => {
            let what = format!("host {}, valid until {}", identity.host, identity.not_after);
            found.add("certificate", Outcome::Ok, what);
        }
        Ok(None) => found.add("certificate", Outcome::Skip, "this host has not joined yet"),
        Err(error) => {
            found.add("certificate", Outcome::Fail, error_chain(error));
            found.advise(
                "run this as root; if the file is damaged, restore it or reset and join again",
            );
        }
    }
}

fn check_clock(found: &mut Diagnosis, config: &Config) {
    let clock = Clock::new(Default::default());
    if clock.system() < clock.best() {
        found.add(
            "clock",
            Outcome::Fail,
            format!("this host says {}: long past", clock.system()),
        );
        return found.advise("set the clock; the agent meanwhile goes by the gateway's time");
    }
    let sample = match ask(&config.runtime_dirs, Question::Status) {
        Ok(Answer::Status(status)) => status.clock,
        _ => None,
    };
    match sample {
        Some(clock) if clock.skew_ms.abs() >= SKEW_WARNING_MS => {
            let what = format!(
                "this host said {}, the gateway {}",
                clock.host, clock.gateway
            );
            found.add("clock", Outcome::Warn, what);
            found.advise("let NTP set the clock; certificates are judged by time");
        }
        Some(clock) => {
            let what = format!("{} ms apart from the gateway's", clock.skew_ms.abs());
            found.add("clock", Outcome::Ok, what);
        }
        None => {
            let what = format!(
                "this host says {}; no gateway has told its time yet",
                clock.system()
            );
            found.add("clock", Outcome::Skip, what);
        }
    }
}

async fn dns(found: &mut Diagnosis, config: &Config) {
    let target = &config.gateway;
    if target.ip().is_some() {
        return found.add("dns", Outcome::Skip, format!("{target} is an address"));
    }
    let started = Instant::now();
    let lookup = tokio::net::lookup_host((target.host(), target.port()));
    let addresses = match tokio::time::timeout(Duration::from_secs(5), lookup).await {
        Ok(Ok(addresses)) => Ok(addresses.map(|a| a.ip().to_string()).collect::<Vec<_>>()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer within 5 s".to_owned()),
    };
    match addresses {
        Ok(list) if !list.is_empty() => {
            let took = started.elapsed().as_millis();
            let what = format!("{} is {} ({took} ms)", target.host(), list.join(", "));
            found.add("dns", Outcome::Ok, what);
        }
        outcome => {
            let why = outcome
                .err()
                .unwrap_or_else(|| "the name has no address".to_owned());
            // A proxy resolves names itself.
            let proxied = config.proxy.for_target(target).is_some();
            let severity = if proxied {
                Outcome::Warn
            } else {
                Outcome::Fail
            };
            found.add("dns", severity, format!("look up {}: {why}", target.host()));
            found.advise("check the name in the configuration and /etc/resolv.conf");
        }
    }
}

async fn dial(
    config: &Config,
    clock: &Clock,
    trust: &Result<TrustBundle, String>,
    way: Way,
) -> Result<Path, Trouble> {
    let trust = trust.clone().map_err(Trouble::Here)?;
    let plan = Plan::stranger(config, trust, clock, way)
        .map_err(|error| Trouble::Here(error_chain(&error)))?;
    let link = plan.dial().await.map_err(Trouble::There)?;
    let path = link.path.clone();
    hang_up(link).await;
    Ok(path)
}

async fn hang_up(link: Link) {
    link.connection.close(VarInt::from_u32(0), b"doctor");
    let _ = tokio::time::timeout(Duration::from_secs(1), link.endpoint.wait_idle()).await;
}

enum Trouble {
    Here(String),
    There(DialError),
}

async fn udp(
    found: &mut Diagnosis,
    config: &Config,
    clock: &Clock,
    trust: &Result<TrustBundle, String>,
) {
    let target = &config.link;
    match dial(config, clock, trust, Way::Udp).await {
        Ok(Path::Udp { remote }) => {
            found.add(
                "udp",
                Outcome::Ok,
                format!("packets reach {remote} and come back"),
            );
            found.add(
                "quic",
                Outcome::Ok,
                format!("{target} is a gateway of this deployment"),
            );
        }
        Ok(Path::WebSocket { .. }) => found.add("udp", Outcome::Skip, "took another way"),
        Err(Trouble::Here(why)) => no_trust(found, &["udp", "quic"], &why),
        Err(Trouble::There(error)) => match error.rung {
            Rung::Quic => {
                found.add(
                    "udp",
                    Outcome::Ok,
                    format!("packets reach {target} and come back"),
                );
                failed(found, "quic", &error);
            }
            Rung::Dns => {
                found.add("udp", Outcome::Skip, "the name has no address, see dns");
                found.add("quic", Outcome::Skip, "the name has no address, see dns");
            }
            _ => {
                failed(found, "udp", &error);
                found.add("quic", Outcome::Skip, "needs udp");
            }
        },
    }
}

async fn websocket(
    found: &mut Diagnosis,
    config: &Config,
    clock: &Clock,
    trust: &Result<TrustBundle, String>,
) {
    const STEPS: [(&str, Rung); 4] = [
        ("tcp", Rung::Tcp),
        ("proxy", Rung::Proxy),
        ("tls", Rung::Tls),
        ("websocket", Rung::WebSocket),
    ];
    let proxy = config.proxy.for_target(&config.gateway);
    let first_hop = proxy.map_or(&config.gateway, |proxy| proxy.target());
    let outcome = dial(config, clock, trust, Way::WebSocket).await;
    let (broken, outer) = match &outcome {
        Ok(Path::WebSocket { outer, .. }) => (None, Some(outer)),
        Ok(Path::Udp { .. }) => (None, None),
        Err(Trouble::Here(why)) => {
            return no_trust(found, &["tcp", "proxy", "tls", "websocket"], why);
        }
        Err(Trouble::There(error)) => (Some(error), None),
    };
    let mut reached = true;
    for (name, rung) in STEPS {
        // What goes wrong inside the WebSocket is the WebSocket's failure here; DNS is
        // that of the first hop.
        let here = |error: &&DialError| {
            error.rung == rung
                || (name == "tcp" && error.rung == Rung::Dns)
                || (name == "websocket" && matches!(error.rung, Rung::Quic | Rung::Udp))
        };
        if let Some(error) = broken.filter(here) {
            failed(found, name, error);
            reached = false;
        } else if !reached {
            found.add(name, Outcome::Skip, "not reached");
        } else {
            match name {
                "tcp" => found.add(name, Outcome::Ok, format!("connected to {first_hop}")),
                "proxy" => match proxy {
                    Some(proxy) => {
                        found.add(name, Outcome::Ok, format!("{} connects", proxy.target()));
                    }
                    None => found.add(name, Outcome::Skip, "none is configured"),
                },
                "tls" => tls(
                    found,
                    config,
                    outer.and_then(|outer| outer.pin).map(|pin| pin.to_string()),
                ),
                _ => found.add(
                    name,
                    Outcome::Ok,
                    "carries the link, and the gateway proves itself",
                ),
            }
        }
    }
}

/// The outer TLS is only a way through port 443; the gateway proves itself inside.
fn tls(found: &mut Diagnosis, config: &Config, pin: Option<String>) {
    let wanted = config.https_pin.map(|pin| pin.to_string());
    match (pin, wanted) {
        (Some(pin), Some(wanted)) if pin != wanted => {
            let what = format!("the key is {pin}, configured is {wanted}");
            found.add("tls", Outcome::Warn, what);
            found.advise("a proxy may be opening TLS; the link inside is safe from it. If the gateway has a new key, update https_pin");
        }
        (Some(pin), _) => found.add("tls", Outcome::Ok, format!("the key is {pin}")),
        (None, _) => found.add("tls", Outcome::Ok, "the handshake is complete"),
    }
}

fn no_trust(found: &mut Diagnosis, names: &[&'static str], why: &str) {
    for name in names {
        found.add(name, Outcome::Fail, why);
    }
    found.advise("run the installer again: it brings the gateway's authority");
}

fn failed(found: &mut Diagnosis, name: &'static str, error: &DialError) {
    found.add(name, Outcome::Fail, error_chain(error));
    found.advise(advice(error));
}

fn advice(error: &DialError) -> &'static str {
    match (&error.reason, error.rung) {
        (Reason::Untrusted(VerifyError::NotYetValid { .. } | VerifyError::Expired { .. }), _) => {
            "compare the clock of this host with the gateway's; both times are above"
        }
        (Reason::Untrusted(_), _) => {
            "something else answers here, or the gateway was set up anew; the agent will not trust \
             it. Check the address; to join the new gateway, reset and install again"
        }
        (Reason::Blocked(_), _) => {
            "a firewall on this host or a missing route; see nft list ruleset and ip route"
        }
        (Reason::Refused(_), _) => "ask the gateway's log why",
        (_, Rung::Dns) => "check the name in the configuration and /etc/resolv.conf",
        (_, Rung::Udp | Rung::Quic) => {
            "allow UDP to the gateway's port in the firewalls between; until then the link goes over \
             the WebSocket"
        }
        (_, Rung::Tcp) => {
            "allow TCP to the gateway's port, or configure the proxy that this network wants"
        }
        (_, Rung::Proxy) if error.class() == Class::Settings => {
            "put the proxy's user and password into its URL in the configuration"
        }
        (_, Rung::Proxy) => "have the proxy allow CONNECT to the gateway's port",
        (_, Rung::Tls) => "something that is not HTTPS answers on the gateway's port",
        (_, Rung::WebSocket) => {
            "a middle box or a captive portal answers, or a reverse proxy in front of the gateway \
             does not pass WebSockets on"
        }
    }
}

fn agent(found: &mut Diagnosis, config: &Config) {
    match ask(&config.runtime_dirs, Question::Status) {
        Ok(Answer::Status(status)) => {
            let outcome = if status.is_linked() {
                Outcome::Ok
            } else {
                Outcome::Fail
            };
            found.add(
                "agent",
                outcome,
                format!("pid {}: {}", status.pid, status.summary),
            );
            let refusal = status.refusal.map(|refusal| refusal.message);
            if let Some(advice) = status.warnings.into_iter().next().or(refusal) {
                found.advise(advice);
            }
        }
        Ok(_) => found.add(
            "agent",
            Outcome::Warn,
            "an agent of another version answers",
        ),
        Err(error) => {
            found.add("agent", Outcome::Fail, error_chain(&error));
            found.advise("start it: systemctl start loopback-agent");
        }
    }
}
