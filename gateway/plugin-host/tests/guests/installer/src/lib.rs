//! An installer plugin that does what its input's `channel` says: mostly harm.

wit_bindgen::generate!({
    path: ["../../../../../wit/base/0.1.0", "../../../../../wit/install/0.1.0"],
    world: "loopback:install/installer",
    generate_all,
});

use std::sync::atomic::{AtomicU64, Ordering};

use exports::loopback::base::plugin;
use exports::loopback::install::renderer;
use loopback::base::types::{Descriptor, Diagnostic, Error, ErrorKind, Kv, Severity};
use loopback::base::{config, log};
use loopback::install::types::{Input, Rendered};

struct Guest;

export!(Guest);

impl plugin::Guest for Guest {
    fn describe() -> Descriptor {
        Descriptor {
            config_schema: r#"{"type":"object"}"#.into(),
            features: vec!["preview".into()],
            extra: Vec::new(),
        }
    }

    fn check_config(json: String) -> Vec<Diagnostic> {
        // Only the log answers here: the configuration that is read is not the operator's.
        let seen = format!("checked {} beside {}", json.len(), config::json());
        vec![Diagnostic {
            severity: Severity::Info,
            path: String::new(),
            message: seen,
        }]
    }

    fn migrate_config(from: String, json: String) -> Result<String, Error> {
        match from.as_str() {
            "0.0.1" => Ok(json),
            "0.0.2" => Ok("no object".into()),
            _ => Err(error(ErrorKind::Unsupported, "too old")),
        }
    }
}

impl renderer::Guest for Guest {
    fn render(input: Input) -> Result<Rendered, Error> {
        let mut notes = vec![format!("configured by {}", config::json())];
        let mut script = format!("#!/bin/sh\n# {}\n", input.base_url);
        match input.channel.as_str() {
            "good" => log::write(log::Level::Info, "rendered", &[]),
            "spin" => spin(),
            "recurse" => notes.push(recurse().to_string()),
            "recurse-widely" => notes.push(recurse_widely(1).to_string()),
            "memory" => hoard(),
            "storm" => loop {
                std::hint::black_box(config::revision());
            },
            "wasi-storm" => loop {
                std::hint::black_box(std::time::Instant::now());
            },
            "flood" => {
                for line in 0..2_000 {
                    log::write(
                        log::Level::Info,
                        &format!("{line} {}", "x".repeat(500)),
                        &[],
                    );
                }
            }
            "huge-line" => log::write(log::Level::Info, &"x".repeat(16 << 20), &[]),
            "giant" => script.push_str(&"x".repeat(12 << 20)),
            "large" => script.push_str(&"x".repeat(3 << 20)),
            "panic" => panic!("out of luck"),
            "exit" => std::process::exit(7),
            "sleep" => std::thread::sleep(std::time::Duration::from_secs(60)),
            "error" => return Err(error(ErrorKind::Conflict, "\u{1b}[2Jnot now")),
            "internal" => return Err(error(ErrorKind::Internal, "broken")),
            "look" => notes.extend(look()),
            other => notes.push(format!("unknown: {other}")),
        }
        Ok(Rendered { script, notes })
    }
}

fn error(kind: ErrorKind, message: &str) -> Error {
    Error {
        kind,
        code: "guest.said".into(),
        message: message.into(),
        retry_after_ms: None,
        outcome_unknown: false,
        details: vec![Kv {
            key: "where".into(),
            value: "render".into(),
        }],
    }
}

fn spin() {
    let mut number = 0u64;
    loop {
        number = std::hint::black_box(number.wrapping_add(1));
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
    let here = std::hint::black_box([depth; 64]);
    if std::hint::black_box(true) {
        recurse_widely(depth + 1) + here[(depth % 64) as usize]
    } else {
        depth
    }
}

fn hoard() {
    let mut kept = Vec::new();
    loop {
        kept.push(std::hint::black_box(vec![1u8; 8 << 20]));
    }
}

/// What a plugin finds of the machine that it runs on.
fn look() -> Vec<String> {
    use std::collections::hash_map::RandomState;
    use std::hash::BuildHasher as _;
    let time = std::time::SystemTime::UNIX_EPOCH.elapsed();
    vec![
        format!("environment {}", std::env::vars().count()),
        format!("arguments {}", std::env::args().count()),
        format!("root {}", std::fs::read_dir("/").is_ok()),
        format!("file {}", std::fs::read("/etc/passwd").is_ok()),
        format!(
            "socket {}",
            std::net::TcpStream::connect("127.0.0.1:1").is_ok()
        ),
        format!("time {:?}", time.map(|time| time.as_nanos())),
        format!("random {:x}", RandomState::new().hash_one(1)),
    ]
}
