//! One HTTP GET, without I/O: the bytes of the request, and a reader that is fed the
//! bytes of the answer.
//!
//! The exporter is a program of the host's owner, but it may be broken, or not be one
//! at all: whatever listens on the port answers. So the head is bounded, the body is
//! bounded by what the asker accepts, and what is not understood ends the scrape with
//! words for a person. `Connection: close` is asked for, so there is no second answer
//! to tell from the first.

use std::fmt;

use model::names::clean;

/// Longest head, fields included.
const MAX_HEAD: usize = 16 << 10;
/// Longest line that says how long a chunk is.
const MAX_CHUNK_LINE: usize = 256;
/// Longest trailer after the last chunk.
const MAX_TRAILER: usize = 4 << 10;

/// What metrics are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text form.
    Prometheus,
    /// OpenMetrics.
    OpenMetrics,
}

/// Why an answer is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Another status than 200.
    Status(u16),
    /// More than is accepted.
    TooLarge,
    /// No answer of this kind, with the reason.
    Content(String),
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "the exporter answered with status {status}"),
            Self::TooLarge => f.write_str("the answer is larger than accepted"),
            Self::Content(why) => f.write_str(why),
        }
    }
}

/// The request for `target` at `host`; `within_ms` is what the asker has left.
pub fn request(host: &str, target: &str, within_ms: u32) -> Vec<u8> {
    let seconds = f64::from(within_ms) / 1000.0;
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: loopback-agent\r\n\
         Accept: text/plain;version=0.0.4;q=1,application/openmetrics-text;version=1.0.0;q=0.5\r\n\
         Accept-Encoding: identity\r\nX-Prometheus-Scrape-Timeout-Seconds: {seconds}\r\n\
         Connection: close\r\n\r\n"
    )
    .into_bytes()
}

/// Reads an answer that comes in pieces.
#[derive(Debug)]
pub struct Answer {
    state: State,
    /// What came and is no body: the head, the line of a chunk.
    pending: Vec<u8>,
    format: Format,
    left: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes follow.
    Length(u64),
    /// Until the connection ends.
    UntilEnd,
    ChunkLine,
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    Trailer,
    Done,
}

impl Answer {
    /// An answer whose body has at most `accepted` bytes.
    pub fn new(accepted: u64) -> Self {
        Self {
            state: State::Head,
            pending: Vec::new(),
            format: Format::Prometheus,
            left: accepted,
        }
    }

    /// Takes the next bytes; what of them is body goes to `body`.
    pub fn feed(&mut self, mut bytes: &[u8], body: &mut Vec<u8>) -> Result<(), Bad> {
        while !bytes.is_empty() {
            match self.state {
                State::Head => {
                    let Some(head) = self.until(&mut bytes, b"\r\n\r\n", MAX_HEAD, "head")? else {
                        return Ok(());
                    };
                    self.state = self.begin(&head)?;
                }
                State::Length(left) => {
                    let taken = self.take(&mut bytes, left, body)?;
                    self.state = match left - taken {
                        0 => State::Done,
                        left => State::Length(left),
                    };
                }
                State::UntilEnd => {
                    self.take(&mut bytes, u64::MAX, body)?;
                }
                State::ChunkLine => {
                    let line = self.until(&mut bytes, b"\r\n", MAX_CHUNK_LINE, "chunk")?;
                    let Some(line) = line else {
                        return Ok(());
                    };
                    self.state = match chunk_size(&line)? {
                        0 => State::Trailer,
                        size => State::Chunk(size),
                    };
                }
                State::Chunk(left) => {
                    let taken = self.take(&mut bytes, left, body)?;
                    self.state = match left - taken {
                        0 => State::ChunkEnd,
                        left => State::Chunk(left),
                    };
                }
                // One byte that is not the line end is one too many.
                State::ChunkEnd => match self.until(&mut bytes, b"\r\n", 1, "chunk")? {
                    None => return Ok(()),
                    Some(_) => self.state = State::ChunkLine,
                },
                State::Trailer => {
                    let line = self.until(&mut bytes, b"\r\n", MAX_TRAILER, "trailer")?;
                    match line {
                        None => return Ok(()),
                        Some(line) if line.is_empty() => self.state = State::Done,
                        Some(_) => {}
                    }
                }
                // Whatever follows is not part of it.
                State::Done => return Ok(()),
            }
        }
        Ok(())
    }

