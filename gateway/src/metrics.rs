//! What the gateway counts, in Prometheus' text form.
//!
//! Labels take their values from small closed sets (operation ids, outcomes,
//! carriers), never from what a peer sent: a hostile peer must not be able to grow
//! the set of series, and no host's name or secret can slip into a label. Callers
//! pass `&'static str` to make that hard to get wrong. Names of plugins are the exception:
//! an operator gives them, and there are as many as the configuration allows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::link::accept::Handshakes;
use gateway_store::{CommitError, Stats};
use model::Timestamp;
use model::command::RunState;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::plugins::metrics::PluginMetrics;

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From a cached reply to the slowest request that is waited for.
const SECONDS: [f64; 11] = [
    0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// Everything counted. One per process; clones share it.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<OperationLabel, Histogram, fn() -> Histogram>,
    links: Family<CarrierLabel, Gauge>,
    enrolments: Family<OutcomeLabel, Counter>,
    refused_handshakes: Family<ReasonLabel, Counter>,
    dismissed_links: Family<ReasonLabel, Counter>,
    handshakes: HandshakeMetrics,
    hosts: Family<SummaryLabel, Gauge>,
    panics: Family<TaskLabel, Counter>,
    commits: Family<OutcomeLabel, Counter>,
    /// Heartbeats taken in.
    pub heartbeats: Counter,
    /// Audit entries written.
    pub audit_entries: Counter,
    /// HTTP connections open.
    pub http_connections: Gauge,
    store: StoreMetrics,
    plugins: PluginMetrics,
    scrapes: Family<OutcomeLabel, Counter>,
    scrape_seconds: Histogram,
    runs: Family<StateLabel, Gauge>,
    commands_at_work: Gauge,
    frozen: Gauge,
    certificates: Family<CertificateLabel, Gauge>,
    state_size_bytes: Gauge,
    state_free_bytes: Gauge,
}

/// The store's writer, as it was when somebody last asked. Batches over groups is how
/// many writes share one fsync: it grows when the disk is slow, and so does the queue.
#[derive(Clone, Debug, Default)]
struct StoreMetrics {
    groups: Counter,
    batches: Counter,
    writing_seconds: Counter<f64, AtomicU64>,
    queued: Gauge,
    reopened: Counter,
}

