//! A file on its way in.
//!
//! ```text
//! look at the target ─► note the transfer ─► open and lock the part ─► digest what it holds
//!   ─► Held ─► bytes ─► digest right? ─► owner, mode, sync ─► rename ─► sync the directory
//! ```
//!
//! Nothing has the final name before all of it is there, verified and on the disk. A stream
//! that ends early leaves the part; wrong bytes and a full disk do not, because nobody
//! could go on with them.
//!
//! The directory may belong to somebody hostile. The part's name can be known, so a part is
//! only gone on with when it is a file of our own, with one name, that nobody else may
//! open; else a link there would be written through. What is locked must still be what
//! has the name, since another writer may have finished it in between.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use model::file::{FileMode, HostPath};
use protocol::v1::{FileHeld, FileRefusal, FileWrite, file_reply};
use ring::digest;
use rustix::fs::{AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags, Stat, Uid};
use rustix::io::Errno;

use super::parts::{self, Transfer};
use super::place::{Place, Spot, sync_directory};
use super::read::{meta, pass};
use super::refusal::{Answer, Refusal, to};
use super::{Settings, Talk, owner};

/// A writer whose link was cut is about to notice and let go.
const LOCK_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Says how much of a transfer is there.
pub(super) fn held(place: &Place, transfer: &[u8], talk: &Talk) -> Result<(), Answer> {
    let transfer = Transfer::of(transfer)?;
    let bytes = match place.spot(false) {
        Ok(spot) => {
            let part = spot.look(&transfer.part())?.filter(is_ours);
            part.map_or(0, |part| u64::try_from(part.st_size).unwrap_or(0))
        }
        // A directory that is made with the upload.
        Err(refusal) if refusal.code == FileRefusal::NotFound => 0,
        Err(refusal) => return Err(refusal.into()),
    };
    talk.tell(file_reply::Body::Held(FileHeld { bytes }))
}

/// Takes a file.
pub(super) fn take(
    place: &Place,
    path: &HostPath,
    asked: &FileWrite,
    most: u64,
    settings: &Settings,
    talk: &mut Talk,
) -> Result<(), Answer> {
    let transfer = Transfer::of(&asked.transfer)?;
    check(asked, most)?;
    let owner = owner::numbers(&asked.owner)?;
    let spot = place.spot(asked.make_parents)?;
    let replaced = target(&spot, asked.overwrite)?;
    must_have_room(&spot, &transfer, asked.size)?;
    parts::note(&settings.state_dir, &transfer, path)?;
    let part = Part::open(&spot, &transfer, &settings.state_dir)?;
    let digest = receive(&part, asked, talk)?;
    if digest.as_ref() != asked.sha256 {
        part.discard();
        let why = "what came has another SHA-256 than was announced; nothing was written";
        return Err(Refusal::new(FileRefusal::Digest, why).into());
    }
    let uid = owner
        .uid
        .or(replaced.as_ref().map(|it| Uid::from_raw(it.st_uid)));
    let gid = owner
        .gid
        .or(replaced.as_ref().map(|it| Gid::from_raw(it.st_gid)));
    // Special bits of what is replaced were for another content.
    let mode = asked
        .mode
        .unwrap_or_else(|| replaced.as_ref().map_or(0o600, |it| it.st_mode & 0o777));
    // The owner first: changing it takes set-user-id bits away.
    rustix::fs::fchown(&part.file, uid, gid).map_err(to("set the owner"))?;
    rustix::fs::fchmod(&part.file, Mode::from_raw_mode(mode)).map_err(to("set the mode"))?;
    part.file.sync_all().map_err(|error| part.full(error))?;
    let stat = part.publish(asked.overwrite)?;
    talk.tell(file_reply::Body::Meta(meta(&stat)))?;
    let sha256 = digest.as_ref().to_vec();
    talk.tell(file_reply::Body::End(protocol::v1::FileEnd { sha256 }))
}

