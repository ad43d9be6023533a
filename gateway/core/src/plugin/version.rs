//! The order of versions, as semver.org has it, without build metadata.

use std::cmp::Ordering;

/// Whether `one` comes before `other`. Both are versions that a manifest's check let pass;
/// parts that are none count as zero.
pub fn older(one: &str, other: &str) -> bool {
    compare(one, other) == Ordering::Less
}

fn compare(one: &str, other: &str) -> Ordering {
    let (one_numbers, one_words) = parts(one);
    let (other_numbers, other_words) = parts(other);
    let numbers = one_numbers.cmp(&other_numbers);
    numbers.then_with(|| match (one_words, other_words) {
        (None, None) => Ordering::Equal,
        // A release comes after its candidates.
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(one), Some(other)) => words(one).cmp(words(other)),
    })
}

fn parts(text: &str) -> (Vec<u64>, Option<&str>) {
    let (numbers, words) = match text.split_once('-') {
        Some((numbers, words)) => (numbers, Some(words)),
        None => (text, None),
    };
    let numbers = numbers.split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.collect(), words)
}

/// Numbers come before words, and in their own order.
fn words(text: &str) -> impl Iterator<Item = (bool, u64, &str)> {
    text.split('.').map(|word| match word.parse() {
        Ok(number) => (false, number, ""),
        Err(_) => (true, 0, word),
    })
}
