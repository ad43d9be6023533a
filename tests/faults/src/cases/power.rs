//! `power`: a real disk loses its power under a running gateway.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{product::Launch, scratch::Scratch};
use gateway_store::testing::crash::Chance;

use super::support::{open, verify_audit, world};
use crate::{
    Plan,
    api::Api,
    ledger::Book,
    mount::Mount,
    table::{Finding, spread},
};

pub(super) fn abuse_40_disk_cut(plan: &Plan) -> Result<Finding> {
    let rounds = plan.rounds(20, 2);
    let folder = Scratch::new()?;
    let disk = Mount::xfs(&folder.join("disk"))?;
    let world = world(
        plan,
        Launch {
            state: Some(disk.path().join("state")),
            ..Launch::default()
        },
    )?;
    let mut api = Api::of(&world)?;
    let mut book = Book::open(&world)?;
    let mut chance = Chance::new(u64::from(std::process::id()));
    let mut opens = Vec::new();
    for round in 1..=rounds {
        let life = Duration::from_millis(20 + chance.below(300) as u64);
        // The disk first, the process right after it, as when both lose their power. In between
        // the gateway can acknowledge nothing: its next sync fails.
        book.write_while(8, || {
            thread::sleep(life);
            disk.cut()?;
            world.gateway().kill()
        })?;
        disk.power_up()?;
        opens.push(open(&world, &api)?);
        api.disconnect();
        book.check().with_context(|| format!("after cut {round}"))?;
    }
    book.check_all()?;
    verify_audit(&world)?;
    let (unanswered, carried_out) = book.unanswered();
    ensure!(book.acknowledged() > 0, "nothing was written");
    let mut finding = Finding {
        lost: format!(
            "nothing: {} acknowledged changes are there, none half done",
            book.acknowledged()
        ),
        ..Finding::default()
    };
    finding
        .saw("connections break; after the disk is back the gateway opens by itself")
        .measured(format!(
            "{rounds} cuts, {unanswered} requests unanswered, {carried_out} of them carried out"
        ))
        .measured(spread(
            "process start to first answer, on the remounted disk",
            opens,
        ));
    // The gateway has files open on the disk.
    drop(world);
    drop(disk);
    Ok(finding)
}
