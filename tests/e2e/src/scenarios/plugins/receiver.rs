//! A receiver of webhooks that can be away: a plain HTTP server of a few lines, which checks what
//! it gets like somebody who was given the secret.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

/// Largest request.
const LIMIT: usize = 1 << 20;

/// One request that came.
#[derive(Clone, Debug)]
pub(super) struct Got {
    /// The event's id.
    pub(super) id: String,
    /// The body.
    pub(super) body: Value,
    /// Whether its signature holds.
    pub(super) signed: bool,
}

/// The receiver.
pub(super) struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Starts to listen; at a given address, if it was there before.
    pub(super) fn listen(at: Option<SocketAddr>, secret: &[u8]) -> Result<Self> {
        let at = at.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = TcpListener::bind(at).context("listen for webhooks")?;
        let address = listener.local_addr()?;
        let got = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (got, stop, secret) = (Arc::clone(&got), Arc::clone(&stop), secret.to_vec());
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    // What is no request of a webhook is nobody's loss.
                    if let Ok(one) = take(&stream, &secret) {
                        lock(&got).push(one);
                    }
                    let _ = stream.shutdown(Shutdown::Both);
                }
            })
        };
        Ok(Self {
            address,
            got,
            stop,
            thread: Some(thread),
        })
    }

    /// Where.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has come so far.
    pub(super) fn got(&self) -> Vec<Got> {
        lock(&self.got).clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it from accepting.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(stream: &TcpStream, secret: &[u8]) -> Result<Got> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    let (mut length, mut id, mut signature) = (0, String::new(), String::new());
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "the request ended early");
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse()?,
            "loopback-event" => value.trim().clone_into(&mut id),
            "loopback-signature" => value.trim().clone_into(&mut signature),
            _ => {}
        }
    }
    ensure!(length <= LIMIT, "too large");
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut answer = stream;
    answer.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")?;
    Ok(Got {
        id,
        signed: holds(&signature, &body, secret),
        body: serde_json::from_slice(&body)?,
    })
}

/// Whether `t=SECONDS,v1=HEX` is the HMAC of `SECONDS.BODY`.
fn holds(signature: &str, body: &[u8], secret: &[u8]) -> bool {
    let Some((seconds, hex)) = signature
        .strip_prefix("t=")
        .and_then(|rest| rest.split_once(",v1="))
    else {
        return false;
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes any key");
    mac.update(seconds.as_bytes());
    mac.update(b".");
    mac.update(body);
    let sum = mac.finalize().into_bytes();
    let expected: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    expected == hex
}
