//! The gateway's own runtime of plugins, on an author's machine: what passes here is called, bounded
//! and judged there by the same code.

use std::env;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use model::names::Name;
use model::plugin::{Grant, Limits, Manifest, SecretBinding, StateGrant, Workspaces};
use plugin_host::ports::Services;
use plugin_host::{Loaded, Options, Platform, Plugin, Settings};

use crate::say;

/// The first argument of the process that compiles. Not for people.
pub(crate) const COMPILER: &str = "compile-plugin";

/// A component, ready to be called.
pub(crate) struct Ready {
    pub(crate) platform: Arc<Platform>,
    pub(crate) loaded: Loaded,
}

/// Loads a component as a gateway would.
pub(crate) async fn load(file: &Path) -> Result<Ready> {
    let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let cache = cache_folder();
    fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
    let key = cache_key(&cache.join("key"))?;
    let this = env::current_exe().context("find this program")?;
    let options = Options::new(cache.join("code"), key, vec![this.into(), COMPILER.into()]);
    let platform = Platform::new(options)?;
    if bytes.len() > 5_000_000 {
        say("compiling; the first time this takes a while");
    }
    let loaded = platform
        .load(bytes)
        .await
        .with_context(|| format!("load {}", file.display()))?;
    Ok(Ready { platform, loaded })
}

impl Ready {
    /// The plugin with a configuration, among these surroundings.
    pub(crate) fn plugin(&self, grant: Grant, config: &str, services: Services) -> Arc<Plugin> {
        let settings = Settings {
            grant,
            config: config.to_owned(),
            config_revision: 1,
        };
        let name = self.loaded.manifest.name.clone();
        Plugin::new(
            self.platform.clone(),
            name,
            self.loaded.clone(),
            settings,
            services,
        )
    }
}

/// Everything that the manifest asks for, and these secrets.
pub(crate) fn grant(manifest: &Manifest, secrets: impl Iterator<Item = Name>) -> Result<Grant> {
    let workspace = "wsp_00000000000000000000000000"
        .parse()
        .context("name a workspace")?;
    let wish = &manifest.needs.limits;
    let usual = Limits::default();
    let needs = |name: &Name| {
        manifest
            .needs
            .secrets
            .iter()
            .find(|need| need.name == *name)
    };
    Ok(Grant {
        workspaces: Workspaces::All,
        secrets: secrets
            .map(|name| {
                let reveal = needs(&name).is_some_and(|need| need.reveal);
                let binding = SecretBinding {
                    workspace,
                    secret: name.clone(),
                    reveal,
                };
                (name, binding)
            })
            .collect(),
        state: manifest
            .needs
            .state
            .map(|state| StateGrant { keys: state.keys }),
        limits: Limits {
            wall_ms: wish.wall_ms.unwrap_or(usual.wall_ms),
            cpu_ms: wish.cpu_ms.unwrap_or(usual.cpu_ms),
            memory_bytes: wish.memory_bytes.unwrap_or(usual.memory_bytes),
            http_requests: wish.http_requests.unwrap_or(usual.http_requests),
            ..usual
        },
        ..Grant::default()
    })
}

fn cache_folder() -> PathBuf {
    env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("loopback-plugin")
}

/// The key that compiled code is authenticated with: made once, read by its owner only.
fn cache_key(path: &Path) -> Result<[u8; 32]> {
    if let Some(key) = fs::read(path).ok().and_then(|bytes| bytes.try_into().ok()) {
        return Ok(key);
    }
    let mut key = [0; 32];
    let random = fs::File::open("/dev/urandom").context("open the system's randomness")?;
    std::io::Read::read_exact(&mut &random, &mut key).context("read the system's randomness")?;
    let _ = fs::remove_file(path);
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(&key))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(key)
}
