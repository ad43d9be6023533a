//! Metrics of hosts, for a Prometheus that cannot reach them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{InWorkspace, OfHost};
use crate::endpoint::{Raw, endpoints};

endpoints! {
    /// Targets for Prometheus' HTTP service discovery: every managed host and its exporters, scraped through this gateway.
    list_metrics_targets ListMetricsTargets: GET "/v1/workspaces/{workspace}/metrics/targets", needs HostMetricsRead, path InWorkspace,
        query TargetFilter, reply 200 Vec<TargetGroup>, problems [Invalid];
    /// Scrape a host through its agent's link: the agent's own samples, or one of its exporters.
    get_host_metrics GetHostMetrics: GET "/v1/workspaces/{workspace}/hosts/{host}/metrics", needs HostMetricsRead, path OfHost,
        query ScrapeQuery, reply 200 as "text/plain" Raw, problems [Invalid, Conflict, HostNotLinked, NoSuchExporter, ExporterFailed, Timeout, Unavailable];
}

/// Which hosts.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetFilter {
    /// Label selector: `role=web,env!=dev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub selector: Option<String>,
}

/// Addresses with the labels that they share, as Prometheus reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetGroup {
    /// The gateway's own address: it asks the host.
    pub targets: Vec<String>,
    /// Where to ask (`__scheme__`, `__metrics_path__`, `__param_exporter`), whose series
    /// they are (`instance`, `loopback_*`), and what to relabel by (`__meta_loopback_*`).
    pub labels: BTreeMap<String, String>,
}

/// Whom to scrape on the host.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScrapeQuery {
    /// An exporter of the agent's configuration; the agent itself when absent or `agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub exporter: Option<String>,
}
