//! Plugins that judge whether something may be done now.

use crate::bindings::policy::exports::loopback::policy::authorizer;
use crate::bindings::policy::loopback::policy::types;
use crate::glue::{Adapter, prepare};
use crate::{Plugin, config, log};

pub use types::{Approval, Reason, Request, Subject, Target, Verdict};

/// A plugin that judges requests.
pub trait Policy: Plugin {
    /// Judges one. It has 250 ms, and when it fails the answer is no.
    fn decide(config: &Self::Config, request: Request) -> Verdict;
}

impl Reason {
    /// Why not: a stable word for programs, and what to do about it for the person who asked.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

impl Request {
    /// How many persons other than the caller have approved. Each counts once.
    pub fn approvers(&self) -> usize {
        let mut others: Vec<_> = self
            .approvals
            .iter()
            .map(|subject| subject.id.as_str())
            .filter(|id| *id != self.subject.id)
            .collect();
        others.sort_unstable();
        others.dedup();
        others.len()
    }
}

impl<P: Policy> authorizer::Guest for Adapter<P> {
    fn decide(request: Request) -> Verdict {
        prepare();
        match config::current() {
            Ok(config) => P::decide(&config, request),
            // Fails closed, and says why.
            Err(error) => {
                log::error(&error.message);
                Verdict::Deny(Reason::new("policy.config_invalid", error.message))
            }
        }
    }
}

/// Refuses a type that is no plugin of this kind where nothing is exported.
#[doc(hidden)]
pub fn fits<P: Policy>() {}

/// Makes a policy of a type that implements [`Policy`]. Once in a crate.
#[macro_export]
macro_rules! export_policy {
    ($plugin:ty) => {
        const _: () = {
            type Guest = $crate::glue::Adapter<$plugin>;
            #[cfg(target_family = "wasm")]
    $crate::glue::plugin::export_plugin_world!(Guest with_types_in $crate::glue::plugin);
            #[cfg(target_family = "wasm")]
    $crate::glue::policy::export_policy_world!(Guest with_types_in $crate::glue::policy);
            // Elsewhere there is nothing to export, and the type must fit all the same.
            #[cfg(not(target_family = "wasm"))]
            const _: fn() = $crate::policy::fits::<$plugin>;
        };
    };
}
