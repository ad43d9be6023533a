//! What `loopback-gateway` does besides serving: status, backup, restore.
//!
//! What was asked for goes to standard output, progress and remarks to standard error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::admin::{self, AdminError};
use crate::app::wall_clock;
use crate::args::Stream;
use crate::backup::format::{Reader, Summary};
use crate::backup::restore::{self, Choices};
use crate::backup::{BackupError, take};
use crate::http::admin::Status;

/// Said whenever a backup comes into being.
const WARNING: &str = "\
WARNING: this backup holds every secret of the deployment: its keys, its certificate
authority, everything by which hosts and people are trusted. It is not encrypted. Whoever
reads it can act as this gateway. Keep it like the keys themselves.";

/// Says how the gateway is.
pub fn status(state: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some(body) = admin::request(state, "GET", "/admin/v1/status")? else {
        anyhow::bail!("no gateway serves {}", state.display());
    };
    let status: Status = serde_json::from_reader(body.take(64 * 1024))?;
    writeln!(out, "version      {}", status.version)?;
    writeln!(out, "url          {}", status.public_url)?;
    writeln!(out, "deployment   {}", status.deployment)?;
    writeln!(
        out,
        "owner        {}",
        if status.claimed { "yes" } else { "not yet" }
    )?;
    writeln!(out, "up           {} s", status.uptime_seconds)?;
    writeln!(
        out,
        "hosts        {}, {} connected",
        status.hosts, status.linked
    )?;
    writeln!(
        out,
        "automation   {}",
        if status.frozen { "frozen" } else { "active" }
    )?;
    writeln!(out, "revision     {}", status.revision)?;
    if let Some(at) = status.restored_at {
        writeln!(out, "restored     {at}, incarnation {}", status.incarnation)?;
    }
    Ok(())
}

/// Makes a backup: by the gateway that runs, or of a state that nobody serves.
pub fn backup(state: &Path, file: &Stream, notes: &mut dyn Write) -> Result<(), BackupError> {
    let answer =
        admin::request(state, "POST", "/admin/v1/backup").map_err(|error| match error {
            AdminError::Refused(detail) => BackupError::Refused(detail),
            other => BackupError::Refused(model::error_chain(&other).to_string()),
        })?;
    let began = Instant::now();
    let summary = match file {
        Stream::Standard if io::stdout().is_terminal() => {
            let detail = "standard output is a terminal; send it to a file or a program";
            return Err(BackupError::Refused(detail.to_owned()));
        }
        Stream::Standard => write_backup(state, answer, io::stdout().lock())?.1,
        Stream::File(path) => {
            let target = PrivateFile::begin(path)?;
            let (file, summary) = write_backup(state, answer, &target.file)?;
            file.sync_all().map_err(BackupError::io("sync", path))?;
            target.finish()?;
            summary
        }
    };
    let _ = writeln!(notes, "{WARNING}");
    let _ = describe(&summary, Some(began.elapsed()), notes);
    Ok(())
}

/// Writes the backup to `sink`, and reads it on the way.
fn write_backup<W: Write>(
    state: &Path,
    answer: Option<impl Read>,
    sink: W,
) -> Result<(W, Summary), BackupError> {
    match answer {
        Some(answer) => {
            let mut tee = Tee::new(answer, sink);
            let summary = Reader::new(&mut tee).and_then(Reader::finish);
            let summary = summary.map_err(|error| match error {
                BackupError::Truncated { .. } => {
                    BackupError::Refused("it broke off in the middle; its log says why".to_owned())
                }
                other => other,
            })?;
            Ok((tee.finish()?, summary))
        }
        None => {
            let taken = take::of_stopped(state, wall_clock())?;
            // Two threads and a pipe: the reader sees the very bytes that are written.
            let (from, to) = io::pipe().map_err(BackupError::io("make a pipe for", state))?;
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    let sink = io::BufWriter::with_capacity(1 << 18, to);
                    // Dropped here: the reader waits for the pipe's end.
                    taken.write(sink).map(drop)
                });
                let mut tee = Tee::new(from, sink);
                let read = Reader::new(&mut tee).and_then(Reader::finish);
                // Closes the pipe, so that a writer cannot wait for a reader that gave up.
                let sink = tee.finish();
                match writer.join() {
                    Ok(Ok(())) => Ok((sink?, read?)),
                    // What the disk says comes before what that did to the pipe.
                    Ok(Err(written)) => match read {
                        Err(BackupError::Truncated { .. }) | Ok(_) => Err(written),
                        Err(read) => Err(read),
                    },
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            })
        }
    }
}

/// Looks whether a backup is whole.
pub fn verify(file: &Stream, out: &mut dyn Write) -> Result<(), BackupError> {
    let reader = Reader::new(open(file)?)?;
    let summary = reader.finish()?;
    let _ = describe(&summary, None, out);
    Ok(())
}

