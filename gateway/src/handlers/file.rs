//! Files on hosts: shown, read, written. How their bytes travel is in [`crate::transfer`].
//!
//! The audit trail has two entries for what was begun and one for what was not:
//! `host.file.read.begin` before the first byte leaves, so that not even a crash hides it,
//! then `host.file.read` with how it came out; the same for `write`. Names, sizes and
//! digests are in them, and never content.

use std::sync::Arc;
use std::time::Duration;

use api::ProblemCode;
use api::endpoint::Endpoint;
use api::v1::OfHost;
use api::v1::file::*;
use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE,
};
use axum::http::request::Parts;
use axum::http::{Method, Response, StatusCode};
use gateway_store::Batch;
use model::file::{HostPath, Sha256};
use protocol::v1::{
    FileHeldQuestion, FileMeta, FileRead, FileStat, FileWrite, file_request::Action,
};
use sha2::Digest as _;
use tokio::sync::oneshot;

use super::event::watch_access;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::state::change::Entry;
use crate::transfer::download;
pub use crate::transfer::stream::WORK_WITHIN;
use crate::transfer::stream::{Hearing, Telling, info, nonsense, open, version};
use crate::transfer::upload::Upload;

/// What a file is.
pub async fn get_file(app: Arc<App>, call: Call<GetFile>) -> Result<FileInfo> {
    let path = call.query.path.clone();
    let digest = call.query.digest;
    let look = async {
        let (_, mut hearing) = ask(&app, &call, &path, Action::Stat(FileStat { digest })).await?;
        let meta = hearing.meta().await?;
        let sha256 = match digest && !meta.is_directory {
            true => Some(hearing.end().await?),
            false => None,
        };
        info(&path, &meta, sha256)
    };
    let looked = look.await;
    // A digest tells of the content; name and size do not.
    if digest || looked.is_err() {
        let entry = entry(&call, "host.file.stat", &path);
        let entry = match &looked {
            Ok(info) => with_digest(entry.with("size", info.size), info.sha256),
            Err(error) => entry.refused(&error.detail),
        };
        write(&app, &call, entry).await?;
    }
    looked
}

/// The content of a file.
pub async fn read_file(
    app: Arc<App>,
    call: Call<ReadFile>,
    parts: Parts,
) -> Result<Response<Body>> {
    let path = call.query.path.clone();
    let range = Range::of(&parts.headers);
    if parts.method == Method::HEAD {
        let action = Action::Stat(FileStat { digest: false });
        let (_, mut hearing) = ask(&app, &call, &path, action).await?;
        let mut meta = hearing.meta().await?;
        if meta.is_directory {
            return Err(Error::invalid("path", "it is a directory"));
        }
        (meta.offset, meta.length) = (0, meta.size);
        return respond(&meta, false, Body::empty());
    }
    let asked = FileRead {
        offset: range.as_ref().map_or(0, |range| range.first),
        length: range.as_ref().and_then(Range::length),
        version: range
            .as_ref()
            .map_or_else(Vec::new, |range| range.version.clone()),
    };
    let begin = async {
        let (_, mut hearing) = ask(&app, &call, &path, Action::Read(asked)).await?;
        let meta = hearing.meta().await?;
        let fits = meta.offset.checked_add(meta.length);
        if meta.is_directory || fits.is_none_or(|end| end > meta.size) {
            return Err(nonsense());
        }
        Ok((hearing, meta))
    };
    let (hearing, meta) = match begin.await {
        Ok(begun) => begun,
        Err(error) => {
            let entry = entry(&call, "host.file.read", &path).refused(&error.detail);
            write(&app, &call, entry).await?;
            return Err(error);
        }
    };
    let partial = match &range {
        Some(range) => range.version.is_empty() || range.version == meta.version,
        None => false,
    };
    if let Some(range) = range.filter(|_| partial)
        && range.first >= meta.size
    {
        let detail = format!("the file has {} bytes", meta.size);
        return Err(Error::new(ProblemCode::RangeNotSatisfiable, detail));
    }
    let response = |body| respond(&meta, partial, body);
    // Whether the head can be said is known before the trail says that it was.
    response(Body::empty())?;
    let told = |entry: Entry| {
        entry
            .with("size", meta.size)
            .with("from", meta.offset)
            .with("bytes", meta.length)
    };
    let begun = told(entry(&call, "host.file.read.begin", &path)).noticed();
    write(&app, &call, begun).await?;
    let ended = told(entry(&call, "host.file.read", &path));
    let body = download::pass(&app, call, hearing, &meta, move |outcome| {
        let entry = ended.with("passed", outcome.passed);
        match outcome.ended {
            Ok(sha256) => with_digest(entry, Some(sha256)),
            Err(error) => entry.refused(&error.detail),
        }
    });
    response(body)
}

