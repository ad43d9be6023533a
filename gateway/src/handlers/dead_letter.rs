//! Events that were given up for notifiers ([`crate::signal::dead`]).

use std::sync::Arc;
use std::time::Duration;

use api::v1::plugin::*;
use api::{Endpoint, Page};
use gateway_store::{Batch, Key};
use model::names::Name;

use super::page::limit_of;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::http::dispatch::{cursor, read_cursor};
use crate::signal::dead::{self, AT_ONCE, Letter};
use crate::signal::records::DeadLetterRecordV1;

/// The last deliveries may begin just before [`dead::BEGIN_WITHIN`] is over.
pub const REDELIVER_WITHIN: Duration = Duration::from_secs(310);

/// Lists the events that were given up for a notifier.
pub async fn list_dead_letters(
    app: Arc<App>,
    call: Call<ListDeadLetters>,
) -> Result<Page<DeadLetter>> {
    let notifier = known(&app, &call.path.plugin)?;
    let limit = limit_of(call.query.limit)?;
    let after = call.query.after.as_deref().map(read_cursor::<String>);
    let after = match after.transpose()? {
        Some(event) => Some(key_of(notifier, &event)?),
        None => None,
    };
    let (letters, more) = dead::page(&*app.store, notifier, after.as_ref(), limit).await?;
    let last = letters.last().filter(|_| more);
    let last = last.and_then(|(key, _)| place_of(key));
    Ok(Page {
        next: last.as_ref().map(cursor),
        items: letters
            .into_iter()
            .map(|(_, letter)| view(letter))
            .collect(),
    })
}

/// Delivers again what was given up.
pub async fn redeliver_dead_letters(
    app: Arc<App>,
    call: Call<RedeliverDeadLetters>,
) -> Result<RedeliveredDeadLetters> {
    let name = known(&app, &call.path.plugin)?;
    let notifier = {
        let notifiers = app.notifiers.borrow();
        notifiers.as_ref().and_then(|all| all.get(name)).cloned()
    };
    let Some(notifier) = notifier else {
        let detail = "the notifier is not enabled; `loopback plugin enable` it first";
        return Err(Error::conflict(detail));
    };
    let (letters, more) = chosen(&app, name, &call.body).await?;
    let note = |delivered: usize, failed: usize, batch: &mut Batch| {
        entry(&call, "plugin.dead_letter.redeliver", name)
            .with("delivered", delivered)
            .with("failed", failed)
            .in_deployment(batch);
    };
    let came = dead::redeliver(&app, &*notifier, letters, note).await?;
    let failed = came.failed.into_iter();
    let reply = RedeliveredDeadLetters {
        delivered: came.delivered,
        failed: failed
            .map(|(event, code)| FailedDeadLetter { event, code })
            .collect(),
        more: came.more || more,
    };
    call.finish(&app, Batch::new(), reply).await
}

/// Throws away what was given up.
pub async fn discard_dead_letters(
    app: Arc<App>,
    call: Call<DiscardDeadLetters>,
) -> Result<DiscardedDeadLetters> {
    let name = known(&app, &call.path.plugin)?;
    let (letters, more) = chosen(&app, name, &call.body).await?;
    for some in letters.chunks(AT_ONCE) {
        let mut batch = Batch::new();
        for (key, _) in some {
            batch.delete(key);
        }
        let events: Vec<_> = some.iter().map(|(_, letter)| letter.id.as_str()).collect();
        entry(&call, "plugin.dead_letter.discard", name)
            .with("count", events.len())
            .with("first", events.first().copied().unwrap_or_default())
            .with("last", events.last().copied().unwrap_or_default())
            .in_deployment(&mut batch);
        app.commit(batch).await?;
    }
    let reply = DiscardedDeadLetters {
        discarded: letters.len() as u64,
        more,
    };
    call.finish(&app, Batch::new(), reply).await
}

fn entry<E: Endpoint>(
    call: &Call<E>,
    what: &'static str,
    notifier: &Name,
) -> crate::state::change::Entry {
    call.entry(what).on(notifier)
}

/// A plugin that is installed, or a notifier that is looked after.
fn known<'a>(app: &App, name: &'a Name) -> Result<&'a Name> {
    let tables = app.catalog.read();
    if tables.plugins.contains_key(name) || tables.sinks.contains_key(name) {
        Ok(name)
    } else {
        Err(Error::not_found("plugin"))
    }
}

/// The dead letters that are meant, oldest first, and whether there are more.
async fn chosen(
    app: &App,
    notifier: &Name,
    which: &WhichDeadLetters,
) -> Result<(Vec<Letter>, bool)> {
    let store = &*app.store;
    match &which.event {
        None => dead::page(store, notifier, None, MAX_DEAD_LETTERS).await,
        Some(event) => match dead::one(store, notifier, event).await? {
            Some(letter) => Ok((vec![letter], false)),
            None => Err(Error::not_found("dead letter")),
        },
    }
}

fn key_of(notifier: &Name, place: &str) -> Result<Key> {
    let refused = |_| Error::invalid("after", "after is no cursor of this list");
    DeadLetterRecordV1::key(notifier, place).map_err(refused)
}

/// What stands behind the notifier's name.
fn place_of(key: &Key) -> Option<String> {
    let text = std::str::from_utf8(key.as_bytes()).ok()?;
    let (_, place) = text.rsplit_once('/')?;
    Some(place.to_owned())
}

fn view(letter: DeadLetterRecordV1) -> DeadLetter {
    let event = letter.event;
    DeadLetter {
        event: letter.id,
        sequence: letter.sequence,
        at: event.at,
        kind: event.kind,
        severity: event.severity,
        summary: event.summary,
        workspace: event.workspace,
        host: event.host,
        code: letter.code,
        given_up_at: letter.given_up_at,
    }
}
