//! A power provider that does what its configuration says: it lies, hangs or floods, in every step.
//!
//! The configuration is `{"does":"WORD","url":"URL"}`, written by a test.

wit_bindgen::generate!({
    path: ["../../../../../wit/base/0.1.0", "../../../../../wit/power/0.1.0"],
    world: "loopback:power/power",
    generate_all,
});

use std::hint::black_box;

use exports::loopback::base::plugin;
use exports::loopback::power::provider;
use loopback::base::types::{Descriptor, Diagnostic, Error, ErrorKind};
use loopback::base::{config, http, log, state};
use loopback::power::types::{
    Action, Begun, BootDevice, Cancelled, FoundPage, Observation, Operation, Progress, Resumed,
    State, Step, Support, Supported, Target,
};

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

fn configured(key: &str) -> String {
    let config = config::json();
    let after = config.split_once(&format!("\"{key}\":\"")).map(|it| it.1);
    let value = after.and_then(|rest| rest.split('"').next());
    value.unwrap_or_default().to_owned()
}

/// Does its harm, where harm is done by not answering.
fn misbehave() -> Result<(), Error> {
    match configured("does").as_str() {
        "hang" => hang(),
        "spin" => loop {
            black_box(config::revision());
        },
        "flood" => {
            for line in 0..200 {
                let text = format!("{line} {}", "x".repeat(500));
                log::write(log::Level::Error, &text, &[]);
            }
            Ok(())
        }
        "panic" => panic!("out of luck"),
        _ => Ok(()),
    }
}

/// Waits for somebody who never answers.
fn hang() -> Result<(), Error> {
    let request = http::Request {
        method: "GET".into(),
        url: configured("url"),
        headers: Vec::new(),
        body: Vec::new(),
        tls_profile: None,
        route: None,
        timeout_ms: 0,
        max_response_bytes: 0,
    };
    http::send(&request, &[]).map(drop)
}

/// What it claims, at length if it floods.
fn text() -> String {
    if configured("does") == "flood" {
        "y".repeat(100_000)
    } else {
        "claimed".into()
    }
}

/// Once it was told to turn something off, it says that it is off.
fn claimed(target: &Target) -> State {
    match state::get(&target.host) {
        Ok(Some(entry)) if entry.value == b"off" => State::Off,
        Ok(Some(entry)) if entry.value == b"on" => State::On,
        _ => State::On,
    }
}

fn seen(target: &Target) -> Observation {
    Observation {
        state: claimed(target),
        raw: text(),
        boot_mark: None,
        boot: None,
        extra: Vec::new(),
    }
}

/// Never done, and asked for as often as can be.
fn progress() -> Progress {
    Progress {
        cursor: vec![7; 4096],
        poll_after_ms: 1,
        remote_id: Some(text()),
        percent: Some(255),
        message: text(),
    }
}

impl provider::Guest for Guest {
    fn inspect(_: Target) -> Result<Support, Error> {
        misbehave()?;
        let all = [
            Action::On,
            Action::Shutdown,
            Action::Off,
            Action::Reboot,
            Action::Reset,
        ];
        let supported = |action| Supported {
            action,
            note: text(),
        };
        Ok(Support {
            actions: all.into_iter().map(supported).collect(),
            observable: true,
            boot_devices: vec![BootDevice::Disk],
            cancellable: true,
            settle_ms: 0,
            max_parallel: 1_000,
        })
    }

    fn check(_: Target) -> Result<Vec<Diagnostic>, Error> {
        misbehave()?;
        Ok(Vec::new())
    }

    fn observe(target: Target) -> Result<Observation, Error> {
        misbehave()?;
        Ok(seen(&target))
    }

    fn begin(operation: Operation, target: Target) -> Result<Begun, Error> {
        let what: &[u8] = match operation.action {
            Action::Off | Action::Shutdown => b"off",
            _ => b"on",
        };
        state::put(&target.host, what, None)?;
        misbehave()?;
        if configured("does") == "flood" {
            return Ok(Begun::Submitted(progress()));
        }
        Ok(Begun::Done)
    }

    fn poll(_: Operation, _: Target, _: Vec<u8>) -> Result<Step, Error> {
        misbehave()?;
        Ok(Step::Running(progress()))
    }

    fn resume(_: Operation, _: Target) -> Result<Resumed, Error> {
        misbehave()?;
        Ok(Resumed::Unknown)
    }

    fn cancel(_: Operation, _: Target, _: Vec<u8>) -> Result<Cancelled, Error> {
        misbehave()?;
        Ok(Cancelled::Unknown)
    }

    fn discover(_: Option<String>) -> Result<FoundPage, Error> {
        Err(Error {
            kind: ErrorKind::Unsupported,
            code: "guest.no_list".into(),
            message: "it knows nobody".into(),
            retry_after_ms: None,
            outcome_unknown: false,
            details: Vec::new(),
        })
    }
}
