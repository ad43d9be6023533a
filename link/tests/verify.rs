//! What the judge of certificates accepts, and every way to be refused.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::time::Duration;

use link::identity::{CertIdentity, Role};
use link::testing::{Authority, Leaf, agent_identity, deployment, gateway_identity, self_signed};
use link::tls::Credentials;
use link::trust::{TrustBundle, TrustError};
use link::verify::{Expected, VerifiedPeer, VerifyError, verify_leaf};
use model::Timestamp;
use rcgen::ExtendedKeyUsagePurpose as Usage;
use rustls_pki_types::CertificateDer;

const SKEW: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

fn judge(
    presented: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    role: Role,
) -> Result<VerifiedPeer, VerifyError> {
    let expected = Expected {
        role,
        deployment: Some(deployment(1)),
    };
    verify_leaf(presented, bundle, expected, now(), SKEW)
}

/// Judges an agent's certificate after `spoil` has changed it.
fn agent(spoil: impl FnOnce(&mut Leaf)) -> Result<VerifiedPeer, VerifyError> {
    let authority = Authority::new("ours");
    let mut leaf = Leaf::of(agent_identity(1), now());
    spoil(&mut leaf);
    judge(
        &[authority.issue(&leaf).certificate],
        &authority.bundle(),
        Role::Agent,
    )
}

fn gateway(spoil: impl FnOnce(&mut Leaf)) -> Result<VerifiedPeer, VerifyError> {
    let authority = Authority::new("ours");
    let mut leaf = Leaf::of(gateway_identity(1), now());
    spoil(&mut leaf);
    judge(
        &[authority.issue(&leaf).certificate],
        &authority.bundle(),
        Role::Gateway,
    )
}

#[test]
fn a_good_certificate_says_who_its_holder_is() {
    let peer = agent(|_| {}).unwrap();
    assert_eq!(peer.identity, agent_identity(1));
    assert_eq!(peer.not_before, now().saturating_sub(HOUR));
    assert_eq!(peer.not_after, now().saturating_add(DAY));
    assert_eq!((peer.expired, peer.serial), (false, vec![7]));
    assert_eq!(gateway(|_| {}).unwrap().identity, gateway_identity(1));
}

#[test]
fn ed25519_is_as_good_as_p256_and_p384_is_not() {
    assert!(agent(|leaf| leaf.algorithm = &rcgen::PKCS_ED25519).is_ok());
    assert_eq!(
        agent(|leaf| leaf.algorithm = &rcgen::PKCS_ECDSA_P384_SHA384),
        Err(VerifyError::Algorithm)
    );
}

#[test]
fn an_agents_certificate_may_have_expired_and_is_marked() {
    let expired = agent(|leaf| leaf.not_after = now().saturating_sub(SKEW * 2)).unwrap();
    assert!(expired.expired);
    let within_skew = agent(|leaf| leaf.not_after = now().saturating_sub(SKEW / 2)).unwrap();
    assert!(!within_skew.expired);
}

#[test]
fn a_gateways_certificate_must_not_have_expired() {
    let refused = gateway(|leaf| leaf.not_after = now().saturating_sub(SKEW * 2)).unwrap_err();
    // Both times are in the text, so that a wrong clock shows.
    let text = refused.to_string();
    assert!(
        text.contains("2027-01-15T07:50:00.000Z") && text.contains(&now().to_string()),
        "{text}"
    );
}

#[test]
fn abuse_44_a_certificate_of_the_future_is_refused_or_marked_beyond_the_skew() {
    let within = agent(|leaf| leaf.not_before = now().saturating_add(SKEW / 2)).unwrap();
    assert!(!within.expired);
    let refused = gateway(|leaf| leaf.not_before = now().saturating_add(SKEW * 2));
    assert!(
        matches!(refused, Err(VerifyError::NotYetValid { .. })),
        "{refused:?}"
    );
    // Only this deployment's authority can have made it, while its clock was ahead.
    let marked = agent(|leaf| leaf.not_before = now().saturating_add(SKEW * 2)).unwrap();
    assert!(marked.expired);
}

#[test]
fn roles_do_not_mix() {
    let refused = agent(|leaf| {
        leaf.uris = vec![gateway_identity(1).to_string()];
        leaf.usages = vec![Usage::ClientAuth, Usage::ServerAuth];
    });
    let expected = VerifyError::Role {
        expected: Role::Agent,
        found: Role::Gateway,
    };
    assert_eq!(refused, Err(expected));
    let refused = gateway(|leaf| leaf.uris = vec![agent_identity(1).to_string()]);
    assert!(
        matches!(refused, Err(VerifyError::Role { .. })),
        "{refused:?}"
    );
}

#[test]
fn another_deployments_identity_is_refused_even_from_our_authority() {
    let refused = agent(|leaf| leaf.uris = vec![agent_identity(2).to_string()]);
    let expected = VerifyError::Deployment {
        expected: deployment(1),
        found: deployment(2),
    };
    assert_eq!(refused, Err(expected));
}

#[test]
fn usage_must_be_stated_and_fit() {
    for usages in [vec![], vec![Usage::ServerAuth], vec![Usage::Any]] {
        let refused = agent(|leaf| leaf.usages = usages.clone());
        assert!(
            matches!(refused, Err(VerifyError::Usage(_))),
            "{usages:?}: {refused:?}"
        );
    }
}

