//! One attempt over both rungs.
//!
//! ```text
//!            due            Connected          Welcome
//!   Held ──────────► Dialling ─────────► Joining ────────► (a Session)
//!    ▲                  │ Failed, late      │ Closed, late, refused
//!    └── another joins  ▼                   ▼
//!                     Failed ◄──────────────┘   all failed: the race is lost
//! ```
//!
//! The preferred rung starts at once, the other [`HEAD_START`] later or as soon as
//! the first one has failed. What wins is not the first handshake but the first
//! welcome: a path that carries small packets and drops large ones shakes hands and
//! goes silent. Only one connection joins at a time, though; two hellos would ask
//! the gateway which of them is the clone.

use std::time::Duration;

use crate::io::{Action, Conn, DialFailure, Purpose, Rung};
use crate::time::Mono;

/// What the preferred rung is ahead. UDP answers within a second on most networks;
/// together with a WebSocket's handshake this stays far below the ten seconds in
/// which a host behind a closed firewall should be linked.
pub(crate) const HEAD_START: Duration = Duration::from_secs(2);
/// Time for a dial, DNS and proxy included.
pub const DIAL_LIMIT: Duration = Duration::from_secs(12);
/// Time for a welcome. A gateway that restarted admits its agents a few at a time,
/// and giving up early would only put them back at the end of the queue.
pub(crate) const JOIN_LIMIT: Duration = Duration::from_secs(20);
/// The same while the other rung has not been heard: a path that swallows large
/// packets looks like a slow gateway.
pub(crate) const JOIN_LIMIT_ALTERNATIVE: Duration = Duration::from_secs(6);

#[derive(Debug)]
pub(crate) struct Race {
    purpose: Purpose,
    lanes: Vec<Lane>,
}

#[derive(Debug)]
struct Lane {
    rung: Rung,
    state: LaneState,
}

#[derive(Clone, Copy, Debug)]
enum LaneState {
    Held { until: Mono },
    Dialling { conn: Conn, since: Mono },
    Joining { conn: Conn, since: Mono },
    Failed(DialFailure),
}

/// How a race stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Open,
    /// Every rung has failed; `Rejected` when any of them was rejected, because then
    /// the way is there and the trouble is elsewhere.
    Lost(DialFailure),
}

impl Race {
    /// A race over both rungs.
    pub(crate) fn new(purpose: Purpose, preferred: Rung, now: Mono) -> Self {
        let lane = |rung, until| Lane {
            rung,
            state: LaneState::Held { until },
        };
        let lanes = vec![
            lane(preferred, now),
            lane(preferred.other(), now.after(HEAD_START)),
        ];
        Self { purpose, lanes }
    }

    /// A race with one runner: a look at a single rung.
    pub(crate) fn single(purpose: Purpose, rung: Rung, now: Mono) -> Self {
        Self {
            purpose,
            lanes: vec![Lane {
                rung,
                state: LaneState::Held { until: now },
            }],
        }
    }

    /// Starts what is due and ends what is late.
    pub(crate) fn advance(
        &mut self,
        now: Mono,
        next_conn: &mut impl FnMut() -> Conn,
        actions: &mut Vec<Action>,
    ) -> Outcome {
        for index in 0..self.lanes.len() {
            if let Some((conn, deadline)) = self.running(index)
                && deadline <= now
            {
                actions.push(Action::Close(conn));
                self.fail_lane(index, DialFailure::Network, now);
            }
        }
        let somebody_joins = self.joining().is_some();
        let purpose = self.purpose;
        for lane in &mut self.lanes {
            if let LaneState::Held { until } = lane.state
                && until <= now
                && !somebody_joins
            {
                let conn = next_conn();
                lane.state = LaneState::Dialling { conn, since: now };
                actions.push(Action::Dial {
                    conn,
                    rung: lane.rung,
                    purpose,
                });
            }
        }
        self.outcome()
    }

