//! One link that the gateway has welcomed.
//!
//! Heartbeats go out on a fixed beat; every one wants an acknowledgement. A missing
//! one makes the link *suspect* after seconds, so that the other rung is dialled
//! while this one may still recover, and *dead* after two further beats: a half-open
//! connection is noticed within three beats however idle it is. Beats may be minutes
//! apart, so the transport's own keepalives count as well: their silence makes a link
//! suspect, never dead, because they say nothing about the gateway's program.
//!
//! Counters follow one rule: `CounterStored` is said only after the disk said so. A
//! disk that refuses leaves the link up and the counter where it was; the gateway
//! then finds the old value at the next hello, which is the truth.

use std::collections::VecDeque;
use std::time::Duration;

use model::Timestamp;
use protocol::v1::{CounterStored, Heartbeat, Settings, Welcome, agent_frame};

use crate::io::{Action, Conn, FactsDigest, Identity, KeyChoice, Rung};
use crate::time::{Dice, Mono, Now};

const BEAT_DEFAULT: Duration = Duration::from_secs(15);
/// What a gateway may ask for. Outside of it lies a mistake, or a flood.
const BEAT_RANGE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(300));
/// An acknowledgement takes a round trip. One that takes this long is worth a look at
/// the other rung; the range keeps a gateway that pauses for a moment from being
/// dialled by its whole fleet at once.
const SUSPECT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(4));
/// How often the transport makes sure that the path is open. A path that is cut is
/// noticed after this and the silence below, and replaced within ten seconds.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Silence of the transport that makes a link suspect: a keepalive and some round
/// trips. A range for the same reason as above.
const QUIET: (Duration, Duration) = (Duration::from_millis(6500), Duration::from_secs(8));
/// However fast the beat, a link is not declared dead sooner.
pub(crate) const DEAD_FLOOR: Duration = Duration::from_secs(5);
/// A clock that went this far between two looks belongs to a machine that slept; its
/// acknowledgements have had no chance.
const SLEPT: Duration = Duration::from_secs(30);
/// Facts are read at most this often: they cost a hundred small files.
const FACTS_EVERY: Duration = Duration::from_secs(30);
const COUNTER_RETRY: Duration = Duration::from_secs(60);
/// Time for the answer to a renewal.
const RENEWAL_LIMIT: Duration = Duration::from_secs(30);
const RENEWAL_RETRY: (Duration, Duration) =
    (Duration::from_secs(5 * 60), Duration::from_secs(15 * 60));

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) conn: Conn,
    pub(crate) rung: Rung,
    pub(crate) since: Mono,
    pub(crate) display_name: String,
    pub(crate) quarantined: bool,
    beat: Duration,
    next_beat: Mono,
    sequence: u64,
    /// Heartbeats without an answer, oldest first.
    unacked: VecDeque<(u64, Mono)>,
    suspect_after: Duration,
    heard: Mono,
    quiet_after: Duration,
    looked: Mono,
    /// A counter that is not on disk yet, and when to try again.
    counter: Option<(u64, Option<Mono>)>,
    renewal: Renewal,
    /// What the gateway has; `None` after it asked.
    facts_known: Option<FactsDigest>,
    facts_due: Mono,
}

/// What a session begins with.
pub(crate) struct Joined<'a> {
    pub(crate) conn: Conn,
    pub(crate) rung: Rung,
    pub(crate) welcome: &'a Welcome,
    pub(crate) identity: &'a Identity,
    /// When this process got its newest certificate.
    pub(crate) granted: Option<Mono>,
    /// What the hello said the facts are.
    pub(crate) facts: FactsDigest,
}

#[derive(Debug)]
enum Renewal {
    /// Due at this wall time.
    Due(Timestamp),
    /// Not before this instant, whatever the certificate says.
    Later(Mono),
    Asked {
        since: Mono,
        key: KeyChoice,
    },
    /// The answer is being stored.
    Storing {
        key: KeyChoice,
    },
}

/// What a look at the clock found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Good,
    /// An acknowledgement is overdue.
    Suspect,
    /// The peer is gone.
    Dead,
}

