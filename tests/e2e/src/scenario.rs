//! Named scenarios: what they need, how they are run, how their steps and verdicts are printed.

use std::{
    cell::Cell,
    fmt,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    interrupt,
    lab::Lab,
    product::Programs,
    say,
    tools::{self, Missing, tool},
};

/// A story with a verdict.
#[derive(Debug)]
pub struct Scenario {
    /// What one types to run it.
    pub name: &'static str,
    /// What it shows, in a line.
    pub shows: &'static str,
    /// What it cannot do without.
    pub needs: Needs,
    /// Which cases of `docs/abuse.md` it covers.
    pub cases: &'static [u8],
    /// The story. It fails by returning an error.
    pub run: fn(&Programs) -> Result<()>,
}

/// What a scenario cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Booted hosts, so root.
    pub hosts: bool,
    /// The gateway, the agent and the CLI, built.
    pub product: bool,
    /// A signed release folder with static agents.
    pub release: bool,
    /// A user-mode emulator for the other architecture.
    pub emulator: bool,
    /// Prometheus.
    pub prometheus: bool,
    /// Components of plugins.
    pub plugins: bool,
    /// A registry for OCI images, and components written in Rust to put there.
    pub registry: bool,
}

impl Needs {
    /// Nothing at all.
    pub const NOTHING: Self = Self {
        hosts: false,
        product: false,
        release: false,
        emulator: false,
        prometheus: false,
        plugins: false,
        registry: false,
    };
    /// Only the lab.
    pub const HOSTS: Self = Self {
        hosts: true,
        product: false,
        release: false,
        emulator: false,
        prometheus: false,
        plugins: false,
        registry: false,
    };
    /// Gateway, agent and CLI as processes of this machine.
    pub const PROCESSES: Self = Self {
        hosts: false,
        product: true,
        release: false,
        emulator: false,
        prometheus: false,
        plugins: false,
        registry: false,
    };
    /// Hosts that install a released agent.
    pub const INSTALLED_HOSTS: Self = Self {
        hosts: true,
        product: true,
        release: true,
        emulator: false,
        prometheus: false,
        plugins: false,
        registry: false,
    };
    /// An agent of another architecture.
    pub const EMULATED: Self = Self {
        hosts: false,
        product: true,
        release: true,
        emulator: true,
        prometheus: false,
        plugins: false,
        registry: false,
    };

    /// Hosts that install a released agent, and a Prometheus.
    pub const MONITORED_HOSTS: Self = Self {
        prometheus: true,
        ..Self::INSTALLED_HOSTS
    };

    /// Hosts that install a released agent, and plugins that turn them on and off.
    pub const POWERED_HOSTS: Self = Self {
        plugins: true,
        ..Self::INSTALLED_HOSTS
    };

    /// Gateway and CLI as processes of this machine, and plugins.
    pub const PLUGINS: Self = Self {
        plugins: true,
        ..Self::RELEASED_PROCESSES
    };
    /// Gateway and CLI as processes of this machine, and a registry.
    pub const REGISTRY: Self = Self {
        registry: true,
        ..Self::PROCESSES
    };
    /// Processes of this machine, and a release that hosts could fetch.
    pub const RELEASED_PROCESSES: Self = Self {
        release: true,
        ..Self::PROCESSES
    };

    /// What two of them need together.
    pub fn and(self, other: Self) -> Self {
        Self {
            hosts: self.hosts || other.hosts,
            product: self.product || other.product,
            release: self.release || other.release,
            emulator: self.emulator || other.emulator,
            prometheus: self.prometheus || other.prometheus,
            plugins: self.plugins || other.plugins,
            registry: self.registry || other.registry,
        }
    }

    /// Whether this machine can give it; installs what is missing where it may.
    pub fn met(self) -> Result<(), Missing> {
        if self.hosts {
            Lab::available()?;
        }
        if self.emulator {
            tools::ensure(&[tool("qemu-aarch64-static", "qemu-user-static")])?;
        }
        if self.prometheus {
            tools::ensure(&[tool("prometheus", "prometheus"), tool("curl", "curl")])?;
        }
        if self.registry {
            tools::unpacked("docker-registry", "docker-registry")?;
        }
        Ok(())
    }
}

/// How a scenario ended.
#[derive(Debug)]
pub enum Verdict {
    /// It showed what it promises.
    Passed,
    /// It did not; the text says where.
    Failed(String),
    /// It could not be tried; the text says why.
    Skipped(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("PASS"),
            Self::Failed(why) => write!(f, "FAIL: {why}"),
            Self::Skipped(why) => write!(f, "SKIPPED: because {why}"),
        }
    }
}

impl Scenario {
    /// The same, covering these cases of `docs/abuse.md`.
    pub const fn covering(mut self, cases: &'static [u8]) -> Self {
        self.cases = cases;
        self
    }

    /// Runs the scenario, printing its steps and its verdict.
    pub fn play(&self, programs: &Programs) -> (Verdict, Duration) {
        say::line(format_args!("\n=== {}: {}", self.name, self.shows));
        let start = Instant::now();
        let verdict = match self.needs.met() {
            Err(missing) => Verdict::Skipped(missing.to_string()),
            Ok(()) => match interrupt::listen().and_then(|()| (self.run)(programs)) {
                Ok(()) => Verdict::Passed,
                // What a story found out on its way that it cannot have.
                Err(error) => match error.downcast_ref::<Missing>() {
                    Some(missing) => Verdict::Skipped(missing.to_string()),
                    None => Verdict::Failed(format!("{error:#}")),
                },
            },
        };
        let took = start.elapsed();
        say::line(format_args!(
            "--- {}: {verdict} ({:.1} s)",
            self.name,
            took.as_secs_f32()
        ));
        (verdict, took)
    }
}

/// One step of a story: prints what it does, and how long it took once it is done.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    thread_local! {
        static DEPTH: Cell<usize> = const { Cell::new(0) };
    }
    let depth = DEPTH.replace(DEPTH.get() + 1);
    let start = Instant::now();
    let result = work();
    DEPTH.set(depth);
    let mark = if result.is_ok() { "ok  " } else { "FAIL" };
    let indent = "  ".repeat(depth);
    say::line(format_args!(
        "  {mark} {:6.2} s  {indent}{what}",
        start.elapsed().as_secs_f32()
    ));
    result.map_err(|error| error.context(what.to_owned()))
}
