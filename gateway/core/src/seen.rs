//! What was observed of a host, transition by transition.
//!
//! One record a host, changed only when something *changes*: a link, a loss, a
//! counter. Every function takes the record as it is in the store at the moment of
//! writing and answers what it becomes, with what goes into the host's history. The
//! callers write record and history in one batch, on condition that the record did
//! not change meanwhile.

use model::Timestamp;
use model::host::{Carrier, Connectivity, HostEvent};
use model::names::clean;
use protocol::v1::{GoodbyeReason, Hello, Refusal};

use crate::clone::{self, Counters, Evidence};

/// What was observed of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Newest value of the generation counter that was sent.
    pub issued: u64,
    /// Newest value that the agent has stored.
    pub confirmed: u64,
    /// What its connectivity was, as of the last transition.
    pub connectivity: Connectivity,
    /// Since when.
    pub since: Timestamp,
    /// When it was last heard, coarsely.
    pub last_seen_at: Option<Timestamp>,
    /// The kernel's boot id.
    pub boot_id: Option<String>,
    /// From where it came.
    pub address: Option<String>,
    /// Version of its agent.
    pub agent_version: Option<String>,
    /// Its clock minus ours.
    pub clock_skew_ms: Option<i64>,
    /// Whether it said goodbye, which makes its absence planned.
    pub said_goodbye: bool,
}

/// How a newcomer arrives.
#[derive(Clone, Debug)]
pub struct Arrival<'a> {
    /// What it says.
    pub hello: &'a Hello,
    /// How its packets travel.
    pub carrier: Carrier,
    /// From which address.
    pub address: &'a str,
    /// The carrier of the link that it replaces.
    pub replaces: Option<Carrier>,
    /// When.
    pub now: Timestamp,
}

/// What a link leaves behind when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Why, for the history.
    pub reason: String,
    /// Whether the agent or the gateway meant it.
    pub planned: bool,
}

/// Why a link ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// The agent closed, or the connection was lost.
    Lost(String),
    /// The agent said goodbye.
    Goodbye(GoodbyeReason),
    /// Another link of this host took over.
    TakenOver,
    /// We told it to go.
    Dismissed(Refusal),
    /// The gateway stops.
    Stopping,
}

impl End {
    /// What of it belongs into the host's record: nothing when another link is
    /// there or about to be, or when it is the gateway that goes.
    pub fn loss(&self) -> Option<Loss> {
        let (reason, planned) = match self {
            Self::Lost(why) => (clean(why, 200), false),
            Self::Goodbye(GoodbyeReason::Stopping) => ("the agent was stopped".to_owned(), true),
            Self::Goodbye(GoodbyeReason::HostShutdown) => {
                ("the host is shutting down".to_owned(), true)
            }
            Self::Goodbye(GoodbyeReason::CarrierChange) | Self::TakenOver | Self::Stopping => {
                return None;
            }
            Self::Goodbye(GoodbyeReason::Unspecified | GoodbyeReason::Uninstalled) => {
                ("the agent said goodbye".to_owned(), true)
            }
            Self::Dismissed(why) => (why.message.clone(), true),
        };
        Some(Loss { reason, planned })
    }
}

impl Seen {
    /// Of a host that was never linked.
    pub fn never(now: Timestamp) -> Self {
        Self {
            issued: 1,
            confirmed: 0,
            connectivity: Connectivity::Never,
            since: now,
            last_seen_at: None,
            boot_id: None,
            address: None,
            agent_version: None,
            clock_skew_ms: None,
            said_goodbye: false,
        }
    }

    /// Its counters.
    pub fn counters(&self) -> Counters {
        Counters {
            issued: self.issued,
            confirmed: self.confirmed,
        }
    }

    /// The host has arrived: judged once more by the counters that are about to be
    /// replaced, because another newcomer may have been welcomed since the verdict.
    /// The record, which holds the counter to send, and what is new in the history.
    pub fn welcomed(self, arrival: &Arrival<'_>) -> Result<(Self, Vec<HostEvent>), Evidence> {
        let hello = arrival.hello;
        let (issued, _) = clone::next_counter(self.counters(), hello.counter)?;
        let events = self.told_by(arrival);
        let connected = self.connectivity == Connectivity::Connected;
        let seen = Self {
            issued,
            // What is presented is on the host's disk.
            confirmed: self.confirmed.max(hello.counter),
            connectivity: Connectivity::Connected,
            since: if connected { self.since } else { arrival.now },
            last_seen_at: Some(arrival.now),
            boot_id: Some(clean(&hello.boot_id, 64)),
            address: Some(arrival.address.to_owned()),
            agent_version: Some(clean(&hello.agent_version, 64)),
            clock_skew_ms: Some(hello.host_time_ms.saturating_sub(arrival.now.as_millis())),
            said_goodbye: false,
        };
        Ok((seen, events))
    }

    /// What a hello tells apart from "I am here".
    fn told_by(&self, arrival: &Arrival<'_>) -> Vec<HostEvent> {
        let mut events = Vec::new();
        let changed = |before: &Option<String>, now: String| {
            before
                .clone()
                .filter(|before| *before != now)
                .map(|before| (before, now))
        };
        let hello = arrival.hello;
        if let Some((from, to)) = changed(&self.boot_id, clean(&hello.boot_id, 64)) {
            events.push(HostEvent::Rebooted { from, to });
        }
        if let Some((from, to)) = changed(&self.agent_version, clean(&hello.agent_version, 64)) {
            events.push(HostEvent::VersionChanged { from, to });
        }
        if let Some((from, to)) = changed(&self.address, arrival.address.to_owned()) {
            events.push(HostEvent::AddressChanged { from, to });
        }
        let carrier = arrival.carrier;
        match arrival.replaces {
            Some(old) if old != carrier => events.push(HostEvent::CarrierChanged { carrier }),
            Some(_) => {}
            None => events.push(HostEvent::Connected {
                carrier,
                address: arrival.address.to_owned(),
            }),
        }
        events
    }

