//! Puts a backup in place: all of it, or nothing.
//!
//! ```text
//! DIR/                 empty, or what an unfinished restore left
//! DIR/.restore/        everything is written here, checked, fenced, synced
//! DIR/…                then each part is moved; the store, without which nothing is state, last
//! DIR/.restore/        removed: the restore is done
//! ```
//!
//! A gateway does not start while `.restore` is there, so a restore that a crash cut in
//! two is never taken for a state, and the next restore into the folder begins anew.
//! Working inside the folder, rather than beside it, needs no rights on its parent and
//! works where it is a mount point.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gateway_store::{
    Batch, Condition, Import, OpenOptions as StoreOptions, Read as StoreRead, RedbStore, Rev,
    Store, list,
};
use model::Timestamp;
use model::ids::DeploymentId;

use super::BackupError;
use super::format::{Event, Head, Reader, Summary};
use super::part::Part;
use crate::ca;
use crate::files;
use crate::keys::ServerKeys;
use crate::serve;
use crate::state::change::Origin;
use crate::state::records::{RestoredRecordV1, TokenRecordV1, all_of, key_of};

/// Where a restore works, in the state folder. While it is there, there is no state.
pub const STAGING: &str = ".restore";

/// Refuses a folder in which a restore has not come to its end.
pub fn refuse_unfinished(state: &Path) -> Result<(), BackupError> {
    if state.join(STAGING).exists() {
        return Err(BackupError::Unfinished {
            dir: state.to_owned(),
        });
    }
    Ok(())
}

/// What besides the backup decides how the restored state looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choices {
    /// Revoke every agent token: some may have been revoked after the backup was made,
    /// and hosts that have joined need none.
    pub revoke_tokens: bool,
}

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The backup.
    pub backup: Summary,
    /// The revision at which the restored life begins.
    pub incarnation: u64,
    /// Agent tokens that can be used.
    pub live_tokens: u64,
    /// Agent tokens that were revoked because it was chosen.
    pub revoked_tokens: u64,
}

/// Restores the backup in `source` into `dir`. Blocks, for as long as reading and
/// writing take. `now` is read from the clock by the caller.
///
/// # Errors
/// Whatever is wrong with the backup or the folder. Then nothing is in place, and what
/// was staged is gone, unless it could not be removed.
pub fn restore(
    source: impl Read,
    dir: &Path,
    choices: Choices,
    now: SystemTime,
) -> Result<Restored, BackupError> {
    // The backup's beginning is read before the folder is touched.
    let reader = Reader::new(io::BufReader::with_capacity(1 << 20, source))?;
    let staging = prepare(dir)?;
    let restored = stage(reader, &staging, choices, now).and_then(|restored| {
        own_like(dir, &staging)?;
        put_in_place(&staging, dir)?;
        Ok(restored)
    });
    if restored.is_err() && !dir.join(serve::STORE_FILE).exists() {
        // Best effort: what stays is refused by every start and cleared by the next restore.
        let _ = clear(dir);
    }
    restored
}

/// Makes sure that the folder is there, private and empty, and makes the staging folder.
fn prepare(dir: &Path) -> Result<PathBuf, BackupError> {
    files::ensure_private_dir(dir)?;
    let staging = dir.join(STAGING);
    if staging.exists() {
        clear(dir)?;
    }
    let mut found = fs::read_dir(dir).map_err(BackupError::io("list", dir))?;
    if let Some(entry) = found.next() {
        let entry = entry.map_err(BackupError::io("list", dir))?;
        return Err(BackupError::NotEmpty {
            dir: dir.to_owned(),
            found: entry.file_name().to_string_lossy().into_owned(),
        });
    }
    make_dir(&staging)?;
    sync(dir)?;
    Ok(staging)
}

/// Removes what an unfinished restore left: it began in an empty folder, so all of it
/// is its own. The staging folder goes last, because it says so.
fn clear(dir: &Path) -> Result<(), BackupError> {
    for entry in fs::read_dir(dir).map_err(BackupError::io("list", dir))? {
        let entry = entry.map_err(BackupError::io("list", dir))?;
        let path = entry.path();
        if entry.file_name() == STAGING {
            continue;
        }
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        };
        removed.map_err(BackupError::io("remove", &path))?;
    }
    let staging = dir.join(STAGING);
    fs::remove_dir_all(&staging).map_err(BackupError::io("remove", &staging))
}

