//! `kill`: the process dies at any moment and nothing acknowledged dies with it.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    interrupt,
    product::{Launch, World},
    say,
};
use gateway_store::testing::crash::Chance;

use super::support::{open, verify_audit, world};
use crate::{
    Plan,
    api::Api,
    ledger::Book,
    table::{Finding, spread},
};

const WRITERS: usize = 8;
/// Lives last up to this long: some requests of every writer, and often less than one.
const LIFE: Duration = Duration::from_millis(120);
/// Everything is listed and the audit chains are verified this often; in between only what is new
/// is looked at, or a thousand rounds would be spent on listing.
const LOOK_AT_ALL: u32 = 100;

pub(super) fn abuse_39_random_kills(plan: &Plan) -> Result<Finding> {
    let rounds = plan.rounds(50, 15);
    let seed = RandomState::new().build_hasher().finish();
    say::line(format_args!("  {rounds} rounds, seed {seed}"));
    let quiet = Launch {
        settings: "\n[log]\nfilter = \"warn\"\n".into(),
        ..Launch::default()
    };
    let world = world(plan, quiet)?;
    let mut run = Run {
        api: Api::of(&world)?,
        world,
        chance: Chance::new(seed),
        opens: Vec::new(),
        killed_while_opening: 0,
        hit: 0,
    };
    let mut book = Book::open(&run.world)?;
    let start = Instant::now();
    for round in 1..=rounds {
        run.round(&mut book).with_context(|| {
            let log = run.world.gateway().log_tail(20);
            format!("round {round} of seed {seed}; the gateway's log ends\n{log}")
        })?;
        if round % LOOK_AT_ALL == 0 || round == rounds {
            book.check_all()
                .with_context(|| format!("after round {round} of seed {seed}"))?;
            verify_audit(&run.world)?;
            say::line(format_args!(
                "  round {round}: {} acknowledged, {} kills hit a write, {:.0} s",
                book.acknowledged(),
                run.hit,
                start.elapsed().as_secs_f32()
            ));
        }
        ensure!(!interrupt::requested(), "interrupted");
    }
    let (unanswered, carried_out) = book.unanswered();
    let refusals = book.refusals();
    ensure!(refusals.is_empty(), "writers were refused: {refusals:?}");
    ensure!(run.hit > 0, "no kill hit a write: nothing was tried");
    let acknowledged = book.acknowledged();
    book.notices()?;
    let mut finding = Finding {
        lost: format!(
            "nothing: {acknowledged} acknowledged changes are there, none half done, one audit entry \
             each, both chains verify"
        ),
        ..Finding::default()
    };
    finding
        .saw("connections break; a repeat with the same idempotency key gives one object")
        .measured(format!(
            "{rounds} kills under {WRITERS} writers, {} hit writes in flight ({unanswered} requests \
             unanswered, {carried_out} of them carried out), {} more kills during opening",
            run.hit, run.killed_while_opening
        ))
        .measured(spread("process start to first answer", run.opens));
    Ok(finding)
}

struct Run {
    world: World,
    api: Api,
    chance: Chance,
    opens: Vec<Duration>,
    killed_while_opening: u32,
    hit: u32,
}

impl Run {
    /// A life of the gateway: it runs; writers write; it is killed, and opened, and looked at.
    fn round(&mut self, book: &mut Book) -> Result<()> {
        let before = book.lines_unanswered();
        let life = self.below(LIFE);
        let gateway = self.world.gateway();
        book.write_while(WRITERS, || {
            thread::sleep(life);
            gateway.kill()
        })?;
        self.hit += u32::from(book.lines_unanswered() > before);
        // Opening is a time of writing too.
        if self.chance.below(10) == 0 {
            self.world.gateway().begin()?;
            thread::sleep(self.below(self.opens.last().copied().unwrap_or(LIFE)));
            self.world.gateway().kill()?;
            self.killed_while_opening += 1;
        }
        self.opens.push(open(&self.world, &self.api)?);
        book.check()
    }

    fn below(&mut self, limit: Duration) -> Duration {
        let micros = usize::try_from(limit.as_micros()).unwrap_or(usize::MAX);
        Duration::from_micros(self.chance.below(micros) as u64)
    }
}
