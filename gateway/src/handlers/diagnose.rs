//! Diagnostics of hosts: one section as an answer, or a bundle as an archive.

use std::sync::Arc;

use api::endpoint::Endpoint;
use api::tar;
use api::v1::diagnose::*;
use axum::body::{Body, Bytes};
use axum::http::Response;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;
use data_encoding::HEXLOWER;
use gateway_core::diagnose::Told;
use gateway_store::Batch;
use model::Timestamp;
use model::diagnose::{MAX_LINES, MAX_TARGETS, Outcome, Section, is_unit_name, target};
use model::ids::HostId;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::event::watch_access;
use crate::app::App;
use crate::diagnose::{Asked, BUNDLE_WITHIN, Diagnosis, ONE_WITHIN};
use crate::error::{Error, Result};
use crate::http::call::Call;

/// Chunks that wait for a slow reader. When it is full, the host waits with us.
const CHUNKS: usize = 4;

/// One section.
pub async fn get_host_diagnostic(
    app: Arc<App>,
    call: Call<GetHostDiagnostic>,
) -> Result<Diagnostic> {
    let host = find(&app, &call, call.path.host)?;
    let options = &call.query;
    let asked = Asked {
        sections: vec![call.path.section],
        unit: unit(options.unit.as_deref())?,
        lines: lines(options.lines)?,
        targets: targets(options.targets.as_deref())?,
    };
    let begun = Diagnosis::begin(&app, host, &asked, ONE_WITHIN).await;
    let mut diagnosis = audited(&app, &call, host, &asked, begun).await?;
    let told = diagnosis.next().await;
    let told = told.unwrap_or_else(|| Told::untold(call.path.section, "the host said nothing"));
    let report = report_of(&told);
    finished(&app, &call, host, std::slice::from_ref(&report), "told").await?;
    let shown = told.outcome != Outcome::Failed;
    let is_text = told.section.is_text();
    Ok(Diagnostic {
        report,
        // It was read as JSON before.
        document: (shown && !is_text)
            .then(|| serde_json::from_slice(&told.content).unwrap_or_default()),
        text: (shown && is_text).then(|| String::from_utf8_lossy(&told.content).into_owned()),
    })
}

/// A bundle.
pub async fn get_host_diagnostics_bundle(
    app: Arc<App>,
    call: Call<GetHostDiagnosticsBundle>,
    _: Parts,
) -> Result<Response<Body>> {
    let host = find(&app, &call, call.path.host)?;
    let options = &call.query;
    let asked = Asked {
        sections: sections(options.sections.as_deref())?,
        unit: unit(options.unit.as_deref())?,
        lines: lines(options.lines)?,
        targets: targets(options.targets.as_deref())?,
    };
    let begun = Diagnosis::begin(&app, host, &asked, BUNDLE_WITHIN).await;
    let diagnosis = audited(&app, &call, host, &asked, begun).await?;
    let (chunks, body) = mpsc::channel::<Bytes>(CHUNKS);
    let tasks = app.tasks.clone();
    tasks.spawn("diagnosis", async move {
        let stop = app.tasks.stop().clone();
        let mut bundle = Bundle {
            begun_at: call.meta.now,
            reports: Vec::new(),
            chunks: &chunks,
        };
        let end = tokio::select! {
            biased;
            () = stop.cancelled() => "the gateway stops",
            () = chunks.closed() => "the reader left",
            () = watch_access(&app, &call) => "the caller lost access",
            whole = bundle.write(&app, host, diagnosis) => match whole {
                Some(()) => "told",
                None => "the reader left",
            },
        };
        // The trail is no reason to hold the bundle back; the store logs why it failed.
        let _ = finished(&app, &call, host, &bundle.reports, end).await;
    });
    let stream = futures_util::stream::unfold(body, |mut body| async move {
        let chunk = body.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), body))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    let media = HeaderValue::from_static(GetHostDiagnosticsBundle::MEDIA);
    headers.insert(CONTENT_TYPE, media);
    headers.insert(
        CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"diagnostics.tar\""),
    );
    Ok(response)
}

/// A bundle in the making.
struct Bundle<'a> {
    begun_at: Timestamp,
    reports: Vec<SectionReport>,
    chunks: &'a mpsc::Sender<Bytes>,
}

