//! What a plugin answers, from when its component gave it: each function of each kind.
//!
//! Input: a byte for the function, a byte for how much the call may answer, then what the values
//! are made of (see [`crate::values`]). An input that begins with `{` is a recorded call instead,
//! which authors of plugins pass around: it is replayed against itself.

use futures_util::FutureExt as _;
use model::plugin::Grant;
use plugin_host::Reason;
use plugin_host::fuzzing::{FUNCTIONS, finish};
use plugin_host::ports::{CallContext, Services};
use plugin_host::record::{Asked, RecordedCall, Replay};
use serde_json::Value;

use super::{is_harmless, text};
use crate::Target;
use crate::values::Values;

pub(crate) const TARGET: Target = Target {
    name: "guest_values",
    about: "what plugins answer: within what the contract promises, without secrets; and replays",
    run,
    seeds,
    longest: 4096,
};

/// A value that the call has opened. Its letters are in no other text of the answer.
const SECRET: &str = "Zq7hunter22Zq";

/// What the contract and the host keep of texts for people, of lists, and of errors' details.
const TEXT_BYTES: usize = 1024;
const LIST: usize = 1000;
const CURSOR_BYTES: usize = 4096;

fn run(input: &[u8]) {
    if input.first() == Some(&b'{') {
        if let Some(text) = text(input) {
            replayed(text);
        }
        return;
    }
    let [function, most, values @ ..] = input else {
        return;
    };
    let function = FUNCTIONS[usize::from(*function) % FUNCTIONS.len()];
    // From next to nothing to more than is ever granted.
    let most = 64usize << (most % 17);
    let values = &mut Values::new(values, SECRET);
    let opened = [("token", SECRET.as_bytes())];
    match finish(function, values, most, &opened).unwrap() {
        Ok(answer) => kept(function, "", &answer),
        Err(reason) => {
            harmless(function, &reason.to_string(), 2 * TEXT_BYTES);
            if let Reason::Guest(error) = &reason {
                let kept = error.code.len() <= 64 && error.message.len() <= TEXT_BYTES;
                assert!(kept && error.details.len() <= 32, "{error:?}");
                harmless(function, &error.code, 64);
                for (key, value) in &error.details {
                    harmless(function, key, 64);
                    harmless(function, value, TEXT_BYTES);
                }
                let day = std::time::Duration::from_secs(24 * 3600);
                assert!(error.retry_after.is_none_or(|after| after <= day));
            }
        }
    }
}

/// An answer within its promises: `name` is the field it stands in.
fn kept(function: &str, name: &str, answer: &Value) {
    match answer {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) => match (function, name) {
            ("plugin.migrate-config", "") => {
                assert!(text.len() <= 1 << 20);
                serde_json::from_str::<serde_json::Map<_, _>>(text).unwrap();
            }
            ("plugin.describe", "config_schema") => assert!(text.len() <= 256 << 10),
            ("renderer.render", "script") => assert!(text.len() <= 256 << 10),
            ("provider.discover", "params") => secretless(function, text, 128 << 10),
            // Handed back to the plugin alone.
            ("provider.discover", "next") => assert!(text.len() <= CURSOR_BYTES),
            // Who is called so cannot say that it may be done: it is read as a no.
            _ => harmless(function, text, TEXT_BYTES),
        },
        Value::Array(items) => {
            let most = match name {
                "cursor" => CURSOR_BYTES,
                // As many as there were events; here, as many as were made up.
                "" if function == "sink.deliver" => usize::MAX,
                _ => LIST,
            };
            assert!(items.len() <= most, "{function} {name}: {}", items.len());
            for item in items {
                kept(function, name, item);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                kept(function, name, value);
            }
        }
    }
}

fn harmless(function: &str, text: &str, most: usize) {
    assert!(is_harmless(text), "{function}: {text:?}");
    secretless(function, text, most);
}

fn secretless(function: &str, text: &str, most: usize) {
    assert!(text.len() <= most, "{function}: {} bytes", text.len());
    // The worlds of the others have no secrets to open.
    let opens = ["sink.", "provider.", "health."];
    if opens.iter().any(|kind| function.starts_with(kind)) {
        assert!(!text.contains(SECRET), "{function}: {text:?}");
    }
}

/// Reads as it writes; asked what was recorded, it answers, and nothing is otherwise.
fn replayed(text: &str) {
    let Ok(call) = serde_json::from_str::<RecordedCall>(text) else {
        return;
    };
    let written = serde_json::to_string(&call).unwrap();
    assert_eq!(
        serde_json::from_str::<RecordedCall>(&written).unwrap(),
        call
    );
    let replay = Replay::of(&call);
    let services = replay.services();
    let clock = replay.invocation().clock.unwrap();
    let context = CallContext {
        plugin: call.plugin.clone(),
        workspace: None,
        call: call.call.clone(),
        grant: Grant::default().into(),
    };
    for exchange in &call.exchanges {
        match &exchange.asked {
            Asked::Now => _ = clock.now_ms(),
            Asked::Remaining => _ = clock.remaining_ms(1),
            // Nothing here waits: a replay answers at once.
            asked => ask(&services, &context, asked).now_or_never().unwrap(),
        }
    }
    if let Some(what) = replay.diverged() {
        assert!(is_harmless(&what), "{what:?}");
    }
}

