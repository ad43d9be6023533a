//! `hostile-plugins`: ten policies that do harm whenever they are asked, in a real gateway with real
//! agents, asked by real requests for a minute.
//!
//! Every request that changes something in a workspace asks all of them at once. They fail, so the
//! requests are refused; that is all that may happen. Meanwhile hosts are looked at, reads are
//! timed, a notifier gets what happens, and what the gateway turns off is turned on again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{plugins::package, support::JOIN};
use crate::{
    product::{Agent, Cli, Launch, Programs, WORKSPACE, World},
    say, sh,
    wait::{self, Look},
};

/// What each does, and what an operator may see of it: the code of a reason, or a counter. A machine
/// that is busy may end a call by its time before it comes to that.
const GUESTS: [(&str, &[&str]); 10] = [
    ("spin", &["cpu_time"]),
    ("memory", &["memory"]),
    ("recurse", &["stack"]),
    ("recurse-widely", &["trap"]),
    ("storm", &["host_calls"]),
    ("wasi-storm", &["host_calls"]),
    ("flood", &["log_lines_dropped"]),
    ("giant", &["return_size", "memory"]),
    ("panic", &["trap"]),
    ("exit", &["exited"]),
];

const AGENTS: u32 = 3;
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long they are asked.
const FIRE: Duration = Duration::from_secs(60);
/// Who asks, at the same time.
const CALLERS: usize = 2;
/// Memory of one call.
const CALL_BYTES: u64 = 16 << 20;
/// Calls at once, of all plugins.
const CALLS: u64 = 16;
/// What the gateway may grow by: all places taken by calls that use all their memory, and as much
/// again as two of them for compiled code, logs and what an allocator keeps.
const GROWTH: u64 = (CALLS + 2) * CALL_BYTES;
/// Building guests, and compiling them with a debug build.
const SLOWLY: Duration = Duration::from_secs(300);

pub(super) fn run(programs: &Programs) -> Result<()> {
    let launch = Launch {
        settings: format!(
            "\n[agents]\nheartbeat = \"1s\"\n[plugins]\nsigned_only = false\ncalls = {CALLS}\n"
        ),
        ..Launch::default()
    };
    let world = World::here_with(programs, launch)?;
    let story = Story { world: &world };
    let guests = world.step("build the guests", build)?;
    let agents = world.step("agents are linked", || story.agents())?;
    world.step("a notifier that does its work", || {
        story.install(&guests.join("guest_notifier.wasm"), "good", &json!({}))
    })?;
    let calm = world.step("ten policies that do harm are enabled", || {
        let before = story.look(10)?;
        for (name, _) in GUESTS {
            let file = guests.join("guest_policy.wasm");
            story.install(&file, name, &json!({ "does": name }))?;
        }
        Ok(before)
    })?;
    let fire = world.step("they are asked for a minute", || story.fire())?;
    report(&calm, &fire);
    world.step(
        "the gateway is as large as before, and what it may lend",
        || {
            let most = calm.memory + GROWTH;
            ensure!(
                fire.memory <= most,
                "{} bytes; {most} were allowed",
                fire.memory
            );
            Ok(())
        },
    )?;
    world.step("no host was late", || {
        let late = fire.silence.saturating_sub(HEARTBEAT);
        ensure!(
            late < Duration::from_secs(1),
            "a heartbeat was {late:?} late"
        );
        story.nobody_was_late(agents.len())
    })?;
    world.step(
        "requests were refused, reads and the notifier answered",
        || {
            ensure!(fire.asked > 0, "nobody asked");
            ensure!(fire.allowed == 0, "{} requests passed", fire.allowed);
            let slow = percentile(&fire.reads, 99);
            ensure!(slow < Duration::from_secs(10), "reads took {slow:?}");
            let told = fire.seen.get("good").is_some_and(|seen| seen.answered > 0);
            ensure!(told, "the notifier did not answer");
            Ok(())
        },
    )?;
    world.step("an operator sees what each of them did", || {
        for (name, expected) in GUESTS {
            let seen = fire.seen.get(name).context("it is shown")?;
            let typed = expected.iter().any(|code| seen.words.contains(*code));
            ensure!(typed, "{name}: {:?}", seen.words);
        }
        Ok(())
    })?;
    world.step("disabled, they are gone", || {
        for (name, _) in GUESTS {
            story.cli(&["plugin", "disable", name])?;
        }
        world.token(&[]).map(drop)
    })
}

/// The components, from the sources beside the tests of the host.
pub(super) fn build() -> Result<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let target = std::path::absolute(target)?.join("hostile-guests");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args([
            "build",
            "--locked",
            "--release",
            "--target",
            "wasm32-wasip2",
        ])
        .args([
            "-p",
            "guest-policy",
            "-p",
            "guest-notifier",
            "-p",
            "guest-power",
        ])
        .current_dir(root.join("gateway/plugin-host/tests/guests"))
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let built = sh::run(&mut cargo, SLOWLY)?;
    ensure!(
        built.status.success(),
        "guests were not built; if the target is missing: rustup target add wasm32-wasip2\n{built}"
    );
    Ok(target.join("wasm32-wasip2/release"))
}

