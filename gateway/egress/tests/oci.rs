//! Packages in a real registry, and a few things that only an unreal one does.

mod support;

use std::fs;
use std::io::Write as _;
use std::sync::Arc;

use egress::SystemResolver;
use egress::oci::{Access, Login, OciError, Package, Pulled, Reference, Registries};
use model::plugin::PluginDigest;
use plugin_host::ports::SecretValue;
use support::registry::Registry;
use support::{Conn, Server};

const SIGNED: Package<'static> = Package {
    component: b"\0asm the component",
    signature: Some(b"the signature\n"),
};

fn registries() -> Registries {
    Registries::new(Arc::new(SystemResolver::default()))
}

fn plain() -> Access {
    Access {
        plain_http: true,
        ..Access::default()
    }
}

fn login(password: &str) -> Access {
    Access {
        login: Some(Login {
            user: "ci".into(),
            password: SecretValue::new(password.as_bytes().to_vec()),
        }),
        ..plain()
    }
}

fn reference(port: u16, rest: &str) -> Reference {
    let text = format!("127.0.0.1:{port}/team/hook{rest}");
    text.parse().expect("a reference")
}

async fn push(registry: &Registry, tag: &str, package: Package<'_>) -> Reference {
    let reference = reference(registry.port, tag);
    let pushed = registries().push(&reference, &plain(), package).await;
    pushed.expect("pushed")
}

async fn pull(reference: &Reference) -> Result<Pulled, OciError> {
    registries().pull(reference, &plain()).await
}

async fn code(reference: &Reference) -> String {
    match pull(reference).await {
        Ok(_) => "pulled".into(),
        Err(error) => error.code().to_owned(),
    }
}

fn hex(digest: PluginDigest) -> String {
    digest.hex()
}

#[tokio::test]
async fn what_was_pushed_is_pulled_and_a_pin_outlives_its_tag() {
    let test = "what_was_pushed_is_pulled_and_a_pin_outlives_its_tag";
    let Some(registry) = Registry::start(test, "", "") else {
        return;
    };
    let first = push(&registry, ":1", SIGNED).await;
    let pulled = pull(&reference(registry.port, ":1")).await.expect("pulled");
    assert_eq!(pulled.component, SIGNED.component);
    assert_eq!(pulled.signature.as_deref(), SIGNED.signature);
    assert_eq!(pulled.digest, PluginDigest::of(SIGNED.component));
    assert_eq!(pulled.pinned, first);
    assert!(first.to_string().contains("/team/hook@sha256:"), "{first}");
    // Again: what is there is not sent again, and the digest is the same.
    assert_eq!(push(&registry, ":1", SIGNED).await, first);

    let unsigned = Package {
        component: b"\0asm another",
        signature: None,
    };
    let second = push(&registry, ":1", unsigned).await;
    assert_ne!(first, second);
    let moved = pull(&reference(registry.port, ":1")).await.expect("pulled");
    assert_eq!(
        (&*moved.component, moved.signature),
        (unsigned.component, None)
    );
    let pinned = pull(&first).await.expect("pulled");
    assert_eq!(pinned.component, SIGNED.component);
    // The digest counts where there is a tag as well.
    let both = format!(":1@{}", first.digest().expect("pinned"));
    let both = pull(&reference(registry.port, &both))
        .await
        .expect("pulled");
    assert_eq!(both.component, SIGNED.component);

    assert_eq!(code(&reference(registry.port, ":2")).await, "oci.not_found");
    let nothing = format!("@sha256:{}", "0".repeat(64));
    assert_eq!(
        code(&reference(registry.port, &nothing)).await,
        "oci.not_found"
    );
    // This machine, and no TLS, are nothing that happens by itself.
    let strict = registries().pull(&first, &Access::default()).await;
    assert_eq!(
        strict.expect_err("on loopback").code(),
        "http.network_not_granted"
    );
}

#[tokio::test]
async fn abuse_37_bytes_that_were_exchanged_on_the_registrys_disk_are_refused() {
    let test = "bytes_that_were_exchanged_on_the_registrys_disk_are_refused";
    let Some(registry) = Registry::start(test, "", "") else {
        return;
    };
    let pinned = push(&registry, ":1", SIGNED).await;
    let tampered = |digest: PluginDigest, bytes: &[u8]| {
        let path = registry.blob(&hex(digest));
        let before = fs::read(&path).expect("the blob");
        fs::write(&path, bytes).expect("tamper");
        (path, before)
    };
    let signature = PluginDigest::of(b"the signature\n");
    for (digest, bytes) in [
        (
            PluginDigest::of(SIGNED.component),
            &b"\0asm the camponent"[..],
        ),
        (signature, b"the signatude\n"),
    ] {
        let (path, before) = tampered(digest, bytes);
        assert_eq!(code(&pinned).await, "oci.digest_mismatch");
        fs::write(path, before).expect("repair");
    }
    // Longer than its manifest says, and shorter.
    let (path, before) = tampered(signature, &[b'x'; 100]);
    assert_eq!(code(&pinned).await, "oci.too_large");
    fs::write(&path, b"short").expect("tamper");
    assert_eq!(code(&pinned).await, "oci.digest_mismatch");
    fs::write(path, before).expect("repair");
    assert_eq!(code(&pinned).await, "pulled");

    // The manifest itself, by tag: its bytes name other layers now, and nobody can tell but who
    // has the digest.
    let manifest = pinned.digest().expect("pinned");
    let (_, before) = tampered(manifest, b"");
    let text = String::from_utf8(before).expect("a manifest");
    tampered(
        manifest,
        text.replace("\"schemaVersion\":2", "\"schemaVersion\": 2")
            .as_bytes(),
    );
    let refused = code(&pinned).await;
    // The registry itself may notice first.
    assert!(
        refused == "oci.digest_mismatch" || refused == "oci.status" || refused == "oci.not_found",
        "{refused}"
    );
}

