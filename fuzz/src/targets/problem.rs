//! What the CLI makes of an answer that says no: problem documents of a gateway, or of
//! whatever sits at its address.

use api::Problem;
use cli::client::ClientError;
use cli::failure::{EXIT_CODES, Failure};

use super::{is_harmless, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "problem",
    about: "problem documents: whatever they say, the terminal is safe and the exit code known",
    run,
    seeds,
    longest: 2048,
};

fn run(input: &[u8]) {
    let Ok(problem) = serde_json::from_slice::<Problem>(input) else {
        return;
    };
    let written = serde_json::to_vec(&problem).unwrap();
    assert_eq!(
        serde_json::from_slice::<Problem>(&written).unwrap(),
        problem
    );
    let failure = Failure::from(ClientError::Problem(Box::new(problem)));
    let said = failure.describe();
    assert!(said.lines().all(is_harmless), "{said:?}");
    let code = failure.exit_code();
    assert!(EXIT_CODES.iter().any(|(known, _)| *known == code));
}

fn seeds() -> Vec<Vec<u8>> {
    let problem = |code: &str, detail: &str| {
        format!(
            r#"{{"type":"urn:loopback:problem:{code}","title":"t","status":409,"code":"{code}","detail":"{detail}","field":"name","retry_after_ms":1500}}"#
        )
    };
    texts(&[
        &problem("conflict", "taken"),
        &problem("unauthenticated", "\\u001b]0;x\\u0007\\u202e"),
        &problem("rate_limited", "a\\nb\\r\\u2028c"),
        &problem("\\u009b31m", ""),
        &problem("internal", "x").replace("1500", "18446744073709551615"),
        &problem("internal", "x").replace("409", "70000"),
        "{}",
        "[[[[[[[[",
    ])
}
