//! Small and breakable file systems. Only root may mount; others skip with that reason.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use e2e::{
    interrupt, sh,
    tools::{self, Missing, tool},
};

const LIMIT: Duration = Duration::from_secs(60);
/// The smallest file system that mkfs.xfs makes.
const XFS_MIB: u64 = 300;

/// A mounted file system; dropping it unmounts.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
    image: Option<PathBuf>,
}

impl Mount {
    /// An empty file system in memory at `at`, with room for `bytes`.
    pub fn tmpfs(at: &Path, bytes: u64) -> Result<Self> {
        root("mount a small file system")?;
        fs::create_dir_all(at).context("make the mount point")?;
        let options = format!("size={bytes},mode=700");
        let at_text = at.display().to_string();
        sh::ok(
            &["mount", "-t", "tmpfs", "-o", &options, "tmpfs", &at_text],
            LIMIT,
        )?;
        Ok(Self {
            at: at.to_owned(),
            image: None,
        })
    }

    /// An XFS in a file beside `at`, through a loop device: it can lose its power.
    pub fn xfs(at: &Path) -> Result<Self> {
        root("mount a disk image")?;
        tools::ensure(&[tool("mkfs.xfs", "xfsprogs"), tool("xfs_io", "xfsprogs")])?;
        fs::create_dir_all(at).context("make the mount point")?;
        let image = at.with_extension("xfs");
        File::create(&image)
            .and_then(|file| file.set_len(XFS_MIB * 1024 * 1024))
            .context("make the disk image")?;
        let text = image.display().to_string();
        sh::ok(&["mkfs.xfs", "-q", "-f", &text], LIMIT)?;
        let mount = Self {
            at: at.to_owned(),
            image: Some(image),
        };
        mount.mount().map_err(|error| {
            Missing(format!(
                "this machine mounts no disk images (loop devices, XFS): {error:#}"
            ))
        })?;
        let mode = ["chmod", "700", &at.display().to_string()].map(str::to_owned);
        sh::ok(&mode, LIMIT)?;
        Ok(mount)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Cuts the disk off between two of its writes: nothing that was not synced gets there any more,
    /// its own journal neither. All further use is an error until it is mounted again.
    pub fn cut(&self) -> Result<()> {
        let at = self.at.display().to_string();
        sh::ok(&["xfs_io", "-x", "-c", "shutdown", &at], LIMIT).map(drop)
    }

    /// Mounts the disk again, which replays its journal. Nobody may have a file open on it.
    pub fn power_up(&self) -> Result<()> {
        let at = self.at.display().to_string();
        sh::ok(&["umount", &at], LIMIT)?;
        self.mount()
    }

    /// Writes a file until no byte more fits.
    pub fn fill(&self) -> Result<PathBuf> {
        let path = self.at.join("filler");
        let mut file = File::create(&path).context("fill the file system")?;
        for size in [1 << 20, 4096, 1] {
            let bytes = vec![0; size];
            while file.write_all(&bytes).is_ok() {}
        }
        Ok(path)
    }

    /// The same, and then takes back room for `bytes`.
    pub fn fill_but(&self, bytes: u64) -> Result<PathBuf> {
        let path = self.fill()?;
        let file = File::options().write(true).open(&path)?;
        let len = file.metadata()?.len();
        file.set_len(len.saturating_sub(bytes))?;
        Ok(path)
    }

    fn mount(&self) -> Result<()> {
        let at = self.at.display().to_string();
        let image = self.image.as_deref().unwrap_or(Path::new(""));
        let image = image.display().to_string();
        sh::ok(&["mount", "-o", "loop", &image, &at], LIMIT).map(drop)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let at = self.at.display().to_string();
        // Lazily: what still has a file open there keeps nobody waiting.
        let _ = interrupt::shielded(|| sh::ok(&["umount", "-l", &at], LIMIT));
    }
}

fn root(what: &str) -> Result<(), Missing> {
    match tools::is_root() {
        true => Ok(()),
        false => Err(Missing(format!("only root may {what}"))),
    }
}
