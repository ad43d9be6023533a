//! Takes this process' own pulse, so that a pause of its own is known for what it is
//! (see `gateway_core::pause`).

use std::sync::Arc;

use gateway_core::pause::BEAT;

use crate::app::App;

/// Runs until the gateway stops.
pub async fn run(app: Arc<App>) {
    let mut beat = tokio::time::interval(BEAT);
    // One beat after a pause, not one for each that was missed.
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = app.tasks.stop().cancelled() => return,
            _ = beat.tick() => {}
        }
        app.links.pulse();
    }
}
