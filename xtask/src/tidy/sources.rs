//! Rules for each Rust file: a head that says what it is for, no unfinished work, no hidden input
//! in the cores.

use super::Findings;
use crate::workspace::Source;

/// Above this many lines a file is worth asking whether it holds one idea.
const LONG: usize = 700;

/// Marks of unfinished work. Written in two parts, so that this file is not one of its own findings.
const UNFINISHED: &[&str] = &[
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
];

/// Folders of crates that decide without acting, and what would make their answers depend on
/// something other than their input.
const PURE: &[&str] = &[
    "gateway/core/src/",
    "agent/core/src/",
    "install-script/src/",
];
const IMPURE: &[&str] = &[
    "HashMap",
    "HashSet",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "std::fs",
    "std::process",
    "std::thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
];

/// Adds what one file breaks.
pub(super) fn look(source: &Source, findings: &mut Findings) {
    let Source { path, text } = source;
    // `foo/tests.rs` is about the file above it; that file's head is its head.
    if !path.ends_with("/tests.rs") && !text.trim_start().starts_with("//!") {
        findings
            .complaints
            .push(format!("{path} does not begin with a //! head"));
    }
    let lines = text.lines().count();
    if lines > LONG {
        findings
            .notices
            .push(format!("{path} has {lines} lines; does it hold one idea?"));
    }
    let pure = PURE.iter().any(|folder| path.starts_with(folder)) && !path.contains("/tests");
    for (number, line) in (1..).zip(text.lines()) {
        for mark in UNFINISHED.iter().filter(|mark| line.contains(**mark)) {
            findings
                .complaints
                .push(format!("{path}:{number} has unfinished work: {mark}"));
        }
        let code = !line.trim_start().starts_with("//");
        for word in IMPURE
            .iter()
            .filter(|word| pure && code && line.contains(**word))
        {
            findings
                .complaints
                .push(format!("{path}:{number} uses {word} in a pure crate"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_a_head_is_fine_and_a_long_one_only_noticed() {
        let findings = check(
            "a.rs",
            &format!("//! What it is for.\n{}", "\n".repeat(LONG)),
        );
        assert_eq!(findings.complaints, Vec::<String>::new());
        assert_eq!(
            findings.notices,
            ["a.rs has 701 lines; does it hold one idea?"]
        );
    }

    #[test]
    fn a_missing_head_and_unfinished_work_are_named() {
        let text = format!("fn f() {{\n    {}\n}}\n", concat!("todo", "!()"));
        assert_eq!(
            check("b.rs", &text).complaints,
            [
                "b.rs does not begin with a //! head",
                concat!("b.rs:2 has unfinished work: todo", "!(")
            ]
        );
    }

    #[test]
    fn only_the_cores_must_be_pure() {
        let text = "//! A map.\nuse std::collections::HashMap;\n// HashMap in prose\n";
        assert_eq!(
            check("gateway/core/src/a.rs", text).complaints,
            ["gateway/core/src/a.rs:2 uses HashMap in a pure crate"]
        );
        assert_eq!(
            check("gateway/src/a.rs", text).complaints,
            Vec::<String>::new()
        );
    }

    fn check(path: &str, text: &str) -> Findings {
        let mut findings = Findings::default();
        look(
            &Source {
                path: path.into(),
                text: text.into(),
            },
            &mut findings,
        );
        findings
    }
}
