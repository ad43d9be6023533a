//! Loops that take no input: something changed or a timer fired, they read what
//! is, compare it with what should be, and act. Each is one critical task; what
//! it does it would do again after a crash.

pub mod events;
pub mod gauges;
pub mod housekeeping;
pub mod liveness;
pub mod pulse;

use std::sync::Arc;

use crate::app::App;

/// Starts them all.
pub fn spawn(app: &Arc<App>) {
    app.tasks
        .spawn_critical("reconcile.liveness", liveness::run(Arc::clone(app)));
    app.tasks
        .spawn_critical("reconcile.pulse", pulse::run(Arc::clone(app)));
    app.tasks
        .spawn_critical("reconcile.events", events::run(Arc::clone(app)));
    app.tasks
        .spawn_critical("reconcile.housekeeping", housekeeping::run(Arc::clone(app)));
    app.tasks
        .spawn_critical("link.steward", crate::link::steward::run(Arc::clone(app)));
}
