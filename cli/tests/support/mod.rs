//! A gateway that says what it is told to, over real TLS, and remembers what it
//! was asked.

#![allow(dead_code, reason = "each test program uses a part")]

pub(crate) mod command;
pub(crate) mod shell;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cli::client::{Builder, Client, Patience, Pin, Trust};
use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData as _,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub(crate) const KEY: &str =
    "lbk_00000000000000000000000001_1111111111111111111111111111111111111111111111111110";
pub(crate) const WORKSPACE: &str = "wsp_00000000000000000000000001";

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What to do with a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Status and JSON body.
    Json(u16, String),
    /// A body of another kind, sent in pieces until the end of the connection.
    Stream(&'static str, String),
    /// The same, each piece when the test sends it; the end when it hangs up.
    Live(&'static str, Arc<Mutex<Receiver<String>>>),
    /// Nothing: the connection ends, the reply is lost.
    Silence,
    /// A redirect there.
    Redirect(String),
}

pub(crate) fn json(status: u16, body: impl ToString) -> Answer {
    Answer::Json(status, body.to_string())
}

pub(crate) fn problem(code: api::ProblemCode) -> Answer {
    problem_with(&api::Problem::new(code, "told by the test"))
}

pub(crate) fn problem_with(problem: &api::Problem) -> Answer {
    Answer::Json(problem.status, serde_json::to_string(problem).unwrap())
}

/// The gateway. It ends when dropped.
pub(crate) struct Gateway {
    pub(crate) url: String,
    pub(crate) ca_pem: String,
    pub(crate) pin: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    listener: TcpListener,
}

type Script = Arc<Mutex<dyn FnMut(&Asked) -> Answer + Send>>;

impl Gateway {
    /// Answers in this order, whatever is asked; then with 500.
    pub(crate) fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let mut answers: VecDeque<_> = answers.into_iter().collect();
        Self::deciding(move |_| {
            answers
                .pop_front()
                .unwrap_or_else(|| problem(api::ProblemCode::Internal))
        })
    }

    /// Answers as `decide` says.
    pub(crate) fn deciding(decide: impl FnMut(&Asked) -> Answer + Send + 'static) -> Self {
        let (config, ca_pem, pin) = certificates();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let script: Script = Arc::new(Mutex::new(decide));
        let (accepting, log) = (listener.try_clone().unwrap(), Arc::clone(&asked));
        thread::spawn(move || {
            while let Ok((socket, _)) = accepting.accept() {
                let (config, log, script) =
                    (Arc::clone(&config), Arc::clone(&log), Arc::clone(&script));
                // One that speaks no TLS, or hangs up, is its own business.
                thread::spawn(move || serve(socket, config, &log, &script));
            }
        });
        Self {
            url,
            ca_pem,
            pin,
            asked,
            listener,
        }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::Authorities(self.ca_pem.clone())
    }

    pub(crate) fn pinned(&self) -> Trust {
        Trust::Pin(self.pin.parse::<Pin>().unwrap())
    }

    pub(crate) fn builder(&self) -> Builder {
        Client::builder(self.url.parse().unwrap())
            .trust(self.trust())
            .api_key(Some(KEY.parse().unwrap()))
            .timeout(Duration::from_secs(10))
            .patience(Patience {
                attempts: 5,
                budget: Duration::from_secs(5),
            })
    }

    pub(crate) fn client(&self) -> Client {
        self.builder().build().unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

fn certificates() -> (Arc<ServerConfig>, String, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let digest = ring::digest::digest(&ring::digest::SHA256, &key.subject_public_key_info());
    let pin = format!("sha256//{}", BASE64.encode(digest.as_ref()));
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], private)
            .unwrap();
    (Arc::new(config), authority.pem(), pin)
}

fn serve(socket: TcpStream, config: Arc<ServerConfig>, log: &Mutex<Vec<Asked>>, script: &Script) {
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
    let Some(asked) = read_request(&mut stream) else {
        return;
    };
    log.lock().unwrap().push(asked.clone());
    let answer = (script.lock().unwrap())(&asked);
    let head = match &answer {
        Answer::Json(status, body) => {
            let kind = if *status < 400 {
                "application/json"
            } else {
                "application/problem+json"
            };
            let length = body.len();
            format!(
                "HTTP/1.1 {status} x\r\nx-request-id: req_7\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            )
        }
        Answer::Stream(kind, body) => {
            let length = body.len();
            format!(
                "HTTP/1.1 200 x\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
            )
        }
        Answer::Live(kind, _) => format!(
            "HTTP/1.1 200 x\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        ),
        Answer::Redirect(to) => {
            format!(
                "HTTP/1.1 307 x\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
        }
        Answer::Silence => String::new(),
    };
    let _ = stream.write_all(head.as_bytes());
    if let Answer::Live(_, pieces) = &answer {
        let _ = stream.flush();
        while let Ok(piece) = pieces.lock().unwrap().recv() {
            let _ = write!(stream, "{:x}\r\n{piece}\r\n", piece.len());
            let _ = stream.flush();
        }
        let _ = stream.write_all(b"0\r\n\r\n");
    }
    if !matches!(answer, Answer::Silence) {
        stream.conn.send_close_notify();
    }
    let _ = stream.flush();
    let _ = stream.sock.shutdown(Shutdown::Both);
}

pub(crate) fn read_request(stream: &mut impl Read) -> Option<Asked> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        let mut piece = vec![0; length - body.len()];
        let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        body.extend_from_slice(&piece[..count]);
    }
    Some(Asked {
        line,
        headers,
        body: String::from_utf8(body).ok()?,
    })
}
