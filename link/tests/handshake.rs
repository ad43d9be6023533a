//! Handshakes over real sockets: who gets in, who does not, and what each side
//! learns.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Gateway, echo, limits, now, soon};
use link::accept::AdmissionLimits;
use link::dial::{Class, DialError, Link, Path, Reason, Rung, Target, dial_udp};
use link::identity::Role;
use link::testing::{Authority, Leaf, agent_identity, deployment, gateway_identity, self_signed};
use link::tls::{Alpn, Credentials, Peer, Verifier, alpn_of, gateway_of};
use link::transport::{Client, IDLE_TIMEOUT};
use link::verify::{VerifyError, system_clock};
use model::Timestamp;

async fn dial(gateway: &Gateway, client: &Client) -> Result<Link, DialError> {
    soon(dial_udp(&gateway.udp, client, &limits())).await
}

#[tokio::test]
async fn an_agent_and_its_gateway_know_each_other() {
    let mut gateway = Gateway::start();
    let client = gateway.agent();
    let link = dial(&gateway, &client).await.unwrap();
    assert!(matches!(link.path, Path::Udp { .. }));
    assert_eq!(alpn_of(&link.connection), Some(Alpn::Agent));
    let other = gateway_of(&link.connection, client.verifier()).unwrap();
    assert_eq!(other.identity, gateway_identity(1));
    let Ok(Peer::Agent(peer)) = gateway.next_peer().await else {
        panic!("no agent")
    };
    assert_eq!((peer.identity, peer.expired), (agent_identity(1), false));
    echo(&link, 3 << 20).await;
    soon(link.close(0u32.into(), b"done")).await;
}

#[tokio::test]
async fn keys_are_updated_when_the_gateway_has_forgotten_the_handshake() {
    let mut gateway = Gateway::start();
    let link = dial(&gateway, &gateway.agent()).await.unwrap();
    assert!(matches!(gateway.next_peer().await, Ok(Peer::Agent(_))));
    for _ in 0..4 {
        echo(&link, 100_000).await;
        link.connection.force_key_update();
    }
    echo(&link, 10).await;
}

#[tokio::test]
async fn a_host_without_identity_may_only_enrol() {
    let mut gateway = Gateway::start();
    let link = dial(&gateway, &gateway.client(None)).await.unwrap();
    assert_eq!(alpn_of(&link.connection), Some(Alpn::Enrol));
    assert_eq!(gateway.next_peer().await, Ok(Peer::Enrolling));
}

#[tokio::test]
async fn an_agent_outside_of_its_validity_gets_in_marked() {
    let mut gateway = Gateway::start();
    let mut expired = Leaf::of(agent_identity(1), now());
    expired.not_after = now().saturating_sub(Duration::from_secs(600));
    let mut early = Leaf::of(agent_identity(1), now());
    early.not_before = now().saturating_add(Duration::from_secs(3600));
    for leaf in [expired, early] {
        let client = gateway.client(Some(gateway.authority.issue(&leaf)));
        let _link = dial(&gateway, &client).await.unwrap();
        let Ok(Peer::Agent(peer)) = gateway.next_peer().await else {
            panic!("no agent")
        };
        assert!(peer.expired);
    }
}

/// Dials with `credentials` and waits for the gateway's refusal, which in TLS 1.3
/// comes after our own side of the handshake is through.
async fn refusal(gateway: &mut Gateway, credentials: Credentials) -> Reason {
    let client = gateway.client(Some(credentials));
    let reason = match dial(gateway, &client).await {
        Ok(link) => Reason::of(soon(link.connection.closed()).await),
        Err(error) => error.reason,
    };
    assert_eq!(reason.class(), Class::Refused, "{reason:?}");
    assert!(
        gateway.peers.try_recv().is_err(),
        "the gateway let somebody in"
    );
    assert_eq!(
        gateway.handshakes.pending(),
        0,
        "a handshake is left behind"
    );
    reason
}

#[tokio::test]
async fn agents_with_bad_certificates_are_refused() {
    let mut gateway = Gateway::start();
    let good = Leaf::of(agent_identity(1), now());

    for credentials in [
        self_signed(&good),
        Authority::new("theirs").issue(&good),
        Authority::new("ours").issue(&good),
        gateway.authority.intermediate("middle").issue(&good),
        gateway.authority.issue(&Leaf {
            usages: Vec::new(),
            ..good.clone()
        }),
        gateway.authority.issue(&Leaf::of(agent_identity(2), now())),
        gateway.authority.good(gateway_identity(1), now()),
    ] {
        refusal(&mut gateway, credentials).await;
    }
}

