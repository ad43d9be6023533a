//! QUIC inside a WebSocket over real sockets: directly, through proxies, and in the
//! company of everything else that answers on port 443.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use common::{ConnectProxy, Gateway, answering, echo, limits, soon};
use link::carrier::is_synthetic;
use link::dial::{Class, DialError, Link, Path, Proxy, Reason, Rung, Target, dial_websocket};
use link::testing::{Authority, agent_identity};
use link::tls::Peer;

async fn dial(gateway: &Gateway, proxy: Option<&Proxy>) -> Result<Link, DialError> {
    dial_at(&gateway.https, gateway, proxy).await
}

/// As an agent of `gateway`, dials whoever is at `place`.
async fn dial_at(
    place: &Target,
    gateway: &Gateway,
    proxy: Option<&Proxy>,
) -> Result<Link, DialError> {
    soon(dial_websocket(place, &gateway.agent(), proxy, &limits())).await
}

#[tokio::test]
async fn quic_works_inside_a_websocket_and_proves_the_same() {
    let mut gateway = Gateway::start();
    let link = dial(&gateway, None).await.unwrap();
    let Path::WebSocket {
        proxy: None, outer, ..
    } = &link.path
    else {
        panic!("{:?}", link.path)
    };
    // The outer certificate is a stranger's, and only reported.
    assert!(outer.verdict.is_err() && outer.pin.is_some());
    let Ok(Peer::Agent(peer)) = gateway.next_peer().await else {
        panic!("no agent")
    };
    assert_eq!(peer.identity, agent_identity(1));
    assert!(is_synthetic(link.connection.remote_address()));
    assert_eq!(gateway.hub.attached(), 1);
    echo(&link, 3 << 20).await;

    soon(link.close(0u32.into(), b"done")).await;
    soon(async {
        while gateway.hub.attached() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_connect_proxy_carries_it_too() {
    let gateway = Gateway::start();
    let server = ConnectProxy::start(true).await;
    let url = |user: &str| Proxy::parse(&format!("http://{user}{}", server.address)).unwrap();

    let link = dial(&gateway, Some(&url("me:pw@"))).await.unwrap();
    let Path::WebSocket { proxy, .. } = &link.path else {
        panic!("{:?}", link.path)
    };
    assert_eq!(proxy.as_deref(), Some(&*server.address.to_string()));
    echo(&link, 300_000).await;

    let error = dial(&gateway, Some(&url(""))).await.unwrap_err();
    assert!(
        matches!(error.reason, Reason::ProxyAuthMissing),
        "{error:?}"
    );
    let error = dial(&gateway, Some(&url("me:wrong@"))).await.unwrap_err();
    assert!(
        matches!(error.reason, Reason::ProxyAuthRefused),
        "{error:?}"
    );
    assert_eq!((error.rung, error.class()), (Rung::Proxy, Class::Settings));
}

#[tokio::test]
async fn two_agents_share_a_hub() {
    let gateway = Gateway::start();
    let (one, two) = (
        dial(&gateway, None).await.unwrap(),
        dial(&gateway, None).await.unwrap(),
    );
    tokio::join!(echo(&one, 500_000), echo(&two, 500_000));
}

#[tokio::test]
async fn a_cut_websocket_ends_the_connection_at_once() {
    let gateway = Gateway::start();
    let mut link = dial(&gateway, None).await.unwrap();
    echo(&link, 10).await;
    gateway.cut.notify_waiters();
    soon(link.connection.closed()).await;
    let end = soon(link.carrier_ended()).await.to_string();
    assert!(end.contains("websocket"), "{end}");
}

#[tokio::test]
async fn the_inner_handshake_judges_whoever_stands_behind_the_websocket() {
    let gateway = Gateway::start();
    let stranger = Gateway::start_as(
        Authority::new("theirs"),
        Authority::new("theirs").good(link::testing::gateway_identity(1), common::now()),
        link::accept::AdmissionLimits::default(),
    );
    let error = dial_at(&stranger.https, &gateway, None).await.unwrap_err();
    assert_eq!(
        (error.rung, error.class()),
        (Rung::Quic, Class::NotOurGateway)
    );
}

#[tokio::test]
async fn whoever_else_answers_is_described() {
    let gateway = Gateway::start();
    let portal = "HTTP/1.1 302 Found\r\nLocation: http://portal.example/login\r\n\
                  Content-Type: text/html\r\nContent-Length: 0\r\n\r\n";
    let broken = "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\
                  Content-Length: 6\r\n\r\n<html>";
    for (answer, tls, rung, text) in [
        (
            portal,
            true,
            Rung::WebSocket,
            "302 text/html, to http://portal.example/login",
        ),
        (broken, true, Rung::WebSocket, "502 text/html"),
        (portal, false, Rung::Tls, "tls handshake failed"),
        ("", false, Rung::Tls, "tls handshake failed"),
        ("", true, Rung::WebSocket, "websocket handshake failed"),
    ] {
        let (place, _tasks) = answering(answer, tls).await;
        let error = dial_at(&place, &gateway, None).await.unwrap_err();
        assert_eq!(
            (error.rung, error.class()),
            (rung, Class::Network),
            "{error:?}"
        );
        assert!(error.reason.to_string().contains(text), "{}", error.reason);
    }
}

#[tokio::test]
async fn a_proxy_that_is_none_or_refuses_is_described() {
    let gateway = Gateway::start();
    for (answer, text) in [
        (
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
            "503 Service Unavailable",
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
    ] {
        let (place, _tasks) = answering(answer, false).await;
        let proxy = Proxy::parse(&place.to_string()).unwrap();
        let error = dial(&gateway, Some(&proxy)).await.unwrap_err();
        assert_eq!((error.rung, &error.peer), (Rung::Proxy, &place.to_string()));
        assert!(error.reason.to_string().contains(text), "{}", error.reason);
    }
}

#[tokio::test]
async fn a_closed_port_fails_at_tcp() {
    let gateway = Gateway::start();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Target::new("127.0.0.1", free.local_addr().unwrap().port()).unwrap();
    drop(free);
    let error = dial_websocket(&place, &gateway.agent(), None, &limits())
        .await
        .unwrap_err();
    assert_eq!((error.rung, error.class()), (Rung::Tcp, Class::Network));
}
