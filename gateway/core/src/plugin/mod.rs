//! What becomes of an installed plugin: plain decisions about one record.
//!
//! ```text
//!             install
//!                │
//!                ▼        enable             quarantine
//!            installed ──────────► enabled ────────────► quarantined
//!                                  │  ▲  ▲                   │   │
//!                          disable │  └──┼──── enable ───────┘   │
//!                                  ▼     │ enable                │ disable
//!                                disabled ◄──────────────────────┘
//! ```
//!
//! Two things hold in every state and are what the tests of this module are about:
//! * what runs needs nothing that an operator has not seen: an upgrade that needs more is
//!   *held* beside what runs until somebody approves exactly that digest;
//! * what is enabled has everything it needs granted, and a configuration that it accepted
//!   itself. What would break that is refused, with what to do first.
//!
//! Whether a configuration is accepted is the plugin's own answer, so it comes in as an input
//! ([`Accepts`]); nothing is run here.

mod grant;
mod lifecycle;
mod version;

pub use grant::{GrantFault, check_grant};
pub use lifecycle::{Accepts, Package, Pending, Plugin, Refusal, State, Upgraded};
pub use version::older;

#[cfg(test)]
mod tests;
