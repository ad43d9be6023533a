//! What is shipped for Prometheus and Grafana names only what is really exposed, and is
//! what Prometheus itself takes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use agent_core::metrics::{Disk, Readings, Space, exposition};
use gateway::metrics::Metrics;
use model::Timestamp;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/monitoring")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).expect("a shipped file")
}

/// Names of families as a query may use them, of a text that is exposed.
fn exposed(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a kind");
        match kind {
            // OpenMetrics leaves the suffix of its samples out, Prometheus' form does not.
            "counter" if !name.ends_with("_total") => names.insert(format!("{name}_total")),
            "info" => names.insert(format!("{name}_info")),
            "histogram" => ["bucket", "sum", "count"]
                .iter()
                .all(|suffix| names.insert(format!("{name}_{suffix}"))),
            _ => names.insert(name.to_owned()),
        };
    }
    names
}

/// Everything in a text that looks like the name of a metric of ours.
fn used(text: &str) -> BTreeSet<String> {
    // What targets are labelled with has the same prefix.
    let labels = [
        "loopback_host",
        "loopback_exporter",
        "loopback_workspace",
        "loopback_label_role",
        "loopback_label_",
    ];
    text.split(|it: char| !(it.is_ascii_alphanumeric() || it == '_'))
        .filter(|word| word.starts_with("loopback_") || word.starts_with("node_"))
        .filter(|word| !labels.contains(word))
        .map(str::to_owned)
        .collect()
}

/// Families are shown once something has been counted.
fn of_gateway() -> String {
    let metrics = Metrics::new();
    metrics.request("list_hosts", 200, Duration::ZERO);
    metrics.enrolment("joined");
    metrics.refused_handshake("unknown_issuer");
    metrics.dismissed("flooding");
    metrics.hosts("connected", 1);
    metrics.panic("liveness");
    metrics.plugins().example();
    metrics.commands(0, &BTreeMap::new());
    metrics.certificate("https", Timestamp::from_millis(1));
    let _link = metrics.link("udp");
    metrics.encode()
}

fn of_hosts() -> BTreeSet<String> {
    let number = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17";
    let pressure = "some avg10=0 total=1\nfull avg10=0 total=1\n";
    exposed(&exposition(&Readings {
        stat: format!(
            "cpu0 {number}\nintr 1\nctxt 1\nbtime 1\nprocesses 1\nprocs_running 1\nprocs_blocked 1\n"
        ),
        meminfo: "MemTotal: 2 kB\nMemAvailable: 1 kB\n".to_owned(),
        diskstats: format!("8 0 sda {number}\n"),
        net_dev: format!("eth0: {number}\n"),
        loadavg: "1 1 1 1/1 1".to_owned(),
        uptime: "1 1".to_owned(),
        vmstat: "oom_kill 0\n".to_owned(),
        file_nr: "1 0 1".to_owned(),
        pressure_cpu: pressure.to_owned(),
        pressure_io: pressure.to_owned(),
        pressure_memory: pressure.to_owned(),
        disks: vec![Disk {
            space: Some(Space::default()),
            ..Disk::default()
        }],
        failed_units: Some(Ok(vec!["a.service".to_owned()])),
        ..Readings::default()
    }))
}

#[test]
fn alerts_and_dashboard_name_only_metrics_that_are_exposed() {
    let exposed: BTreeSet<_> = exposed(&of_gateway())
        .into_iter()
        .chain(of_hosts())
        .collect();
    for file in ["loopback.rules.yml", "grafana-dashboard.json"] {
        let used = used(&read(file));
        assert!(used.len() > 15, "{file}: {used:?}");
        let missing: Vec<_> = used.difference(&exposed).collect();
        assert!(missing.is_empty(), "{file} names {missing:?}");
    }
}

/// A host must not be able to speak for the gateway: whoever reads a series says whose.
#[test]
fn every_alert_says_of_which_job_it_speaks() {
    let rules = read("loopback.rules.yml");
    let mut alerts = 0;
    for alert in rules.split("- alert: ").skip(1) {
        alerts += 1;
        let (name, rest) = alert.split_once('\n').unwrap();
        let job = if name.starts_with("Host") {
            "job=\"loopback-hosts\""
        } else {
            "job=\"loopback-gateway\""
        };
        let expression = rest.split("labels:").next().unwrap();
        assert!(expression.contains(job), "{name} does not say {job}");
    }
    assert!(alerts > 20, "{alerts}");
}

#[test]
fn the_dashboard_is_what_grafana_reads() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|it| it["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
    for panel in panels.iter().filter(|it| it["type"] != "row") {
        assert!(panel["title"].is_string() && !panel["targets"].as_array().unwrap().is_empty());
        assert_eq!(panel["datasource"]["uid"], "${datasource}");
    }
}

#[test]
fn prometheus_takes_the_alerts_and_the_configuration() {
    let check = |args: &[&str]| {
        let output = Command::new("promtool")
            .args(args)
            .current_dir(folder())
            .output();
        // Where there is no promtool, the story on real hosts is what finds a mistake.
        let Ok(output) = output else { return };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
    };
    check(&["check", "rules", "loopback.rules.yml"]);
    check(&["check", "config", "--syntax-only", "prometheus.example.yml"]);
}
