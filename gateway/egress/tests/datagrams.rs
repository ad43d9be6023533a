//! Channels with one peer.

mod support;

use std::net::UdpSocket;
use std::time::Duration;

use egress::{Outcome, code};
use plugin_host::ports::{Egress as _, ErrorKind};
use support::Caller;

fn peer() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let limit = Some(Duration::from_secs(5));
    socket.set_read_timeout(limit).expect("a limit");
    socket
}

fn caller(networks: &str, port: u16) -> Caller {
    Caller::new(&format!(
        r#"{{"datagrams": [{{"need": "d", "networks": [{networks}], "ports": [{port}]}}]}}"#
    ))
}

#[tokio::test]
async fn a_channel_hears_its_peer_and_nobody_else() {
    let (device, stranger) = (peer(), peer());
    let address = device.local_addr().expect("bound");
    let caller = caller(r#""127.0.0.0/8""#, address.port());
    let endpoint = format!("localhost:{}", address.port());
    let opened = caller.client.datagrams(&caller.call, &endpoint, None).await;
    let mut channel = opened.expect("granted");
    assert_eq!(channel.peer(), address);
    channel.send(b"ping").await.expect("sent");
    let mut space = [0; 16];
    let (length, from) = device.recv_from(&mut space).expect("a datagram");
    assert_eq!(&space[..length], b"ping");

    stranger.send_to(b"lie", from).expect("sent");
    let limit = Duration::from_millis(200);
    let error = channel.recv(limit).await.expect_err("not from the peer");
    assert_eq!(
        (error.kind, &*error.code),
        (ErrorKind::Timeout, code::DATAGRAM_TIMEOUT)
    );
    device.send_to(b"pong", from).expect("sent");
    let answer = channel.recv(Duration::from_secs(5)).await;
    assert_eq!(answer.expect("an answer"), b"pong");

    let long = channel.send(&[0; 1_473]).await;
    assert_eq!(long.expect_err("too long").code, code::DATAGRAM_TOO_LONG);
    let record = caller.audit.records().pop().expect("a record");
    assert_eq!((&*record.method, record.outcome), ("UDP", Outcome::Done));
    assert_eq!(record.address, Some(address));
}

#[tokio::test]
async fn what_no_rule_covers_is_not_opened() {
    for (networks, endpoint, expected) in [
        (r#""10.0.0.0/8""#, "127.0.0.1:623", code::PEER_NOT_GRANTED),
        (r#""0.0.0.0/0""#, "127.0.0.1:623", code::PEER_NOT_GRANTED),
        (
            r#""0.0.0.0/0""#,
            "169.254.169.254:623",
            code::PEER_NOT_GRANTED,
        ),
        (r#""0.0.0.0/0""#, "0x7f.1:623", code::PEER_NOT_GRANTED),
        (
            r#""::/0""#,
            "[::ffff:127.0.0.1]:623",
            code::PEER_NOT_GRANTED,
        ),
        ("", "8.8.8.8:623", code::PEER_NOT_GRANTED),
        (r#""127.0.0.0/8""#, "127.0.0.1:624", code::PEER_NOT_GRANTED),
        (r#""127.0.0.0/8""#, "127.0.0.1", code::ENDPOINT_INVALID),
        (
            r#""127.0.0.0/8""#,
            "u@127.0.0.1:623",
            code::ENDPOINT_INVALID,
        ),
    ] {
        let caller = caller(networks, 623);
        let opened = caller.client.datagrams(&caller.call, endpoint, None).await;
        let error = opened.err().expect(endpoint);
        assert_eq!(error.code, expected, "{networks} {endpoint}");
        assert_eq!(caller.audit.records().len(), 1);
    }
    let caller = caller(r#""127.0.0.0/8""#, 623);
    let routed = caller
        .client
        .datagrams(&caller.call, "127.0.0.1:623", Some("near"));
    let error = routed.await.err().expect("no routes");
    assert_eq!(error.code, code::ROUTE_NOT_GRANTED);
}
