//! Agent releases, as hosts may fetch them.
//!
//! `releases_dir` holds one folder per channel, `stable/` and `unstable/`, each a
//! release as crate [`release`] describes it. A release is verified whole (signature,
//! expiry, channel, size and digest of every binary) before anything of it is handed
//! out, and what is handed out are the very bytes that were verified: they are kept in
//! memory, some 10 MiB a release. Requests name files; a name is looked up among those
//! of the verified manifest and is never a path.
//!
//! The folders are looked at every two seconds, by the stamps of their files, never on a
//! request's path. A folder that changed and does not verify (half copied, say) leaves
//! what was served before in place; why it was refused is logged once. A release that
//! has expired is no longer served: hosts would refuse it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use api::v1::system::Channel;
use bytes::Bytes;
use jiff::Timestamp;
use release::{Expect, MANIFEST_NAME, Manifest, PublicKey, Release, ReleaseError, SIGNATURE_NAME};

use crate::config::{Config, ConfigError};
use crate::tasks::Tasks;

/// How soon a new release is noticed.
const LOOK: Duration = Duration::from_secs(2);
const CHANNELS: [Channel; 2] = [Channel::Stable, Channel::Unstable];

/// Why a channel has nothing to offer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRelease {
    /// Nobody's releases are trusted.
    #[error("no release keys are configured (`release_keys`)")]
    NoKeys,
    /// There is no folder.
    #[error("there is no release in {0}")]
    Absent(PathBuf),
    /// There is one, and it does not hold.
    #[error("the release is refused: {0}")]
    Refused(String),
    /// It held once.
    #[error("release {version} expired at {expired}")]
    Expired {
        /// Which.
        version: String,
        /// When.
        expired: Timestamp,
    },
}

/// The releases of all channels.
#[derive(Clone, Debug)]
pub struct Releases(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    keys: Vec<PublicKey>,
    slots: [Slot; 2],
}

/// One channel.
#[derive(Debug, Default)]
struct Slot {
    offer: RwLock<Option<Result<Arc<Offer>, NoRelease>>>,
    /// What the folder looked like when it was last read.
    seen: Mutex<Option<Vec<Stamp>>>,
}

/// Tells that a file was replaced or rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    name: std::ffi::OsString,
    inode: u64,
    changed: (i64, i64),
    size: u64,
}

/// A verified release with its bytes.
#[derive(Debug)]
pub struct Offer {
    manifest: Manifest,
    files: BTreeMap<String, Bytes>,
}

impl Releases {
    /// The releases that `config` names, looked at once.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        Ok(Self::open(
            config.releases_dir(),
            config.trusted_release_keys()?,
        ))
    }

    /// The releases in `dir` that one of `keys` has signed, looked at once.
    pub fn open(dir: PathBuf, keys: Vec<PublicKey>) -> Self {
        let releases = Self(Arc::new(Inner {
            dir,
            keys,
            slots: Default::default(),
        }));
        releases.look();
        releases
    }

    /// The release on `channel`.
    pub fn channel(&self, channel: Channel) -> Result<Arc<Offer>, NoRelease> {
        self.channel_at(channel, Timestamp::now())
    }

    /// The text of the keys whose releases are handed out.
    pub fn public_keys(&self) -> Vec<String> {
        self.0.keys.iter().map(PublicKey::to_string).collect()
    }

    /// Looks at the folders again and again until `tasks` stop.
    pub async fn follow(self, tasks: Tasks) {
        let mut tick = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                biased;
                () = tasks.stop().cancelled() => return,
                _ = tick.tick() => {}
            }
            let releases = self.clone();
            // A panic in here is logged by then; the next look may fare better.
            let _ = tasks.blocking("releases", move || releases.look()).await;
        }
    }

    /// Reads what has changed. Blocks on the disk.
    pub fn look(&self) {
        for channel in CHANNELS {
            self.look_at(channel, Timestamp::now());
        }
    }

    fn channel_at(&self, channel: Channel, now: Timestamp) -> Result<Arc<Offer>, NoRelease> {
        if self.0.keys.is_empty() {
            return Err(NoRelease::NoKeys);
        }
        let offer = self
            .0
            .slot(channel)
            .offer
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let absent = || Err(NoRelease::Absent(self.0.dir.join(channel.as_str())));
        let offer = offer.clone().unwrap_or_else(absent)?;
        if offer.manifest.expires <= now {
            let Manifest {
                version, expires, ..
            } = &offer.manifest;
            return Err(NoRelease::Expired {
                version: version.clone(),
                expired: *expires,
            });
        }
        Ok(offer)
    }

    fn look_at(&self, channel: Channel, now: Timestamp) {
        let slot = self.0.slot(channel);
        let dir = self.0.dir.join(channel.as_str());
        let mut seen = slot.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Stamps first: what changes while it is read is then read again.
        let found = stamps(&dir);
        if self.0.keys.is_empty() || *seen == found {
            return;
        }
        let loaded = found
            .as_ref()
            .map(|_| load(&dir, &self.0.keys, channel, now));
        *seen = found;
        drop(seen);
        let mut offer = slot.offer.write().unwrap_or_else(PoisonError::into_inner);
        match loaded {
            Some(Ok(new)) => {
                tracing::info!(
                    channel = channel.as_str(),
                    version = new.manifest.version,
                    number = new.manifest.number,
                    "agent release offered"
                );
                *offer = Some(Ok(Arc::new(new)));
            }
            Some(Err(error)) => {
                let reason = model::error_chain(&error).to_string();
                tracing::warn!(
                    channel = channel.as_str(), dir = %dir.display(), error = reason,
                    "agent release refused"
                );
                // What was served before was good and stays so.
                if !matches!(&*offer, Some(Ok(_))) {
                    *offer = Some(Err(NoRelease::Refused(reason)));
                }
            }
            None => {
                if matches!(&*offer, Some(Ok(_))) {
                    tracing::info!(channel = channel.as_str(), "agent release withdrawn");
                }
                *offer = None;
            }
        }
    }
}

