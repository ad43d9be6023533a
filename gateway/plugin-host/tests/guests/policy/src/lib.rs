//! A policy plugin that does what its configuration says: harm, at every request that it is asked
//! about.

wit_bindgen::generate!({
    path: ["../../../../../wit/base/0.1.0", "../../../../../wit/policy/0.1.0"],
    world: "loopback:policy/policy",
    generate_all,
});

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use exports::loopback::base::plugin;
use exports::loopback::policy::authorizer;
use loopback::base::types::{Descriptor, Diagnostic, Error};
use loopback::base::{config, log};
use loopback::policy::types::{Reason, Request, Verdict};

struct Guest;

export!(Guest);

impl plugin::Guest for Guest {
    fn describe() -> Descriptor {
        Descriptor {
            config_schema: r#"{"type":"object"}"#.into(),
            features: Vec::new(),
            extra: Vec::new(),
        }
    }

    fn check_config(_: String) -> Vec<Diagnostic> {
        Vec::new()
    }

    fn migrate_config(_: String, json: String) -> Result<String, Error> {
        Ok(json)
    }
}

impl authorizer::Guest for Guest {
    fn decide(_: Request) -> Verdict {
        let config = config::json();
        // `{"does":"WORD"}`, written by a test.
        match config.split('"').nth(3).unwrap_or_default() {
            "spin" => spin(),
            "memory" => hoard(),
            "recurse" => {
                black_box(recurse());
            }
            "recurse-widely" => {
                black_box(recurse_widely(1));
            }
            "storm" => loop {
                black_box(config::revision());
            },
            "wasi-storm" => loop {
                black_box(std::time::Instant::now());
            },
            "flood" => flood(),
            "giant" => return Verdict::Other("x".repeat(12 << 20)),
            "panic" => panic!("out of luck"),
            "exit" => std::process::exit(7),
            _ => return Verdict::Abstain,
        }
        Verdict::Deny(Reason {
            code: "hostile".into(),
            message: "still there".into(),
        })
    }
}

fn spin() {
    let mut number = 0u64;
    loop {
        number = black_box(number.wrapping_add(1));
    }
}

fn hoard() {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1u8; 1 << 20]));
    }
}

fn flood() {
    for line in 0..500 {
        let text = format!("{line} {}", "x".repeat(500));
        log::write(log::Level::Error, &text, &[]);
    }
}

/// Nothing of it lies in memory: only the stack of the machine itself ends it.
fn recurse() -> u64 {
    static DEPTH: AtomicU64 = AtomicU64::new(0);
    if DEPTH.fetch_add(1, Ordering::Relaxed) == u64::MAX {
        return 0;
    }
    recurse() + DEPTH.load(Ordering::Relaxed)
}

/// What lies in memory grows into what is beside it.
fn recurse_widely(depth: u64) -> u64 {
    let here = black_box([depth; 64]);
    if black_box(true) {
        recurse_widely(depth + 1) + here[(depth % 64) as usize]
    } else {
        depth
    }
}