/// Handshakes of agents, as they were when somebody last asked.
#[derive(Clone, Debug, Default)]
struct HandshakeMetrics {
    pending: Gauge,
    retried: Counter,
    dropped: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CarrierLabel {
    carrier: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SummaryLabel {
    summary: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabel {
    certificate: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TaskLabel {
    task: &'static str,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("loopback");
        registry.register(
            "build",
            "The running gateway",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let request_seconds: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(SECONDS));
        let metrics = Self {
            requests: Family::default(),
            request_seconds,
            links: Family::default(),
            enrolments: Family::default(),
            refused_handshakes: Family::default(),
            dismissed_links: Family::default(),
            handshakes: HandshakeMetrics::default(),
            plugins: PluginMetrics::default(),
            hosts: Family::default(),
            panics: Family::default(),
            commits: Family::default(),
            heartbeats: Counter::default(),
            audit_entries: Counter::default(),
            http_connections: Gauge::default(),
            store: StoreMetrics::default(),
            scrapes: Family::default(),
            scrape_seconds: Histogram::new(SECONDS),
            runs: Family::default(),
            commands_at_work: Gauge::default(),
            frozen: Gauge::default(),
            certificates: Family::default(),
            state_size_bytes: Gauge::default(),
            state_free_bytes: Gauge::default(),
            registry: Arc::default(),
        };
        registry.register(
            "http_requests",
            "HTTP requests answered",
            metrics.requests.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "Time from a request's head to its reply's head",
            metrics.request_seconds.clone(),
        );
        registry.register(
            "http_connections",
            "HTTP connections open",
            metrics.http_connections.clone(),
        );
        registry.register("links", "Agents connected", metrics.links.clone());
        registry.register(
            "enrolments",
            "Enrolments asked for",
            metrics.enrolments.clone(),
        );
        registry.register(
            "refused_handshakes",
            "Agent connections refused before they were links",
            metrics.refused_handshakes.clone(),
        );
        registry.register(
            "dismissed_links",
            "Links that the gateway ended",
            metrics.dismissed_links.clone(),
        );
        let handshakes = &metrics.handshakes;
        registry.register(
            "pending_handshakes",
            "Agent connections that are being set up",
            handshakes.pending.clone(),
        );
        registry.register(
            "retried_handshakes",
            "Newcomers that were asked to prove their address",
            handshakes.retried.clone(),
        );
        registry.register(
            "dropped_handshakes",
            "Newcomers dropped because too many were being set up",
            handshakes.dropped.clone(),
        );
        registry.register(
            "heartbeats",
            "Heartbeats taken in",
            metrics.heartbeats.clone(),
        );
        registry.register(
            "commits",
            "Batches sent to the store",
            metrics.commits.clone(),
        );
        registry.register(
            "audit_entries",
            "Audit entries written",
            metrics.audit_entries.clone(),
        );
        let store = &metrics.store;
        registry.register(
            "store_groups",
            "Transactions of the store that reached the disk",
            store.groups.clone(),
        );
        registry.register(
            "store_batches",
            "Batches that were part of them",
            store.batches.clone(),
        );
        registry.register(
            "store_writing_seconds",
            "Time the store spent in transactions, fsync included",
            store.writing_seconds.clone(),
        );
        registry.register(
            "store_queued_batches",
            "Batches that wait for the store's writer",
            store.queued.clone(),
        );
        registry.register(
            "store_reopened",
            "Times the store was closed and opened again after an error",
            store.reopened.clone(),
        );
        registry.register("hosts", "Hosts by state", metrics.hosts.clone());
        metrics.plugins.register(&mut registry);
        registry.register("panics", "Panics caught", metrics.panics.clone());
        registry.register(
            "scrapes",
            "Scrapes of hosts asked for",
            metrics.scrapes.clone(),
        );
        registry.register(
            "scrape_duration_seconds",
            "Time that scrapes of hosts took",
            metrics.scrape_seconds.clone(),
        );
        registry.register(
            "runs",
            "Runs by state, of commands that are not finished",
            metrics.runs.clone(),
        );
        registry.register(
            "commands_at_work",
            "Commands that are not finished",
            metrics.commands_at_work.clone(),
        );
        registry.register(
            "frozen",
            "Whether automatic actions stand still",
            metrics.frozen.clone(),
        );
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When the gateway's own certificates end",
            metrics.certificates.clone(),
        );
        registry.register(
            "state_size_bytes",
            "Size of the disk that holds the gateway's state",
            metrics.state_size_bytes.clone(),
        );
        registry.register(
            "state_free_bytes",
            "Free space on the disk that holds the gateway's state",
            metrics.state_free_bytes.clone(),
        );
        // At zero from the beginning: the first failure is an increase only then.
        for outcome in ["committed", "conflict", "unavailable", "unknown", "fenced"] {
            let _ = metrics.commits.get_or_create(&OutcomeLabel { outcome });
        }
        for outcome in ["ok", "not_linked", "exporter_failed", "timeout", "busy"] {
            let _ = metrics.scrapes.get_or_create(&OutcomeLabel { outcome });
        }
        Self {
            registry: Arc::new(registry),
            ..metrics
        }
    }

    /// A request to `operation` was answered with `status` after `took`.
    pub fn request(&self, operation: &'static str, status: u16, took: Duration) {
        let status = match status {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.requests
            .get_or_create(&RequestLabels { operation, status })
            .inc();
        self.request_seconds
            .get_or_create(&OperationLabel { operation })
            .observe(took.as_secs_f64());
    }

    /// A link opened over `carrier`; it counts until the guard is dropped.
    pub fn link(&self, carrier: &'static str) -> Counted {
        Counted::new(self.links.get_or_create_owned(&CarrierLabel { carrier }))
    }

    /// An HTTP connection opened; it counts until the guard is dropped.
    pub fn http_connection(&self) -> Counted {
        Counted::new(self.http_connections.clone())
    }

    /// An enrolment ended with `outcome`.
    pub fn enrolment(&self, outcome: &'static str) {
        self.enrolments
            .get_or_create(&OutcomeLabel { outcome })
            .inc();
    }

    /// An agent's connection was refused for `reason`.
    pub fn refused_handshake(&self, reason: &'static str) {
        self.refused_handshakes
            .get_or_create(&ReasonLabel { reason })
            .inc();
    }

    /// A link was ended from here for `reason`.
    pub fn dismissed(&self, reason: &'static str) {
        self.dismissed_links
            .get_or_create(&ReasonLabel { reason })
            .inc();
    }

    /// What becomes of handshakes.
    pub fn handshakes(&self, handshakes: &Handshakes) {
        let counts = &self.handshakes;
        let pending = i64::try_from(handshakes.pending()).unwrap_or(i64::MAX);
        counts.pending.set(pending);
        let (retried, dropped) = (handshakes.retried(), handshakes.dropped());
        counts.retried.inner().store(retried, Ordering::Relaxed);
        counts.dropped.inner().store(dropped, Ordering::Relaxed);
    }

    /// A batch was committed.
    pub fn committed(&self) {
        self.commit("committed");
    }

    /// A batch was not committed, or nobody knows.
    pub fn commit_failed(&self, error: &CommitError) {
        self.commit(match error {
            CommitError::Conflict { .. } => "conflict",
            CommitError::Unavailable(_) => "unavailable",
            CommitError::Unknown => "unknown",
            CommitError::Fenced => "fenced",
            _ => "invalid",
        });
    }

    fn commit(&self, outcome: &'static str) {
        self.commits.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// `count` hosts are in the state `summary`.
    pub fn hosts(&self, summary: &'static str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.hosts
            .get_or_create(&SummaryLabel { summary })
            .set(count);
    }

    /// Plugins, and what waits for notifiers.
    pub fn plugins(&self) -> &PluginMetrics {
        &self.plugins
    }

    /// A scrape of a host ended with `outcome` after `took`.
    pub fn scrape(&self, outcome: &'static str, took: Duration) {
        self.scrapes.get_or_create(&OutcomeLabel { outcome }).inc();
        self.scrape_seconds.observe(took.as_secs_f64());
    }

    /// `runs` of the `commands` that are not finished are in these states.
    pub fn commands(&self, commands: usize, runs: &BTreeMap<RunState, u64>) {
        self.commands_at_work
            .set(i64::try_from(commands).unwrap_or(i64::MAX));
        for state in RunState::ALL {
            let count = runs.get(state).copied().unwrap_or(0);
            let label = StateLabel {
                state: state.as_str(),
            };
            self.runs
                .get_or_create(&label)
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Whether automatic actions stand still.
    pub fn frozen(&self, frozen: bool) {
        self.frozen.set(i64::from(frozen));
    }

    /// When a certificate of the gateway's own ends.
    pub fn certificate(&self, certificate: &'static str, not_after: Timestamp) {
        self.certificates
            .get_or_create(&CertificateLabel { certificate })
            .set(not_after.as_millis() / 1000);
    }

    /// The disk that holds the state.
    pub fn disk(&self, size: u64, free: u64) {
        let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.state_size_bytes.set(bytes(size));
        self.state_free_bytes.set(bytes(free));
    }

    /// The store's own counts.
    pub fn store(&self, stats: &Stats) {
        let store = &self.store;
        store.groups.inner().store(stats.groups, Ordering::Relaxed);
        store
            .batches
            .inner()
            .store(stats.batches, Ordering::Relaxed);
        let seconds = stats.writing.as_secs_f64().to_bits();
        store
            .writing_seconds
            .inner()
            .store(seconds, Ordering::Relaxed);
        store
            .queued
            .set(i64::try_from(stats.queued).unwrap_or(i64::MAX));
        store
            .reopened
            .inner()
            .store(stats.reopened, Ordering::Relaxed);
    }

    /// `task` panicked.
    pub fn panic(&self, task: &'static str) {
        self.panics.get_or_create(&TaskLabel { task }).inc();
    }

    /// All of it as text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Only a formatter that fails fails here, and a String does not.
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(std::fmt::Error) => "# EOF\n".to_owned(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Something that is counted while it exists.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new();
        metrics.request("list_hosts", 200, Duration::from_millis(3));
        metrics.request("list_hosts", 404, Duration::from_millis(3));
        metrics.enrolment("joined");
        metrics.refused_handshake("unknown_issuer");
        metrics.commit("conflict");
        metrics.hosts("connected", 7);
        metrics.panic("liveness");
        metrics.heartbeats.inc();
        metrics.audit_entries.inc_by(3);
        let udp = metrics.link("udp");
        let dropped = metrics.link("websocket");
        drop(dropped);
        let text = metrics.encode();
        for line in [
            "loopback_http_requests_total{operation=\"list_hosts\",status=\"2xx\"} 1",
            "loopback_http_requests_total{operation=\"list_hosts\",status=\"4xx\"} 1",
            "loopback_http_request_duration_seconds_bucket{le=\"0.005\",operation=\"list_hosts\"} 2",
            "loopback_links{carrier=\"udp\"} 1",
            "loopback_links{carrier=\"websocket\"} 0",
            "loopback_enrolments_total{outcome=\"joined\"} 1",
            "loopback_refused_handshakes_total{reason=\"unknown_issuer\"} 1",
            "loopback_commits_total{outcome=\"conflict\"} 1",
            "loopback_hosts{summary=\"connected\"} 7",
            "loopback_panics_total{task=\"liveness\"} 1",
            "loopback_heartbeats_total 1",
            "loopback_audit_entries_total 3",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is missing in\n{text}"
            );
        }
        assert!(text.ends_with("# EOF\n"));
        drop(udp);
    }
}
