//! The names in certificates, and pins of keys.

use link::identity::{CertIdentity, SpkiSha256};
use link::testing::{agent_identity, gateway_identity};

use super::{reads_as_it_writes, text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "identity",
    about: "names in certificates and pins: one spelling each",
    run,
    seeds,
    longest: 256,
};

fn run(input: &[u8]) {
    let Some(text) = text(input) else { return };
    if let Ok(identity) = text.parse::<CertIdentity>() {
        assert_eq!(identity.to_string(), text, "an identity has two spellings");
    }
    reads_as_it_writes::<SpkiSha256>(text);
}

fn seeds() -> Vec<Vec<u8>> {
    let agent = agent_identity(1).to_string();
    let pin = SpkiSha256([7; 32]).to_string();
    texts(&[
        &agent,
        &gateway_identity(1).to_string(),
        &pin,
        &agent.to_uppercase(),
        &format!("{agent}/"),
        &agent.replace("/1", "/+1"),
        &agent.replace("/1", "/01"),
        &agent.replace("/1", "/18446744073709551616"),
        "loopback://",
        "loopback:///agent///",
        "sha256//",
    ])
}