/// Everything into the staging folder, checked, fenced and synced.
fn stage<R: Read>(
    mut reader: Reader<R>,
    staging: &Path,
    choices: Choices,
    now: SystemTime,
) -> Result<Restored, BackupError> {
    let mut import: Option<Import> = None;
    let mut file: Option<(PathBuf, File)> = None;
    while let Some(event) = reader.next_event()? {
        match event {
            Event::Begin(Part::Store) => {
                import = Some(Import::create(&Part::Store.path(staging))?);
            }
            Event::Begin(part) => {
                let path = part.path(staging);
                make_dirs(staging, &path)?;
                let made = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path);
                let made = made.map_err(BackupError::io("make", &path))?;
                file = Some((path, made));
            }
            Event::Data(data) => match (&mut file, &mut import) {
                (Some((path, file)), _) => {
                    let wrote = file.write_all(data);
                    wrote.map_err(BackupError::io("write", &*path))?;
                }
                (None, Some(import)) => import.chunk(data)?,
                (None, None) => {}
            },
            Event::End(_) => {
                if let Some((path, file)) = file.take() {
                    file.sync_all().map_err(BackupError::io("sync", &path))?;
                }
            }
        }
    }
    let backup = reader.finish()?;
    let Some(import) = import else {
        // The reader has made sure of it.
        return Err(BackupError::NotABackup);
    };
    let (rev, _) = import.finish(now)?;
    let incarnation = rev.number();
    let at = timestamp(now);
    let deployment = deployment_of(staging, &backup)?;
    ca::fence_restored(&staging.join("ca"), deployment, incarnation)?;
    let (live_tokens, revoked_tokens) =
        fence_store(staging, deployment, &backup.head, choices, rev, at)?;
    sync_all(staging)?;
    Ok(Restored {
        backup,
        incarnation,
        live_tokens,
        revoked_tokens,
    })
}

/// The deployment's id, as its own file says it.
fn deployment_of(staging: &Path, backup: &Summary) -> Result<DeploymentId, BackupError> {
    let text = files::read_private(&Part::Deployment.path(staging), 256)?.unwrap_or_default();
    let found = str::from_utf8(&text)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    match found {
        Some(deployment) if deployment == backup.head.deployment => Ok(deployment),
        Some(_) | None => Err(BackupError::Damaged {
            at: backup.file_bytes,
            what: "its parts are of different deployments".to_owned(),
        }),
    }
}

/// Writes into the restored store that it was restored, and what was chosen.
fn fence_store(
    staging: &Path,
    deployment: DeploymentId,
    head: &Head,
    choices: Choices,
    rev: Rev,
    now: Timestamp,
) -> Result<(u64, u64), BackupError> {
    let keys = ServerKeys::load(&staging.join("keys"))?;
    // Also says whether key, store and deployment belong together.
    let options = StoreOptions::new(keys.audit_key()).deployment(deployment.to_bytes());
    let store = RedbStore::open(Part::Store.path(staging), options)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| BackupError::Fence(error.into()))?;
    runtime.block_on(async {
        let record = RestoredRecordV1 {
            incarnation: rev.number(),
            at: now,
            backup_made_at: head.made_at,
            backup_revision: head.revision,
            backup_incarnation: head.incarnation,
        };
        let mut batch = Batch::new();
        batch
            .put_record(&RestoredRecordV1::the_key(), &record)
            .map_err(fence)?;
        Origin::gateway()
            .entry(now, "system.restored")
            .on(deployment)
            .with("backup_made_at", head.made_at)
            .with("backup_revision", head.revision)
            .with("backup_by_release", &head.product)
            .with("incarnation", record.incarnation)
            .with(
                "tokens",
                if choices.revoke_tokens {
                    "revoked"
                } else {
                    "as in the backup"
                },
            )
            .in_deployment(&mut batch);
        store.commit(batch).await.map_err(fence)?;
        let counts = tokens(&store, choices, now).await;
        store.close().await;
        counts
    })
}

