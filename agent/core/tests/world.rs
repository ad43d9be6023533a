//! The machine against a small world: a gateway and a network on virtual time, driven
//! event by event. Stories first, then properties over random weather.

mod common;

use std::time::Duration;

use agent_core::{Action, Event, KeyChoice, Purpose, Rung, Standing, Waiting};
use common::{Answer, World};
use proptest::prelude::*;
use protocol::v1::{GoodbyeReason, RefusalCode};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_new_host_enrols_and_is_linked_over_udp() {
    let mut world = World::unenrolled();
    world.run(SECOND);
    assert_eq!(world.enrolments, 1);
    assert_eq!(world.rung(), Some(Rung::Udp));
}

#[test]
fn a_host_whose_udp_is_blocked_is_linked_over_the_websocket_within_seconds() {
    let mut world = World::enrolled();
    world.udp = Answer::Silent;
    world.run(5 * SECOND);
    assert_eq!(world.rung(), Some(Rung::WebSocket));
}

#[test]
fn udp_that_is_cut_under_a_link_is_replaced_within_ten_seconds() {
    // However slow the beat is.
    for seed in 0..200 {
        let mut world = World::enrolled().seeded(seed).beating(2 * MINUTE);
        world.run(MINUTE);
        assert_eq!(world.rung(), Some(Rung::Udp));
        world.udp = Answer::Silent;
        world.run(10 * SECOND);
        assert_eq!(world.rung(), Some(Rung::WebSocket), "seed {seed}");
    }
}

#[test]
fn the_link_moves_back_to_udp_and_makes_before_it_breaks() {
    let mut world = World::enrolled();
    world.udp = Answer::Silent;
    world.run(MINUTE);
    world.udp = Answer::Good;
    // The look in flight may still be the last of the silent ones.
    world.run_until(12 * MINUTE, |world| world.rung() == Some(Rung::Udp));
    assert_eq!(world.longest_gap_since_linked, Duration::ZERO);
    assert!(world.goodbyes.contains(&GoodbyeReason::CarrierChange));
    world.run(MINUTE);
    assert_eq!(world.open_links(), 1);
}

#[test]
fn a_network_that_was_down_at_boot_leaves_no_mark() {
    let mut world = World::enrolled();
    (world.udp, world.websocket) = (Answer::Fails, Answer::Fails);
    world.run(60 * MINUTE);
    assert!(matches!(
        world.agent.standing(),
        Standing::Waiting {
            why: Waiting::Unreachable,
            ..
        } | Standing::Trying(_)
    ));
    (world.udp, world.websocket) = (Answer::Good, Answer::Good);
    world.run(35 * SECOND);
    assert_eq!(world.rung(), Some(Rung::Udp));
}

#[test]
fn a_half_open_link_is_noticed_within_three_beats() {
    for seed in 0..50 {
        let mut world = World::enrolled().seeded(seed).beating(15 * SECOND);
        world.run(MINUTE);
        (world.udp, world.websocket) = (Answer::Silent, Answer::Silent);
        world.run(46 * SECOND);
        assert_eq!(world.rung(), None, "seed {seed}");
    }
}

#[test]
fn a_path_that_shakes_hands_and_then_drops_everything_does_not_hold_the_host_up() {
    let mut world = World::enrolled();
    world.udp = Answer::Mute;
    world.run(10 * SECOND);
    assert_eq!(world.rung(), Some(Rung::WebSocket));
}

#[test]
fn a_counter_is_announced_only_after_the_disk_has_it() {
    let mut world = World::enrolled();
    world.disk_ok = false;
    world.run(5 * MINUTE);
    assert!(world.rung().is_some(), "a full disk does not cost the link");
    assert!(world.counters_said.is_empty());
    world.disk_ok = true;
    world.run(2 * MINUTE);
    assert_eq!(world.counters_said, [world.disk_counter]);
}

#[test]
fn a_counter_is_not_announced_while_an_older_one_may_still_arrive() {
    let mut world = World::enrolled();
    world.udp = Answer::Silent;
    world.run(5 * SECOND);
    assert_eq!(world.rung(), Some(Rung::WebSocket));
    world.udp = Answer::Mute;
    let hellos = world.hellos;
    world.run_until(20 * MINUTE, |world| world.hellos > hellos);
    world.advance();
    world.run(SECOND);
    assert_eq!(world.counters_said.len(), 1, "that of the welcome");
    world.run(3 * MINUTE);
    assert_eq!(world.counters_said.last(), Some(&world.disk_counter));
    assert_eq!(world.counters_said.len(), 2);
    assert_eq!(world.misdeeds, Vec::<String>::new());
}

