//! Diagnostics of a host: one section, or a bundle of them as an archive.
//!
//! A bundle is a tar archive that is written while the host is being looked at. After
//! each section comes `results/SECTION.json`, a [`SectionReport`], and at the end
//! `manifest.json`, a [`Manifest`]: a bundle without it was cut off. Failures on the
//! way are told there; the status of the answer only says that it began.

use model::Timestamp;
use model::diagnose::{Outcome, Section};
use model::ids::HostId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OfDiagnostic, OfHost};
use crate::endpoint::{Raw, endpoints};

endpoints! {
    /// Look at one section of a host's diagnostics.
    get_host_diagnostic GetHostDiagnostic: GET "/v1/workspaces/{workspace}/hosts/{host}/diagnostics/{section}", needs HostDiagnose, path OfDiagnostic,
        query DiagnosticOptions, reply 200 Diagnostic, problems [Invalid, Conflict, HostNotLinked];
    /// Gather a bundle of a host's diagnostics, a tar archive that is written as it is gathered.
    get_host_diagnostics_bundle GetHostDiagnosticsBundle: GET "/v1/workspaces/{workspace}/hosts/{host}/diagnostics-bundle", needs HostDiagnose, path OfHost,
        query BundleOptions, reply 200 as "application/x-tar" Raw, problems [Invalid, Conflict, HostNotLinked];
}

/// Name of the last file of a bundle.
pub const MANIFEST: &str = "manifest.json";

/// Name of the file that says how a section came out.
pub fn result_file(section: Section) -> String {
    format!("results/{section}.json")
}

/// What is wanted of a section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiagnosticOptions {
    /// `units`, `journal`: this unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub unit: Option<String>,
    /// `journal`, `kernel`: the latest lines, 1 to 10000; 1000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub lines: Option<u32>,
    /// `network`: reach these by TCP, `host:port`, at most 16, with commas between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub targets: Option<String>,
}

/// What is wanted in a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BundleOptions {
    /// These sections, with commas between; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub sections: Option<String>,
    /// Of `units` and `journal`: this unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub unit: Option<String>,
    /// Of `journal` and `kernel`: the latest lines, 1 to 10000; 1000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub lines: Option<u32>,
    /// Of `network`: reach these by TCP, `host:port`, at most 16, with commas between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub targets: Option<String>,
}

/// How a section came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SectionReport {
    /// Which.
    pub section: Section,
    /// How.
    pub outcome: Outcome,
    /// What is missing and why; empty when nothing is.
    pub reason: String,
    /// How long the host took.
    pub duration_ms: u64,
    /// Bytes of its content.
    pub bytes: u64,
    /// SHA-256 of its content, hex.
    pub sha256: String,
}

/// One section, with its content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnostic {
    /// How it came out.
    pub report: SectionReport,
    /// The document, as the host wrote it, when the section is JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<serde_json::Value>,
    /// The text, when the section is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// The last file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// `loopback-diagnostics`.
    pub kind: String,
    /// 1.
    pub format: u32,
    /// Of which host.
    pub host: HostId,
    /// What it is called.
    pub host_name: String,
    /// When the gateway began to ask.
    pub begun_at: Timestamp,
    /// When it had its answers.
    pub ended_at: Timestamp,
    /// Every section that was asked for.
    pub sections: Vec<SectionReport>,
}
