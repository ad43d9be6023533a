//! `loopback:base/state`.

use super::{Answer, denied, invalid};
use crate::contract::base::loopback::base::state::{Entry, Host};
use crate::ports::GuestError;
use crate::store::CallState;
use crate::surroundings::Surroundings;

const KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 64 << 10;
const MAX_KEYS: u32 = 1_000;

impl CallState {
    fn state_of(&self) -> Result<&Surroundings, GuestError> {
        let around = self.surroundings()?;
        if around.context.grant.state.is_none() {
            return Err(denied("denied.state", "no values are granted"));
        }
        Ok(around)
    }
}

fn checked(key: &str) -> Result<(), GuestError> {
    if key.is_empty() {
        return Err(invalid("state.key", "a key is empty"));
    }
    prefix_checked(key)
}

fn prefix_checked(key: &str) -> Result<(), GuestError> {
    let printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if key.len() > KEY_BYTES || !printable {
        let what = "a key is at most 256 bytes of printable ASCII";
        return Err(invalid("state.key", what));
    }
    Ok(())
}

impl Host for CallState {
    async fn get(&mut self, key: String) -> Answer<Option<Entry>> {
        self.enter()?;
        let this = &mut *self;
        let answer = async move {
            checked(&key)?;
            let around = this.state_of()?;
            let found = around.services.state.get(&around.context, &key).await?;
            Ok(found.map(|entry| Entry {
                value: entry.value,
                revision: entry.revision,
            }))
        };
        let answer = answer.await;
        self.tell(answer)
    }

    async fn put(&mut self, key: String, value: Vec<u8>, if_revision: Option<u64>) -> Answer<u64> {
        self.enter()?;
        let this = &mut *self;
        let answer = async move {
            checked(&key)?;
            if value.len() > VALUE_BYTES {
                return Err(invalid("state.value", "a value is at most 64 KiB"));
            }
            let around = this.state_of()?;
            let state = &around.services.state;
            state.put(&around.context, &key, value, if_revision).await
        };
        let answer = answer.await;
        self.tell(answer)
    }

    async fn delete(&mut self, key: String) -> Answer<()> {
        self.enter()?;
        let this = &mut *self;
        let answer = async move {
            checked(&key)?;
            let around = this.state_of()?;
            around.services.state.delete(&around.context, &key).await
        };
        let answer = answer.await;
        self.tell(answer)
    }

    async fn keys(
        &mut self,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> Answer<Vec<String>> {
        self.enter()?;
        let this = &mut *self;
        let answer = async move {
            prefix_checked(&prefix)?;
            if let Some(after) = &after {
                prefix_checked(after)?;
            }
            let around = this.state_of()?;
            let state = &around.services.state;
            let limit = limit.min(MAX_KEYS);
            state
                .keys(&around.context, &prefix, after.as_deref(), limit)
                .await
        };
        let answer = answer.await;
        self.tell(answer)
    }
}
