//! `clock`: clocks that lie to the gateway, and to nobody else.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    interrupt,
    product::{Launch, World},
    scratch::Scratch,
    sh,
    tools::{self, Missing, tool},
    wait::{self, Look},
};

use super::{
    pause::set_heartbeat,
    support::{JOIN, Joined, assert_never_lost, join, open, world},
};
use crate::{Plan, api::Api, ledger::Book, table::Finding};

/// The gateway looks at its certificates once a minute.
const RENEWAL_LOOK: Duration = Duration::from_secs(60);

pub(super) fn abuse_44_clocks(plan: &Plan) -> Result<Finding> {
    let folder = Scratch::new()?;
    let clock = FakeClock::new(folder.path())?;
    let world = world(plan, clock.launch())?;
    let mut api = Api::of(&world)?;
    let mut book = Book::open(&world)?;
    set_heartbeat(&mut api, &book, 1_000)?;
    let agent = join(&world, "clock")?;
    let mut run = Run {
        world,
        api,
        agent,
        clock,
        hold: Duration::from_secs(if plan.short { 3 } else { 8 }),
    };
    let mut finding = Finding::default();

    run.holds("an hour back", "-1h", &mut book)?;
    run.holds("right again", "+0", &mut book)?;
    for step in 1..=5 {
        run.clock.set(&format!("-{step}s"))?;
        interrupt::pause(Duration::from_millis(300))?;
    }
    run.holds("five steps of a second back", "-5s", &mut book)?;
    let frozen = sh::ok(&["date", "-u", "+%F %T"], Duration::from_secs(5))?;
    run.holds("frozen", frozen.trim(), &mut book)?;
    run.world
        .step("with a frozen clock silence still counts", || {
            let other = join(&run.world, "silent")?;
            drop(other.agent);
            let gone = |host: &serde_json::Value| {
                host["id"] == *other.host && host["connectivity"] == "unreachable"
            };
            let found =
                run.world
                    .wait_host(&other.name, "unreachable", Duration::from_secs(20), gone)?;
            ensure!(found["id"] == *other.host);
            Ok(())
        })?;
    run.holds("ten years ahead", "+3650d", &mut book)?;
    if !plan.short {
        // Long enough for the gateway to renew its certificates in what will be the future.
        interrupt::pause(RENEWAL_LOOK + Duration::from_secs(5))?;
    }
    run.holds("right again", "+0", &mut book)?;
    let wait = if plan.short {
        JOIN
    } else {
        RENEWAL_LOOK + JOIN
    };
    let joined = Instant::now();
    run.world.step("newcomers join after all that", || {
        let newcomer = join_within(&run.world, "after", wait)?;
        assert_never_lost(&run.world, &newcomer.host)
    })?;
    let joined = joined.elapsed();
    assert_never_lost(&run.world, &run.agent.host)?;
    book.check_all()?;

    match monotonic(&mut run, &mut book) {
        Ok(()) => {
            finding.saw("after restarts with the monotonic clock years ahead, and back: as ever");
        }
        Err(error) => match error.downcast_ref::<Missing>() {
            Some(missing) => finding.skipped.push(missing.to_string()),
            None => return Err(error),
        },
    }
    finding.lost = format!(
        "nothing: no link ended, {} acknowledged changes are there",
        book.acknowledged()
    );
    finding
        .saw("agents stay connected whatever the wall clock says; reads and writes go on")
        .saw("tokens and certificates are judged by the clock as it is; certificates are dated back ten minutes; one made in what became the future is replaced within a minute")
        .measured(format!(
            "a newcomer joined {:.1} s after the clock was right again",
            joined.as_secs_f32()
        ));
    Ok(finding)
}

struct Run {
    // The order of fields is the order of their end.
    agent: Joined,
    api: Api,
    world: World,
    clock: FakeClock,
    hold: Duration,
}