#[tokio::test]
async fn an_image_of_something_else_is_not_a_package() {
    let test = "an_image_of_something_else_is_not_a_package";
    let Some(registry) = Registry::start(test, "", "") else {
        return;
    };
    let pinned = push(&registry, ":1", SIGNED).await;
    let path = registry.blob(&hex(pinned.digest().expect("pinned")));
    let manifest = fs::read_to_string(path).expect("the manifest");
    // Put as another tool would, over the registry's own interface.
    for (tag, changed) in [
        (
            "image",
            manifest.replace("application/vnd.loopback.plugin.v1+wasm", "application/x"),
        ),
        (
            "bare",
            manifest.replace("application/vnd.loopback.signature.v1", "application/x"),
        ),
        (
            "two",
            manifest.replace("application/vnd.loopback.signature.v1", "application/wasm"),
        ),
    ] {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", registry.port)).expect("it");
        let request = format!(
            "PUT /v2/team/hook/manifests/{tag} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
             Content-Type: application/vnd.oci.image.manifest.v1+json\r\nContent-Length: {}\r\n\r\n{changed}",
            changed.len()
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        let reference = reference(registry.port, &format!(":{tag}"));
        assert_eq!(code(&reference).await, "oci.not_a_package", "{tag}");
    }
}

#[tokio::test]
async fn a_registry_with_accounts_wants_the_right_one() {
    let more = "auth:\n  htpasswd:\n    realm: r\n    path: ROOT/auth\n";
    let test = "a_registry_with_accounts_wants_the_right_one";
    // The password is `pull-s3cr3t`.
    let accounts = "ci:$2b$05$a8sy4CQ7gPjZGUXEJMR0rOkzzmyNoOZgzmJeodG.DSWTbtkZdgKMS\n";
    let Some(registry) = Registry::start(test, more, accounts) else {
        return;
    };
    let reference = reference(registry.port, ":1");
    for (access, expected) in [
        (plain(), "oci.unauthorized"),
        (login("wrong"), "oci.unauthorized"),
        (login("pull-s3cr3t"), "pushed"),
    ] {
        let pushed = registries().push(&reference, &access, SIGNED).await;
        let found = pushed.map_or_else(|error| error.code().to_owned(), |_| "pushed".into());
        assert_eq!(found, expected);
    }
    let pulled = registries().pull(&reference, &login("pull-s3cr3t")).await;
    assert_eq!(pulled.expect("pulled").component, SIGNED.component);
    assert_eq!(code(&reference).await, "oci.unauthorized");
}

/// A token as the registry's own documents describe it (JWT, ES256, the certificate within).
struct Issuer {
    certificate: rcgen::Certificate,
    key: ring::signature::EcdsaKeyPair,
}

impl Issuer {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let key = ring::signature::EcdsaKeyPair::from_pkcs8(
            &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            &key.serialize_der(),
            &ring::rand::SystemRandom::new(),
        );
        Self {
            certificate,
            key: key.expect("a key"),
        }
    }

    fn token(&self, repository: &str, actions: &[&str]) -> String {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = since.expect("after 1970").as_secs();
        let encode = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
        let certificate = data_encoding::BASE64.encode(self.certificate.der());
        let header = serde_json::json!({ "typ": "JWT", "alg": "ES256", "x5c": [certificate] });
        let claims = serde_json::json!({
            "iss": "issuer", "sub": "ci", "aud": "the registry", "jti": "1",
            "iat": now, "nbf": now - 10, "exp": now + 300,
            "access": [{ "type": "repository", "name": repository, "actions": actions }],
        });
        let signed = [header, claims]
            .map(|part| encode(part.to_string().as_bytes()))
            .join(".");
        let random = ring::rand::SystemRandom::new();
        let signature = self.key.sign(&random, signed.as_bytes()).expect("signed");
        format!("{signed}.{}", encode(signature.as_ref()))
    }
}

