//! The stories, one file each. A story reads top to bottom as what a person would do and see; what
//! several need lives in [`crate::product`].

mod lab;

use crate::scenario::{Needs, Scenario};

/// All scenarios, in the order they are shown.
pub const ALL: &[Scenario] = &[Scenario {
    name: "lab",
    shows: "booted hosts with power, plug and packet loss; nothing left behind",
    needs: Needs::HOSTS,
    run: lab::run,
}];
