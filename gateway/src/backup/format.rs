//! The file: written and read front to back, never whole in memory.
//!
//! ```text
//! backup := line frame* digest
//! line   := "loopback-backup 1 (holds the secrets of a deployment: keep it like its keys)\n"
//! frame  := kind (1) length (4, BE) payload
//! kind   := 1 head     JSON, first    what was backed up, when, by whom
//!           2 part     JSON           the name of what follows
//!           3 data                    at most 4 MiB; of the store: one chunk of its export
//!           4 part end JSON           length and SHA-256 of the part's data
//!           5 end      JSON, last     how many parts, how much data
//! digest := SHA-256 of everything before it
//! ```
//!
//! The manifest is spread over the file because it is written while the state is
//! read: what a part's digest is, is known at its end. A file that was cut anywhere
//! lacks the digest, a changed bit changes it, and the digests of the parts say where.
//! They prove that the bytes are those that were written, and not who wrote them:
//! whoever can write a backup can forge one, as with the state folder itself.
//!
//! JSON grows by adding fields; what cannot be skipped raises the number in the line.

use std::io::{self, Read, Write};

use data_encoding::HEXLOWER;
use gateway_store::MAX_CHUNK_BYTES;
use model::Timestamp;
use model::ids::DeploymentId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::BackupError;
use super::part::Part;

/// The format that this build writes.
pub const FORMAT: u32 = 1;

const MAGIC: &str = "loopback-backup ";
const REMARK: &str = " (holds the secrets of a deployment: keep it like its keys)\n";
/// The first line ends before this.
const MAX_LINE: usize = 256;
/// A head has some hundred bytes.
const MAX_JSON: usize = 64 * 1024;

const HEAD: u8 = 1;
const PART: u8 = 2;
const DATA: u8 = 3;
const PART_END: u8 = 4;
const END: u8 = 5;

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Whose state.
    pub deployment: DeploymentId,
    /// When it was taken.
    pub made_at: Timestamp,
    /// The release that took it.
    pub product: String,
    /// The format of the store's tables.
    pub store_format: u32,
    /// The revision that the store was at.
    pub revision: u64,
    /// The life of the state: the revision at which it was last restored, 0 if never.
    pub incarnation: u64,
    /// Whether the gateway was running.
    pub running: bool,
}

#[derive(Serialize, Deserialize)]
struct PartHead {
    name: String,
}

/// One part's length and digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartSum {
    /// The part's name.
    pub name: String,
    /// Bytes of data.
    pub bytes: u64,
    /// Their SHA-256, in hex.
    pub sha256: String,
}

#[derive(Serialize, Deserialize)]
struct End {
    parts: u64,
    bytes: u64,
}

/// What went through a writer or a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What it is of.
    pub head: Head,
    /// The parts, in order. Objects are counted and not listed.
    pub parts: Vec<PartSum>,
    /// How many objects.
    pub objects: u64,
    /// Entries of the store. Only a reader counts them.
    pub entries: u64,
    /// The whole file, in bytes.
    pub file_bytes: u64,
}

/// What a part under way amounts to.
struct Sum {
    part: Part,
    bytes: u64,
    digest: Sha256,
}

impl Sum {
    fn new(part: Part) -> Self {
        Self {
            part,
            bytes: 0,
            digest: Sha256::new(),
        }
    }

    fn add(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        self.digest.update(data);
    }

    fn finish(self) -> PartSum {
        PartSum {
            name: self.part.to_string(),
            bytes: self.bytes,
            sha256: HEXLOWER.encode(&self.digest.finalize()),
        }
    }
}

/// Writes a backup.
pub struct Writer<W> {
    sink: W,
    whole: Sha256,
    parts: u64,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins with the head.
    pub fn new(sink: W, head: &Head) -> Result<Self, BackupError> {
        let mut writer = Self {
            sink,
            whole: Sha256::new(),
            parts: 0,
            bytes: 0,
        };
        writer
            .raw(format!("{MAGIC}{FORMAT}{REMARK}").as_bytes())
            .map_err(written)?;
        writer.json(HEAD, head)?;
        Ok(writer)
    }

