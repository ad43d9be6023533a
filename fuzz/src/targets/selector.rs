//! Selectors and labels: what an operator, a script or an agent token says.

use std::collections::BTreeMap;

use model::labels::Labels;
use model::selector::Selector;

use super::{is_harmless, reads_as_it_writes, text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "selector",
    about: "selectors and labels: read as they are written, and mean the same",
    run,
    seeds,
    longest: 512,
};

fn run(input: &[u8]) {
    let Some(text) = text(input) else { return };
    reads_as_it_writes::<Selector>(text);
    if let Ok(selector) = text.parse::<Selector>() {
        let again: Selector = selector.to_string().parse().unwrap();
        for labels in labels() {
            assert_eq!(
                selector.matches(&labels),
                again.matches(&labels),
                "{text:?}"
            );
        }
        assert!(!selector.is_empty() || labels().all(|labels| selector.matches(&labels)));
    }
    if let Ok((key, value)) = Labels::parse_pair(text) {
        let Ok(labels) = Labels::new([(key.clone(), value.clone())].into()) else {
            return;
        };
        assert!(is_harmless(&key) && is_harmless(&value));
        let own = if value.is_empty() {
            key
        } else {
            format!("{key}={value}")
        };
        assert!(own.parse::<Selector>().unwrap().matches(&labels), "{own:?}");
    }
}

fn labels() -> impl Iterator<Item = Labels> {
    [
        &[][..],
        &[("role", "web")],
        &[("role", "db"), ("tier", "a")],
    ]
    .into_iter()
    .map(|pairs| {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Labels::new(owned.collect::<BTreeMap<_, _>>()).unwrap()
    })
}

fn seeds() -> Vec<Vec<u8>> {
    texts(&[
        "",
        "role=web",
        "role==web,tier in (a, b)",
        "tier notin (a,b),!legacy",
        "role!=web",
        "role",
        "a=",
        "tier in ()",
        "tier in (a",
        "!",
        ",",
        "x'=1",
        "((((((((",
        "rack.example.com/row=7",
    ])
}