    /// Whether the answer is whole before the connection ends.
    pub fn is_whole(&self) -> bool {
        self.state == State::Done
    }

    /// The connection has ended: whether the answer is whole, and what it is in.
    pub fn end(&self) -> Result<Format, Bad> {
        match self.state {
            State::Done | State::UntilEnd => Ok(self.format),
            State::Head if self.pending.is_empty() => Err(content(
                "the exporter closed the connection without an answer",
            )),
            _ => Err(content("the answer ended early")),
        }
    }

    /// Collects bytes until `mark`, which is taken off.
    fn until(
        &mut self,
        bytes: &mut &[u8],
        mark: &[u8],
        limit: usize,
        what: &str,
    ) -> Result<Option<Vec<u8>>, Bad> {
        while let [byte, rest @ ..] = *bytes {
            self.pending.push(*byte);
            *bytes = rest;
            if self.pending.ends_with(mark) {
                let mut found = std::mem::take(&mut self.pending);
                found.truncate(found.len() - mark.len());
                return Ok(Some(found));
            }
            if self.pending.len() > limit {
                return Err(content(&format!("the {what} of the answer is too long")));
            }
        }
        Ok(None)
    }

    fn take(&mut self, bytes: &mut &[u8], most: u64, body: &mut Vec<u8>) -> Result<u64, Bad> {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
        let (taken, rest) = bytes.split_at(most);
        *bytes = rest;
        let size = taken.len() as u64;
        self.left = self.left.checked_sub(size).ok_or(Bad::TooLarge)?;
        body.extend_from_slice(taken);
        Ok(size)
    }

    fn begin(&mut self, head: &[u8]) -> Result<State, Bad> {
        let head = std::str::from_utf8(head).map_err(|_| content("the head is no text"))?;
        let mut lines = head.split("\r\n");
        let status = status(lines.next().unwrap_or_default())?;
        if status != 200 {
            return Err(Bad::Status(status));
        }
        let (mut length, mut chunked) = (None, false);
        for line in lines {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| content("a line of the head is no field"))?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
                    let size: u64 = value
                        .parse()
                        .ok()
                        .filter(|_| digits)
                        .ok_or_else(|| content("the answer has no sensible length"))?;
                    if length.is_some_and(|other| other != size) {
                        return Err(content("the answer has two lengths"));
                    }
                    length = Some(size);
                }
                "transfer-encoding" => {
                    if !value.eq_ignore_ascii_case("chunked") {
                        return Err(unexpected("transfer encoding", value));
                    }
                    chunked = true;
                }
                "content-encoding" if !value.eq_ignore_ascii_case("identity") => {
                    return Err(unexpected("content encoding", value));
                }
                "content-type" => self.format = format(value)?,
                _ => {}
            }
        }
        match (chunked, length) {
            (true, None) => Ok(State::ChunkLine),
            (true, Some(_)) => Err(content("the answer has a length and chunks")),
            (false, Some(size)) if size > self.left => Err(Bad::TooLarge),
            (false, Some(0)) => Ok(State::Done),
            (false, Some(size)) => Ok(State::Length(size)),
            (false, None) => Ok(State::UntilEnd),
        }
    }
}

fn status(line: &str) -> Result<u16, Bad> {
    let no_http = || content("what listens there does not speak HTTP/1.1");
    let rest = line
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| line.strip_prefix("HTTP/1.0 "))
        .ok_or_else(no_http)?;
    let digits = rest.get(..3).ok_or_else(no_http)?;
    let ends = matches!(rest.as_bytes().get(3), None | Some(b' '));
    let good = ends && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| good).ok_or_else(no_http)
}