impl Session {
    pub(crate) fn new(
        joined: &Joined<'_>,
        now: Now,
        dice: &mut Dice,
        actions: &mut Vec<Action>,
    ) -> Self {
        let Joined {
            conn,
            rung,
            welcome,
            identity,
            granted,
            facts,
        } = *joined;
        let mut session = Self {
            conn,
            rung,
            since: now.mono,
            display_name: model::names::clean(&welcome.display_name, 128),
            quarantined: welcome.quarantined,
            beat: BEAT_DEFAULT,
            next_beat: now.mono,
            sequence: 0,
            unacked: VecDeque::new(),
            suspect_after: dice.between(SUSPECT.0, SUSPECT.1),
            heard: now.mono,
            quiet_after: dice.between(QUIET.0, QUIET.1),
            looked: now.mono,
            counter: None,
            renewal: renewal(identity, granted, now, dice),
            facts_known: (!welcome.want_facts).then_some(facts),
            facts_due: now.mono,
        };
        session.store_counter(welcome.counter, identity, actions);
        if let Some(settings) = &welcome.settings {
            session.apply(settings);
        }
        // The hello was a sign of life; the first beat finds its place at random.
        session.next_beat = now.mono.after(dice.between(session.beat / 4, session.beat));
        if welcome.want_renewal {
            session.renew(KeyChoice::Current, now.mono, actions);
        }
        session
    }

    /// Does what is due.
    pub(crate) fn advance(
        &mut self,
        now: Now,
        dice: &mut Dice,
        actions: &mut Vec<Action>,
    ) -> Health {
        if now.mono.since(self.looked) > SLEPT {
            self.unacked.clear();
            self.heard = now.mono;
            self.next_beat = now.mono;
        }
        self.looked = now.mono;

        if self.next_beat <= now.mono {
            self.heartbeat(now.mono, actions);
        }
        if let Some((counter, Some(retry))) = self.counter
            && retry <= now.mono
        {
            self.counter = Some((counter, None));
            actions.push(Action::StoreCounter(counter));
        }
        self.advance_renewal(now, dice, actions);
        self.health(now.mono)
    }

    fn heartbeat(&mut self, now: Mono, actions: &mut Vec<Action>) {
        self.sequence += 1;
        self.unacked.push_back((self.sequence, now));
        let beat = Heartbeat {
            sequence: self.sequence,
        };
        actions.push(Action::Send(self.conn, agent_frame::Body::Heartbeat(beat)));
        self.next_beat = now.after(self.beat);
        if self.facts_due <= now {
            self.facts_due = now.after(FACTS_EVERY);
            actions.push(Action::ReadFacts);
        }
    }

    fn advance_renewal(&mut self, now: Now, dice: &mut Dice, actions: &mut Vec<Action>) {
        match self.renewal {
            Renewal::Due(at) if at <= now.wall => self.renew(KeyChoice::Current, now.mono, actions),
            Renewal::Later(at) if at <= now.mono => {
                self.renew(KeyChoice::Current, now.mono, actions)
            }
            Renewal::Asked {
                since,
                key: KeyChoice::Current,
            } if since.after(RENEWAL_LIMIT) <= now.mono => {
                self.postpone_renewal(Duration::ZERO, now.mono, dice);
            }
            // The gateway waits for the new key: keep asking.
            Renewal::Asked {
                since,
                key: KeyChoice::Pending,
            } if since.after(RENEWAL_LIMIT) <= now.mono => {
                self.renew(KeyChoice::Pending, now.mono, actions);
            }
            Renewal::Due(_)
            | Renewal::Later(_)
            | Renewal::Asked { .. }
            | Renewal::Storing { .. } => {}
        }
    }

    fn health(&self, now: Mono) -> Health {
        let silent = self
            .unacked
            .front()
            .map_or(Duration::ZERO, |&(_, sent)| now.since(sent));
        if silent >= self.dead_after() {
            Health::Dead
        } else if silent >= self.suspect_after || now.since(self.heard) >= self.quiet_after {
            Health::Suspect
        } else {
            Health::Good
        }
    }

    /// Two beats after the first unanswered one: three since the last answer.
    fn dead_after(&self) -> Duration {
        (self.beat * 2).max(DEAD_FLOOR)
    }

    pub(crate) fn deadline(&self, now: Now) -> Mono {
        let silence = self.unacked.front().map(|&(_, sent)| {
            let (suspect, dead) = (
                sent.after(self.suspect_after),
                sent.after(self.dead_after()),
            );
            if suspect > now.mono { suspect } else { dead }
        });
        let renewal = match self.renewal {
            Renewal::Due(at) => Some(now.mono.after(at.since(now.wall))),
            Renewal::Later(at) => Some(at),
            Renewal::Asked { since, .. } => Some(since.after(RENEWAL_LIMIT)),
            Renewal::Storing { .. } => None,
        };
        let counter = self.counter.and_then(|(_, retry)| retry);
        let quiet = Some(self.heard.after(self.quiet_after)).filter(|&at| at > now.mono);
        [silence, quiet, renewal, counter]
            .into_iter()
            .flatten()
            .fold(self.next_beat, Mono::min)
    }

