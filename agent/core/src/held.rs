//! The counter of an identity that replaces another one on disk.

/// An identity on disk, as far as its counter is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held<H> {
    /// Of which host.
    pub host: H,
    /// Which of its identities.
    pub generation: u64,
    /// The counter.
    pub counter: u64,
}

/// The counter to store with what was `granted`, beside what is on disk `before`: a
/// renewal never takes it back, another identity begins its own.
pub fn counter_after<H: PartialEq>(before: Option<&Held<H>>, granted: &Held<H>) -> u64 {
    let same =
        |before: &&Held<H>| before.host == granted.host && before.generation == granted.generation;
    before
        .filter(same)
        .map_or(0, |before| before.counter)
        .max(granted.counter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(host: u8, generation: u64, counter: u64) -> Held<u8> {
        Held {
            host,
            generation,
            counter,
        }
    }

    #[test]
    fn a_renewal_never_takes_the_counter_back_and_a_new_identity_begins_anew() {
        let before = held(1, 2, 9);
        assert_eq!(counter_after(Some(&before), &held(1, 2, 7)), 9);
        assert_eq!(counter_after(Some(&before), &held(1, 2, 11)), 11);
        assert_eq!(counter_after(Some(&before), &held(1, 3, 4)), 4);
        assert_eq!(counter_after(Some(&before), &held(2, 2, 1)), 1);
        assert_eq!(counter_after(None, &held(1, 1, 1)), 1);
    }
}
