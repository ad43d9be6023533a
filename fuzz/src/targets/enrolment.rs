//! What a stranger sends to enrol, as far as it gets without a valid token: the
//! message, its facts, its signing request. And one step further: whatever request is
//! accepted becomes a certificate that says what the gateway says and nothing else.

use std::sync::OnceLock;
use std::time::Duration;

use gateway::ca::CertificateAuthority;
use gateway::ca::https::HttpsSource;
use link::identity::{CertIdentity, Role};
use link::testing::{agent_identity, deployment};
use link::verify::{DEFAULT_SKEW, Expected, verify_leaf};
use model::Timestamp;
use model::facts::Facts;
use model::ids::AgentTokenId;
use model::token::Secret;
use prost::Message;
use protocol::v1::EnrolRequest;

use super::is_harmless;
use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "enrolment",
    about: "an enrolment: facts come out clean, a certificate says only what the gateway says",
    run,
    seeds,
    longest: 4096,
};

fn run(input: &[u8]) {
    let Ok(request) = EnrolRequest::decode(input) else {
        return;
    };
    if let Ok(secret) = request.token.trim().parse::<Secret<AgentTokenId>>() {
        assert!(!format!("{secret:?} {request:?}").contains(&secret.reveal()));
    }
    let facts: Facts = request.facts.unwrap_or_default().into();
    assert_clean(&facts);
    sign(&request.csr);
}

fn assert_clean(facts: &Facts) {
    let disks = facts
        .disks
        .iter()
        .flat_map(|disk| [&disk.mount, &disk.kind]);
    let texts = [
        &facts.hostname,
        &facts.os,
        &facts.os_version,
        &facts.kernel,
        &facts.arch,
        &facts.cpu_model,
        &facts.virtualization,
        &facts.machine_id,
        &facts.agent_version,
    ];
    for text in texts.into_iter().chain(&facts.addresses).chain(disks) {
        assert!(is_harmless(text) && text.chars().count() <= 128, "{text:?}");
    }
    assert!(facts.addresses.len() <= 64 && facts.disks.len() <= 64);
    assert_eq!(facts, &facts.clone().cleaned(), "cleaning once is enough");
}

fn sign(csr: &[u8]) {
    let authority = authority();
    let Ok(pin) = authority.csr_key(csr) else {
        return;
    };
    let identity = agent_identity(1);
    let now = now();
    let issued = authority
        .issue_agent(csr, identity, now, Duration::from_secs(3600))
        .unwrap();
    let expected = Expected {
        role: Role::Agent,
        deployment: Some(deployment(1)),
    };
    let peer = verify_leaf(
        &[issued.certificate],
        &authority.trust_bundle(),
        expected,
        now,
        DEFAULT_SKEW,
    )
    .unwrap();
    assert_eq!(peer.spki_sha256, pin);
    assert!(matches!(peer.identity, CertIdentity::Agent { .. }) && peer.identity == identity);
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

fn authority() -> &'static CertificateAuthority {
    static AUTHORITY: OnceLock<CertificateAuthority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let url = "https://localhost:1".parse().unwrap();
        let https = HttpsSource::Internal(url);
        // It insists on a folder that nobody else can enter, and makes it.
        let private = folder.path().join("ca");
        CertificateAuthority::load_or_create(&private, deployment(1), https, now()).unwrap()
    })
}

fn seeds() -> Vec<Vec<u8>> {
    let request = |csr: Vec<u8>| EnrolRequest {
        token: Secret::new(AgentTokenId::new(now(), [5; 10]), [5; 32]).reveal(),
        csr,
        facts: Some(super::frame::facts()),
        version_max: 1,
        version_min: 1,
    };
    let mut seeds = Vec::new();
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_ECDSA_P384_SHA384,
    ] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        for names in [vec![], vec!["evil.example".to_owned()]] {
            let params = rcgen::CertificateParams::new(names).unwrap();
            let csr = params.serialize_request(&key).unwrap();
            seeds.push(request(csr.der().to_vec()).encode_to_vec());
        }
    }
    let mut hostile = request(vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]);
    if let Some(facts) = &mut hostile.facts {
        facts.hostname = "\u{1b}]0;x\u{7}\u{202e}".repeat(40);
        facts.addresses = vec!["\n".to_owned(); 100];
    }
    seeds.push(hostile.encode_to_vec());
    seeds
}
