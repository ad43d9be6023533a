//! Writing a run's log.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use gateway_store::Objects;
use model::command::OutputStream;
use model::ids::{CommandId, HostId};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;

use super::frame::{Frame, take};
use crate::state::command_records::OutputV1;

/// Kept in memory, and in the run's record when that is all.
pub(super) const SHORT: usize = 16 << 10;
/// Size of a segment, about.
const SEGMENT: u64 = 4 << 20;
/// Segments kept of the beginning, and of the end.
const HEAD: usize = 8;
const TAIL: usize = 4;
/// Read at once when a log is put together.
const STEP: usize = 256 << 10;

/// Where logs grow: a folder for each command, and in it one for each run.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// In the state folder.
    pub fn at(state_dir: &Path) -> Self {
        Self(state_dir.join("command-output"))
    }

    fn of(&self, command: CommandId, host: HostId) -> PathBuf {
        self.0.join(command.to_string()).join(host.to_string())
    }

    /// Removes what belongs to none of these commands.
    pub async fn sweep(&self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        let mut entries = match tokio::fs::read_dir(&self.0).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        while let Some(entry) = entries.next_entry().await? {
            if !entry.file_name().to_str().is_some_and(&keep) {
                tokio::fs::remove_dir_all(entry.path()).await?;
            }
        }
        Ok(())
    }
}

/// One run's log. See the head of this module's parent.
#[derive(Debug)]
pub struct OutputLog {
    folder: PathBuf,
    label: String,
    inner: Mutex<Inner>,
    grown: watch::Sender<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) place: Place,
    next: u64,
    stdout_bytes: u64,
    stderr_bytes: u64,
    dropped_bytes: u64,
}

/// Where the log is.
#[derive(Debug)]
pub(super) enum Place {
    /// All of it.
    Memory(Vec<u8>),
    /// On disk.
    Segments(VecDeque<Segment>),
    /// Finished, and short.
    Inline(Bytes),
    /// Finished, and long.
    Object(gateway_store::Digest),
}

impl Default for Place {
    fn default() -> Self {
        Self::Memory(Vec::new())
    }
}

#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: Arc<Path>,
    /// Bytes that can be read.
    pub(super) length: u64,
    /// Bytes of output before it, those that were dropped included.
    pub(super) payload_before: u64,
    /// Bytes of output in it.
    payload: u64,
    /// Its first piece.
    pub(super) first: u64,
    /// The first piece after it.
    next: u64,
}

/// The writing end.
#[derive(Debug)]
pub struct Writer {
    log: Arc<OutputLog>,
    file: Option<tokio::fs::File>,
    unsynced: u64,
    payload: u64,
    /// The disk has refused: everything from here on is dropped.
    broken: Option<u64>,
}

impl OutputLog {
    /// An empty one.
    pub fn new(folder: &Folder, command: CommandId, host: HostId) -> Arc<Self> {
        Arc::new(Self {
            folder: folder.of(command, host),
            label: format!("{command} {host}"),
            inner: Mutex::default(),
            grown: watch::Sender::new(0),
        })
    }

    /// One that is finished.
    pub fn stored(output: &OutputV1) -> Arc<Self> {
        let place = match output.object() {
            Some(object) => Place::Object(object),
            None => Place::Inline(Bytes::copy_from_slice(&output.inline)),
        };
        Arc::new(Self {
            folder: PathBuf::new(),
            label: String::new(),
            inner: Mutex::new(Inner {
                place,
                next: 0,
                stdout_bytes: output.stdout_bytes,
                stderr_bytes: output.stderr_bytes,
                dropped_bytes: output.dropped_bytes,
            }),
            grown: watch::Sender::new(0),
        })
    }

    /// The first piece that has not arrived.
    pub fn next(&self) -> u64 {
        self.lock().next
    }

    /// Figures, without the log itself.
    pub fn figures(&self) -> OutputV1 {
        let inner = self.lock();
        OutputV1 {
            stdout_bytes: inner.stdout_bytes,
            stderr_bytes: inner.stderr_bytes,
            dropped_bytes: inner.dropped_bytes,
            ..OutputV1::default()
        }
    }

