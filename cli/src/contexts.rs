//! Which gateway the command line talks to, and as whom.
//!
//! Contexts lie in one TOML file that only its owner can read, because it holds
//! API keys. It is replaced as a whole (write beside, flush, rename) under a lock,
//! so that two commands at once lose nothing and a crash leaves the old or the
//! new file. A file that others can read is not used while it holds a key: the
//! key must be taken as known to them.
//!
//! Authorities are kept in the file itself rather than as a path, so that a
//! context keeps working when the file it came from is gone.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use model::names::Name;
use serde::{Deserialize, Serialize};

/// All contexts of one person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Name>,
    /// By name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contexts: BTreeMap<String, Context>,
}

/// One gateway, and as whom to call it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The gateway's URL.
    pub url: String,
    /// File with the authorities of the gateway's certificate, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The authorities themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// Pin of the gateway's key, instead of authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    /// The API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// The workspace meant when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("url", &self.url)
            .field("workspace", &self.workspace)
            .finish_non_exhaustive()
    }
}

/// What can be wrong with the file of contexts.
#[derive(Debug, thiserror::Error)]
pub enum ContextsError {
    /// Neither LOOPBACK_CONFIG nor a home directory says where it is.
    #[error("no place for the configuration: set LOOPBACK_CONFIG, XDG_CONFIG_HOME or HOME")]
    NoPlace,
    /// Reading, locking or writing it.
    #[error("{verb} {}", path.display())]
    File {
        /// What was being done.
        verb: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
    /// Others can read the keys in it.
    #[error(
        "{} holds API keys but its mode is {mode:04o}, so others can read them; run `chmod 600 {}`, and revoke the keys if this machine has other users",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not what it should be.
    #[error("read {}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line and reason, without the line's text, which may be a key.
        why: String,
    },
    /// It does not serialise.
    #[error("write the contexts")]
    Serialize(#[source] toml::ser::Error),
}

/// Where contexts are kept.
#[derive(Clone, Debug)]
pub struct ContextFile(PathBuf);

impl ContextFile {
    /// The place that the environment names: `LOOPBACK_CONFIG`, else
    /// `loopback/config.toml` in `XDG_CONFIG_HOME` or `~/.config`.
    pub fn from_env(var: impl Fn(&str) -> Option<String>) -> Result<Self, ContextsError> {
        let set = |name| {
            var(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let default = || {
            let folder =
                set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
            Some(folder.join("loopback").join("config.toml"))
        };
        set("LOOPBACK_CONFIG")
            .or_else(default)
            .map(Self)
            .ok_or(ContextsError::NoPlace)
    }

    /// Contexts kept at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where they are kept.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads them; no file is no contexts.
    pub fn load(&self) -> Result<Contexts, ContextsError> {
        let file = match File::open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contexts::default()),
            Err(source) => return Err(self.error("open", source)),
        };
        // The open file is asked, not the path, which may be another file by now.
        let mode = file
            .metadata()
            .map_err(|source| self.error("inspect", source))?
            .permissions()
            .mode()
            & 0o7777;
        let text = io::read_to_string(file).map_err(|source| self.error("read", source))?;
        let contexts: Contexts =
            toml::from_str(&text).map_err(|error| ContextsError::Malformed {
                path: self.0.clone(),
                why: describe(&text, &error),
            })?;
        let holds_keys = contexts
            .contexts
            .values()
            .any(|context| context.api_key.is_some());
        if holds_keys && mode & 0o077 != 0 {
            return Err(ContextsError::Exposed {
                path: self.0.clone(),
                mode,
            });
        }
        Ok(contexts)
    }

    /// Reads them, lets `change` change them, and writes them back, under a lock.
    pub fn update<T, E: From<ContextsError>>(
        &self,
        change: impl FnOnce(&mut Contexts) -> Result<T, E>,
    ) -> Result<T, E> {
        let target = self.target()?;
        let _lock = self.lock(&target)?;
        let mut contexts = self.load()?;
        let result = change(&mut contexts)?;
        self.write(&target, &contexts)?;
        Ok(result)
    }

    /// The file itself where the path is a link to it: replacing the link would
    /// part it from whoever manages it.
    fn target(&self) -> Result<PathBuf, ContextsError> {
        match fs::canonicalize(&self.0) {
            Ok(path) => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(self.0.clone()),
            Err(source) => Err(self.error("find", source)),
        }
    }

    fn lock(&self, target: &Path) -> Result<File, ContextsError> {
        let folder = folder_of(target);
        if !folder.exists() {
            make_private_folder(folder)
                .map_err(|source| self.error("make the folder of", source))?;
        }
        let path = beside(target, "lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path);
        let lock = lock.map_err(|source| self.error("lock", source))?;
        lock.lock().map_err(|source| self.error("lock", source))?;
        Ok(lock)
    }

    fn write(&self, target: &Path, contexts: &Contexts) -> Result<(), ContextsError> {
        let text = toml::to_string(contexts).map_err(ContextsError::Serialize)?;
        write_private(target, text.as_bytes()).map_err(|source| self.error("write", source))
    }

    fn error(&self, verb: &'static str, source: io::Error) -> ContextsError {
        ContextsError::File {
            verb,
            path: self.0.clone(),
            source,
        }
    }
}

/// Replaces `path` by a file with `content` that only its owner can read. After
/// a crash it is the old file or the new one.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = beside(path, &format!("new-{}", std::process::id()));
    let write = || {
        // A leftover of a crashed process with our number would be in the way.
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder_of(path))?.sync_all()
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// The folder that `path` lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// `.config.toml.lock` beside `config.toml`.
pub(crate) fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}"))
}

