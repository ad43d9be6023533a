//! What keys may do, remembered from one request to the next.
//!
//! Roles are lists of patterns that are parsed and collected anew for whoever asks: cheap
//! once, and a tenth of the time of a read at every request. What is remembered here is
//! part of the catalog's tables. They forget all of it with every change of what decides
//! about access, under the lock that readers of the tables wait for: nobody is ever judged
//! by what was true before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use model::access::Authority;
use model::ids::ApiKeyId;

use super::records::ApiKeyRecordV1;

/// By key. Bounded by the keys there are: only those are asked for.
#[derive(Debug, Default)]
pub(super) struct Authorities(Mutex<HashMap<ApiKeyId, Arc<Authority>>>);

impl Authorities {
    /// What may be done with `key`, whose user holds what `held` answers.
    pub(super) fn of(
        &self,
        key: &ApiKeyRecordV1,
        held: impl FnOnce() -> Authority,
    ) -> Arc<Authority> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let authority = known.entry(key.id).or_insert_with(|| {
            Arc::new(Authority {
                limits: key.limits.clone(),
                ..held()
            })
        });
        Arc::clone(authority)
    }

    /// Something that decides about access has changed.
    pub(super) fn forget(&mut self) {
        let known = self.0.get_mut();
        known.unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use gateway_store::{Change, Index as _, Item, Key, Record, Rev};
    use model::Timestamp;
    use model::ids::{RoleBindingId, UserId};
    use model::names::Text;
    use model::tenancy::Scope;

    use super::super::catalog::{Catalog, built_in_role_id};
    use super::super::records::{BindingRecordV1, key_of};
    use super::*;

    fn put<R: Record>(key: Key, record: &R) -> Change {
        let item = Item {
            value: record.encode().unwrap().into(),
            rev: Rev::ZERO,
        };
        Change::Put { key, item }
    }

    #[test]
    fn a_role_that_is_taken_away_is_gone_at_the_next_question() {
        let at = Timestamp::from_millis(0);
        let key = ApiKeyRecordV1 {
            id: ApiKeyId::new(at, [1; 10]),
            user: UserId::new(at, [2; 10]),
            digest: [0; 32],
            description: Text::default(),
            limits: None,
            created_at: at,
            expires_at: None,
            last_used_at: None,
            revoked_at: None,
        };
        let binding = BindingRecordV1 {
            id: RoleBindingId::new(at, [3; 10]),
            user: key.user,
            role: built_in_role_id(0),
            scope: Scope::Deployment,
            created_at: at,
        };
        let held = |catalog: &Catalog| catalog.read().authority_of_key(&key).holdings.len();
        let place = key_of::<BindingRecordV1>(binding.id);
        let catalog = Catalog::default();
        assert_eq!(held(&catalog), 0);
        catalog.apply(vec![put(place.clone(), &binding)]);
        assert_eq!(held(&catalog), 1);
        assert_eq!(held(&catalog), 1);
        let (key, rev) = (place, Rev::ZERO);
        catalog.apply(vec![Change::Delete { key, rev }]);
        assert_eq!(held(&catalog), 0);
    }
}
