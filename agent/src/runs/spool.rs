//! Output that the gateway has not stored yet.
//!
//! ```text
//! a piece ─► memory, up to 4 MiB ─► files of about 4 MiB each: the first two and the
//!            (all there is while     last six stay, what lies between is a gap
//!             the gateway listens)
//! ```
//!
//! Memory is as safe as the watching process, which outlives the agent; files are for
//! what is left when that process ends, and for output that comes while nobody listens.
//! A disk that takes no more costs output, which is counted, and never the run.
//!
//! A file is called by the number of its first piece and by the bytes before it, so a
//! gap needs no record: it is what two neighbours leave between them.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use protocol::v1::{RunGap, RunOutput};

use super::journal::OUTPUT;

/// Kept in memory; about what one file takes.
pub const MEMORY: usize = 4 << 20;
/// Files that stay at the beginning and at the end.
const HEAD: usize = 2;
const TAIL: usize = 6;
/// Before each piece in a file: stream, length.
const HEADER: usize = 5;

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its number.
    pub sequence: u64,
    /// 1 for standard output, 2 for standard error.
    pub stream: u8,
    /// The bytes.
    pub data: Vec<u8>,
}

impl From<Piece> for RunOutput {
    fn from(piece: Piece) -> Self {
        Self {
            sequence: piece.sequence,
            stream: u32::from(piece.stream),
            data: piece.data,
        }
    }
}

/// What a reader finds at a place.
#[derive(Debug, PartialEq)]
pub enum Found {
    /// A piece.
    Piece(Piece),
    /// What was there is gone.
    Gap(RunGap),
    /// Nothing yet.
    Nothing,
}

/// Where a reader is. Holds at most one file's pieces.
#[derive(Debug)]
pub struct Cursor {
    next: u64,
    /// Bytes before the place, once known.
    bytes: Option<u64>,
    loaded: VecDeque<Piece>,
}

impl Cursor {
    /// At a piece.
    pub fn at(sequence: u64) -> Self {
        Self {
            next: sequence,
            bytes: None,
            loaded: VecDeque::new(),
        }
    }

    /// The next piece's number.
    pub fn next(&self) -> u64 {
        self.next
    }

    fn pass(&mut self, piece: Piece) -> Found {
        self.next = piece.sequence + 1;
        if let Some(bytes) = &mut self.bytes {
            *bytes += piece.data.len() as u64;
        }
        Found::Piece(piece)
    }
}

#[derive(Clone, Debug)]
struct Segment {
    path: PathBuf,
    first: u64,
    bytes_before: u64,
    /// One after its last piece, and the bytes up to there.
    next: u64,
    bytes: u64,
}

/// The output of a run.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    disk: VecDeque<Segment>,
    memory: VecDeque<Piece>,
    memory_bytes: usize,
    /// Number of the next piece, and bytes before it.
    next: u64,
    bytes: u64,
    /// Everything before is stored by the gateway.
    stored: u64,
}

