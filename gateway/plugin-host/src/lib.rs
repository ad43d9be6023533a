//! Runs plugins: sandboxed WASM components behind the contract in `wit/`.
//!
//! ```text
//!  bytes ──inspect──► what it is ──compile (a child)──► code ──dry run──► Loaded
//!                                     └── cache, authenticated                │
//!                                                                             ▼
//!  call ──► breaker ──► a place ──► a fresh Store, every limit set ──► answer without secrets
//!                                     │ what the plugin asks
//!                                     ▼
//!                            ports: secrets, egress, state
//! ```
//!
//! A [`Platform`] is what all plugins share. It turns bytes into a [`Loaded`] component. A
//! [`Plugin`] is a loaded component with what an operator decided about it; its methods are the
//! functions that components export. What a plugin does to the outside goes through [`ports`].
//!
//! Where to look: `contract` has the bindings and how each function is called, `host` what is
//! offered to plugins, `store` the one way in which a call is made and bounded, `plugin` what
//! stands around a call. To add a package to the contract see the head of `contract`.

pub mod inspect;
pub mod ports;
pub mod record;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

mod breaker;
mod cache;
mod call_log;
mod compile;
mod contract;
mod counts;
mod engine;
mod host;
mod limiter;
mod logs;
mod meter;
mod platform;
mod plugin;
mod reason;
mod scrub;
mod sign;
mod store;
mod surroundings;
mod wasi;

pub use compile::{CompileError, CompileLimits, compile_main};
pub use counts::{Counts, WITHIN};
pub use engine::Allocator;
pub use inspect::{InspectError, Inspected, inspect};
pub use logs::{Level, LogLine, LogPage};
pub use platform::{Descriptor, LoadError, Loaded, Options, Origin, Platform, PlatformError};
pub use plugin::{Plugin, Settings};
pub use reason::{Blame, CODES, CallError, Reason, Scope};
pub use surroundings::{Cancel, Clock, Invocation};

pub use contract::base::words::loopback::base::types::{Diagnostic, Kv, Severity};

/// What an installer plugin is asked and answers.
pub mod installer {
    pub use crate::contract::installer::exports::loopback::install::renderer::{Input, Rendered};
    pub use crate::contract::installer::loopback::install::types::Binary;
}

/// What a notifier plugin is given.
pub mod notifier {
    pub use crate::contract::notifier::exports::loopback::signal::sink::Event;
}

/// What a power provider is asked and answers.
pub mod power {
    pub use crate::contract::power::loopback::power::types::{
        Action, Begun, BootDevice, BootOnce, Cancelled, Found, FoundPage, Observation, Operation,
        Progress, Resumed, State, Step, Support, Supported, Target,
    };
}

/// What a policy plugin is asked and answers.
pub mod policy {
    pub use crate::contract::policy::exports::loopback::policy::authorizer::{Request, Verdict};
    pub use crate::contract::policy::loopback::policy::types::{Approval, Reason, Subject, Target};
}