impl Inner {
    fn slot(&self, channel: Channel) -> &Slot {
        match channel {
            Channel::Stable => &self.slots[0],
            Channel::Unstable => &self.slots[1],
        }
    }
}

impl Offer {
    /// What the release holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The bytes of a file: the manifest, its signature, or a binary that the manifest
    /// names.
    pub fn file(&self, name: &str) -> Option<Bytes> {
        self.files.get(name).cloned()
    }
}

fn load(
    dir: &Path,
    keys: &[PublicKey],
    channel: Channel,
    now: Timestamp,
) -> Result<Offer, ReleaseError> {
    let expect = Expect {
        now,
        min_number: 0,
        channel: Some(in_release(channel)),
    };
    let release: Release = release::load_release(dir, keys, expect)?;
    let mut files = BTreeMap::new();
    for file in &release.manifest().files {
        files.insert(
            file.name.clone(),
            release.read(&file.os, &file.arch)?.into(),
        );
    }
    // Last, so that no binary can take their place.
    files.insert(
        MANIFEST_NAME.to_owned(),
        Bytes::copy_from_slice(release.manifest_bytes()),
    );
    files.insert(
        SIGNATURE_NAME.to_owned(),
        Bytes::copy_from_slice(release.signature().as_bytes()),
    );
    Ok(Offer {
        manifest: release.manifest().clone(),
        files,
    })
}

/// The API's word for a channel in that of releases.
fn in_release(channel: Channel) -> release::Channel {
    match channel {
        Channel::Stable => release::Channel::Stable,
        Channel::Unstable => release::Channel::Unstable,
    }
}

