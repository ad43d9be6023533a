//! Replays every seed and every committed input. What a search once found stays found.

use std::fs;
use std::panic::catch_unwind;

use fuzz::{ALL, Target, corpus};

#[test]
fn abuse_15_no_input_ever_found_breaks_a_reader() {
    let mut broken = Vec::new();
    for target in ALL {
        let seeds = (target.seeds)().into_iter().enumerate();
        let seeds = seeds.map(|(number, seed)| (format!("seed {number}"), seed));
        for (name, input) in seeds.chain(corpus::committed(target).unwrap()) {
            if catch_unwind(|| (target.run)(&input)).is_err() {
                broken.push(format!("{} {name}", target.name));
            }
        }
    }
    assert_eq!(broken, [""; 0]);
}

/// The gateway's own QUIC configuration, without I/O: every malformed first packet and
/// transport parameter, answered with at most three times as many bytes (and less than
/// one datagram, see the target).
#[test]
fn abuse_16_18_first_packets_of_strangers_neither_panic_nor_amplify() {
    let target = fuzz::find("quic").unwrap();
    for seed in (target.seeds)() {
        (target.run)(&seed);
    }
}

/// Cheap neighbours of the seeds, the same in every run: each shortened, and each with
/// single bytes changed.
#[test]
fn neighbours_of_the_seeds_break_nothing() {
    let mut broken = Vec::new();
    for target in ALL {
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            for input in neighbours(&seed) {
                if catch_unwind(|| (target.run)(&input)).is_err() {
                    broken.push(format!("{} near seed {number}: {input:?}", target.name));
                }
            }
        }
    }
    assert_eq!(broken, [""; 0]);
}

fn neighbours(seed: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    // A prime number of steps over a long seed, every byte of a short one.
    let step = seed.len() / 29 + 1;
    let places: Vec<usize> = (0..seed.len()).step_by(step).collect();
    let cut = places.clone().into_iter().map(|at| seed[..at].to_vec());
    let changed = places.into_iter().flat_map(|at| {
        [0x00, 0x01, 0x80, 0xff].map(|mask| {
            let mut input = seed.to_vec();
            input[at] = if mask == 0 { 0 } else { input[at] ^ mask };
            input
        })
    });
    cut.chain(changed)
}

#[test]
fn targets_have_names_of_their_own_and_something_to_begin_with() {
    let mut names: Vec<_> = ALL.iter().map(|target| target.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ALL.len());
    for Target {
        name,
        seeds,
        longest,
        ..
    } in ALL
    {
        let seeds = seeds();
        assert!(!seeds.is_empty(), "{name}");
        assert!(seeds.iter().all(|seed| seed.len() <= *longest), "{name}");
    }
}

#[test]
fn the_corpus_is_small_and_belongs_to_targets() {
    for target in ALL {
        let inputs = corpus::committed(target).unwrap();
        let bytes: u64 = inputs.iter().map(|(_, input)| input.len() as u64).sum();
        assert!(
            bytes <= corpus::FOLDER_LIMIT,
            "{}: {bytes} bytes",
            target.name
        );
    }
    let home = corpus::folder(&ALL[0]);
    for folder in fs::read_dir(home.parent().unwrap()).into_iter().flatten() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        assert!(fuzz::find(&name).is_some(), "{name} belongs to no target");
    }
}
