//! How long to wait before the next attempt.
//!
//! Exponential with full jitter: the wait is any time between nothing and a ceiling
//! that doubles, so that hosts which lost their gateway together do not come back
//! together. The count of failures is forgotten only by a link that held for
//! [`STABLE`]: a gateway that welcomes and drops at once is failing, too.

use std::time::Duration;

use crate::time::Dice;

/// A link that held this long was a success.
pub const STABLE: Duration = Duration::from_secs(60);
/// Waits for trouble on the way: one second feels immediate to a person, half a
/// minute bounds how long a host stays away after its gateway is back.
pub const NETWORK: Curve = Curve {
    first: Duration::from_secs(1),
    last: Duration::from_secs(30),
    floor: Duration::from_millis(50),
};
/// Waits after a refusal that a person must lift: a bad token does not improve by
/// being shown more often.
pub const REFUSED: Curve = Curve {
    first: Duration::from_secs(60),
    last: Duration::from_secs(30 * 60),
    floor: Duration::from_secs(20),
};
/// Waits of a retired host: at most one question in an hour.
pub const RETIRED: Curve = Curve {
    first: Duration::from_secs(7200),
    last: Duration::from_secs(7200),
    floor: Duration::from_secs(3600),
};
/// Waits between looks at UDP while linked over the WebSocket. The network that
/// blocks it rarely changes its mind; a laptop's network does within minutes.
pub const UDP_PROBE: Curve = Curve {
    first: Duration::from_secs(30),
    last: Duration::from_secs(10 * 60),
    floor: Duration::from_secs(15),
};

/// A family of waits.
#[derive(Clone, Copy, Debug)]
pub struct Curve {
    /// Ceiling of the first wait.
    pub first: Duration,
    /// Ceiling that is never exceeded.
    pub last: Duration,
    /// No wait is shorter.
    pub floor: Duration,
}

impl Curve {
    /// The wait after `failures` failures in a row.
    pub fn wait(&self, failures: u32, dice: &mut Dice) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let ceiling = self.first.saturating_mul(1 << doublings).min(self.last);
        dice.between(self.floor, ceiling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waits_stay_between_floor_and_ceiling(failures: u32, seed: u64) {
            for curve in [NETWORK, REFUSED, RETIRED, UDP_PROBE] {
                let wait = curve.wait(failures, &mut Dice::new(seed));
                prop_assert!(wait >= curve.floor && wait <= curve.last);
            }
        }

        #[test]
        fn the_first_wait_is_short(seed: u64) {
            prop_assert!(NETWORK.wait(1, &mut Dice::new(seed)) <= Duration::from_secs(1));
        }
    }

    #[test]
    fn waits_are_spread_over_the_whole_range() {
        let waits: Vec<_> = (0..1000)
            .map(|seed| NETWORK.wait(9, &mut Dice::new(seed)))
            .collect();
        for third in 0..3 {
            let (low, high) = (third * 10, third * 10 + 10);
            let count = waits
                .iter()
                .filter(|wait| (low..high).contains(&wait.as_secs()))
                .count();
            assert!(
                count > 200,
                "{count} of 1000 waits between {low} s and {high} s"
            );
        }
    }
}
