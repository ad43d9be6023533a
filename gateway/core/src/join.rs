//! Whether a host that proved an identity is welcome: the order of questions.
//!
//! ```text
//! hello ─ version? ─ known? ── no ──► Adopt ─┐
//!                      │ yes                 ▼
//!                      └──────────► retired? in force? too old?
//!                                            │
//!                 another process is linked ─┴─ counter in order
//!                             │                       │
//!                           Probe ── silent ──────►  Mark (the counter is raised)
//!                             │ answers               │ a newcomer was faster: a clone
//!                             ▼                       ▼
//!                           Clone                   Settle ─► Welcome
//! ```
//!
//! [`Join`] is a state machine: [`Join::next`] takes what came of the last step and
//! what the gateway knows at this moment, and answers the next step. Between steps
//! anything may happen, other newcomers of the same host included, so nothing is
//! remembered that could have changed; what must not race is judged again by the
//! write itself ([`crate::seen::Seen::welcomed`]).

use std::time::Duration;

use model::Timestamp;
use protocol::v1::{Hello, Refusal, RefusalCode};

use crate::clone::{Counters, Evidence, LiveLink, Newcomer, Verdict, after_probe, judge};
use crate::host::Host;
use crate::identity::{Identity, Proven};
use crate::refuse::{self, LONG, SOON, refusal};

/// For the old link to show that it lives. A live agent answers in a round trip.
pub const PROBE_WITHIN: Duration = Duration::from_secs(2);

/// Bytes that each of a hello's texts may have: several times what a process, a boot
/// and a digest are told apart by. They are kept for as long as the link lives.
pub const HELLO_TEXT: usize = 128;

/// A newcomer on its way in.
#[derive(Clone, Debug)]
pub struct Join {
    proven: Proven,
    versions: (u32, u32),
    counter: u64,
    instance: Vec<u8>,
    boot_id: String,
    oversized: bool,
    adopted: bool,
}

/// What the gateway knows at this moment.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The host that the certificate names.
    pub host: Option<Host>,
    /// Whether its workspace is there.
    pub workspace: bool,
    /// Its counters.
    pub counters: Option<Counters>,
    /// Its link.
    pub live: Option<LiveLink<'a>>,
    /// For how long after its certificate's end a host may come back.
    pub late_return: Duration,
    /// The time.
    pub now: Timestamp,
}

/// What came of the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Nothing was asked yet.
    Nothing,
    /// The host was taken in, or somebody else did.
    Adopted,
    /// Whether the old link answered within [`PROBE_WITHIN`].
    Probed(bool),
    /// What was observed is written, with the next counter; or a newcomer was
    /// faster, and this one is the clone.
    Marked(Result<(), Evidence>),
    /// The identity that was used is settled.
    Settled,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Put [`Host::adopted`] into the store, or [`Host::recognised`] where its record
    /// [is older](Host::is_older_than), unless somebody did by now.
    Adopt,
    /// Ask the live link for a sign of life.
    Probe,
    /// Write [`crate::seen::Seen::welcomed`].
    Mark,
    /// Write [`Identity::used`], and retire those that [became](Host::became) this
    /// host.
    Settle,
    /// Register the link and say welcome.
    Welcome,
    /// Quarantine it.
    Clone(Evidence),
    /// Say no.
    Refuse(Refused),
}

/// A refusal, and whether it belongs into the audit trail.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// What to say.
    pub refusal: Refusal,
    /// Somebody uses an identity that was taken from it.
    pub superseded: bool,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            superseded: false,
        }
    }
}

impl Join {
    /// A newcomer that proved an identity and said hello.
    pub fn new(proven: Proven, hello: &Hello) -> Self {
        let longest = [
            hello.instance.len(),
            hello.boot_id.len(),
            hello.facts_digest.len(),
            hello.agent_version.len(),
        ];
        let oversized = longest.into_iter().any(|length| length > HELLO_TEXT);
        Self {
            proven,
            versions: (hello.version_min, hello.version_max),
            counter: hello.counter,
            instance: hello.instance.clone(),
            boot_id: hello.boot_id.clone(),
            oversized,
            adopted: false,
        }
    }

    /// The next step.
    pub fn next(&mut self, done: Done, known: &Known<'_>) -> Step {
        match done {
            Done::Nothing => {
                let (min, max) = self.versions;
                if min > protocol::VERSION || max < protocol::VERSION_MIN {
                    return Step::Refuse(refuse::version(LONG, known.now).into());
                }
                if self.oversized {
                    let text = "a text of the hello is longer than 128 bytes; \
                                install an agent of this deployment's release";
                    return Step::Refuse(
                        refusal(RefusalCode::Invalid, text, LONG, known.now).into(),
                    );
                }
                self.identify(known)
            }
            Done::Adopted => {
                self.adopted = true;
                self.identify(known)
            }
            Done::Probed(answered) => {
                let verdict = after_probe(counters(known), self.newcomer(), answered);
                self.follow(verdict, known)
            }
            Done::Marked(Ok(())) => Step::Settle,
            Done::Marked(Err(evidence)) => Step::Clone(evidence),
            Done::Settled => Step::Welcome,
        }
    }