/// Writes a file.
pub async fn write_file(
    app: Arc<App>,
    call: Call<WriteFile>,
    parts: Parts,
    body: Body,
) -> Result<FileInfo> {
    let asked = call.query.clone();
    let (size, from) = extent(&asked, &parts.headers, app.config.limits.file_bytes as u64)?;
    if asked.mode.is_some_and(|mode| mode.is_special()) && !asked.special {
        let detail = "set-user-id, set-group-id and sticky bits are set only with `special=true`";
        return Err(Error::invalid("mode", detail));
    }
    let action = Action::Write(FileWrite {
        transfer: transfer(&call, &asked.path, &asked.sha256, size),
        size,
        sha256: asked.sha256.as_bytes().to_vec(),
        offset: from,
        mode: asked.mode.map(|mode| mode.bits()),
        owner: asked
            .owner
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        overwrite: asked.overwrite,
        make_parents: asked.make_parents,
        allow_special: asked.special,
    });
    let (done, answer) = oneshot::channel();
    let task = Arc::clone(&app);
    // Its own task: a client that goes away takes its request with it, and the trail must
    // have how it came out all the same.
    app.tasks.spawn("file", async move {
        let written = carry(&task, &call, action, size, from, body).await;
        // Nobody may be there to hear it.
        let _ = done.send(written);
    });
    answer.await.map_err(|_| {
        Error::unavailable(
            "the gateway is stopping; the host keeps what came",
            Duration::from_secs(5),
        )
    })?
}

/// How much of an upload there is.
pub async fn get_file_upload(app: Arc<App>, call: Call<GetFileUpload>) -> Result<UploadState> {
    let UploadQuestion { path, sha256, size } = call.query.clone();
    let transfer = transfer(&call, &path, &sha256, size);
    let action = Action::Held(FileHeldQuestion { transfer });
    let (_, mut hearing) = ask(&app, &call, &path, action).await?;
    let held = hearing.held().await?;
    // More than there is to hold is none of this upload.
    Ok(UploadState {
        held: if held > size { 0 } else { held },
    })
}

async fn carry(
    app: &Arc<App>,
    call: &Call<WriteFile>,
    action: Action,
    size: u64,
    from: u64,
    body: Body,
) -> Result<FileInfo> {
    let asked = &call.query;
    let told = |action| {
        let mut entry = entry(call, action, &asked.path)
            .with("size", size)
            .with("from", from);
        if let Some(mode) = asked.mode {
            entry = entry.with("mode", mode);
        }
        if let Some(owner) = &asked.owner {
            entry = entry.with("owner", owner);
        }
        with_digest(entry, Some(asked.sha256)).with("overwrite", asked.overwrite)
    };
    let work = async {
        let (telling, mut hearing) = ask(app, call, &asked.path, action).await?;
        if hearing.held().await? != from {
            return Err(nonsense());
        }
        write(app, call, told("host.file.write.begin").noticed()).await?;
        let mut upload = Upload {
            telling,
            hearing,
            size,
            at: from,
        };
        let (meta, sha256) = upload.run(body).await?;
        if meta.size != size || sha256 != asked.sha256 {
            return Err(nonsense());
        }
        info(&asked.path, &meta, Some(sha256))
    };
    let stop = app.tasks.stop().clone();
    let written = tokio::select! {
        biased;
        () = stop.cancelled() => Err(Error::unavailable("the gateway is stopping; the host keeps what came", Duration::from_secs(5))),
        () = watch_access(app, call) => Err(Error::new(ProblemCode::Unauthenticated, "access was lost; the host keeps what came")),
        written = work => written,
    };
    let entry = told("host.file.write");
    let entry = match &written {
        Ok(_) => entry,
        Err(error) => entry.refused(&error.detail),
    };
    write(app, call, entry).await?;
    written
}

