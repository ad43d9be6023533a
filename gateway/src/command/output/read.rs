//! Reading a run's log, while it grows and after.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use gateway_store::{ObjectError, Objects};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::frame::{Damaged, Frame, take};
use super::log::{OutputLog, Place};

/// Read at a time.
const STEP: u64 = 256 << 10;

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A file refused.
    #[error("read the log of a run")]
    Io(#[from] io::Error),
    /// The object store refused.
    #[error("read the log of a run")]
    Object(#[from] ObjectError),
    /// It is not a log.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// What a reader learns.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// More of the log.
    Frames(Vec<Frame>),
    /// Nothing yet: wait until the log has grown.
    Nothing,
    /// Nothing more will come.
    End,
}

/// One reader's place in a log.
pub struct Reader {
    log: Arc<OutputLog>,
    /// The first piece that was not read.
    next: u64,
    /// Bytes of output read, or told as gone.
    payload: u64,
    buffer: BytesMut,
    cursor: Cursor,
}

enum Cursor {
    Memory {
        at: usize,
    },
    Segment {
        number: u64,
        at: u64,
        file: Option<tokio::fs::File>,
    },
    Inline {
        done: bool,
    },
    Object(BoxStream<'static, Result<Bytes, ObjectError>>),
}

/// What to do next, decided under the lock.
enum Next {
    Have(Bytes),
    File {
        path: Arc<std::path::Path>,
        at: u64,
        most: u64,
    },
    Gap(Frame),
    Object(gateway_store::Digest),
    Nothing,
    End,
}

impl Reader {
    /// At the beginning.
    pub fn new(log: Arc<OutputLog>) -> Self {
        Self {
            log,
            next: 0,
            payload: 0,
            buffer: BytesMut::new(),
            cursor: Cursor::Memory { at: 0 },
        }
    }

    /// The log.
    pub fn log(&self) -> &Arc<OutputLog> {
        &self.log
    }

    /// More of it, if there is more.
    pub async fn read(&mut self, objects: &Objects) -> Result<News, OutputError> {
        loop {
            if let Cursor::Object(stream) = &mut self.cursor {
                match stream.next().await.transpose()? {
                    None => return Ok(News::End),
                    Some(bytes) => self.buffer.extend_from_slice(&bytes),
                }
            } else {
                match self.look() {
                    Next::Nothing => return Ok(News::Nothing),
                    Next::End => return Ok(News::End),
                    Next::Gap(gap) => {
                        if let Frame::Gap {
                            resumes_at, bytes, ..
                        } = gap
                        {
                            self.next = resumes_at;
                            self.payload += bytes;
                        }
                        return Ok(News::Frames(vec![gap]));
                    }
                    Next::Have(bytes) => self.buffer.extend_from_slice(&bytes),
                    Next::File { path, at, most } => self.read_file(&path, at, most).await?,
                    Next::Object(object) => {
                        let stream = objects.get_stream(&object).await?;
                        self.buffer.clear();
                        self.cursor = Cursor::Object(stream);
                        continue;
                    }
                }
            }
            let frames = self.frames()?;
            if !frames.is_empty() {
                return Ok(News::Frames(frames));
            }
        }
    }

    /// Whole frames of what was read, without those that were told before the log
    /// moved to another place.
    fn frames(&mut self) -> Result<Vec<Frame>, Damaged> {
        let mut frames = Vec::new();
        while let Some(frame) = take(&mut self.buffer)? {
            let sequence = match &frame {
                Frame::Piece { sequence, .. } | Frame::Gap { sequence, .. } => *sequence,
                Frame::Label(_) => continue,
            };
            let next = frame.next().unwrap_or(self.next);
            if sequence < self.next && next <= self.next {
                continue;
            }
            self.payload += match &frame {
                Frame::Gap { bytes, .. } => *bytes,
                other => other.payload(),
            };
            self.next = next;
            frames.push(frame);
        }
        Ok(frames)
    }

    /// Finds the next bytes; begins again at the front when the log has moved.
    fn look(&mut self) -> Next {
        let log = Arc::clone(&self.log);
        let inner = log.lock();
        match (&inner.place, &mut self.cursor) {
            (Place::Memory(log), Cursor::Memory { at }) => {
                let rest = log.get(*at..).unwrap_or_default();
                *at = log.len();
                if rest.is_empty() {
                    return Next::Nothing;
                }
                Next::Have(Bytes::copy_from_slice(rest))
            }
            (Place::Inline(_), Cursor::Inline { done: true }) => Next::End,
            (Place::Inline(log), _) => {
                self.buffer.clear();
                self.cursor = Cursor::Inline { done: true };
                if log.is_empty() {
                    return Next::End;
                }
                Next::Have(log.clone())
            }
            (Place::Object(object), _) => Next::Object(*object),
            (Place::Segments(_), Cursor::Segment { .. }) => {
                let Place::Segments(segments) = &inner.place else {
                    return Next::Nothing;
                };
                self.in_segments(segments)
            }
            (Place::Segments(segments), _) => {
                self.buffer.clear();
                let first = segments.front().map_or(0, |segment| segment.number);
                self.cursor = Cursor::Segment {
                    number: first,
                    at: 0,
                    file: None,
                };
                self.in_segments(segments)
            }
            // A log never moves back into memory, but for a disk that refused it.
            (Place::Memory(_), _) => {
                self.buffer.clear();
                self.cursor = Cursor::Memory { at: 0 };
                Next::Have(Bytes::new())
            }
        }
    }

    fn in_segments(&mut self, segments: &std::collections::VecDeque<super::log::Segment>) -> Next {
        let Cursor::Segment { number, at, file } = &mut self.cursor else {
            return Next::Nothing;
        };
        if let Some(mine) = segments.iter().find(|segment| segment.number == *number)
            && *at < mine.length
        {
            return Next::File {
                path: Arc::clone(&mine.path),
                at: *at,
                most: (mine.length - *at).min(STEP),
            };
        }
        let here = segments.iter().any(|segment| segment.number == *number);
        let Some(after) = segments.iter().find(|segment| segment.number > *number) else {
            return Next::Nothing;
        };
        let skipped = !here || after.number != *number + 1;
        *number = after.number;
        *at = 0;
        *file = None;
        if !skipped {
            return Next::Have(Bytes::new());
        }
        self.buffer.clear();
        Next::Gap(Frame::Gap {
            sequence: self.next,
            resumes_at: after.first.max(self.next),
            bytes: after.payload_before.saturating_sub(self.payload),
        })
    }

    async fn read_file(&mut self, path: &std::path::Path, from: u64, most: u64) -> io::Result<()> {
        let Cursor::Segment { at, file, .. } = &mut self.cursor else {
            return Ok(());
        };
        if file.is_none() {
            match tokio::fs::File::open(path).await {
                Ok(mut opened) => {
                    opened.seek(io::SeekFrom::Start(from)).await?;
                    *file = Some(opened);
                }
                // Dropped or finished since: the next look knows.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    tokio::task::yield_now().await;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(file) = file {
            let mut part = file.take(most);
            let mut read = 0;
            loop {
                let got = part.read_buf(&mut self.buffer).await?;
                read += got as u64;
                if got == 0 || read == most {
                    break;
                }
            }
            *at += read;
        }
        Ok(())
    }
}
