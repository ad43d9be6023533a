//! `power-wol`: a packet on a wire, in a namespace of the test's own, seen by whoever listens to
//! frames there.

use std::process::Command;
use std::time::Duration;

use e2e::lab::Place;
use e2e::peers::wire::Frames;
use e2e::tools;
use model::plugin::{DatagramRule, Grant};
use plugin_host::power::{Action, Begun, State};
use serde_json::json;

use crate::support::{self, Provider, own_error};

const INSIDE: &str = "LOOPBACK_TEST_WIRE";
const TEST: &str = "wol::a_packet_for_the_machine_is_on_the_wire";

/// A wire, and a network on it; no route leads anywhere else.
const WIRE: &str = "ip link set lo up
ip link add near type veth peer name far
ip addr add 10.9.0.1/24 dev near
ip link set near up
ip link set far up
exec \"$0\" --exact \"$1\" --nocapture";

fn grant(network: &str) -> Grant {
    Grant {
        datagrams: vec![DatagramRule {
            routes: Vec::new(),
            need: "wake".parse().expect("a name"),
            networks: vec![network.parse().expect("a network")],
            ports: vec![9],
        }],
        ..Grant::default()
    }
}

#[tokio::test]
async fn a_packet_for_the_machine_is_on_the_wire() {
    if std::env::var_os(INSIDE).is_none() {
        return inside();
    }
    let frames = Frames::listen(&Place::Here).expect("root hears frames");

    let config = json!({ "packets": 1 });
    let wol = Provider::load("power-wol", grant("255.255.255.255/32"), config, &[]).await;
    let target = support::target("02-00-5e-AA-bb-01", json!({}));
    let support = wol
        .plugin
        .power_inspect(support::of(), target.clone())
        .await;
    assert!(!support.expect("inspected").observable);
    let found = wol.plugin.power_check(support::of(), target.clone()).await;
    assert_eq!(found.expect("checked").len(), 0);
    let seen = wol
        .plugin
        .power_observe(support::of(), target.clone())
        .await;
    assert_eq!(seen.expect("observed").state, State::Unknown);

    let on = support::operation(Action::On, None);
    let begun = wol.plugin.power_begin(support::of(), on, target).await;
    assert_eq!(begun.expect("sent"), Begun::Done);
    let to = frames.waking([2, 0, 0x5e, 0xaa, 0xbb, 1], Duration::from_secs(10));
    assert_eq!(to.expect("a packet"), [0xff; 6], "to everybody");
}

#[tokio::test]
async fn a_grant_for_other_peers_sends_nothing() {
    let wol = Provider::load("power-wol", grant("10.0.0.0/8"), json!({}), &[]).await;
    let target = support::target("02:00:5e:aa:bb:01", json!({}));
    let on = support::operation(Action::On, None);
    let refused = wol.plugin.power_begin(support::of(), on, target).await;
    let error = own_error(refused.expect_err("not granted"));
    assert_eq!(error.code, "datagram.peer_not_granted");
    assert!(!error.outcome_unknown);
}

/// Runs this test again where the wire is.
fn inside() {
    if !tools::is_root() {
        return support::skipped(TEST, &"only root hears frames");
    }
    if let Err(why) = tools::ensure(&[tools::tool("ip", "iproute2")]) {
        return support::skipped(TEST, &why);
    }
    let probe = Command::new("unshare").args(["--net", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return support::skipped(TEST, &"this machine makes no network namespaces");
    }
    let output = Command::new("unshare")
        .args(["--mount", "--net", "sh", "-ec", WIRE])
        .arg(std::env::current_exe().expect("the test's own program"))
        .arg(TEST)
        .env(INSIDE, "1")
        .output()
        .expect("unshare");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "inside: {text}");
    assert!(text.contains("1 passed"), "inside: {text}");
}