#[tokio::test]
async fn a_registry_with_a_token_service_gets_its_tokens() {
    let issuer = Issuer::new();
    let authority = issuer.certificate.pem();
    let tokens = Server::plain(move |request, conn| {
        // `ci:pull-s3cr3t` may all that it asks for, everybody may pull.
        let known = request.contains("authorization: Basic Y2k6cHVsbC1zM2NyM3Q=\r\n");
        let wants_push = request.contains("scope=repository:team/hook:pull,push");
        let actions = if known && wants_push {
            &["pull", "push"][..]
        } else {
            &["pull"]
        };
        let token = issuer.token("team/hook", actions);
        answer(
            conn,
            "200 OK",
            "",
            format!(r#"{{"access_token":"{token}"}}"#).as_bytes(),
        );
    });
    let more = format!(
        "auth:\n  token:\n    realm: {}\n    service: the registry\n    issuer: issuer\n    rootcertbundle: ROOT/auth\n",
        tokens.url("/token")
    );
    let test = "a_registry_with_a_token_service_gets_its_tokens";
    let Some(registry) = Registry::start(test, &more, &authority) else {
        return;
    };
    let reference = reference(registry.port, ":1");
    let refused = registries().push(&reference, &plain(), SIGNED).await;
    assert_eq!(
        refused.expect_err("may only pull").code(),
        "oci.unauthorized"
    );
    let pushed = registries()
        .push(&reference, &login("pull-s3cr3t"), SIGNED)
        .await;
    let pulled = pull(&pushed.expect("pushed"))
        .await
        .expect("everybody pulls");
    assert_eq!(pulled.component, SIGNED.component);
}

fn answer(conn: &mut dyn Conn, status: &str, headers: &str, body: &[u8]) {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n");
    drop(conn.write_all(head.as_bytes()));
    drop(conn.write_all(body));
}

fn manifest(component: &[u8]) -> String {
    let empty = PluginDigest::of(b"{}");
    let (digest, size) = (PluginDigest::of(component), component.len());
    format!(
        r#"{{"schemaVersion":2,"artifactType":"application/vnd.loopback.plugin.v1+wasm",
            "config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{empty}","size":2}},
            "layers":[{{"mediaType":"application/wasm","digest":"{digest}","size":{size}}}]}}"#
    )
}

/// Large registries keep blobs elsewhere and hand out tokens. What they are shown there is
/// compared, word by word.
#[tokio::test]
async fn a_token_is_fetched_for_what_we_want_and_shown_to_the_registry_alone() {
    let store = Server::plain(|_, conn| answer(conn, "200 OK", "", b"\0asm far"));
    let elsewhere = store.url("/blob?sig=x");
    let tokens = Server::plain(|_, conn| answer(conn, "200 OK", "", br#"{"token":"t0ken"}"#));
    let realm = tokens.url("/token");
    let registry = Server::plain(move |request, conn| {
        if !request.contains("authorization: Bearer t0ken\r\n") {
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"{realm}\",service=\"a reg\",scope=\"registry:catalog:*\"\r\n"
            );
            return answer(conn, "401 Unauthorized", &challenge, b"");
        }
        if request.starts_with("GET /v2/team/hook/manifests/1 ") {
            return answer(conn, "200 OK", "", manifest(b"\0asm far").as_bytes());
        }
        answer(
            conn,
            "307 Temporary Redirect",
            &format!("Location: {elsewhere}\r\n"),
            b"",
        );
    });
    let reference = reference(registry.port(), ":1");
    let access = login("pull-s3cr3t");
    let pulled = registries()
        .pull(&reference, &access)
        .await
        .expect("pulled");
    assert_eq!(pulled.component, b"\0asm far");
    let asked = tokens.requests();
    assert_eq!(asked.len(), 1, "one token is enough");
    assert!(
        asked[0].starts_with("GET /token?scope=repository:team/hook:pull&service=a%20reg HTTP/1.1"),
        "{asked:?}"
    );
    assert!(asked[0].contains("authorization: Basic "));
    assert!(!store.requests()[0].to_lowercase().contains("authorization"));
}

#[tokio::test]
async fn a_registry_that_leads_in_circles_or_lies_about_sizes_is_left() {
    let circle = Server::plain(|request, conn| {
        if request.contains("/manifests/") {
            return answer(conn, "200 OK", "", manifest(b"x").as_bytes());
        }
        answer(
            conn,
            "302 Found",
            "Location: /v2/team/hook/blobs/again\r\n",
            b"",
        );
    });
    assert_eq!(code(&reference(circle.port(), ":1")).await, "oci.status");
    assert!(circle.connections() < 8);

    let large = Server::plain(|_, conn| {
        let text = manifest(b"x").replace("\"size\":1}", "\"size\":99999999999}");
        answer(conn, "200 OK", "", text.as_bytes());
    });
    assert_eq!(code(&reference(large.port(), ":1")).await, "oci.too_large");
    let endless = Server::plain(|_, conn| {
        drop(conn.write_all(b"HTTP/1.1 200 OK\r\n\r\n"));
        while conn.write_all(&[b' '; 4096]).is_ok() {}
    });
    assert_eq!(
        code(&reference(endless.port(), ":1")).await,
        "oci.too_large"
    );
    let odd = Server::plain(|_, conn| {
        answer(
            conn,
            "401 Unauthorized",
            "WWW-Authenticate: Negotiate\r\n",
            b"",
        );
    });
    assert_eq!(code(&reference(odd.port(), ":1")).await, "oci.malformed");
}
