//! Names to addresses, and happy eyeballs (RFC 8305): the families take turns, each
//! address gets a head start, the first that works wins and the others are dropped.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};

use super::error::{Reason, Rung};
use super::target::Target;
use super::{DialError, DialLimits};

/// More addresses than this are not tried: the time would not suffice.
const MAX_ADDRESSES: usize = 8;

/// The addresses of `target`, families taking turns.
pub(super) async fn resolve(
    target: &Target,
    limits: &DialLimits,
) -> Result<Vec<SocketAddr>, DialError> {
    if let Some(ip) = target.ip() {
        return Ok(vec![SocketAddr::new(ip, target.port())]);
    }
    let fail = |reason| DialError {
        rung: Rung::Dns,
        peer: target.to_string(),
        reason,
    };
    let found = timeout(
        limits.dns,
        tokio::net::lookup_host((target.host(), target.port())),
    )
    .await
    .map_err(|_| fail(Reason::Timeout(limits.dns)))?
    .map_err(|error| fail(Reason::Io(error)))?;
    let addresses = interleave(found);
    if addresses.is_empty() {
        Err(fail(Reason::NoAddress))
    } else {
        Ok(addresses)
    }
}

/// The resolver's order within a family; its first address' family goes first.
fn interleave(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut found = found.peekable();
    let v6_first = found.peek().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        found.partition(|address| address.is_ipv6() == v6_first);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turns = Vec::new();
    while turns.len() < MAX_ADDRESSES {
        let (one, other) = (first.next(), second.next());
        if one.is_none() && other.is_none() {
            break;
        }
        turns.extend(one.into_iter().chain(other));
    }
    turns.truncate(MAX_ADDRESSES);
    turns
}

/// Runs `attempts` with a head start of `stagger` each, less when an earlier one
/// fails. The first success, or the first failure: that of the preferred address is
/// the most telling. Nothing when there are no attempts.
pub(super) async fn race<T, E, F>(
    attempts: impl IntoIterator<Item = F>,
    stagger: Duration,
) -> Option<Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = attempts.into_iter().peekable();
    let mut running = FuturesUnordered::new();
    running.push(waiting.next()?);
    let mut first_failure = None;
    loop {
        let finished = tokio::select! {
            finished = running.next() => finished,
            () = sleep(stagger), if waiting.peek().is_some() => None,
        };
        match finished {
            Some(Ok(won)) => return Some(Ok(won)),
            Some(Err(error)) => {
                first_failure.get_or_insert(error);
            }
            None => {}
        }
        match waiting.next() {
            Some(next) => running.push(next),
            None if running.is_empty() => return first_failure.map(Err),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[test]
    fn families_take_turns_in_the_resolvers_order() {
        let found =
            ["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1"].map(|text| text.parse().unwrap());
        let turns: Vec<_> = interleave(found.into_iter())
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(turns, ["[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"]);
        assert_eq!(
            interleave((1..99).map(|port| ([10, 0, 0, 1], port).into())).len(),
            8
        );
    }

    /// One attempt: fails or succeeds after some time, or never does either.
    async fn attempt(after_ms: Option<u64>, result: Result<u8, u8>) -> Result<u8, u8> {
        match after_ms {
            Some(ms) => sleep(Duration::from_millis(ms)).await,
            None => pending().await,
        }
        result
    }

    async fn won(attempts: Vec<(Option<u64>, Result<u8, u8>)>) -> Option<(Result<u8, u8>, u128)> {
        let start = tokio::time::Instant::now();
        let attempts = attempts
            .into_iter()
            .map(|(after, result)| attempt(after, result));
        let result = race(attempts, Duration::from_millis(250)).await?;
        Some((result, start.elapsed().as_millis()))
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_success_wins_and_failures_hurry_the_next() {
        assert_eq!(won(vec![]).await, None);
        assert_eq!(
            won(vec![(Some(9), Ok(1)), (Some(0), Ok(2))]).await,
            Some((Ok(1), 9))
        );
        // A silent address costs its head start, a failing one nothing.
        assert_eq!(
            won(vec![(None, Ok(1)), (Some(10), Ok(2))]).await,
            Some((Ok(2), 260))
        );
        assert_eq!(
            won(vec![(Some(0), Err(1)), (Some(10), Ok(2))]).await,
            Some((Ok(2), 10))
        );
        assert_eq!(
            won(vec![(Some(9), Err(1)), (Some(0), Err(2))]).await,
            Some((Err(1), 9))
        );
    }
}