/// A bare quinn client, for what [`Client`] refuses to do.
async fn raw_dial(
    gateway: &Gateway,
    alpn: Alpn,
    chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    key: Option<rustls_pki_types::PrivateKeyDer<'static>>,
) -> Result<quinn::Connection, quinn::ConnectionError> {
    let verifier = Verifier::of_gateways(gateway.authority.trust(), None, system_clock());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut tls = match key {
        Some(key) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let address = (gateway.udp.ip().unwrap(), gateway.udp.port()).into();
    soon(
        endpoint
            .connect_with(config, address, "gateway.loopback.internal")
            .unwrap(),
    )
    .await
}

#[tokio::test]
async fn a_chain_is_refused_even_when_it_leads_to_our_authority() {
    let mut gateway = Gateway::start();
    let middle = gateway.authority.intermediate("middle");
    let direct = gateway.authority.good(agent_identity(1), now());
    for (own, rest) in [
        (middle.good(agent_identity(1), now()), middle.certificate()),
        // Good by itself; whoever sends more than that wants something.
        (direct, gateway.authority.certificate()),
    ] {
        let chain = vec![own.certificate, rest];
        let ended = match raw_dial(&gateway, Alpn::Agent, chain, Some(own.key)).await {
            Ok(connection) => soon(connection.closed()).await,
            Err(error) => error,
        };
        assert_eq!(Reason::of(ended).class(), Class::Refused);
        assert!(gateway.peers.try_recv().is_err());
    }
}

#[tokio::test]
async fn protocol_and_certificate_must_fit() {
    let mut gateway = Gateway::start();
    let _agent_without = raw_dial(&gateway, Alpn::Agent, vec![], None).await.unwrap();
    let error = gateway.next_peer().await.unwrap_err();
    assert_eq!(error, link::tls::PeerError::Agent(VerifyError::Missing));

    let own = gateway.authority.good(agent_identity(1), now());
    let _enrolling_with = raw_dial(&gateway, Alpn::Enrol, vec![own.certificate], Some(own.key))
        .await
        .unwrap();
    let error = gateway.next_peer().await.unwrap_err();
    assert_eq!(error, link::tls::PeerError::CertificateInEnrolment);
}

#[tokio::test]
async fn a_gateway_that_is_not_ours_is_named_as_such() {
    let ours = Authority::new("ours");
    let good = Leaf::of(gateway_identity(1), now());
    let past = now().saturating_sub(Duration::from_secs(3600));
    for (credentials, expected) in [
        (self_signed(&good), VerifyError::UnknownIssuer),
        (
            Authority::new("theirs").issue(&good),
            VerifyError::UnknownIssuer,
        ),
        (
            ours.good(agent_identity(1), now()),
            VerifyError::Usage("its extended key usage lacks this direction".to_owned()),
        ),
        (
            ours.good(gateway_identity(2), now()),
            VerifyError::Deployment {
                expected: deployment(1),
                found: deployment(2),
            },
        ),
    ] {
        let gateway =
            Gateway::start_as(Authority::new("x"), credentials, AdmissionLimits::default());
        let verifier = Verifier::of_gateways(ours.trust(), Some(deployment(1)), system_clock());
        let client = Client::new(verifier, None, IDLE_TIMEOUT).unwrap();
        let error = dial(&gateway, &client).await.unwrap_err();
        assert_eq!(
            (error.rung, error.class()),
            (Rung::Quic, Class::NotOurGateway)
        );
        let Reason::Untrusted(refused) = error.reason else {
            panic!("{error:?}")
        };
        assert_eq!(refused, expected);
    }

    let expired = ours.issue(&Leaf {
        not_before: past.saturating_sub(Duration::from_secs(1)),
        not_after: past,
        ..good
    });
    let gateway = Gateway::start_as(Authority::new("x"), expired, AdmissionLimits::default());
    let client = |clock| {
        let verifier = Verifier::of_gateways(ours.trust(), Some(deployment(1)), clock);
        Client::new(verifier, None, IDLE_TIMEOUT).unwrap()
    };
    let error = dial(&gateway, &client(system_clock())).await.unwrap_err();
    assert!(
        matches!(error.reason, Reason::Untrusted(VerifyError::Expired { .. })),
        "{error:?}"
    );
    // The caller's clock decides, not the machine's.
    let earlier: link::verify::Clock = Arc::new(move || past);
    dial(&gateway, &client(earlier)).await.unwrap();
    let stopped: link::verify::Clock = Arc::new(Timestamp::default);
    let error = dial(&gateway, &client(stopped)).await.unwrap_err();
    assert!(
        matches!(
            error.reason,
            Reason::Untrusted(VerifyError::NotYetValid { .. })
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn trust_changes_while_running() {
    let mut gateway = Gateway::start();
    let link = dial(&gateway, &gateway.agent()).await.unwrap();
    assert!(gateway.next_peer().await.is_ok());
    gateway.trust.replace(Authority::new("next").bundle());
    let own = gateway.authority.good(agent_identity(1), now());
    refusal(&mut gateway, own).await;
    // Whoever is connected stays until somebody asks again.
    echo(&link, 10).await;
}

#[tokio::test]
async fn under_load_an_address_must_be_proven_and_good_agents_still_get_in() {
    let admission = AdmissionLimits {
        retry_from: 0,
        ..AdmissionLimits::default()
    };
    let mut gateway = Gateway::start_with(gateway_identity(1), admission);
    let link = dial(&gateway, &gateway.agent()).await.unwrap();
    assert!(gateway.next_peer().await.is_ok());
    echo(&link, 10).await;
}

#[tokio::test]
async fn a_handshake_never_finished_is_forgotten() {
    let admission = AdmissionLimits {
        handshake_timeout: Duration::from_millis(50),
        ..AdmissionLimits::default()
    };
    let gateway = Gateway::start_with(gateway_identity(1), admission);
    // A first packet from somebody who then only listens: taken from a real client
    // whose socket answers nobody.
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = gateway.agent();
    let place = common::target(silent.local_addr().unwrap());
    let short = link::dial::DialLimits {
        quic: Duration::from_millis(300),
        ..limits()
    };
    let error = dial_udp(&place, &client, &short).await.unwrap_err();
    assert_eq!((error.rung, error.class()), (Rung::Udp, Class::Network));
    let mut packet = [0; 2048];
    let length = loop {
        // The empty datagram that tests the way comes first.
        let (length, _) = silent.recv_from(&mut packet).unwrap();
        if length > 0 {
            break length;
        }
    };
    deaf.send_to(
        &packet[..length],
        (gateway.udp.ip().unwrap(), gateway.udp.port()),
    )
    .unwrap();
    soon(async {
        while gateway.handshakes.pending() == 0 {
            tokio::task::yield_now().await;
        }
        while gateway.handshakes.pending() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn packets_that_may_not_leave_are_told_apart_from_lost_ones() {
    let gateway = Gateway::start();
    // The kernel refuses broadcast to whoever did not ask for it.
    let broadcast = Target::new("255.255.255.255", 443).unwrap();
    let error = dial_udp(&broadcast, &gateway.agent(), &limits())
        .await
        .unwrap_err();
    assert!(
        matches!((error.rung, &error.reason), (Rung::Udp, Reason::Blocked(_))),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_name_without_address_fails_at_dns() {
    let gateway = Gateway::start();
    let nowhere = Target::new("gateway.invalid", 443).unwrap();
    let error = dial_udp(&nowhere, &gateway.agent(), &limits())
        .await
        .unwrap_err();
    assert_eq!((error.rung, error.class()), (Rung::Dns, Class::Network));
    assert_eq!(error.to_string(), "reach gateway.invalid:443: dns");
}

#[test]
fn roles_print_as_words() {
    assert_eq!(
        (Role::Agent.to_string(), Role::Gateway.to_string()),
        ("agent".into(), "gateway".into())
    );
}

#[tokio::test]
async fn newcomers_beyond_the_limit_wait_for_their_turn_and_are_not_dropped() {
    let admission = AdmissionLimits {
        retry_from: 1,
        full_from: 2,
        full_from_source: 2,
        ..AdmissionLimits::default()
    };
    let mut gateway = Gateway::start_with(gateway_identity(1), admission);
    let clients: Vec<_> = (0..20).map(|_| gateway.agent()).collect();
    let mut dials = tokio::task::JoinSet::new();
    for client in clients {
        let target = gateway.udp.clone();
        dials.spawn(async move { dial_udp(&target, &client, &limits()).await });
    }
    let links = soon(dials.join_all()).await;
    assert!(links.iter().all(Result::is_ok), "{links:?}");
    for _ in 0..links.len() {
        assert!(gateway.next_peer().await.is_ok());
    }
    assert_eq!(gateway.handshakes.dropped(), 0);
    assert_eq!(gateway.handshakes.pending(), 0);
}
