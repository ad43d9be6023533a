//! From an older format to this one, step by step.
//!
//! Each step is one transaction that changes the tables and the format's number
//! together: a crash in between leaves a file of one format or of the next. A
//! step, once released, is never edited; the files written by older releases
//! that it is tested on stay in the tests for ever.

use redb::{Database, ReadableDatabase as _, WriteTransaction};

use super::open::OpenError;
use super::tables::{self, META, meta};
use crate::Unavailable;

/// Turns the tables of one format into those of the next.
pub(super) type Migration = fn(&WriteTransaction) -> Result<(), Unavailable>;

/// `MIGRATIONS[0]` goes from format 1 to format 2, and so on.
pub(super) const MIGRATIONS: &[Migration] = &[];

/// The format of the tables that this build writes.
pub const FORMAT: u32 = format_after(MIGRATIONS);

/// The format that `migrations` lead to.
pub(super) const fn format_after(migrations: &[Migration]) -> u32 {
    // A handful of functions: the cast cannot lose anything.
    migrations.len() as u32 + 1
}

/// Brings the file to the newest format that `migrations` lead to, or refuses a
/// file that is newer than that.
pub(super) fn migrate(db: &Database, migrations: &[Migration]) -> Result<(), OpenError> {
    let supported = format_after(migrations);
    let found = format_of(db)?;
    if found > supported {
        return Err(OpenError::Newer { found, supported });
    }
    let done = usize::try_from(found - 1).unwrap_or(usize::MAX);
    for (migration, to) in migrations.iter().zip(2..).skip(done) {
        tracing::info!(format = to, "migrating the store");
        let step = |source| OpenError::Migrate { to, source };
        run(db, *migration, to).map_err(step)?;
    }
    Ok(())
}

/// The format of the file.
pub(super) fn format_of(db: &Database) -> Result<u32, OpenError> {
    let read = || {
        let snapshot = db.begin_read().map_err(tables::unavailable)?;
        let table = snapshot.open_table(META).map_err(tables::unavailable)?;
        tables::meta_bytes(&table, meta::FORMAT)
    };
    match read()?.map(u32::from_be_bytes) {
        Some(0) | None => Err(OpenError::NotAStore),
        Some(format) => Ok(format),
    }
}

fn run(db: &Database, migration: Migration, to: u32) -> Result<(), Unavailable> {
    let mut txn = db.begin_write().map_err(tables::unavailable)?;
    txn.set_quick_repair(true);
    migration(&txn)?;
    let mut table = txn.open_table(META).map_err(tables::unavailable)?;
    table
        .insert(meta::FORMAT, to.to_be_bytes().as_slice())
        .map_err(tables::unavailable)?;
    drop(table);
    txn.commit().map_err(tables::unavailable)
}
