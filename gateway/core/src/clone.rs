//! Telling a clone from a host that comes back.
//!
//! A copied disk carries the key and the certificate, so both machines prove the
//! same identity. What it cannot carry is the future: gateway and agent advance a
//! counter together at every link (and now and then on a live one), and each
//! stores the new value before it relies on it.
//!
//! ```text
//! issued     the newest value the gateway has stored and sent
//! confirmed  the newest value the agent has said is on its disk
//!            confirmed <= issued <= confirmed + 1
//! ```
//!
//! A host that comes back presents `confirmed`, or `issued` when its
//! confirmation was lost. Anything older was copied (or restored from a backup)
//! before the last confirmation; anything newer was made by somebody else, or the
//! gateway's own state is older than the host (see below).
//!
//! One case the counter cannot tell: a copy that appears with the newest value
//! while the original is linked. Then the old link is asked: if it answers, there
//! are two machines and the newcomer is the clone; if it stays silent, the host
//! has merely lost its old link. A reconnect of the very process that holds the
//! old link (same `instance`) needs no question.
//!
//! A counter ahead of `issued` means that the gateway was restored from an older
//! copy: the host is believed, since only a gateway can have raised it and the
//! certificate is ours; the caller records it as evidence.

/// The counters of a host, as the gateway has stored them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Newest value sent.
    pub issued: u64,
    /// Newest value the agent has stored.
    pub confirmed: u64,
}

/// A link that the gateway believes to be alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveLink<'a> {
    /// The process that holds it.
    pub instance: &'a [u8],
    /// The boot it runs in.
    pub boot_id: &'a str,
}

/// What a newcomer presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newcomer<'a> {
    /// Its counter.
    pub counter: u64,
    /// Its process.
    pub instance: &'a [u8],
    /// Its boot.
    pub boot_id: &'a str,
}

/// What to do with a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the host. Store this as `issued`, then send it.
    Welcome {
        /// The next value.
        issue: u64,
        /// Whether the gateway's own state turned out to be the older one.
        gateway_was_behind: bool,
    },
    /// Ask the old link for a sign of life, then decide with [`after_probe`].
    Probe,
    /// It is a copy.
    Clone(Evidence),
}

/// What gave a clone away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Its counter belongs to the past.
    StaleCounter {
        /// What it presented.
        presented: u64,
        /// What the host has confirmed.
        confirmed: u64,
    },
    /// The host's own link answered while it was there.
    OriginalAlive,
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::StaleCounter {
                presented,
                confirmed,
            } => {
                write!(
                    f,
                    "presented counter {presented}, the host has confirmed {confirmed}"
                )
            }
            Self::OriginalAlive => f.write_str("the host's own link answered at the same time"),
        }
    }
}

/// Judges a newcomer that proved the identity of a managed host.
pub fn judge(counters: Counters, newcomer: Newcomer<'_>, live: Option<LiveLink<'_>>) -> Verdict {
    let (issue, gateway_was_behind) = match next_counter(counters, newcomer.counter) {
        Ok(next) => next,
        Err(evidence) => return Verdict::Clone(evidence),
    };
    match live {
        Some(live) if live.instance != newcomer.instance => Verdict::Probe,
        Some(_) | None => Verdict::Welcome {
            issue,
            gateway_was_behind,
        },
    }
}

/// Judges the same newcomer after the old link was asked.
pub fn after_probe(counters: Counters, newcomer: Newcomer<'_>, old_link_answered: bool) -> Verdict {
    if old_link_answered {
        Verdict::Clone(Evidence::OriginalAlive)
    } else {
        judge(counters, newcomer, None)
    }
}

