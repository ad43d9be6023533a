//! Certificates of peers and bundles of authorities.
//!
//! Input: one byte that chooses whom to expect, then a certificate. The authority is
//! the same in every run, so what the search found stays meaningful. Whatever is
//! accepted must be, to the last signed byte, something that this authority signed.

use std::sync::OnceLock;
use std::time::Duration;

use link::identity::Role;
use link::testing::{Authority, Leaf, agent_identity, deployment, gateway_identity, self_signed};
use link::trust::{TrustBundle, TrustStore, certificate_to_pem};
use link::verify::{DEFAULT_SKEW, Expected, verify_leaf};
use model::Timestamp;
use rustls_pki_types::CertificateDer;

use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "certificate",
    about: "certificates: accepted is only what was signed, bundles survive being written",
    run,
    seeds,
    longest: 2048,
};

fn run(input: &[u8]) {
    let Some((&choice, der)) = input.split_first() else {
        return;
    };
    let world = world();
    let expected = Expected {
        role: if choice & 1 == 0 {
            Role::Agent
        } else {
            Role::Gateway
        },
        deployment: (choice & 2 == 0).then(|| deployment(1)),
    };
    let now = if choice & 4 == 0 { now() } else { far_future() };
    let leaf = CertificateDer::from(der);
    let presented = [leaf.clone(), leaf.clone()];
    assert!(verify_leaf(&presented, &world.bundle, expected, now, DEFAULT_SKEW).is_err());
    if let Ok(peer) = verify_leaf(&presented[..1], &world.bundle, expected, now, DEFAULT_SKEW) {
        assert_eq!(peer.identity.role(), expected.role);
        let signed = signed_part(der).expect("what was accepted has a signed part");
        assert!(
            world
                .signed
                .iter()
                .any(|good| signed_part(good) == Some(signed)),
            "accepted and never signed"
        );
    }
    if let Ok(bundle) = TrustBundle::new(1, vec![leaf.into_owned()]) {
        let again = TrustBundle::from_pem(1, &bundle.to_pem()).unwrap();
        assert_eq!(again.authorities(), bundle.authorities());
        let store = TrustStore::new(bundle);
        // An authority is its name and its key; the rest of its certificate may differ.
        let same_key = der.windows(world.key.len()).any(|part| part == world.key);
        for signed in &world.signed {
            let signed = [CertificateDer::from(signed.as_slice())];
            let verdict = verify_leaf(&signed, &store.bundle(), expected, now, DEFAULT_SKEW);
            assert!(
                verdict.is_err() || same_key,
                "another authority is believed"
            );
        }
    }
    if let Ok(pem) = std::str::from_utf8(der) {
        let _ = TrustBundle::from_pem(1, pem);
    }
}

/// The content of the outer SEQUENCE's first element, with its header: what a
/// signature is over. Written apart from the code under test.
fn signed_part(der: &[u8]) -> Option<&[u8]> {
    let outer = content(der)?;
    let inner = content(outer)?;
    let header = inner.as_ptr() as usize - outer.as_ptr() as usize;
    outer.get(..header + inner.len())
}

fn content(der: &[u8]) -> Option<&[u8]> {
    let (&[0x30, first], rest) = der.split_first_chunk::<2>()? else {
        return None;
    };
    match first {
        0..=0x7f => rest.get(..first.into()),
        0x81 => rest.get(1..1 + usize::from(*rest.first()?)),
        0x82 => {
            let length = u16::from_be_bytes(*rest.first_chunk()?);
            rest.get(2..2 + usize::from(length))
        }
        _ => None,
    }
}

struct World {
    bundle: TrustBundle,
    authority: Vec<u8>,
    /// The public key in it.
    key: [u8; 32],
    /// Certificates that somebody may believe at some time.
    signed: Vec<Vec<u8>>,
    /// Others, that nobody ever may.
    bad: Vec<Vec<u8>>,
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

fn far_future() -> Timestamp {
    now().saturating_add(Duration::from_secs(20 * 365 * 86_400))
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let authority = Authority::of_seed("fuzz", 1);
        let agent = Leaf::of(agent_identity(1), now());
        let gateway = Leaf::of(gateway_identity(1), now());
        let signed = |leaf: &Leaf, seed| authority.issue_for_seed(leaf, seed).certificate.to_vec();
        let later = Leaf {
            not_before: far_future(),
            not_after: far_future(),
            ..agent.clone()
        };
        let good = vec![
            signed(&agent, 2),
            signed(&gateway, 3),
            signed(&Leaf::of(agent_identity(2), now()), 4),
            signed(&Leaf::of(gateway_identity(2), now()), 5),
            signed(&later, 7),
        ];
        let bad = [
            Leaf {
                usages: Vec::new(),
                ..agent.clone()
            },
            Leaf {
                is_authority: true,
                ..agent.clone()
            },
            Leaf {
                uris: vec!["loopback://x".to_owned()],
                ..agent.clone()
            },
            Leaf {
                uris: [&agent.uris[..], &gateway.uris[..]].concat(),
                ..agent.clone()
            },
            Leaf {
                dns_names: vec!["a.example".to_owned()],
                ..agent.clone()
            },
        ];
        let other = Authority::of_seed("fuzz", 9);
        let mut bad: Vec<_> = bad.iter().map(|leaf| signed(leaf, 6)).collect();
        bad.push(other.issue_for_seed(&agent, 2).certificate.to_vec());
        World {
            bundle: authority.bundle(),
            authority: authority.certificate().to_vec(),
            key: authority.ed25519_key(),
            signed: good,
            bad,
        }
    })
}

fn seeds() -> Vec<Vec<u8>> {
    let world = world();
    let agent = Leaf::of(agent_identity(1), now());
    let own = [
        self_signed(&agent).certificate.to_vec(),
        world.authority.clone(),
    ];
    let all = world.signed.iter().chain(&world.bad).chain(&own);
    let mut seeds: Vec<_> = all
        .enumerate()
        .map(|(number, der)| {
            let choice = u8::try_from(number).unwrap();
            [&[choice], &der[..]].concat()
        })
        .collect();
    let pem = certificate_to_pem(&CertificateDer::from(world.authority.as_slice()));
    seeds.push([b"\0", pem.as_bytes()].concat());
    seeds.push(vec![0, 0x30, 0x84, 0xff, 0xff, 0xff, 0xff]);
    seeds.push([&[0], &[0x30, 0x80].repeat(40)[..]].concat());
    seeds
}
