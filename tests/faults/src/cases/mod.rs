//! The cases, in the order they are shown.

mod agent;
mod clock;
mod commands;
mod damage;
mod descriptors;
mod formats;
mod full;
mod images;
mod io;
mod kill;
mod pause;
mod power;
mod power_operations;
mod slow;
mod support;

use anyhow::Result;
use e2e::scenario::Needs;

use crate::{
    Plan,
    table::{Case, Finding},
};

/// All of them.
pub const ALL: &[Case] = &[
    case(
        "kill",
        &[39],
        "kill -9 at random moments under concurrent writers, and while it opens its store",
        kill::abuse_39_random_kills,
    ),
    case(
        "images",
        &[40],
        "power cuts: every prefix of the store's writes, what was not synced dropped, reordered, torn",
        images::abuse_40_crash_images,
    ),
    case(
        "power",
        &[40],
        "power cut of a real disk (XFS on a loop device) under concurrent writers",
        power::abuse_40_disk_cut,
    ),
    case(
        "full",
        &[41],
        "a full disk at every write path, and during the first start",
        full::abuse_41_disk_full,
    ),
    case(
        "io",
        &[42],
        "failed fsyncs, and writes and reads that end in EIO",
        io::abuse_42_io_errors,
    ),
    case(
        "damage",
        &[43],
        "flipped bytes, zeroed pages and cut tails of the store's file",
        damage::abuse_43_damaged_store,
    ),
    case(
        "clock",
        &[44],
        "the wall clock ten years ahead, an hour back, in steps, frozen; the monotonic clock elsewhere",
        clock::abuse_44_clocks,
    ),
    case(
        "pause",
        &[45],
        "SIGSTOP for longer than hosts may be silent, then SIGCONT",
        pause::abuse_45_stopped_process,
    ),
    case(
        "descriptors",
        &[45],
        "a flood of connections with few file descriptors",
        descriptors::abuse_45_out_of_descriptors,
    ),
    case(
        "slow",
        &[46],
        "every fdatasync takes 500 ms longer, under concurrent writers",
        slow::abuse_46_slow_disk,
    ),
    case(
        "commands",
        &[],
        "gateway and agents are killed at random moments while commands run on four hosts",
        commands::random_kills,
    ),
    case(
        "commands-burst",
        &[],
        "the gateway, now and then agents, are killed while 500 commands are alive at once on four hosts",
        commands::killed_in_a_burst,
    ),
    case(
        "commands-hosts",
        &[],
        "as `commands`, on booted hosts with the agent installed: systemd starts what was killed",
        commands::random_kills_on_hosts,
    )
    .needing(Needs::INSTALLED_HOSTS),
    case(
        "power-operations",
        &[],
        "the gateway is killed at any moment of operations on power, whose controller loses answers",
        power_operations::killed_at_every_step,
    )
    .needing(Needs::PLUGINS),
    case(
        "agent-kill",
        &[39],
        "the agent is killed before each change of its state: joining, linking, renewing",
        agent::killed_at_every_step,
    ),
    case(
        "agent-disk",
        &[41, 42],
        "the agent's disk is full, and answers with EIO",
        agent::refusing_disk,
    ),
    case(
        "formats",
        &[47],
        "a store of a later release, an empty one, and a file that is no store",
        formats::abuse_47_foreign_formats,
    ),
];

const fn case(
    name: &'static str,
    abuse: &'static [u8],
    injects: &'static str,
    run: fn(&Plan) -> Result<Finding>,
) -> Case {
    Case {
        name,
        abuse,
        injects,
        needs: Needs::PROCESSES,
        run,
    }
}

impl Case {
    const fn needing(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }
}
