//! A scrape: the gateway asks for metrics, of the agent itself or of an exporter on
//! the host, and the text comes back on the same stream.

use prost::{Enumeration, Message, Oneof};

/// Asks for metrics.
#[derive(Clone, PartialEq, Message)]
pub struct ScrapeRequest {
    /// Id of the host that is meant. Another one refuses.
    #[prost(string, tag = "1")]
    pub host: String,
    /// Generation of the host's identity that is meant.
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    /// Name of the exporter in the agent's configuration; empty for what the agent
    /// samples itself.
    #[prost(string, tag = "3")]
    pub exporter: String,
    /// The gateway's time.
    #[prost(int64, tag = "4")]
    pub server_time_ms: i64,
    /// Answer within this time.
    #[prost(uint32, tag = "5")]
    pub deadline_ms: u32,
    /// Most bytes of text that are accepted.
    #[prost(uint64, tag = "6")]
    pub max_bytes: u64,
}

/// One frame from the agent on a scrape's stream.
#[derive(Clone, PartialEq, Message)]
pub struct ScrapeReply {
    /// What it says.
    #[prost(oneof = "scrape_reply::Body", tags = "1, 2")]
    pub body: Option<scrape_reply::Body>,
}

/// Parts of [`ScrapeReply`].
pub mod scrape_reply {
    use super::*;

    /// What an agent says to a scrape.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// The next piece of the text. Pieces may end within a line.
        #[prost(message, tag = "1")]
        Text(ScrapeText),
        /// How it ended: the last frame.
        #[prost(message, tag = "2")]
        Ended(ScrapeEnded),
    }
}

/// A piece of the text.
#[derive(Clone, PartialEq, Message)]
pub struct ScrapeText {
    /// The bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
}

/// How a scrape ended. Text that came before counts only with [`ScrapeStatus::Ok`].
#[derive(Clone, PartialEq, Message)]
pub struct ScrapeEnded {
    /// How.
    #[prost(enumeration = "ScrapeStatus", tag = "1")]
    pub status: i32,
    /// Why not, in words.
    #[prost(string, tag = "2")]
    pub message: String,
    /// What the text is written in.
    #[prost(enumeration = "ScrapeFormat", tag = "3")]
    pub format: i32,
}

/// How a scrape ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum ScrapeStatus {
    /// In no way that this version knows: read as a failure.
    Unspecified = 0,
    /// The text is whole.
    Ok = 1,
    /// It is for another host or an older identity.
    NotMine = 2,
    /// The agent's configuration names no such exporter.
    NoSuchExporter = 3,
    /// The exporter takes no connection, or breaks it.
    Unreachable = 4,
    /// The text is larger than accepted.
    TooLarge = 5,
    /// The exporter did not answer in time.
    TimedOut = 6,
    /// The exporter answered with another status than 200.
    HttpStatus = 7,
    /// The answer is no HTTP, or its body no text of metrics.
    BadContent = 8,
    /// As many scrapes as the host takes are under way.
    Busy = 9,
}

/// What metrics are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum ScrapeFormat {
    /// Prometheus' text form, 0.0.4.
    Prometheus = 0,
    /// OpenMetrics, 1.0.0.
    OpenMetrics = 1,
}
