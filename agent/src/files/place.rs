//! From a path to descriptors, once.
//!
//! A path is opened beneath one of the host's roots, the innermost that holds it, by
//! `openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_MAGICLINKS`: the kernel itself refuses
//! every step that leads out, whoever swaps links meanwhile. Beneath `/` there is no
//! outside, and links with absolute targets are everywhere (`/etc/alternatives`), so there
//! it is `RESOLVE_IN_ROOT`, which follows them. A kernel without `openat2` (before 5.6, or
//! a filter that hides it) gets a walk from name to name, which follows no link at all.
//!
//! What is found is looked at before it is opened: the first descriptor is an `O_PATH`
//! one, which touches nothing. A FIFO is not waited for, a tape not rewound, a watchdog
//! not armed. Only a regular file on a file system of files is then opened, through its
//! descriptor, so that it is the very one that was looked at. That also keeps out what a
//! link into `/proc` or `/sys` names, whatever roots say.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use model::file::HostPath;
use protocol::v1::FileRefusal;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::refusal::{Refusal, to};

/// Times to try again when directories on the way are being renamed.
const RENAMED: usize = 128;

/// Directories of the machine itself, where files are none.
const MACHINERY: &[&str] = &["proc", "sys", "dev"];

/// Types of file systems whose files are the kernel's or somebody's program.
const NOT_FILES: &[u32] = &[
    0x0000_9fa0, // proc
    0x6265_6572, // sysfs
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0xcafe_4a11, // bpf
    0x6265_6570, // configfs
    0xde5e_81e4, // efivarfs
    0x6165_676c, // pstore
    0xf97c_ff8c, // selinuxfs
    0x4341_5d53, // smackfs
    0x0000_1cd1, // devpts
    0x4249_4e4d, // binfmt_misc
    0x6e73_6673, // nsfs
    0x6573_5543, // fusectl
    0x1980_0202, // mqueue
];

/// How a path is opened beneath a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resolver {
    /// As the kernel can.
    #[default]
    Best,
    /// From name to name, without links: what a kernel without `openat2` gets.
    Walk,
}

/// A path and the root that it lies beneath.
pub(super) struct Place {
    root: OwnedFd,
    root_path: PathBuf,
    names: Vec<String>,
    resolver: Resolver,
}

/// A directory that something is to be put into, and under which name.
pub(super) struct Spot {
    pub(super) directory: OwnedFd,
    pub(super) name: String,
}

