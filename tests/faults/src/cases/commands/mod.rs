//! `commands`, `commands-burst`, `commands-hosts`: gateway and agents die at random moments while
//! commands are made, delivered, started and reported. Every run writes a line into a file of its
//! host when it starts, so what happened is known without asking anybody; what the gateway says of
//! each run, its output included, is compared with that.
//!
//! * [`story`]: makes commands, and compares;
//! * [`fleet`]: agents as processes of this machine, or as units of booted hosts.

mod fleet;
mod story;

use std::{collections::hash_map::RandomState, fs, thread, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::{
    interrupt,
    product::{Launch, World},
    say,
    wait::{self, Look},
};

use self::{
    fleet::Fleet,
    story::{Order, States, Story, Told, make},
};
use super::support::{JOIN, UNLIMITED, world};
use crate::{
    Plan,
    table::{Finding, spread},
};

const HOSTS: u8 = 4;
/// A round lasts up to this long: from before the request leaves until after the result was taken.
const LIFE: Duration = Duration::from_millis(600);
/// Runs under way on one host at most, as docs/commands.md says.
const PER_HOST: u64 = 16;
/// Makers of a burst. The store puts what they write at the same time into one batch.
const MAKERS: usize = 16;
/// Between two kills of a burst: a part of its runs ends in it, never all.
const APART: Duration = Duration::from_millis(400);

/// Agents are processes.
pub(super) fn random_kills(plan: &Plan) -> Result<Finding> {
    let world = world(plan, quiet(""))?;
    let fleet = Fleet::of_processes(plan, &world, HOSTS)?;
    rounds(world, fleet, plan.rounds(200, 12))
}

/// Agents are units of booted hosts, whose systemd starts them again.
pub(super) fn random_kills_on_hosts(plan: &Plan) -> Result<Finding> {
    let world = World::with_hosts_and(&plan.programs, HOSTS, quiet(UNLIMITED))?;
    let fleet = Fleet::of_hosts(&world)?;
    rounds(world, fleet, plan.rounds(200, 6))
}

fn quiet(more: &str) -> Launch {
    Launch {
        settings: format!("{more}\n[log]\nfilter = \"warn\"\n"),
        ..Launch::default()
    }
}

fn seed() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    RandomState::new().build_hasher().finish()
}

fn rounds(world: World, fleet: Fleet, rounds: u32) -> Result<Finding> {
    let seed = seed();
    say::line(format_args!("  {rounds} rounds, seed {seed}"));
    let mut story = Story::begin(world, fleet, seed)?;
    for number in 1..=rounds {
        round(&mut story, number).with_context(|| format!("round {number} of seed {seed}"))?;
        if number % 50 == 0 {
            let made = story.made.len();
            say::line(format_args!("  round {number}: {made} commands made"));
        }
        ensure!(!interrupt::requested(), "interrupted");
    }
    let took = story.until_finished()?;
    let told = story.compare().with_context(|| format!("seed {seed}"))?;
    Ok(found(&story, &told, vec![took]))
}

/// A command or two; a kill somewhere in their lives; everything is started again.
fn round(story: &mut Story, round: u32) -> Result<()> {
    for number in 0..=story.chance.below(2) {
        let chance = &mut story.chance;
        let order = Order {
            key: format!("round-{round}-{number}"),
            code: chance.below(3),
            pause: Duration::from_millis(100 * chance.below(4) as u64),
            // Some are not valid long enough for a host that is away.
            valid_s: if chance.below(5) == 0 { 2 } else { 600 },
            long: chance.below(10) == 0,
            host: None,
            gate: None,
        };
        let mut api = story.api.clone();
        let made = make(&mut api, &story.place, order)?;
        story.note(made);
    }
    let life = story.moment(LIFE);
    thread::sleep(life);
    match story.chance.below(4) {
        0 | 1 => story.kill(true, 0),
        2 => {
            let agents = 1 + story.chance.below(usize::from(HOSTS));
            story.kill(false, agents)
        }
        _ => {
            let agents = 1 + story.chance.below(usize::from(HOSTS));
            story.kill(true, agents)
        }
    }
}

