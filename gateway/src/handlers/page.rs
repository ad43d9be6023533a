//! Pages over what the catalog holds.

use api::Page;
use api::page::{DEFAULT_LIMIT, MAX_LIMIT};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::http::dispatch::{cursor, read_cursor};

/// How many items to answer.
pub fn limit_of(limit: Option<u32>) -> Result<usize> {
    match limit.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit as usize),
        _ => Err(Error::invalid(
            "limit",
            format!("limit must be 1 to {MAX_LIMIT}"),
        )),
    }
}

/// The items after the cursor, `limit` of them, made into views. `items` must be
/// sorted by `key`; `view` answers `None` for what the filter leaves out.
pub fn page_of<I, K, V>(
    items: impl Iterator<Item = I>,
    key: impl Fn(&I) -> K,
    limit: Option<u32>,
    after: Option<&str>,
    mut view: impl FnMut(I) -> Option<V>,
) -> Result<Page<V>>
where
    K: Ord + Serialize + DeserializeOwned,
{
    let limit = limit_of(limit)?;
    let after: Option<K> = after.map(read_cursor).transpose()?;
    let mut page = Page {
        items: Vec::new(),
        next: None,
    };
    let mut last = None;
    for item in items {
        let at = key(&item);
        if after.as_ref().is_some_and(|after| at <= *after) {
            continue;
        }
        let Some(viewed) = view(item) else { continue };
        if page.items.len() == limit {
            page.next = last.as_ref().map(cursor);
            break;
        }
        page.items.push(viewed);
        last = Some(at);
    }
    Ok(page)
}
