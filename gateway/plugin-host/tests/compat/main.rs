//! What is compatible with what, measured: the table in docs/contract.md is what comes out here.
//!
//! There is one published version of the contract so far, so the others are made here: copies of
//! its text, each changed in one place, and a policy in Rust built from each copy by the tools that
//! authors use. The host is the one of this checkout. A guest from a contract with something more
//! stands for a component from a later contract on this gateway; a guest from a contract with
//! something less stands for an older component on a gateway that came after it.
//!
//! `UPDATE_GOLDEN=1` writes the table; read the difference first.

mod cases;
mod guests;
#[path = "../hostile/support.rs"]
#[allow(dead_code, reason = "of what hostile guests need, these need a part")]
mod support;

use std::path::Path;
use std::sync::Arc;

use plugin_host::{CallError, Invocation, LoadError, Platform, Plugin, policy};

use cases::{CASES, Case, Outcome};
use support::{World, bench, settings};

const BEGIN: &str = "<!-- measured: gateway/plugin-host/tests/compat -->\n";
const END: &str = "<!-- end of what is measured -->\n";

#[tokio::test]
async fn the_table_of_the_contract_is_what_happens() {
    let components = guests::build(CASES);
    let bench = bench();
    let mut table = String::from(
        "| the component was made from | loads | answers | otherwise the operator sees |\n|---|---|---|---|\n",
    );
    let mut wrong = Vec::new();
    for (case, component) in CASES.iter().zip(components) {
        let (outcome, text) = measure(&bench.platform, component).await;
        let row = row(case, &outcome);
        println!("{row}      {text}");
        if let Some(word) = case.says
            && !text.contains(word)
        {
            wrong.push(format!("{}: `{word}` is not in: {text}", case.name));
        }
        table.push_str(&row);
    }
    assert_eq!(wrong, Vec::<String>::new());

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/contract.md");
    let page = std::fs::read_to_string(&path).expect("the page about the contract");
    let (before, rest) = page.split_once(BEGIN).expect("where the table begins");
    let (written, after) = rest.split_once(END).expect("where the table ends");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).expect("writes");
    } else {
        assert_eq!(written, table, "docs/contract.md says something else");
    }
}

fn row(case: &Case, outcome: &Outcome) -> String {
    let (loads, answers, code) = match outcome {
        Outcome::Answers => ("yes", "yes", String::new()),
        Outcome::Refused(code) => ("no", "–", format!("`{code}`")),
        Outcome::Fails(code) => ("yes", "no", format!("`{code}`")),
    };
    format!("| {} | {loads} | {answers} | {code} |\n", case.made_from)
}

/// Installs a component as a gateway does, and asks it something. What came of it, and all that was
/// said about it.
async fn measure(platform: &Arc<Platform>, component: Vec<u8>) -> (Outcome, String) {
    let loaded = match platform.load(component).await {
        Ok(loaded) => loaded,
        Err(error) => return refused(&error),
    };
    let plugin = Plugin::new(
        Arc::clone(platform),
        support::name("compat"),
        loaded,
        settings(model::plugin::Limits::default()),
        Arc::new(World::default()).services(),
    );
    match plugin.decide(Invocation::default(), request()).await {
        Ok(verdict) => {
            // It read the request and the configuration, and wrote a line.
            let expected = policy::Verdict::Deny(policy::Reason {
                code: "compat.asked".into(),
                message: "host.reboot".into(),
            });
            assert_eq!(verdict, expected);
            assert_eq!(support::last_line(&plugin), "host.reboot");
            (Outcome::Answers, String::new())
        }
        Err(error) => failed(&error),
    }
}

fn refused(error: &LoadError) -> (Outcome, String) {
    (
        Outcome::Refused(error.code()),
        model::error_chain(error).to_string(),
    )
}

fn failed(error: &CallError) -> (Outcome, String) {
    (
        Outcome::Fails(error.reason.code()),
        model::error_chain(error).to_string(),
    )
}

fn request() -> policy::Request {
    policy::Request {
        action: "host.reboot".into(),
        subject: policy::Subject {
            id: "usr_1".into(),
            name: "somebody".into(),
            roles: Vec::new(),
        },
        targets: Vec::new(),
        target_count: 0,
        ticket: None,
        now_ms: 0,
        approvals: Vec::new(),
        break_glass: false,
        extra: Vec::new(),
    }
}
