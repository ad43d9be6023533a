//! A machine that has a token and no identity.

use gateway_core::admission::{self, Asked, Plan, TokenState};
use gateway_core::host::Host;
use gateway_core::identity::Identity;
use gateway_core::refuse::{ASK_AGAIN, refusal};
use gateway_core::seen::Seen;
use model::ids::{AgentTokenId, HostId};
use protocol::v1::{EnrolReply, EnrolRequest, RefusalCode, enrol_reply};

use crate::Break;
use crate::wire::{Key, Packet, answer};
use crate::world::World;
use crate::world::network::Way;

impl World {
    /// Lets a machine in, or not.
    pub(super) fn enrol(&mut self, l: usize, request: &EnrolRequest) {
        let now = self.wall();
        let (Some(key), Ok(id)) = (
            Key::of_request(&request.csr),
            request.token.parse::<AgentTokenId>(),
        ) else {
            return;
        };
        let known = self
            .by_key(key)
            .filter(|_| self.options.broken != Some(Break::EnrolTwice));
        let Some(token) = self.gateway.store.tokens.get(&id).copied() else {
            return self.no_entry(l, RefusalCode::TokenInvalid);
        };
        let planned = admission::plan(&Asked {
            id,
            token: &token,
            workspace: Some(self.gateway.workspace),
            known: known.as_ref(),
            awaited: None,
            now,
        });
        let plan = match planned {
            Ok(plan) => plan,
            Err(TokenState::Expired) => return self.no_entry(l, RefusalCode::TokenExpired),
            Err(TokenState::Exhausted) => return self.no_entry(l, RefusalCode::TokenExhausted),
            Err(TokenState::Revoked | TokenState::Active) => {
                return self.no_entry(l, RefusalCode::TokenInvalid);
            }
        };
        let host = match (plan, known) {
            (Plan::Again(_), Some(host)) => host,
            _ => {
                if let Some(token) = self.gateway.store.tokens.get_mut(&id) {
                    token.uses += 1;
                }
                Host::unknown(HostId::new(now, self.rng.bytes()), self.gateway.workspace)
            }
        };
        self.check_entry(&host, key, id);
        let counter = self
            .gateway
            .store
            .seen
            .get(&host.id)
            .map_or(1, |seen| seen.issued);
        let fence = self.gateway.fence;
        let Some(place) = admission::place_of(&host, plan, &key.spki(), fence) else {
            return;
        };
        let (identity, grant) = self.issue(host.id, place.generation, key, counter);
        let identity = Identity {
            previous: place.previous,
            ..identity
        };
        let host = admission::joined(host, plan, id, identity, now);
        let store = &mut self.gateway.store;
        store.hosts.insert(host.id, host);
        store
            .seen
            .entry(host.id)
            .or_insert_with(|| Seen::never(now));
        // The connection breaks before the answer is there: asked again with the same key.
        if self.rng.percent(20) {
            return self.send(l, Way::Down, Packet::Close);
        }
        self.reply(l, enrol_reply::Answer::Granted(grant));
    }

    fn no_entry(&mut self, l: usize, code: RefusalCode) {
        let refused = refusal(code, "", ASK_AGAIN, self.wall());
        self.reply(l, enrol_reply::Answer::Refused(refused));
    }

    fn reply(&mut self, l: usize, reply: enrol_reply::Answer) {
        let reply = EnrolReply {
            answer: Some(reply),
        };
        self.send(l, Way::Down, answer(&reply));
    }
}
