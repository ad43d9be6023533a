//! Performing the core's actions.

use std::collections::VecDeque;

use agent_core::{Action, Conn, DialFailure, Event, KeyChoice, Purpose, Rung, Standing};
use model::error_chain;
use protocol::v1::{EnrolRequest, Grant, Hello, Renew, Trust, agent_frame};
use protocol::{VERSION, VERSION_MIN};

use super::{Engine, Live};
use crate::conn::{Order, orders, run};
use crate::plan::{Plan, first_trust};
use crate::state::{Identity, StateError};

/// What the core needs of an identity.
pub(super) fn for_core(identity: &Identity) -> agent_core::Identity {
    agent_core::Identity {
        counter: identity.counter,
        trust_version: identity.trust.version(),
        not_before: identity.not_before,
        not_after: identity.not_after,
    }
}

impl Engine {
    pub(super) fn act(&mut self, action: Action, events: &mut VecDeque<Event>) {
        match action {
            Action::Dial {
                conn,
                rung,
                purpose,
            } => self.dial(conn, rung, purpose, events),
            Action::Close(conn) => {
                self.conns.remove(&conn);
            }
            Action::Enrol(conn) => self.enrol(conn, events),
            Action::Hello {
                conn,
                counter,
                trust_version,
            } => {
                let hello = self.hello(counter, trust_version);
                self.send(conn, agent_frame::Body::Hello(hello), events);
            }
            Action::Send(conn, body) => self.send(conn, body, events),
            Action::Renew(conn, key) => self.renew(conn, key, events),
            Action::StoreCounter(counter) => {
                let stored = self.state.store_counter(counter, self.clock.best());
                let event = match self.state_result(stored) {
                    Some(()) => Event::CounterStored(counter),
                    None => Event::CounterNotStored(counter),
                };
                events.push_back(event);
            }
            Action::StoreGrant(conn, grant) => events.push_back(self.store_grant(conn, &grant)),
            Action::StoreTrust(trust) => self.store_trust(&trust, events),
            Action::ReadFacts => {
                events.push_back(Event::FactsRead(self.facts.read(&self.config.exporters)))
            }
            Action::SendFacts(conn) => {
                let facts = self.facts.wire().clone();
                self.send(conn, agent_frame::Body::Facts(Box::new(facts)), events);
            }
            Action::Finish { acknowledged } => self.finished = Some(acknowledged),
        }
    }

    fn dial(&mut self, conn: Conn, rung: Rung, purpose: Purpose, events: &mut VecDeque<Event>) {
        // A host without a token has nothing to say to a gateway.
        let token = match purpose {
            Purpose::Enrol => self
                .token
                .read()
                .map(drop)
                .map_err(|error| error_chain(&error)),
            Purpose::Link => Ok(()),
        };
        let plan = token.and_then(|()| {
            Plan::new(&self.config, &mut self.state, &self.clock, rung, purpose)
                .map_err(|error| error_chain(&error))
        });
        let plan = match plan {
            Ok(plan) => plan,
            Err(why) => {
                self.trouble("host", why, "cannot dial");
                events.push_back(Event::Failed(conn, DialFailure::Local));
                return;
            }
        };
        self.board.untrouble("host");
        let linked = matches!(self.core.standing(), Standing::Linked { .. });
        if linked && rung == Rung::WebSocket {
            tracing::info!("the link does not answer; dialling another beside it");
        } else {
            tracing::debug!(rung = rung.as_str(), ?purpose, linked, "dialling");
        }
        let (give, take) = orders();
        self.tasks.spawn(run(
            conn,
            plan,
            purpose,
            take,
            self.reports.clone(),
            self.hands.clone(),
        ));
        self.conns.insert(
            conn,
            Live {
                orders: give,
                rung,
                link: None,
                heard: 0,
            },
        );
    }

    fn enrol(&mut self, conn: Conn, events: &mut VecDeque<Event>) {
        let request = self.enrol_request();
        let given = match request {
            Ok(request) => self.order(conn, Order::Enrol(Box::new(request))),
            Err(why) => {
                self.trouble("host", why, "cannot ask for an identity");
                false
            }
        };
        if !given {
            self.conns.remove(&conn);
            events.push_back(Event::Closed(conn, DialFailure::Local));
        }
    }