    /// Moves whenever there is more to read.
    pub fn grown(&self) -> watch::Receiver<u64> {
        self.grown.subscribe()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what a gateway that was killed has left of it on disk, and gives the
    /// writing end. A torn last frame is cut off: the host still has it.
    pub async fn writer(self: &Arc<Self>) -> io::Result<Writer> {
        let mut writer = Writer {
            log: Arc::clone(self),
            file: None,
            unsynced: 0,
            payload: 0,
            broken: None,
        };
        let on_disk = tokio::fs::try_exists(&self.folder).await?;
        if on_disk && self.next() == 0 {
            writer.recover().await?;
        } else {
            let inner = self.lock();
            writer.payload = inner.stdout_bytes + inner.stderr_bytes;
        }
        Ok(writer)
    }
}

impl Writer {
    async fn recover(&mut self) -> io::Result<()> {
        let mut names = Vec::new();
        let mut entries = tokio::fs::read_dir(&self.log.folder).await?;
        while let Some(entry) = entries.next_entry().await? {
            names.extend(
                entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<u64>().ok()),
            );
        }
        names.sort_unstable();
        let mut found = Inner::default();
        let mut segments = VecDeque::new();
        for number in names {
            let path: Arc<Path> = self.log.folder.join(format!("{number:08}")).into();
            let bytes = tokio::fs::read(&path).await?;
            let mut rest = BytesMut::from(&bytes[..]);
            let payload_before = found.stdout_bytes + found.stderr_bytes;
            let mut first = None;
            while let Ok(Some(frame)) = take(&mut rest) {
                if let Frame::Piece { sequence, .. } | Frame::Gap { sequence, .. } = &frame {
                    first = first.or(Some(*sequence));
                }
                found.count(&frame);
            }
            let length = (bytes.len() - rest.len()) as u64;
            if !rest.is_empty() {
                let file = tokio::fs::File::options().write(true).open(&path).await?;
                file.set_len(length).await?;
            }
            segments.push_back(Segment {
                number,
                path,
                length,
                payload_before,
                payload: found.stdout_bytes + found.stderr_bytes - payload_before,
                first: first.unwrap_or(found.next),
                next: found.next,
            });
        }
        self.payload = found.stdout_bytes + found.stderr_bytes;
        found.place = Place::Segments(segments);
        *self.log.lock() = found;
        Ok(())
    }

    /// Adds a piece or a gap. What was there before is not added twice.
    pub async fn add(&mut self, frame: Frame) {
        let next = self.log.next();
        let (Frame::Piece { sequence, .. } | Frame::Gap { sequence, .. }) = &frame else {
            return;
        };
        if *sequence < next {
            return;
        }
        if let Err(error) = self.write(&frame).await {
            if self.broken.is_none() {
                tracing::warn!(error = %error, run = %self.log.label, "output of a run cannot be written; the rest of it is dropped");
            }
            self.broken.get_or_insert(next);
            let mut inner = self.log.lock();
            inner.dropped_bytes += frame.payload();
        }
        self.payload += frame.payload();
        self.log.lock().count(&frame);
        self.log.grown.send_modify(|grown| *grown += 1);
    }

    async fn write(&mut self, frame: &Frame) -> io::Result<()> {
        if self.broken.is_some() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let spill = {
            let mut inner = self.log.lock();
            match &mut inner.place {
                Place::Memory(log) if log.len() + bytes.len() <= SHORT => {
                    log.extend_from_slice(&bytes);
                    return Ok(());
                }
                Place::Memory(log) => Some(std::mem::take(log)),
                Place::Segments(_) => None,
                Place::Inline(_) | Place::Object(_) => return Ok(()),
            }
        };
        if let Some(mut begun) = spill {
            let mut label = Vec::new();
            Frame::Label(self.log.label.clone().into()).encode(&mut label);
            label.append(&mut begun);
            let next = self.log.next();
            let kept = label.clone();
            let spilled = self.spill(label, next).await;
            if let Err(error) = spilled {
                // What is in memory stays readable.
                self.log.lock().place = Place::Memory(kept);
                return Err(error);
            }
        }
        self.append(&bytes, frame).await
    }