    /// The first handshake is through: the others wait for what comes of it. `false`
    /// when the connection is not of this race.
    pub(crate) fn connected(&mut self, conn: Conn, now: Mono, actions: &mut Vec<Action>) -> bool {
        if !self
            .lanes
            .iter()
            .any(|lane| matches!(lane.state, LaneState::Dialling { conn: c, .. } if c == conn))
        {
            return false;
        }
        for lane in &mut self.lanes {
            if let LaneState::Dialling { conn: other, .. } = lane.state {
                if other == conn {
                    lane.state = LaneState::Joining { conn, since: now };
                } else {
                    actions.push(Action::Close(other));
                    lane.state = LaneState::Held { until: now };
                }
            }
        }
        true
    }

    /// A dial or a join of this race has failed. `false` when it is not of this race.
    pub(crate) fn failed(&mut self, conn: Conn, failure: DialFailure, now: Mono) -> bool {
        let found = (0..self.lanes.len())
            .find(|&index| matches!(self.running(index), Some((c, _)) if c == conn));
        if let Some(index) = found {
            self.fail_lane(index, failure, now);
        }
        found.is_some()
    }

    /// The connection that waits for its welcome.
    pub(crate) fn joining(&self) -> Option<(Conn, Rung)> {
        self.lanes.iter().find_map(|lane| match lane.state {
            LaneState::Joining { conn, .. } => Some((conn, lane.rung)),
            LaneState::Held { .. } | LaneState::Dialling { .. } | LaneState::Failed(_) => None,
        })
    }

    /// Gives everything up except `keep`.
    pub(crate) fn close(&self, keep: Option<Conn>, actions: &mut Vec<Action>) {
        for index in 0..self.lanes.len() {
            if let Some((conn, _)) = self.running(index)
                && Some(conn) != keep
            {
                actions.push(Action::Close(conn));
            }
        }
    }

    pub(crate) fn purpose(&self) -> Purpose {
        self.purpose
    }

    pub(crate) fn deadline(&self) -> Option<Mono> {
        let somebody_joins = self.joining().is_some();
        (0..self.lanes.len())
            .filter_map(|index| match self.lanes[index].state {
                LaneState::Held { until } => (!somebody_joins).then_some(until),
                LaneState::Dialling { .. } | LaneState::Joining { .. } => {
                    self.running(index).map(|(_, deadline)| deadline)
                }
                LaneState::Failed(_) => None,
            })
            .min()
    }

    /// Connection and deadline of a lane that has one.
    fn running(&self, index: usize) -> Option<(Conn, Mono)> {
        match self.lanes[index].state {
            LaneState::Dialling { conn, since } => Some((conn, since.after(DIAL_LIMIT))),
            LaneState::Joining { conn, since } => {
                let alternative = self
                    .lanes
                    .iter()
                    .any(|lane| matches!(lane.state, LaneState::Held { .. }));
                let limit = if alternative {
                    JOIN_LIMIT_ALTERNATIVE
                } else {
                    JOIN_LIMIT
                };
                Some((conn, since.after(limit)))
            }
            LaneState::Held { .. } | LaneState::Failed(_) => None,
        }
    }

    fn fail_lane(&mut self, index: usize, failure: DialFailure, now: Mono) {
        self.lanes[index].state = LaneState::Failed(failure);
        // The head start is over.
        for lane in &mut self.lanes {
            if let LaneState::Held { until } = &mut lane.state {
                *until = now;
            }
        }
    }

    fn outcome(&self) -> Outcome {
        let mut worst = DialFailure::Network;
        for lane in &self.lanes {
            match lane.state {
                LaneState::Failed(DialFailure::Network) => {}
                LaneState::Failed(DialFailure::Local) => worst = DialFailure::Local,
                LaneState::Failed(DialFailure::Rejected) => return self.rejected(),
                LaneState::Held { .. } | LaneState::Dialling { .. } | LaneState::Joining { .. } => {
                    return Outcome::Open;
                }
            }
        }
        Outcome::Lost(worst)
    }

    /// A rejection ends the race once nothing else runs: the other rung leads to the
    /// same gateway and is not tried for it.
    fn rejected(&self) -> Outcome {
        let runs = (0..self.lanes.len()).any(|index| self.running(index).is_some());
        if runs {
            Outcome::Open
        } else {
            Outcome::Lost(DialFailure::Rejected)
        }
    }
}
