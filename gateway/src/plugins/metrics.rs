//! What Prometheus is told of plugins.
//!
//! Counted by the host of plugins and read when somebody asks, so a plugin that was replaced or
//! removed takes its figures with it. All are gauges for that reason; what counts up says so.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::app::App;
use crate::state::plugin_records::PluginStateV1;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLabel {
    plugin: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    plugin: String,
    outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WithinLabels {
    plugin: String,
    milliseconds: String,
}

/// Figures of plugins and notifications.
#[derive(Clone, Debug, Default)]
pub struct PluginMetrics {
    calls: Family<CallLabels, Gauge>,
    within: Family<WithinLabels, Gauge>,
    cpu_ms: Family<PluginLabel, Gauge>,
    running: Family<PluginLabel, Gauge>,
    quarantined: Family<PluginLabel, Gauge>,
    waiting: Gauge,
    lost: Gauge,
    failing: Family<PluginLabel, Gauge>,
    dead: Family<PluginLabel, Gauge>,
}

impl PluginMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "plugin_calls",
            "Calls of a plugin since it was loaded: answered, or failed for a reason",
            self.calls.clone(),
        );
        registry.register(
            "plugin_calls_within",
            "Calls of a plugin since it was loaded that answered within so many milliseconds",
            self.within.clone(),
        );
        registry.register(
            "plugin_cpu_milliseconds",
            "Computing time of a plugin since it was loaded",
            self.cpu_ms.clone(),
        );
        registry.register(
            "plugin_calls_running",
            "Calls of a plugin that go on",
            self.running.clone(),
        );
        registry.register(
            "plugin_quarantined",
            "Whether a plugin was turned off because it failed",
            self.quarantined.clone(),
        );
        registry.register(
            "events_waiting",
            "Events that some notifier does not have yet",
            self.waiting.clone(),
        );
        registry.register(
            "events_lost",
            "Events that did not fit into the batch that made them true",
            self.lost.clone(),
        );
        registry.register(
            "notifier_failing_milliseconds",
            "For how long a notifier has failed; 0 while it works",
            self.failing.clone(),
        );
        registry.register(
            "notifier_dead_letters",
            "Events that were given up for a notifier",
            self.dead.clone(),
        );
    }

    /// Looks at everything.
    pub fn refresh(&self, app: &App) {
        let now = app.now();
        for family in [
            &self.cpu_ms,
            &self.running,
            &self.quarantined,
            &self.failing,
            &self.dead,
        ] {
            family.clear();
        }
        self.calls.clear();
        self.within.clear();
        let tables = app.catalog.read();
        self.waiting.set(whole(tables.signals.len() as u64));
        self.lost.set(whole(app.outbox.lost()));
        for plugin in tables.plugins.values() {
            let label = || PluginLabel {
                plugin: plugin.name.to_string(),
            };
            let is_quarantined = matches!(plugin.state, PluginStateV1::Quarantined { .. });
            self.quarantined
                .get_or_create(&label())
                .set(i64::from(is_quarantined));
            let Some(instance) = app.plugins.ready(&plugin.name) else {
                continue;
            };
            for (name, value) in instance.counters() {
                let outcome = match name.as_str() {
                    "cpu_ms" => {
                        self.cpu_ms.get_or_create(&label()).set(whole(value));
                        continue;
                    }
                    "running" => {
                        self.running.get_or_create(&label()).set(whole(value));
                        continue;
                    }
                    "answered" => name,
                    other => match (
                        other.strip_prefix("failed."),
                        other.strip_prefix("within_ms."),
                    ) {
                        (Some(code), _) => code.to_owned(),
                        (None, Some(bound)) => {
                            let labels = WithinLabels {
                                plugin: plugin.name.to_string(),
                                milliseconds: bound.to_owned(),
                            };
                            self.within.get_or_create(&labels).set(whole(value));
                            continue;
                        }
                        (None, None) => continue,
                    },
                };
                let plugin = plugin.name.to_string();
                self.calls
                    .get_or_create(&CallLabels { plugin, outcome })
                    .set(whole(value));
            }
        }
        for (name, sink) in &tables.sinks {
            let label = PluginLabel {
                plugin: name.to_string(),
            };
            let failing = sink.failing_since.map(|since| now.since(since));
            let millis = failing.map_or(0, |failing| failing.as_millis());
            self.failing
                .get_or_create(&label)
                .set(i64::try_from(millis).unwrap_or(i64::MAX));
            self.dead.get_or_create(&label).set(whole(sink.dead));
        }
    }

    /// As if there was one of each, for whoever checks names.
    pub fn example(&self) {
        let plugin = || "example".to_owned();
        let outcome = "answered".to_owned();
        let labels = CallLabels {
            plugin: plugin(),
            outcome,
        };
        self.calls.get_or_create(&labels).set(0);
        let labels = WithinLabels {
            plugin: plugin(),
            milliseconds: "5".to_owned(),
        };
        self.within.get_or_create(&labels).set(0);
        for family in [
            &self.cpu_ms,
            &self.running,
            &self.quarantined,
            &self.failing,
            &self.dead,
        ] {
            family
                .get_or_create(&PluginLabel { plugin: plugin() })
                .set(0);
        }
    }
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
