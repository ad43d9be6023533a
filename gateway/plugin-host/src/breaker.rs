//! Leaves alone what keeps failing.
//!
//! One breaker for the plugin, one for each server it asks, one for each credential it shows: a
//! dead server must not cost a call's whole time again and again, and a refused password must not
//! be shown until an account is locked. Pure: whoever asks brings the time.
//!
//! ```text
//!             failures in a row = threshold
//!   closed ────────────────────────────────► open ──┐ rest over: one trial
//!     ▲                                       ▲      ▼
//!     └───────────── trial succeeded ─────────┼── half open
//!                                             └── trial failed: twice the rest
//! ```

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How a breaker behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// Failures in a row that open it.
    pub(crate) threshold: u32,
    /// How long it is open at first.
    pub(crate) rest: Duration,
    /// The rest doubles up to this.
    pub(crate) longest: Duration,
}

/// For plugins.
pub(crate) const PLUGIN: Rule = Rule {
    threshold: 5,
    rest: Duration::from_secs(5),
    longest: Duration::from_secs(300),
};
/// For servers.
pub(crate) const TARGET: Rule = Rule {
    threshold: 5,
    rest: Duration::from_secs(10),
    longest: Duration::from_secs(300),
};
/// For credentials. Many services lock an account after three to five wrong passwords.
pub(crate) const CREDENTIAL: Rule = Rule {
    threshold: 2,
    rest: Duration::from_secs(60),
    longest: Duration::from_secs(3_600),
};

/// Whether to try, and what was learned from trying.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Breaker {
    failures: u32,
    opened: u32,
    until: Option<Instant>,
    trial_ends: Option<Instant>,
}

/// How something that was tried went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Went {
    /// It worked.
    Well,
    /// It failed in a way that this breaker is for.
    Badly,
    /// It says nothing.
    Unclear,
}

/// How long a trial may be on its way before another one is let through: its caller may have gone
/// away without telling how it went.
const TRIAL: Duration = Duration::from_secs(30);

impl Breaker {
    /// Whether to try now; if not, after how long to ask again.
    pub(crate) fn ask(&mut self, now: Instant) -> Result<(), Duration> {
        let Some(until) = self.until else {
            return Ok(());
        };
        if now < until {
            return Err(until - now);
        }
        match self.trial_ends {
            Some(ends) if now < ends => Err(ends - now),
            Some(_) | None => {
                self.trial_ends = Some(now + TRIAL);
                Ok(())
            }
        }
    }

    /// Tells how it went.
    pub(crate) fn tell(&mut self, rule: Rule, now: Instant, went: Went) {
        let trial = self.trial_ends.take().is_some();
        match went {
            Went::Well => *self = Self::default(),
            Went::Unclear => {}
            Went::Badly => {
                self.failures = self.failures.saturating_add(1);
                let open = self.until.is_some_and(|until| now < until);
                if !open && (trial || self.failures >= rule.threshold) {
                    let rest = rule.rest.saturating_mul(1 << self.opened.min(16));
                    self.until = Some(now + rest.min(rule.longest));
                    self.opened = self.opened.saturating_add(1);
                }
            }
        }
    }

    /// Whether it lets nothing through.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// Breakers by key. Only what failed takes a place; a plugin that asks ever new servers pushes out
/// whichever is closed, and with all open the newcomer is not remembered.
#[derive(Debug)]
pub(crate) struct Breakers<K> {
    rule: Rule,
    by_key: HashMap<K, Breaker>,
}

/// Most keys of one plugin.
const MAX_KEYS: usize = 256;

impl<K: Eq + Hash + Clone> Breakers<K> {
    pub(crate) fn new(rule: Rule) -> Self {
        Self {
            rule,
            by_key: HashMap::new(),
        }
    }

    pub(crate) fn ask(&mut self, key: &K, now: Instant) -> Result<(), Duration> {
        self.by_key
            .get_mut(key)
            .map_or(Ok(()), |breaker| breaker.ask(now))
    }

