//! Writing an export to where it belongs. A file appears under its name only
//! when everything the header promises has come: half an export that looks like
//! a whole one would fail verification years later, when nothing can be done.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use api::endpoint::{Endpoint, Nothing};
use api::v1::InWorkspace;
use api::v1::audit::{AuditRecord, ExportDeploymentAudit, ExportHeader, ExportWorkspaceAudit};
use model::ids::WorkspaceId;

use crate::app::App;
use crate::audit::parse_header;
use crate::client::{Client, ClientError};
use crate::contexts::{beside, folder_of};
use crate::failure::Failure;
use crate::output::note;

pub(super) fn run(
    app: &mut App,
    client: &Client,
    workspace: Option<WorkspaceId>,
    path: Option<&Path>,
) -> Result<(), Failure> {
    let (stream, url) = match workspace {
        Some(workspace) => (
            client.stream::<ExportWorkspaceAudit>(&InWorkspace { workspace }, &Nothing {})?,
            ExportWorkspaceAudit::PATH,
        ),
        None => (
            client.stream::<ExportDeploymentAudit>(&Nothing {}, &Nothing {})?,
            ExportDeploymentAudit::PATH,
        ),
    };
    let source = BufReader::with_capacity(1 << 16, stream);
    match path {
        None => {
            let mut sink = |line: &[u8]| app.out.raw(line);
            copy(source, url, &mut sink).map(drop)
        }
        Some(path) => {
            let header = to_file(source, url, path)?;
            note(&format!(
                "{} entries of chain {} written to {}\nhead: {}:{} (keep it elsewhere: it shows when the end is cut off)",
                header.head_seq,
                header.chain,
                path.display(),
                header.head_seq,
                header.head_mac
            ));
            Ok(())
        }
    }
}

fn to_file(source: impl BufRead, url: &str, path: &Path) -> Result<ExportHeader, Failure> {
    let temporary = beside(path, &format!("partial-{}", std::process::id()));
    let fail = |source| Failure::File {
        verb: "write",
        path: path.to_owned(),
        source,
    };
    let write = || {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(fail)?;
        let mut file = io::BufWriter::new(file);
        let header = copy(source, url, &mut |line| file.write_all(line).map_err(fail))?;
        let file = file
            .into_inner()
            .map_err(|error| fail(error.into_error()))?;
        file.sync_all().map_err(fail)?;
        fs::rename(&temporary, path).map_err(fail)?;
        File::open(folder_of(path))
            .and_then(|folder| folder.sync_all())
            .map_err(fail)?;
        Ok(header)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// Copies an export and checks that all of it came.
fn copy(
    mut source: impl BufRead,
    url: &str,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<ExportHeader, Failure> {
    let cut = |source| ClientError::Cut {
        url: url.to_owned(),
        source,
    };
    let mut line = Vec::new();
    source.read_until(b'\n', &mut line).map_err(cut)?;
    let header =
        parse_header(&line).map_err(|why| cut(io::Error::new(io::ErrorKind::InvalidData, why)))?;
    sink(&line)?;
    let mut last = Vec::new();
    let mut count: u64 = 0;
    let mut progress = Progress::new();
    loop {
        line.clear();
        if source.read_until(b'\n', &mut line).map_err(cut)? == 0 {
            break;
        }
        sink(&line)?;
        count += 1;
        progress.tell(count, header.head_seq);
        std::mem::swap(&mut line, &mut last);
    }
    progress.end();
    let last = serde_json::from_slice::<AuditRecord>(&last).map_or(0, |record| record.seq);
    if last == header.head_seq {
        Ok(header)
    } else {
        Err(Failure::ShortExport {
            last,
            promised: header.head_seq,
        })
    }
}

/// A line on a terminal that counts; nothing elsewhere.
struct Progress {
    next: Option<Instant>,
    shown: bool,
}

impl Progress {
    const EVERY: Duration = Duration::from_millis(500);

    fn new() -> Self {
        Self {
            next: io::stderr()
                .is_terminal()
                .then(|| Instant::now() + Self::EVERY),
            shown: false,
        }
    }

    fn tell(&mut self, count: u64, of: u64) {
        let Some(next) = self.next else { return };
        let now = Instant::now();
        if now >= next {
            self.next = Some(now + Self::EVERY);
            self.shown = true;
            let _ = write!(io::stderr(), "\r{count} of {of} entries\x1b[K");
        }
    }

    fn end(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"{"kind":"loopback-audit-export","format":1,"chain":"deployment","head_seq":2,"head_mac":"00","exported_at":"2027-01-15T08:00:00.000Z"}"#;

    fn record(seq: u64) -> String {
        format!(r#"{{"seq":{seq},"prev_mac":"","mac":"","body":""}}"#)
    }

    #[test]
    fn a_whole_export_replaces_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("export");
        fs::write(&path, "old").unwrap();
        let text = format!("{HEADER}\n{}\n{}\n", record(1), record(2));
        assert_eq!(to_file(text.as_bytes(), "/x", &path).unwrap().head_seq, 2);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_short_export_keeps_the_old_file_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("export");
        fs::write(&path, "old").unwrap();
        for text in [
            format!("{HEADER}\n{}\n", record(1)),
            HEADER.to_owned(),
            String::new(),
            format!("{HEADER}\n{{\"seq\":2"),
        ] {
            let error = to_file(text.as_bytes(), "/x", &path).unwrap_err();
            assert_eq!(error.exit_code(), 6, "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