#[test]
fn a_bad_token_is_shown_slowly_and_a_good_one_ends_it() {
    let mut world = World::unenrolled();
    world.refusal = Some((RefusalCode::TokenInvalid, Duration::ZERO));
    world.run(60 * MINUTE);
    assert!(
        (2..30).contains(&world.enrolments),
        "{} requests in an hour",
        world.enrolments
    );
    world.refusal = None;
    world.run(31 * MINUTE);
    assert_eq!(world.rung(), Some(Rung::Udp));
}

#[test]
fn a_retired_host_asks_at_most_once_an_hour_and_keeps_its_identity() {
    let mut world = World::enrolled();
    world.refusal = Some((RefusalCode::HostRetired, Duration::ZERO));
    world.run(24 * 60 * MINUTE);
    assert!(world.hellos <= 25, "{} hellos in a day", world.hellos);
    assert!(matches!(
        world.agent.standing(),
        Standing::Waiting {
            why: Waiting::Retired,
            ..
        }
    ));
    assert!(world.agent.identity().is_some());
}

#[test]
fn an_expired_certificate_is_renewed_on_the_connection_that_refused_it() {
    let mut world = World::enrolled();
    world.certificate_expired = true;
    world.run(10 * SECOND);
    assert_eq!(world.renewals, [KeyChoice::Current]);
    assert_eq!(world.rung(), Some(Rung::Udp));
}

#[test]
fn a_certificate_that_is_too_old_even_for_that_is_asked_about_slowly() {
    let mut world = World::enrolled();
    world.certificate_expired = true;
    world.renewal_closes = true;
    world.run(60 * MINUTE);
    assert!(world.hellos < 30, "{} hellos in an hour", world.hellos);
    assert!(world.agent.identity().is_some());
}

#[test]
fn a_copy_that_gets_no_welcome_takes_the_identity_that_it_is_offered() {
    let mut world = World::enrolled();
    world.clone_suspected = true;
    world.run(10 * SECOND);
    assert_eq!(world.renewals, [KeyChoice::Pending]);
    assert_eq!(world.rung(), Some(Rung::Udp));
}

#[test]
fn a_certificate_is_renewed_before_half_of_its_life_is_over() {
    for seed in 0..20 {
        let mut world = World::enrolled().seeded(seed);
        world.run(world.certificate_life * 39 / 100);
        assert!(world.renewals.is_empty());
        world.run(world.certificate_life * 11 / 100);
        assert_eq!(world.renewals, [KeyChoice::Current]);
        assert_eq!(world.longest_gap_since_linked, Duration::ZERO);
    }
}

#[test]
fn a_certificate_that_is_due_the_moment_it_comes_is_renewed_slowly() {
    let mut world = World::enrolled();
    let life = std::mem::take(&mut world.certificate_life);
    world.run(life / 2);
    let before = world.renewals.len();
    assert!(before > 0);
    world.run(60 * MINUTE);
    let within = world.renewals.len() - before;
    assert!(
        (1..=12).contains(&within),
        "{within} renewals within an hour"
    );
}

#[test]
fn a_new_identity_is_asked_for_with_a_new_key_and_taken_by_reconnecting() {
    let mut world = World::enrolled();
    world.run(SECOND);
    let before = world.hellos;
    world.reidentify();
    world.run(10 * SECOND);
    assert_eq!(world.renewals, [KeyChoice::Pending]);
    assert_eq!(world.hellos, before + 1);
    assert!(world.rung().is_some());
}

#[test]
fn a_lost_answer_to_a_new_key_is_asked_for_again_with_the_same_key() {
    let mut world = World::enrolled();
    world.run(SECOND);
    world.lose_renewals = 1;
    world.reidentify();
    world.run(MINUTE);
    assert_eq!(world.renewals, [KeyChoice::Pending, KeyChoice::Pending]);
    assert!(world.rung().is_some());
}

#[test]
fn a_machine_that_slept_does_not_take_its_link_for_dead_before_asking() {
    let mut world = World::enrolled();
    world.run(MINUTE);
    world.sleep(8 * 60 * MINUTE);
    world.run(SECOND);
    assert_eq!(world.rung(), Some(Rung::Udp));
    assert_eq!(world.longest_gap_since_linked, Duration::ZERO);
}

