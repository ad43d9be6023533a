use super::*;
use link::identity::Role;
use link::tls::Verifier;
use link::verify::{Expected, VerifiedPeer, VerifyError, verify_leaf};
use model::ids::{HostId, WorkspaceId};
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
};
use rustls_pki_types::ServerName;

const DAY: Duration = Duration::from_secs(86_400);
const SKEW: Duration = Duration::from_secs(300);

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_123)
}

fn deployment(seed: u8) -> DeploymentId {
    DeploymentId::new(now(), [seed; 10])
}

fn agent() -> CertIdentity {
    CertIdentity::Agent {
        deployment: deployment(1),
        workspace: WorkspaceId::new(now(), [1; 10]),
        host: HostId::new(now(), [1; 10]),
        generation: 3,
    }
}

fn source() -> HttpsSource {
    HttpsSource::Internal("https://gateway.example.com:8443".parse().unwrap())
}

struct Fixture {
    root: tempfile::TempDir,
    ca: CertificateAuthority,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("ca");
        let ca =
            CertificateAuthority::load_or_create(&dir, deployment(1), source(), now()).unwrap();
        Self { root, ca }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("ca")
    }

    fn load(&self) -> Result<CertificateAuthority, CaError> {
        CertificateAuthority::load_or_create(&self.dir(), deployment(1), source(), now())
    }

    fn issue(&self) -> Issued {
        self.ca
            .issue_agent(&csr(&key(&PKCS_ED25519)), agent(), now(), 30 * DAY)
            .unwrap()
    }
}

fn key(algorithm: &'static rcgen::SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default()
        .serialize_request(key)
        .unwrap()
        .der()
        .to_vec()
}

fn judge(
    ca: &CertificateAuthority,
    certificate: &CertificateDer<'_>,
    role: Role,
    at: Timestamp,
) -> Result<VerifiedPeer, VerifyError> {
    let expected = Expected {
        role,
        deployment: Some(deployment(1)),
    };
    verify_leaf(
        std::slice::from_ref(certificate),
        &ca.trust_bundle(),
        expected,
        at,
        SKEW,
    )
}

#[test]
fn what_is_issued_is_what_links_accept() {
    let fixture = Fixture::new();
    for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P256_SHA256] {
        let key = key(algorithm);
        let issued = fixture
            .ca
            .issue_agent(&csr(&key), agent(), now(), 30 * DAY)
            .unwrap();
        let peer = judge(&fixture.ca, &issued.certificate, Role::Agent, now()).unwrap();
        assert_eq!(peer.identity, agent());
        assert_eq!(peer.spki_sha256, issued.spki_sha256);
        assert_eq!(peer.spki_sha256, fixture.ca.csr_key(&csr(&key)).unwrap());
        assert_eq!(peer.serial, issued.serial);
        assert_eq!(
            (peer.not_before, peer.not_after),
            (issued.not_before, issued.not_after)
        );
        assert_eq!(
            peer.not_after,
            Timestamp::from_millis(now().as_secs() * 1000).saturating_add(30 * DAY)
        );
        assert!(!peer.expired);
        // A clock a few minutes behind finds it valid; nobody takes it for a gateway.
        let behind = now().saturating_sub(Duration::from_secs(12 * 60));
        assert!(judge(&fixture.ca, &issued.certificate, Role::Agent, behind).is_ok());
        assert!(judge(&fixture.ca, &issued.certificate, Role::Gateway, now()).is_err());
        assert_eq!(issued.issuer_fingerprint, fixture.ca.active_fingerprint());
    }
}

#[test]
fn a_gateway_certificate_is_accepted_in_its_direction_only() {
    let fixture = Fixture::new();
    let (credentials, renew_at) = fixture.ca.issue_gateway(now()).unwrap();
    let peer = judge(&fixture.ca, &credentials.certificate, Role::Gateway, now()).unwrap();
    assert_eq!(
        peer.identity,
        CertIdentity::Gateway {
            deployment: deployment(1)
        }
    );
    assert!(judge(&fixture.ca, &credentials.certificate, Role::Agent, now()).is_err());
    assert!(renew_at > now().saturating_add(40 * DAY) && renew_at < peer.not_after);
    let verifier = Verifier::of_agents(fixture.ca.trust_store(), deployment(1), Arc::new(now));
    link::transport::server_config(verifier, credentials, Duration::from_secs(9)).unwrap();
}