impl Run {
    /// Sets the clock; for a while everything must be as ever.
    fn holds(&mut self, what: &str, clock: &str, book: &mut Book) -> Result<()> {
        self.clock.set(clock)?;
        let (world, api, agent) = (&self.world, &mut self.api, &self.agent);
        let hold = self.hold;
        world.step(&format!("the clock: {what}"), || {
            // A read answered proves that the clock was looked at.
            let now = api.read("/v1/health")?["now"].clone();
            book.write_while(2, || {
                let start = Instant::now();
                while start.elapsed() < hold {
                    let host = world.host(&agent.host)?;
                    ensure!(
                        host["connectivity"] == "connected",
                        "at {now} the agent is {}",
                        host["connectivity"]
                    );
                    interrupt::pause(Duration::from_millis(250))?;
                }
                Ok(())
            })?;
            assert_never_lost(world, &agent.host)?;
            let refusals = book.refusals();
            ensure!(refusals.is_empty(), "writers were refused: {refusals:?}");
            book.check()
        })
    }
}

/// Restarts in time namespaces: as after a reboot, the monotonic clock begins elsewhere.
fn monotonic(run: &mut Run, book: &mut Book) -> Result<()> {
    tools::ensure(&[tool("unshare", "util-linux")])?;
    let probe = [
        "unshare",
        "--time",
        "--monotonic",
        "1000",
        "--fork",
        "--",
        "true",
    ];
    if let Err(error) = sh::ok(&probe, Duration::from_secs(5)) {
        return Err(Missing(format!("this machine has no time namespaces: {error:#}")).into());
    }
    for offset in ["300000000", "1000"] {
        run.world.gateway().kill()?;
        run.world.gateway().relaunch(|launch| {
            launch.env.clear();
            let words = [
                "unshare",
                "--time",
                "--monotonic",
                offset,
                "--boottime",
                offset,
                "--fork",
                "--kill-child",
                "--",
            ];
            launch.wrap = words.map(str::to_owned).into();
        });
        run.api.disconnect();
        open(&run.world, &run.api)?;
        run.world
            .step(&format!("the monotonic clock {offset} s ahead"), || {
                run.world.wait_labelled("case", "clock", JOIN)?;
                book.check_all()
            })?;
    }
    // A stop would end `unshare` and not its child.
    run.world.gateway().kill()
}

fn join_within(world: &World, case: &str, limit: Duration) -> Result<Joined> {
    let start = Instant::now();
    wait::until("a newcomer to join", limit, || {
        match join(world, &format!("{case}-{}", start.elapsed().as_millis())) {
            Ok(joined) => Ok(Look::Ready(joined)),
            Err(error) => Ok(Look::NotYet(format!("{error:#}"))),
        }
    })
}

/// libfaketime, with a file that says what time it is.
struct FakeClock {
    library: PathBuf,
    file: PathBuf,
}

impl FakeClock {
    fn new(folder: &Path) -> Result<Self> {
        tools::ensure(&[tool("faketime", "faketime")])?;
        let folders = [
            "/usr/lib/x86_64-linux-gnu",
            "/usr/lib/aarch64-linux-gnu",
            "/usr/lib",
        ];
        let library = folders
            .iter()
            .map(|it| Path::new(it).join("faketime/libfaketime.so.1"))
            .find(|it| it.exists())
            .ok_or_else(|| Missing("libfaketime.so.1 is not where its package puts it".into()))?;
        let clock = Self {
            library,
            file: folder.join("clock"),
        };
        clock.set("+0")?;
        Ok(clock)
    }

    fn launch(&self) -> Launch {
        let env = [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            // Looked at every time: the clock is to step when it is told to.
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
            ("TZ", "UTC".into()),
        ];
        Launch {
            env: env.map(|(name, value)| (name.to_owned(), value)).into(),
            ..Launch::default()
        }
    }

    fn set(&self, clock: &str) -> Result<()> {
        // Replaced whole: a half-written time would be some time.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{clock}\n")).context("set the clock")?;
        fs::rename(&new, &self.file).context("set the clock")
    }
}
