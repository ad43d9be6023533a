#![allow(clippy::unwrap_used, reason = "a panic here is the report")]

use protocol::v1::{ForwardRule, ForwardWake};

use super::*;

fn allow(networks: &[&str], ports: &[u16]) -> Allow {
    let networks: Vec<_> = networks.iter().map(|&text| text.to_owned()).collect();
    Allow::new(&networks, ports).unwrap()
}

fn rule(networks: &[&str], ports: &[u32]) -> ForwardRule {
    ForwardRule {
        networks: networks.iter().map(|&text| text.to_owned()).collect(),
        ports: ports.to_vec(),
    }
}

fn request(kind: Kind, rules: Vec<ForwardRule>) -> ForwardRequest {
    ForwardRequest {
        kind: Some(kind),
        rules,
        ..ForwardRequest::default()
    }
}

fn target(host: &str, port: u32) -> ForwardTarget {
    ForwardTarget {
        host: host.to_owned(),
        port,
    }
}

fn outcome(
    allow: &Allow,
    request: &ForwardRequest,
    addresses: &[&str],
) -> Result<Vec<String>, ForwardRefusal> {
    let judged = || {
        let wanted = Wanted::read(request)?;
        wanted.check_port(allow)?;
        let addresses: Vec<_> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        wanted.judge(allow, &addresses)
    };
    let judged: Result<Vec<SocketAddr>, Refused> = judged();
    judged
        .map(|list| list.iter().map(ToString::to_string).collect())
        .map_err(|refused| refused.reason)
}

/// The gateway may be wrong or lie, and so may whoever answers names: only what the rule and the
/// owner both permit is left.
#[test]
fn abuse_34_an_address_is_judged_by_the_grant_and_by_the_hosts_owner() {
    use ForwardRefusal::{NotAllowed, NotGranted, NotResolved};
    let management = allow(&["10.9.0.0/16"], &[443, 623]);
    let everything = allow(&["0.0.0.0/0", "::/0"], &[80, 443]);
    for (allow, rules, port, addresses, expected) in [
        (
            &management,
            vec![rule(&["10.9.0.0/24"], &[443])],
            443,
            &["10.9.0.7"][..],
            Ok("10.9.0.7:443"),
        ),
        // The wider one does not help.
        (
            &management,
            vec![rule(&["10.0.0.0/8"], &[443])],
            443,
            &["10.8.0.7"],
            Err(NotAllowed),
        ),
        (
            &management,
            vec![rule(&["10.9.1.0/24"], &[443])],
            443,
            &["10.9.0.7"],
            Err(NotGranted),
        ),
        (
            &management,
            vec![rule(&["10.9.0.0/16"], &[443])],
            22,
            &["10.9.0.7"],
            Err(NotAllowed),
        ),
        (
            &management,
            vec![rule(&["10.9.0.0/16"], &[443])],
            623,
            &["10.9.0.7"],
            Err(NotGranted),
        ),
        // Two rules that each cover a half cover nothing.
        (
            &management,
            vec![
                rule(&["10.9.1.0/24"], &[443]),
                rule(&["10.9.0.0/24"], &[623]),
            ],
            443,
            &["10.9.0.7"],
            Err(NotGranted),
        ),
        (
            &Allow::default(),
            vec![rule(&["10.9.0.0/16"], &[443])],
            443,
            &["10.9.0.7"],
            Err(NotAllowed),
        ),
        (&management, vec![], 443, &["10.9.0.7"], Err(NotGranted)),
        (
            &management,
            vec![rule(&["10.9.0.0/16"], &[443])],
            443,
            &[],
            Err(NotResolved),
        ),
        // A name with good and bad addresses leads to the good one.
        (
            &management,
            vec![rule(&["10.0.0.0/8"], &[443])],
            443,
            &["127.0.0.1", "10.8.0.1", "10.9.0.1"],
            Ok("10.9.0.1:443"),
        ),
        // Nobody meant these when they wrote "everything".
        (
            &everything,
            vec![rule(&["127.0.0.0/8"], &[80])],
            80,
            &["127.0.0.1"],
            Err(NotAllowed),
        ),
        (
            &everything,
            vec![rule(&["169.254.0.0/16"], &[80])],
            80,
            &["169.254.1.1"],
            Err(NotAllowed),
        ),
        (
            &everything,
            vec![rule(&["169.254.169.254/32"], &[80])],
            80,
            &["169.254.169.254"],
            Err(NotAllowed),
        ),
        (
            &everything,
            vec![rule(&["0.0.0.0/0"], &[80])],
            80,
            &["::ffff:127.0.0.1"],
            Err(NotGranted),
        ),
        (
            &everything,
            vec![rule(&["0.0.0.0/0", "::/0"], &[80])],
            80,
            &["0.0.0.0", "::"],
            Err(NotGranted),
        ),
        // A rule without networks means public addresses, and the owner has a say in those, too.
        (
            &everything,
            vec![rule(&[], &[443])],
            443,
            &["1.1.1.1"],
            Ok("1.1.1.1:443"),
        ),
        (
            &management,
            vec![rule(&[], &[443])],
            443,
            &["1.1.1.1"],
            Err(NotAllowed),
        ),
        (
            &management,
            vec![rule(&[], &[443])],
            443,
            &["10.9.0.1"],
            Err(NotGranted),
        ),
        // Listed by both, by themselves.
        (
            &allow(&["169.254.169.254/32", "127.0.0.1/32"], &[80]),
            vec![rule(&["127.0.0.0/8", "169.254.169.254/32"], &[80])],
            80,
            &["127.0.0.1", "169.254.169.254"],
            Ok("127.0.0.1:80 169.254.169.254:80"),
        ),
    ] {
        let request = request(Kind::Tcp(target("bmc.example", port)), rules);
        let found = outcome(allow, &request, addresses).map(|list| list.join(" "));
        assert_eq!(
            found,
            expected.map(str::to_owned),
            "{request:?} {addresses:?}"
        );
    }
}