/// What was seen of a plugin while it ran, through all its lives.
#[derive(Debug, Default)]
struct Seen {
    /// Codes of reasons, and counters that are not nought.
    words: BTreeSet<String>,
    /// Calls that it answered since it was loaded last.
    answered: u64,
    quarantines: u32,
    reason: String,
}

/// What was measured.
#[derive(Debug, Default)]
struct Measured {
    /// Of the gateway, at most.
    memory: u64,
    /// The longest that any host was not heard.
    silence: Duration,
    reads: Vec<Duration>,
    asked: u32,
    allowed: u32,
    seen: BTreeMap<String, Seen>,
}

struct Story<'w> {
    world: &'w World,
}

impl Story<'_> {
    fn cli(&self, args: &[&str]) -> Result<String> {
        self.world.cli().text(args)
    }

    fn agents(&self) -> Result<Vec<Agent>> {
        let mut agents = Vec::new();
        for number in 0..AGENTS {
            let label = format!("number={number}");
            let token = self.world.token(&["--label", &label])?;
            agents.push(self.world.agent(&format!("agent-{number}"), &token)?);
        }
        for number in 0..AGENTS {
            self.world
                .wait_labelled("number", &number.to_string(), JOIN)?;
        }
        Ok(agents)
    }

    fn install(&self, component: &PathBuf, name: &str, config: &Value) -> Result<()> {
        let manifest = json!({
            "format": 1, "name": name, "version": "1.0.0", "description": "A guest of tests",
        });
        let bytes = fs::read(component).with_context(|| component.display().to_string())?;
        let folder = self.world.folder();
        let write = |suffix: &str, content: &[u8]| -> Result<String> {
            let path = folder.join(format!("{name}.{suffix}"));
            fs::write(&path, content)?;
            Ok(path.display().to_string())
        };
        let file = write("wasm", &package::given_manifest(&bytes, &manifest))?;
        self.cli(&["plugin", "install", &file])?;
        let grant = json!({
            "workspaces": "all",
            "limits": {
                "memory_bytes": CALL_BYTES, "cpu_ms": 50, "host_calls": 1000,
                "log_bytes": 4096, "return_bytes": 65536,
            },
        });
        let grant = write("grant.json", grant.to_string().as_bytes())?;
        self.cli(&["plugin", "grant", name, "-f", &grant])?;
        let config = write("config.json", config.to_string().as_bytes())?;
        self.cli(&["plugin", "configure", name, "-f", &config])?;
        self.cli(&["plugin", "enable", name])?;
        wait::until("the plugin to be ready", SLOWLY, || {
            let running = self.show(name)?["running"].clone();
            Ok(Look::when(running["status"] == "ready", || {
                running.to_string()
            }))
        })
    }

    fn show(&self, name: &str) -> Result<Value> {
        self.world.cli().json(&["plugin", "show", name])
    }

    /// Asks all policies for a minute, and looks meanwhile.
    fn fire(&self) -> Result<Measured> {
        // Threads have the command line, and not the world.
        let cli = self.world.cli();
        let (stop, asked, allowed) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let args = ["token", "create", "-w", WORKSPACE];
                        let Ok(output) = cli.run(&args) else {
                            continue;
                        };
                        asked.fetch_add(1, Ordering::Relaxed);
                        if output.status.success() {
                            allowed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            let watched = scope.spawn(|| {
                let mut seen = BTreeMap::new();
                while !stop.load(Ordering::Relaxed) {
                    tend(cli, &mut seen)?;
                }
                tend(cli, &mut seen)?;
                Ok::<_, anyhow::Error>(seen)
            });
            let began = Instant::now();
            let mut measured = Ok(Measured::default());
            while began.elapsed() < FIRE {
                match (self.look(1), &mut measured) {
                    (Ok(one), Ok(all)) => all.add(one),
                    (Err(error), measured) => {
                        *measured = Err(error);
                        break;
                    }
                    (Ok(_), Err(_)) => break,
                }
            }
            stop.store(true, Ordering::Relaxed);
            let seen = match watched.join() {
                Ok(seen) => seen?,
                Err(_) => bail!("who looks after plugins panicked"),
            };
            let mut measured = measured?;
            measured.seen = seen;
            measured.asked = asked.load(Ordering::Relaxed);
            measured.allowed = allowed.load(Ordering::Relaxed);
            Ok(measured)
        })
    }

    /// Reads the hosts so many times.
    fn look(&self, times: usize) -> Result<Measured> {
        let mut measured = Measured::default();
        for _ in 0..times {
            let asked = since_midnight();
            let began = Instant::now();
            let hosts = self.world.listed()?;
            measured.reads.push(began.elapsed());
            for host in &hosts {
                ensure!(host["connectivity"] == "connected", "not connected: {host}");
                let seen = host["last_seen_at"].as_str().context("it was seen")?;
                let seen = time_of_day(seen).context("a time")?;
                // By what was known when it was asked: the program's own start is not its matter.
                let silence = Duration::from_secs_f64((asked - seen).clamp(0.0, 3600.0));
                measured.silence = measured.silence.max(silence);
            }
            measured.memory = measured.memory.max(self.memory()?);
        }
        Ok(measured)
    }

    fn memory(&self) -> Result<u64> {
        let pid = self.world.gateway().pid().context("the gateway runs")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("the kernel counts memory")?.parse::<u64>()? << 10)
    }

    fn nobody_was_late(&self, agents: usize) -> Result<()> {
        let hosts = self.world.listed()?;
        ensure!(hosts.len() == agents, "{} hosts", hosts.len());
        for host in hosts {
            let id = host["id"].as_str().context("a host has an id")?;
            for entry in self.world.history(id)? {
                let kind = entry["event"]["kind"].as_str().unwrap_or_default();
                ensure!(kind != "late" && kind != "unreachable", "{entry}");
            }
        }
        Ok(())
    }
}

