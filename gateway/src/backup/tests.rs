//! Backups of a small state: whole, cut, changed, newer, and put in place.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gateway_store::{
    Batch, Digest, OpenOptions, Read as StoreRead, RedbStore, Store as _, audit_list, fetch,
};
use model::Timestamp;
use model::audit_chain::{Head as ChainHead, verify as verify_chain};
use model::ids::{AgentTokenId, DeploymentId, UserId, WorkspaceId};
use proptest::prelude::*;

use super::format::{Reader, Summary};
use super::part::Part;
use super::restore::{Choices, Restored, STAGING, refuse_unfinished, restore};
use super::*;
use crate::app::wall_clock;
use crate::args::Stream;
use crate::ca::CertificateAuthority;
use crate::ca::https::HttpsSource;
use crate::commands;
use crate::keys::ServerKeys;
use crate::state::change::{DEPLOYMENT_CHAIN, Origin};
use crate::state::records::{RestoredRecordV1, TokenRecordV1, key_of};

const OBJECT: &[u8] = b"a recording";

struct World {
    root: tempfile::TempDir,
    deployment: DeploymentId,
    live: AgentTokenId,
    revoked: AgentTokenId,
}

impl World {
    /// A state folder as a gateway leaves it, and an object.
    fn new() -> Self {
        let now = wall_clock();
        let world = Self {
            root: tempfile::tempdir().unwrap(),
            deployment: DeploymentId::new(now, [1; 10]),
            live: AgentTokenId::new(now, [2; 10]),
            revoked: AgentTokenId::new(now, [3; 10]),
        };
        let state = world.state();
        crate::files::ensure_private_dir(&state).unwrap();
        let deployment = format!("{}\n", world.deployment);
        crate::files::write_private(&Part::Deployment.path(&state), deployment.as_bytes()).unwrap();
        ServerKeys::load_or_create(&state.join("keys")).unwrap();
        let https = HttpsSource::Internal("https://gateway.example:8443".parse().unwrap());
        CertificateAuthority::load_or_create(&state.join("ca"), world.deployment, https, now)
            .unwrap();
        let object = Part::Object(*Digest::of(OBJECT).as_bytes()).path(&state);
        fs::create_dir_all(object.parent().unwrap()).unwrap();
        fs::write(&object, OBJECT).unwrap();
        fs::write(object.with_file_name("staged"), "no object").unwrap();
        let store = open(&state, world.deployment);
        for token in [world.live, world.revoked] {
            let mut batch = Batch::new();
            let record = world.token(token);
            batch
                .put_record(&key_of::<TokenRecordV1>(token), &record)
                .unwrap();
            Origin::gateway()
                .entry(now, "agent_token.create")
                .on(token)
                .in_deployment(&mut batch);
            run(store.commit(batch)).unwrap();
        }
        world
    }

    fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    fn token(&self, id: AgentTokenId) -> TokenRecordV1 {
        TokenRecordV1 {
            id,
            workspace: WorkspaceId::new(Timestamp::from_millis(1), [4; 10]),
            digest: [5; 32],
            description: Default::default(),
            long_living: false,
            created_by: UserId::new(Timestamp::from_millis(1), [6; 10]),
            created_at: wall_clock(),
            expires_at: wall_clock().saturating_add(std::time::Duration::from_secs(3600)),
            revoked_at: (id == self.revoked).then(wall_clock),
            use_limit: None,
            uses: 0,
            last_used_at: None,
            recent_hosts: Vec::new(),
            labels: Default::default(),
            ephemeral: false,
            replaced_by: None,
        }
    }

    fn backup(&self) -> Vec<u8> {
        let taken = take::of_stopped(&self.state(), wall_clock()).unwrap();
        taken.write(Vec::new()).unwrap()
    }
}

fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

fn open(state: &Path, deployment: DeploymentId) -> RedbStore {
    let keys = ServerKeys::load(&state.join("keys")).unwrap();
    let options = OpenOptions::new(keys.audit_key()).deployment(deployment.to_bytes());
    RedbStore::open(Part::Store.path(state), options).unwrap()
}

fn restored(backup: &[u8], dir: &Path) -> Result<Restored, BackupError> {
    restore(backup, dir, Choices::default(), SystemTime::now())
}

fn read(backup: &[u8]) -> Result<Summary, BackupError> {
    Reader::new(backup)?.finish()
}

/// The JSON of the authorities says it; everything else in the file stays.
fn trust_version(state: &Path) -> u64 {
    let bytes = fs::read(Part::Authorities.path(state)).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    json["trust_version"].as_u64().unwrap()
}

