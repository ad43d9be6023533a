//! Gauges that are counted when somebody asks.

use std::collections::BTreeMap;

use crate::app::App;
use crate::view;

/// Counts hosts by the one word.
pub fn refresh(app: &App) {
    let now = app.now();
    app.metrics.store(&app.store.stats());
    app.metrics.handshakes(&app.handshakes);
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    let tables = app.catalog.read();
    for id in tables.hosts.keys() {
        if let Some(host) = view::host(&tables, &app.links, *id, now) {
            *counts.entry(host.summary.as_str()).or_default() += 1;
        }
    }
    for word in [
        "unknown",
        "connected",
        "late",
        "unreachable",
        "unconfirmed",
        "maintenance",
        "quarantined",
        "retired",
    ] {
        app.metrics
            .hosts(word, counts.get(word).copied().unwrap_or(0));
    }
}