fn format(content_type: &str) -> Result<Format, Bad> {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("text/plain") {
        Ok(Format::Prometheus)
    } else if kind.eq_ignore_ascii_case("application/openmetrics-text") {
        Ok(Format::OpenMetrics)
    } else {
        Err(unexpected("content type", kind))
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, Bad> {
    let line = std::str::from_utf8(line).unwrap_or_default();
    let size = line.split(';').next().unwrap_or_default().trim();
    let hex = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(size, 16)
        .ok()
        .filter(|_| hex)
        .ok_or_else(|| content("a chunk has no sensible size"))
}

fn unexpected(what: &str, value: &str) -> Bad {
    let value = clean(value, 64);
    Bad::Content(format!("the answer has the {what} `{value}`"))
}

fn content(why: &str) -> Bad {
    Bad::Content(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(answer: &[u8], piece: usize, accepted: u64) -> Result<(Vec<u8>, Format), Bad> {
        let (mut reader, mut body) = (Answer::new(accepted), Vec::new());
        for bytes in answer.chunks(piece.max(1)) {
            reader.feed(bytes, &mut body)?;
        }
        Ok((body, reader.end()?))
    }

    const PLAIN: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n";

    #[test]
    fn bodies_of_every_kind_come_whole_in_any_pieces() {
        let answers = [
            format!("{PLAIN}Content-Length: 5\r\n\r\nup 1\n"),
            format!("{PLAIN}Content-Length: 5\r\n\r\nup 1\nand more"),
            format!("{PLAIN}\r\nup 1\n"),
            format!(
                "{PLAIN}Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nup\r\n3\r\n 1\n\r\n0\r\nT: v\r\n\r\n"
            ),
            "HTTP/1.0 200\r\n\r\nup 1\n".to_owned(),
        ];
        for answer in answers {
            for piece in 1..answer.len() + 1 {
                let read = read(answer.as_bytes(), piece, 5);
                assert_eq!(
                    read,
                    Ok((b"up 1\n".to_vec(), Format::Prometheus)),
                    "{answer}"
                );
            }
        }
        let open = "HTTP/1.1 200 OK\r\nCONTENT-TYPE:application/openmetrics-text; version=1.0.0\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(
            read(open.as_bytes(), 7, 0),
            Ok((vec![], Format::OpenMetrics))
        );
    }

    #[test]
    fn answers_that_are_of_no_use_say_why() {
        let long = format!("{PLAIN}X: {}\r\n\r\n", "x".repeat(MAX_HEAD));
        for (answer, why) in [
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "status 503"),
            (
                "HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n",
                "status 302",
            ),
            ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "does not speak HTTP/1.1"),
            ("HTTP/2 200\r\n\r\n", "does not speak HTTP/1.1"),
            ("HTTP/1.1 2000\r\n\r\n", "does not speak HTTP/1.1"),
            ("", "without an answer"),
            ("HTTP/1.1 200 OK\r\n", "ended early"),
            (
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>",
                "content type `text/html`",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nx",
                "content encoding `gzip`",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nx",
                "transfer encoding",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
                "a length and chunks",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                "two lengths",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
                "no sensible length",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nup 1\n",
                "ended early",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
                "larger than accepted",
            ),
            ("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", "no field"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                "no sensible size",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxyz",
                "chunk of the answer is too long",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n01234567890123456789",
                "larger than accepted",
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\n01234567890123456789",
                "larger than accepted",
            ),
            (&long, "head of the answer is too long"),
        ] {
            for piece in [1, 3, answer.len().max(1)] {
                let said = read(answer.as_bytes(), piece, 10).unwrap_err().to_string();
                assert!(said.contains(why), "{answer}: {said}");
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference_and_the_size_holds(bytes: Vec<u8>, piece in 1usize..40, accepted in 0u64..64) {
            let whole = [PLAIN.as_bytes(), b"Transfer-Encoding: chunked\r\n\r\n", &bytes].concat();
            for answer in [&bytes, &whole] {
                let read_whole = read(answer, answer.len().max(1), accepted);
                prop_assert_eq!(&read(answer, piece, accepted), &read_whole);
                if let Ok((body, _)) = read_whole {
                    prop_assert!(body.len() as u64 <= accepted);
                }
            }
        }
    }
}
