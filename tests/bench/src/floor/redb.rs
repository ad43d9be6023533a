//! Bare redb under the same group commit as our store's: one record a write, nothing else.
//!
//! Sixteen threads hand records to one writer, which takes whatever waits into one transaction,
//! commits it durably and answers. No audit, no history, no conditions, no watch, no HTTP.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use redb::{Database, TableDefinition};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("bare");
/// The size of a host's record as our store writes it, rounded up.
const RECORD: usize = 512;

type Write = (Vec<u8>, mpsc::SyncSender<()>);

/// Durable writes a second with `writers` at once.
pub(crate) fn writes_per_second(
    file: &Path,
    writers: usize,
    warm_up: Duration,
    measure: Duration,
) -> Result<f64> {
    let database = Database::create(file).context("create a bare database")?;
    let (give, take) = mpsc::sync_channel::<Write>(writers);
    let stop = Arc::new(AtomicBool::new(false));
    let begin = Instant::now() + warm_up;
    let counted = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let (give, stop) = (give.clone(), Arc::clone(&stop));
                scope.spawn(move || {
                    let mut counted = 0u64;
                    for number in 0u64.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        // Each writer turns over a hundred records, as updates of hosts do.
                        let key = format!("host/{writer:02}-{:04}", number % 100).into_bytes();
                        let (done, wait) = mpsc::sync_channel(1);
                        if give.send((key, done)).is_err() || wait.recv().is_err() {
                            break;
                        }
                        counted += u64::from(Instant::now() >= begin);
                    }
                    counted
                })
            })
            .collect();
        drop(give);
        let database = &database;
        let writer = scope.spawn(move || write(database, &take));
        std::thread::sleep(warm_up + measure);
        stop.store(true, Ordering::Relaxed);
        let counted: u64 = threads.into_iter().filter_map(|it| it.join().ok()).sum();
        writer
            .join()
            .map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        anyhow::Ok(counted)
    })?;
    #[expect(clippy::cast_precision_loss, reason = "a count of writes")]
    Ok(counted as f64 / measure.as_secs_f64())
}

fn write(database: &Database, take: &mpsc::Receiver<Write>) -> Result<()> {
    let value = [0x5a; RECORD];
    while let Ok(first) = take.recv() {
        let group: Vec<Write> = std::iter::once(first).chain(take.try_iter()).collect();
        let mut transaction = database.begin_write()?;
        // As our store does it: opening after a crash must not read the whole file.
        transaction.set_quick_repair(true);
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, _) in &group {
                table.insert(key.as_slice(), value.as_slice())?;
            }
        }
        transaction.commit()?;
        for (_, done) in group {
            // Nobody may be waiting any more.
            let _ = done.send(());
        }
    }
    Ok(())
}
