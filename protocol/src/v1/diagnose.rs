//! A diagnosis of a host, on a stream that the gateway opens.
//!
//! ```text
//! gateway: Opening{Diagnose} ──►
//!                                ◄── Begun, Piece..., Ended   for each section, in the order asked
//!                                ◄── Done                     or Refused, alone
//! ```
//!
//! Nothing follows the request: a gateway that wants no more resets the stream.

use prost::{Enumeration, Message, Oneof};

/// Asks for a diagnosis.
#[derive(Clone, PartialEq, Message)]
pub struct DiagnoseRequest {
    /// Id of the host that is meant. Another one refuses.
    #[prost(string, tag = "1")]
    pub host: String,
    /// Generation of the host's identity that is meant. A host with a newer one
    /// refuses.
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    /// What is wanted, in this order.
    #[prost(message, repeated, tag = "3")]
    pub sections: Vec<DiagnoseSection>,
    /// For everything together; zero leaves it to the host.
    #[prost(uint32, tag = "4")]
    pub within_ms: u32,
}

/// One section that is wanted.
#[derive(Clone, PartialEq, Message)]
pub struct DiagnoseSection {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// `journal`, `units`: this unit.
    #[prost(string, tag = "2")]
    pub unit: String,
    /// `journal`, `kernel`: so many lines; zero leaves it to the host.
    #[prost(uint32, tag = "3")]
    pub lines: u32,
    /// `network`: reach these, as `host:port`.
    #[prost(string, repeated, tag = "4")]
    pub targets: Vec<String>,
}

/// One frame from the agent on the stream of a diagnosis.
#[derive(Clone, PartialEq, Message)]
pub struct DiagnoseReport {
    /// What it says.
    #[prost(oneof = "diagnose_report::Body", tags = "1, 2, 3, 4, 5")]
    pub body: Option<diagnose_report::Body>,
}

/// Parts of [`DiagnoseReport`].
pub mod diagnose_report {
    use super::*;

    /// What an agent says of a diagnosis.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// A section begins.
        #[prost(message, tag = "1")]
        Begun(SectionBegun),
        /// More of its content.
        #[prost(message, tag = "2")]
        Piece(SectionPiece),
        /// It ends.
        #[prost(message, tag = "3")]
        Ended(SectionEnded),
        /// All sections were told: the last report.
        #[prost(message, tag = "4")]
        Done(DiagnoseDone),
        /// There will be none: the last report.
        #[prost(message, tag = "5")]
        Refused(DiagnoseRefused),
    }
}

/// A section begins.
#[derive(Clone, PartialEq, Message)]
pub struct SectionBegun {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Some of a section's content, secrets removed.
#[derive(Clone, PartialEq, Message)]
pub struct SectionPiece {
    /// The bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
}

/// A section has ended.
#[derive(Clone, PartialEq, Message)]
pub struct SectionEnded {
    /// How it came out.
    #[prost(enumeration = "SectionOutcome", tag = "1")]
    pub outcome: i32,
    /// What is missing and why, in words, secrets removed.
    #[prost(string, tag = "2")]
    pub reason: String,
    /// How long it took.
    #[prost(uint32, tag = "3")]
    pub duration_ms: u32,
}

/// How a section came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum SectionOutcome {
    /// None that this version knows: read as failed.
    Unspecified = 0,
    /// It is all there.
    Ok = 1,
    /// Something is missing.
    Partial = 2,
    /// There is nothing.
    Failed = 3,
}

/// All sections were told.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct DiagnoseDone {}

/// There will be no diagnosis.
#[derive(Clone, PartialEq, Message)]
pub struct DiagnoseRefused {
    /// Why.
    #[prost(enumeration = "DiagnoseRefusal", tag = "1")]
    pub code: i32,
    /// Why, in words, with what to do.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Why a host declines a diagnosis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum DiagnoseRefusal {
    /// None that this version knows.
    Unspecified = 0,
    /// The request makes no sense.
    Invalid = 1,
    /// It is for another host or an older identity.
    NotMine = 2,
    /// Another one is under way.
    Busy = 3,
    /// The host cannot do this.
    Unsupported = 4,
}