/// Restores a backup.
pub fn restore(
    file: &Stream,
    state: &Path,
    choices: Choices,
    out: &mut dyn Write,
) -> Result<(), BackupError> {
    let restored = restore::restore(open(file)?, state, choices, SystemTime::now())?;
    let _ = describe(&restored.backup, None, out);
    let _ = writeln!(out, "restored into {}", state.display());
    let _ = writeln!(out, "  incarnation  {}", restored.incarnation);
    let _ = if choices.revoke_tokens {
        writeln!(out, "  agent tokens {} revoked", restored.revoked_tokens)
    } else {
        writeln!(
            out,
            "  agent tokens {} can be used; revoke again what was revoked after the backup, or \
             restore with --revoke-tokens",
            restored.live_tokens
        )
    };
    let _ = writeln!(
        out,
        "What was changed after the backup is lost: API keys made or revoked, hosts retired.\n\
         Make sure that no other gateway runs on this state, then start this one."
    );
    Ok(())
}

fn open(file: &Stream) -> Result<Box<dyn Read>, BackupError> {
    Ok(match file {
        Stream::Standard => Box::new(io::stdin().lock()),
        Stream::File(path) => {
            let file = File::open(path).map_err(BackupError::io("open", path))?;
            Box::new(io::BufReader::with_capacity(1 << 20, file))
        }
    })
}

fn describe(summary: &Summary, took: Option<Duration>, out: &mut dyn Write) -> io::Result<()> {
    let head = &summary.head;
    let running = if head.running { "running" } else { "stopped" };
    writeln!(out, "backup of {} ({running})", head.deployment)?;
    writeln!(
        out,
        "  made         {} by release {}",
        head.made_at, head.product
    )?;
    writeln!(
        out,
        "  store        format {}, revision {}, {} entries",
        head.store_format, head.revision, summary.entries
    )?;
    for part in &summary.parts {
        let (name, bytes) = (&part.name, part.bytes);
        writeln!(out, "  {name:<12} {bytes} bytes, sha256 {}", part.sha256)?;
    }
    writeln!(out, "  objects      {}", summary.objects)?;
    write!(out, "  whole        {} bytes, complete", summary.file_bytes)?;
    match took {
        Some(took) => writeln!(out, ", in {:.1} s", took.as_secs_f64()),
        None => writeln!(out),
    }
}

/// A file that appears whole or not at all, and was never open to others.
struct PrivateFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl PrivateFile {
    fn begin(path: &Path) -> Result<Self, BackupError> {
        let exists = || BackupError::Exists {
            path: path.to_owned(),
        };
        if path.symlink_metadata().is_ok() {
            return Err(exists());
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(BackupError::io("make", &temporary))?;
        Ok(Self {
            path: path.to_owned(),
            temporary,
            file,
        })
    }

    fn finish(self) -> Result<(), BackupError> {
        // A link, unlike a rename, replaces nothing.
        match fs::hard_link(&self.temporary, &self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(BackupError::Exists {
                    path: self.path.clone(),
                });
            }
            // A file system without links.
            Err(_) => fs::rename(&self.temporary, &self.path)
                .map_err(BackupError::io("put in place", &self.path))?,
        }
        let _ = fs::remove_file(&self.temporary);
        let folder = self
            .path
            .parent()
            .filter(|path| !path.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(BackupError::io("sync", folder))
    }
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        // Whatever was written and not finished is no backup.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Reads from one side, writes what it reads to the other, and tells a person how far
/// it is.
struct Tee<R, W> {
    from: R,
    to: W,
    failed: Option<io::Error>,
    bytes: u64,
    told: Instant,
}

impl<R: Read, W: Write> Tee<R, W> {
    fn new(from: R, to: W) -> Self {
        Self {
            from,
            to,
            failed: None,
            bytes: 0,
            told: Instant::now(),
        }
    }

    fn finish(mut self) -> Result<W, BackupError> {
        let flushed = self.to.flush();
        let stream = |source| BackupError::Stream {
            action: "write",
            source,
        };
        if let Some(failed) = self.failed {
            return Err(stream(failed));
        }
        flushed.map_err(stream)?;
        Ok(self.to)
    }

    #[expect(clippy::print_stderr, reason = "somebody waits for this")]
    fn tell(&mut self) {
        if self.told.elapsed() >= Duration::from_secs(1) && io::stderr().is_terminal() {
            self.told = Instant::now();
            eprint!("\r{} MiB ", self.bytes >> 20);
        }
    }
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        if let Err(error) = self.to.write_all(&buffer[..length]) {
            let again = io::Error::from(error.kind());
            self.failed = Some(error);
            return Err(again);
        }
        self.bytes += length as u64;
        self.tell();
        Ok(length)
    }
}