    /// Writes a part; `fill` gives its data to the function that it gets, in pieces of
    /// at most [`MAX_CHUNK_BYTES`].
    pub fn part<E: From<BackupError>>(
        &mut self,
        part: Part,
        fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), E>,
    ) -> Result<(), E> {
        let name = part.to_string();
        self.json(PART, &PartHead { name })?;
        let mut sum = Sum::new(part);
        fill(&mut |data| {
            sum.add(data);
            self.frame(DATA, data)
        })?;
        self.parts += 1;
        self.bytes += sum.bytes;
        Ok(self.json(PART_END, &sum.finish())?)
    }

    /// Ends the backup, and gives back where it was written.
    pub fn finish(mut self) -> Result<W, BackupError> {
        let end = End {
            parts: self.parts,
            bytes: self.bytes,
        };
        self.json(END, &end)?;
        let digest = std::mem::take(&mut self.whole).finalize();
        self.sink.write_all(&digest).map_err(written)?;
        self.sink.flush().map_err(written)?;
        Ok(self.sink)
    }

    fn json(&mut self, kind: u8, value: &impl Serialize) -> Result<(), BackupError> {
        let bytes = serde_json::to_vec(value).expect("plain fields become JSON");
        self.frame(kind, &bytes).map_err(written)
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let mut header = [kind, 0, 0, 0, 0];
        header[1..].copy_from_slice(&length.to_be_bytes());
        self.raw(&header)?;
        self.raw(payload)
    }

    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.whole.update(bytes);
        self.sink.write_all(bytes)
    }
}

fn written(source: io::Error) -> BackupError {
    BackupError::Stream {
        action: "write",
        source,
    }
}

/// What a reader meets.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A part begins.
    Begin(Part),
    /// Data of it. Not to be trusted before [`Event::End`]; of the store, a chunk of its
    /// export, which has been looked through.
    Data(&'a [u8]),
    /// The part is whole.
    End(Part),
}

/// Reads a backup, checking everything on the way.
pub struct Reader<R> {
    source: R,
    whole: Sha256,
    at: u64,
    head: Head,
    parts: Vec<PartSum>,
    names: std::collections::BTreeSet<Part>,
    under_way: Option<Sum>,
    bytes: u64,
    entries: u64,
    buffer: Vec<u8>,
    over: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning.
    pub fn new(source: R) -> Result<Self, BackupError> {
        let mut reader = Self {
            source,
            whole: Sha256::new(),
            at: 0,
            head: Head {
                deployment: DeploymentId::new(Timestamp::default(), [0; 10]),
                made_at: Timestamp::default(),
                product: String::new(),
                store_format: 0,
                revision: 0,
                incarnation: 0,
                running: false,
            },
            parts: Vec::new(),
            names: Default::default(),
            under_way: None,
            bytes: 0,
            entries: 0,
            buffer: Vec::new(),
            over: false,
        };
        reader.line()?;
        if reader.frame()? != HEAD {
            return Err(reader.damaged("it does not begin with its head"));
        }
        reader.head = reader.json()?;
        let supported = gateway_store::FORMAT;
        if reader.head.store_format > supported {
            return Err(BackupError::NewerStore {
                product: model::names::clean(&reader.head.product, 64),
                found: reader.head.store_format,
                supported,
            });
        }
        Ok(reader)
    }

