//! WASI, there and inert.
//!
//! The standard libraries of Rust, Python and JavaScript import all of WASI, so it must be there
//! for a plugin to start. There is nothing in it: no environment, no arguments, no files, no
//! sockets, no names. Clocks stand still (the time is in `loopback:base/task`, where it can be
//! recorded), random numbers are the same each time a call is made with the same id, and what is
//! written to standard output and standard error becomes lines of the plugin's log, so that a
//! panic is seen.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::random::Deterministic;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx};

use crate::call_log::{CallLog, Source};

/// Bytes of one request for random numbers.
const RANDOM_BYTES: u64 = 64 << 10;

/// Bytes that one write to standard output may have.
const WRITE_BYTES: usize = 4 << 10;

/// What a call finds.
pub(crate) fn inert(call: &str, log: &Arc<CallLog>) -> WasiCtx {
    let seed = seed(call);
    let stream = |source| Stream {
        source,
        log: Arc::clone(log),
    };
    let mut builder = WasiCtx::builder();
    builder
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .wall_clock(Still)
        .monotonic_clock(Still)
        .secure_random(numbers(seed))
        .insecure_random(numbers(!seed))
        .insecure_random_seed(u128::from(seed))
        .max_random_size(RANDOM_BYTES)
        .stdout(stream(Source::Stdout))
        .stderr(stream(Source::Stderr));
    builder.build()
}

/// FNV-1a: not for secrecy, only so that calls differ.
fn seed(call: &str) -> u64 {
    call.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// splitmix64, for so long that what repeats afterwards is nobody's matter.
fn numbers(mut state: u64) -> Deterministic {
    let mut bytes = Vec::with_capacity(1024);
    while bytes.len() < 1024 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    Deterministic::new(bytes)
}

/// Clocks that stand still, at the epoch.
struct Still;

impl HostWallClock for Still {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for Still {
    fn resolution(&self) -> u64 {
        1_000_000_000
    }

    fn now(&self) -> u64 {
        0
    }
}

/// Standard output or standard error.
#[derive(Clone)]
struct Stream {
    source: Source,
    log: Arc<CallLog>,
}

impl IsTerminal for Stream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {}
}

impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.log.stdio(self.source, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.log.stdio(self.source, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