    pub(crate) fn tell(&mut self, key: &K, now: Instant, went: Went) {
        match went {
            Went::Well => {
                self.by_key.remove(key);
            }
            Went::Unclear => {
                if let Some(breaker) = self.by_key.get_mut(key) {
                    breaker.tell(self.rule, now, went);
                }
            }
            Went::Badly => {
                if self.by_key.len() >= MAX_KEYS && !self.by_key.contains_key(key) {
                    self.by_key.retain(|_, breaker| breaker.is_open(now));
                    if self.by_key.len() >= MAX_KEYS {
                        return;
                    }
                }
                self.by_key
                    .entry(key.clone())
                    .or_default()
                    .tell(self.rule, now, went);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        threshold: 3,
        rest: Duration::from_secs(10),
        longest: Duration::from_secs(30),
    };

    fn failed(times: u32, now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..times {
            breaker.tell(RULE, now, Went::Badly);
        }
        breaker
    }

    #[test]
    fn opens_at_the_threshold_and_not_before() {
        let now = Instant::now();
        assert_eq!(failed(2, now).ask(now), Ok(()));
        assert_eq!(failed(3, now).ask(now), Err(Duration::from_secs(10)));
    }

    #[test]
    fn a_success_between_failures_starts_the_count_again() {
        let now = Instant::now();
        let mut breaker = failed(2, now);
        breaker.tell(RULE, now, Went::Well);
        breaker.tell(RULE, now, Went::Badly);
        assert_eq!(breaker.ask(now), Ok(()));
    }

    #[test]
    fn after_the_rest_one_trial_decides() {
        let mut now = Instant::now();
        let mut breaker = failed(3, now);
        now += Duration::from_secs(10);
        assert_eq!(breaker.ask(now), Ok(()));
        assert!(
            breaker.ask(now).is_err(),
            "a second one waits for the trial"
        );
        breaker.tell(RULE, now, Went::Badly);
        assert_eq!(breaker.ask(now), Err(Duration::from_secs(20)));
        now += Duration::from_secs(20);
        assert_eq!(breaker.ask(now), Ok(()));
        breaker.tell(RULE, now, Went::Badly);
        assert_eq!(breaker.ask(now), Err(Duration::from_secs(30)), "capped");
        now += Duration::from_secs(30);
        assert_eq!(breaker.ask(now), Ok(()));
        breaker.tell(RULE, now, Went::Well);
        assert_eq!(breaker.ask(now), Ok(()));
        assert_eq!(breaker.ask(now), Ok(()));
    }

    #[test]
    fn a_trial_that_never_tells_is_replaced() {
        let mut now = Instant::now();
        let mut breaker = failed(3, now);
        now += Duration::from_secs(10);
        assert_eq!(breaker.ask(now), Ok(()));
        now += TRIAL;
        assert_eq!(breaker.ask(now), Ok(()));
    }

    #[test]
    fn late_failures_do_not_lengthen_the_rest() {
        let now = Instant::now();
        let mut breaker = failed(9, now);
        assert_eq!(breaker.ask(now), Err(Duration::from_secs(10)));
    }

    #[test]
    fn keys_are_apart_and_bounded() {
        let now = Instant::now();
        let mut breakers = Breakers::new(RULE);
        for _ in 0..3 {
            breakers.tell(&"a".to_owned(), now, Went::Badly);
        }
        assert!(breakers.ask(&"a".to_owned(), now).is_err());
        assert!(breakers.ask(&"b".to_owned(), now).is_ok());
        for key in 0..2 * MAX_KEYS {
            breakers.tell(&format!("k{key}"), now, Went::Badly);
        }
        assert!(breakers.by_key.len() <= MAX_KEYS);
        assert!(
            breakers.ask(&"a".to_owned(), now).is_err(),
            "open ones stay"
        );
    }
}