    fn enrol_request(&mut self) -> Result<EnrolRequest, String> {
        let token = self.token.read().map_err(|error| error_chain(&error))?;
        // Made and on disk before anybody sees it: the answer may get lost.
        let key = self.state.key().map_err(|error| error_chain(&error))?;
        let csr = key.request().map_err(|error| error_chain(&error))?;
        self.facts.read(&self.config.exporters);
        Ok(EnrolRequest {
            token: String::clone(&token),
            csr,
            facts: Some(self.facts.wire().clone()),
            version_max: VERSION,
            version_min: VERSION_MIN,
        })
    }

    fn hello(&self, counter: u64, trust_version: u64) -> Hello {
        Hello {
            version_max: VERSION,
            version_min: VERSION_MIN,
            agent_version: crate::VERSION.to_owned(),
            boot_id: self.boot_id.clone(),
            instance: self.instance.clone(),
            counter,
            facts_digest: self.facts.digest().to_vec(),
            trust_version,
            host_time_ms: self.clock.system().as_millis(),
        }
    }

    fn renew(&mut self, conn: Conn, key: KeyChoice, events: &mut VecDeque<Event>) {
        let key = match key {
            KeyChoice::Current => self.state.key(),
            KeyChoice::Pending => self.state.pending_key(),
        };
        let request = key
            .map_err(|error| error_chain(&error))
            .and_then(|key| key.request().map_err(|error| error_chain(&error)));
        match request {
            Ok(csr) => self.send(conn, agent_frame::Body::Renew(Renew { csr }), events),
            Err(why) => {
                tracing::error!(%why, "cannot ask for a certificate");
                self.board.warn("renewal", why);
                events.push_back(Event::RenewalNotSent(conn));
            }
        }
    }

    fn store_grant(&mut self, conn: Conn, grant: &Grant) -> Event {
        let joined_before = self
            .state
            .identity()
            .map(|identity| (identity.host, identity.generation));
        let first = match joined_before {
            Some(_) => None,
            None => first_trust(&self.config).ok(),
        };
        let stored = self.state.store_grant(grant, first.as_ref()).cloned();
        let Some(identity) = self.state_result(stored) else {
            return Event::GrantNotStored(conn);
        };
        self.clock.learn(grant.server_time_ms);
        self.hands
            .set_identity(Some((identity.host, identity.generation)));
        self.board.unwarn("renewal");
        if joined_before == Some((identity.host, identity.generation)) {
            tracing::info!(until = %identity.not_after, "certificate renewed");
        } else {
            tracing::info!(
                host = %identity.host, workspace = %identity.workspace,
                generation = identity.generation, "this host has an identity"
            );
        }
        if joined_before.is_none() {
            self.discard_token();
        }
        Event::GrantStored(conn, for_core(&identity))
    }

    fn discard_token(&mut self) {
        if let Err(error) = self.token.discard() {
            let path = self
                .token
                .file()
                .map(|path| path.display().to_string())
                .unwrap_or_default();
            tracing::warn!(%path, %error, "the token was used and cannot be deleted");
            self.board
                .warn("token", format!("delete the used token {path}: {error}"));
        }
    }

    fn store_trust(&mut self, trust: &Trust, events: &mut VecDeque<Event>) {
        let stored = self.state.store_trust(trust);
        if let Some(bundle) = self.state_result(stored) {
            tracing::info!(version = bundle.version(), "authorities changed");
            events.push_back(Event::TrustStored(bundle.version()));
        }
    }

    /// A disk that refuses costs this one change and is reported until it takes
    /// another; the link stays.
    fn state_result<T>(&mut self, result: Result<T, StateError>) -> Option<T> {
        match result {
            Ok(value) => {
                self.board.unwarn("state");
                Some(value)
            }
            Err(error) => {
                let error = error_chain(&error);
                tracing::error!(%error, "cannot store");
                self.board.warn("state", error);
                None
            }
        }
    }

    fn send(&mut self, conn: Conn, body: agent_frame::Body, events: &mut VecDeque<Event>) {
        if !self.order(conn, Order::Frame(Box::new(body))) && self.conns.remove(&conn).is_some() {
            // It has not taken a queue full of frames: it is gone.
            events.push_back(Event::Closed(conn, DialFailure::Network));
        }
    }

    fn order(&self, conn: Conn, order: Order) -> bool {
        self.conns
            .get(&conn)
            .is_some_and(|live| live.orders.give(order))
    }
}
