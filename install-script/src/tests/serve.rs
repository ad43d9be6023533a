//! A gateway that only serves files, over HTTP or TLS, from a thread of its own.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub(super) struct Server {
    port: u16,
    tls: bool,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    asked: Mutex<Vec<String>>,
    date: Mutex<String>,
    stop: AtomicBool,
}

impl Server {
    pub(super) fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let (theirs, is_tls) = (Arc::clone(&shared), tls.is_some());
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if theirs.stop.load(Ordering::SeqCst) {
                    return;
                }
                // Clients that hang up early are part of the tests.
                let _ = match &tls {
                    None => answer(stream, &theirs),
                    Some(config) => ServerConnection::new(Arc::clone(config))
                        .map_err(io::Error::other)
                        .and_then(|session| answer(StreamOwned::new(session, stream), &theirs)),
                };
            }
        });
        Self {
            port,
            tls: is_tls,
            shared,
            thread: Some(thread),
        }
    }

    pub(super) fn url(&self) -> String {
        format!(
            "{}://127.0.0.1:{}",
            if self.tls { "https" } else { "http" },
            self.port
        )
    }

    pub(super) fn put(&self, path: &str, bytes: &[u8]) {
        self.shared
            .files
            .lock()
            .unwrap()
            .insert(path.to_owned(), bytes.to_owned());
    }

    pub(super) fn clear(&self) {
        self.shared.files.lock().unwrap().clear();
    }

    /// What the Date header says; empty: there is none.
    pub(super) fn set_date(&self, date: &str) {
        date.clone_into(&mut self.shared.date.lock().unwrap());
    }

    /// Which paths were asked for since the last time.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.asked.lock().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the accept.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(stream: impl Read + Write, shared: &Shared) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    stream.read_line(&mut request)?;
    let mut header = String::new();
    while stream.read_line(&mut header)? > 2 {
        header.clear();
    }
    // A client that does not like the certificate hangs up before it asks.
    let Some(path) = request.split(' ').nth(1) else {
        return Ok(());
    };
    shared.asked.lock().unwrap().push(path.to_owned());
    let file = shared.files.lock().unwrap().get(path).cloned();
    let (status, body) = match file {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", Vec::new()),
    };
    let date = shared.date.lock().unwrap().clone();
    let date = if date.is_empty() {
        date
    } else {
        format!("Date: {date}\r\n")
    };
    let head = format!(
        "HTTP/1.1 {status}\r\n{date}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let stream = stream.get_mut();
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    stream.flush()
}
