//! A release as a folder: written whole or not at all, read only when
//! everything in it holds.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};

use crate::key::{PublicKey, SigningKey};
use crate::manifest::{Channel, FileEntry, InvalidManifest, MANIFEST_FORMAT, Manifest};
use crate::verify::{
    Expect, FileError, VerifyError, sign_manifest, verify_file, verify_file_at, verify_manifest,
};

/// The manifest's name in the folder and in URLs.
pub const MANIFEST_NAME: &str = "manifest.json";
/// The signature's name in the folder and in URLs.
pub const SIGNATURE_NAME: &str = "manifest.json.sig";

/// Why a release folder could not be written or is not to be used.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The manifest or its signature does not hold.
    #[error("verify {path}")]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What does not hold.
        source: VerifyError,
    },
    /// A binary does not hold.
    #[error("verify the files of {dir}")]
    File {
        /// The folder.
        dir: PathBuf,
        /// What does not hold.
        source: FileError,
    },
    /// The draft would make an invalid manifest.
    #[error("the draft of the release breaks a rule")]
    Draft(#[source] InvalidManifest),
    /// There is something already.
    #[error("{path} exists already: a release is written once and never changed")]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("{verb} {path}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
}

/// What is to become a release.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Who it is for.
    pub channel: Channel,
    /// For people.
    pub version: String,
    /// For machines; higher than every earlier release's.
    pub number: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When hosts stop accepting it.
    pub expires: Timestamp,
    /// The binaries, wherever they were built.
    pub files: Vec<DraftFile>,
}

/// A built binary and the platform it is for.
#[derive(Clone, Debug)]
pub struct DraftFile {
    /// `linux`.
    pub os: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// Where the build left it.
    pub source: PathBuf,
}

/// A folder in which everything held when it was loaded.
#[derive(Clone, Debug)]
pub struct Release {
    dir: PathBuf,
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    signature: String,
}

impl Release {
    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The exact bytes that were signed: serve these, never a re-serialisation.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// The content of the signature file.
    pub fn signature(&self) -> &str {
        &self.signature
    }

    /// Where a binary lies.
    pub fn path(&self, file: &FileEntry) -> PathBuf {
        self.dir.join(&file.name)
    }

    /// Reads the binary for a platform and checks it again: the disk may have
    /// changed since the folder was loaded.
    pub fn read(&self, os: &str, arch: &str) -> Result<Vec<u8>, ReleaseError> {
        let bytes = match self.manifest.file(os, arch) {
            None => Vec::new(), // verify_file says that it is not listed.
            Some(file) => read_bounded(&self.path(file), file.size)?,
        };
        verify_file(&self.manifest, os, arch, &bytes).map_err(|source| ReleaseError::File {
            dir: self.dir.clone(),
            source,
        })?;
        Ok(bytes)
    }
}

/// Copies the binaries, writes and signs the manifest. The folder appears under
/// its name only when it is complete and has been read back and verified.
pub fn write_release(dir: &Path, draft: &Draft, key: &SigningKey) -> Result<Release, ReleaseError> {
    if dir.symlink_metadata().is_ok() {
        return Err(ReleaseError::Exists {
            path: dir.to_owned(),
        });
    }
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let staging = dir.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = write_staging(&staging, draft, key)
        .and_then(|()| fs::rename(&staging, dir).map_err(|source| io_error("name", dir, source)));
    if let Err(error) = written {
        // Best effort: the error that counts is the first one.
        let _ = fs::remove_dir_all(&staging);
        return Err(error);
    }
    load_release(dir, std::slice::from_ref(key.public()), expect_of(draft))
}

/// Reads a folder and verifies everything in it: signature, rules, expiry,
/// number, channel, and the size and digest of every binary. Files the manifest
/// does not list are ignored and never reach anybody.
pub fn load_release(
    dir: &Path,
    trusted: &[PublicKey],
    expect: Expect,
) -> Result<Release, ReleaseError> {
    let path = dir.join(MANIFEST_NAME);
    let manifest_bytes = read_bounded(&path, 1 << 20)?;
    let signature_path = dir.join(SIGNATURE_NAME);
    let signature = String::from_utf8(read_bounded(&signature_path, 1 << 10)?).map_err(|e| {
        io_error(
            "read",
            &signature_path,
            io::Error::new(io::ErrorKind::InvalidData, e),
        )
    })?;
    let manifest = verify_manifest(&manifest_bytes, &signature, trusted, expect)
        .map_err(|source| ReleaseError::Manifest { path, source })?;
    for file in &manifest.files {
        verify_file_at(&manifest, &file.os, &file.arch, &dir.join(&file.name)).map_err(
            |source| ReleaseError::File {
                dir: dir.to_owned(),
                source,
            },
        )?;
    }
    Ok(Release {
        dir: dir.to_owned(),
        manifest,
        manifest_bytes,
        signature,
    })
}

fn write_staging(staging: &Path, draft: &Draft, key: &SigningKey) -> Result<(), ReleaseError> {
    fs::create_dir(staging).map_err(|e| io_error("create", staging, e))?;
    let mut files = Vec::new();
    for file in &draft.files {
        let bytes = fs::read(&file.source).map_err(|e| io_error("read", &file.source, e))?;
        files.push((
            FileEntry {
                os: file.os.clone(),
                arch: file.arch.clone(),
                name: format!("loopback-agent-{}-{}", file.os, file.arch),
                size: bytes.len() as u64,
                sha256: HEXLOWER.encode(digest(&SHA256, &bytes).as_ref()),
            },
            bytes,
        ));
    }
    let manifest = Manifest {
        format: MANIFEST_FORMAT.to_owned(),
        channel: draft.channel,
        version: draft.version.clone(),
        number: draft.number,
        created: draft.created,
        expires: draft.expires,
        files: files.iter().map(|(entry, _)| entry.clone()).collect(),
    };
    // Before any name from the draft becomes a path.
    manifest.validate().map_err(ReleaseError::Draft)?;

    let bytes = manifest.to_bytes();
    write(
        &staging.join(SIGNATURE_NAME),
        sign_manifest(&bytes, key).as_bytes(),
        0o644,
    )?;
    write(&staging.join(MANIFEST_NAME), &bytes, 0o644)?;
    for (entry, bytes) in &files {
        write(&staging.join(&entry.name), bytes, 0o755)?;
    }
    load_release(
        staging,
        std::slice::from_ref(key.public()),
        expect_of(draft),
    )
    .map(|_| ())
}

/// What the writer checks its own work against: its own clock is the draft's.
fn expect_of(draft: &Draft) -> Expect {
    Expect {
        now: draft.created,
        min_number: draft.number,
        channel: Some(draft.channel),
    }
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), ReleaseError> {
    let wrote = fs::write(path, bytes)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::File::open(path)?.sync_all());
    wrote.map_err(|source| io_error("write", path, source))
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, ReleaseError> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|source| io_error("read", path, source))?;
    Ok(bytes)
}

fn io_error(verb: &'static str, path: &Path, source: io::Error) -> ReleaseError {
    ReleaseError::Io {
        verb,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
