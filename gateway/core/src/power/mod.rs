//! Power: what is known of a host's, and operations on it.
//!
//! ```text
//!   request ──► Operation ──┬─► advance: what time and evidence decide
//!                           ├─► next: what is to be asked of whom ──► the gateway asks
//!                           └─◄ hear: what was answered ◄─────────────────┘
//! ```
//!
//! An [`operation::Operation`] is written down after every change and before anything leaves the
//! gateway; whatever crashes, it goes on from what is written. What happens again when it is done
//! again is submitted once: a submission whose answer is not known is looked into, never repeated.

pub mod bulk;
pub mod facts;
pub mod limits;
pub mod operation;
pub mod pace;
pub mod plan;

#[cfg(test)]
mod tests;

use model::Timestamp;
use model::power::PowerState;
use serde::{Deserialize, Serialize};

/// Why something did not go on, or did not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// A stable word.
    pub code: String,
    /// For people.
    pub message: String,
}

impl Trouble {
    /// With a word of the gateway's own.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

/// What a provider saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The state.
    pub state: PowerState,
    /// In the provider's word.
    pub raw: String,
    /// What changes with each boot, if it knows such a thing.
    pub boot_mark: Option<String>,
    /// When it answered.
    pub at: Timestamp,
}

/// What the host's own agent proves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Whether it is linked now.
    pub linked: bool,
    /// Since when, or until when.
    pub since: Option<Timestamp>,
    /// The boot that it told last.
    pub boot_id: Option<String>,
}
