//! The journal of runs on disk. What it means is `agent_core::runs::journal`.
//!
//! ```text
//! <state_dir>/runs/
//!   life              the latest life of the gateway's state that was heard of
//!   <command id>/     a run; it appears whole, by a rename, with `accepted` or `never` in it;
//!                     its name is synced before anything starts
//!     accepted        in which boot, until when it may start
//!     never           it shall never start; synced before that is said
//!     lock            locked by the process that starts the program and watches it
//!     spawned         a program was about to be started
//!     reboot-1        it asked for a reboot; what follows is called `accepted-1`,
//!                     `spawned-1`, and so on for each
//!     ended           how it ended, as it is told to the gateway
//!     taken           the gateway has stored that; only what was said is kept from then on
//!     output-*        output that was not taken yet
//!     socket          where the watching process is found
//! ```
//!
//! One sync is all that stands between a request and its program, because the name of the
//! folder says all that a loss of power must leave: that the run was accepted. What is in
//! `accepted` matters in the boot that wrote it, where memory has it; after another boot
//! a folder without it, or with a torn one, is a run of a boot that nobody knows, which
//! is as good as any other boot: it is not started again. (With the file and the folder
//! synced too, as it was, a run took two more syncs, and no answer was another.)
//!
//! A run that was taken stays on record for as long as any command can be valid: a
//! gateway that was restored from a backup may ask for it again, and must not have it
//! twice. Its record is a few hundred bytes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use agent_core::runs::journal::{Accepted, Journal, Reboot};
use model::Timestamp;
use model::ids::CommandId;
use prost::Message;
use protocol::v1::RunEnded;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

const ACCEPTED: &str = "accepted";
const NEVER: &str = "never";
const LOCK: &str = "lock";
const SPAWNED: &str = "spawned";
const ENDED: &str = "ended";
const TAKEN: &str = "taken";
const REBOOT: &str = "reboot-";
/// Reboots that one run may ask for.
pub const MOST_REBOOTS: u32 = 8;
const LIFE: &str = "life";
/// Where the watching process listens.
pub const SOCKET: &str = "socket";
/// What files of output begin with.
pub const OUTPUT: &str = "output-";
/// What folders and files begin with that are not complete.
const UNFINISHED: &str = ".new-";
/// No record of a run is longer.
const MAX_RECORD: u64 = 64 << 10;
/// A command is valid for at most 30 days, and its end may be asked for a week longer.
const KEPT: Duration = Duration::from_secs(38 * 24 * 3600);
/// Records that are kept at most; the oldest taken ones go first.
const MOST_KEPT: usize = 20_000;

/// All runs of this host.
#[derive(Clone, Debug)]
pub struct Runs {
    folder: PathBuf,
    /// The latest life of the gateway's state, once it was read.
    life: Arc<Mutex<Option<u64>>>,
}

/// One run's folder.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

/// Held by the process that starts the program and watches it.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing it is what unlocks")] File);

#[derive(Serialize, Deserialize)]
struct RebootFile {
    boot_id: String,
    pieces: u64,
}

#[derive(Serialize, Deserialize)]
struct AcceptedFile {
    boot_id: String,
    start_before_ms: i64,
}