#[test]
fn datagrams_and_broadcasts_need_a_network_in_the_rule() {
    use ForwardRefusal::{Malformed, NotAllowed, NotGranted};
    let everything = allow(&["0.0.0.0/0"], &[9, 623]);
    let udp = |rules| request(Kind::Udp(target("192.0.2.1", 623)), rules);
    let at = &["192.0.2.1"];
    assert_eq!(
        outcome(&everything, &udp(vec![rule(&[], &[623])]), at),
        Err(NotGranted)
    );
    assert!(outcome(&everything, &udp(vec![rule(&["192.0.2.0/24"], &[623])]), at).is_ok());

    let wake = |mac: &[u8], network: &str| {
        let mac = mac.to_vec();
        request(
            Kind::Wake(ForwardWake { mac }),
            vec![rule(&[network], &[9])],
        )
    };
    let (mac, all) = ([2, 0, 0, 1, 2, 3], "255.255.255.255/32");
    let broadcast = allow(&[all], &[9]);
    let everybody = &["255.255.255.255"];
    assert!(outcome(&broadcast, &wake(&mac, all), everybody).is_ok());
    assert_eq!(
        outcome(&everything, &wake(&mac, all), everybody),
        Err(NotAllowed)
    );
    assert_eq!(
        outcome(&broadcast, &wake(&mac, "0.0.0.0/0"), everybody),
        Err(NotGranted)
    );
    assert_eq!(
        outcome(&broadcast, &wake(&[255; 6], all), everybody),
        Err(Malformed)
    );
    assert_eq!(
        outcome(&broadcast, &wake(&mac[..5], all), everybody),
        Err(Malformed)
    );
}

#[test]
fn what_makes_no_sense_is_refused_and_not_guessed() {
    let good = || vec![rule(&["10.0.0.0/8"], &[443])];
    let mut bad = vec![ForwardRequest::default()];
    for (host, port) in [
        ("", 443),
        ("a b", 443),
        ("a\0b", 443),
        ("user@host", 443),
        ("fe80::1%eth0", 443),
        (&*"a".repeat(300), 443),
        ("a", 0),
        ("a", 65_536 + 443),
    ] {
        bad.push(request(Kind::Tcp(target(host, port)), good()));
    }
    let ours = || Kind::Tcp(target("a.example", 443));
    bad.push(request(ours(), vec![rule(&["10.0.0.1/8"], &[443])]));
    bad.push(request(ours(), vec![rule(&["10.0.0.0/8"], &[0])]));
    bad.push(request(
        ours(),
        vec![rule(&["10.0.0.0/8"], &vec![443; 257])],
    ));
    bad.push(request(ours(), vec![good().remove(0); 65]));
    for request in bad {
        let refused = Wanted::read(&request).unwrap_err();
        assert_eq!(refused.reason, ForwardRefusal::Malformed, "{request:?}");
    }
}

#[test]
fn a_configuration_names_networks_and_ports_or_nothing() {
    assert!(Allow::new(&[], &[]).unwrap().is_nothing());
    let networks = |text: &str| vec![text.to_owned()];
    for (networks, ports, expected) in [
        (
            networks("10.9.0.1/16"),
            vec![443],
            "`10.9.0.1/16` is no network",
        ),
        (
            networks("bmc.example"),
            vec![443],
            "`bmc.example` is no network",
        ),
        (networks("10.9.0.0/16"), vec![0], "a port is 1 to 65535"),
        (networks("10.9.0.0/16"), vec![], "name networks and ports"),
        (vec![], vec![443], "name networks and ports"),
        (vec!["10.9.0.0/16".to_owned(); 257], vec![1], "at most 256"),
    ] {
        let said = Allow::new(&networks, &ports).unwrap_err().to_string();
        assert!(said.starts_with(expected), "{said}");
    }
}
