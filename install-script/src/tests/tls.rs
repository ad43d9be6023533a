//! Pins and authorities, with real TLS, curl and wget.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::host::Host;
use super::serve::Server;
use super::{PIN, has};

/// A gateway's certificate under an authority of its own.
struct Identity {
    ca_pem: String,
    pin: String,
    config: Arc<ServerConfig>,
}

impl Identity {
    fn new() -> Self {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        // A name of its own: a leaf with its issuer's name would count as self-signed.
        ca.distinguished_name
            .push(DnType::CommonName, "test authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem().replace("\r\n", "\n");
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, &key.subject_public_key_info());
        let pin = format!("sha256//{}", data_encoding::BASE64.encode(digest.as_ref()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        Self {
            ca_pem,
            pin,
            config: Arc::new(config),
        }
    }

    fn host(&self) -> Host {
        Host::with(Server::start(Some(Arc::clone(&self.config))), &["sh"])
    }
}

fn without_curl(host: &mut Host) {
    host.hide(&["curl"]);
}

fn script(host: &Host, ca_pem: &str, pin: Option<&str>) -> String {
    host.publish_with("1.2.3", |params| {
        // Parameters borrow for longer than this closure; a test may leak.
        params.ca_pem = Box::leak(ca_pem.to_owned().into_boxed_str());
        params.https_pin = pin.map(|pin| &*Box::leak(pin.to_owned().into_boxed_str()));
    })
}

#[test]
fn the_pinned_key_or_the_authority_lets_in_and_another_does_not() {
    let (ours, other) = (Identity::new(), Identity::new());
    for downloader in ["curl", "wget"] {
        if !has(downloader) {
            continue;
        }
        let mut host = ours.host();
        if downloader == "wget" {
            without_curl(&mut host);
        }
        // The pin alone decides, whoever issued the certificate.
        let good = [
            (&other.ca_pem, Some(ours.pin.as_str())),
            (&ours.ca_pem, None),
        ];
        for (ca, pin) in good {
            host.pipe(&script(&host, ca, pin), &["--dry-run"])
                .expect(0, &format!("download with {downloader}"))
                .expect(0, "answers and is the expected one");
        }
        let bad = [
            (&ours.ca_pem, Some(PIN)),
            (&ours.ca_pem, Some(other.pin.as_str())),
            (&other.ca_pem, None),
        ];
        for (ca, pin) in bad {
            host.server.asked();
            host.pipe(&script(&host, ca, pin), &["--dry-run"])
                .expect(1, "fail  https");
            assert_eq!(
                host.server.asked(),
                [""; 0],
                "{downloader} sent a request to a stranger"
            );
        }
        host.pipe(&script(&host, &ours.ca_pem, Some(&ours.pin)), &[])
            .expect(0, "done");
        let toml = host.read("etc/loopback-agent/agent.toml");
        assert!(
            toml.contains(&format!("https_pin = \"{}\"\n", ours.pin)),
            "{toml}"
        );
    }
}

#[test]
fn an_odd_curlrc_or_wgetrc_changes_nothing() {
    let ours = Identity::new();
    for downloader in ["curl", "wget"] {
        let mut host = ours.host();
        if downloader == "wget" {
            without_curl(&mut host);
        }
        let home = host.dir.path().join("home");
        std::fs::write(
            home.join(".curlrc"),
            "output = \"/nonexistent/x\"\nproxy = \"http://127.0.0.1:1\"\n",
        )
        .unwrap();
        std::fs::write(
            home.join(".wgetrc"),
            "check_certificate = off\nhttps_proxy = http://127.0.0.1:1\n",
        )
        .unwrap();
        host.pipe(&script(&host, &ours.ca_pem, None), &[])
            .expect(0, "done");
    }
}
