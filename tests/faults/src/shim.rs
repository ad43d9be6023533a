//! A library put before the C library's, for a disk that fails or is slow when it is told to.
//!
//! libfiu does much of this, but decides by the name of a function and a probability; here it
//! matters that only the store's file is meant, and that a fault begins and ends at a moment that
//! the test chooses. Fifty lines of C that are compiled where they run do it, and the gateway under
//! test is the one that was built: dynamically linked, unchanged.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use e2e::{
    product::Launch,
    sh,
    tools::{self, tool},
};

const SOURCE: &str = include_str!("shim.c");

/// The error of a device that does not answer.
pub const EIO: u32 = 5;

/// The error of a disk without room.
pub const ENOSPC: u32 = 28;
/// Where the page names the step that was died at.
const STEP: u64 = 64;

/// What can be set; the value is the word's place in the shared page.
#[derive(Debug, Clone, Copy)]
pub enum Knob {
    /// Milliseconds that every sync takes longer.
    SyncDelay = 0,
    /// The errno of every sync, or 0.
    SyncError = 1,
    /// The errno of every write, or 0.
    WriteError = 2,
    /// The errno of every read, or 0.
    ReadError = 3,
    /// How many calls were failed or delayed.
    Hits = 4,
    /// Changes of files until the process dies, counted down; 0 for never.
    KillAt = 5,
}

/// The library and its controls.
#[derive(Debug)]
pub struct Shim {
    library: PathBuf,
    page: PathBuf,
    control: File,
    /// Files whose path contains this are meant.
    target: String,
}

impl Shim {
    /// Compiles the library in `folder`. It is for files whose path contains `target`.
    pub fn build(folder: &Path, target: &str) -> Result<Self> {
        tools::ensure(&[tool("cc", "gcc"), tool("/usr/include/dlfcn.h", "libc6-dev")])?;
        let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
        fs::write(&source, SOURCE).context("write the shim")?;
        let text = |path: &Path| path.display().to_string();
        let (from, to) = (text(&source), text(&library));
        let compile = [
            "cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", &to, &from, "-ldl",
        ];
        sh::ok(&compile, Duration::from_secs(60)).context("compile the shim")?;
        let page = folder.join("shim.page");
        fs::write(&page, [0; 4096]).context("make the shim's page")?;
        let control = File::options()
            .read(true)
            .write(true)
            .open(&page)
            .context("open the shim's page")?;
        Ok(Self {
            library,
            page,
            control,
            target: target.to_owned(),
        })
    }

    /// A launch of the gateway under the shim.
    pub fn launch(&self) -> Launch {
        Launch {
            env: self.env().to_vec(),
            ..Launch::default()
        }
    }

    /// What to put before a program that is to run under the shim.
    pub fn prefix(&self) -> Vec<String> {
        let pairs = self.env().map(|(name, value)| format!("{name}={value}"));
        std::iter::once("env".to_owned()).chain(pairs).collect()
    }

    fn env(&self) -> [(String, String); 3] {
        let text = |path: &Path| path.display().to_string();
        [
            ("LD_PRELOAD".into(), text(&self.library)),
            ("FAULTS_CONTROL".into(), text(&self.page)),
            ("FAULTS_PATH".into(), self.target.clone()),
        ]
    }

    /// The step that a process died at, in words.
    pub fn step(&self) -> Result<String> {
        let mut text = [0; 512];
        let read = self.control.read_exact_at(&mut text, STEP);
        read.context("read the shim")?;
        let text = String::from_utf8_lossy(&text);
        Ok(text.trim_end_matches('\0').to_owned())
    }

    /// Sets a knob; running programs see it at once.
    pub fn set(&self, knob: Knob, value: u32) -> Result<()> {
        self.control
            .write_all_at(&value.to_ne_bytes(), 4 * knob as u64)
            .context("set the shim")
    }

    /// How many calls were failed or delayed so far.
    pub fn hits(&self) -> Result<u32> {
        let mut word = [0; 4];
        self.control
            .read_exact_at(&mut word, 4 * Knob::Hits as u64)
            .context("read the shim")?;
        Ok(u32::from_ne_bytes(word))
    }
}
