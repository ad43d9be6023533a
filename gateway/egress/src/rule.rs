//! Which rule of a grant covers a request.
//!
//! One rule must cover all of it: host, scheme, port, TLS profile, every secret, and in the end
//! the address. Two rules that each cover a half do not: they were written for two servers.

use std::net::IpAddr;

use model::names::Name;
use model::plugin::{Grant, HttpRule, TlsProfile};
use plugin_host::ports::GuestError;

use crate::address;
use crate::error::{code, denied};
use crate::routes::{RouteRule, covers};
use crate::target::{Scheme, Target};

/// The rules that cover a request as far as can be said before its name is resolved.
#[derive(Debug)]
pub(crate) struct Covering<'a> {
    rules: Vec<&'a HttpRule>,
    pub(crate) profile: TlsProfile,
}

impl Covering<'_> {
    /// Whether one of them covers the address as well.
    pub(crate) fn permits(&self, address: IpAddr) -> bool {
        self.rules
            .iter()
            .any(|rule| address::permits(&rule.networks, address))
    }

    /// The same, for whoever judges addresses elsewhere. All of them have this port.
    pub(crate) fn elsewhere(&self, port: u16) -> Vec<RouteRule> {
        let rule = |rule: &&HttpRule| RouteRule {
            networks: rule.networks.clone(),
            ports: vec![port],
        };
        self.rules.iter().map(rule).collect()
    }
}

/// Finds the rules that cover a request. Where there are none, the error names what is missing of
/// the rule that came closest.
pub(crate) fn covering<'a>(
    grant: &'a Grant,
    target: &Target,
    profile: Option<&str>,
    secrets: &[&Name],
    route: Option<&str>,
) -> Result<Covering<'a>, GuestError> {
    let host = target.host.to_string();
    let mut rules = Vec::new();
    let mut closest = (
        0,
        denied(
            code::HOST_NOT_GRANTED,
            format!("no rule of the grant has the host {host}"),
        ),
    );
    let with_host = grant
        .http
        .iter()
        .filter(|rule| rule.hosts.iter().any(|pattern| pattern.covers(&host)));
    for rule in with_host {
        match missing(rule, target, profile, secrets, route) {
            None => rules.push(rule),
            Some((step, error)) if step > closest.0 => closest = (step, error),
            Some(_) => {}
        }
    }
    if rules.is_empty() {
        return Err(closest.1);
    }
    let profile = match profile {
        None => TlsProfile::System,
        Some(name) => name
            .parse::<Name>()
            .ok()
            .and_then(|name| grant.tls_profiles.get(&name))
            .cloned()
            .ok_or_else(|| {
                denied(
                    code::TLS_PROFILE_NOT_GRANTED,
                    "the grant has no TLS profile of this name",
                )
            })?,
    };
    Ok(Covering { rules, profile })
}

/// The first thing that a rule with the right host lacks, and how far it came.
fn missing(
    rule: &HttpRule,
    target: &Target,
    profile: Option<&str>,
    secrets: &[&Name],
    route: Option<&str>,
) -> Option<(u8, GuestError)> {
    let need = &rule.need;
    let host = &target.host;
    if target.scheme == Scheme::Http && !rule.plain {
        let message = format!("the grant for {need} does not allow http:// to {host}");
        return Some((1, denied(code::SCHEME_NOT_GRANTED, message)));
    }
    let port_granted = if rule.ports.is_empty() {
        target.port == target.scheme.port()
    } else {
        rule.ports.contains(&target.port)
    };
    if !port_granted {
        let message = format!(
            "the grant for {need} does not allow port {} of {host}",
            target.port
        );
        return Some((2, denied(code::PORT_NOT_GRANTED, message)));
    }
    let profile_granted = match (target.scheme, profile) {
        (Scheme::Http, None) => true,
        // A profile that cannot be kept is not ignored: the plugin counts on it.
        (Scheme::Http, Some(_)) => false,
        (Scheme::Https, None) => rule.tls_profiles.is_empty(),
        (Scheme::Https, Some(name)) => rule
            .tls_profiles
            .iter()
            .any(|profile| profile.as_str() == name),
    };
    if !profile_granted {
        let names: Vec<_> = rule.tls_profiles.iter().map(Name::as_str).collect();
        let message = if names.is_empty() || target.scheme == Scheme::Http {
            format!("the grant for {need} has no such TLS profile for {host}")
        } else {
            format!(
                "the grant for {need} allows these TLS profiles for {host}: {}",
                names.join(", ")
            )
        };
        return Some((3, denied(code::TLS_PROFILE_NOT_GRANTED, message)));
    }
    let secret = secrets.iter().find(|secret| !rule.secrets.contains(secret));
    if let Some(secret) = secret {
        let message =
            format!("the grant for {need} does not allow to send the secret {secret} to {host}");
        return Some((4, denied(code::SECRET_NOT_GRANTED, message)));
    }
    if covers(&rule.routes, route) {
        return None;
    }
    let message = match route {
        Some(_) => format!("the grant for {need} does not allow this route to {host}"),
        None => format!("the grant for {need} reaches {host} by a route only, and none was named"),
    };
    Some((5, denied(code::ROUTE_NOT_GRANTED, message)))
}

#[cfg(test)]
mod tests;
