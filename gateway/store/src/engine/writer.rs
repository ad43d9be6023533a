//! The one thread that writes.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLockWriteGuard};
use std::time::{Duration, Instant};

use redb::Database;

use super::apply::{Applied, Applier, Context, Refused};
use super::export::Export;
use super::open::{self, OpenOptions, Verify};
use super::queue::{Answer, Job, Taken};
use super::tables::Snapshot;
use super::{Counters, Shared, tables};
use crate::{Batch, CommitError, LeaseId, Rev, Unavailable};

/// How long after an error the writer tries again by itself, for reads and
/// leases that cannot wait for the next batch.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    shared: Arc<Shared>,
    options: OpenOptions,
    /// `None` while the file could not be opened again after an error.
    db: Option<Database>,
    /// The revision of the last group on disk.
    rev: Rev,
    /// Leases that have ended and whose keys are not deleted yet.
    ending: BTreeSet<LeaseId>,
    /// Something is owed and failed before.
    retry_at: Option<Instant>,
    /// The next open has to look at every page.
    suspicious: bool,
    /// Why the file is not opened again by this process.
    given_up: Option<Unavailable>,
}

/// A group as it would be, and what each batch would be told.
struct Written {
    applied: Applied,
    answers: Vec<Result<Rev, CommitError>>,
}

