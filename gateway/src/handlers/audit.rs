//! Reading, exporting and verifying the audit trail.

use std::sync::Arc;

use api::endpoint::Raw;
use api::v1::audit::*;
use api::{Endpoint, Page};
use axum::body::{Body, Bytes};
use axum::http::Response;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;
use data_encoding::HEXLOWER;
use futures_util::stream;
use gateway_store::{Batch, audit_head, audit_list};
use model::audit_chain::{Head, SealedEntry};

use super::page::limit_of;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::http::dispatch::{cursor, read_cursor};
use crate::state::change::{DEPLOYMENT_CHAIN, Entry};

/// Entries read from the store at a time.
const CHUNK: usize = 500;

/// Lists the deployment's trail.
pub async fn list_deployment_audit(
    app: Arc<App>,
    call: Call<ListDeploymentAudit>,
) -> Result<Page<AuditRecord>> {
    newest_first(&app, DEPLOYMENT_CHAIN, &call.query).await
}

/// Lists a workspace's trail.
pub async fn list_workspace_audit(
    app: Arc<App>,
    call: Call<ListWorkspaceAudit>,
) -> Result<Page<AuditRecord>> {
    newest_first(&app, &call.proof.workspace().to_string(), &call.query).await
}

/// Exports the deployment's trail.
pub async fn export_deployment_audit(
    app: Arc<App>,
    call: Call<ExportDeploymentAudit>,
    _: Parts,
) -> Result<Response<Body>> {
    let mut batch = Batch::new();
    call.entry("audit.export").in_deployment(&mut batch);
    export(app, DEPLOYMENT_CHAIN.to_owned(), batch, &call).await
}

/// Exports a workspace's trail.
pub async fn export_workspace_audit(
    app: Arc<App>,
    call: Call<ExportWorkspaceAudit>,
    _: Parts,
) -> Result<Response<Body>> {
    let workspace = call.proof.workspace();
    let mut batch = Batch::new();
    call.entry("audit.export")
        .in_workspace(workspace, &mut batch);
    export(app, workspace.to_string(), batch, &call).await
}

/// The key of the deployment's chain.
pub async fn get_deployment_audit_key(
    app: Arc<App>,
    call: Call<GetDeploymentAuditKey>,
) -> Result<AuditKey> {
    key(
        &app,
        DEPLOYMENT_CHAIN,
        call.entry("audit.key.read"),
        |entry, batch| entry.in_deployment(batch),
    )
    .await
}

/// The key of a workspace's chain.
pub async fn get_workspace_audit_key(
    app: Arc<App>,
    call: Call<GetWorkspaceAuditKey>,
) -> Result<AuditKey> {
    let workspace = call.proof.workspace();
    key(
        &app,
        &workspace.to_string(),
        call.entry("audit.key.read"),
        |entry, batch| entry.in_workspace(workspace, batch),
    )
    .await
}

async fn newest_first(app: &App, chain: &str, filter: &AuditFilter) -> Result<Page<AuditRecord>> {
    let limit = limit_of(filter.limit)?;
    let head = audit_head(&*app.store, chain).await?;
    let before: u64 = match filter.after.as_deref() {
        Some(after) => read_cursor(after)?,
        None => head.seq.saturating_add(1),
    };
    // Numbers have no gaps: the page that ends before `before` begins here.
    let newest = before.saturating_sub(1).min(head.seq);
    let skip = newest.saturating_sub(limit as u64);
    let wanted = usize::try_from(newest - skip).unwrap_or(limit);
    if wanted == 0 {
        return Ok(Page {
            items: Vec::new(),
            next: None,
        });
    }
    let page = audit_list(&*app.store, chain, skip, wanted).await?;
    let items = page.entries.into_iter().rev().map(record).collect();
    Ok(Page {
        items,
        next: (skip > 0).then(|| cursor(&(skip + 1))),
    })
}

/// Streams a chain as it is now. The export itself is an entry, so it is part of
/// what is exported.
async fn export<E: Endpoint<Reply = Raw>>(
    app: Arc<App>,
    chain: String,
    batch: Batch,
    _: &Call<E>,
) -> Result<Response<Body>> {
    app.commit(batch).await?;
    let head = audit_head(&*app.store, &chain).await?;
    let header = ExportHeader {
        kind: "loopback-audit-export".to_owned(),
        format: 1,
        chain: chain.clone(),
        head_seq: head.seq,
        head_mac: HEXLOWER.encode(&head.mac),
        exported_at: app.now(),
    };
    let first = line(&header)?;
    let lines = stream::unfold(Some((0, Some(first))), move |state| {
        let (app, chain) = (Arc::clone(&app), chain.clone());
        async move {
            let (after, first) = state?;
            if let Some(first) = first {
                return Some((Ok(Bytes::from(first)), Some((after, None))));
            }
            match chunk(&app, &chain, after, head).await {
                Ok(Some((bytes, last))) => Some((Ok(bytes), Some((last, None)))),
                Ok(None) => None,
                // A cut stream is told by its missing end: the header has the head.
                Err(error) => Some((Err(std::io::Error::other(error.to_string())), None)),
            }
        }
    });
    let mut response = Response::new(Body::from_stream(lines));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(E::MEDIA));
    headers.insert(
        CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"audit.ndjson\""),
    );
    Ok(response)
}

async fn chunk(app: &App, chain: &str, after: u64, head: Head) -> Result<Option<(Bytes, u64)>> {
    let left = head.seq.saturating_sub(after);
    let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
    if wanted == 0 {
        return Ok(None);
    }
    let page = audit_list(&*app.store, chain, after, wanted).await?;
    let Some(last) = page.entries.last().map(|entry| entry.seq) else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    for entry in page.entries {
        bytes.extend(line(&record(entry))?.into_bytes());
    }
    Ok(Some((bytes.into(), last)))
}

fn line(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map(|text| text + "\n")
        .map_err(|error| Error::internal(&error))
}

fn record(entry: SealedEntry) -> AuditRecord {
    AuditRecord {
        seq: entry.seq,
        prev_mac: HEXLOWER.encode(&entry.prev_mac),
        mac: HEXLOWER.encode(&entry.mac),
        body: String::from_utf8_lossy(&entry.body).into_owned(),
    }
}

async fn key(
    app: &App,
    chain: &str,
    entry: Entry,
    into: impl FnOnce(Entry, &mut Batch),
) -> Result<AuditKey> {
    let mut batch = Batch::new();
    into(entry, &mut batch);
    app.commit(batch).await?;
    let head = audit_head(&*app.store, chain).await?;
    let key = app.keys.audit_key().chain_key(chain);
    Ok(AuditKey {
        chain: chain.to_owned(),
        key: HEXLOWER.encode(&key.to_bytes()),
        head_seq: head.seq,
        head_mac: HEXLOWER.encode(&head.mac),
    })
}