#[test]
fn of_a_request_only_its_key_counts() {
    let fixture = Fixture::new();
    let key = key(&PKCS_ECDSA_P256_SHA256);
    let mut params = CertificateParams::new(["gateway.example.com".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "root");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let greedy = params.serialize_request(&key).unwrap();
    let issued = fixture
        .ca
        .issue_agent(greedy.der(), agent(), now(), DAY)
        .unwrap();
    let peer = judge(&fixture.ca, &issued.certificate, Role::Agent, now()).unwrap();
    assert_eq!(peer.identity, agent());
    assert!(judge(&fixture.ca, &issued.certificate, Role::Gateway, now()).is_err());
    assert!(!issued.certificate.windows(7).any(|part| part == b"gateway"));
}

#[test]
fn bad_requests_are_refused_with_the_reason() {
    let fixture = Fixture::new();
    let refuse = |der: &[u8], says: &str| {
        let error = fixture
            .ca
            .issue_agent(der, agent(), now(), DAY)
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{error}");
        assert!(fixture.ca.csr_key(der).is_err());
    };
    refuse(b"", "cannot be read");
    refuse(&[0x30; 5000], "too large");
    refuse(
        &csr(&key(&PKCS_ECDSA_P384_SHA384)),
        "ECDSA P-256 or Ed25519",
    );

    // Somebody else's public key in one's own request: no proof of possession.
    let (own, other) = (key(&PKCS_ED25519), key(&PKCS_ED25519));
    let mut forged = csr(&own);
    let place = forged
        .windows(32)
        .position(|part| part == own.public_key_raw())
        .unwrap();
    forged[place..place + 32].copy_from_slice(other.public_key_raw());
    refuse(&forged, "signature is not by its own key");

    // No damage panics, and none makes another key of it. (The few bytes that frame
    // the signature are not signed themselves.)
    let whole = csr(&own);
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x04;
        let found = fixture.ca.csr_key(&damaged);
        assert!(
            found.is_err() || found.unwrap() == profile::pin_of(&own),
            "byte {at}"
        );
        assert!(fixture.ca.csr_key(&whole[..at]).is_err(), "length {at}");
    }
}

#[test]
fn a_restart_brings_the_same_authority_back() {
    let fixture = Fixture::new();
    let issued = fixture.issue();
    let again = fixture.load().unwrap();
    assert!(judge(&again, &issued.certificate, Role::Agent, now()).is_ok());
    assert_eq!(again.trust_bundle().version(), 1);
    assert_eq!(again.https_pin(), fixture.ca.https_pin());
    assert!(format!("{again:?}").len() < 200);
}