    /// The link that was sent `issued` last has ended. `None` when a newer link has
    /// been welcomed since: then nothing was lost.
    pub fn lost(self, issued: u64, loss: &Loss, now: Timestamp) -> Option<(Self, HostEvent)> {
        if self.issued != issued {
            return None;
        }
        let event = HostEvent::LinkLost {
            reason: loss.reason.clone(),
        };
        // Silence that was written down already is not taken back by the end of the
        // link that was silent.
        let connectivity = match self.connectivity {
            Connectivity::Unreachable => Connectivity::Unreachable,
            Connectivity::Never
            | Connectivity::Connected
            | Connectivity::Late
            | Connectivity::Unconfirmed => Connectivity::Late,
        };
        let since = if connectivity == self.connectivity {
            self.since
        } else {
            now
        };
        let seen = Self {
            connectivity,
            since,
            last_seen_at: Some(now),
            said_goodbye: loss.planned,
            ..self
        };
        Some((seen, event))
    }

    /// Quiet past the threshold.
    pub fn unreachable(self, mass_loss: bool, now: Timestamp) -> (Self, HostEvent) {
        let seen = Self {
            connectivity: Connectivity::Unreachable,
            since: now,
            ..self
        };
        (seen, HostEvent::Unreachable { mass_loss })
    }

    /// Heard again on the link it had all the time: the silence was written down, so
    /// its end is, too. Without this the next life of the gateway would begin with a
    /// host that is unreachable and is not.
    pub fn heard_again(self, carrier: Carrier, address: &str, now: Timestamp) -> (Self, HostEvent) {
        let seen = Self {
            connectivity: Connectivity::Connected,
            since: now,
            last_seen_at: Some(now),
            ..self
        };
        let event = HostEvent::Connected {
            carrier,
            address: address.to_owned(),
        };
        (seen, event)
    }

    /// The counter moves on under a live link: one step at a time, an unconfirmed one
    /// is sent again as it is.
    pub fn advanced(self) -> Self {
        Self {
            issued: self.issued.max(self.confirmed.saturating_add(1)),
            ..self
        }
    }

    /// The agent has stored `counter`. `None` when that is no news.
    pub fn confirmed(self, counter: u64) -> Option<Self> {
        let news = counter > self.confirmed && counter <= self.issued;
        news.then_some(Self {
            confirmed: counter,
            ..self
        })
    }

    /// Another machine begins its life as this host: the counter moves past
    /// everything that any copy of it can hold.
    pub fn taken_over(self) -> Self {
        let next = self.issued.max(self.confirmed).saturating_add(1);
        Self {
            issued: next,
            confirmed: next,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(secs * 1000)
    }

    fn hello(counter: u64) -> Hello {
        Hello {
            boot_id: "boot".into(),
            agent_version: "1".into(),
            instance: vec![1],
            counter,
            ..Hello::default()
        }
    }

    fn arrive(seen: Seen, counter: u64) -> Result<(Seen, Vec<HostEvent>), Evidence> {
        let hello = hello(counter);
        seen.welcomed(&Arrival {
            hello: &hello,
            carrier: Carrier::Udp,
            address: "192.0.2.1",
            replaces: None,
            now: at(5),
        })
    }

    #[test]
    fn two_that_were_judged_together_never_get_one_counter() {
        let (first, _) = arrive(Seen::never(at(1)), 1).unwrap();
        let (second, _) = arrive(first.clone(), 1).unwrap();
        assert!(second.issued > first.issued);
        let confirmed = second.clone().confirmed(second.issued).unwrap();
        assert!(arrive(confirmed, first.issued).is_err());
    }

    #[test]
    fn the_end_of_a_link_that_was_replaced_is_no_loss() {
        let loss = Loss {
            reason: "gone".into(),
            planned: false,
        };
        let (first, _) = arrive(Seen::never(at(1)), 1).unwrap();
        let issued = first.issued;
        let (second, _) = arrive(first, issued).unwrap();
        assert_eq!(second.clone().lost(issued, &loss, at(9)), None);
        let (late, _) = second.clone().lost(second.issued, &loss, at(9)).unwrap();
        assert_eq!(late.connectivity, Connectivity::Late);
    }

    #[test]
    fn a_silence_is_written_down_once_however_it_ends() {
        let (seen, _) = arrive(Seen::never(at(1)), 1).unwrap();
        let issued = seen.issued;
        let (silent, _) = seen.unreachable(false, at(40));
        let loss = End::Lost("idle".into()).loss().unwrap();
        let (lost, _) = silent.clone().lost(issued, &loss, at(41)).unwrap();
        assert_eq!(
            (lost.connectivity, lost.since),
            (Connectivity::Unreachable, at(40))
        );
        let (heard, event) = silent.heard_again(Carrier::Udp, "192.0.2.1", at(42));
        assert_eq!(heard.connectivity, Connectivity::Connected);
        assert_eq!(event.kind(), "connected");
    }

    #[test]
    fn a_confirmation_of_what_was_never_sent_is_not_believed() {
        let seen = Seen::never(at(1));
        assert_eq!(seen.clone().confirmed(u64::MAX), None);
        assert_eq!(seen.confirmed(1).map(|seen| seen.confirmed), Some(1));
    }
}
