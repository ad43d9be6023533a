//! What a grant must be to mean something.

use model::names::Name;
use model::plugin::{Grant, Needs, Pin, Route};
use model::selector::Selector;

/// Why a grant is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct GrantFault {
    /// Where, as in `http.webhook`.
    pub at: String,
    /// What is wrong, and what to do.
    pub what: String,
}

/// Most rules, profiles or bindings of a sort.
const MOST: usize = 64;
/// Most entries in a list of a rule.
const MOST_ENTRIES: usize = 256;
/// Most bytes of certificates in a profile.
const MOST_PEM: usize = 64 << 10;

/// Holds a grant against the needs that it answers: of what runs, and of an upgrade that
/// waits. A rule for a need that nobody has is most likely a slip of the keyboard, and would
/// come into force with some later version that nobody thought of.
pub fn check_grant(grant: &Grant, needs: &[&Needs]) -> Result<(), GrantFault> {
    let fault = |at: String, what: &str| {
        Err(GrantFault {
            at,
            what: what.into(),
        })
    };
    if let Some((name, least, most)) = grant.limits.out_of_range() {
        return fault(
            format!("limits.{name}"),
            &format!("must be {least} to {most}"),
        );
    }
    let counts = [
        grant.http.len(),
        grant.secrets.len(),
        grant.datagrams.len(),
        grant.tls_profiles.len(),
        grant.routes.len(),
    ];
    if counts.into_iter().any(|count| count > MOST) {
        return fault("grant".into(), "at most 64 entries of each sort");
    }
    for (name, profile) in &grant.tls_profiles {
        let at = format!("tls_profiles.{name}");
        match profile {
            model::plugin::TlsProfile::Authorities(pem) => {
                if pem.len() > MOST_PEM || !pem.contains("-----BEGIN CERTIFICATE-----") {
                    return fault(at, "authorities are certificates in PEM, 64 KiB at most");
                }
            }
            model::plugin::TlsProfile::Keys(pins) => {
                if pins.is_empty() || pins.len() > MOST || !pins.iter().all(is_pin) {
                    return fault(
                        at,
                        "a key is pinned by the SHA-256 of its public key, 64 lower-case hex digits",
                    );
                }
            }
            model::plugin::TlsProfile::System | model::plugin::TlsProfile::Insecure => {}
        }
    }
    for (name, route) in &grant.routes {
        if let Err(what) = check_route(route) {
            return fault(format!("routes.{name}"), &what);
        }
    }
    for rule in &grant.http {
        let at = format!("http.{}", rule.need);
        let known = |needs: &&Needs| needs.http.iter().any(|need| need.name == rule.need);
        if !needs.iter().any(known) {
            return fault(at, "the plugin has no such need");
        }
        if rule.hosts.is_empty() {
            return fault(at, "name at least one host");
        }
        let lists = [
            rule.hosts.len(),
            rule.ports.len(),
            rule.networks.len(),
            rule.tls_profiles.len(),
            rule.routes.len(),
        ];
        if lists.into_iter().any(|count| count > MOST_ENTRIES) {
            return fault(at, "at most 256 entries in a list");
        }
        if rule.ports.contains(&0) {
            return fault(at, "a port is 1 to 65535");
        }
        if let Some(name) = rule
            .tls_profiles
            .iter()
            .find(|name| !grant.tls_profiles.contains_key(*name))
        {
            return fault(
                at,
                &format!("there is no tls_profile `{name}` in the grant"),
            );
        }
        if let Some(name) = rule
            .secrets
            .iter()
            .find(|name| !grant.secrets.contains_key(*name) && !of_targets(needs, name))
        {
            return fault(at, &format!("the grant has no secret `{name}`"));
        }
        if let Some(name) = missing_route(grant, &rule.routes) {
            return fault(at, &format!("the grant has no route `{name}`"));
        }
    }
    for (name, binding) in &grant.secrets {
        let at = format!("secrets.{name}");
        let mut wanted = needs
            .iter()
            .flat_map(|needs| &needs.secrets)
            .filter(|need| need.name == *name)
            .peekable();
        if wanted.peek().is_none() {
            return fault(at, "the plugin has no such need");
        }
        if binding.reveal && !wanted.any(|need| need.reveal) {
            return fault(
                at,
                "the plugin does not ask to read this secret; using it is enough",
            );
        }
    }
    for rule in &grant.datagrams {
        let at = format!("datagrams.{}", rule.need);
        let known = |needs: &&Needs| needs.datagrams.iter().any(|need| need.name == rule.need);
        if !needs.iter().any(known) {
            return fault(at, "the plugin has no such need");
        }
        if rule.networks.is_empty() || rule.ports.is_empty() || rule.ports.contains(&0) {
            return fault(at, "name networks, and ports from 1 to 65535");
        }
        let lists = [rule.networks.len(), rule.ports.len(), rule.routes.len()];
        if lists.into_iter().any(|count| count > MOST_ENTRIES) {
            return fault(at, "at most 256 entries in a list");
        }
        if let Some(name) = missing_route(grant, &rule.routes) {
            return fault(at, &format!("the grant has no route `{name}`"));
        }
    }
    if grant.state.is_some_and(|state| state.keys > 10_000) {
        return fault("state.keys".into(), "must be 0 to 10000");
    }
    Ok(())
}

/// Whether each target may bring a secret of this name, so that the grant need not.
fn of_targets(needs: &[&Needs], name: &Name) -> bool {
    let mut secrets = needs.iter().flat_map(|needs| &needs.secrets);
    secrets.any(|need| need.per_target && need.name == *name)
}

fn missing_route<'a>(grant: &Grant, names: &'a [Name]) -> Option<&'a Name> {
    names.iter().find(|name| !grant.routes.contains_key(*name))
}

fn check_route(route: &Route) -> Result<(), String> {
    if route.hosts.len() > MOST {
        return Err(format!("name at most {MOST} hosts"));
    }
    match &route.selector {
        None if route.hosts.is_empty() => Err("name hosts, or give a selector".to_owned()),
        None => Ok(()),
        Some(selector) => match selector.parse::<Selector>() {
            // Empty is what is left when somebody's template had no value for it.
            Ok(selector) if selector.is_empty() => {
                Err("an empty selector is every host; name a label that they have".to_owned())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        },
    }
}

fn is_pin(Pin(text): &Pin) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