#[test]
fn a_restored_state_is_the_one_that_was_backed_up_and_knows_that_it_was_restored() {
    let world = World::new();
    let backup = world.backup();
    let summary = read(&backup).unwrap();
    assert_eq!(
        (
            summary.objects,
            summary.head.deployment,
            summary.head.running
        ),
        (1, world.deployment, false)
    );
    assert_eq!(summary.file_bytes, backup.len() as u64);
    assert!(backup.starts_with(b"loopback-backup 1 (holds the secrets"));

    let dir = world.root.path().join("elsewhere");
    let restored = restored(&backup, &dir).unwrap();
    assert_eq!((restored.live_tokens, restored.revoked_tokens), (1, 0));
    for part in [
        Part::Deployment,
        Part::ServerKey,
        Part::HttpsKey,
        Part::Object(*Digest::of(OBJECT).as_bytes()),
    ] {
        let (old, new) = (part.path(&world.state()), part.path(&dir));
        assert_eq!(fs::read(old).unwrap(), fs::read(&new).unwrap(), "{part}");
        let mode = fs::metadata(&new).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{part}");
    }
    assert!(!dir.join(STAGING).exists());

    let store = open(&dir, world.deployment);
    let key = RestoredRecordV1::the_key();
    let record = run(fetch::<RestoredRecordV1>(
        &store,
        &key,
        StoreRead::Linearizable,
    ));
    let record = record.unwrap().unwrap().record;
    assert_eq!(record.incarnation, restored.incarnation);
    assert_eq!(record.backup_revision, summary.head.revision);
    assert!(restored.incarnation > summary.head.revision);
    let key = key_of::<TokenRecordV1>(world.revoked);
    let token = run(fetch::<TokenRecordV1>(
        &store,
        &key,
        StoreRead::Linearizable,
    ));
    assert!(token.unwrap().unwrap().record.revoked_at.is_some());

    let entries = run(audit_list(&store, DEPLOYMENT_CHAIN, 0, 100))
        .unwrap()
        .entries;
    let chain = ServerKeys::load(&dir.join("keys"))
        .unwrap()
        .audit_key()
        .chain_key(DEPLOYMENT_CHAIN);
    verify_chain(&chain, DEPLOYMENT_CHAIN, &entries, ChainHead::EMPTY, None).unwrap();
    assert_eq!(entries.len(), 3);
    let last = String::from_utf8_lossy(&entries[2].body).into_owned();
    assert!(last.contains("system.restored"), "{last}");
}

#[test]
fn a_stopped_gateway_is_backed_up_by_the_command_and_no_file_is_overwritten() {
    let world = World::new();
    let path = world.root.path().join("file.backup");
    let file = Stream::File(path.clone());
    let (mut notes, mut out) = (Vec::new(), Vec::new());
    commands::backup(&world.state(), &file, &mut notes).unwrap();
    assert!(String::from_utf8_lossy(&notes).contains("not encrypted"));
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let error = commands::backup(&world.state(), &file, &mut notes).unwrap_err();
    assert_eq!(error.code(), "file_exists");
    let parts = fs::read_dir(world.root.path()).unwrap().count();
    assert_eq!(parts, 2, "the state and the backup, and no temporary file");

    commands::verify(&file, &mut out).unwrap();
    let dir = world.root.path().join("elsewhere");
    commands::restore(&file, &dir, Choices::default(), &mut out).unwrap();
    let out = String::from_utf8_lossy(&out);
    assert!(out.contains("1 can be used"), "{out}");
    open(&dir, world.deployment);
}

#[test]
fn each_restore_of_a_backup_begins_a_later_life() {
    let world = World::new();
    let backup = world.backup();
    let (mut incarnation, mut trust) = (0, trust_version(&world.state()));
    for life in 0..3 {
        let dir = world.root.path().join(life.to_string());
        let restored = restored(&backup, &dir).unwrap();
        assert!(restored.incarnation > incarnation);
        assert!(
            trust_version(&dir) > trust,
            "hosts take the restored bundle"
        );
        incarnation = restored.incarnation;
        trust = trust_version(&dir);
        assert!(open(&dir, world.deployment).rev().number() > incarnation);
    }
    // A backup of a restored state knows which life it is of.
    let dir = world.root.path().join("2");
    let again = take::of_stopped(&dir, wall_clock()).unwrap();
    assert_eq!(again.head().incarnation, incarnation);
}