impl Spool {
    /// For a run that begins.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            disk: VecDeque::new(),
            memory: VecDeque::new(),
            memory_bytes: 0,
            next: 0,
            bytes: 0,
            stored: 0,
        }
    }

    /// What a run left in its folder. Not more than files: nobody watches it.
    pub fn left_in(folder: &Path) -> io::Result<Self> {
        let mut spool = Self::new(folder);
        let mut segments = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let numbers = name.to_str().and_then(|name| {
                let (first, before) = name.strip_prefix(OUTPUT)?.split_once('-')?;
                Some((first.parse().ok()?, before.parse().ok()?))
            });
            let Some((first, bytes_before)) = numbers else {
                continue;
            };
            let pieces = load(&entry.path(), first)?;
            let payload: u64 = pieces.iter().map(|piece| piece.data.len() as u64).sum();
            segments.push(Segment {
                path: entry.path(),
                first,
                bytes_before,
                next: first + pieces.len() as u64,
                bytes: bytes_before + payload,
            });
        }
        segments.sort_by_key(|segment| segment.first);
        if let Some(last) = segments.last() {
            (spool.next, spool.bytes) = (last.next, last.bytes);
        }
        spool.disk = segments.into();
        Ok(spool)
    }

    /// Of a run that has ended and wrote so many pieces: what is not here is gone.
    pub fn end_at(&mut self, pieces: u64) {
        self.next = self.next.max(pieces);
    }

    /// The number of the next piece, which is how many there were.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Bytes in memory.
    pub fn in_memory(&self) -> usize {
        self.memory_bytes
    }

    /// Adds a piece.
    pub fn push(&mut self, stream: u8, data: Vec<u8>) {
        if data.is_empty() {
            return;
        }
        self.memory_bytes += data.len();
        self.bytes += data.len() as u64;
        self.memory.push_back(Piece {
            sequence: self.next,
            stream,
            data,
        });
        self.next += 1;
    }

    /// Moves what is in memory to a file; what a full disk does not take is lost, and
    /// the error says so.
    pub fn spill(&mut self) -> io::Result<()> {
        let (Some(first), Some(last)) = (self.memory.front(), self.memory.back()) else {
            return Ok(());
        };
        let (first, next) = (first.sequence, last.sequence + 1);
        let bytes_before = self.bytes - self.memory_bytes as u64;
        let path = self.folder.join(format!("{OUTPUT}{first}-{bytes_before}"));
        let written = self.write(&path);
        self.memory.clear();
        self.memory_bytes = 0;
        if let Err(error) = written {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        self.disk.push_back(Segment {
            path,
            first,
            bytes_before,
            next,
            bytes: self.bytes,
        });
        if self.disk.len() > HEAD + TAIL
            && let Some(dropped) = self.disk.remove(HEAD)
        {
            fs::remove_file(dropped.path)?;
        }
        Ok(())
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(self.memory_bytes + self.memory.len() * HEADER);
        for piece in &self.memory {
            bytes.push(piece.stream);
            let length = u32::try_from(piece.data.len()).map_err(io::Error::other)?;
            bytes.extend(length.to_le_bytes());
            bytes.extend(&piece.data);
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(&bytes)
    }

    /// Makes the files outlive a loss of power.
    pub fn sync(&self) -> io::Result<()> {
        for segment in &self.disk {
            fs::File::open(&segment.path)?.sync_all()?;
        }
        Ok(())
    }

    /// The gateway has stored everything before this piece.
    pub fn stored(&mut self, sequence: u64) {
        self.stored = self.stored.max(sequence.min(self.next));
        while let Some(first) = self.disk.front()
            && first.next <= self.stored
        {
            // One that stays is only told twice.
            let _ = fs::remove_file(&first.path);
            self.disk.pop_front();
        }
        while let Some(first) = self.memory.front()
            && first.sequence < self.stored
        {
            self.memory_bytes -= first.data.len();
            self.memory.pop_front();
        }
    }

    /// What is at the cursor, which goes on behind it. What cannot be read is a gap.
    pub fn read(&mut self, cursor: &mut Cursor) -> Found {
        loop {
            while let Some(piece) = cursor.loaded.pop_front() {
                if piece.sequence == cursor.next {
                    return cursor.pass(piece);
                }
            }
            if cursor.next >= self.next {
                return Found::Nothing;
            }
            if let Some(at) = self
                .disk
                .iter()
                .position(|it| (it.first..it.next).contains(&cursor.next))
            {
                let segment = &self.disk[at];
                cursor.loaded = load(&segment.path, segment.first).unwrap_or_default();
                let skipped = cursor
                    .loaded
                    .iter()
                    .take_while(|it| it.sequence < cursor.next);
                let skipped: u64 = skipped.map(|piece| piece.data.len() as u64).sum();
                cursor.bytes = Some(segment.bytes_before + skipped);
                if cursor
                    .loaded
                    .back()
                    .is_none_or(|it| it.sequence < cursor.next)
                {
                    cursor.loaded.clear();
                    self.disk.remove(at);
                }
                continue;
            }
            if let Some(front) = self.memory.front()
                && front.sequence <= cursor.next
            {
                let at = usize::try_from(cursor.next - front.sequence).unwrap_or(usize::MAX);
                if let Some(piece) = self.memory.get(at) {
                    if cursor.bytes.is_none() {
                        let from_here = self.memory.iter().skip(at);
                        let from_here: u64 = from_here.map(|it| it.data.len() as u64).sum();
                        cursor.bytes = Some(self.bytes - from_here);
                    }
                    return cursor.pass(piece.clone());
                }
            }
            return self.gap(cursor);
        }
    }

    fn gap(&self, cursor: &mut Cursor) -> Found {
        let sequence = cursor.next;
        let after = self.disk.iter().map(|it| (it.first, it.bytes_before));
        let memory = self.memory.front();
        let memory = memory.map(|it| (it.sequence, self.bytes - self.memory_bytes as u64));
        let (resumes_at, bytes_before) = after
            .chain(memory)
            .find(|(first, _)| *first > sequence)
            .unwrap_or((self.next, self.bytes));
        // Where a reader comes from an earlier life it does not know the bytes before
        // its place: those of the file before are the closest that is known.
        let known = self.disk.iter().rev().find(|it| it.next <= sequence);
        let before = cursor.bytes.or(known.map(|it| it.bytes)).unwrap_or(0);
        cursor.next = resumes_at;
        cursor.bytes = Some(bytes_before);
        Found::Gap(RunGap {
            sequence,
            resumes_at,
            bytes: bytes_before.saturating_sub(before),
        })
    }
}

/// The pieces of a file; a torn one at the end is left out.
fn load(path: &Path, first: u64) -> io::Result<VecDeque<Piece>> {
    let bytes = fs::read(path)?;
    let mut rest = &bytes[..];
    let mut pieces = VecDeque::new();
    while let Some((stream, after)) = rest.split_first()
        && let Some((length, after)) = after.split_first_chunk::<4>()
        && let Some(data) = after.get(..u32::from_le_bytes(*length) as usize)
    {
        pieces.push_back(Piece {
            sequence: first + pieces.len() as u64,
            stream: *stream,
            data: data.to_vec(),
        });
        rest = &after[data.len()..];
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(spool: &mut Spool, from: u64) -> (Vec<u8>, u64, Vec<RunGap>) {
        let (mut bytes, mut gaps, mut cursor) = (Vec::new(), Vec::new(), Cursor::at(from));
        loop {
            match spool.read(&mut cursor) {
                Found::Piece(piece) => bytes.extend(piece.data),
                Found::Gap(gap) => gaps.push(gap),
                Found::Nothing => return (bytes, cursor.next(), gaps),
            }
        }
    }

    #[test]
    fn output_is_read_from_memory_from_files_and_after_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(folder.path());
        spool.push(1, b"one ".to_vec());
        spool.push(2, b"two ".to_vec());
        assert_eq!(read_all(&mut spool, 0), (b"one two ".to_vec(), 2, vec![]));
        spool.spill().unwrap();
        spool.push(1, b"three".to_vec());
        assert_eq!(read_all(&mut spool, 1), (b"two three".to_vec(), 3, vec![]));
        spool.spill().unwrap();
        let mut left = Spool::left_in(folder.path()).unwrap();
        assert_eq!(left.next(), 3);
        assert_eq!(
            read_all(&mut left, 0),
            (b"one two three".to_vec(), 3, vec![])
        );
    }

    #[test]
    fn of_too_much_output_head_and_tail_stay_and_the_gap_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(folder.path());
        for number in 0..20u8 {
            spool.push(1, vec![number; 10]);
            spool.spill().unwrap();
        }
        spool.push(1, vec![20; 10]);
        let (bytes, next, gaps) = read_all(&mut spool, 0);
        let gap = RunGap {
            sequence: 2,
            resumes_at: 14,
            bytes: 120,
        };
        assert_eq!((next, gaps), (21, vec![gap]));
        assert_eq!(bytes.len(), 90);
        assert_eq!((bytes[0], bytes[19], bytes[20]), (0, 1, 14));
        // Somebody who has part of what is gone.
        let (_, _, gaps) = read_all(&mut spool, 2);
        assert_eq!(gaps, [gap]);
        drop(spool);
        let mut left = Spool::left_in(folder.path()).unwrap();
        assert_eq!(read_all(&mut left, 0).2, [gap]);
    }

    #[test]
    fn what_is_stored_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(folder.path());
        spool.push(1, b"one".to_vec());
        spool.spill().unwrap();
        spool.push(1, b"two".to_vec());
        spool.push(1, b"three".to_vec());
        spool.stored(2);
        assert_eq!(spool.in_memory(), 5);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(read_all(&mut spool, 2).0, b"three");
        spool.stored(99);
        assert_eq!((spool.in_memory(), spool.next()), (0, 3));
    }

    #[test]
    fn a_torn_file_gives_what_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(folder.path());
        spool.push(1, b"whole".to_vec());
        spool.push(1, b"torn".to_vec());
        spool.spill().unwrap();
        let path = folder.path().join("output-0-0");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let mut left = Spool::left_in(folder.path()).unwrap();
        assert_eq!(read_all(&mut left, 0), (b"whole".to_vec(), 1, vec![]));
    }
}
