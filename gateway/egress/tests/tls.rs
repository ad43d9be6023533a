//! Servers that prove themselves, and servers that do not.

mod support;

use std::sync::Arc;

use egress::code;
use plugin_host::ports::HttpRequest;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::Digest as _;
use support::{Caller, Server, get};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Identity {
            certificate: certificate.der().clone(),
            key,
        }
    }
}

struct Identity {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Identity {
    fn pin(&self) -> String {
        use rcgen::PublicKeyData as _;
        let digest = sha2::Sha256::digest(self.key.subject_public_key_info());
        data_encoding::HEXLOWER.encode(&digest)
    }

    fn config(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ServerConfig {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .expect("a configuration")
    }

    fn serve(&self) -> Server {
        Server::tls(self.config(rustls::ALL_VERSIONS))
    }
}

/// A request to `localhost` under a grant that has this profile, or none.
async fn ask(server: &Server, profile: Option<&str>) -> Result<u16, (String, bool)> {
    let port = server.port();
    let (profiles, listed) = match profile {
        Some(profile) => (
            format!(r#""tls_profiles": {{"it": {profile}}},"#),
            r#", "tls_profiles": ["it"]"#,
        ),
        None => (String::new(), ""),
    };
    let caller = Caller::new(&format!(
        r#"{{{profiles} "http": [{{"need": "it", "hosts": ["localhost"], "ports": [{port}],
            "networks": ["127.0.0.0/8"]{listed}}}]}}"#
    ));
    let request = HttpRequest {
        tls_profile: profile.map(|_| "it".to_owned()),
        ..get(format!("https://localhost:{port}/"))
    };
    match caller.send(request).await {
        Ok(response) => Ok(response.status),
        Err(error) => Err((error.code, error.outcome_unknown)),
    }
}

fn untrusted() -> Result<u16, (String, bool)> {
    Err((code::TLS_UNTRUSTED.to_owned(), false))
}

fn authorities(pem: &str) -> String {
    serde_json::json!({ "authorities": pem }).to_string()
}

fn keys(pins: &[&str]) -> String {
    serde_json::json!({ "keys": pins }).to_string()
}

#[tokio::test]
async fn an_authority_of_the_profile_vouches_or_nobody_does() {
    let (mine, other) = (Authority::new(), Authority::new());
    let server = mine.issue("localhost", |_| {}).serve();
    let profile = authorities(&mine.pem());
    assert_eq!(ask(&server, Some(&profile)).await, Ok(200));
    let both = authorities(&(other.pem() + &mine.pem()));
    assert_eq!(ask(&server, Some(&both)).await, Ok(200));
    assert_eq!(server.requests().len(), 2);

    assert_eq!(
        ask(&server, Some(&authorities(&other.pem()))).await,
        untrusted()
    );
    let name = mine.issue("other.example", |_| {}).serve();
    assert_eq!(ask(&name, Some(&profile)).await, untrusted());
    let old = mine.issue("localhost", |params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    let old = old.serve();
    assert_eq!(ask(&old, Some(&profile)).await, untrusted());
    // What was not proved gets nothing to read.
    assert_eq!(
        (
            server.requests().len(),
            name.requests().len(),
            old.requests().len()
        ),
        (2, 0, 0)
    );
}

#[tokio::test]
async fn the_system_does_not_know_an_authority_of_ours() {
    let server = Authority::new().issue("localhost", |_| {}).serve();
    let result = ask(&server, None).await;
    // A machine without authorities has nothing to believe with.
    let none = Err((code::TLS_PROFILE_INVALID.to_owned(), false));
    assert!(result == untrusted() || result == none, "{result:?}");
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn a_pinned_key_is_believed_whatever_its_certificate_says() {
    let device = Authority::new().issue("bmc-of-the-factory", |params| {
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    });
    let server = device.serve();
    let other = "00".repeat(32);
    assert_eq!(
        ask(&server, Some(&keys(&[&other, &device.pin()]))).await,
        Ok(200)
    );
    assert_eq!(ask(&server, Some(&keys(&[&other]))).await, untrusted());
    assert_eq!(ask(&server, Some(&keys(&[]))).await, untrusted());
    assert_eq!(server.requests().len(), 1);
}

/// The certificate is public: who shows it without its key must not pass for its owner.
#[tokio::test]
async fn a_copied_certificate_does_not_satisfy_a_pin() {
    let authority = Authority::new();
    let (device, thief) = (authority.issue("a", |_| {}), authority.issue("b", |_| {}));
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(thief.key.serialize_der()));
    let provider = rustls::crypto::ring::default_provider();
    let signer = provider.key_provider.load_private_key(key).expect("a key");
    #[derive(Debug)]
    struct Always(Arc<rustls::sign::CertifiedKey>);
    impl rustls::server::ResolvesServerCert for Always {
        fn resolve(
            &self,
            _: rustls::server::ClientHello<'_>,
        ) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }
    let shown = rustls::sign::CertifiedKey::new(vec![device.certificate.clone()], signer);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = ServerConfig::builder_with_provider(Arc::new(provider.clone()))
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Always(Arc::new(shown.clone()))));
        let server = Server::tls(config);
        let result = ask(&server, Some(&keys(&[&device.pin()]))).await;
        assert_eq!(result, untrusted());
        assert_eq!(server.requests().len(), 0);
    }
}

#[tokio::test]
async fn a_grant_that_says_insecure_believes_anybody_and_an_old_device_is_spoken_with() {
    let identity = Authority::new().issue("x", |_| {});
    assert_eq!(ask(&identity.serve(), Some(r#""insecure""#)).await, Ok(200));
    let old = Server::tls(identity.config(&[&rustls::version::TLS12]));
    assert_eq!(ask(&old, Some(r#""insecure""#)).await, Ok(200));
    assert_eq!(ask(&old, Some(&keys(&[&identity.pin()]))).await, Ok(200));
}

#[tokio::test]
async fn who_speaks_no_tls_is_unreachable_and_broken_profiles_are_named() {
    let plain = Server::answering("HTTP/1.1 200 OK\r\n\r\n");
    let failed = |code: &str| Err((code.to_owned(), false));
    let chatty = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = chatty.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in chatty.incoming().flatten() {
            drop(std::io::Write::write_all(
                &mut &stream,
                b"220 mail.example ESMTP\r\n",
            ));
        }
    });
    let caller = Caller::new(&format!(
        r#"{{"tls_profiles": {{"it": "insecure"}}, "http": [{{"need": "it", "hosts": ["localhost"],
            "ports": [{port}], "networks": ["127.0.0.0/8"], "tls_profiles": ["it"]}}]}}"#
    ));
    let request = HttpRequest {
        tls_profile: Some("it".to_owned()),
        ..get(format!("https://localhost:{port}/"))
    };
    assert_eq!(caller.code(request).await, code::TLS_FAILED);
    for broken in [authorities("no PEM"), authorities(""), keys(&["AA"])] {
        assert_eq!(
            ask(&plain, Some(&broken)).await,
            failed(code::TLS_PROFILE_INVALID)
        );
    }
}
