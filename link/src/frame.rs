//! Messages on streams: [`protocol::frame`]'s headers with I/O, limits and deadlines.
//!
//! The reader checks a frame's announced length before it makes room, and makes room
//! only as bytes arrive: a peer that announces a megabyte and sends nothing costs
//! nothing. Two clocks run: how long to wait for a frame to begin (an idle control
//! stream is fine for long) and how long one may take once begun (a byte a minute is
//! not).
//!
//! [`FrameReader::next`] may be cancelled, in a `select!` say, without losing bytes.
//! [`write_message`] may not: a frame written in part leaves the stream useless.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

pub use protocol::frame::{FrameError as CodecError, MAX_ENROL_FRAME, MAX_FRAME};
use protocol::frame::{HEADER, body_length, decode};

/// Room made at a time while a frame arrives.
const STEP: usize = 8 << 10;

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Longer than allowed, or not the message expected. The stream is out of step
    /// or hostile: close the connection.
    #[error("read frame")]
    Codec(#[source] CodecError),
    /// The stream ended within a frame.
    #[error("stream ended within a frame, after {got} of {wanted} bytes")]
    Truncated {
        /// Bytes of the frame that came.
        got: usize,
        /// Bytes of the frame, as far as known.
        wanted: usize,
    },
    /// No frame began in time.
    #[error("no frame within {0:?}")]
    Idle(Duration),
    /// A frame began and did not end in time.
    #[error("frame not finished within {0:?}")]
    Slow(Duration),
    /// The stream failed.
    #[error("read from the stream")]
    Io(#[source] io::Error),
}

/// Why a message could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The message is longer than the peer accepts.
    #[error("message of {length} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// The peer did not take it in time.
    #[error("peer did not take a frame within {0:?}")]
    Slow(Duration),
    /// The stream failed.
    #[error("write to the stream")]
    Io(#[source] io::Error),
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For a frame to begin.
    pub idle: Duration,
    /// For a frame to end once it began.
    pub frame: Duration,
}

/// Reads messages from a stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    limit: usize,
    deadlines: Deadlines,
    /// The current frame, as far as it has come, header included.
    buffer: BytesMut,
    /// When the current frame must be complete; set when its first byte came.
    due: Option<Instant>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `stream` frames of at most `limit` bytes.
    pub fn new(stream: R, limit: usize, deadlines: Deadlines) -> Self {
        Self {
            stream,
            limit,
            deadlines,
            buffer: BytesMut::new(),
            due: None,
        }
    }

    /// The next message, or nothing when the stream ended between frames.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, ReadError> {
        if !self.fill(HEADER).await? {
            return Ok(None);
        }
        let wanted = self.frame_length()?;
        if !self.fill(wanted).await? {
            return Err(ReadError::Truncated {
                got: self.buffer.len(),
                wanted,
            });
        }
        // The buffer goes with the frame: an idle stream holds no memory.
        let frame = std::mem::take(&mut self.buffer);
        self.due = None;
        decode(&frame[HEADER..]).map(Some).map_err(ReadError::Codec)
    }

    /// The stream, when no further frame will be read from it.
    pub fn into_inner(self) -> R {
        self.stream
    }

    fn frame_length(&self) -> Result<usize, ReadError> {
        let header = self.buffer.first_chunk().copied().unwrap_or_default();
        let body = body_length(header, self.limit).map_err(ReadError::Codec)?;
        Ok(HEADER + body)
    }

    /// Reads until the current frame has `wanted` bytes and never past them. False
    /// when the stream ended before the frame began.
    async fn fill(&mut self, wanted: usize) -> Result<bool, ReadError> {
        while self.buffer.len() < wanted {
            let missing = wanted - self.buffer.len();
            self.buffer.reserve(missing.min(STEP));
            let mut part = (&mut self.stream).take(missing as u64);
            // `read_buf` either reads or, when cancelled, has taken nothing.
            let read = part.read_buf(&mut self.buffer);
            let count = match self.due {
                None => timeout(self.deadlines.idle, read)
                    .await
                    .map_err(|_| ReadError::Idle(self.deadlines.idle))?,
                Some(due) => timeout_at(due, read)
                    .await
                    .map_err(|_| ReadError::Slow(self.deadlines.frame))?,
            }
            .map_err(ReadError::Io)?;
            if count == 0 {
                let got = self.buffer.len();
                return if got == 0 {
                    Ok(false)
                } else {
                    Err(ReadError::Truncated { got, wanted })
                };
            }
            if self.due.is_none() {
                self.due = Some(Instant::now() + self.deadlines.frame);
            }
        }
        Ok(true)
    }
}

/// Writes `message` and its header within `deadline`. After an error the stream must
/// not be used any more.
pub async fn write_message<W: AsyncWrite + Unpin>(
    stream: &mut W,
    message: &impl Message,
    limit: usize,
    deadline: Duration,
) -> Result<(), WriteError> {
    let length = message.encoded_len();
    if length > limit {
        return Err(WriteError::TooLarge { length, limit });
    }
    let frame = protocol::frame::encode(message);
    timeout(deadline, async {
        stream.write_all(&frame).await?;
        stream.flush().await
    })
    .await
    .map_err(|_| WriteError::Slow(deadline))?
    .map_err(WriteError::Io)
}

#[cfg(test)]
mod tests;
