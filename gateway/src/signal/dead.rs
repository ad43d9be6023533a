//! Events that were given up for a notifier: shown, delivered again, thrown away.
//!
//! They are read from the store and not from the catalog: few look at them, and there may be many.
//! A dead letter is delivered beside the events of the queue, oldest first, with the id that it
//! always had, and the first failure that may pass ends the attempt: what comes after it would
//! overtake it. It is a dead letter until the notifier has it, so a crash in between brings it
//! twice and never loses it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_core::signal::Outcome;
use gateway_store::{Batch, Item, Key, Read, Record as _, RecordError, Store};
use model::names::Name;

use super::delivery::{Event, Notifier, addressed};
use super::records::DeadLetterRecordV1;
use crate::app::App;
use crate::error::Result;

/// Given to a notifier at once, and written in one batch.
pub const AT_ONCE: usize = 40;
/// After which nothing more is begun: whoever asked waits for the answer.
pub const BEGIN_WITHIN: Duration = Duration::from_secs(60);

/// A dead letter and where it lies.
pub type Letter = (Key, DeadLetterRecordV1);

/// At most `limit` dead letters of a notifier after a key, oldest first, and whether there are more.
pub async fn page(
    store: &dyn Store,
    notifier: &Name,
    after: Option<&Key>,
    limit: usize,
) -> Result<(Vec<Letter>, bool)> {
    let prefix = DeadLetterRecordV1::prefix_of(notifier);
    let mut after = after.cloned();
    let mut letters = Vec::new();
    loop {
        let wanted = limit.saturating_sub(letters.len());
        if wanted == 0 {
            return Ok((letters, true));
        }
        let page = store
            .list(&prefix, after.as_ref(), wanted, Read::Linearizable)
            .await?;
        after = page.items.last().map(|(key, _)| key.clone());
        for (key, item) in page.items {
            letters.push(read(key, &item)?);
        }
        if !page.more || after.is_none() {
            return Ok((letters, false));
        }
    }
}

/// The dead letter of an event.
pub async fn one(store: &dyn Store, notifier: &Name, event: &str) -> Result<Option<Letter>> {
    let Ok(key) = DeadLetterRecordV1::key(notifier, event) else {
        return Ok(None);
    };
    let Some(item) = store.get(&key, Read::Linearizable).await? else {
        return Ok(None);
    };
    Ok(Some(read(key, &item)?))
}

fn read(key: Key, item: &Item) -> Result<Letter, RecordError> {
    match DeadLetterRecordV1::decode(&item.value) {
        Ok(letter) => Ok((key, letter)),
        Err(source) => Err(RecordError::Decode {
            key,
            kind: DeadLetterRecordV1::KIND,
            source,
        }),
    }
}

/// What came of delivering again.
#[derive(Debug, Default)]
pub struct Redelivered {
    /// Ids of events that the notifier has.
    pub delivered: Vec<String>,
    /// Ids of those that remain, with why.
    pub failed: Vec<(String, String)>,
    /// Whether some were not tried.
    pub more: bool,
}

/// Delivers again what was given up. `note` is asked for what goes into the audit trail with each
/// write: how many are delivered, and how many remain.
pub async fn redeliver(
    app: &App,
    notifier: &dyn Notifier,
    letters: Vec<Letter>,
    note: impl Fn(usize, usize, &mut Batch),
) -> Result<Redelivered> {
    let began = Instant::now();
    let mut came = Redelivered::default();
    let mut rest = letters.into_iter().peekable();
    let mut ended = false;
    while rest.peek().is_some() {
        if ended || began.elapsed() >= BEGIN_WITHIN {
            came.more = true;
            break;
        }
        let mut keys = Vec::new();
        let mut events: Vec<Event> = Vec::new();
        {
            let tables = app.catalog.read();
            while let Some((key, letter)) = rest.peek() {
                let (id, event) = (letter.id.clone(), Arc::new(letter.event.clone()));
                let event = addressed(&tables, id, letter.sequence, event);
                // A plugin is called for one workspace at a time.
                let fits = events
                    .first()
                    .is_none_or(|first| first.workspace_id == event.workspace_id);
                if !fits || events.len() == AT_ONCE {
                    break;
                }
                keys.push(key.clone());
                events.push(event);
                rest.next();
            }
        }
        let covered = notifier.covers(events.first().and_then(|event| event.workspace_id));
        let outcomes = if covered {
            notifier.deliver(events.clone()).await
        } else {
            let code = "not_granted".to_owned();
            vec![Outcome::Hopeless { code }; events.len()]
        };
        let mut batch = Batch::new();
        let (delivered, failed) = (came.delivered.len(), came.failed.len());
        let mut outcomes = outcomes.into_iter();
        for (key, event) in keys.iter().zip(events) {
            match outcomes.next() {
                Some(Outcome::Delivered) => {
                    batch.delete(key);
                    came.delivered.push(event.id);
                }
                Some(Outcome::Hopeless { code }) => came.failed.push((event.id, code)),
                Some(Outcome::Again { code, .. }) => {
                    came.failed.push((event.id, code));
                    ended = true;
                }
                None => {
                    came.failed.push((event.id, "no_answer".to_owned()));
                    ended = true;
                }
            }
            if ended {
                came.more = came.more || keys.last() != Some(key);
                break;
            }
        }
        let (delivered, failed) = (came.delivered.len() - delivered, came.failed.len() - failed);
        note(delivered, failed, &mut batch);
        app.commit(batch).await?;
    }
    Ok(came)
}

/// Takes away all dead letters of a plugin that is not installed any more.
pub async fn purge(app: &App, notifier: &Name) -> Result<()> {
    loop {
        let (letters, _) = page(&*app.store, notifier, None, AT_ONCE).await?;
        if letters.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for (key, _) in &letters {
            batch.delete(key);
        }
        app.commit(batch).await?;
    }
}
