//! What plugins of Loopback are written with, in Rust.
//!
//! A plugin is a type with a configuration ([`Plugin`]) and what its kind asks for:
//!
//! | feature | trait | function | macro |
//! |---|---|---|---|
//! | `installer` | `installer::Installer` | `render` | `export_installer!` |
//! | `notifier` | `notifier::Notifier` | `deliver` | `export_notifier!` |
//! | `policy` | `policy::Policy` | `decide` | `export_policy!` |
//! | `power` | `power::Provider` | `observe`, `begin` and more | `export_power_provider!` |
//!
//! A plugin of any kind may also tell how it is: [`health::Health`] and `export_health!`.
//!
//! The macro makes a component of the type: it answers `describe` with the JSON Schema of the
//! configuration, reads and checks configurations, and writes panics to the plugin's log, with
//! their place, before the call fails.
//!
//! Functions get what they work on as arguments, and what they do goes through a trait
//! (`host::Host`), so their tests are native: `cargo test` needs neither a gateway nor WASM. See
//! `testing`.
//!
//! ```
//! # #[cfg(feature = "policy")] mod example {
//! use loopback_plugin_sdk::{Plugin, policy::{Policy, Reason, Request, Verdict}};
//! # use loopback_plugin_sdk::{schemars, serde};
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! # #[serde(crate = "loopback_plugin_sdk::serde")]
//! # #[schemars(crate = "loopback_plugin_sdk::schemars")]
//! struct Config {
//!     /// Who may do nothing.
//!     barred: Vec<String>,
//! }
//!
//! struct Barred;
//!
//! impl Plugin for Barred {
//!     type Config = Config;
//! }
//!
//! impl Policy for Barred {
//!     fn decide(config: &Config, request: Request) -> Verdict {
//!         if config.barred.contains(&request.subject.name) {
//!             return Verdict::Deny(Reason::new("barred", "ask the owner"));
//!         }
//!         Verdict::Abstain
//!     }
//! }
//!
//! loopback_plugin_sdk::export_policy!(Barred);
//! # }
//! ```

mod bindings;
mod config;
mod error;
#[doc(hidden)]
pub mod glue;
pub mod health;
pub mod log;
mod plugin;

#[cfg(any(feature = "notifier", feature = "power"))]
pub mod host;
#[cfg(any(feature = "notifier", feature = "power"))]
pub mod http;
#[cfg(feature = "installer")]
pub mod installer;
#[cfg(feature = "notifier")]
pub mod notifier;
#[cfg(feature = "policy")]
pub mod policy;
#[cfg(feature = "power")]
pub mod power;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use bindings::types::{Diagnostic, Error, ErrorKind, Kv, Severity};
pub use plugin::{NoConfig, Plugin};
pub use {schemars, serde, serde_json};
