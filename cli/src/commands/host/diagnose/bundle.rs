//! Reading a bundle as it comes, and writing it to where it belongs. It appears under
//! its name when its manifest has come and holds; a bundle that was cut leaves nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use api::endpoint::Endpoint as _;
use api::tar::{self, BLOCK, Head};
use api::v1::diagnose::{GetHostDiagnosticsBundle, MANIFEST, Manifest, SectionReport, result_file};
use data_encoding::HEXLOWER;
use model::diagnose::{MAX_SECTION, Outcome, Section};
use ring::digest::{SHA256, digest};

use crate::client::ClientError;
use crate::contexts::{beside, folder_of};
use crate::failure::Failure;
use crate::output::{bytes_text, duration_text, note};

/// Longest report or manifest.
const MAX_JSON: u64 = 1 << 20;

pub(super) fn to_file(
    stream: impl Read,
    path: &Path,
    force: bool,
    progress: &mut Progress,
) -> Result<Manifest, Failure> {
    let temporary = beside(path, &format!("partial-{}", std::process::id()));
    let fail = |source| Failure::File {
        verb: "write",
        path: path.to_owned(),
        source,
    };
    let write = || {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(fail)?;
        let mut file = io::BufWriter::new(file);
        let manifest = copy(stream, progress, &mut |bytes| {
            file.write_all(bytes).map_err(fail)
        })?;
        let file = file
            .into_inner()
            .map_err(|error| fail(error.into_error()))?;
        file.sync_all().map_err(fail)?;
        put(&temporary, path, force).map_err(fail)?;
        File::open(folder_of(path))
            .and_then(|folder| folder.sync_all())
            .map_err(fail)?;
        Ok(manifest)
    };
    let written = write();
    progress.clear();
    written.inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// Gives the file its name. A second link fails where there is a file already, also one
/// that came meanwhile; not every file system has links.
fn put(temporary: &Path, path: &Path, force: bool) -> io::Result<()> {
    if force {
        return fs::rename(temporary, path);
    }
    match fs::hard_link(temporary, path) {
        Ok(()) => fs::remove_file(temporary),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        Err(_) if path.exists() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(temporary, path),
    }
}

fn cut(source: io::Error) -> Failure {
    let url = GetHostDiagnosticsBundle::PATH.to_owned();
    ClientError::Cut { url, source }.into()
}

fn wrong(why: &str) -> Failure {
    cut(io::Error::new(io::ErrorKind::InvalidData, why.to_owned()))
}

/// Copies a bundle and checks that it is whole, and nothing but a bundle.
fn copy(
    mut source: impl Read,
    progress: &mut Progress,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<Manifest, Failure> {
    let mut contents: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut reports: Vec<SectionReport> = Vec::new();
    let mut manifest: Option<Manifest> = None;
    loop {
        let mut block = [0; BLOCK];
        source.read_exact(&mut block).map_err(cut)?;
        sink(&block)?;
        let (name, size) = match tar::read(&block) {
            Ok(Head::File { name, size }) => (name, size),
            Ok(Head::End) => break,
            Err(error) => return Err(wrong(&error.to_string())),
        };
        let section = Section::ALL.iter().find(|it| it.file() == name);
        let report = Section::ALL.iter().find(|it| result_file(**it) == name);
        let most = match (section, report) {
            (Some(_), _) => MAX_SECTION as u64,
            (None, Some(_)) => MAX_JSON,
            (None, None) if name == MANIFEST => MAX_JSON,
            _ => return Err(wrong("a file that belongs to no bundle")),
        };
        if size > most || manifest.is_some() || contents.contains_key(&name) {
            return Err(wrong("a file that is too large, or comes twice"));
        }
        let mut content = vec![0; usize::try_from(size).unwrap_or(0) + tar::padding(size)];
        source.read_exact(&mut content).map_err(cut)?;
        sink(&content)?;
        content.truncate(usize::try_from(size).unwrap_or(0));
        let read = |error: serde_json::Error| wrong(&error.to_string());
        if report.is_some() {
            let report: SectionReport = serde_json::from_slice(&content).map_err(read)?;
            progress.tell(&report);
            reports.push(report);
        } else if name == MANIFEST {
            manifest = Some(serde_json::from_slice(&content).map_err(read)?);
        }
        let sum = HEXLOWER.encode(digest(&SHA256, &content).as_ref());
        contents.insert(name, (size, sum));
    }
    let mut last = [0; BLOCK];
    source.read_exact(&mut last).map_err(cut)?;
    sink(&last)?;
    let manifest = manifest.ok_or_else(|| wrong("it has no manifest"))?;
    let holds = |report: &SectionReport| match contents.get(report.section.file()) {
        Some((size, sum)) => report.bytes == *size && report.sha256 == *sum,
        None => report.outcome == Outcome::Failed,
    };
    if manifest.sections != reports || !reports.iter().all(holds) {
        return Err(wrong("its manifest tells of something else"));
    }
    Ok(manifest)
}

/// A line for each section as it comes; on a terminal also which one is awaited.
pub(super) struct Progress {
    awaited: Vec<Section>,
    live: bool,
}

impl Progress {
    pub(super) fn new(asked: &[Section], live: bool) -> Self {
        let progress = Self {
            awaited: asked.to_vec(),
            live,
        };
        progress.awaiting();
        progress
    }

    fn tell(&mut self, report: &SectionReport) {
        self.awaited.retain(|it| *it != report.section);
        self.clear();
        let took = duration_text(Duration::from_millis(report.duration_ms));
        let outcome = report.outcome.as_str();
        let what = match report.outcome {
            Outcome::Ok => format!("{}, {took}", bytes_text(report.bytes)),
            Outcome::Partial => {
                let size = bytes_text(report.bytes);
                format!("{size}, {took}: {}", report.reason)
            }
            Outcome::Failed => format!("{took}: {}", report.reason),
        };
        note(&format!("{:<10} {outcome:<8} {what}", report.section));
        self.awaiting();
    }

    fn awaiting(&self) {
        if let Some(section) = self.awaited.first().filter(|_| self.live) {
            let _ = write!(io::stderr(), "\r{section}...\x1b[K");
        }
    }

    pub(super) fn clear(&self) {
        if self.live {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(archive: &mut Vec<u8>, name: &str, content: &[u8]) {
        archive.extend(tar::head(name, content.len() as u64, 1).unwrap());
        archive.extend(content);
        let padding = tar::padding(content.len() as u64);
        archive.resize(archive.len() + padding, 0);
    }

    fn report(section: Section, outcome: Outcome, content: &[u8]) -> SectionReport {
        SectionReport {
            section,
            outcome,
            reason: "\u{1b}[31mwhy".to_owned(),
            duration_ms: 5,
            bytes: content.len() as u64,
            sha256: HEXLOWER.encode(digest(&SHA256, content).as_ref()),
        }
    }

    fn bundle(content: &[u8]) -> Vec<u8> {
        let sections = vec![
            report(Section::System, Outcome::Ok, b"{}"),
            report(Section::Journal, Outcome::Failed, b""),
        ];
        let manifest = Manifest {
            kind: "loopback-diagnostics".to_owned(),
            format: 1,
            host: "hst_0000000000000000000000000a".parse().unwrap(),
            host_name: "web".to_owned(),
            begun_at: model::Timestamp::default(),
            ended_at: model::Timestamp::default(),
            sections: sections.clone(),
        };
        let mut archive = Vec::new();
        file(&mut archive, "system.json", content);
        for report in &sections {
            let json = serde_json::to_vec(report).unwrap();
            file(&mut archive, &result_file(report.section), &json);
        }
        file(
            &mut archive,
            MANIFEST,
            &serde_json::to_vec(&manifest).unwrap(),
        );
        archive.extend(tar::END);
        archive
    }

    fn write(archive: &[u8], path: &Path, force: bool) -> Result<Manifest, Failure> {
        let mut progress = Progress::new(&[Section::System], false);
        to_file(archive, path, force, &mut progress)
    }

    #[test]
    fn a_whole_bundle_is_written_for_its_owner_only_and_over_nothing() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.tar");
        let archive = bundle(b"{}");
        let manifest = write(&archive, &path, false).unwrap();
        assert_eq!(manifest.sections.len(), 2);
        assert_eq!(fs::read(&path).unwrap(), archive);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "mine").unwrap();
        assert!(write(&archive, &path, false).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        write(&archive, &path, true).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_whole_bundle_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.tar");
        let whole = bundle(b"{}");
        let mut stranger = Vec::new();
        file(&mut stranger, "../../etc/passwd", b"x");
        let mut twice = Vec::new();
        file(&mut twice, "system.json", b"{}");
        file(&mut twice, "system.json", b"{}");
        let huge = tar::head("system.json", 1 << 32, 1).unwrap().to_vec();
        let without_manifest = tar::END.to_vec();
        for archive in [
            &whole[..whole.len() - 1],
            &whole[..700],
            &[],
            &bundle(b"{ }"),
            &stranger,
            &twice,
            &huge,
            &without_manifest,
            &[b'x'; 2048],
        ] {
            let error = write(archive, &path, false).unwrap_err();
            assert_eq!(error.exit_code(), 6, "{error}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }
}
