//! How a command spreads over its hosts.

use model::command::Priority;

/// Size of a batch, or number of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// So many.
    Count(u32),
    /// So many percent of the targets, rounded up.
    Percent(u32),
}

/// The text is not a share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write a number of hosts such as 3, or a share such as 10%, both at least 1")]
pub struct NotAShare;

impl std::str::FromStr for Share {
    type Err = NotAShare;

    fn from_str(text: &str) -> Result<Self, NotAShare> {
        let digits = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse::<u32>().ok().filter(|number| *number > 0);
            number.filter(|_| plain).ok_or(NotAShare)
        };
        match text.strip_suffix('%') {
            Some(percent) => match digits(percent)? {
                percent @ 1..=100 => Ok(Self::Percent(percent)),
                _ => Err(NotAShare),
            },
            None => digits(text).map(Self::Count),
        }
    }
}

impl Share {
    /// How many of `total` that is: at least one.
    pub fn of(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let part = (u64::from(total) * u64::from(percent)).div_ceil(100);
                u32::try_from(part).unwrap_or(u32::MAX).max(1)
            }
        }
    }
}

/// How a command spreads over a known number of hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Most runs under way; `None` for all.
    pub concurrency: Option<u32>,
    /// Failures after which nothing more is started.
    pub stop_after: Option<u32>,
    /// Whose turn comes first.
    pub priority: Priority,
    /// Where each batch ends, as a number of hosts; the last one is the number of
    /// targets. Never empty.
    ends: Vec<u32>,
}

impl Plan {
    /// The plan for `total` hosts.
    pub fn new(
        total: u32,
        concurrency: u32,
        batches: &[Share],
        stop_after: Option<Share>,
        priority: Priority,
    ) -> Self {
        let mut ends = Vec::new();
        let mut end = 0;
        let last = batches.last().copied().unwrap_or(Share::Percent(100));
        let mut sizes = batches.iter().copied();
        while end < total {
            let size = sizes.next().unwrap_or(last).of(total);
            end = total.min(end.saturating_add(size));
            ends.push(end);
        }
        Self {
            concurrency: Some(concurrency).filter(|most| *most > 0),
            stop_after: stop_after.map(|share| share.of(total)),
            priority,
            ends,
        }
    }

    /// The batch of the host at `place` among the targets.
    pub fn batch_of(&self, place: u32) -> u32 {
        let batch = self.ends.partition_point(|end| *end <= place);
        u32::try_from(batch).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn share(text: &str) -> Share {
        text.parse().unwrap()
    }

    fn sizes(total: u32, batches: &[&str]) -> Vec<u32> {
        let batches: Vec<_> = batches.iter().map(|text| share(text)).collect();
        let plan = Plan::new(total, 0, &batches, None, Priority::Normal);
        let mut sizes = Vec::new();
        for place in 0..total {
            let batch = plan.batch_of(place) as usize;
            sizes.resize(sizes.len().max(batch + 1), 0);
            sizes[batch] += 1;
        }
        sizes
    }

    #[test]
    fn canaries_come_first_and_the_last_size_repeats() {
        assert_eq!(sizes(10, &["1", "30%"]), [1, 3, 3, 3]);
        assert_eq!(sizes(10, &["1", "100%"]), [1, 9]);
        assert_eq!(sizes(10, &[]), [10]);
        assert_eq!(sizes(3, &["5"]), [3]);
    }

    #[test]
    fn a_share_of_few_hosts_is_at_least_one() {
        assert_eq!(share("5%").of(3), 1);
        assert_eq!(share("34%").of(3), 2);
    }

    #[test]
    fn nothing_else_is_a_share() {
        for text in ["", "0", "0%", "101%", "-1", "+1", "1.5", "%", "1 %", "a"] {
            assert_eq!(text.parse::<Share>(), Err(NotAShare), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn batches_are_in_order_and_cover_every_host(
            total in 1u32..5000,
            batches in proptest::collection::vec((1u32..200, any::<bool>()), 0..6),
        ) {
            let batches: Vec<_> = batches
                .into_iter()
                .map(|(n, percent)| if percent { Share::Percent(n.min(100)) } else { Share::Count(n) })
                .collect();
            let plan = Plan::new(total, 0, &batches, None, Priority::Normal);
            let of: Vec<_> = (0..total).map(|place| plan.batch_of(place)).collect();
            prop_assert_eq!(of[0], 0);
            prop_assert!(of.windows(2).all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1));
        }
    }
}