async fn ask<E: Endpoint<Path = OfHost>>(
    app: &Arc<App>,
    call: &Call<E>,
    path: &HostPath,
    action: Action,
) -> Result<(Telling, Hearing)> {
    open(app, call.proof.workspace(), call.path.host, path, action).await
}

/// Size of the whole content and place of the body's first byte.
fn extent(asked: &FileUpload, headers: &HeaderMap, most: u64) -> Result<(u64, u64)> {
    let from = asked.from.unwrap_or(0);
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let size = match (asked.size, length) {
        (Some(size), _) => size,
        (None, Some(length)) => from.saturating_add(length),
        (None, None) => {
            let detail = "say how large the content is: with `size`, or with Content-Length";
            return Err(Error::invalid("size", detail));
        }
    };
    if size > most {
        let detail = format!("it has {size} bytes, and {most} may travel");
        return Err(Error::new(ProblemCode::BodyTooLarge, detail));
    }
    if from > size || length.is_some_and(|length| length != size - from) {
        let detail = "`from` and the body's length do not add up to the size of the content";
        return Err(Error::invalid("from", detail));
    }
    Ok((size, from))
}

/// The same for the same content to the same place by the same caller, whenever. Of another
/// caller's it is not, who could spoil it.
fn transfer<E: Endpoint<Path = OfHost>>(
    call: &Call<E>,
    path: &HostPath,
    sha256: &Sha256,
    size: u64,
) -> Vec<u8> {
    let mut digest = sha2::Sha256::new();
    let (user, host) = (call.proof.caller().user.id, call.path.host);
    for part in [user.to_string(), host.to_string(), path.to_string()] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.update(sha256.as_bytes());
    digest.update(size.to_be_bytes());
    digest.finalize()[..16].to_vec()
}

fn entry<E: Endpoint<Path = OfHost>>(
    call: &Call<E>,
    action: &'static str,
    path: &HostPath,
) -> Entry {
    let now = crate::app::wall_clock();
    call.origin()
        .entry(now, action)
        .on(call.path.host)
        .with("path", path)
}

fn with_digest(entry: Entry, sha256: Option<Sha256>) -> Entry {
    match sha256 {
        Some(sha256) => entry.with("sha256", sha256),
        None => entry,
    }
}

/// Written before the answer goes out, or nothing goes out.
async fn write<E: Endpoint>(app: &App, call: &Call<E>, entry: Entry) -> Result<()> {
    let mut batch = Batch::new();
    entry.in_workspace(call.proof.workspace(), &mut batch);
    app.commit(batch).await.map(drop)
}

/// `Range: bytes=N-` or `bytes=N-M`. Other forms may be passed over, and are.
struct Range {
    first: u64,
    last: Option<u64>,
    /// The version that the range is about; empty for any.
    version: Vec<u8>,
}

impl Range {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(RANGE)?.to_str().ok()?;
        let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        let last = match last {
            "" => None,
            last => Some(last.parse().ok()?),
        };
        let first = first.parse().ok()?;
        if last.is_some_and(|last| last < first) {
            return None;
        }
        let version = match headers.get(IF_RANGE) {
            None => Vec::new(),
            // One that is not ours fits nothing: the whole is sent.
            Some(value) => {
                let hex = value.to_str().ok()?.strip_prefix('"')?.strip_suffix('"')?;
                let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?;
                (bytes.len() == 16).then_some(bytes)?
            }
        };
        Some(Self {
            first,
            last,
            version,
        })
    }

    fn length(&self) -> Option<u64> {
        Some((self.last? - self.first).saturating_add(1))
    }
}