/// Counts the live agent tokens, or revokes them.
async fn tokens(
    store: &RedbStore,
    choices: Choices,
    now: Timestamp,
) -> Result<(u64, u64), BackupError> {
    let (mut live, mut revoked) = (0, 0);
    let (all, mut after) = (all_of::<TokenRecordV1>(), None);
    loop {
        let page = list::<TokenRecordV1>(store, &all, after.as_ref(), 100, StoreRead::Linearizable);
        let page = page.await.map_err(fence)?;
        for (key, stored) in &page.records {
            let token = &stored.record;
            let usable = token.revoked_at.is_none()
                && token.expires_at > now
                && token.use_limit.is_none_or(|limit| token.uses < limit);
            if !usable {
                continue;
            }
            if !choices.revoke_tokens {
                live += 1;
                continue;
            }
            let mut batch = Batch::new();
            let record = TokenRecordV1 {
                revoked_at: Some(now),
                ..token.clone()
            };
            batch.require(key, Condition::RevIs(stored.rev));
            batch
                .put_record(&key_of::<TokenRecordV1>(token.id), &record)
                .map_err(fence)?;
            Origin::gateway()
                .entry(now, "agent_token.revoke")
                .on(token.id)
                .with("why", "restored from a backup")
                .in_workspace(token.workspace, &mut batch);
            store.commit(batch).await.map_err(fence)?;
            revoked += 1;
        }
        match page.records.last() {
            Some((key, _)) if page.more => after = Some(key.clone()),
            _ => return Ok((live, revoked)),
        }
    }
}

fn fence(error: impl std::error::Error + Send + Sync + 'static) -> BackupError {
    BackupError::Fence(Box::new(error))
}

/// Gives everything to whom the folder belongs: root restores for the gateway's user.
fn own_like(dir: &Path, staging: &Path) -> Result<(), BackupError> {
    let wanted = fs::metadata(dir).map_err(BackupError::io("look at", dir))?;
    let ours = fs::metadata(staging).map_err(BackupError::io("look at", staging))?;
    if (wanted.uid(), wanted.gid()) == (ours.uid(), ours.gid()) {
        return Ok(());
    }
    for path in tree(staging)? {
        std::os::unix::fs::chown(&path, Some(wanted.uid()), Some(wanted.gid()))
            .map_err(BackupError::io("give away", &path))?;
    }
    Ok(())
}

fn put_in_place(staging: &Path, dir: &Path) -> Result<(), BackupError> {
    let mut names: BTreeMap<bool, Vec<_>> = BTreeMap::new();
    for entry in fs::read_dir(staging).map_err(BackupError::io("list", staging))? {
        let name = entry.map_err(BackupError::io("list", staging))?.file_name();
        names
            .entry(name == serve::STORE_FILE)
            .or_default()
            .push(name);
    }
    // `false` before `true`: the store comes last.
    for name in names.into_values().flatten() {
        let to = dir.join(&name);
        fs::rename(staging.join(&name), &to).map_err(BackupError::io("put in place", &to))?;
        sync(dir)?;
    }
    fs::remove_dir(staging).map_err(BackupError::io("remove", staging))?;
    sync(dir)
}

/// The folders between `staging` and `path`.
fn make_dirs(staging: &Path, path: &Path) -> Result<(), BackupError> {
    let Some(parent) = path.parent().filter(|parent| *parent != staging) else {
        return Ok(());
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)
        .map_err(BackupError::io("make", parent))
}

fn make_dir(path: &Path) -> Result<(), BackupError> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(BackupError::io("make", path))
}

/// Every folder under `top`, so that the names in it are on disk; files were synced
/// when they were written.
fn sync_all(top: &Path) -> Result<(), BackupError> {
    for path in tree(top)? {
        if path.is_dir() {
            sync(&path)?;
        }
    }
    Ok(())
}

/// `top` and everything under it.
fn tree(top: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let mut found = vec![top.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if !path.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&path).map_err(BackupError::io("list", &path))? {
            found.push(entry.map_err(BackupError::io("list", &path))?.path());
        }
    }
    Ok(found)
}

fn sync(dir: &Path) -> Result<(), BackupError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(BackupError::io("sync", dir))
}

fn timestamp(now: SystemTime) -> Timestamp {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
