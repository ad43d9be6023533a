//! The rows: one experiment each.

mod agent_idle;
mod exec;
mod fan_out;
mod fleet_size;
mod gateway_idle;
mod growth;
mod links;
mod plugin_call;
mod plugins;
mod reads;
mod storm;
mod writes;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;

use crate::figure::Figure;

/// What every row gets.
#[derive(Debug)]
pub(crate) struct Bench {
    /// The release build of the gateway.
    pub(crate) gateway: PathBuf,
    /// The static agent.
    pub(crate) agent: PathBuf,
    /// A folder of components.
    pub(crate) plugins: PathBuf,
    /// How often ours and the peer are measured by turns.
    pub(crate) rounds: usize,
    /// Connections of the rows that compare connections.
    pub(crate) agents: usize,
}

/// An experiment one can ask for.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) measures: &'static str,
    pub(crate) run: fn(&Bench) -> Result<Vec<Figure>>,
}

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "links",
        measures: "memory per idle agent and CPU per new connection, beside mosquitto, NATS, bare quinn",
        run: links::run,
    },
    Row {
        name: "writes",
        measures: "durable writes through the API, beside bare redb with group commit",
        run: writes::run,
    },
    Row {
        name: "reads",
        measures: "authenticated reads through the API, beside bare axum",
        run: reads::run,
    },
    Row {
        name: "gateway-idle",
        measures: "memory of a gateway at rest beside MeshCentral, and how soon it answers after a start",
        run: gateway_idle::run,
    },
    Row {
        name: "agent-idle",
        measures: "size, memory and CPU of the static agent at rest, beside node_exporter and Salt",
        run: agent_idle::run,
    },
    Row {
        name: "agents",
        measures: "50,000 simulated agents on one gateway: memory and CPU",
        run: fleet_size::run,
    },
    Row {
        name: "storm",
        measures: "10,000 agents come back after a kill -9 of the gateway, and how the API fares",
        run: storm::run,
    },
    Row {
        name: "fan-out",
        measures: "a command that does nothing, to 10,000 simulated agents",
        run: fan_out::run,
    },
    Row {
        name: "fan-out-real",
        measures: "/bin/true on 50 real agents, beside 50 ssh at once and Salt",
        run: exec::fan_out,
    },
    Row {
        name: "exec",
        measures: "/bin/true on one host, beside asyncssh on an open connection",
        run: exec::latency,
    },
    Row {
        name: "output",
        measures: "1 GB of one command's output, beside ssh host cat",
        run: exec::output,
    },
    Row {
        name: "plugin-call",
        measures: "one call of a plugin, beside a bare typed call and fork and exec; loading from the cache",
        run: plugin_call::run,
    },
    Row {
        name: "plugins",
        measures: "20 plugins in a gateway: calls while agents beat, and how soon they are there after a start",
        run: plugins::run,
    },
    Row {
        name: "growth",
        measures: "what a host costs when there are ten times as many",
        run: growth::run,
    },
];

/// The default workspace's beat.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Time for `count` clients to connect, at a rate far below what any server here manages.
fn time_to_connect(count: usize) -> Duration {
    Duration::from_secs(60) + Duration::from_millis(20) * u32::try_from(count).unwrap_or(u32::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of connections and bytes"
)]
fn per(total: f64, count: usize) -> f64 {
    total / count as f64
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