type Waiting = (Batch, Answer, tokio::sync::OwnedSemaphorePermit);

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, db: Database, rev: Rev, options: OpenOptions) -> Self {
        Self {
            shared,
            options,
            db: Some(db),
            rev,
            ending: BTreeSet::new(),
            retry_at: None,
            suspicious: false,
            given_up: None,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let Taken { jobs, over } = self.shared.queue.take(self.deadline());
            let mut group = Vec::with_capacity(jobs.len());
            for job in jobs {
                match job {
                    Job::Commit {
                        batch,
                        answer,
                        _permit,
                    } => group.push((batch, answer, _permit)),
                    Job::EndLease(id) => {
                        self.ending.insert(id);
                    }
                    Job::Export(answer) => {
                        let _ = answer.send(self.export()); // Nobody may be waiting.
                    }
                }
            }
            self.ending
                .extend(self.shared.leases.take_expired(Instant::now()));
            if over {
                break;
            }
            let due = self.retry_at.is_some_and(|at| at <= Instant::now());
            if !group.is_empty() || (!self.ending.is_empty() && self.retry_at.is_none()) || due {
                self.write(group);
            }
        }
        self.shared.history.close();
        *self.snapshot() = Err(Unavailable::Closed);
        if let Some(Err(error)) = self.db.map(Database::close) {
            // Everything acknowledged is synced; the next open repairs the rest.
            tracing::warn!(%error, "the store did not close cleanly");
        }
    }

    fn export(&mut self) -> Result<Export, Unavailable> {
        self.ensure_open()?;
        let db = self.db.as_ref().ok_or(Unavailable::Closed)?;
        catch_unwind(AssertUnwindSafe(|| Export::begin(db))).unwrap_or_else(|_panic| {
            Err(Unavailable::Corrupt(
                "its pages do not fit together".to_owned(),
            ))
        })
    }

    fn deadline(&self) -> Option<Instant> {
        [self.shared.leases.next_deadline(), self.retry_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Writes one group and answers it, whatever happens.
    fn write(&mut self, group: Vec<Waiting>) {
        let started = Instant::now();
        self.retry_at = None;
        let outcome = self
            .ensure_open()
            .map_err(CommitError::from)
            .and_then(|()| {
                let mut prepared = None;
                let header_writes = self.shared.disk.header_writes();
                match self.attempt(&group, &mut prepared) {
                    Ok(()) => Ok(prepared),
                    Err(error) => {
                        let begun = self.shared.disk.header_writes() > header_writes;
                        let prepared = prepared.filter(|_| begun);
                        match self.shared.disk.take_failed_sync() {
                            Some(failed) if !failed.full => Err(self.give_up(failed.why, begun)),
                            Some(_) => {
                                self.shared.disk.forget_cached();
                                self.recover(error, prepared)
                            }
                            None => self.recover(error, prepared),
                        }
                    }
                }
            });
        match outcome {
            Ok(written) => {
                let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                Counters::add(&self.shared.counters.writing_us, micros);
                self.acknowledge(group, written);
            }
            Err(error) => {
                if let Some(failed) = self.shared.disk.take_failed_sync()
                    && !failed.full
                {
                    // While it was opened again.
                    self.give_up(failed.why, false);
                }
                match self.given_up {
                    Some(_) => self.ending.clear(),
                    None => self.retry_at = Some(Instant::now() + RETRY),
                }
                for (_, answer, _) in group {
                    let _ = answer.send(Err(error.clone())); // Nobody may be waiting.
                }
            }
        }
    }

    fn acknowledge(&mut self, group: Vec<Waiting>, written: Option<Written>) {
        let Some(Written { applied, answers }) = written else {
            return;
        };
        let counters = &self.shared.counters;
        if applied.dirty {
            Counters::add(&counters.groups, 1);
        }
        Counters::add(&counters.batches, group.len() as u64);
        self.rev = applied.rev;
        self.ending.clear();
        for ((_, waiting, _), answer) in group.into_iter().zip(answers) {
            if matches!(answer, Err(CommitError::Conflict { .. })) {
                Counters::add(&counters.conflicts, 1);
            }
            let _ = waiting.send(answer); // Nobody may be waiting.
        }
    }

    /// One transaction. `prepared` is filled before the disk is asked to keep it.
    fn attempt(
        &self,
        group: &[Waiting],
        prepared: &mut Option<Written>,
    ) -> Result<(), Unavailable> {
        let transaction = || {
            let db = self.db.as_ref().ok_or(Unavailable::Closed)?;
            let mut txn = db.begin_write().map_err(tables::unavailable)?;
            // Twice the fsyncs, and opening after a crash does not read the whole file.
            txn.set_quick_repair(true);
            let written = self.apply_all(&txn, group)?;
            let written = prepared.insert(written);
            if !written.applied.dirty {
                return txn.abort().map_err(tables::unavailable);
            }
            txn.commit().map_err(tables::unavailable)?;
            let new = Snapshot::new(db)?;
            let mut snapshot = self.snapshot();
            self.shared.show(&mut snapshot, new, &mut written.applied);
            Ok(())
        };
        catch_unwind(AssertUnwindSafe(transaction)).unwrap_or_else(|_panic| {
            Err(Unavailable::Corrupt(
                "its pages do not fit together".to_owned(),
            ))
        })
    }

    fn apply_all(
        &self,
        txn: &redb::WriteTransaction,
        group: &[Waiting],
    ) -> Result<Written, Unavailable> {
        let context = Context {
            audit_key: &self.options.audit_key,
            leases: &self.shared.leases,
            requests: self.options.requests,
            now: Instant::now(),
            seconds: (self.options.clock)(),
        };
        let mut applier = Applier::new(txn)?;
        for lease in &self.ending {
            applier.end_lease(*lease)?;
        }
        let mut answers = Vec::with_capacity(group.len());
        for (batch, _, _) in group {
            answers.push(match applier.apply(&context, batch) {
                Ok(rev) => Ok(rev),
                Err(Refused::Batch(error)) => Err(error),
                Err(Refused::Disk(error)) => return Err(error),
            });
        }
        Ok(Written {
            applied: applier.finish()?,
            answers,
        })
    }

    /// After a sync that failed. Trying it again would succeed and mean nothing, and
    /// opening the file in here would trust what this process and the kernel
    /// remember of it. So the file is closed, and whoever owns the store is told to
    /// end and start anew ([`RedbStore::failed`](super::RedbStore::failed)).
    fn give_up(&mut self, why: String, begun: bool) -> CommitError {
        tracing::error!(
            error = %why, rev = %self.rev,
            "the disk did not confirm a write; the store stops and must be opened anew"
        );
        let why = Unavailable::SyncFailed(why);
        let shared = Arc::clone(&self.shared);
        let mut snapshot = lock_snapshot(&shared);
        *snapshot = Err(why.clone());
        drop(self.db.take()); // It is broken already: closing it has no error to tell.
        // Closing wrote and synced once more, to no avail or to some: nobody waits for it.
        shared.disk.take_failed_sync();
        shared.disk.forget_cached();
        drop(snapshot);
        self.given_up = Some(why.clone());
        shared.failed.send_replace(Some(why.clone()));
        match begun {
            true => CommitError::Unknown,
            false => why.into(),
        }
    }

    /// Closes the file, opens it like after a crash, and looks whether the group
    /// is in it. `prepared` is the group if its commit had begun.
    ///
    /// A sync that failed comes here only when the disk was full. That is sound
    /// because redb commits in two phases and what the kernel remembers was dropped:
    /// what the failed first phase wrote is referenced by nothing and written anew
    /// by whoever needs the pages; the second is one byte in the header, which
    /// opening the file writes and syncs again.
    fn recover(
        &mut self,
        error: Unavailable,
        prepared: Option<Written>,
    ) -> Result<Option<Written>, CommitError> {
        tracing::error!(%error, rev = %self.rev, "the store could not write; opening it again");
        self.suspicious |= matches!(error, Unavailable::Corrupt(_));
        let mut prepared = prepared;
        let reopened = self.reopen(prepared.as_mut());
        match (prepared, reopened) {
            (Some(written), Ok(true)) => Ok(Some(written)),
            (Some(_), Err(_)) => Err(CommitError::Unknown),
            (None | Some(_), Ok(_) | Err(_)) => Err(error.into()),
        }
    }

    fn ensure_open(&mut self) -> Result<(), Unavailable> {
        match (&self.given_up, &self.db) {
            (Some(why), _) => Err(why.clone()),
            (None, Some(_)) => Ok(()),
            (None, None) => self.reopen(None).map(|_| ()),
        }
    }

    /// Closes the file and opens it again; whether `prepared` is in it. Readers
    /// wait meanwhile: what they would read is being closed.
    fn reopen(&mut self, prepared: Option<&mut Written>) -> Result<bool, Unavailable> {
        let shared = Arc::clone(&self.shared);
        let mut snapshot = lock_snapshot(&shared);
        *snapshot = Err(Unavailable::Closed);
        drop(self.db.take()); // It is broken already: closing it has no error to tell.
        if shared.disk.take_failed_sync().is_some() {
            shared.disk.forget_cached();
        }
        let verify = if self.suspicious {
            Verify::Always
        } else {
            Verify::UpTo(0)
        };
        let reopened = match open::reopen(&shared.disk, &self.options, verify) {
            Ok((_, found)) if found.rev() < self.rev => Err(Unavailable::Corrupt(format!(
                "the file is at revision {}, {} was acknowledged",
                found.rev(),
                self.rev
            ))),
            reopened => reopened,
        };
        let (db, found) = reopened.inspect_err(|error| {
            tracing::error!(%error, "the store could not be opened again");
            *snapshot = Err(error.clone());
        })?;
        self.db = Some(db);
        self.suspicious = false;
        Counters::add(&shared.counters.reopened, 1);
        tracing::info!(rev = %found.rev(), "the store is open again");

        let before = std::mem::replace(&mut self.rev, found.rev());
        match prepared {
            Some(written) if self.rev > before && self.rev == written.applied.rev => {
                shared.show(&mut snapshot, found, &mut written.applied);
                Ok(true)
            }
            Some(_) | None => {
                if self.rev > before {
                    // A group that was answered with `Unknown` did happen.
                    shared.history.forget(self.rev);
                }
                *snapshot = Ok(Arc::new(found));
                Ok(false)
            }
        }
    }

    fn snapshot(&self) -> SnapshotGuard<'_> {
        lock_snapshot(&self.shared)
    }
}

impl Shared {
    /// Makes a group visible. Under the lock, so that whoever reads the new state
    /// finds it in the history, and whoever is told of it can read it.
    fn show(&self, snapshot: &mut SnapshotGuard<'_>, new: Snapshot, applied: &mut Applied) {
        **snapshot = Ok(Arc::new(new));
        self.history
            .publish(std::mem::take(&mut applied.changes), applied.rev);
    }
}

type SnapshotGuard<'a> = RwLockWriteGuard<'a, Result<Arc<Snapshot>, Unavailable>>;

fn lock_snapshot(shared: &Shared) -> SnapshotGuard<'_> {
    // The writer replaces the whole value: it cannot be left half-changed.
    shared
        .snapshot
        .write()
        .unwrap_or_else(PoisonError::into_inner)
}
