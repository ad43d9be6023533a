//! The one read-modify-write over the store.

use crate::{Batch, CommitError, Condition, Item, Key, Read, ReadError, Rev, Store};

/// Give up after this many lost races: somebody else writes the key all the
/// time, and the caller should be told. A guess, far above what is ever seen.
const ATTEMPTS: usize = 16;

/// Reads `key`, lets `change` build a batch from what is there, and commits the
/// batch on condition that the key has not changed since; if it has, reads again.
///
/// `change` may run several times and must not act. It may put other keys,
/// conditions and audit entries into its batch, and refuse with its own error.
/// A failed condition on *another* key is a conflict like any other and leads to
/// another reading.
pub async fn update<E>(
    store: &dyn Store,
    key: &Key,
    mut change: impl FnMut(Option<&Item>) -> Result<Batch, E> + Send,
) -> Result<Rev, UpdateError<E>> {
    for _ in 0..ATTEMPTS {
        let item = store.get(key, Read::Linearizable).await?;
        let mut batch = change(item.as_ref()).map_err(UpdateError::Refused)?;
        batch.require(
            key,
            match &item {
                Some(item) => Condition::RevIs(item.rev),
                None => Condition::Absent,
            },
        );
        match store.commit(batch).await {
            Err(CommitError::Conflict { .. }) => {}
            answer => return Ok(answer?),
        }
    }
    Err(UpdateError::Contended { key: key.clone() })
}

/// Why an update did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError<E> {
    /// The caller's own refusal.
    #[error("the change was refused")]
    Refused(E),
    /// The key could not be read.
    #[error("read the item to change")]
    Read(#[from] ReadError),
    /// The batch could not be committed.
    #[error("commit the change")]
    Commit(#[from] CommitError),
    /// Others changed the key every time.
    #[error("`{key}` was changed by others {ATTEMPTS} times in a row")]
    Contended {
        /// The key.
        key: Key,
    },
}
