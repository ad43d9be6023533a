//! Compiled components, kept in a folder.
//!
//! Loading compiled code is running it: whoever could change a file here would run what they like
//! within the gateway. So each file begins with a code (HMAC-SHA256) under a key that only the
//! gateway has, over the bytes and over what they were made from, and it is checked over exactly
//! the bytes that are then loaded: those read into memory, never the file again. A mapped file
//! would be quicker, and could be changed between the check and the use.
//!
//! A file's name holds the component's digest and a tag: a hash over the engine's version, its
//! settings and the features of the processor. Files with another tag are of no use any more and
//! are removed when their component is compiled again.

use std::hash::{Hash, Hasher};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use model::plugin::PluginDigest;
use ring::digest::{Context, SHA256};
use ring::hmac;
use wasmtime::Engine;
use wasmtime::component::Component;

const MAGIC: &[u8; 16] = b"loopback-cwasm-1";
const MAC_BYTES: usize = 32;

/// See the module's head.
pub(crate) struct Cache {
    folder: PathBuf,
    key: hmac::Key,
    tag: String,
    limit: u64,
}

/// What the cache had.
pub(crate) enum Found {
    /// Ready to run.
    Hit(Component),
    /// Nothing.
    Miss,
    /// Something that must not or cannot be loaded; why.
    Bad(String),
}

impl Cache {
    pub(crate) fn open(
        folder: PathBuf,
        key: &[u8; 32],
        engine: &Engine,
        limit: u64,
    ) -> std::io::Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        Ok(Self {
            folder,
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            tag: tag(engine),
            limit,
        })
    }

    /// Where a compiler may put what it makes; nobody else's name.
    pub(crate) fn scratch(&self, digest: &PluginDigest, unique: u64) -> PathBuf {
        let pid = std::process::id();
        self.folder
            .join(format!("{}-{pid}-{unique}.part", digest.hex()))
    }

    /// Loads what was compiled before.
    pub(crate) fn load(&self, engine: &Engine, digest: &PluginDigest) -> Found {
        let file = match std::fs::File::open(self.path(digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Found::Miss,
            Err(error) => return Found::Bad(error.to_string()),
        };
        let size = file.metadata().map_or(0, |meta| meta.len());
        let mut bytes = Vec::with_capacity(usize::try_from(size.min(self.limit)).unwrap_or(0));
        let read = file.take(self.limit + 1).read_to_end(&mut bytes);
        if let Err(error) = read {
            return Found::Bad(error.to_string());
        }
        match self.verified(digest, &bytes) {
            Some(compiled) => match deserialize(engine, compiled) {
                Ok(component) => Found::Hit(component),
                Err(error) => Found::Bad(format!("{error:#}")),
            },
            None => Found::Bad("it is not what this gateway wrote".into()),
        }
    }

    /// Keeps what a compiler of ours made, and loads it.
    pub(crate) fn keep(
        &self,
        engine: &Engine,
        digest: &PluginDigest,
        compiled: &[u8],
        unique: u64,
    ) -> wasmtime::Result<(Component, std::io::Result<()>)> {
        let component = deserialize(engine, compiled)?;
        let kept = self.write(digest, compiled, unique);
        self.remove_stale(digest);
        Ok((component, kept))
    }

    fn write(&self, digest: &PluginDigest, compiled: &[u8], unique: u64) -> std::io::Result<()> {
        let part = self.scratch(digest, unique).with_extension("new");
        let written = std::fs::File::create(&part).and_then(|mut file| {
            let header = self.header(digest);
            let mut mac = hmac::Context::with_key(&self.key);
            mac.update(&header);
            mac.update(compiled);
            file.write_all(mac.sign().as_ref())?;
            file.write_all(&header)?;
            file.write_all(compiled)
        });
        // Not synced: what a crash leaves half does not verify and is made again.
        written
            .and_then(|()| std::fs::rename(&part, self.path(digest)))
            .inspect_err(|_| drop(std::fs::remove_file(&part)))
    }

    fn remove_stale(&self, digest: &PluginDigest) {
        let current = self.path(digest);
        let prefix = format!("{}-", digest.hex());
        let Ok(entries) = std::fs::read_dir(&self.folder) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let same = path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".cwasm"));
            if same && path != current && std::fs::remove_file(&path).is_ok() {
                tracing::info!(
                    plugin.digest = %digest,
                    "removed what another version of the engine had compiled"
                );
            }
        }
    }

    /// Forgets a component.
    pub(crate) fn remove(&self, digest: &PluginDigest) {
        let _ = std::fs::remove_file(self.path(digest));
    }

    fn path(&self, digest: &PluginDigest) -> PathBuf {
        self.folder
            .join(format!("{}-{}.cwasm", digest.hex(), &self.tag[..16]))
    }

    /// What stands before compiled code, under the same MAC: so a file that was made from another
    /// component or for another engine does not hold under this one's name.
    fn header(&self, digest: &PluginDigest) -> Vec<u8> {
        [MAGIC.as_slice(), self.tag.as_bytes(), digest.bytes()].concat()
    }

    fn verified<'a>(&self, digest: &PluginDigest, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (mac, rest) = bytes.split_at_checked(MAC_BYTES)?;
        hmac::verify(&self.key, rest, mac).ok()?;
        rest.strip_prefix(self.header(digest).as_slice())
    }
}

/// Loads bytes that a compiler of ours made: come from it directly, or with its code checked.
fn deserialize(engine: &Engine, compiled: &[u8]) -> wasmtime::Result<Component> {
    #[expect(
        unsafe_code,
        reason = "there is no safe way to load code that was compiled before"
    )]
    // SAFETY: the bytes were made by `Engine::precompile_component` of this very program. `keep`
    // has them from its process, `load` a MAC over these very bytes, in memory that nobody else
    // can change; nobody else calls this. The engine itself refuses what was made by
    // another version or with other settings.
    unsafe {
        Component::deserialize(engine, compiled)
    }
}

fn tag(engine: &Engine) -> String {
    let mut hasher = Sha(Context::new(&SHA256));
    engine.precompile_compatibility_hash().hash(&mut hasher);
    HEXLOWER.encode(hasher.0.finish().as_ref())
}

/// All of the hash, where a `Hasher` usually keeps 64 bits.
struct Sha(Context);

impl Hasher for Sha {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}