impl Place {
    /// Opens the root that `path` lies beneath.
    pub(super) fn find(
        roots: &[PathBuf],
        path: &HostPath,
        resolver: Resolver,
    ) -> Result<Self, Refusal> {
        if path
            .names()
            .next()
            .is_some_and(|it| MACHINERY.contains(&it))
        {
            return Err(no_files_here());
        }
        let holds = |root: &&PathBuf| Path::new(path.as_str()).starts_with(root);
        let root = roots
            .iter()
            .filter(holds)
            .max_by_key(|root| root.components().count());
        let Some(root_path) = root else {
            return Err(Refusal::new(
                FileRefusal::Outside,
                "the owner of this host does not give this place out; `file_roots` in its agent.toml says which",
            ));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::open(root_path, flags, Mode::empty()).map_err(to("open the root"))?;
        let rest = Path::new(path.as_str()).strip_prefix(root_path);
        let names = rest.map_or_else(
            |_| Vec::new(),
            |rest| {
                rest.iter()
                    .map(|name| name.to_string_lossy().into_owned())
                    .collect()
            },
        );
        Ok(Self {
            root,
            root_path: root_path.clone(),
            names,
            resolver,
        })
    }

    /// A descriptor that says what lies there and touches nothing.
    pub(super) fn peek(&self) -> Result<(OwnedFd, Stat), Refusal> {
        let found = self
            .resolve(&self.names, OFlags::empty())
            .map_err(to("open the file"))?;
        let stat = rustix::fs::fstat(&found).map_err(to("look at the file"))?;
        if is_machinery(found.as_fd())? {
            return Err(no_files_here());
        }
        Ok((found, stat))
    }

    /// The directory of the last name; with `make`, directories that are missing are made.
    pub(super) fn spot(&self, make: bool) -> Result<Spot, Refusal> {
        let Some((name, parents)) = self.names.split_last() else {
            return Err(Refusal::new(
                FileRefusal::IsDirectory,
                "it is the root of what this host gives out",
            ));
        };
        let directory = match self.resolve(parents, OFlags::DIRECTORY) {
            Err(Errno::NOENT) if make => self.make(parents)?,
            other => other.map_err(to("open the directory"))?,
        };
        if is_machinery(directory.as_fd())? {
            return Err(no_files_here());
        }
        Ok(Spot {
            directory,
            name: name.clone(),
        })
    }

    /// Makes what is missing of a row of directories.
    fn make(&self, names: &[String]) -> Result<OwnedFd, Refusal> {
        let mut there = self
            .resolve(&[], OFlags::DIRECTORY)
            .map_err(to("open the directory"))?;
        for (place, name) in names.iter().enumerate() {
            there = match self.resolve(&names[..=place], OFlags::DIRECTORY) {
                Err(Errno::NOENT) => {
                    if is_machinery(there.as_fd())? {
                        return Err(no_files_here());
                    }
                    match rustix::fs::mkdirat(&there, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(to("make a directory")(error)),
                    }
                    sync_directory(&there)?;
                    // What was made a moment ago is not a link, or somebody is at work here.
                    open_beneath(there.as_fd(), name, OFlags::DIRECTORY)
                        .map_err(to("open the directory"))?
                }
                other => other.map_err(to("open the directory"))?,
            };
        }
        Ok(there)
    }

    fn resolve(&self, names: &[String], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        if self.resolver == Resolver::Walk {
            return self.walk(names, flags);
        }
        let way = if self.root_path == Path::new("/") {
            ResolveFlags::IN_ROOT
        } else {
            ResolveFlags::BENEATH
        };
        let way = way | ResolveFlags::NO_MAGICLINKS;
        let relative = if names.is_empty() {
            ".".to_owned()
        } else {
            names.join("/")
        };
        for _ in 0..RENAMED {
            match rustix::fs::openat2(&self.root, &relative, flags, Mode::empty(), way) {
                Err(Errno::AGAIN) => {}
                // A kernel that has none, or a filter in front of one that has.
                Err(Errno::NOSYS | Errno::PERM) => return self.walk(names, flags),
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    fn walk(&self, names: &[String], flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut there = open_beneath(self.root.as_fd(), ".", OFlags::DIRECTORY)?;
        for (place, name) in names.iter().enumerate() {
            let found = open_beneath(there.as_fd(), name, OFlags::empty())?;
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
            let last = place + 1 == names.len();
            match kind {
                FileType::Symlink => return Err(Errno::LOOP),
                FileType::Directory => {}
                _ if !last || flags.contains(OFlags::DIRECTORY) => return Err(Errno::NOTDIR),
                _ => {}
            }
            there = found;
        }
        Ok(there)
    }
}

impl Spot {
    /// What lies at the name, which is not followed when it is a link.
    pub(super) fn look(&self, name: &str) -> Result<Option<Stat>, Refusal> {
        match rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(to("look at the file")(error)),
        }
    }

    /// Opens a regular file of our own in the directory, read and write.
    pub(super) fn open_own(&self, name: &str, flags: OFlags) -> Result<File, Errno> {
        let flags = flags
            | OFlags::RDWR
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::openat(&self.directory, name, flags, mode).map(File::from)
    }
}

/// One step, which no link can lead astray.
fn open_beneath(there: BorrowedFd<'_>, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(there, name, flags, Mode::empty())
}

/// Opens what was looked at, for reading.
pub(super) fn open_for_reading(looked_at: &OwnedFd) -> Result<File, Refusal> {
    let path = format!("/proc/self/fd/{}", looked_at.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map(File::from)
        .map_err(to("open the file"))
}

/// Makes what was done in a directory durable.
pub(super) fn sync_directory(directory: &OwnedFd) -> Result<(), Refusal> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(directory, ".", flags, Mode::empty());
    opened
        .and_then(rustix::fs::fsync)
        .map_err(to("sync the directory"))
}

fn is_machinery(found: BorrowedFd<'_>) -> Result<bool, Refusal> {
    let kind = rustix::fs::fstatfs(found)
        .map_err(to("look at the file system"))?
        .f_type;
    // The kernel's numbers have 32 bits, and its type for them differs by architecture.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the low 32 bits are the number"
    )]
    let kind = kind as u32;
    Ok(NOT_FILES.contains(&kind))
}

fn no_files_here() -> Refusal {
    Refusal::new(
        FileRefusal::NotAFile,
        "what lies there is the kernel's and no file; run a command to read or set it",
    )
}