/// Five hundred commands at once: what a host takes runs, the rest waits for its turn.
pub(super) fn killed_in_a_burst(plan: &Plan) -> Result<Finding> {
    let (bursts, size, kills) = match plan.short {
        true => (1, 60, 3),
        false => (4, 500, 12),
    };
    let bursts = plan.rounds.unwrap_or(bursts);
    let seed = seed();
    say::line(format_args!("  {bursts} x {size} commands, seed {seed}"));
    let world = world(plan, quiet(""))?;
    let fleet = Fleet::of_processes(plan, &world, HOSTS)?;
    let mut story = Story::begin(world, fleet, seed)?;
    let mut took = Vec::new();
    let mut met = States::new();
    for number in 1..=bursts {
        let burst = burst(&mut story, number, size, kills);
        let (time, states) = burst.with_context(|| format!("burst {number} of seed {seed}"))?;
        took.push(time);
        for (state, count) in states {
            *met.entry(state).or_default() += count;
        }
    }
    let told = story.compare().with_context(|| format!("seed {seed}"))?;
    for state in ["queued", "started"] {
        ensure!(
            met[state] > 0,
            "no kill met a run that was {state}: {met:?}"
        );
    }
    let mut finding = found(&story, &told, took);
    let states = met.iter().map(|(state, count)| format!("{count} {state}"));
    finding.measured(format!(
        "{size} commands alive at once, {bursts} times; kills met runs of commands that were not finished: {}",
        states.collect::<Vec<_>>().join(", ")
    ));
    Ok(finding)
}

/// Makes them all while the gateway is killed; holds them until the last one is made; kills on
/// while they run. How long the rest took after the last kill, and how many runs the kills met in
/// which state.
fn burst(story: &mut Story, burst: u32, size: usize, kills: u32) -> Result<(Duration, States)> {
    let gate = format!("gate-{burst}");
    let orders = orders(story, burst, size, &gate);
    let share = size.div_ceil(MAKERS);
    thread::scope(|scope| -> Result<()> {
        let mut makers = Vec::new();
        for part in orders.chunks(share) {
            let (part, mut api, place) = (part.to_vec(), story.api.clone(), story.place.clone());
            makers.push(scope.spawn(move || -> Result<Vec<_>> {
                part.into_iter()
                    .map(|order| make(&mut api, &place, order))
                    .collect()
            }));
        }
        // Programs are started by this thread: they end with the one that starts them.
        while !makers.iter().all(|maker| maker.is_finished()) {
            let pause = story.moment(APART);
            interrupt::pause(pause)?;
            story.kill(true, 0)?;
        }
        for maker in makers {
            let made = maker.join().map_err(|_| anyhow!("a maker panicked"))??;
            made.into_iter().for_each(|made| story.note(made));
        }
        Ok(())
    })?;
    // What fits on the hosts has been started and is held there; the rest waits.
    wait::until(
        "all of them to be alive, and the hosts to be full",
        JOIN * 2,
        || {
            let (alive, runs) = (story.running()?, story.runs_by_state()?);
            let full = runs.get("started") == Some(&(u64::from(HOSTS) * PER_HOST));
            Ok(Look::when(alive == size && full, || {
                format!("{alive} alive, {runs:?}")
            }))
        },
    )?;
    for folder in story.fleet.folders(&story.world) {
        fs::write(folder.join(&gate), "").context("open the gate")?;
    }
    let mut met = States::new();
    for _ in 0..kills {
        let pause = story.moment(APART);
        interrupt::pause(pause)?;
        for (state, count) in story.runs_by_state()? {
            *met.entry(state).or_default() += count;
        }
        let agents = match story.chance.below(4) {
            0 => 1 + story.chance.below(usize::from(HOSTS)),
            _ => 0,
        };
        story.kill(true, agents)?;
    }
    Ok((story.until_finished()?, met))
}

fn orders(story: &mut Story, burst: u32, size: usize, gate: &str) -> Vec<Order> {
    let chance = &mut story.chance;
    let order = |number| Order {
        key: format!("burst-{burst}-{number}"),
        code: chance.below(3),
        pause: Duration::from_millis(100 * chance.below(3) as u64),
        valid_s: 3600,
        long: chance.below(10) == 0,
        // Half of them everywhere, half on one host.
        host: (chance.below(2) == 0).then(|| chance.below(usize::from(HOSTS))),
        gate: Some(gate.to_owned()),
    };
    (0..size).map(order).collect()
}

fn found(story: &Story, told: &Told, took: Vec<Duration>) -> Finding {
    let count = |state: &str| told.get(state).copied().unwrap_or(0);
    let mut finding = Finding {
        lost: format!(
            "nothing: of {} runs, {} ran, each once, each with its exit code and all of its output; {} \
             expired, and none of those ran",
            told.values().sum::<u32>(),
            count("exited"),
            count("expired"),
        ),
        ..Finding::default()
    };
    finding
        .saw("a run is told as started or sending until its host has said how it went")
        .measured(format!(
            "{} kills of the gateway, {} of agents; {} requests unanswered and repeated by their key",
            story.gateway_kills, story.agent_kills, story.unanswered
        ))
        .measured(spread("last kill to all runs final", took));
    finding
}
