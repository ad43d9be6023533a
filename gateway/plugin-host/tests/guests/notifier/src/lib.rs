//! A notifier that does with each event what its `kind` says.

wit_bindgen::generate!({
    path: ["../../../../../wit/base/0.1.0", "../../../../../wit/signal/0.1.0"],
    world: "loopback:signal/notifier",
    generate_all,
});

/// How it is, which plugins may export and need not.
mod health {
    wit_bindgen::generate!({
        path: "../../../../../wit/base/0.1.0",
        inline: "
            package guest:health;
            world health {
                export loopback:base/health@0.1.0;
            }
        ",
        world: "guest:health/health",
        with: { "loopback:base/types@0.1.0": crate::loopback::base::types },
        export_macro_name: "export_health",
        generate_all,
    });
    export_health!(Guest);

    use super::{ErrorKind, config, plain, send};
    use crate::loopback::base::types::{Diagnostic, Error, Severity};

    struct Guest;

    impl exports::loopback::base::health::Guest for Guest {
        fn probe() -> Result<Vec<Diagnostic>, Error> {
            let found = |message: String| Diagnostic {
                severity: Severity::Warning,
                path: "/probe".into(),
                message,
            };
            let config = config::json();
            let Some((_, probe)) = config.split_once(r#""probe":""#) else {
                return Ok(Vec::new());
            };
            match probe.trim_end_matches(r#""}"#) {
                "fail" => Err(plain(ErrorKind::Upstream, "cannot find out")),
                "panic" => panic!("probed to death"),
                url => Ok(vec![found(format!("status {}", send(url)?.status))]),
            }
        }
    }
}

use exports::loopback::base::plugin;
use exports::loopback::signal::sink;
use loopback::base::types::{Descriptor, Diagnostic, Error, ErrorKind, Kv};
use loopback::base::{config, http, log, secrets, sign, state, task};
use loopback::signal::types::Event;

struct Guest;

export!(Guest);

impl plugin::Guest for Guest {
    fn describe() -> Descriptor {
        // Nothing but the log answers here.
        let tried = secrets::open("token").err().map(|error| error.code);
        Descriptor {
            config_schema: String::new(),
            features: vec![tried.unwrap_or_else(|| "opened".into())],
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

impl sink::Guest for Guest {
    fn deliver(batch: Vec<Event>) -> Vec<Result<(), Error>> {
        if batch[0].kind == "too-few" {
            return Vec::new();
        }
        batch.iter().map(one).collect()
    }
}

fn one(event: &Event) -> Result<(), Error> {
    match event.kind.as_str() {
        "send" => {
            let response = send(&event.summary)?;
            say(response.status.to_string() + " " + &String::from_utf8_lossy(&response.body))
        }
        "send-often" => {
            for _ in 0..event.sequence {
                send(&event.summary)?;
            }
            Ok(())
        }
        "leak" => {
            // The server echoes the secret; the plugin tries to get it out in every way it has.
            let response = send(&event.summary)?;
            let echoed = String::from_utf8_lossy(&response.body).into_owned();
            log::write(
                log::Level::Info,
                &echoed,
                &[("field".into(), echoed.clone())],
            );
            eprintln!("{echoed}");
            Err(Error {
                kind: ErrorKind::Upstream,
                code: "leak.attempt".into(),
                message: echoed.clone(),
                retry_after_ms: None,
                outcome_unknown: false,
                details: vec![Kv {
                    key: "body".into(),
                    value: echoed,
                }],
            })
        }
        "refused" => {
            send(&event.summary)?;
            Err(plain(ErrorKind::Auth, "said no"))
        }
        "other-secret" => secrets::open("other").map(drop),
        "handles" => {
            let mut held = Vec::new();
            loop {
                held.push(secrets::open("token")?);
            }
        }
        "hmac" => {
            let secret = secrets::open("token")?;
            let mac = sign::hmac(&secret, sign::Hash::Sha256, event.body.as_bytes())?;
            say(mac.iter().map(|byte| format!("{byte:02x}")).collect())
        }
        "state" => {
            let before = state::get("count")?.map_or(0, |entry| entry.value.len());
            state::put("count", &vec![0; before + 1], None)?;
            say(format!("{before}"))
        }
        "time" => say(format!("{} {}", task::now_ms(), task::operation_id())),
        "panic" => panic!("notifier out of luck"),
        _ => Ok(()),
    }
}

fn say(text: String) -> Result<(), Error> {
    log::write(log::Level::Info, &text, &[]);
    Ok(())
}

fn plain(kind: ErrorKind, message: &str) -> Error {
    Error {
        kind,
        code: "guest.said".into(),
        message: message.into(),
        retry_after_ms: None,
        outcome_unknown: false,
        details: Vec::new(),
    }
}

fn send(url: &str) -> Result<http::Response, Error> {
    let secret = secrets::open("token")?;
    let request = http::Request {
        method: "POST".into(),
        url: url.into(),
        headers: Vec::new(),
        body: b"{}".to_vec(),
        tls_profile: None,
        route: None,
        timeout_ms: 0,
        max_response_bytes: 0,
    };
    let credential = http::Credential {
        secret: &secret,
        placement: http::Placement::Bearer,
    };
    http::send(&request, &[credential])
}