fn respond(meta: &FileMeta, partial: bool, body: Body) -> Result<Response<Body>> {
    let mut response = Response::new(body);
    let text = |text: String| HeaderValue::from_str(&text).map_err(|_| nonsense());
    let mut fields: Vec<(HeaderName, HeaderValue)> = vec![
        (
            CONTENT_TYPE,
            HeaderValue::from_static(<ReadFile as Endpoint>::MEDIA),
        ),
        // Whatever it is, no browser is to show it as a page of ours.
        (CONTENT_DISPOSITION, HeaderValue::from_static("attachment")),
        (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (CONTENT_LENGTH, HeaderValue::from(meta.length)),
        (ETAG, text(format!("\"{}\"", version(meta)?))?),
    ];
    if partial {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let last = (meta.offset + meta.length).saturating_sub(1);
        let range = format!("bytes {}-{last}/{}", meta.offset, meta.size);
        fields.push((CONTENT_RANGE, text(range)?));
    }
    response.headers_mut().extend(fields);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_understood_or_passed_over() {
        let version = "ab".repeat(16);
        let of = |range: &str, if_range: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, range.parse().unwrap());
            if let Some(it) = if_range {
                headers.insert(IF_RANGE, it.parse().unwrap());
            }
            Range::of(&headers).map(|it| (it.first, it.length(), it.version.len()))
        };
        assert_eq!(of("bytes=5-", None), Some((5, None, 0)));
        assert_eq!(of("bytes=5-5", None), Some((5, Some(1), 0)));
        let quoted = format!("\"{version}\"");
        assert_eq!(of("bytes=0-9", Some(&quoted)), Some((0, Some(10), 16)));
        let most = u64::MAX.to_string();
        assert_eq!(
            of(&format!("bytes=0-{most}"), None),
            Some((0, Some(u64::MAX), 0))
        );
        for odd in [
            "bytes=-5",
            "bytes=9-5",
            "bytes=0-1,3-4",
            "lines=0-1",
            "bytes=",
            "bytes=-",
        ] {
            assert_eq!(of(odd, None), None, "{odd}");
        }
        for other in ["W/\"x\"", "\"\"", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(of("bytes=5-", Some(other)), None, "{other}");
        }
    }

    #[test]
    fn the_parts_of_an_upload_add_up() {
        let extent = |size, from, length: Option<&str>| {
            let asked = FileUpload {
                size,
                from,
                ..FileUpload::default()
            };
            let mut headers = HeaderMap::new();
            if let Some(length) = length {
                headers.insert(CONTENT_LENGTH, length.parse().unwrap());
            }
            extent(&asked, &headers, 100).map_err(|error| error.code)
        };
        assert_eq!(extent(None, None, Some("7")), Ok((7, 0)));
        assert_eq!(extent(None, Some(3), Some("7")), Ok((10, 3)));
        assert_eq!(extent(Some(10), Some(3), None), Ok((10, 3)));
        assert_eq!(extent(Some(0), None, Some("0")), Ok((0, 0)));
        assert_eq!(extent(Some(10), Some(11), None), Err(ProblemCode::Invalid));
        assert_eq!(
            extent(Some(10), Some(3), Some("8")),
            Err(ProblemCode::Invalid)
        );
        assert_eq!(extent(None, None, None), Err(ProblemCode::Invalid));
        assert_eq!(
            extent(Some(101), None, None),
            Err(ProblemCode::BodyTooLarge)
        );
        let most = u64::MAX.to_string();
        assert_eq!(
            extent(None, Some(u64::MAX), Some(&most)),
            Err(ProblemCode::BodyTooLarge)
        );
    }
}