impl Runs {
    /// The runs beneath a state folder.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            folder: state_dir.join("runs"),
            life: Arc::default(),
        }
    }

    /// Makes their folder when it is absent. Not at the agent's start: a full disk must
    /// not keep a host from being linked.
    pub fn make_folder(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Where they lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of a command's run, be it there or not.
    pub fn of(&self, command: CommandId) -> RunFolder {
        RunFolder {
            path: self.folder.join(command.to_string()),
        }
    }

    /// Writes that a run was accepted. That it was is on disk when this returns.
    pub fn accept(&self, command: CommandId, accepted: &Accepted) -> io::Result<()> {
        let bytes = accepted_file(accepted)?;
        self.appear(command, |folder| write(&folder.join(ACCEPTED), &bytes))
    }

    /// Writes that a run shall never start. Everything is on disk when this returns.
    pub fn never(&self, command: CommandId) -> io::Result<()> {
        self.appear(command, |folder| {
            write_synced(&folder.join(NEVER), b"")?;
            File::open(folder)?.sync_all()
        })
    }

    fn appear(
        &self,
        command: CommandId,
        fill: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.folder.join(format!("{UNFINISHED}{number}-{command}"));
        let placed = (|| {
            let _ = fs::remove_dir_all(&unfinished);
            DirBuilder::new().mode(0o700).create(&unfinished)?;
            fill(&unfinished)?;
            // Does not replace: a folder that is not empty cannot be renamed over.
            fs::rename(&unfinished, self.folder.join(command.to_string()))
        })();
        if placed.is_err() {
            let _ = fs::remove_dir_all(&unfinished);
            return placed;
        }
        File::open(&self.folder)?.sync_all()
    }

    /// Takes note of a life of the gateway's state. `false` if a later one was heard
    /// of: who speaks is a gateway that has been restored over.
    pub fn hear_life(&self, life: u64) -> io::Result<bool> {
        self.make_folder()?;
        let mut latest = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match *latest {
            Some(known) => known,
            None => self.recorded_life()?,
        };
        if life > known {
            replace(&self.folder, LIFE, life.to_string().as_bytes())?;
        }
        *latest = Some(known.max(life));
        Ok(life >= known)
    }

    fn recorded_life(&self) -> io::Result<u64> {
        match read_bounded(&self.folder.join(LIFE)) {
            Ok(bytes) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .ok_or_else(|| io::Error::other("the record of the gateway's life is damaged")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Deletes what nobody can ask for any more, and what a crash left half made.
    pub fn sweep(&self, now: SystemTime) -> io::Result<()> {
        let mut taken = Vec::new();
        if !self.folder.try_exists()? {
            return Ok(());
        }
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(UNFINISHED) {
                let _ = fs::remove_dir_all(entry.path());
                continue;
            }
            let Ok(command) = name.parse::<CommandId>() else {
                continue;
            };
            let run = self.of(command);
            let age = entry
                .metadata()
                .and_then(|it| it.modified())
                .ok()
                .and_then(|at| now.duration_since(at).ok())
                .unwrap_or_default();
            if age > KEPT && !run.is_locked() {
                let _ = fs::remove_dir_all(&run.path);
            } else if run.has(TAKEN) || run.has(NEVER) {
                taken.push((age, run));
            }
        }
        taken.sort_by_key(|(age, _)| *age);
        for (_, run) in taken.drain(MOST_KEPT.min(taken.len())..) {
            let _ = fs::remove_dir_all(&run.path);
        }
        Ok(())
    }
}

impl RunFolder {
    /// A folder by its path.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    /// What the journal says.
    pub fn read(&self) -> io::Result<Journal> {
        if !self.path.try_exists()? {
            return Ok(Journal::default());
        }
        let reboots = self.reboots();
        let never = self.has(NEVER);
        let accepted = match read_bounded(&self.path.join(after(ACCEPTED, reboots))) {
            Ok(bytes) => {
                // A record that makes no sense proves that there was one, in no boot
                // that we know: such a run is not started.
                let file = serde_json::from_slice(&bytes).unwrap_or(AcceptedFile {
                    boot_id: String::new(),
                    start_before_ms: 0,
                });
                Some(Accepted {
                    boot_id: file.boot_id,
                    start_before: Timestamp::from_millis(file.start_before_ms),
                })
            }
            // Of a folder that is there, power has taken what was in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && reboots == 0 && !never => {
                Some(Accepted {
                    boot_id: String::new(),
                    start_before: Timestamp::from_millis(0),
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Journal {
            never,
            accepted,
            spawned: self.has(&after(SPAWNED, reboots)),
            ended: self.has(ENDED),
            reboot: (reboots > 0).then(|| Reboot {
                count: reboots,
                boot_id: self.reboot(reboots).boot_id,
            }),
        })
    }

    /// How many reboots it has asked for.
    pub fn reboots(&self) -> u32 {
        let asked = |count: &u32| self.has(&format!("{REBOOT}{count}"));
        (1..=MOST_REBOOTS).take_while(asked).last().unwrap_or(0)
    }

    /// Pieces of output that were written before the latest reboot.
    pub fn pieces_before(&self) -> u64 {
        match self.reboots() {
            0 => 0,
            count => self.reboot(count).pieces,
        }
    }

    /// A record that makes no sense is of no boot that we know.
    fn reboot(&self, count: u32) -> RebootFile {
        let bytes = read_bounded(&self.path.join(format!("{REBOOT}{count}")));
        let file = bytes
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        file.unwrap_or(RebootFile {
            boot_id: String::new(),
            pieces: 0,
        })
    }

    /// Writes that it asks for a reboot. On disk when this returns.
    pub fn ask_reboot(&self, _lock: &Lock, boot_id: &str, pieces: u64) -> io::Result<u32> {
        let count = self.reboots() + 1;
        let file = RebootFile {
            boot_id: boot_id.to_owned(),
            pieces,
        };
        replace(
            &self.path,
            &format!("{REBOOT}{count}"),
            &serde_json::to_vec(&file)?,
        )?;
        Ok(count)
    }

    /// Writes that it is accepted again, after a reboot. On disk when this returns.
    pub fn accept_again(&self, accepted: &Accepted) -> io::Result<()> {
        let name = after(ACCEPTED, self.reboots());
        replace(&self.path, &name, &accepted_file(accepted)?)
    }

    /// Takes the lock, unless another process has it.
    pub fn lock(&self) -> io::Result<Option<Lock>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path.join(LOCK))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a process starts or watches the program.
    pub fn is_locked(&self) -> bool {
        let Ok(file) = File::open(self.path.join(LOCK)) else {
            return false;
        };
        // Shared, so that two who look do not see each other.
        flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    }

    /// Writes that a program is about to be started. An error if one was before.
    pub fn spawned(&self, _lock: &Lock) -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path.join(after(SPAWNED, self.reboots())))
            .map(drop)
    }

    /// Writes how it ended. On disk when this returns.
    pub fn end(&self, _lock: &Lock, ended: &RunEnded) -> io::Result<()> {
        replace(&self.path, ENDED, &ended.encode_to_vec())
    }

    /// How it ended.
    pub fn ended(&self) -> io::Result<RunEnded> {
        let bytes = read_bounded(&self.path.join(ENDED))?;
        RunEnded::decode(&bytes[..])
            .map_err(|_| io::Error::other("the record of the run's end is damaged"))
    }

    /// Writes that the gateway has stored the end, and deletes the output.
    pub fn take(&self) -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path.join(TAKEN))?;
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let keep = [ACCEPTED, NEVER, LOCK, SPAWNED, ENDED, TAKEN, REBOOT];
            let kept = |name: &str| keep.iter().any(|it| name.starts_with(it));
            if !name.to_str().is_some_and(kept) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// What a file is called after so many reboots.
fn after(name: &str, reboots: u32) -> String {
    match reboots {
        0 => name.to_owned(),
        count => format!("{name}-{count}"),
    }
}

fn accepted_file(accepted: &Accepted) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&AcceptedFile {
        boot_id: accepted.boot_id.clone(),
        start_before_ms: accepted.start_before.as_millis(),
    })?)
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_RECORD).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    written(path, bytes).map(drop)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    written(path, bytes)?.sync_all()
}

