//! The targets, one file each: what is read, and what must hold.

pub(crate) mod address;
pub(crate) mod agent_config;
pub(crate) mod audit_export;
pub(crate) mod carrier;
pub(crate) mod certificate;
pub(crate) mod diagnose;
pub(crate) mod enrolment;
pub(crate) mod exporter;
pub(crate) mod frame;
pub(crate) mod gateway_config;
pub(crate) mod guest_values;
pub(crate) mod identity;
pub(crate) mod inspect;
pub(crate) mod problem;
pub(crate) mod quic;
pub(crate) mod release;
pub(crate) mod selector;
pub(crate) mod sse;
pub(crate) mod token;

/// `input` as text, when it is.
fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

/// Texts as seeds.
fn texts(seeds: &[&str]) -> Vec<Vec<u8>> {
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

/// Text that may be printed: nothing in it moves a cursor or ends a line.
fn is_harmless(text: &str) -> bool {
    model::names::clean(text, usize::MAX) == text
}

/// What is read from `text` must, written out, read as the same.
fn reads_as_it_writes<T>(text: &str)
where
    T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Display + PartialEq + std::fmt::Debug,
{
    if let Ok(value) = text.parse::<T>() {
        let written = value.to_string();
        assert_eq!(
            written.parse::<T>().unwrap(),
            value,
            "{text:?} as {written:?}"
        );
        assert!(is_harmless(&written), "{written:?}");
    }
}
