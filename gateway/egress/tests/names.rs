//! Names whose owners mean no good: the machine's own resolver asks a name server that answers
//! as it is told, in namespaces of the test's own.

mod support;

use std::net::IpAddr;
use std::time::Duration;

use egress::code;
use plugin_host::ports::{Egress as _, HttpRequest};
use support::{Caller, Server, dns, get, namespace};

/// A public address, given to the namespace's loopback.
const PUBLIC: &str = "93.184.215.14";

const SETUP: &str = "ip addr add 93.184.215.14/32 dev lo
printf 'nameserver 127.0.0.1\\noptions attempts:1\\n' > /tmp/loopback-resolv.$$
mount --bind /tmp/loopback-resolv.$$ /etc/resolv.conf
printf 'hosts: dns\\n' > /tmp/loopback-nsswitch.$$
[ ! -e /etc/nsswitch.conf ] || mount --bind /tmp/loopback-nsswitch.$$ /etc/nsswitch.conf
rm -f /tmp/loopback-resolv.$$ /tmp/loopback-nsswitch.$$";

const GRANT: &str = r#"{"http": [{"need": "it", "hosts": ["*.example"], "plain": true}]}"#;

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().expect(text)).collect()
}

#[tokio::test]
async fn abuse_34_a_name_is_resolved_once_and_every_address_is_judged() {
    if !namespace::entered(
        "abuse_34_a_name_is_resolved_once_and_every_address_is_judged",
        SETUP,
    ) {
        return;
    }
    let asked = dns::serve(|name, times| match name {
        // Rebinding: good when it is looked at, bad when it is looked at again.
        "rebind.example" if times % 2 == 0 => addresses(&[PUBLIC]),
        "rebind.example" | "private.example" => addresses(&["127.0.0.1"]),
        "mixed.example" => addresses(&["127.0.0.1", "169.254.169.254", PUBLIC, "10.0.0.1"]),
        "mapped.example" => addresses(&["::ffff:127.0.0.1"]),
        "nat64.example" => addresses(&["64:ff9b::7f00:1"]),
        "metadata.example" => addresses(&["169.254.169.254"]),
        "zero.example" => addresses(&["0.0.0.0", "::"]),
        "many.example" => (1..60).map(|last| IpAddr::from([10, 0, 0, last])).collect(),
        _ => Vec::new(),
    });
    let ok = |_: &str, conn: &mut dyn support::Conn| {
        drop(conn.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    };
    let public = Server::start(&format!("{PUBLIC}:80"), None, ok);
    let inner = Server::start("127.0.0.1:80", None, ok);
    let caller = Caller::new(GRANT);
    for (name, expected) in [
        ("rebind", "200"),
        ("rebind", code::NETWORK_NOT_GRANTED),
        ("rebind", "200"),
        ("rebind", code::NETWORK_NOT_GRANTED),
        ("private", code::NETWORK_NOT_GRANTED),
        ("mixed", "200"),
        ("mapped", code::NETWORK_NOT_GRANTED),
        ("nat64", code::NETWORK_NOT_GRANTED),
        ("metadata", code::NETWORK_NOT_GRANTED),
        ("zero", code::NETWORK_NOT_GRANTED),
        ("many", code::NETWORK_NOT_GRANTED),
        ("nothing", code::NAME_NOT_RESOLVED),
    ] {
        let url = format!("http://{name}.example/");
        assert_eq!(caller.code(get(url)).await, expected, "{name}");
    }
    assert_eq!(inner.connections(), 0);
    assert_eq!(public.connections(), 3);
    // The name goes on as it was, though the address was chosen here.
    assert!(public.requests()[0].contains("host: rebind.example\r\n"));
    let asked = asked.lock().expect("names").clone();
    let times = asked
        .iter()
        .filter(|name| *name == "rebind.example")
        .count();
    assert_eq!(times, 4, "one question for each request: {asked:?}");
}

#[tokio::test]
async fn a_name_server_that_says_nothing_costs_the_deadline_and_one_thread() {
    let test = "a_name_server_that_says_nothing_costs_the_deadline_and_one_thread";
    if !namespace::entered(test, SETUP) {
        return;
    }
    let silent = std::net::UdpSocket::bind("127.0.0.1:53").expect("port 53 of a namespace");
    let caller = Caller::new(GRANT);
    let request = HttpRequest {
        timeout: Duration::from_millis(500),
        ..get("http://slow.example/")
    };
    let error = caller.send(request).await.expect_err("no answer");
    assert_eq!(error.code, code::TIMEOUT);
    assert!(error.message.contains("resolving the name") && !error.outcome_unknown);
    drop(silent);
}

#[tokio::test]
async fn a_broadcast_wakes_a_machine_where_it_is_granted() {
    let test = "a_broadcast_wakes_a_machine_where_it_is_granted";
    if !namespace::entered(test, "ip route add broadcast 255.255.255.255 dev lo") {
        return;
    }
    let card = std::net::UdpSocket::bind("0.0.0.0:9").expect("port 9 of a namespace");
    card.set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a limit");
    let mac = "02:00:00:aa:bb:cc";
    for grant in [
        r#"{}"#,
        r#"{"datagrams": [{"need": "w", "networks": ["0.0.0.0/0"], "ports": [9]}]}"#,
        r#"{"datagrams": [{"need": "w", "networks": ["255.255.255.255/32"], "ports": [7]}]}"#,
    ] {
        let caller = Caller::new(grant);
        let result = caller.client.wake_on_lan(&caller.call, mac, None).await;
        assert_eq!(result.expect_err(grant).code, code::PEER_NOT_GRANTED);
    }
    let caller = Caller::new(
        r#"{"datagrams": [{"need": "w", "networks": ["255.255.255.255/32"], "ports": [9]}]}"#,
    );
    let wake = |mac: &'static str, route| caller.client.wake_on_lan(&caller.call, mac, route);
    assert_eq!(
        wake("x", None).await.expect_err("no mac").code,
        code::MAC_INVALID
    );
    let routed = wake(mac, Some("near")).await;
    assert_eq!(routed.expect_err("no routes").code, code::ROUTE_NOT_GRANTED);
    wake(mac, None).await.expect("sent");
    let mut packet = [0; 200];
    let length = card.recv(&mut packet).expect("a packet");
    assert_eq!(length, 102);
    assert_eq!(packet[96..102], [2, 0, 0, 0xaa, 0xbb, 0xcc]);
}

#[tokio::test]
async fn a_broadcast_goes_out_on_every_network_and_needs_no_route() {
    let test = "a_broadcast_goes_out_on_every_network_and_needs_no_route";
    let setup = "for n in 1 2; do
            ip link add near$n type veth peer name far$n
            ip addr add 10.9.$n.1/24 dev near$n
            ip link set near$n up; ip link set far$n up
        done";
    if !namespace::entered(test, setup) {
        return;
    }
    // A broadcast comes back to its sender, from the address of the interface that it left by.
    let card = std::net::UdpSocket::bind("0.0.0.0:9").expect("port 9 of a namespace");
    card.set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a limit");
    let caller = Caller::new(
        r#"{"datagrams": [{"need": "w", "networks": ["255.255.255.255/32"], "ports": [9]}]}"#,
    );
    let mac = "02:00:00:aa:bb:cc";
    let sent = caller.client.wake_on_lan(&caller.call, mac, None).await;
    sent.expect("sent");
    let mut left_by = [0, 1].map(|_| {
        let mut packet = [0; 200];
        let (length, from) = card.recv_from(&mut packet).expect("a packet of each wire");
        assert_eq!(packet[96..length], [2, 0, 0, 0xaa, 0xbb, 0xcc]);
        from.ip()
    });
    left_by.sort();
    assert_eq!(left_by[..], addresses(&["10.9.1.1", "10.9.2.1"]));
}
