//! Waiting for a condition: with a limit, and with the last thing seen in the error.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::interrupt;

/// What one look at a condition found.
#[derive(Debug)]
pub enum Look<T> {
    /// It holds.
    Ready(T),
    /// It does not hold; the text says what was seen instead.
    NotYet(String),
}

impl<T> Look<T> {
    /// `Ready(value)` when there is one, otherwise `seen`.
    pub fn some(value: Option<T>, seen: impl FnOnce() -> String) -> Self {
        value.map_or_else(|| Self::NotYet(seen()), Self::Ready)
    }
}

impl Look<()> {
    /// `Ready` when `holds`, otherwise `seen`.
    pub fn when(holds: bool, seen: impl FnOnce() -> String) -> Self {
        Self::some(holds.then_some(()), seen)
    }
}

/// Looks until the condition holds or `limit` has passed. An error of `look` counts as "not yet":
/// the thing looked at is usually still starting.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Look<T>>,
) -> Result<T> {
    let start = Instant::now();
    // Short first, so that quick things stay quick; then rare enough to leave the machine alone.
    let mut step = Duration::from_millis(2);
    loop {
        let seen = match look() {
            Ok(Look::Ready(value)) => return Ok(value),
            Ok(Look::NotYet(seen)) => seen,
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() >= limit {
            return Err(anyhow!(
                "waited {:.1} s for {what}; last seen: {seen}",
                limit.as_secs_f32()
            ));
        }
        interrupt::pause(step)?;
        step = (step * 2).min(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_condition_and_the_last_thing_seen() {
        let error = until("the moon", Duration::from_millis(1), || {
            Ok(Look::<()>::NotYet("clouds".into()))
        })
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "waited 0.0 s for the moon; last seen: clouds"
        );
    }

    #[test]
    fn a_failing_look_is_looked_at_again() {
        let mut looks = 0;
        let value = until("three", Duration::from_secs(5), || {
            looks += 1;
            anyhow::ensure!(looks == 3, "only {looks}");
            Ok(Look::Ready(looks))
        });
        assert_eq!(value.unwrap(), 3);
    }
}