/// Looks at each plugin as an operator would, and turns on what was turned off.
fn tend(cli: &Cli, seen: &mut BTreeMap<String, Seen>) -> Result<()> {
    for name in GUESTS.iter().map(|(name, _)| *name).chain(["good"]) {
        let shown = cli.json(&["plugin", "show", name])?;
        let seen = seen.entry(name.to_owned()).or_default();
        let counters = shown["running"]["counters"].as_object();
        for (counter, count) in counters.into_iter().flatten() {
            if count.as_u64() > Some(0) {
                let word = counter.strip_prefix("failed.").unwrap_or(counter);
                seen.words.insert(word.to_owned());
            }
        }
        if let Some(answered) = shown["running"]["counters"]["answered"].as_u64() {
            seen.answered = answered;
        }
        if shown["state"] == "quarantined" {
            seen.quarantines += 1;
            let reason = shown["quarantine"]["reason"].as_str().unwrap_or_default();
            reason.clone_into(&mut seen.reason);
            let code = reason.strip_prefix('[').and_then(|it| it.split_once(']'));
            if let Some((code, _)) = code {
                seen.words.insert(code.to_owned());
            }
            cli.text(&["plugin", "enable", name])?;
        }
    }
    Ok(())
}

impl Measured {
    fn add(&mut self, other: Self) {
        self.memory = self.memory.max(other.memory);
        self.silence = self.silence.max(other.silence);
        self.reads.extend(other.reads);
    }
}

fn report(calm: &Measured, fire: &Measured) {
    say::line(format_args!(
        "  {:16} {:12} what the operator saw",
        "guest", "quarantined"
    ));
    for (name, seen) in &fire.seen {
        let usual = ["answered", "running", "cpu_ms", "wall_ms"];
        let words = seen.words.iter().map(String::as_str);
        let words: Vec<_> = words.filter(|word| !usual.contains(word)).collect();
        say::line(format_args!(
            "  {name:16} {:<12} {}; {}",
            seen.quarantines,
            words.join(" "),
            seen.reason
        ));
    }
    for (when, measured) in [("before", calm), ("meanwhile", fire)] {
        say::line(format_args!(
            "  {when:10} memory {} MiB, longest silence of a host {:?}, reads p50 {:?} p99 {:?} of {}",
            measured.memory >> 20,
            measured.silence,
            percentile(&measured.reads, 50),
            percentile(&measured.reads, 99),
            measured.reads.len(),
        ));
    }
    say::line(format_args!(
        "  {} requests, all refused: {}",
        fire.asked,
        fire.allowed == 0
    ));
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(place).copied().unwrap_or_default()
}

const DAY: f64 = 24.0 * 3600.0;

fn since_midnight() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64() % DAY
}

/// Seconds since midnight of a time as the API writes it, as in `2027-01-01T12:00:00.123Z`.
fn time_of_day(text: &str) -> Option<f64> {
    let (_, time) = text.trim_end_matches('Z').split_once('T')?;
    let mut parts = time.split(':').map(str::parse::<f64>);
    let mut next = || parts.next()?.ok();
    Some(next()? * 3600.0 + next()? * 60.0 + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_api_are_read() {
        assert_eq!(time_of_day("2027-01-01T01:02:03.5Z"), Some(3723.5));
        assert_eq!(time_of_day("soon"), None);
    }

    #[test]
    fn percentiles_are_of_what_there_is() {
        let times: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 99), Duration::from_millis(99));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