/// The value that follows for whoever presents `presented`, and whether the
/// gateway's own state turned out to be the older one; or why it is a copy.
pub fn next_counter(counters: Counters, presented: u64) -> Result<(u64, bool), Evidence> {
    if presented < counters.confirmed {
        return Err(Evidence::StaleCounter {
            presented,
            confirmed: counters.confirmed,
        });
    }
    // Past everything either side has seen; saturating keeps a hostile counter from
    // wrapping into the past.
    let next = counters.issued.max(presented).saturating_add(1);
    Ok((next, presented > counters.issued))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOOT: &str = "boot";

    fn newcomer(counter: u64, instance: &[u8]) -> Newcomer<'_> {
        Newcomer {
            counter,
            instance,
            boot_id: BOOT,
        }
    }

    #[test]
    fn a_lost_confirmation_is_not_a_clone() {
        let counters = Counters {
            issued: 6,
            confirmed: 5,
        };
        for presented in [5, 6] {
            assert!(matches!(
                judge(counters, newcomer(presented, b"a"), None),
                Verdict::Welcome { issue: 7, .. }
            ));
        }
    }

    #[test]
    fn a_copy_of_a_live_host_is_told_by_asking_the_live_link() {
        let counters = Counters {
            issued: 6,
            confirmed: 6,
        };
        let live = Some(LiveLink {
            instance: b"a",
            boot_id: BOOT,
        });
        let copy = newcomer(6, b"b");
        assert_eq!(judge(counters, copy, live), Verdict::Probe);
        assert_eq!(
            after_probe(counters, copy, true),
            Verdict::Clone(Evidence::OriginalAlive)
        );
        assert!(matches!(
            after_probe(counters, copy, false),
            Verdict::Welcome { .. }
        ));
    }

    #[test]
    fn the_process_that_holds_the_old_link_needs_no_question() {
        let counters = Counters {
            issued: 6,
            confirmed: 6,
        };
        let live = Some(LiveLink {
            instance: b"a",
            boot_id: BOOT,
        });
        assert!(matches!(
            judge(counters, newcomer(6, b"a"), live),
            Verdict::Welcome { .. }
        ));
    }

    /// A machine in the model: what is on its disk.
    #[derive(Clone, Debug)]
    struct Disk(u64);

    #[derive(Clone, Debug)]
    enum Step {
        /// The original links and stores what it is sent.
        Link,
        /// The original links; what it is sent never reaches its disk.
        LinkLosingReply,
        /// The original links and stores; its confirmation is lost.
        LinkLosingConfirmation,
        /// The disk is copied.
        Copy,
    }

    proptest! {
        /// Whatever is lost on the way, the original is never called a clone,
        /// and a copy is, as soon as the original has confirmed anything since.
        #[test]
        fn copies_are_found_and_originals_never_accused(
            steps in proptest::collection::vec(
                prop_oneof![
                    4 => Just(Step::Link), 1 => Just(Step::LinkLosingReply),
                    1 => Just(Step::LinkLosingConfirmation), 1 => Just(Step::Copy),
                ],
                1..40,
            ),
        ) {
            let mut counters = Counters { issued: 1, confirmed: 1 };
            let mut original = Disk(1);
            let mut copy: Option<Disk> = None;
            let mut confirmed_since_copy = false;
            for step in steps {
                if matches!(step, Step::Copy) {
                    copy = Some(original.clone());
                    confirmed_since_copy = false;
                    continue;
                }
                let Verdict::Welcome { issue, gateway_was_behind } =
                    judge(counters, newcomer(original.0, b"a"), None)
                else {
                    return Err(TestCaseError::fail("the original was accused"));
                };
                prop_assert!(!gateway_was_behind);
                // Presenting a value is a confirmation of it.
                confirmed_since_copy |= original.0 > counters.confirmed && copy.as_ref().is_some_and(|c| c.0 < original.0);
                counters = Counters { issued: issue, confirmed: counters.confirmed.max(original.0) };
                match step {
                    Step::LinkLosingReply | Step::Copy => {}
                    Step::LinkLosingConfirmation => original = Disk(issue),
                    Step::Link => {
                        original = Disk(issue);
                        counters.confirmed = issue;
                        confirmed_since_copy = copy.is_some();
                    }
                }
            }
            if let (Some(copy), true) = (copy, confirmed_since_copy) {
                let verdict = judge(counters, newcomer(copy.0, b"b"), None);
                prop_assert!(matches!(verdict, Verdict::Clone(_)), "{verdict:?}");
            }
        }
    }
}