    /// What it is of.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// How many bytes have been read.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// What comes next; nothing at the end, once everything was found to be whole.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, BackupError> {
        if self.over {
            return Ok(None);
        }
        match (self.frame()?, self.under_way.take()) {
            (PART, None) => self.begin().map(Some),
            (DATA, Some(mut sum)) => {
                sum.add(&self.buffer);
                if sum.part == Part::Store {
                    let entries = gateway_store::check_chunk(&self.buffer)
                        .map_err(|error| self.damaged(&error.to_string()))?;
                    self.entries += entries;
                }
                self.under_way = Some(sum);
                Ok(Some(Event::Data(&self.buffer)))
            }
            (PART_END, Some(sum)) => self.end_of(sum).map(Some),
            (END, None) => {
                self.end()?;
                Ok(None)
            }
            _ => Err(self.damaged("its frames are out of order")),
        }
    }

    /// Reads to the end, looking at nothing but whether it is whole.
    pub fn finish(mut self) -> Result<Summary, BackupError> {
        while self.next_event()?.is_some() {}
        let objects = |part: &&Part| matches!(part, Part::Object(_));
        Ok(Summary {
            objects: self.names.iter().filter(objects).count() as u64,
            head: self.head,
            parts: self.parts,
            entries: self.entries,
            file_bytes: self.at,
        })
    }

    fn begin(&mut self) -> Result<Event<'static>, BackupError> {
        let PartHead { name } = self.json()?;
        let part: Part = name
            .parse()
            .map_err(|error: super::part::UnknownPart| self.damaged(&error.to_string()))?;
        if !self.names.insert(part) {
            return Err(self.damaged("a part comes twice"));
        }
        self.under_way = Some(Sum::new(part));
        Ok(Event::Begin(part))
    }

    fn end_of(&mut self, sum: Sum) -> Result<Event<'static>, BackupError> {
        let said: PartSum = self.json()?;
        let part = sum.part;
        let found = sum.finish();
        let named = match part {
            Part::Object(digest) => found.sha256 == HEXLOWER.encode(&digest),
            _ => true,
        };
        if said != found || !named {
            return Err(self.damaged(&format!("{part} is not what was backed up")));
        }
        self.bytes += found.bytes;
        if !matches!(part, Part::Object(_)) {
            self.parts.push(found);
        }
        Ok(Event::End(part))
    }

    fn end(&mut self) -> Result<(), BackupError> {
        let End { parts, bytes } = self.json()?;
        if parts != self.names.len() as u64 || bytes != self.bytes {
            return Err(self.damaged("it does not hold what its end says"));
        }
        if let Some(missing) = Part::NEEDED.iter().find(|part| !self.names.contains(*part)) {
            return Err(self.damaged(&format!("{missing} is missing")));
        }
        let digest = std::mem::take(&mut self.whole).finalize();
        let mut said = [0; 32];
        self.fill(&mut said)?;
        if said.as_slice() != digest.as_slice() {
            return Err(self.damaged("its digest is another one"));
        }
        let mut more = [0];
        match self.source.read(&mut more) {
            Ok(0) => {}
            Ok(_) => return Err(self.damaged("something follows its end")),
            Err(source) => return Err(read(source)),
        }
        self.over = true;
        Ok(())
    }

    /// The first line says whether this is for us at all.
    fn line(&mut self) -> Result<(), BackupError> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            match self.fill(&mut byte) {
                // An empty file, or a short text.
                Err(BackupError::Truncated { .. }) if !MAGIC.as_bytes().starts_with(&line) => {
                    return Err(BackupError::NotABackup);
                }
                filled => filled?,
            }
            line.push(byte[0]);
            let common = line.len().min(MAGIC.len());
            if line[..common] != MAGIC.as_bytes()[..common] || line.len() > MAX_LINE {
                return Err(BackupError::NotABackup);
            }
        }
        self.whole.update(&line);
        let number: String = line[MAGIC.len()..]
            .iter()
            .map(|byte| char::from(*byte))
            .take_while(char::is_ascii_digit)
            .collect();
        match number.parse::<u32>() {
            Ok(FORMAT) if line == format!("{MAGIC}{FORMAT}{REMARK}").as_bytes() => Ok(()),
            Ok(found) if found > FORMAT => Err(BackupError::Newer {
                found,
                supported: FORMAT,
            }),
            Ok(_) | Err(_) => Err(self.damaged("its first line is not one of ours")),
        }
    }

    /// The next frame's kind; its payload is in the buffer.
    fn frame(&mut self) -> Result<u8, BackupError> {
        let mut header = [0; 5];
        self.fill(&mut header)?;
        let [kind, length @ ..] = header;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let most = if kind == DATA {
            MAX_CHUNK_BYTES
        } else {
            MAX_JSON
        };
        if length > most {
            return Err(self.damaged("a frame is too large"));
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(length, 0);
        let filled = self.fill(&mut buffer);
        self.buffer = buffer;
        filled?;
        self.whole.update(header);
        self.whole.update(&self.buffer);
        Ok(kind)
    }

    fn json<T: DeserializeOwned>(&self) -> Result<T, BackupError> {
        serde_json::from_slice(&self.buffer)
            .map_err(|_| self.damaged("a description cannot be read"))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        match self.source.read_exact(bytes) {
            Ok(()) => {
                self.at += bytes.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(BackupError::Truncated { at: self.at })
            }
            Err(source) => Err(read(source)),
        }
    }

    fn damaged(&self, what: &str) -> BackupError {
        BackupError::Damaged {
            at: self.at,
            what: what.to_owned(),
        }
    }
}

fn read(source: io::Error) -> BackupError {
    BackupError::Stream {
        action: "read",
        source,
    }
}