fn written(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    Ok(file)
}

/// Puts a file in place whole.
fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = folder.join(format!("{UNFINISHED}{name}"));
    let placed =
        write_synced(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, folder.join(name)));
    if placed.is_err() {
        let _ = fs::remove_file(&unfinished);
        return placed;
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use agent_core::runs::journal::{Asked, Lost, Now, Verdict, decide};

    use super::*;

    fn runs() -> (tempfile::TempDir, Runs, CommandId) {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::new(folder.path());
        runs.make_folder().unwrap();
        let command = "cmd_01jd0000000000000000000001".parse().unwrap();
        (folder, runs, command)
    }

    fn accepted() -> Accepted {
        Accepted {
            boot_id: "one".to_owned(),
            start_before: Timestamp::from_millis(60_000),
        }
    }

    #[test]
    fn a_run_is_accepted_once() {
        let (_folder, runs, command) = runs();
        assert_eq!(runs.of(command).read().unwrap(), Journal::default());
        runs.accept(command, &accepted()).unwrap();
        assert!(runs.accept(command, &accepted()).is_err());
        assert!(runs.never(command).is_err());
        let journal = runs.of(command).read().unwrap();
        assert_eq!(journal.accepted, Some(accepted()));
        assert!(!journal.never && !journal.spawned && !journal.ended);
    }

    #[test]
    fn a_run_of_which_power_left_a_name_is_not_started_again() {
        for left in [None, Some(""), Some("{\"boot_id\":\"on")] {
            let (_folder, runs, command) = runs();
            runs.accept(command, &accepted()).unwrap();
            let run = runs.of(command);
            match left {
                None => fs::remove_file(run.path().join(ACCEPTED)).unwrap(),
                Some(torn) => fs::write(run.path().join(ACCEPTED), torn).unwrap(),
            }
            let now = Now {
                time: Timestamp::from_millis(0),
                boot_id: "two",
                locked: false,
            };
            let asked = Asked::Run {
                start_before: Timestamp::from_millis(60_000),
            };
            let verdict = decide(&run.read().unwrap(), asked, now);
            assert_eq!(verdict, Verdict::EndLost(Lost::Rebooted), "{left:?}");
        }
    }

    #[test]
    fn one_process_watches_a_run_and_starts_it_once() {
        let (_folder, runs, command) = runs();
        runs.accept(command, &accepted()).unwrap();
        let run = runs.of(command);
        assert!(!run.is_locked());
        let lock = run.lock().unwrap().unwrap();
        assert!(run.is_locked() && run.lock().unwrap().is_none());
        run.spawned(&lock).unwrap();
        assert!(run.spawned(&lock).is_err());
        let ended = RunEnded {
            code: Some(3),
            ..RunEnded::default()
        };
        run.end(&lock, &ended).unwrap();
        drop(lock);
        assert!(!run.is_locked());
        assert_eq!(run.ended().unwrap(), ended);
        let journal = run.read().unwrap();
        assert!(journal.spawned && journal.ended);
    }

    #[test]
    fn what_was_taken_stays_on_record_without_its_output() {
        let (_folder, runs, command) = runs();
        runs.accept(command, &accepted()).unwrap();
        let run = runs.of(command);
        let lock = run.lock().unwrap().unwrap();
        run.end(&lock, &RunEnded::default()).unwrap();
        fs::write(run.path().join("output-0-0"), b"x").unwrap();
        run.take().unwrap();
        assert!(!run.path().join("output-0-0").exists());
        drop(lock);
        runs.sweep(SystemTime::now()).unwrap();
        assert!(run.read().unwrap().ended);
        runs.sweep(SystemTime::now() + KEPT + KEPT).unwrap();
        assert_eq!(run.read().unwrap(), Journal::default());
    }

    #[test]
    fn after_each_reboot_the_journal_begins_anew() {
        let (_folder, runs, command) = runs();
        runs.accept(command, &accepted()).unwrap();
        let run = runs.of(command);
        let lock = run.lock().unwrap().unwrap();
        run.spawned(&lock).unwrap();
        assert_eq!(run.ask_reboot(&lock, "one", 7).unwrap(), 1);
        let journal = run.read().unwrap();
        assert_eq!((journal.accepted, journal.spawned), (None, false));
        assert_eq!(journal.reboot.unwrap().boot_id, "one");
        assert_eq!(run.pieces_before(), 7);
        let again = Accepted {
            boot_id: "two".to_owned(),
            ..accepted()
        };
        run.accept_again(&again).unwrap();
        run.spawned(&lock).unwrap();
        assert!(run.spawned(&lock).is_err());
        let journal = run.read().unwrap();
        assert_eq!((journal.accepted, journal.spawned), (Some(again), true));
        assert_eq!(run.ask_reboot(&lock, "two", 9).unwrap(), 2);
    }

    #[test]
    fn a_record_that_makes_no_sense_starts_nothing() {
        let (_folder, runs, command) = runs();
        runs.accept(command, &accepted()).unwrap();
        fs::write(runs.of(command).path().join(ACCEPTED), b"{").unwrap();
        let journal = runs.of(command).read().unwrap();
        assert_eq!(journal.accepted.unwrap().boot_id, "");
    }

    #[test]
    fn an_earlier_life_of_the_gateway_is_known_for_good() {
        let (folder, runs, _) = runs();
        assert!(runs.hear_life(2).unwrap());
        assert!(runs.hear_life(2).unwrap());
        let runs = Runs::new(folder.path());
        assert!(!runs.hear_life(1).unwrap());
        assert!(runs.hear_life(3).unwrap());
    }
}
