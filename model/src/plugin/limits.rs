//! How much of the gateway a call may take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bounds of one call. Each call has all of them, always; what an operator says replaces the
/// default, within what is sensible on any machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// From the start of the call to its end, waiting included. 10 to 300,000.
    pub wall_ms: u32,
    /// Computing alone. 10 to 60,000.
    pub cpu_ms: u32,
    /// Of all memories together. 1 MiB to 512 MiB.
    pub memory_bytes: u64,
    /// Calls from the plugin into the gateway. 1 to 1,000,000.
    pub host_calls: u32,
    /// HTTP requests. 0 to 1,000.
    pub http_requests: u32,
    /// Bodies sent and received, together. 0 to 64 MiB.
    pub http_bytes: u64,
    /// Datagrams sent and received. 0 to 10,000.
    pub datagrams: u32,
    /// Log lines' bytes. 0 to 1 MiB.
    pub log_bytes: u32,
    /// Bytes of what the call returns. 1 KiB to 16 MiB.
    pub return_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_ms: 10_000,
            cpu_ms: 1_000,
            // A Python interpreter takes about 40 MiB of it before its first line.
            memory_bytes: 128 << 20,
            host_calls: 10_000,
            http_requests: 20,
            http_bytes: 8 << 20,
            datagrams: 200,
            log_bytes: 64 << 10,
            return_bytes: 2 << 20,
        }
    }
}

impl Limits {
    /// The name of a limit that is out of its range, with the range.
    pub fn out_of_range(&self) -> Option<(&'static str, u64, u64)> {
        let checks = [
            ("wall_ms", u64::from(self.wall_ms), 10, 300_000),
            ("cpu_ms", u64::from(self.cpu_ms), 10, 60_000),
            ("memory_bytes", self.memory_bytes, 1 << 20, 512 << 20),
            ("host_calls", u64::from(self.host_calls), 1, 1_000_000),
            ("http_requests", u64::from(self.http_requests), 0, 1_000),
            ("http_bytes", self.http_bytes, 0, 64 << 20),
            ("datagrams", u64::from(self.datagrams), 0, 10_000),
            ("log_bytes", u64::from(self.log_bytes), 0, 1 << 20),
            (
                "return_bytes",
                u64::from(self.return_bytes),
                1 << 10,
                16 << 20,
            ),
        ];
        checks
            .into_iter()
            .find(|(_, value, least, most)| !(least..=most).contains(&value))
            .map(|(name, _, least, most)| (name, least, most))
    }
}

/// What an author thinks that calls take, where it is more than the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsWish {
    /// See [`Limits::wall_ms`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u32>,
    /// See [`Limits::cpu_ms`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u32>,
    /// See [`Limits::memory_bytes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// See [`Limits::http_requests`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_requests: Option<u32>,
}
