//! What happens, told to other systems through notifier plugins.
//!
//! ```text
//! commit ──► outbox: the same batch carries the event ──► catalog (in the order of commits)
//!                                                              │ one task per notifier
//!                                                              ▼
//!                                             plugin ──► settled: cursor on, or dead letter
//! ```
//!
//! An event is written in the batch that makes it true, so it exists exactly if what it tells
//! happened, whatever crashes. [`outbox`] derives it from what the batch carries anyway (a host's
//! history and audit entries): nobody who changes something has to remember it,
//! and nothing is written while no notifier is enabled.

pub mod dead;
pub mod delivery;
pub mod outbox;
pub mod queue;
pub mod records;

use std::sync::Arc;

use crate::app::App;

/// Begins to look after notifiers. Until it is known which are enabled, events are kept for
/// those that were.
pub fn spawn(app: &Arc<App>) {
    let known = !app.catalog.read().sinks.is_empty();
    app.outbox.set_wanted(known);
    let notifiers = app.notifiers.subscribe();
    app.tasks
        .spawn_critical("signals", delivery::run(Arc::clone(app), notifiers));
}