#[test]
fn a_damaged_or_foreign_file_is_refused_and_left_alone() {
    let fixture = Fixture::new();
    let path = fixture.dir().join(FILE);
    let whole = std::fs::read_to_string(&path).unwrap();
    let foreign = CertificateAuthority::load(&fixture.dir(), deployment(2), source(), now());
    assert!(matches!(foreign, Err(CaError::Deployment { .. })));

    let other = Fixture::new();
    let theirs = std::fs::read_to_string(other.dir().join(FILE)).unwrap();
    let key_of = |text: &str| {
        text.split("\"key\": \"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap()
            .to_owned()
    };
    for text in [
        String::new(),
        "{}".to_owned(),
        whole[..whole.len() / 2].to_owned(),
        whole.replace("loopback-authorities-1", "loopback-authorities-9"),
        whole.replace(&key_of(&whole), &key_of(&theirs)),
        whole.replace(&key_of(&whole), "AAAA"),
    ] {
        std::fs::write(&path, &text).unwrap();
        let error = fixture.load().unwrap_err();
        assert!(matches!(error, CaError::Damaged { .. }), "{error}");
        assert!(!error.to_string().contains(&key_of(&whole)));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
    std::fs::remove_file(&path).unwrap();
    let missing = CertificateAuthority::load(&fixture.dir(), deployment(1), source(), now());
    assert!(matches!(missing, Err(CaError::Damaged { .. })));
}

#[test]
fn a_rotation_keeps_old_and_new_certificates_good_until_it_ends() {
    let fixture = Fixture::new();
    let ca = &fixture.ca;
    let trust = ca.trust_store();
    let states = || -> Vec<AuthorityState> {
        ca.view(|_| 0)
            .authorities
            .iter()
            .map(|authority| authority.state)
            .collect()
    };
    let good = |issued: &Issued| judge(ca, &issued.certificate, Role::Agent, now()).is_ok();
    let old = fixture.issue();

    ca.rotate(RotationStep::Stage, now()).unwrap();
    assert_eq!(states(), [AuthorityState::Next, AuthorityState::Active]);
    assert_eq!(trust.bundle().version(), 2);
    let between = fixture.issue();
    assert_eq!(between.issuer_fingerprint, old.issuer_fingerprint);

    ca.rotate(RotationStep::Promote, now()).unwrap();
    assert_eq!(states(), [AuthorityState::Active, AuthorityState::Previous]);
    assert_eq!(
        trust.bundle().version(),
        2,
        "nobody has to learn anything new"
    );
    let new = fixture.issue();
    assert_ne!(new.issuer_fingerprint, old.issuer_fingerprint);
    assert!(good(&old) && good(&between) && good(&new));
    let counted = ca.view(|issuer| {
        if *issuer == old.issuer_fingerprint {
            7
        } else {
            1
        }
    });
    assert_eq!(
        counted
            .authorities
            .iter()
            .map(|found| found.hosts)
            .collect::<Vec<_>>(),
        [1, 7]
    );
    let keys = || {
        let stored = std::fs::read_to_string(fixture.dir().join(FILE)).unwrap();
        stored.matches("\"key\"").count()
    };
    assert_eq!(keys(), 2);

    ca.rotate(RotationStep::Retire, now()).unwrap();
    assert_eq!(states(), [AuthorityState::Active]);
    assert_eq!(trust.bundle().version(), 3);
    assert!(good(&new));
    assert!(!good(&old) && !good(&between));
    assert_eq!(keys(), 1, "the old key is destroyed");
}

#[test]
fn hosts_that_slept_through_a_rotation_still_know_the_gateway_until_it_ends() {
    let fixture = Fixture::new();
    let ca = &fixture.ca;
    let asleep = ca.trust_bundle();
    let expected = Expected {
        role: Role::Gateway,
        deployment: Some(deployment(1)),
    };
    let known_to = |bundle: &TrustBundle| {
        let (credentials, _) = ca.issue_gateway(now()).unwrap();
        verify_leaf(&[credentials.certificate], bundle, expected, now(), SKEW).is_ok()
    };
    for step in [RotationStep::Stage, RotationStep::Promote] {
        ca.rotate(step, now()).unwrap();
        assert!(known_to(&asleep), "after {step:?}");
        assert!(known_to(&ca.trust_bundle()), "after {step:?}");
    }
    ca.rotate(RotationStep::Retire, now()).unwrap();
    assert!(!known_to(&asleep));
    assert!(known_to(&ca.trust_bundle()));
}

#[test]
fn steps_out_of_turn_change_nothing() {
    use RotateRefused::{NotPromoted, NotStaged, Staged, Unfinished};
    let fixture = Fixture::new();
    let refused = |step| match fixture.ca.rotate(step, now()).unwrap_err() {
        RotateError::Refused(refused) => refused,
        RotateError::Failed(error) => panic!("{error}"),
    };
    let go = |step| fixture.ca.rotate(step, now()).unwrap();
    assert_eq!(refused(RotationStep::Promote), NotStaged);
    assert_eq!(refused(RotationStep::Retire), NotPromoted);
    go(RotationStep::Stage);
    assert_eq!(refused(RotationStep::Stage), Staged);
    assert_eq!(refused(RotationStep::Retire), NotPromoted);
    go(RotationStep::Promote);
    assert_eq!(refused(RotationStep::Stage), Unfinished);
    assert_eq!(refused(RotationStep::Promote), NotStaged);
    assert_eq!(fixture.ca.trust_bundle().version(), 2);
    go(RotationStep::Retire);
    go(RotationStep::Stage);
}

#[test]
fn every_step_of_a_rotation_survives_a_restart() {
    let fixture = Fixture::new();
    for step in [
        RotationStep::Stage,
        RotationStep::Promote,
        RotationStep::Retire,
    ] {
        fixture.ca.rotate(step, now()).unwrap();
        let again = fixture.load().unwrap();
        assert_eq!(again.view(|_| 0), fixture.ca.view(|_| 0));
        let issued = fixture.issue();
        assert!(judge(&again, &issued.certificate, Role::Agent, now()).is_ok());
    }
}

#[test]
fn a_step_that_cannot_be_written_down_is_not_made() {
    let fixture = Fixture::new();
    // A folder where the new file would be prepared.
    std::fs::create_dir(fixture.dir().join(format!(".{FILE}.tmp"))).unwrap();
    let failed = fixture.ca.rotate(RotationStep::Stage, now()).unwrap_err();
    assert!(matches!(failed, RotateError::Failed(_)), "{failed}");
    assert_eq!(fixture.ca.trust_bundle().version(), 1);
    assert_eq!(fixture.ca.view(|_| 0).authorities.len(), 1);
}

#[test]
fn no_certificate_outlives_its_authority() {
    let fixture = Fixture::new();
    let issued = fixture
        .ca
        .issue_agent(&csr(&key(&PKCS_ED25519)), agent(), now(), 36_500 * DAY)
        .unwrap();
    assert_eq!(
        issued.not_after,
        fixture.ca.view(|_| 0).authorities[0].not_after
    );
}

/// A TLS handshake in memory; says what the client thinks of the server.
fn visit(
    server: Arc<rustls::ServerConfig>,
    roots: &TrustBundle,
    name: &str,
) -> Result<CertificateDer<'static>, rustls::Error> {
    let mut store = rustls::RootCertStore::empty();
    store.add_parsable_certificates(roots.authorities().iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // The client judges by the machine's clock, so the fixture must too.
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(client), name)?;
    let mut server = rustls::ServerConnection::new(server)?;
    while client.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(client.peer_certificates().unwrap()[0].clone().into_owned())
}

#[test]
fn https_is_believed_by_its_names_and_never_as_a_gateway() {
    let root = tempfile::tempdir().unwrap();
    let clock = crate::app::wall_clock();
    let dir = root.path().join("ca");
    let ca = CertificateAuthority::load_or_create(&dir, deployment(1), source(), clock).unwrap();
    let config = || ca.https().server_config().unwrap();
    for name in ["gateway.example.com", "localhost", "127.0.0.1", "::1"] {
        let leaf = visit(config(), &ca.trust_bundle(), name).unwrap();
        assert_eq!(SpkiSha256::of(&leaf).unwrap().to_string(), ca.https_pin());
        for role in [Role::Gateway, Role::Agent] {
            assert!(judge(&ca, &leaf, role, clock).is_err());
        }
    }
    assert!(visit(config(), &ca.trust_bundle(), "other.example.com").is_err());
}

#[test]
fn the_https_certificate_is_renewed_in_time_and_its_pin_stays() {
    let fixture = Fixture::new();
    let (pin, end) = (fixture.ca.https_pin(), fixture.ca.https().not_after());
    assert!(
        !fixture
            .ca
            .refresh_https(now().saturating_add(44 * DAY))
            .unwrap()
    );
    assert!(
        fixture
            .ca
            .refresh_https(now().saturating_add(46 * DAY))
            .unwrap()
    );
    assert!(fixture.ca.https().not_after() > end);
    assert_eq!(fixture.ca.https_pin(), pin);

    let later = now().saturating_add(47 * DAY);
    fixture.ca.rotate(RotationStep::Stage, later).unwrap();
    assert!(!fixture.ca.refresh_https(later).unwrap());
    fixture.ca.rotate(RotationStep::Promote, later).unwrap();
    assert!(!fixture.ca.refresh_https(later).unwrap());
    fixture.ca.rotate(RotationStep::Retire, later).unwrap();
    assert!(
        fixture.ca.refresh_https(later).unwrap(),
        "the new authority signs it"
    );
    assert_eq!(fixture.ca.https_pin(), pin);
}

struct Operator {
    root: tempfile::TempDir,
    certificate: PathBuf,
    key: PathBuf,
}

impl Operator {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (certificate, key) = (root.path().join("chain.pem"), root.path().join("key.pem"));
        Self {
            root,
            certificate,
            key,
        }
    }

    /// Puts a new pair in place, as an ACME client does; returns its pin.
    fn put(&self) -> SpkiSha256 {
        let (pem, key) = self_signed();
        files::write_private(&self.certificate, pem.as_bytes()).unwrap();
        files::write_private(&self.key, key.serialize_pem().as_bytes()).unwrap();
        profile::pin_of(&key)
    }

    fn open(&self) -> Result<CertificateAuthority, CaError> {
        let (certificate, key) = (self.certificate.clone(), self.key.clone());
        let source = HttpsSource::Operator { certificate, key };
        CertificateAuthority::load_or_create(
            &self.root.path().join("ca"),
            deployment(1),
            source,
            now(),
        )
    }
}