fn check(asked: &FileWrite, most: u64) -> Result<(), Refusal> {
    if asked.size > most {
        let why = format!("it has {} bytes, and {most} may travel", asked.size);
        return Err(Refusal::new(FileRefusal::TooLarge, why));
    }
    if asked.sha256.len() != 32 || asked.offset > asked.size {
        return Err(super::invalid("the upload is not described rightly"));
    }
    let Some(mode) = asked.mode else {
        return Ok(());
    };
    let known = FileMode::of(mode);
    if known.bits() != mode || known.is_special() && !asked.allow_special {
        return Err(super::invalid(
            "set-user-id, set-group-id and sticky bits are set only when that is said apart",
        ));
    }
    Ok(())
}

/// What will be replaced, if that may be.
fn target(spot: &Spot, overwrite: bool) -> Result<Option<Stat>, Refusal> {
    let Some(stat) = spot.look(&spot.name)? else {
        return Ok(None);
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if overwrite => Ok(Some(stat)),
        FileType::RegularFile => Err(exists()),
        FileType::Directory => Err(Refusal::new(
            FileRefusal::IsDirectory,
            "it is a directory; name the file in it",
        )),
        FileType::Symlink => Err(Refusal::new(
            FileRefusal::NotAFile,
            "it is a link; name what it points to",
        )),
        _ => Err(Refusal::new(
            FileRefusal::NotAFile,
            "it is a device, a pipe or a socket and no file",
        )),
    }
}

fn exists() -> Refusal {
    Refusal::new(
        FileRefusal::Exists,
        "there is a file of that name; say that it is to be replaced",
    )
}

fn must_have_room(spot: &Spot, transfer: &Transfer, size: u64) -> Result<(), Refusal> {
    // By the descriptor of the directory: the part is on the same file system.
    let room = rustix::fs::fstatvfs(&spot.directory).map_err(to("look at the disk"))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let part = spot.look(&transfer.part())?.filter(is_ours);
    let held = part.map_or(0, |part| u64::try_from(part.st_size).unwrap_or(0));
    if size.saturating_sub(held) <= free {
        return Ok(());
    }
    let why = format!("the host's disk has {free} bytes of room, and {size} are needed");
    Err(Refusal::new(FileRefusal::DiskFull, why))
}

/// Whether a file can be gone on with.
fn is_ours(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_nlink == 1
        && stat.st_uid == rustix::process::geteuid().as_raw()
        && stat.st_mode & 0o7077 == 0
}

/// The part of an upload, locked.
struct Part<'a> {
    file: File,
    name: String,
    spot: &'a Spot,
    transfer: &'a Transfer,
    state: &'a Path,
}

