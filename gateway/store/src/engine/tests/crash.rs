//! Power cuts at every moment of a store's life. `cargo xtask faults images` does
//! the same a few hundred times over.

use crate::testing::crash::Campaign;

#[tokio::test]
async fn abuse_40_after_any_power_cut_what_was_acknowledged_is_there_whole() {
    for seed in [1, 2] {
        let campaign = Campaign::record(seed, 12).await.unwrap();
        let images = campaign.run(seed, 1).await.unwrap();
        assert_eq!(images.opened, campaign.cuts() as u64);
        assert!(images.ahead > 0, "some cut fell between commit and answer");
        assert!(images.second_cuts > 0);
    }
}

#[tokio::test]
async fn abuse_40_a_disk_that_lies_about_syncs_is_found_out() {
    let campaign = Campaign::record(3, 12).await.unwrap().on_a_lying_disk();
    let found = campaign.run(3, 1).await.unwrap_err();
    assert!(found.contains("cut"), "{found}");
}
