//! What a file is, and its content on the way out.
//!
//! The descriptor is looked at before the first byte and after the last. If it says
//! something else at the end, what was sent is a mixture that never was, and the answer is
//! `Changed` instead of a digest. That includes files that grow: to fetch the end of a log
//! there are commands.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use protocol::v1::{
    FileData, FileEnd, FileMeta, FileRead, FileRefusal, FileStat, MAX_FILE_DATA, file_reply,
};
use ring::digest;
use rustix::fs::{FileType, Stat};

use super::Talk;
use super::place::{Place, open_for_reading};
use super::refusal::{Answer, Refusal, to};

/// Says what lies at a place.
pub(super) fn stat(place: &Place, asked: FileStat, most: u64, talk: &Talk) -> Result<(), Answer> {
    let (found, stat) = place.peek()?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if !is_directory {
        must_be_file(&stat)?;
    }
    let mut meta = meta(&stat);
    meta.is_directory = is_directory;
    talk.tell(file_reply::Body::Meta(meta))?;
    if asked.digest && !is_directory {
        must_fit(&stat, most)?;
        let file = open_for_reading(&found)?;
        let mut digest = digest::Context::new(&digest::SHA256);
        pass(&file, 0, size(&stat), &mut digest, talk, |_| Ok(()))?;
        must_be_same(&file, &stat)?;
        talk.tell(end(digest))?;
    }
    Ok(())
}

/// Sends a file.
pub(super) fn send(place: &Place, asked: &FileRead, most: u64, talk: &Talk) -> Result<(), Answer> {
    let (found, stat) = place.peek()?;
    must_be_file(&stat)?;
    must_fit(&stat, most)?;
    let file = open_for_reading(&found)?;
    let mut meta = meta(&stat);
    let same = asked.version.is_empty() || asked.version == meta.version;
    (meta.offset, meta.length) = if same {
        let offset = asked.offset.min(meta.size);
        let rest = meta.size - offset;
        (offset, asked.length.map_or(rest, |length| length.min(rest)))
    } else {
        (0, meta.size)
    };
    let (offset, length) = (meta.offset, meta.length);
    talk.tell(file_reply::Body::Meta(meta))?;
    let mut digest = digest::Context::new(&digest::SHA256);
    pass(&file, offset, length, &mut digest, talk, |bytes| {
        let bytes = bytes.to_vec();
        talk.tell(file_reply::Body::Data(FileData { bytes }))
    })?;
    must_be_same(&file, &stat)?;
    talk.tell(end(digest))
}

/// Reads `length` bytes from `offset` through `digest` and `each`.
pub(super) fn pass(
    file: &File,
    mut offset: u64,
    length: u64,
    digest: &mut digest::Context,
    talk: &Talk,
    mut each: impl FnMut(&[u8]) -> Result<(), Answer>,
) -> Result<(), Answer> {
    let mut buffer = vec![0; MAX_FILE_DATA];
    let end = offset.saturating_add(length);
    let mut said = Instant::now();
    while offset < end {
        let room = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let room = room.min(buffer.len());
        let count = file
            .read_at(&mut buffer[..room], offset)
            .map_err(to("read the file"))?;
        if count == 0 {
            return Err(changed().into());
        }
        digest.update(&buffer[..count]);
        each(&buffer[..count])?;
        offset += count as u64;
        talk.working(&mut said)?;
    }
    Ok(())
}

/// What is said of a file.
pub(super) fn meta(stat: &Stat) -> FileMeta {
    FileMeta {
        size: size(stat),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified_at_ms: wide(stat.st_mtime)
            .saturating_mul(1000)
            .saturating_add(wide(stat.st_mtime_nsec) / 1_000_000),
        version: version(stat),
        ..FileMeta::default()
    }
}

/// The last frame.
pub(super) fn end(digest: digest::Context) -> file_reply::Body {
    file_reply::Body::End(FileEnd {
        sha256: digest.finish().as_ref().to_vec(),
    })
}

/// Another one when the file is another or was changed. The time of change is in it, which
/// nobody can set back.
fn version(stat: &Stat) -> Vec<u8> {
    let mut digest = digest::Context::new(&digest::SHA256);
    let parts = [
        i128::from(stat.st_dev),
        i128::from(stat.st_ino),
        i128::from(stat.st_size),
        i128::from(wide(stat.st_mtime)),
        i128::from(wide(stat.st_mtime_nsec)),
        i128::from(wide(stat.st_ctime)),
        i128::from(wide(stat.st_ctime_nsec)),
    ];
    for part in parts {
        digest.update(&part.to_be_bytes());
    }
    digest.finish().as_ref()[..16].to_vec()
}

fn must_be_file(stat: &Stat) -> Result<(), Refusal> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(Refusal::new(FileRefusal::IsDirectory, "it is a directory")),
        _ => Err(Refusal::new(
            FileRefusal::NotAFile,
            "it is a device, a pipe or a socket and no file",
        )),
    }
}

fn must_fit(stat: &Stat, most: u64) -> Result<(), Refusal> {
    if size(stat) <= most {
        return Ok(());
    }
    let why = format!("it has {} bytes, and {most} may travel", size(stat));
    Err(Refusal::new(FileRefusal::TooLarge, why))
}

fn must_be_same(file: &File, before: &Stat) -> Result<(), Refusal> {
    let now = rustix::fs::fstat(file).map_err(to("look at the file"))?;
    if version(&now) == version(before) {
        Ok(())
    } else {
        Err(changed())
    }
}

fn changed() -> Refusal {
    Refusal::new(
        FileRefusal::Changed,
        "the file changed while it was being read; try again when it is at rest",
    )
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Times have other widths on other architectures.
fn wide<T: TryInto<i64>>(value: T) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
