//! Whole worlds: every invariant holds, and one that is broken on purpose is found.

use sim::{Break, Options, World};

fn options(broken: Option<Break>) -> Options {
    Options {
        hosts: 6,
        hours: 12,
        broken,
    }
}

#[test]
fn every_invariant_holds_in_many_worlds() {
    for seed in 1..=64 {
        if let Err(broken) = World::new(
            seed,
            &Options {
                hours: 2,
                ..options(None)
            },
            true,
        )
        .run()
        {
            panic!("seed {seed}: {:?}\n{}", broken.0, broken.1.join("\n"));
        }
    }
}

#[test]
fn what_is_broken_on_purpose_is_found_and_its_seed_replays() {
    for (broken, word) in Break::ALL {
        let options = options(Some(broken));
        let found = (1..=100).find_map(|seed| {
            World::new(seed, &options, false)
                .run()
                .err()
                .map(|it| (seed, it.0))
        });
        let (seed, first) = found.unwrap_or_else(|| panic!("{word} was not found in 100 seeds"));
        let again = World::new(seed, &options, true).run().unwrap_err();
        assert_eq!(first, again.0, "{word}: seed {seed} did not replay");
    }
}