    async fn spill(&mut self, bytes: Vec<u8>, next: u64) -> io::Result<()> {
        tokio::fs::create_dir_all(&self.log.folder).await?;
        self.file = None;
        let path: Arc<Path> = self.log.folder.join(format!("{:08}", 0)).into();
        let mut file = tokio::fs::File::create(&path).await?;
        file.write_all(&bytes).await?;
        file.flush().await?;
        self.unsynced += bytes.len() as u64;
        self.file = Some(file);
        self.log.lock().place = Place::Segments(VecDeque::from([Segment {
            number: 0,
            path,
            length: bytes.len() as u64,
            payload_before: 0,
            payload: self.payload,
            first: 0,
            next,
        }]));
        Ok(())
    }

    async fn append(&mut self, bytes: &[u8], frame: &Frame) -> io::Result<()> {
        let last = match &self.log.lock().place {
            Place::Segments(segments) => segments.back().cloned(),
            Place::Memory(_) | Place::Inline(_) | Place::Object(_) => None,
        };
        let full = last.as_ref().is_none_or(|last| last.length >= SEGMENT);
        if full || self.file.is_none() {
            self.open(last, full).await?;
        }
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("no segment is open"));
        };
        file.write_all(bytes).await?;
        file.flush().await?;
        self.unsynced += bytes.len() as u64;
        if let Place::Segments(segments) = &mut self.log.lock().place
            && let Some(segment) = segments.back_mut()
        {
            segment.length += bytes.len() as u64;
            segment.payload += frame.payload();
            segment.next = frame.next().unwrap_or(segment.next);
        }
        Ok(())
    }

    /// The last segment, or one after it; and drops the middle of what is too long.
    async fn open(&mut self, last: Option<Segment>, full: bool) -> io::Result<()> {
        if let (Some(last), false) = (&last, full) {
            let file = tokio::fs::File::options()
                .append(true)
                .open(&last.path)
                .await?;
            self.file = Some(file);
            return Ok(());
        }
        self.sync().await?;
        let number = last.map_or(0, |last| last.number + 1);
        let path: Arc<Path> = self.log.folder.join(format!("{number:08}")).into();
        self.file = Some(tokio::fs::File::create(&path).await?);
        let dropped = {
            let mut inner = self.log.lock();
            let next = inner.next;
            let Inner {
                place,
                dropped_bytes,
                ..
            } = &mut *inner;
            let Place::Segments(segments) = place else {
                return Ok(());
            };
            segments.push_back(Segment {
                number,
                path,
                length: 0,
                payload_before: self.payload,
                payload: 0,
                first: next,
                next,
            });
            if segments.len() > HEAD + TAIL {
                let dropped = segments.remove(HEAD);
                if let (Some(dropped), Some(after)) = (&dropped, segments.get(HEAD)) {
                    *dropped_bytes += after.payload_before - dropped.payload_before;
                }
                dropped
            } else {
                None
            }
        };
        if let Some(dropped) = dropped {
            tokio::fs::remove_file(&dropped.path).await?;
        }
        Ok(())
    }

    /// Makes what was written last through a loss of power.
    pub async fn sync(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.sync_data().await?;
        }
        self.unsynced = 0;
        Ok(())
    }

    /// Bytes that a loss of power would take.
    pub fn unsynced(&self) -> u64 {
        self.unsynced
    }

    /// The first piece that the host still has to keep, once everything is synced.
    /// What is only in memory is not safe.
    pub fn safe(&self) -> Option<u64> {
        let inner = self.log.lock();
        matches!(inner.place, Place::Segments(_)).then_some(inner.next)
    }

    /// Nothing will be added: puts the log where it will stay, and answers what to
    /// write into the record.
    pub async fn finish(mut self, objects: &Objects) -> OutputV1 {
        let figures = self.log.figures();
        let place = {
            let inner = self.log.lock();
            match &inner.place {
                Place::Memory(log) => Some(log.clone()),
                Place::Segments(_) => None,
                // Told once more by a host that did not hear that it was taken.
                Place::Inline(log) => {
                    return OutputV1 {
                        inline: log.to_vec(),
                        ..figures
                    };
                }
                Place::Object(object) => {
                    return OutputV1 {
                        object: Some(*object.as_bytes()),
                        ..figures
                    };
                }
            }
        };
        if let Some(inline) = place {
            self.log.lock().place = Place::Inline(inline.clone().into());
            return OutputV1 { inline, ..figures };
        }
        self.file = None;
        match self.put(objects).await {
            Ok(object) => {
                self.log.lock().place = Place::Object(object);
                OutputV1 {
                    object: Some(*object.as_bytes()),
                    ..figures
                }
            }
            Err(error) => {
                tracing::warn!(error = %model::error_chain(&error), run = %self.log.label, "output of a run cannot be stored; it is dropped");
                self.log.lock().place = Place::Inline(Bytes::new());
                OutputV1 {
                    dropped_bytes: figures.stdout_bytes + figures.stderr_bytes,
                    ..figures
                }
            }
        }
    }

    async fn put(
        &self,
        objects: &Objects,
    ) -> Result<gateway_store::Digest, gateway_store::ObjectError> {
        let segments: Vec<Segment> = match &self.log.lock().place {
            Place::Segments(segments) => segments.iter().cloned().collect(),
            Place::Memory(_) | Place::Inline(_) | Place::Object(_) => Vec::new(),
        };
        let mut parts: VecDeque<Part> = VecDeque::new();
        let mut before: Option<Segment> = None;
        for segment in segments {
            if let Some(before) = &before
                && segment.number != before.number + 1
            {
                parts.push_back(Part::Bytes(gap_between(before, &segment).into()));
            }
            parts.push_back(Part::File(Arc::clone(&segment.path), segment.length));
            before = Some(segment);
        }
        let source = stream::try_unfold((parts, None), |(mut parts, mut open)| async move {
            loop {
                if let Some(file) = &mut open {
                    let mut piece = BytesMut::with_capacity(STEP);
                    let read = tokio::io::AsyncReadExt::read_buf(file, &mut piece).await?;
                    if read > 0 {
                        return Ok::<_, io::Error>(Some((piece.freeze(), (parts, open))));
                    }
                }
                match parts.pop_front() {
                    None => return Ok(None),
                    Some(Part::Bytes(bytes)) => return Ok(Some((bytes, (parts, None)))),
                    Some(Part::File(path, length)) => {
                        let file = tokio::fs::File::open(path).await?;
                        open = Some(tokio::io::AsyncReadExt::take(file, length));
                    }
                }
            }
        });
        let info = objects.put_stream(source, u64::MAX).await?;
        Ok(info.digest)
    }

    /// Deletes what is on disk, once the record names where the log stays.
    pub async fn tidy(log: &OutputLog) {
        let gone = tokio::fs::remove_dir_all(&log.folder).await;
        if let Err(error) = gone
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(error = %error, run = %log.label, "the log of a finished run stays for the next start");
        }
    }
}

enum Part {
    Bytes(Bytes),
    /// What was written whole: behind it may lie what a full disk took in part.
    File(Arc<Path>, u64),
}

/// The frame that tells what is missing between two segments.
fn gap_between(before: &Segment, after: &Segment) -> Vec<u8> {
    let mut gap = Vec::new();
    let seen = before.payload_before + before.payload;
    Frame::Gap {
        sequence: before.next,
        resumes_at: after.first,
        bytes: after.payload_before.saturating_sub(seen),
    }
    .encode(&mut gap);
    gap
}

impl Inner {
    fn count(&mut self, frame: &Frame) {
        match frame {
            Frame::Piece { stream, data, .. } => match stream {
                OutputStream::Stdout => self.stdout_bytes += data.len() as u64,
                OutputStream::Stderr => self.stderr_bytes += data.len() as u64,
            },
            Frame::Gap { bytes, .. } => self.dropped_bytes += bytes,
            Frame::Label(_) => {}
        }
        self.next = frame.next().unwrap_or(self.next);
    }
}