    pub(crate) fn heard(&mut self, now: Mono) {
        self.heard = now;
    }

    pub(crate) fn acknowledged(&mut self, sequence: u64, now: Mono) {
        self.heard = now;
        while self
            .unacked
            .front()
            .is_some_and(|&(sent, _)| sent <= sequence)
        {
            self.unacked.pop_front();
        }
    }

    pub(crate) fn apply(&mut self, settings: &Settings) {
        if settings.heartbeat_ms > 0 {
            let beat = Duration::from_millis(settings.heartbeat_ms.into());
            self.beat = beat.clamp(BEAT_RANGE.0, BEAT_RANGE.1);
            self.next_beat = self.next_beat.min(self.looked.after(self.beat));
        }
    }

    /// Moves on to `counter`, never backwards.
    pub(crate) fn store_counter(
        &mut self,
        counter: u64,
        identity: &Identity,
        actions: &mut Vec<Action>,
    ) {
        if counter > identity.counter {
            self.counter = Some((counter, None));
            actions.push(Action::StoreCounter(counter));
        }
    }

    pub(crate) fn counter_stored(&mut self, counter: u64, actions: &mut Vec<Action>) {
        if self.counter.is_some_and(|(wanted, _)| wanted == counter) {
            self.counter = None;
            let stored = CounterStored { counter };
            actions.push(Action::Send(
                self.conn,
                agent_frame::Body::CounterStored(stored),
            ));
        }
    }

    /// It is not on disk, or must not be said yet: begins anew after a while.
    pub(crate) fn counter_later(&mut self, counter: u64, now: Mono) {
        if self.counter.is_some_and(|(wanted, _)| wanted == counter) {
            self.counter = Some((counter, Some(now.after(COUNTER_RETRY))));
        }
    }

    pub(crate) fn facts_read(&mut self, digest: FactsDigest, actions: &mut Vec<Action>) {
        if self.facts_known != Some(digest) {
            self.facts_known = Some(digest);
            actions.push(Action::SendFacts(self.conn));
        }
    }

    pub(crate) fn renew(&mut self, key: KeyChoice, now: Mono, actions: &mut Vec<Action>) {
        self.renewal = Renewal::Asked { since: now, key };
        actions.push(Action::Renew(self.conn, key));
    }

    /// For which key a certificate was asked for, if it was.
    pub(crate) fn expects_grant(&mut self) -> Option<KeyChoice> {
        let Renewal::Asked { key, .. } = self.renewal else {
            return None;
        };
        self.renewal = Renewal::Storing { key };
        Some(key)
    }

    /// The certificate is in force; for which key.
    pub(crate) fn renewed(
        &mut self,
        identity: &Identity,
        now: Now,
        dice: &mut Dice,
    ) -> Option<KeyChoice> {
        let key = match self.renewal {
            Renewal::Storing { key } => Some(key),
            Renewal::Due(_) | Renewal::Later(_) | Renewal::Asked { .. } => None,
        };
        self.renewal = renewal(identity, Some(now.mono), now, dice);
        key
    }

    pub(crate) fn postpone_renewal(&mut self, at_least: Duration, now: Mono, dice: &mut Dice) {
        let wait = at_least + dice.between(RENEWAL_RETRY.0, RENEWAL_RETRY.1);
        self.renewal = Renewal::Later(now.after(wait));
    }
}

/// When to renew. A certificate that was due the moment it came is one of clocks that
/// disagree; asking for the next at once would go on without end.
fn renewal(identity: &Identity, granted: Option<Mono>, now: Now, dice: &mut Dice) -> Renewal {
    let at = renewal_time(identity, dice);
    match granted {
        Some(granted) if at <= now.wall && now.mono.since(granted) < RENEWAL_RETRY.0 => {
            Renewal::Later(granted.after(dice.between(RENEWAL_RETRY.0, RENEWAL_RETRY.1)))
        }
        Some(_) | None => Renewal::Due(at),
    }
}

/// Before half of the certificate's life is over, spread over a tenth of it, so that
/// hosts which joined together do not renew together.
fn renewal_time(identity: &Identity, dice: &mut Dice) -> Timestamp {
    let life = identity.not_after.since(identity.not_before);
    identity
        .not_before
        .saturating_add(dice.between(life * 2 / 5, life / 2))
}