fn self_signed() -> (String, KeyPair) {
    let key = key(&PKCS_ECDSA_P256_SHA256);
    let params = CertificateParams::new(["gateway.example.com".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key)
}

#[test]
fn the_operators_certificate_is_used_and_followed() {
    let operator = Operator::new();
    let first = operator.put();
    let ca = operator.open().unwrap();
    assert_eq!(ca.https().pin(), first);
    assert!(!ca.refresh_https(now()).unwrap());
    let second = operator.put();
    assert!(ca.refresh_https(now()).unwrap());
    assert_eq!(ca.https().pin(), second);
    ca.rotate(RotationStep::Stage, now()).unwrap();
    ca.rotate(RotationStep::Promote, now()).unwrap();
    assert!(
        !ca.refresh_https(now()).unwrap(),
        "the authority has no part in it"
    );
}

#[test]
fn files_of_the_operator_that_do_not_fit_leave_the_old_ones_in_use() {
    let operator = Operator::new();
    let pin = operator.put();
    let ca = operator.open().unwrap();
    let (_, stranger) = self_signed();
    files::write_private(&operator.key, stranger.serialize_pem().as_bytes()).unwrap();
    let error = ca.refresh_https(now()).unwrap_err();
    assert!(
        model::error_chain(&error)
            .to_string()
            .contains("does not belong to the certificate")
    );
    assert!(!ca.refresh_https(now()).unwrap(), "said once");
    assert_eq!(ca.https().pin(), pin);
    let fixed = operator.put();
    assert!(ca.refresh_https(now()).unwrap());
    assert_eq!(ca.https().pin(), fixed);
}

#[test]
fn a_start_with_bad_files_of_the_operator_says_what_is_wrong() {
    let operator = Operator::new();
    let says = |text: &str| {
        let error = operator.open().map(drop).unwrap_err();
        let error = model::error_chain(&error).to_string();
        assert!(error.contains(text), "{error}");
    };
    says("chain.pem");
    operator.put();
    files::write_private(&operator.certificate, b"nothing").unwrap();
    says("holds no PEM certificate");
    operator.put();
    files::write_private(&operator.key, b"nothing").unwrap();
    says("holds no PEM private key");
    operator.put();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&operator.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    says("open to others");
}
