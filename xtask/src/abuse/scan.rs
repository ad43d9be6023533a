//! Which tests carry a number.
//!
//! Sources are read as text: a list that only a build could give would be of no use to
//! `cargo xtask tidy`, which runs first. What text cannot tell, that a test is really compiled in,
//! `cargo xtask abuse --run` finds out.

use crate::workspace::Source;

/// A test and the cases it is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Carrier {
    /// Numbers of cases.
    pub(crate) cases: Vec<u8>,
    /// What one types to run it: a function's name, or `e2e NAME`.
    pub(crate) name: String,
}

/// The tests of one file, and complaints about names that promise a test and are none.
pub(crate) fn look(source: &Source, found: &mut Vec<Carrier>, complaints: &mut Vec<String>) {
    // The attributes above the line that is looked at.
    let (mut test, mut ignored) = (false, false);
    for (number, line) in (1..).zip(source.text.lines().map(str::trim)) {
        if line.starts_with("#[") {
            test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            ignored |= line.starts_with("#[ignore");
            continue;
        }
        if let Some(name) = function(line).filter(|name| name.starts_with("abuse_")) {
            let at = format!("{}:{number}: {name}", source.path);
            let cases = numbers(name);
            if cases.is_empty() {
                complaints.push(format!("{at} has no number of a case"));
            } else if !test {
                complaints.push(format!("{at} carries a case's number and is no test"));
            } else if ignored {
                complaints.push(format!("{at} covers nothing while it is ignored"));
            } else {
                found.push(Carrier {
                    cases,
                    name: name.to_owned(),
                });
            }
        }
        // Attributes may span lines and have comments between them; a statement or the end of an
        // item ends what they belong to.
        if line.ends_with([';', '}', '{']) || line.is_empty() {
            (test, ignored) = (false, false);
        }
    }
}

/// The name of the function that a line begins.
fn function(line: &str) -> Option<&str> {
    let words = ["pub(crate) ", "pub ", "async ", "fn "];
    let rest = words
        .iter()
        .fold(line, |rest, word| rest.strip_prefix(word).unwrap_or(rest));
    if rest.len() == line.len() || !line.contains("fn ") {
        return None;
    }
    rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .next()
}

/// The numbers in `abuse_05_12_rest`: pairs of digits, as long as there are any.
fn numbers(name: &str) -> Vec<u8> {
    name.split('_')
        .skip(1)
        .map_while(|part| (part.len() == 2).then(|| part.parse().ok())?)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_told_from_what_only_looks_like_one() {
        // Written with another word, so that this file carries no number itself.
        let text = "\
            #[test]\nfun abuse_05_a() {\n}\n\
            #[tokio::test(flavor = \"multi_thread\")]\n// why\nasync fun abuse_12_13_b() {\n}\n\
            fun abuse_01_helper() {}\n\
            #[test]\n#[ignore = \"slow\"]\nfun abuse_02_c() {\n}\n\
            #[test]\nfun abuse_x() {\n}\n\
            #[test]\nfun other() { abuse_01_helper(); }\n"
            .replace("fun ", "fn ");
        let (mut found, mut complaints) = (Vec::new(), Vec::new());
        let source = Source {
            path: "a.rs".into(),
            text,
        };
        look(&source, &mut found, &mut complaints);
        let carrier = |cases: &[u8], name: &str| Carrier {
            cases: cases.to_vec(),
            name: name.into(),
        };
        assert_eq!(
            found,
            [
                carrier(&[5], "abuse_05_a"),
                carrier(&[12, 13], "abuse_12_13_b")
            ]
        );
        assert_eq!(
            complaints,
            [
                "a.rs:8: abuse_01_helper carries a case's number and is no test",
                "a.rs:11: abuse_02_c covers nothing while it is ignored",
                "a.rs:14: abuse_x has no number of a case",
            ]
        );
    }
}
