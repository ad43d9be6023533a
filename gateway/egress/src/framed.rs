//! Datagrams that travel on a stream: each after its length in two bytes, the larger first.
//!
//! Waiting for a datagram may end before it has come; what has come of it by then is kept.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use plugin_host::ports::{Datagrams, GuestError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::datagram::{fits, io as failed, silent};
use crate::wire::Stream;

/// For the other end to take a datagram.
const WRITE: Duration = Duration::from_secs(10);
/// Bytes of a length.
const HEADER: usize = 2;

/// A channel over a stream.
pub(crate) struct Framed {
    stream: Box<dyn Stream>,
    peer: SocketAddr,
    /// The datagram that is coming, with its length.
    coming: Vec<u8>,
}

impl Framed {
    pub(crate) fn new(stream: Box<dyn Stream>, peer: SocketAddr) -> Self {
        Self {
            stream,
            peer,
            coming: Vec::new(),
        }
    }

    async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let wanted = match self.coming.first_chunk::<HEADER>() {
                Some(length) => HEADER + usize::from(u16::from_be_bytes(*length)),
                None => HEADER,
            };
            if self.coming.len() >= HEADER && self.coming.len() == wanted {
                return Ok(std::mem::take(&mut self.coming).split_off(HEADER));
            }
            let missing = (wanted - self.coming.len()) as u64;
            let mut part = (&mut self.stream).take(missing);
            if part.read_buf(&mut self.coming).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[async_trait]
impl Datagrams for Framed {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    async fn send(&mut self, data: &[u8]) -> Result<(), GuestError> {
        fits(data)?;
        let length = u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes();
        let framed = [&length, data].concat();
        let sent = async {
            self.stream.write_all(&framed).await?;
            self.stream.flush().await
        };
        let sent = timeout(WRITE, sent).await;
        sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| failed(&error))
    }

    async fn recv(&mut self, within: Duration) -> Result<Vec<u8>, GuestError> {
        match timeout(within, self.next()).await {
            Err(_) => Err(silent(within)),
            Ok(received) => received.map_err(|error| failed(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use plugin_host::ports::ErrorKind;

    use super::*;

    #[tokio::test]
    async fn a_datagram_that_comes_in_pieces_survives_impatience() {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let peer = SocketAddr::from(([192, 0, 2, 1], 623));
        let mut channel = Framed::new(Box::new(near), peer);
        let soon = Duration::from_millis(20);
        let long = Duration::from_secs(20);
        for part in [&[0][..], &[3], b"ab"] {
            far.write_all(part).await.expect("room");
            let error = channel.recv(soon).await.expect_err("not whole");
            assert_eq!(error.kind, ErrorKind::Timeout);
        }
        far.write_all(b"c\0\0\0\x01d").await.expect("room");
        assert_eq!(channel.recv(long).await.expect("whole"), b"abc");
        assert_eq!(channel.recv(long).await.expect("whole"), b"");
        assert_eq!(channel.recv(long).await.expect("whole"), b"d");

        channel.send(b"xyz").await.expect("room");
        assert!(channel.send(&[0; 1473]).await.is_err());
        let mut sent = [0; 5];
        far.read_exact(&mut sent).await.expect("sent");
        assert_eq!(&sent, b"\0\x03xyz");
        drop(far);
        let error = channel.recv(long).await.expect_err("gone");
        assert_eq!(error.kind, ErrorKind::Unreachable);
    }
}