async fn ask(services: &Services, context: &CallContext, asked: &Asked) {
    match asked {
        Asked::Secret(name) => {
            if let Ok(name) = name.parse() {
                let _ = services.secrets.open(context, &name).await;
            }
        }
        Asked::Http {
            method,
            url,
            headers,
            body,
            ..
        } => {
            let request = plugin_host::ports::HttpRequest {
                method: method.clone(),
                url: url.clone(),
                headers: headers.clone(),
                body: body.0.clone(),
                tls_profile: None,
                route: None,
                timeout: std::time::Duration::from_secs(1),
                max_response_bytes: 1024,
            };
            let _ = services.egress.send(context, request, Vec::new()).await;
        }
        Asked::Channel(endpoint) => {
            if let Ok(mut channel) = services.egress.datagrams(context, endpoint, None).await {
                let _ = channel.send(b"x").await;
                let _ = channel.recv(std::time::Duration::from_secs(1)).await;
            }
        }
        Asked::Wake(mac) => drop(services.egress.wake_on_lan(context, mac, None).await),
        Asked::Get(key) => drop(services.state.get(context, key).await),
        Asked::Put {
            key,
            value,
            if_revision,
        } => {
            let value = value.0.clone();
            let _ = services.state.put(context, key, value, *if_revision).await;
        }
        Asked::Delete(key) => drop(services.state.delete(context, key).await),
        Asked::Keys(prefix) => drop(services.state.keys(context, prefix, None, 10).await),
        // Through a channel, above; the clock is asked without waiting.
        Asked::Send(_) | Asked::Receive | Asked::Now | Asked::Remaining => {}
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for function in 0..u8::try_from(FUNCTIONS.len()).unwrap() {
        // Answers and errors, of nothing, of many, of long texts, with a secret.
        for values in [
            &[][..],
            &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0, 3, 0xd1, 0xed, 0, 0xef, 4, 0xd0, 0xfc, 1, 1],
            &[1, 5, 0xd1, 0xea, 0, 0xeb, 6, 0xd0, 1, 0xff, 1, 0xf8],
            b"\x00\x0ehello, \x1b[2Jw\xd1\x02hi\xf5\x00\x01\xfe12345678",
        ] {
            let mut seed = vec![function, 16];
            seed.extend_from_slice(values);
            seeds.push(seed);
        }
    }
    let error = r#"{"kind":"Throttled","code":"x","message":"m","retry_after_ms":18446744073709551615,"outcome_unknown":true,"details":[]}"#;
    for exchanges in [
        String::new(),
        r#"{"asked":{"secret":"token"},"answered":{"Ok":{"number":3}}},{"asked":"now","answered":{"Ok":{"number":5}}}"#.to_owned(),
        r#"{"asked":{"http":{"method":"GET","url":"https://a.example/","headers":[["a","b"]],"body":"","credentials":[]}},"answered":{"Ok":{"response":{"status":200,"headers":[],"body":{"base64":"/wA="}}}}}"#.to_owned(),
        r#"{"asked":{"channel":"a:1"},"answered":{"Ok":{"peer":"192.0.2.1:623"}}},{"asked":{"send":"x"},"answered":{"Ok":"done"}},{"asked":"receive","answered":{"Ok":{"bytes":"y"}}}"#.to_owned(),
        r#"{"asked":{"put":{"key":"k","value":"v","if_revision":0}},"answered":{"Ok":{"number":1}}},{"asked":{"get":"k"},"answered":{"Ok":{"entry":["v",1]}}},{"asked":{"keys":""},"answered":{"Ok":{"names":["k"]}}}"#.to_owned(),
        format!(r#"{{"asked":{{"wake":"aa:bb:cc:dd:ee:ff"}},"answered":{{"Err":{error}}}}},{{"asked":"remaining","answered":{{"Ok":"done"}}}}"#),
    ] {
        let call = format!(
            r#"{{"plugin":"p","function":"provider.observe","call":"call_1","input":{{}},"config":"{{}}","config_revision":1,"exchanges":[{exchanges}],"outcome":{{"answer":null}}}}"#
        );
        seeds.push(call.into_bytes());
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_seeds_are_recorded_calls() {
        for seed in seeds().iter().filter(|seed| seed.starts_with(b"{")) {
            serde_json::from_slice::<RecordedCall>(seed).unwrap();
        }
    }
}
