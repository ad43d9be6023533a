//! `images`: what a power cut may leave of the store's file, thousands of times over.

use anyhow::{Context, Result, anyhow, ensure};
use e2e::interrupt;
use gateway_store::testing::crash::{Campaign, Images};

use crate::{Plan, table::Finding};

/// Groups of commits in each recorded life.
const STEPS: usize = 25;
/// Images at each place to cut.
const EACH: usize = 2;

pub(super) fn abuse_40_crash_images(plan: &Plan) -> Result<Finding> {
    let seeds = plan.rounds(100, 2);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .context("start a runtime for the store")?;
    let (mut cuts, mut all) = (0, Images::default());
    for seed in 0..u64::from(seeds) {
        let images = runtime.block_on(async {
            let campaign = Campaign::record(seed, STEPS).await?;
            cuts += campaign.cuts();
            campaign.run(seed, EACH).await
        });
        let images = images.map_err(|what| anyhow!("{what}"))?;
        all.opened += images.opened;
        all.ahead += images.ahead;
        all.second_cuts += images.second_cuts;
        ensure!(!interrupt::requested(), "interrupted");
    }
    let liar = runtime.block_on(async {
        let campaign = Campaign::record(0, STEPS).await?.on_a_lying_disk();
        campaign.run(0, EACH).await
    });
    ensure!(
        liar.is_err(),
        "a disk that lies about syncs was not found out: this checks nothing"
    );
    let mut finding = Finding {
        lost:
            "nothing: every image opens as the state after some commit, none older than the last \
               acknowledged one, whole, its audit chain unbroken"
                .into(),
        ..Finding::default()
    };
    finding
        .saw("a store that opens by itself, as after any crash")
        .measured(format!(
            "{} images of {cuts} cuts in {seeds} recorded lives, {} of them a commit ahead of its \
             acknowledgement; {} second cuts while an image was opened",
            all.opened, all.ahead, all.second_cuts
        ))
        .measured("a disk that confirms syncs without doing them is found out");
    Ok(finding)
}
