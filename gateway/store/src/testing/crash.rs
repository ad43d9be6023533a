//! Power cuts, replayed from a recording.
//!
//! A [`Recording`] is a disk in memory that remembers every write, truncation and
//! sync in order. Between two syncs a real disk owes nothing: what was written may
//! be there or not, in any order, and of one write some sectors and not others.
//! [`Recording::image`] makes one such outcome for a cut at any point, and a
//! [`Campaign`] makes many and opens each as the next process would.
//!
//! The model: the last sync before the cut holds whole. After it every sector of
//! every write has survived or not, by itself; that covers dropped, reordered and
//! torn writes, since each sector ends up with any of the contents it was given.
//! A truncation has happened or not. Sectors are written whole: disks promise that
//! much, and redb's header relies on less (one byte).
//!
//! What is demanded of each image: it opens; it is the state after some commit that
//! is not older than the last acknowledged one, whole, with exactly the audit
//! entries of that state in a chain that verifies; it can be written; and a second
//! cut while it is being opened changes none of that.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::audit_chain::{AuditChainKey, Head, verify};
use redb::StorageBackend;

use crate::{
    AuditDraft, Batch, Disk, Key, OpenOptions, Prefix, Read, RedbStore, Rev, Store, audit_head,
    audit_list,
};

/// The unit that a disk writes whole. 4096 on many; 512 is the harder case.
const SECTOR: usize = 512;
const CHAIN: &str = "campaign";

#[derive(Clone, Debug)]
enum Op {
    Write { at: usize, data: Arc<[u8]> },
    SetLen(usize),
    Sync,
}

/// A disk in memory with a log of all that was done to it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Recording(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    now: Vec<u8>,
    /// What lay there when the recording began.
    begin: Vec<u8>,
    log: Vec<Op>,
    /// From this operation on, syncs are confirmed and not done.
    lies_from: Option<usize>,
}

