//! Bytes and datagrams between a stream of the link and a socket, until one side ends, nothing
//! has passed for long, or more has passed than any request needs.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quinn::{ReadExactError, RecvStream, SendStream, VarInt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep_until, timeout};

/// Nothing has passed for this long. The gateway gives no request longer than that.
const IDLE: Duration = Duration::from_secs(300);
/// Most bytes that go out: the gateway sends bodies of 4 MiB, with headers and TLS around them.
const MOST_OUT: u64 = 8 << 20;
/// Most bytes that come back: bodies of 64 MiB, with as much again for how they are framed.
const MOST_BACK: u64 = 128 << 20;
/// Bytes that are passed on at a time.
const PIECE: usize = 32 << 10;
/// Longest datagram that goes out: what fits an Ethernet frame.
const MAX_DATAGRAM: usize = 1_472;
/// For the gateway to take what was said last.
const LINGER: Duration = Duration::from_secs(10);
/// Told to a stream whose socket, or whose time, has come to an end out of order.
const BROKEN: VarInt = VarInt::from_u32(2);

/// What has passed.
struct Meter {
    last: Mutex<Instant>,
}

impl Meter {
    fn new() -> Self {
        Self {
            last: Mutex::new(Instant::now()),
        }
    }

    fn passed(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Ends when nothing has passed for long.
    async fn idle(&self) {
        loop {
            let due = *self.last.lock().unwrap_or_else(PoisonError::into_inner) + IDLE;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

fn counted(count: usize, left: &mut u64) -> io::Result<()> {
    let rest = left.checked_sub(count as u64);
    *left = rest.ok_or_else(|| io::Error::other("more bytes than a request has"))?;
    Ok(())
}

/// Carries a connection.
pub(super) async fn tcp(mut stream: TcpStream, mut send: SendStream, mut receive: RecvStream) {
    let (mut from, mut to) = stream.split();
    let meter = Meter::new();
    let out = async {
        let (mut piece, mut left) = (vec![0; PIECE], MOST_OUT);
        while let Some(count) = receive.read(&mut piece).await.map_err(io::Error::other)? {
            counted(count, &mut left)?;
            meter.passed();
            if to.write_all(&piece[..count]).await.is_err() {
                // What the other side has said before it stopped listening still counts.
                let _ = receive.stop(BROKEN);
                return Ok(());
            }
        }
        // It may have gone already, having said all.
        let _ = to.shutdown().await;
        Ok::<_, io::Error>(())
    };
    let back = async {
        let (mut piece, mut left) = (vec![0; PIECE], MOST_BACK);
        loop {
            let count = from.read(&mut piece).await?;
            if count == 0 {
                let _ = send.finish();
                return Ok(());
            }
            counted(count, &mut left)?;
            meter.passed();
            send.write_all(&piece[..count]).await?;
        }
    };
    let carried = async { tokio::try_join!(out, back) };
    let ended = tokio::select! {
        carried = carried => carried.map(drop),
        () = meter.idle() => Err(io::ErrorKind::TimedOut.into()),
    };
    finish(ended, send).await;
}

/// Carries datagrams.
pub(super) async fn udp(socket: UdpSocket, mut send: SendStream, mut receive: RecvStream) {
    let meter = Meter::new();
    let out = async {
        let (mut datagram, mut left) = (vec![0; MAX_DATAGRAM], MOST_OUT);
        loop {
            let mut length = [0; 2];
            match receive.read_exact(&mut length).await {
                Ok(()) => {}
                Err(ReadExactError::FinishedEarly(0)) => return Ok(()),
                Err(error) => return Err(io::Error::other(error)),
            }
            let length = usize::from(u16::from_be_bytes(length));
            let room = datagram.get_mut(..length);
            let room = room.ok_or_else(|| io::Error::other("a datagram is too long"))?;
            let read = receive.read_exact(room).await;
            read.map_err(io::Error::other)?;
            counted(length, &mut left)?;
            meter.passed();
            unless_refused(socket.send(&datagram[..length]).await)?;
        }
    };
    let back = async {
        let (mut datagram, mut left) = (vec![0; 64 << 10], MOST_BACK);
        loop {
            let Some(length) = unless_refused(socket.recv(&mut datagram).await)? else {
                continue;
            };
            counted(length, &mut left)?;
            meter.passed();
            let prefix = u16::try_from(length).map_err(io::Error::other)?;
            send.write_all(&prefix.to_be_bytes()).await?;
            send.write_all(&datagram[..length]).await?;
        }
    };
    let ended = tokio::select! {
        ended = out => ended,
        ended = back => ended,
        () = meter.idle() => Err(io::ErrorKind::TimedOut.into()),
    };
    finish(ended, send).await;
}

/// A device that is just starting refuses, and answers the next datagram: nobody is there is what
/// silence says as well.
fn unless_refused<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(error),
    }
}

async fn finish(ended: io::Result<()>, mut send: SendStream) {
    match ended {
        Ok(()) => end(send).await,
        Err(error) => {
            tracing::debug!(%error, "a forward was cut");
            let _ = send.reset(BROKEN);
        }
    }
}

/// Says that nothing follows, and waits for that to arrive.
pub(super) async fn end(mut send: SendStream) {
    // Finished already, where the other side ended first.
    let _ = send.finish();
    let _ = timeout(LINGER, send.stopped()).await;
}
