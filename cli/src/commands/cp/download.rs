//! From a host.
//!
//! What comes lies in `.NAME.VERSION.part` beside its final name, where `VERSION` is what
//! the host calls this state of the file: an earlier copy of the same state is gone on
//! with, and none of another ever is. At the end the host makes a digest of its file, of
//! the same version still, and ours must be equal.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use api::v1::file::{FileAt, FileInfo, FileQuestion, GetFile, ReadFile};
use data_encoding::HEXLOWER;
use model::file::HostPath;
use ring::digest;
use rustix::fs::{OFlags, RenameFlags};

use super::progress::Progress;
use super::{Attempts, Cp, End, There, directory};
use crate::app::App;
use crate::client::ClientError;
use crate::failure::Failure;
use crate::output::{Format, bytes_text, note};

/// Times that a file may change before it is called restless.
const CHANGES: u32 = 3;

pub(super) fn run(
    app: &mut App,
    command: &Cp,
    host: &str,
    path: HostPath,
    to: End,
) -> Result<(), Failure> {
    let there = There::find(app, command, host, path)?;
    let mut changes = 0;
    let info = loop {
        let info: FileInfo = there
            .client
            .fetch_slowly::<GetFile>(&there.at, &question(&there, false))?;
        if info.directory {
            return Err(directory(&there.name));
        }
        let done = match &to {
            End::Here(place) => to_file(command, &there, &info, place),
            _ => to_output(&there, &info),
        };
        match done {
            // On standard output there is no way back.
            Err(Failure::Changed(_)) if matches!(to, End::Here(_)) && changes < CHANGES => {
                changes += 1;
            }
            done => break done?,
        }
    };
    match (app.out.format(), &to) {
        (Format::Json, End::Here(_)) => app.out.json(&info),
        _ => {
            note(&format!("{}: {} copied", there.name, bytes_text(info.size)));
            Ok(())
        }
    }
}

fn question(there: &There, digest: bool) -> FileQuestion {
    FileQuestion {
        path: there.path.clone(),
        digest,
    }
}

fn to_output(there: &There, info: &FileInfo) -> Result<FileInfo, Failure> {
    let mut out = io::stdout().lock();
    let mut state = State::new();
    fetch(there, info, &mut out, &mut state)?;
    out.flush().map_err(Failure::Output)?;
    verify(there, info, state)
}

fn to_file(command: &Cp, there: &There, info: &FileInfo, to: &Path) -> Result<FileInfo, Failure> {
    let place = place(there, to)?;
    if !command.force && place.symlink_metadata().is_ok() {
        return Err(Failure::Exists(place));
    }
    let part = part(&place, &info.version);
    let failed = |verb| {
        let path = part.clone();
        move |source| Failure::File { verb, path, source }
    };
    let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(command.no_resume)
        .mode(0o600)
        .custom_flags(no_follow)
        .open(&part)
        .map_err(failed("open"))?;
    let mut state = State::new();
    state.take(&mut file, info.size).map_err(failed("read"))?;
    file.set_len(state.at).map_err(failed("cut"))?;
    file.seek(SeekFrom::Start(state.at))
        .map_err(failed("read"))?;
    let remove = |failure: Failure| {
        if matches!(failure, Failure::Changed(_) | Failure::Differs(_)) {
            // Nobody can go on with it.
            let _ = fs::remove_file(&part);
        }
        failure
    };
    fetch(there, info, &mut file, &mut state).map_err(|failure| match failure {
        Failure::Output(source) => failed("write")(source),
        failure => remove(failure),
    })?;
    let info = verify(there, info, state).map_err(remove)?;
    let mode = command.mode.map_or(0o600, |mode| mode.bits());
    file.set_permissions(fs::Permissions::from_mode(mode))
        .and_then(|()| file.sync_all())
        .map_err(failed("sync"))?;
    publish(&part, &place, command.force)?;
    Ok(info)
}

/// Where the copy goes: into a folder under the file's own name.
fn place(there: &There, to: &Path) -> Result<PathBuf, Failure> {
    if !to.is_dir() {
        return Ok(to.to_owned());
    }
    match there.path.name() {
        Some(name) => Ok(to.join(name)),
        None => Err(directory(&there.name)),
    }
}

fn part(place: &Path, version: &str) -> PathBuf {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    // What a gateway calls a version becomes part of a name here.
    let version: String = version
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(32)
        .collect();
    place.with_file_name(format!(".{name}.{version}.part"))
}

fn publish(part: &Path, place: &Path, force: bool) -> Result<(), Failure> {
    let flags = if force {
        RenameFlags::empty()
    } else {
        RenameFlags::NOREPLACE
    };
    let here = rustix::fs::CWD;
    match rustix::fs::renameat_with(here, part, here, place, flags) {
        Err(rustix::io::Errno::EXIST) => Err(Failure::Exists(place.to_owned())),
        renamed => renamed.map_err(|error| Failure::File {
            verb: "give its name to",
            path: place.to_owned(),
            source: error.into(),
        }),
    }
}

/// What is there, and its digest so far.
struct State {
    at: u64,
    digest: digest::Context,
}

impl State {
    fn new() -> Self {
        Self {
            at: 0,
            digest: digest::Context::new(&digest::SHA256),
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.at += bytes.len() as u64;
    }

    /// What an earlier copy has left.
    fn take(&mut self, file: &mut File, most: u64) -> io::Result<()> {
        let mut buffer = vec![0; 256 << 10];
        let mut left = file.take(most);
        loop {
            let count = left.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.add(&buffer[..count]);
        }
    }
}

/// Brings the rest, over as many connections as it takes.
fn fetch(
    there: &There,
    info: &FileInfo,
    out: &mut dyn Write,
    state: &mut State,
) -> Result<(), Failure> {
    let mut attempts = Attempts::default();
    let mut progress = Progress::of(&there.name, info.size);
    let query = FileAt {
        path: there.path.clone(),
    };
    let mut buffer = vec![0; 256 << 10];
    while state.at < info.size {
        let content =
            there
                .client
                .fetch_content::<ReadFile>(&there.at, &query, state.at, &info.version);
        let mut content = match content {
            Ok(content) => content,
            Err(error) => {
                attempts.again(error)?;
                continue;
            }
        };
        if content.version != info.version || content.partial != (state.at > 0) {
            return Err(Failure::Changed(there.name.clone()));
        }
        while state.at < info.size {
            match content.body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    let room = usize::try_from(info.size - state.at).unwrap_or(usize::MAX);
                    let bytes = &buffer[..count.min(room)];
                    out.write_all(bytes).map_err(Failure::Output)?;
                    state.add(bytes);
                    attempts.progressed();
                    progress.at(state.at);
                }
                Err(source) => {
                    attempts.again(cut(there, source))?;
                    break;
                }
            }
        }
        if state.at < info.size {
            attempts.again(cut(there, io::ErrorKind::UnexpectedEof.into()))?;
        }
    }
    Ok(())
}

fn cut(there: &There, source: io::Error) -> ClientError {
    ClientError::Cut {
        url: there.name.clone(),
        source,
    }
}

fn verify(there: &There, info: &FileInfo, state: State) -> Result<FileInfo, Failure> {
    let now: FileInfo = there
        .client
        .fetch_slowly::<GetFile>(&there.at, &question(there, true))?;
    if now.version != info.version {
        return Err(Failure::Changed(there.name.clone()));
    }
    let ours = HEXLOWER.encode(state.digest.finish().as_ref());
    if now.sha256.map(|it| it.to_string()) == Some(ours) {
        Ok(now)
    } else {
        Err(Failure::Differs(there.name.clone()))
    }
}