/// The stamps of everything in a folder; nothing when there is none.
fn stamps(dir: &Path) -> Option<Vec<Stamp>> {
    let stamp = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        // Follows links, as reading does.
        let found = fs::metadata(entry.path()).ok()?;
        Some(Stamp {
            name: entry.file_name(),
            inode: found.ino(),
            changed: (found.ctime(), found.ctime_nsec()),
            size: found.len(),
        })
    };
    let mut stamps: Vec<Stamp> = fs::read_dir(dir).ok()?.filter_map(stamp).collect();
    stamps.sort_by(|one, other| one.name.cmp(&other.name));
    Some(stamps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use release::{Draft, DraftFile, SigningKey, write_release};

    struct Fixture {
        root: tempfile::TempDir,
        key: SigningKey,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                root: tempfile::tempdir().unwrap(),
                key: SigningKey::generate().unwrap(),
            }
        }

        fn publish(&self, channel: Channel, version: &str, key: &SigningKey) {
            let binary = self.root.path().join("agent");
            fs::write(&binary, format!("agent {version}")).unwrap();
            let created = Timestamp::now();
            let draft = Draft {
                channel: in_release(channel),
                version: version.to_owned(),
                number: 1,
                created,
                expires: created + Duration::from_secs(3600),
                files: vec![DraftFile {
                    os: "linux".into(),
                    arch: "x86_64".into(),
                    source: binary,
                }],
            };
            let dir = self.root.path().join("releases");
            fs::create_dir_all(&dir).unwrap();
            let fresh = dir.join("fresh");
            write_release(&fresh, &draft, key).unwrap();
            let place = dir.join(channel.as_str());
            let _ = fs::remove_dir_all(&place);
            fs::rename(fresh, place).unwrap();
        }

        fn releases(&self) -> Releases {
            let dir = self.root.path().join("releases");
            Releases::open(dir, vec![self.key.public().clone()])
        }
    }

    #[test]
    fn abuse_22_23_a_signed_release_is_offered_by_the_names_in_its_manifest_only() {
        let fixture = Fixture::new();
        fixture.publish(Channel::Stable, "1.0.0", &fixture.key);
        let dir = fixture.root.path().join("releases/stable");
        fs::write(dir.join("unlisted"), "x").unwrap();
        let releases = fixture.releases();
        let offer = releases.channel(Channel::Stable).unwrap();
        assert_eq!(offer.manifest().version, "1.0.0");
        assert_eq!(
            offer.file("loopback-agent-linux-x86_64").unwrap(),
            "agent 1.0.0"
        );
        assert_eq!(
            offer.file("manifest.json").unwrap(),
            fs::read(dir.join("manifest.json")).unwrap()
        );
        assert!(offer.file("manifest.json.sig").is_some());
        for name in [
            "unlisted",
            "",
            ".",
            "../stable/manifest.json",
            "/etc/passwd",
            "Manifest.json",
        ] {
            assert_eq!(offer.file(name), None, "{name} was handed out");
        }
        let absent = releases.channel(Channel::Unstable).unwrap_err();
        assert!(matches!(absent, NoRelease::Absent(_)), "{absent}");
    }

    #[test]
    fn a_new_release_takes_over_and_a_bad_one_does_not() {
        let fixture = Fixture::new();
        let releases = fixture.releases();
        assert!(releases.channel(Channel::Stable).is_err());
        fixture.publish(Channel::Stable, "1.0.0", &fixture.key);
        releases.look();
        let version = || {
            releases
                .channel(Channel::Stable)
                .unwrap()
                .manifest()
                .version
                .clone()
        };
        assert_eq!(version(), "1.0.0");
        fixture.publish(Channel::Stable, "1.1.0", &fixture.key);
        releases.look();
        assert_eq!(version(), "1.1.0");

        // Signed by a stranger, then damaged: the good one stays, bytes included.
        fixture.publish(Channel::Stable, "6.6.6", &SigningKey::generate().unwrap());
        releases.look();
        assert_eq!(version(), "1.1.0");
        fixture.publish(Channel::Stable, "1.2.0", &fixture.key);
        let binary = fixture
            .root
            .path()
            .join("releases/stable/loopback-agent-linux-x86_64");
        fs::write(binary, "agent 1.x.0").unwrap();
        releases.look();
        let offer = releases.channel(Channel::Stable).unwrap();
        assert_eq!(
            offer.file("loopback-agent-linux-x86_64").unwrap(),
            "agent 1.1.0"
        );

        fs::remove_dir_all(fixture.root.path().join("releases/stable")).unwrap();
        releases.look();
        assert!(matches!(
            releases.channel(Channel::Stable),
            Err(NoRelease::Absent(_))
        ));
    }

    #[test]
    fn abuse_49_a_release_of_the_other_channel_or_of_a_stranger_is_refused_with_the_reason() {
        let fixture = Fixture::new();
        fixture.publish(Channel::Unstable, "1.0.0", &fixture.key);
        let dir = fixture.root.path().join("releases");
        fs::rename(dir.join("unstable"), dir.join("stable")).unwrap();
        fixture.publish(Channel::Unstable, "1.0.0", &SigningKey::generate().unwrap());
        let releases = fixture.releases();
        let text = |channel| releases.channel(channel).unwrap_err().to_string();
        assert!(
            text(Channel::Stable).contains("is of channel unstable"),
            "{}",
            text(Channel::Stable)
        );
        assert!(text(Channel::Unstable).contains("not among the trusted keys"));
    }

    #[test]
    fn abuse_49_an_expired_release_is_no_longer_offered() {
        let fixture = Fixture::new();
        fixture.publish(Channel::Stable, "1.0.0", &fixture.key);
        let releases = fixture.releases();
        let later = Timestamp::now() + Duration::from_secs(7200);
        assert!(matches!(
            releases.channel_at(Channel::Stable, later),
            Err(NoRelease::Expired { .. })
        ));
        assert!(releases.channel(Channel::Stable).is_ok());
    }

    #[test]
    fn without_keys_nothing_is_offered() {
        let fixture = Fixture::new();
        fixture.publish(Channel::Stable, "1.0.0", &fixture.key);
        let releases = Releases::open(fixture.root.path().join("releases"), Vec::new());
        assert_eq!(
            releases.channel(Channel::Stable).unwrap_err(),
            NoRelease::NoKeys
        );
        assert!(releases.public_keys().is_empty());
    }
}
