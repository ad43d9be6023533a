//! A small HTTP/1.1 client over plain TCP, and load made with it.
//!
//! It shares the machine with what it measures, so it does as little as possible: requests are
//! bytes made beforehand, an answer is its status and as many bytes as `content-length` says.
//! Ours and the peer get exactly the same client.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// No answer takes this long.
const ANSWER: Duration = Duration::from_secs(30);

/// A connection that stays open.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(16 << 10),
        })
    }

    /// Sends a whole request and reads its whole answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<Reply> {
        tokio::time::timeout(ANSWER, self.exchange(request))
            .await
            .context("no answer")?
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Reply> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.read_more().await?;
        };
        let text = str::from_utf8(&self.buffer[..head]).context("the head is text")?;
        let status = text.get(9..12).and_then(|word| word.parse().ok());
        let status = status.context("the answer has a status")?;
        let length = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse::<usize>().ok());
        let length = match length {
            Some(length) => length,
            None if status == 204 => 0,
            None => bail!("the answer has no content-length"),
        };
        while self.buffer.len() < head + length {
            self.read_more().await?;
        }
        Ok(Reply {
            status,
            body: self.buffer[head..head + length].to_vec(),
        })
    }

    /// Sends a whole request and reads an answer in pieces to its end; the pieces as
    /// they came, with their lengths.
    pub(crate) async fn listen(&mut self, request: &[u8]) -> Result<String> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        while !self.buffer.ends_with(b"\r\n0\r\n\r\n") {
            self.read_more().await?;
        }
        Ok(String::from_utf8_lossy(&self.buffer).into_owned())
    }

    async fn read_more(&mut self) -> Result<()> {
        let read = self.stream.read_buf(&mut self.buffer).await?;
        ensure!(read > 0, "the server closed the connection");
        Ok(())
    }
}

/// A request as bytes.
pub(crate) fn request(method: &str, path: &str, key: &str, body: &str) -> Vec<u8> {
    let mut request = head(method, path, key, "application/json", body.len());
    request.extend_from_slice(body.as_bytes());
    request
}

/// What stands before a body of this length.
pub(crate) fn head(method: &str, path: &str, key: &str, kind: &str, length: usize) -> Vec<u8> {
    let authorization = if key.is_empty() {
        String::new()
    } else {
        format!("authorization: Bearer {key}\r\n")
    };
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{authorization}\
         content-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    )
    .into_bytes()
}

/// One request on a connection of its own; the JSON of a 2xx answer.
pub(crate) async fn call(address: SocketAddr, request: &[u8]) -> Result<Value> {
    let reply = Connection::open(address).await?.ask(request).await?;
    let text = String::from_utf8_lossy(&reply.body);
    ensure!(
        (200..300).contains(&reply.status),
        "answer {}: {text}",
        reply.status
    );
    serde_json::from_str(&text).context("the answer is JSON")
}

/// What a load came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Answers a second.
    pub(crate) per_second: f64,
    /// All but a hundredth came within.
    pub(crate) p99: Duration,
}

/// Keeps `connections` busy with requests, one at a time each, and counts after a warm-up.
/// `requests[n]` are the ones connection `n` sends in turn.
pub(crate) async fn hammer(
    address: SocketAddr,
    requests: Vec<Vec<Vec<u8>>>,
    warm_up: Duration,
    measure: Duration,
) -> Result<Load> {
    let stop = Arc::new(AtomicBool::new(false));
    let begin = Instant::now() + warm_up;
    let mut workers = tokio::task::JoinSet::new();
    for own in requests {
        let stop = Arc::clone(&stop);
        workers.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut times = Vec::new();
            for request in own.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let sent = Instant::now();
                let reply = connection.ask(request).await?;
                ensure!(
                    (200..300).contains(&reply.status),
                    "answer {}: {}",
                    reply.status,
                    String::from_utf8_lossy(&reply.body)
                );
                if sent >= begin {
                    times.push(sent.elapsed());
                }
            }
            Ok(times)
        });
    }
    tokio::time::sleep(warm_up + measure).await;
    let elapsed = begin.elapsed();
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    while let Some(worker) = workers.join_next().await {
        times.extend(worker??);
    }
    Ok(Load {
        #[expect(clippy::cast_precision_loss, reason = "a count of requests")]
        per_second: times.len() as f64 / elapsed.as_secs_f64(),
        p99: quantile(&mut times, 0.99),
    })
}

/// The time that a share `q` of all stays within.
pub(crate) fn quantile(times: &mut [Duration], q: f64) -> Duration {
    times.sort_unstable();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index between 0 and the length"
    )]
    let at = (times.len() as f64 * q).ceil() as usize;
    times
        .get(at.saturating_sub(1))
        .copied()
        .unwrap_or(Duration::MAX)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_values() {
        let mut times: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&mut times, 0.5), Duration::from_millis(100));
        assert_eq!(quantile(&mut times, 0.99), Duration::from_millis(198));
        assert_eq!(quantile(&mut [], 0.5), Duration::MAX);
    }
}