#[test]
fn one_uri_and_nothing_else_names_the_holder() {
    let good = agent_identity(1).to_string();
    for (uris, dns_names) in [
        (vec![], vec![]),
        (vec![good.clone(), good.clone()], vec![]),
        (vec![good.clone(), gateway_identity(1).to_string()], vec![]),
        (
            vec![good.clone()],
            vec!["gateway.loopback.internal".to_owned()],
        ),
        (vec![], vec!["gateway.loopback.internal".to_owned()]),
    ] {
        let refused = agent(|leaf| {
            leaf.uris = uris.clone();
            leaf.dns_names = dns_names.clone();
        });
        assert_eq!(
            refused,
            Err(VerifyError::NoIdentity),
            "{uris:?} {dns_names:?}"
        );
    }
    let refused = agent(|leaf| leaf.uris = vec!["https://example.com/".to_owned()]);
    assert!(
        matches!(refused, Err(VerifyError::Identity(_))),
        "{refused:?}"
    );
}

#[test]
fn strangers_are_refused() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let namesake = Authority::new("ours");
    let leaf = Leaf::of(agent_identity(1), now());
    let refuse = |presented: &[CertificateDer<'_>]| {
        judge(presented, &ours.bundle(), Role::Agent).unwrap_err()
    };
    assert_eq!(refuse(&[]), VerifyError::Missing);
    assert_eq!(
        refuse(&[theirs.issue(&leaf).certificate]),
        VerifyError::UnknownIssuer
    );
    assert_eq!(
        refuse(&[self_signed(&leaf).certificate]),
        VerifyError::UnknownIssuer
    );
    // The issuer's name is ours, its key is not.
    assert_eq!(
        refuse(&[namesake.issue(&leaf).certificate]),
        VerifyError::BadSignature
    );
    let garbage = refuse(&[CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])]);
    assert!(matches!(garbage, VerifyError::Malformed(_)), "{garbage:?}");
}

#[test]
fn no_chain_is_followed() {
    let root = Authority::new("ours");
    let middle = root.intermediate("middle");
    let leaf = middle
        .issue(&Leaf::of(agent_identity(1), now()))
        .certificate;
    let refuse = |presented: &[CertificateDer<'_>]| {
        judge(presented, &root.bundle(), Role::Agent).unwrap_err()
    };
    assert_eq!(
        refuse(&[leaf.clone(), middle.certificate()]),
        VerifyError::Chain(2)
    );
    assert_eq!(
        refuse(std::slice::from_ref(&leaf)),
        VerifyError::UnknownIssuer
    );
    // Twenty deep is refused by counting.
    assert_eq!(refuse(&vec![leaf; 20]), VerifyError::Chain(20));
}

#[test]
fn an_authority_is_nobodys_identity() {
    let authority = Authority::new("ours");
    let own = judge(&[authority.certificate()], &authority.bundle(), Role::Agent);
    assert!(matches!(own, Err(VerifyError::Usage(_))), "{own:?}");
    let nested = agent(|leaf| leaf.is_authority = true);
    assert!(matches!(nested, Err(VerifyError::Usage(_))), "{nested:?}");
}

#[test]
fn every_authority_of_the_bundle_counts_during_a_rotation() {
    // Same name, other key: the usual rotation.
    let (old, new) = (Authority::new("ours"), Authority::new("ours"));
    let both = TrustBundle::new(2, vec![old.certificate(), new.certificate()]).unwrap();
    let leaf = Leaf::of(agent_identity(1), now());
    for authority in [&old, &new] {
        let presented = [authority.issue(&leaf).certificate];
        judge(&presented, &both, Role::Agent).unwrap();
    }
    let presented = [old.issue(&leaf).certificate];
    assert!(judge(&presented, &new.bundle(), Role::Agent).is_err());
}

#[test]
fn an_enrolling_host_takes_any_deployment_of_its_authority() {
    let authority = Authority::new("ours");
    let Credentials { certificate, .. } = authority.good(gateway_identity(2), now());
    let expected = Expected {
        role: Role::Gateway,
        deployment: None,
    };
    let peer = verify_leaf(&[certificate], &authority.bundle(), expected, now(), SKEW).unwrap();
    assert!(matches!(peer.identity, CertIdentity::Gateway { .. }));
}

#[test]
fn a_bundle_survives_pem() {
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    let bundle = TrustBundle::new(3, vec![one.certificate(), two.certificate()]).unwrap();
    let again = TrustBundle::from_pem(3, &format!("# ours\n{}", bundle.to_pem())).unwrap();
    assert_eq!(again.authorities(), bundle.authorities());
    assert!(matches!(
        TrustBundle::from_pem(3, "nothing"),
        Err(TrustError::Empty)
    ));
    let nine = vec![one.certificate(); 9];
    assert!(matches!(
        TrustBundle::new(3, nine),
        Err(TrustError::TooMany(9))
    ));
}

/// Flips every byte of a good certificate in turn.
#[test]
fn no_altered_certificate_is_accepted() {
    let authority = Authority::new("ours");
    let good = authority
        .issue(&Leaf::of(agent_identity(1), now()))
        .certificate;
    for place in 0..good.len() {
        for bit in [0x01, 0x80] {
            let mut bytes = good.to_vec();
            bytes[place] ^= bit;
            let altered = [CertificateDer::from(bytes)];
            let verdict = judge(&altered, &authority.bundle(), Role::Agent);
            assert!(verdict.is_err(), "byte {place} ^ {bit:#x} was accepted");
        }
    }
}