impl<'a> Part<'a> {
    fn open(spot: &'a Spot, transfer: &'a Transfer, state: &'a Path) -> Result<Self, Refusal> {
        let name = transfer.part();
        let began = Instant::now();
        loop {
            let opened = match spot.open_own(&name, OFlags::CREATE | OFlags::EXCL) {
                Err(Errno::EXIST) => spot.open_own(&name, OFlags::empty()),
                other => other,
            };
            let file = match opened {
                // It went away in between.
                Err(Errno::NOENT) if began.elapsed() < LOCK_WITHIN => continue,
                Err(Errno::LOOP | Errno::NXIO) => return Err(foreign()),
                other => other.map_err(to("open the part of the upload"))?,
            };
            let stat = rustix::fs::fstat(&file).map_err(to("look at the part"))?;
            // While another finishes it, it has its final mode, owner and name.
            let named = spot.look(&name)?.is_some_and(|it| is_same(&it, &stat));
            if named && !is_ours(&stat) && began.elapsed() >= LOCK_WITHIN {
                return Err(foreign());
            }
            let lock = FlockOperation::NonBlockingLockExclusive;
            let locked = named && is_ours(&stat) && rustix::fs::flock(&file, lock).is_ok();
            if locked && spot.look(&name)?.is_some_and(|it| is_same(&it, &stat)) {
                return Ok(Self {
                    file,
                    name,
                    spot,
                    transfer,
                    state,
                });
            }
            if began.elapsed() >= LOCK_WITHIN {
                let why = "this very upload is under way elsewhere";
                return Err(Refusal::new(FileRefusal::Busy, why));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Takes it away: nobody can go on with it.
    fn discard(&self) {
        if let Err(refusal) = parts::remove(self.spot, &self.name) {
            tracing::warn!(why = %refusal.message, "a part of an upload stays");
            return;
        }
        parts::forget(self.state, self.transfer);
    }

    /// What an error of writing means. A full disk is not kept full.
    fn full(&self, error: std::io::Error) -> Refusal {
        let refusal = Refusal::of("write the file", error);
        if refusal.code == FileRefusal::DiskFull || refusal.code == FileRefusal::TooLarge {
            self.discard();
        }
        refusal
    }

    /// Gives it its final name.
    fn publish(&self, overwrite: bool) -> Result<Stat, Refusal> {
        let directory = &self.spot.directory;
        let (from, name) = (&self.name, &self.spot.name);
        let flags = if overwrite {
            RenameFlags::empty()
        } else {
            RenameFlags::NOREPLACE
        };
        match rustix::fs::renameat_with(directory, from, directory, name, flags) {
            Ok(()) => {}
            // A file system that cannot: a second name, which replaces nothing either.
            Err(Errno::INVAL) if !overwrite => {
                rustix::fs::linkat(directory, from, directory, name, AtFlags::empty())
                    .map_err(|error| self.not_named(error))?;
                parts::remove(self.spot, from)?;
            }
            Err(error) => return Err(self.not_named(error)),
        }
        sync_directory(directory)?;
        parts::forget(self.state, self.transfer);
        let stat = rustix::fs::fstat(&self.file).map_err(to("look at the file"))?;
        match self.spot.look(name)? {
            Some(there) if is_same(&there, &stat) => Ok(stat),
            _ => Err(Refusal::new(
                FileRefusal::Changed,
                "somebody on the host replaced the file at once",
            )),
        }
    }

    fn not_named(&self, error: Errno) -> Refusal {
        // Whole and verified, and yet nobody will go on with it under this name.
        self.discard();
        match error {
            Errno::EXIST => exists(),
            error => to("give the file its name")(error),
        }
    }
}

fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

fn foreign() -> Refusal {
    Refusal::new(
        FileRefusal::Permission,
        "somebody else has put something in the place of the part of this upload",
    )
}

/// Brings the rest into the part, and answers with the digest of the whole.
fn receive(part: &Part<'_>, asked: &FileWrite, talk: &mut Talk) -> Result<digest::Digest, Answer> {
    let held = part.file.metadata().map_err(to("look at the part"))?.len();
    if held < asked.offset {
        let why = format!("{held} bytes of this upload are held; go on from there");
        return Err(Refusal::new(FileRefusal::Offset, why).into());
    }
    rustix::fs::ftruncate(&part.file, asked.offset).map_err(to("cut the part"))?;
    let mut digest = digest::Context::new(&digest::SHA256);
    pass(&part.file, 0, asked.offset, &mut digest, talk, |_| Ok(()))?;
    let mut at = asked.offset;
    talk.tell(file_reply::Body::Held(FileHeld { bytes: at }))?;
    while at < asked.size {
        let Some(bytes) = talk.next() else {
            // For whoever goes on with it, perhaps after the power was gone.
            let _ = part.file.sync_data();
            return Err(Answer::Gone);
        };
        if bytes.len() as u64 > asked.size - at {
            part.discard();
            return Err(super::invalid("more bytes came than were announced").into());
        }
        part.file
            .write_all_at(&bytes, at)
            .map_err(|error| part.full(error))?;
        digest.update(&bytes);
        at += bytes.len() as u64;
    }
    Ok(digest.finish())
}