impl Recording {
    /// A recording that begins with these bytes on the disk.
    pub fn on(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Recorded {
            now: bytes.clone(),
            begin: bytes,
            log: Vec::new(),
            lies_from: None,
        })))
    }

    /// The disk, to open stores on.
    pub fn disk(&self) -> Disk {
        let recording = self.clone();
        Disk::custom(move || Ok(Box::new(recording.clone()) as Box<dyn StorageBackend>))
    }

    /// How many operations were recorded: cuts lie at `0..=ops()`.
    pub fn ops(&self) -> usize {
        self.lock().log.len()
    }

    /// What the disk may hold after a power cut behind `cut` operations.
    pub fn image(&self, cut: usize, chance: &mut Chance) -> Vec<u8> {
        let recorded = self.lock();
        let log = &recorded.log[..cut];
        let truthful = recorded.lies_from.map_or(cut, |from| from.min(cut));
        let synced = log[..truthful]
            .iter()
            .rposition(|op| matches!(op, Op::Sync))
            .map_or(0, |at| at + 1);
        let mut image = recorded.begin.clone();
        for op in &log[..synced] {
            apply(&mut image, op, |_| true);
        }
        // Per image: from "nothing reached the disk" to "all of it did".
        let survival = [0, 10, 50, 90, 100][chance.below(5)];
        for op in &log[synced..] {
            apply(&mut image, op, |_| chance.below(100) < survival);
        }
        image
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does to `image` what `op` does, as far as each sector `survives`.
fn apply(image: &mut Vec<u8>, op: &Op, mut survives: impl FnMut(usize) -> bool) {
    match op {
        Op::Write { at, data } => {
            let mut from = 0;
            while from < data.len() {
                let sector = (at + from) / SECTOR;
                let to = ((sector + 1) * SECTOR - at).min(data.len());
                if survives(sector) {
                    let end = at + to;
                    if image.len() < end {
                        image.resize(end, 0);
                    }
                    image[at + from..end].copy_from_slice(&data[from..to]);
                }
                from = to;
            }
        }
        Op::SetLen(len) if survives(usize::MAX) => image.resize(*len, 0),
        Op::SetLen(_) | Op::Sync => {}
    }
}

impl StorageBackend for Recording {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.lock().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let at = place(offset)?;
        let recorded = self.lock();
        let found = recorded.now.get(at..at + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let len = place(len)?;
        let mut recorded = self.lock();
        recorded.now.resize(len, 0);
        recorded.log.push(Op::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.lock().log.push(Op::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let op = Op::Write {
            at: place(offset)?,
            data: data.into(),
        };
        let mut recorded = self.lock();
        apply(&mut recorded.now, &op, |_| true);
        recorded.log.push(op);
        Ok(())
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

/// Chance that can be repeated: SplitMix64.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The same seed, the same chances.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`. The bias of the remainder is far below what matters here.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }
}

/// What the store held after one commit: keys with values, and audit entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    items: BTreeMap<Vec<u8>, Vec<u8>>,
    entries: u64,
}

/// A recorded life of a store, and what it must be found to be after each cut.
#[derive(Debug)]
pub struct Campaign {
    recording: Recording,
    /// By revision, every state there was.
    states: BTreeMap<Rev, State>,
    /// After so many operations, this revision had been acknowledged.
    acknowledged: BTreeMap<usize, Rev>,
}

/// What a campaign found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Images {
    /// Images opened and found right.
    pub opened: u64,
    /// Of those, images in which an unacknowledged commit had become part of the file.
    pub ahead: u64,
    /// Second cuts, while an image was being opened.
    pub second_cuts: u64,
}

impl Campaign {
    /// Lets a store live through `steps` random groups of commits. Blocks the caller's
    /// runtime no longer than that takes in memory.
    pub async fn record(seed: u64, steps: usize) -> Result<Self, String> {
        let mut chance = Chance::new(seed);
        let mut campaign = Self {
            recording: Recording::default(),
            states: BTreeMap::from([(Rev::ZERO, State::default())]),
            acknowledged: BTreeMap::new(),
        };
        let store = open(&campaign.recording.disk())?;
        // Cuts while the file is being made are the business of who makes files.
        let rev = store.rev();
        campaign.acknowledge(rev);
        for _ in 0..steps {
            campaign.step(&store, &mut chance).await?;
        }
        store.close().await;
        Ok(campaign)
    }

    async fn step(&mut self, store: &RedbStore, chance: &mut Chance) -> Result<(), String> {
        let group: Vec<_> = (0..1 + chance.below(4)).map(|_| changes(chance)).collect();
        let commits = group.iter().map(|changes| store.commit(batch(changes)));
        let answers = futures_util::future::join_all(commits).await;
        let mut by_rev = BTreeMap::new();
        for (changes, answer) in group.into_iter().zip(answers) {
            by_rev.insert(answer.map_err(|error| error.to_string())?, changes);
        }
        for (rev, changes) in by_rev {
            let before = self.states.last_key_value();
            let mut state = before.map(|(_, state)| state.clone()).unwrap_or_default();
            for (key, value) in changes {
                match value {
                    Some(value) => state.items.insert(key, value),
                    None => state.items.remove(&key),
                };
            }
            state.entries += 1;
            self.states.insert(rev, state);
        }
        self.acknowledge(store.rev());
        Ok(())
    }

    fn acknowledge(&mut self, rev: Rev) {
        self.acknowledged.insert(self.recording.ops(), rev);
    }

    /// Where cuts make sense: after the store was made.
    fn first_cut(&self) -> usize {
        self.acknowledged.first_key_value().map_or(0, |(at, _)| *at)
    }

    /// The same life on a disk that confirms syncs without doing them. Opening its
    /// images must fail sooner or later: a campaign that finds nothing here would
    /// find nothing anywhere.
    pub fn on_a_lying_disk(self) -> Self {
        self.recording.lock().lies_from = Some(self.first_cut());
        self
    }

    /// How many places there are to cut at.
    pub fn cuts(&self) -> usize {
        self.recording.ops() - self.first_cut() + 1
    }

    /// Opens one image for every place to cut at, `each` times over. An error names
    /// the seed's image that is not as it must be.
    pub async fn run(&self, seed: u64, each: usize) -> Result<Images, String> {
        let mut images = Images::default();
        for cut in self.first_cut()..=self.recording.ops() {
            for nth in 0..each {
                let mut chance = Chance::new(seed ^ ((cut as u64) << 20) ^ nth as u64);
                self.one(cut, &mut chance, &mut images)
                    .await
                    .map_err(|what| format!("seed {seed}, cut {cut}, image {nth}: {what}"))?;
            }
        }
        Ok(images)
    }

    async fn one(
        &self,
        cut: usize,
        chance: &mut Chance,
        images: &mut Images,
    ) -> Result<(), String> {
        let acknowledged = self
            .acknowledged
            .range(..=cut)
            .next_back()
            .map_or(Rev::ZERO, |(_, rev)| *rev);
        let second = Recording::on(self.recording.image(cut, chance));
        let found = self.check(&second, acknowledged).await?;
        images.opened += 1;
        images.ahead += u64::from(found > acknowledged);
        if chance.below(4) == 0 {
            // The power fails again while the file is opened, or while it is first used.
            let cut = chance.below(second.ops() + 1);
            let third = Recording::on(second.image(cut, chance));
            self.check(&third, acknowledged)
                .await
                .map_err(|what| format!("second cut {cut}: {what}"))?;
            images.second_cuts += 1;
        }
        Ok(())
    }

    /// Opens the image, compares it, writes to it.
    async fn check(&self, image: &Recording, acknowledged: Rev) -> Result<Rev, String> {
        let store = open(&image.disk())?;
        let mut rev = store.rev();
        let mut found = read(&store).await?;
        if found.items.remove(AFTERWARDS).is_some() {
            // What this very function wrote before a second cut.
            rev = Rev(rev.0 - 1);
        }
        if rev < acknowledged {
            return Err(format!(
                "revision {acknowledged} was acknowledged, {rev} is there"
            ));
        }
        match self.states.get(&rev) {
            Some(state) if *state == found => {}
            Some(_) => return Err(format!("what is there is not revision {rev}")),
            None => return Err(format!("there never was a revision {rev}")),
        }
        let mut batch = Batch::new();
        batch.put(&key(AFTERWARDS)?, "x");
        let written = store.commit(batch).await;
        written.map_err(|error| format!("the image cannot be written: {error}"))?;
        store.close().await;
        Ok(rev)
    }
}

/// Written by whoever opens an image, to see that it can be written.
const AFTERWARDS: &[u8] = b"afterwards";

type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

fn changes(chance: &mut Chance) -> Changes {
    let count = 1 + chance.below(4);
    let mut changes = BTreeMap::new();
    for _ in 0..count {
        let key = format!("k{:02}", chance.below(40)).into_bytes();
        // Mostly records; now and then one that needs pages of its own.
        let most = if chance.below(8) == 0 { 20_000 } else { 600 };
        let value = vec![chance.number() as u8; chance.below(most)];
        changes.insert(key, (chance.below(5) > 0).then_some(value));
    }
    changes.into_iter().collect()
}

fn batch(changes: &Changes) -> Batch {
    let mut batch = Batch::new();
    for (at, value) in changes {
        let at = Key::new(at).expect("a short key");
        match value {
            Some(value) => batch.put(&at, value.clone()),
            None => batch.delete(&at),
        };
    }
    batch.audit(AuditDraft {
        chain: CHAIN.to_owned(),
        body: b"changed".to_vec(),
    });
    batch
}

fn key(bytes: &[u8]) -> Result<Key, String> {
    Key::new(bytes).map_err(|error| error.to_string())
}

fn audit_key() -> AuditChainKey {
    AuditChainKey::new([5; 32])
}

fn open(disk: &Disk) -> Result<RedbStore, String> {
    // A small cache: a campaign opens thousands.
    let options = OpenOptions::new(audit_key()).cache_bytes(1024 * 1024);
    RedbStore::open_on(disk.clone(), options).map_err(|error| format!("it does not open: {error}"))
}

async fn read(store: &RedbStore) -> Result<State, String> {
    let mut state = State::default();
    for prefix in [&b"k"[..], AFTERWARDS] {
        let prefix = Prefix::new(prefix).map_err(|error| error.to_string())?;
        let page = store.list(&prefix, None, 1000, Read::Linearizable).await;
        let page = page.map_err(|error| error.to_string())?;
        for (key, item) in page.items {
            state
                .items
                .insert(key.as_bytes().to_vec(), item.value.to_vec());
        }
    }
    let failed = |error: crate::ReadError| error.to_string();
    let head = audit_head(store, CHAIN).await.map_err(failed)?;
    let page = audit_list(store, CHAIN, 0, 1000).await.map_err(failed)?;
    let chain_key = audit_key().chain_key(CHAIN);
    let chain = verify(&chain_key, CHAIN, &page.entries, Head::EMPTY, Some(head));
    state.entries = chain.map_err(|error| error.to_string())?.seq;
    Ok(state)
}
