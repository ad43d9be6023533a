//! `damage`: bytes of the store's file that are not what was written.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{interrupt, product::Launch};
use gateway_store::testing::crash::Chance;

use super::support::{STORE, starts_or_refuses, verify_audit, world};
use crate::{Plan, api::Api, ledger::Book, table::Finding};

const PAGE: usize = 4096;

#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip(usize),
    Zero(usize),
    Cut(usize),
}

pub(super) fn abuse_43_damaged_store(plan: &Plan) -> Result<Finding> {
    let rounds = plan.rounds(60, 9) as usize;
    let world = world(plan, Launch::default())?;
    let mut api = Api::of(&world)?;
    let mut book = Book::open(&world)?;
    book.write_while(8, || {
        thread::sleep(Duration::from_secs(2));
        Ok(())
    })?;
    book.check_all()?;
    world.gateway().stop()?;
    let store = world.gateway().state().join(STORE);
    let good = fs::read(&store).context("read the store")?;
    let mut chance = Chance::new(43);
    let (mut refused, mut harmless) = (0, 0);
    for round in 0..rounds {
        // Pages that were ever written: the file grows in steps and is sparse at its end.
        let used: Vec<_> = (0..good.len() / PAGE)
            .filter(|page| {
                good[page * PAGE..(page + 1) * PAGE]
                    .iter()
                    .any(|&it| it != 0)
            })
            .collect();
        let page = used[chance.below(used.len())] * PAGE;
        let damage = match round % 3 {
            0 => Damage::Flip(page + chance.below(PAGE)),
            1 => Damage::Zero(page),
            _ => Damage::Cut(page),
        };
        let mut bytes = good.clone();
        match damage {
            Damage::Flip(at) => bytes[at] ^= 1 << chance.below(8),
            Damage::Zero(at) => bytes[at..at + PAGE].fill(0),
            Damage::Cut(at) => bytes.truncate(at),
        }
        fs::write(&store, &bytes)?;
        match starts_or_refuses(&world)? {
            Some(said) => {
                refused += 1;
                ensure!(
                    said.contains("loopback-gateway restore"),
                    "{damage:?}: it does not say what to do:\n{said}"
                );
            }
            None => {
                // It serves: then all of it is right.
                harmless += 1;
                api.disconnect();
                book.check_all()
                    .and_then(|()| verify_audit(&world))
                    .with_context(|| format!("{damage:?} was not noticed"))?;
                // Checking and auditing wrote; the copy to damage is still the good one.
                world.gateway().stop()?;
            }
        }
        ensure!(!interrupt::requested(), "interrupted");
    }
    fs::write(&store, &good)?;
    world.gateway().up()?;
    api.disconnect();
    book.check_all()?;
    ensure!(refused > 0, "no damage was found");
    let mut finding = Finding {
        lost: "nothing silently: what is served is whole, what is not whole is not served".into(),
        ..Finding::default()
    };
    finding
        .saw("exit code 1: \"the store is damaged ... loopback-gateway restore\"")
        .measured(format!(
            "{rounds} damaged files of {} KiB (a flipped bit, a zeroed page, a cut tail): {refused} \
             refused, {harmless} damaged in pages that hold nothing, 0 silently wrong",
            good.len() / 1024
        ));
    Ok(finding)
}