fn make_private_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// The parser quotes the line or value it stumbled over, which may be a key.
fn describe(text: &str, error: &toml::de::Error) -> String {
    let line = error
        .span()
        .and_then(|span| text.get(..span.start))
        .map(|before| before.matches('\n').count() + 1);
    let why = error
        .message()
        .lines()
        .next()
        .filter(|why| !why.contains("lbk_"))
        .unwrap_or("a value of the wrong kind");
    line.map_or_else(|| why.to_owned(), |line| format!("line {line}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "lbk_secret";

    fn place() -> (tempfile::TempDir, ContextFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = ContextFile::at(folder.path().join("deeper/config.toml"));
        (folder, file)
    }

    fn add(file: &ContextFile, name: &str) {
        file.update(|contexts| {
            let context = Context {
                url: "https://gw".to_owned(),
                api_key: Some(KEY.to_owned()),
                ..Context::default()
            };
            contexts.contexts.insert(name.to_owned(), context);
            contexts.current = Some(name.parse().unwrap());
            Ok::<_, ContextsError>(())
        })
        .unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_environment_says_where() {
        let path = |pairs: &[(&str, &str)]| {
            let var = |name: &str| {
                pairs
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).to_owned())
            };
            ContextFile::from_env(var).map(|file| file.path().display().to_string())
        };
        assert_eq!(
            path(&[("HOME", "/h")]).unwrap(),
            "/h/.config/loopback/config.toml"
        );
        assert_eq!(
            path(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")]).unwrap(),
            "/x/loopback/config.toml"
        );
        assert_eq!(
            path(&[("LOOPBACK_CONFIG", "/c"), ("HOME", "/h")]).unwrap(),
            "/c"
        );
        assert!(matches!(path(&[("HOME", "")]), Err(ContextsError::NoPlace)));
    }

    #[test]
    fn what_is_written_is_read_again_and_private() {
        let (_folder, file) = place();
        assert_eq!(file.load().unwrap(), Contexts::default());
        add(&file, "a");
        add(&file, "b");
        let contexts = file.load().unwrap();
        assert_eq!(contexts.contexts.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(contexts.current.unwrap().as_str(), "b");
        assert_eq!(
            (mode(file.path()), mode(folder_of(file.path()))),
            (0o600, 0o700)
        );
    }

    #[test]
    fn keys_that_others_can_read_are_not_used() {
        let (_folder, file) = place();
        add(&file, "a");
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
        let error = file.load().unwrap_err();
        assert!(matches!(error, ContextsError::Exposed { mode: 0o644, .. }));
        assert!(
            error.to_string().contains("chmod 600") && !error.to_string().contains(KEY),
            "{error}"
        );
    }

    #[test]
    fn a_readable_file_without_keys_is_fine() {
        let (_folder, file) = place();
        fs::create_dir_all(folder_of(file.path())).unwrap();
        fs::write(file.path(), "[contexts.a]\nurl = \"https://gw\"\n").unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(file.load().unwrap().contexts["a"].url, "https://gw");
    }

    #[test]
    fn a_broken_file_is_described_without_its_content() {
        let (_folder, file) = place();
        fs::create_dir_all(folder_of(file.path())).unwrap();
        for content in [
            "[contexts.a]\nurl = 1\n",
            "[contexts.a]\napi_key = \"lbk_secret\n",
            "x = \"lbk_secret\"\n",
            "contexts = \"lbk_secret\"\n",
        ] {
            fs::write(file.path(), content).unwrap();
            let error = file.load().unwrap_err().to_string();
            assert!(error.contains("line ") && !error.contains(KEY), "{error}");
        }
    }

    #[test]
    fn a_change_that_fails_changes_nothing() {
        let (_folder, file) = place();
        add(&file, "a");
        let before = fs::read(file.path()).unwrap();
        let result = file.update(|contexts| {
            contexts.contexts.clear();
            Err::<(), _>(ContextsError::NoPlace)
        });
        assert!(result.is_err());
        assert_eq!(fs::read(file.path()).unwrap(), before);
    }

    #[test]
    fn a_link_to_the_file_stays_a_link() {
        let (folder, file) = place();
        let real = folder.path().join("real.toml");
        fs::write(&real, "").unwrap();
        fs::create_dir_all(folder_of(file.path())).unwrap();
        std::os::unix::fs::symlink(&real, file.path()).unwrap();
        add(&file, "a");
        assert!(fs::symlink_metadata(file.path()).unwrap().is_symlink());
        assert!(fs::read_to_string(&real).unwrap().contains("https://gw"));
    }

    #[test]
    fn changes_at_once_lose_nothing() {
        let (_folder, file) = place();
        std::thread::scope(|scope| {
            for name in ["a", "b", "c", "d", "e", "f"] {
                let file = &file;
                scope.spawn(move || add(file, name));
            }
        });
        assert_eq!(file.load().unwrap().contexts.len(), 6);
    }

    #[test]
    fn debug_text_hides_the_key() {
        let context = Context {
            api_key: Some(KEY.to_owned()),
            ..Context::default()
        };
        assert!(!format!("{context:?}").contains(KEY));
    }
}