#[test]
fn stopping_says_why_and_finishes() {
    for reason in [
        GoodbyeReason::Stopping,
        GoodbyeReason::HostShutdown,
        GoodbyeReason::Uninstalled,
    ] {
        let mut world = World::enrolled();
        world.run(SECOND);
        world.tell(Event::Stop(reason));
        world.run(SECOND);
        assert_eq!(world.goodbyes, [reason]);
        assert_eq!(world.finished, Some(reason == GoodbyeReason::Uninstalled));
        assert_eq!(world.open_links(), 0);
    }
}

#[test]
fn a_gateway_that_welcomes_and_drops_is_not_stormed() {
    let mut world = World::enrolled();
    world.drop_after = Some(2 * SECOND);
    world.run(60 * MINUTE);
    assert!(world.hellos < 400, "{} hellos in an hour", world.hellos);
}

#[test]
fn the_first_rung_dialled_is_udp_and_the_purpose_fits() {
    let mut world = World::unenrolled();
    world.run(Duration::from_millis(1));
    let first = world.dials.first().map(|dial| (dial.rung, dial.purpose));
    assert_eq!(first, Some((Rung::Udp, Purpose::Enrol)));
}

#[test]
fn a_probe_is_answered_at_once() {
    let mut world = World::enrolled();
    world.run(SECOND);
    let actions = world.probe(77);
    assert!(
        matches!(actions.as_slice(), [Action::Send(..)]),
        "{actions:?}"
    );
}

/// One stretch of weather.
fn weather() -> impl Strategy<Value = Vec<(Answer, Answer, u64)>> {
    let answer = || {
        prop_oneof![
            3 => Just(Answer::Good),
            1 => Just(Answer::Silent),
            1 => Just(Answer::Fails),
            1 => Just(Answer::Mute),
            1 => Just(Answer::Rejects),
        ]
    };
    proptest::collection::vec((answer(), answer(), 0..300u64), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_weather_was_a_working_rung_is_found_again(
        seed: u64,
        enrolled: bool,
        stretches in weather(),
        udp_works: bool,
    ) {
        let start = if enrolled { World::enrolled() } else { World::unenrolled() };
        let mut world = start.seeded(seed);
        let rejected = stretches
            .iter()
            .any(|(udp, websocket, _)| [udp, websocket].contains(&&Answer::Rejects));
        for (udp, websocket, seconds) in stretches {
            (world.udp, world.websocket) = (udp, websocket);
            world.run(Duration::from_secs(seconds));
            prop_assert!(world.open_links() <= 2);
            prop_assert_eq!(&world.misdeeds, &Vec::<String>::new());
        }
        let (up, down) = (Answer::Good, Answer::Silent);
        (world.udp, world.websocket) = if udp_works { (up, down) } else { (down, up) };
        // Backoff, both rungs' limits, enrolment; a rejection waits for a person.
        world.run(if rejected { 32 * MINUTE } else { 2 * MINUTE });
        prop_assert!(world.rung().is_some(), "{:?}", world.agent.standing());
        world.run(MINUTE);
        prop_assert_eq!(world.open_links(), 1);
        prop_assert_eq!(&world.misdeeds, &Vec::<String>::new());
    }

    #[test]
    fn the_gateways_come_back_in_is_obeyed(
        seed: u64,
        enrolled: bool,
        seconds in 1..4000u64,
        code in prop_oneof![
            Just(RefusalCode::RateLimited), Just(RefusalCode::Draining), Just(RefusalCode::Unavailable),
            Just(RefusalCode::TokenInvalid), Just(RefusalCode::Superseded), Just(RefusalCode::HostRetired),
            Just(RefusalCode::Unspecified),
        ],
        linked_first: bool,
    ) {
        let start = if enrolled { World::enrolled() } else { World::unenrolled() };
        let mut world = start.seeded(seed);
        if linked_first {
            world.run(90 * SECOND);
        }
        let wait = Duration::from_secs(seconds);
        world.refusal = Some((code, wait));
        world.refuse_link();
        // The world notes a misdeed for every dial that comes too early.
        world.run(4 * wait);
        prop_assert_eq!(&world.misdeeds, &Vec::<String>::new());
    }
}