    fn identify(&mut self, known: &Known<'_>) -> Step {
        let Some(host) = &known.host else {
            return if self.adopted {
                Step::Refuse(refuse::try_again(SOON, known.now).into())
            } else if self.proven.expired {
                // Nothing here says whether the host was retired after this certificate
                // was signed, and its own word for that has run out.
                Step::Refuse(too_old(known.now).into())
            } else if known.workspace {
                Step::Adopt
            } else {
                let text =
                    "this host's workspace is gone; reset the agent and join with a new token";
                Step::Refuse(refusal(RefusalCode::HostRetired, text, LONG, known.now).into())
            };
        };
        if host.is_older_than(&self.proven) && known.workspace {
            return if self.adopted {
                Step::Refuse(refuse::try_again(SOON, known.now).into())
            } else {
                Step::Adopt
            };
        }
        if let Err(refused) = identified(host, &self.proven, known) {
            return Step::Refuse(refused);
        }
        let verdict = judge(counters(known), self.newcomer(), known.live);
        self.follow(verdict, known)
    }

    fn follow(&self, verdict: Verdict, known: &Known<'_>) -> Step {
        match verdict {
            Verdict::Welcome { .. } => Step::Mark,
            Verdict::Clone(evidence) => Step::Clone(evidence),
            // Whoever is linked holds a generation that has ended by this one's being
            // signed; the store has forgotten that it was.
            Verdict::Probe if self.is_ahead(known) => Step::Mark,
            // A link that vanished between two looks leaves nobody to ask.
            Verdict::Probe if known.live.is_some() => Step::Probe,
            Verdict::Probe => Step::Mark,
        }
    }

    fn is_ahead(&self, known: &Known<'_>) -> bool {
        let identity = known.host.and_then(|host| host.identity);
        identity.is_some_and(|identity| identity.is_behind(&self.proven))
    }

    fn newcomer(&self) -> Newcomer<'_> {
        Newcomer {
            counter: self.counter,
            instance: &self.instance,
            boot_id: &self.boot_id,
        }
    }
}

/// A host whose record of observations is not there has been sent the first value
/// and has confirmed nothing.
fn counters(known: &Known<'_>) -> Counters {
    known.counters.unwrap_or(Counters {
        issued: 1,
        confirmed: 0,
    })
}

/// Whether the certificate is in force.
fn identified(host: &Host, proven: &Proven, known: &Known<'_>) -> Result<(), Refused> {
    if !host.is_live() {
        return Err(refuse::retired(known.now).into());
    }
    let Some(Identity { not_after, .. }) = host.accepts(proven.workspace, proven.generation) else {
        return Err(Refused {
            refusal: refuse::superseded(known.now),
            superseded: true,
        });
    };
    if proven.expired && known.now.since(*not_after) > known.late_return {
        return Err(too_old(known.now).into());
    }
    Ok(())
}

fn too_old(now: Timestamp) -> Refusal {
    let text = "the certificate expired too long ago; reset the agent and join with a new token";
    refusal(RefusalCode::CertificateExpired, text, LONG, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ids::{HostId, WorkspaceId};

    fn at() -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000)
    }

    fn proven(expired: bool) -> Proven {
        Proven {
            workspace: WorkspaceId::new(at(), [1; 10]),
            host: HostId::new(at(), [2; 10]),
            generation: 1,
            expired,
            spki_sha256: [3; 32],
        }
    }

    fn hello() -> Hello {
        Hello {
            version_min: protocol::VERSION_MIN,
            version_max: protocol::VERSION,
            ..Hello::default()
        }
    }

    /// A deployment that was restored from a copy older than the host.
    fn forgotten() -> Known<'static> {
        Known {
            host: None,
            workspace: true,
            counters: None,
            live: None,
            late_return: Duration::from_secs(86_400),
            now: at(),
        }
    }

    fn refused(step: Step) -> RefusalCode {
        match step {
            Step::Refuse(refused) => refused.refusal.code(),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn abuse_20_a_hello_has_room_for_what_it_says_and_no_more() {
        let text = "x".repeat(HELLO_TEXT);
        let first =
            |hello: &Hello| Join::new(proven(false), hello).next(Done::Nothing, &forgotten());
        let fits = Hello {
            instance: text.clone().into_bytes(),
            boot_id: text.clone(),
            facts_digest: text.clone().into_bytes(),
            agent_version: text.clone(),
            ..hello()
        };
        assert_eq!(first(&fits), Step::Adopt);
        let longer = text + "x";
        let bytes = || longer.clone().into_bytes();
        for hello in [
            Hello {
                instance: bytes(),
                ..fits.clone()
            },
            Hello {
                boot_id: longer.clone(),
                ..fits.clone()
            },
            Hello {
                facts_digest: bytes(),
                ..fits.clone()
            },
            Hello {
                agent_version: longer.clone(),
                ..fits.clone()
            },
        ] {
            assert_eq!(refused(first(&hello)), RefusalCode::Invalid);
        }
    }

    #[test]
    fn abuse_06_08_a_certificate_out_of_its_time_brings_no_forgotten_host_back() {
        let mut join = Join::new(proven(true), &hello());
        let step = join.next(Done::Nothing, &forgotten());
        assert_eq!(refused(step), RefusalCode::CertificateExpired);
    }
}