#[test]
fn every_token_is_revoked_when_that_is_chosen() {
    let world = World::new();
    let dir = world.root.path().join("elsewhere");
    let choices = Choices {
        revoke_tokens: true,
    };
    let restored = restore(&*world.backup(), &dir, choices, SystemTime::now()).unwrap();
    assert_eq!((restored.live_tokens, restored.revoked_tokens), (0, 1));
    let store = open(&dir, world.deployment);
    let key = key_of::<TokenRecordV1>(world.live);
    let token = run(fetch::<TokenRecordV1>(
        &store,
        &key,
        StoreRead::Linearizable,
    ));
    assert!(token.unwrap().unwrap().record.revoked_at.is_some());
}

#[test]
fn a_backup_cut_anywhere_is_refused_and_nothing_is_left() {
    let world = World::new();
    let backup = world.backup();
    for length in 0..backup.len() {
        let error = read(&backup[..length]).unwrap_err();
        let known = ["backup_truncated", "backup_not_recognised"];
        assert!(known.contains(&error.code()), "{length}: {error}");
    }
    let dir = world.root.path().join("elsewhere");
    for length in (0..backup.len()).step_by(backup.len() / 23) {
        restored(&backup[..length], &dir).unwrap_err();
        let left = fs::read_dir(&dir).map_or(0, Iterator::count);
        assert_eq!(left, 0, "cut at {length}");
    }
}

#[test]
fn what_is_no_backup_or_a_later_one_is_told_apart() {
    let world = World::new();
    let backup = world.backup();
    let text = String::from_utf8_lossy(&backup[..40]).into_owned();
    assert!(text.starts_with("loopback-backup 1"));
    let edit = |from: &[u8], to: &[u8]| {
        let at = backup
            .windows(from.len())
            .position(|window| window == from)
            .unwrap();
        let mut edited = backup.clone();
        edited[at..at + from.len()].copy_from_slice(to);
        edited
    };
    let mut longer = backup.clone();
    longer.push(0);
    for (file, code) in [
        (b"PK\x03\x04 a zip file".to_vec(), "backup_not_recognised"),
        (edit(b"backup 1", b"backup 2"), "backup_newer"),
        (
            edit(b"\"store_format\":1", b"\"store_format\":9"),
            "backup_newer",
        ),
        (edit(b"server-key", b"server-kex"), "backup_damaged"),
        (
            edit(b"loopback-server-key", b"loopback-server-kez"),
            "backup_damaged",
        ),
        (longer, "backup_damaged"),
    ] {
        assert_eq!(read(&file).unwrap_err().code(), code);
        let dir = world.root.path().join("elsewhere");
        assert_eq!(restored(&file, &dir).unwrap_err().code(), code);
        assert_eq!(fs::read_dir(&dir).map_or(0, Iterator::count), 0);
    }
}

#[test]
fn only_an_empty_folder_takes_a_restore_and_an_unfinished_one_is_begun_anew() {
    let world = World::new();
    let backup = world.backup();
    let error = restored(&backup, &world.state()).unwrap_err();
    assert_eq!(error.code(), "state_dir_not_empty");
    open(&world.state(), world.deployment);

    // Wherever a crash cut the moving: some parts are in place, the rest is staged.
    let dir = world.root.path().join("elsewhere");
    restored(&backup, &dir).unwrap();
    let staging = dir.join(STAGING);
    fs::create_dir(&staging).unwrap();
    for name in [crate::serve::STORE_FILE, "keys", "deployment"] {
        fs::rename(dir.join(name), staging.join(name)).unwrap();
        let error = refuse_unfinished(&dir).unwrap_err();
        assert_eq!(error.code(), "restore_unfinished");
        assert_eq!(
            take::of_stopped(&dir, wall_clock()).unwrap_err().code(),
            "restore_unfinished"
        );
    }
    restored(&backup, &dir).unwrap();
    refuse_unfinished(&dir).unwrap();
    open(&dir, world.deployment);
}

#[test]
fn a_folder_without_a_state_has_nothing_to_back_up() {
    let root = tempfile::tempdir().unwrap();
    let error = take::of_stopped(root.path(), wall_clock()).unwrap_err();
    assert_eq!(error.code(), "state_missing");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever bit is changed wherever, it is noticed before anything is in place.
    #[test]
    fn a_changed_bit_is_always_noticed(at in any::<proptest::sample::Index>(), bit in 0..8_u32) {
        static WORLD: std::sync::OnceLock<(World, Vec<u8>)> = std::sync::OnceLock::new();
        let (world, backup) = WORLD.get_or_init(|| {
            let world = World::new();
            let backup = world.backup();
            (world, backup)
        });
        let mut changed = backup.clone();
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        prop_assert!(read(&changed).is_err());
        let dir = world.root.path().join("changed");
        prop_assert!(restored(&changed, &dir).is_err());
        prop_assert_eq!(fs::read_dir(&dir).map_or(0, Iterator::count), 0);
    }
}
