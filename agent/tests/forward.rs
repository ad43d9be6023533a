//! Ways through a host: the agent as a process, real QUIC, real servers, and a gateway that says
//! whatever a test wants, the truth or not.

#![allow(dead_code, reason = "the helpers serve more than one test")]
#![allow(clippy::unwrap_used, reason = "a panic here is the report")]
#![expect(
    clippy::disallowed_methods,
    reason = "what a test spawns ends with its runtime"
)]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

mod common;

use std::process::Command;

use common::{Gateway, Host, LIMIT};
use link::frame::{Deadlines, FrameReader, MAX_FRAME, write_message};
use protocol::v1::{
    ForwardRefusal, ForwardReply, ForwardRequest, ForwardRule, ForwardTarget, ForwardWake, Opening,
    forward_reply, forward_request, opening,
};
use quinn::{RecvStream, SendStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;

type Answer = Result<(String, SendStream, RecvStream), (ForwardRefusal, String)>;

/// Asks the host that is linked to `gateway`.
async fn ask(gateway: &Gateway, request: ForwardRequest) -> Answer {
    let (connection, host) = gateway.manners(|manners| manners.link.clone()).unwrap();
    let request = ForwardRequest {
        host: host.to_string(),
        ..request
    };
    let (mut send, receive) = connection.open_bi().await.unwrap();
    let opening = Opening {
        kind: Some(opening::Kind::Forward(request)),
    };
    write_message(&mut send, &opening, MAX_FRAME, LIMIT)
        .await
        .unwrap();
    let deadlines = Deadlines {
        idle: LIMIT,
        frame: LIMIT,
    };
    let mut reader = FrameReader::new(receive, MAX_FRAME, deadlines);
    let reply: ForwardReply = reader.next().await.unwrap().expect("a reply");
    match reply.body.unwrap() {
        forward_reply::Body::Opened(opened) => Ok((opened.address, send, reader.into_inner())),
        forward_reply::Body::Refused(refused) => Err((refused.reason(), refused.message)),
    }
}

fn request(kind: forward_request::Kind, network: &str, port: u16) -> ForwardRequest {
    ForwardRequest {
        host: String::new(),
        generation: 1,
        kind: Some(kind),
        rules: vec![ForwardRule {
            networks: vec![network.to_owned()],
            ports: vec![port.into()],
        }],
        deadline_ms: 10_000,
        plugin: "bmc".to_owned(),
    }
}

fn target(host: &str, port: u16) -> ForwardTarget {
    ForwardTarget {
        host: host.to_owned(),
        port: port.into(),
    }
}

fn tcp(host: &str, network: &str, port: u16) -> ForwardRequest {
    request(
        forward_request::Kind::Tcp(target(host, port)),
        network,
        port,
    )
}

async fn host_with(gateway: &Gateway, forward: &str) -> Host {
    let mut host = Host::new(gateway);
    host.write("forward.toml", forward);
    host.start();
    host.status_when("linked", |status| status.is_linked())
        .await;
    host
}

fn allowing(network: &str, ports: &[u16]) -> String {
    format!("[forward]\nnetworks = ['{network}']\nports = {ports:?}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_carried_both_ways_and_each_way_ends_by_itself() {
    let gateway = Gateway::start();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let _host = host_with(&gateway, &allowing("127.0.0.0/8", &[address.port()])).await;
    let asked = ask(&gateway, tcp("127.0.0.1", "127.0.0.1/32", address.port()));
    let (said, mut send, mut receive) = asked.await.unwrap();
    assert_eq!(said, address.to_string());
    let (mut stream, _) = server.accept().await.unwrap();
    let large = vec![7; 3 << 20];
    let sent = async {
        send.write_all(&large).await.unwrap();
        send.finish().unwrap();
    };
    let served = async {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        // The other way is open still.
        stream.write_all(b"and back").await.unwrap();
        stream.shutdown().await.unwrap();
        heard
    };
    let ((), heard) = timeout(LIMIT, async { tokio::join!(sent, served) })
        .await
        .unwrap();
    assert!(heard == large, "{} bytes", heard.len());
    assert_eq!(receive.read_to_end(100).await.unwrap(), b"and back");

    // A gateway that gives up is felt at the other end.
    let asked = ask(&gateway, tcp("127.0.0.1", "127.0.0.1/32", address.port()));
    let (_, mut send, _receive) = asked.await.unwrap();
    let (mut stream, _) = server.accept().await.unwrap();
    send.reset(0u32.into()).unwrap();
    let ended = timeout(LIMIT, stream.read(&mut [0; 8])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");

    // A connection that more passes through than a request has ends.
    let asked = ask(&gateway, tcp("127.0.0.1", "127.0.0.1/32", address.port()));
    let (_, mut send, mut receive) = asked.await.unwrap();
    let (mut stream, _) = server.accept().await.unwrap();
    let swallowed =
        tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
    let flood = async { while send.write_all(&large).await.is_ok() {} };
    timeout(LIMIT, flood).await.unwrap();
    let swallowed = timeout(LIMIT, swallowed).await.unwrap().unwrap();
    assert!(swallowed.is_err() || swallowed.unwrap() <= 8 << 20);
    assert!(receive.read(&mut [0; 8]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_are_carried_and_strangers_are_not_heard() {
    let gateway = Gateway::start();
    let device = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = device.local_addr().unwrap().port();
    let _host = host_with(&gateway, &allowing("127.0.0.0/8", &[port])).await;
    let kind = forward_request::Kind::Udp(target("localhost", port));
    let asked = ask(&gateway, request(kind, "127.0.0.0/8", port));
    let (said, mut send, mut receive) = asked.await.unwrap();
    assert_eq!(said, format!("127.0.0.1:{port}"));
    send.write_all(b"\0\x04ping\0\x01!").await.unwrap();
    let mut buffer = [0; 100];
    let (length, from) = timeout(LIMIT, device.recv_from(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&buffer[..length], b"ping");
    let (length, _) = device.recv_from(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..length], b"!");
    stranger.send_to(b"i am the device", from).await.unwrap();
    device.send_to(b"pong", from).await.unwrap();
    let mut heard = [0; 6];
    timeout(LIMIT, receive.read_exact(&mut heard))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&heard, b"\0\x04pong");
}

/// The gateway lies: it brings rules that nobody granted, or none that fit. What the owner of the
/// host has not allowed is not reached, and neither is what the rules do not cover.
#[tokio::test(flavor = "multi_thread")]
async fn abuse_34_a_lying_gateway_reaches_only_what_the_hosts_owner_allows() {
    use ForwardRefusal::{Malformed, NotAllowed, NotGranted, NotMine, Paused};
    let gateway = Gateway::start();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let closed = other.local_addr().unwrap().port();
    let host = host_with(&gateway, &allowing("127.0.0.1/32", &[port, 80])).await;
    let (loopback, all) = ("127.0.0.0/8", "0.0.0.0/0");
    let older = ForwardRequest {
        generation: 0,
        ..tcp("127.0.0.1", loopback, port)
    };
    let nothing = ForwardRequest {
        kind: None,
        ..tcp("127.0.0.1", loopback, port)
    };
    let ungranted = ForwardRequest {
        rules: Vec::new(),
        ..tcp("127.0.0.1", loopback, port)
    };
    let wake = forward_request::Kind::Wake(ForwardWake {
        mac: vec![2, 0, 0, 1, 2, 3],
    });
    for (request, expected) in [
        // The allow list of the host.
        (tcp("127.0.0.1", loopback, closed), NotAllowed),
        (tcp("127.0.0.2", loopback, port), NotAllowed),
        (tcp("10.0.0.1", "10.0.0.0/8", port), NotAllowed),
        (tcp("169.254.169.254", "169.254.169.254/32", 80), NotAllowed),
        (tcp("::1", "::1/128", port), NotAllowed),
        (request(wake, "255.255.255.255/32", 9), NotAllowed),
        // The grant.
        (ungranted, NotGranted),
        (tcp("127.0.0.1", all, port), NotGranted),
        (tcp("localhost", "10.0.0.0/8", port), NotGranted),
        (tcp("::ffff:127.0.0.1", all, port), NotGranted),
        // What makes no sense.
        (older, NotMine),
        (nothing, Malformed),
        (tcp("127.0.0.1 ", loopback, port), Malformed),
    ] {
        let asked = format!("{request:?}");
        let Err((reason, message)) = ask(&gateway, request).await else {
            panic!("{asked}")
        };
        assert_eq!(reason, expected, "{asked}: {message}");
    }
    for listener in [&server, &other] {
        let accepted = timeout(std::time::Duration::ZERO, listener.accept()).await;
        assert!(accepted.is_err(), "somebody connected");
    }
    assert!(
        ask(&gateway, tcp("localhost", loopback, port))
            .await
            .is_ok()
    );

    host.write("state/paused", "");
    let paused = ask(&gateway, tcp("localhost", loopback, port)).await;
    assert_eq!(paused.err().unwrap().0, Paused);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_configuration_nothing_is_reached_and_there_is_room_for_a_few() {
    let gateway = Gateway::start();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let mut host = Host::linked(&gateway).await;
    let refused = ask(&gateway, tcp("127.0.0.1", "127.0.0.0/8", port)).await;
    let (reason, message) = refused.err().unwrap();
    assert_eq!(reason, ForwardRefusal::NotAllowed);
    assert!(message.contains("[forward]"), "{message}");
    host.stop().await;

    host.write("forward.toml", &allowing("127.0.0.0/8", &[port]));
    host.start();
    host.status_when("linked", |status| status.is_linked())
        .await;
    let mut open = Vec::new();
    let full = loop {
        match ask(&gateway, tcp("127.0.0.1", "127.0.0.0/8", port)).await {
            Ok(way) => open.push(way),
            Err((reason, _)) => break reason,
        }
    };
    assert_eq!((full, open.len()), (ForwardRefusal::Busy, 32));
}

const INSIDE: &str = "LOOPBACK_TEST_NAMESPACE";

/// Whether the caller is in a network of its own. Otherwise it has been run there, or skipped by name.
fn entered(test: &str, setup: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    unshare.arg("--net");
    let mut probe = Command::new("unshare");
    probe.args(unshare.get_args()).args(["ip", "link"]);
    if !probe.output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {test} because this user cannot make namespaces (unshare, ip)");
        return false;
    }
    let script = format!("ip link set lo up\n{setup}\nexec \"$0\" --exact {test} --nocapture");
    let program = std::env::current_exe().unwrap();
    let output = unshare
        .args(["sh", "-ec", &script])
        .arg(program)
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "inside: {text}"
    );
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_woken_on_a_wire_that_is_not_the_default_one() {
    let test = "a_machine_is_woken_on_a_wire_that_is_not_the_default_one";
    // The management network is a wire of its own; the default route leads elsewhere.
    let setup = "ip link add bmc type veth peer name far && ip link set bmc up && ip link set far up\n\
                 ip addr add 10.9.0.1/24 dev bmc\n\
                 ip link add out type veth peer name away && ip link set out up && ip link set away up\n\
                 ip addr add 10.1.0.1/24 dev out && ip route add default dev out\n\
                 for each in all far; do cd /proc/sys/net/ipv4/conf/$each\n\
                 echo 0 > rp_filter; echo 1 > accept_local; done; cd /";
    if !entered(test, setup) {
        return;
    }
    let gateway = Gateway::start();
    let card = UdpSocket::bind("0.0.0.0:9").await.unwrap();
    // Hears what comes by the wire, and not what this machine tells itself.
    card.bind_device(Some(b"far")).unwrap();
    let _host = host_with(&gateway, &allowing("255.255.255.255/32", &[9])).await;
    let kind = forward_request::Kind::Wake(ForwardWake {
        mac: vec![2, 0, 0, 0xaa, 0xbb, 0xcc],
    });
    let asked = ask(&gateway, request(kind, "255.255.255.255/32", 9));
    let (said, _send, _receive) = asked.await.unwrap();
    assert_eq!(said, "255.255.255.255:9");
    let mut packet = [0; 200];
    let received = timeout(LIMIT, card.recv_from(&mut packet)).await;
    let (length, from) = received.expect("a packet on that wire").unwrap();
    assert_eq!(length, 102);
    assert_eq!(packet[96..102], [2, 0, 0, 0xaa, 0xbb, 0xcc]);
    assert_eq!(from.ip().to_string(), "10.9.0.1");
}
