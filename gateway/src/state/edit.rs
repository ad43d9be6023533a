//! Changing one record under concurrent writers: read, decide, write on condition
//! that nothing changed, and again if something did.

use gateway_store::{Batch, CommitError, Condition, Key, Read, Record, fetch};

use gateway_core::host::Host;
use gateway_core::seen::Seen;
use model::ids::HostId;

use super::records::{HostRecordV1, HostSeenRecordV1, key_of};
use crate::app::App;
use crate::error::{Error, Result};

/// Lost races before giving up; never reached by the handful of writers that one
/// record has.
const ATTEMPTS: usize = 16;

/// Changes the record under `key`. `change` gets what is there and may add more to
/// the batch; answering `None` leaves everything as it is. Answers what was
/// written.
pub async fn edit<R: Record + Clone>(
    app: &App,
    key: &Key,
    mut change: impl FnMut(Option<R>, &mut Batch) -> Result<Option<R>> + Send,
) -> Result<Option<R>> {
    for _ in 0..ATTEMPTS {
        let stored = fetch::<R>(&*app.store, key, Read::Linearizable).await?;
        let condition = stored
            .as_ref()
            .map_or(Condition::Absent, |stored| Condition::RevIs(stored.rev));
        let mut batch = Batch::new();
        let Some(record) = change(stored.map(|stored| stored.record), &mut batch)? else {
            return Ok(None);
        };
        batch.require(key, condition);
        batch.put_record(key, &record)?;
        match app.try_commit(batch).await? {
            Ok(_) => return Ok(Some(record)),
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::conflict("others keep changing this; try again"))
}

/// Changes what is decided about a host that is there.
pub async fn edit_host(
    app: &App,
    host: HostId,
    mut change: impl FnMut(Host, &mut Batch) -> Result<Option<Host>> + Send,
) -> Result<Option<Host>> {
    let key = key_of::<HostRecordV1>(host);
    let written = edit::<HostRecordV1>(app, &key, |found, batch| {
        let Some(record) = found else { return Ok(None) };
        let decided = change(record.decided(), batch)?;
        Ok(decided.map(|host| record.with(&host)))
    });
    Ok(written.await?.map(|record| record.decided()))
}

/// Changes what was observed of a host; nothing yet is a host never linked.
pub async fn edit_seen(
    app: &App,
    host: HostId,
    mut change: impl FnMut(Seen, &mut Batch) -> Result<Option<Seen>> + Send,
) -> Result<Option<Seen>> {
    let now = app.now();
    let key = key_of::<HostSeenRecordV1>(host);
    let written = edit::<HostSeenRecordV1>(app, &key, |found, batch| {
        let seen = found.map_or_else(|| Seen::never(now), Seen::from);
        Ok(change(seen, batch)?.map(HostSeenRecordV1::from))
    });
    Ok(written.await?.map(Seen::from))
}