impl Bundle<'_> {
    /// Nothing when the reader is gone.
    async fn write(&mut self, app: &App, host: HostId, mut diagnosis: Diagnosis) -> Option<()> {
        while let Some(told) = diagnosis.next().await {
            let report = report_of(&told);
            self.reports.push(report.clone());
            if told.outcome != Outcome::Failed {
                self.file(app, told.section.file(), told.content).await?;
            }
            self.json(app, &result_file(told.section), &report).await?;
        }
        let host_name = {
            let tables = app.catalog.read();
            let record = tables.hosts.get(&host)?;
            crate::view::name_of(record, crate::view::hostname_of(&tables, record))
        };
        let manifest = Manifest {
            kind: "loopback-diagnostics".to_owned(),
            format: 1,
            host,
            host_name,
            begun_at: self.begun_at,
            ended_at: app.now(),
            sections: self.reports.clone(),
        };
        self.json(app, MANIFEST, &manifest).await?;
        let end = Bytes::from_static(&tar::END);
        self.chunks.send(end).await.ok()
    }

    async fn json(&self, app: &App, name: &str, value: &impl serde::Serialize) -> Option<()> {
        let mut bytes = serde_json::to_vec_pretty(value).ok()?;
        bytes.push(b'\n');
        self.file(app, name, bytes).await
    }

    async fn file(&self, app: &App, name: &str, mut content: Vec<u8>) -> Option<()> {
        let size = content.len() as u64;
        let now = u64::try_from(app.now().as_millis() / 1000).unwrap_or(0);
        let head = tar::head(name, size, now)?;
        content.resize(content.len() + tar::padding(size), 0);
        self.chunks.send(Bytes::copy_from_slice(&head)).await.ok()?;
        self.chunks.send(content.into()).await.ok()
    }
}

fn report_of(told: &Told) -> SectionReport {
    SectionReport {
        section: told.section,
        outcome: told.outcome,
        reason: told.reason.clone(),
        duration_ms: told.duration_ms.into(),
        bytes: told.content.len() as u64,
        sha256: HEXLOWER.encode(&Sha256::digest(&told.content)),
    }
}

/// Writes down that a host is looked into, or why it is not, before anything is shown.
async fn audited<E: Endpoint>(
    app: &App,
    call: &Call<E>,
    host: HostId,
    asked: &Asked,
    begun: Result<Diagnosis>,
) -> Result<Diagnosis> {
    let names: Vec<_> = asked.sections.iter().map(|it| it.as_str()).collect();
    let mut entry = call
        .entry("host.diagnose")
        .on(host)
        .with("sections", names.join(" "));
    if !asked.unit.is_empty() {
        entry = entry.with("unit", &asked.unit);
    }
    if !asked.targets.is_empty() {
        entry = entry.with("targets", asked.targets.join(" "));
    }
    if let Err(error) = &begun {
        entry = entry.refused(&error.detail);
    }
    let mut batch = Batch::new();
    entry.in_workspace(call.proof.workspace(), &mut batch);
    app.commit(batch).await?;
    begun
}

async fn finished<E: Endpoint>(
    app: &App,
    call: &Call<E>,
    host: HostId,
    reports: &[SectionReport],
    end: &str,
) -> Result<()> {
    let count = |outcome| reports.iter().filter(|it| it.outcome == outcome).count();
    let bytes: u64 = reports.iter().map(|it| it.bytes).sum();
    let entry = call.origin().entry(app.now(), "host.diagnose.finish");
    let entry = entry
        .on(host)
        .with("result", end)
        .with("ok", count(Outcome::Ok))
        .with("partial", count(Outcome::Partial))
        .with("failed", count(Outcome::Failed))
        .with("bytes", bytes);
    let mut batch = Batch::new();
    entry.in_workspace(call.proof.workspace(), &mut batch);
    app.commit(batch).await.map(drop)
}

fn find<E: Endpoint>(app: &App, call: &Call<E>, host: HostId) -> Result<HostId> {
    let tables = app.catalog.read();
    match tables.host_in(call.proof.workspace(), host) {
        Some(_) => Ok(host),
        None => Err(Error::not_found("host")),
    }
}

fn sections(text: Option<&str>) -> Result<Vec<Section>> {
    let Some(text) = text else {
        return Ok(Section::ALL.to_vec());
    };
    let mut asked: Vec<Section> = Vec::new();
    for name in text.split(',') {
        let section = name.trim().parse();
        let section = section.map_err(|error: model::diagnose::NoSuchSection| {
            Error::invalid("sections", error.to_string())
        })?;
        if !asked.contains(&section) {
            asked.push(section);
        }
    }
    Ok(asked)
}

fn unit(text: Option<&str>) -> Result<String> {
    match text {
        None => Ok(String::new()),
        Some(name) if is_unit_name(name) => Ok(name.to_owned()),
        Some(_) => Err(Error::invalid(
            "unit",
            "this is not the name of a unit, such as `ssh.service`",
        )),
    }
}

fn lines(count: Option<u32>) -> Result<u32> {
    match count {
        None => Ok(0),
        Some(count) if (1..=MAX_LINES).contains(&count) => Ok(count),
        Some(_) => Err(Error::invalid("lines", format!("give 1 to {MAX_LINES}"))),
    }
}

fn targets(text: Option<&str>) -> Result<Vec<String>> {
    let names: Vec<_> = text.into_iter().flat_map(|it| it.split(',')).collect();
    if names.len() > MAX_TARGETS {
        let detail = format!("give at most {MAX_TARGETS}");
        return Err(Error::invalid("targets", detail));
    }
    let checked = |name: &str| {
        let name = name.trim();
        let detail = "a target is `host:port` or `[address]:port`";
        match target(name) {
            Some(_) => Ok(name.to_owned()),
            None => Err(Error::invalid("targets", detail)),
        }
    };
    names.into_iter().map(checked).collect()
}
