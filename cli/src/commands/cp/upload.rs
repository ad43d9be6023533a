//! To a host.
//!
//! The digest of the whole goes first, and the host gives the copy its name only when what
//! it holds has it. Standard input has to be read to its end for that, into a file of no
//! name.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use api::v1::file::{FileInfo, FileUpload, GetFileUpload, UploadQuestion, WriteFile};
use model::file::{FileMode, Sha256};
use ring::digest;
use rustix::fs::{Mode, OFlags};

use super::progress::Progress;
use super::{Attempts, Cp, End, There, directory, path_of};
use crate::app::App;
use crate::failure::Failure;
use crate::output::{Format, bytes_text, note};

pub(super) fn run(
    app: &mut App,
    command: &Cp,
    host: &str,
    path: &str,
    from: End,
) -> Result<(), Failure> {
    let mut source = Source::open(&from)?;
    // As `cp` has it: into a directory under the file's own name.
    let path = match (path.strip_suffix('/'), &source.name) {
        (Some(folder), Some(name)) => path_of(&format!("{folder}/{name}"))?,
        _ => path_of(path)?,
    };
    let there = There::find(app, command, host, path)?;
    let info = send(command, &there, &mut source)?;
    if app.out.format() == Format::Json {
        return app.out.json(&info);
    }
    note(&format!("{}: {} copied", there.name, bytes_text(info.size)));
    Ok(())
}

fn send(command: &Cp, there: &There, source: &mut Source) -> Result<FileInfo, Failure> {
    let (path, sha256, size) = (there.path.clone(), source.sha256, source.size);
    let question = UploadQuestion {
        path: path.clone(),
        sha256,
        size,
    };
    let mut upload = FileUpload {
        path,
        sha256,
        size: Some(size),
        from: None,
        mode: command.mode.or(source.mode),
        special: command.special,
        owner: command.owner.clone(),
        overwrite: command.force,
        make_parents: command.parents,
    };
    let mut attempts = Attempts::default();
    let mut progress = Progress::of(&there.name, size);
    let mut before = 0;
    let mut fresh = command.no_resume;
    loop {
        let held = if fresh {
            0
        } else {
            match there
                .client
                .fetch_slowly::<GetFileUpload>(&there.at, &question)
            {
                Ok(state) => state.held.min(size),
                Err(error) => {
                    attempts.again(error)?;
                    continue;
                }
            }
        };
        fresh = false;
        if held > before {
            attempts.progressed();
        }
        before = held;
        upload.from = Some(held);
        source
            .file
            .seek(SeekFrom::Start(held))
            .map_err(source_error)?;
        let mut content = Watched {
            inner: (&mut source.file).take(size - held),
            at: held,
            progress: &mut progress,
        };
        let sent =
            there
                .client
                .send_content::<WriteFile>(&there.at, &upload, &mut content, size - held);
        match sent {
            Ok(info) => return Ok(info),
            Err(error) => attempts.again(error)?,
        }
    }
}

fn source_error(source: io::Error) -> Failure {
    Failure::File {
        verb: "read",
        path: "the file to copy".into(),
        source,
    }
}

/// What is copied.
struct Source {
    file: File,
    name: Option<String>,
    size: u64,
    sha256: Sha256,
    mode: Option<FileMode>,
}

impl Source {
    fn open(from: &End) -> Result<Self, Failure> {
        let End::Here(path) = from else {
            return Self::of(spool(&mut io::stdin().lock())?, None, None);
        };
        let failed = |source| Failure::File {
            verb: "read",
            path: path.clone(),
            source,
        };
        let mut file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if about.is_dir() {
            return Err(directory(&path.display().to_string()));
        }
        let name = path.file_name().map(|it| it.to_string_lossy().into_owned());
        if !about.is_file() {
            return Self::of(spool(&mut file)?, name, None);
        }
        let mode = FileMode::of(about.permissions().mode() & 0o777);
        Self::of(file, name, Some(mode))
    }

    fn of(mut file: File, name: Option<String>, mode: Option<FileMode>) -> Result<Self, Failure> {
        let mut digest = digest::Context::new(&digest::SHA256);
        let mut size = 0;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = file.read(&mut buffer).map_err(source_error)?;
            if count == 0 {
                break;
            }
            digest.update(&buffer[..count]);
            size += count as u64;
        }
        let sha256 = Sha256::try_from(digest.finish().as_ref())
            .map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(Self {
            file,
            name,
            size,
            sha256,
            mode,
        })
    }
}

/// Reads to the end into a file that nobody can find.
fn spool(from: &mut dyn Read) -> Result<File, Failure> {
    let folder = std::env::temp_dir();
    let failed = |source| Failure::File {
        verb: "keep the input in",
        path: folder.clone(),
        source,
    };
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let opened = rustix::fs::open(Path::new(&folder), flags, Mode::RUSR | Mode::WUSR);
    let mut file = File::from(opened.map_err(|error| failed(error.into()))?);
    io::copy(from, &mut file).map_err(failed)?;
    file.flush().map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(file)
}

/// Tells how far it is while it is read.
struct Watched<'a, R> {
    inner: R,
    at: u64,
    progress: &'a mut Progress,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.at += count as u64;
        self.progress.at(self.at);
        Ok(count)
    }
}
