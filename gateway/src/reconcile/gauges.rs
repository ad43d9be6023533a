//! Gauges that are counted when somebody asks.

use std::collections::BTreeMap;

use rustix::fs::statvfs;

use crate::app::App;
use crate::view;

/// Looks at everything that is not counted as it happens.
pub fn refresh(app: &App) {
    let now = app.now();
    app.metrics.frozen(app.frozen());
    let (commands, runs) = app.commands.counts();
    app.metrics.commands(commands, &runs);
    app.metrics.certificate("https", app.ca.https().not_after());
    app.metrics.certificate("authority", app.ca.active_until());
    if let Ok(disk) = statvfs(&app.config.state_dir) {
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        app.metrics.disk(bytes(disk.f_blocks), bytes(disk.f_bavail));
    }
    app.metrics.plugins().refresh(app);
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
