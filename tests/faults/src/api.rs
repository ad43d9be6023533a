//! The HTTP API as a client on a bad day meets it.
//!
//! A request that broke off has one of two meanings, and mixing them up makes a checker lie: either
//! it cannot have reached the gateway, or nobody knows. A general client hides that behind retries,
//! so here is a small one: HTTP/1.1 over TLS, one kept connection, JSON bodies.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    lab::Place,
    product::{Gateway, World},
};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::Value;

/// No answer of the gateway takes this long, however bad its disk.
const LIMIT: Duration = Duration::from_secs(40);

/// A client with one key and at most one connection. Clones have connections of their own.
#[derive(Debug)]
pub struct Api {
    address: SocketAddr,
    place: Place,
    tls: Arc<ClientConfig>,
    key: String,
    key_id: String,
    connection: Option<Connection>,
}

type Connection = BufReader<StreamOwned<ClientConnection, TcpStream>>;

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `content-type`.
    pub kind: String,
    /// The body, if it is JSON.
    pub body: Value,
    /// The body as text.
    pub text: String,
}

/// A request without an answer.
#[derive(Debug)]
pub enum Broken {
    /// The gateway cannot have seen it whole.
    NotSent(io::Error),
    /// It may have been carried out.
    Unknown(io::Error),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSent(error) => write!(f, "the request was not sent: {error}"),
            Self::Unknown(error) => write!(f, "the request was not answered: {error}"),
        }
    }
}

impl std::error::Error for Broken {}

impl Api {
    /// A client of the world's owner, with a key of its own.
    pub fn of(world: &World) -> Result<Self> {
        let made = world
            .cli()
            .json(&["api-key", "create", "--description", "faults"])?;
        let key = made["secret"].as_str().context("the answer has no key")?;
        let id = made["api_key"]["id"].as_str();
        let mut api = Self::new(world.gateway(), key)?;
        api.key_id = id.context("the answer has no key's id")?.to_owned();
        Ok(api)
    }

    /// The id of its key, by which the audit trail knows it.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// A client of `gateway` that shows `key`.
    pub fn new(gateway: &Gateway, key: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let pem = fs::read(gateway.ca_file()).context("read the gateway's authority")?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.context("read the gateway's authority")?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            address: gateway.address(),
            place: gateway.place().clone(),
            tls: Arc::new(tls),
            key: key.to_owned(),
            key_id: String::new(),
            connection: None,
        })
    }

    /// Sends one request. A body makes it JSON; `idempotency` is the key to repeat it by.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        idempotency: Option<&str>,
    ) -> Result<Answer, Broken> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().map_err(Broken::NotSent)?,
        };
        let request = self.request(method, path, body, idempotency);
        // Even a write that failed may have carried the whole request.
        let answer = exchange(&mut connection, request.as_bytes()).map_err(Broken::Unknown)?;
        if !answer.1 {
            self.connection = Some(connection);
        }
        Ok(answer.0)
    }

    /// Reads. Trying again is harmless, so a connection that has gone stale is replaced.
    pub fn get(&mut self, path: &str) -> Result<Answer> {
        if let Ok(answer) = self.send("GET", path, None, None) {
            return Ok(answer);
        }
        self.connection = None;
        Ok(self.send("GET", path, None, None)?)
    }

    /// A read that must succeed.
    pub fn read(&mut self, path: &str) -> Result<Value> {
        let answer = self.get(path)?;
        ensure!(answer.status == 200, "GET {path}: {answer}");
        Ok(answer.body)
    }

    /// A change that must succeed with `status`.
    pub fn change(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        status: u16,
    ) -> Result<Value> {
        let answer = self.send(method, path, body, None)?;
        ensure!(answer.status == status, "{method} {path}: {answer}");
        Ok(answer.body)
    }

    /// The metric without labels, from the gateway's own page of them.
    pub fn metric(&mut self, name: &str) -> Result<f64> {
        let answer = self.get("/v1/metrics")?;
        let line = answer
            .text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok())
            .with_context(|| format!("there is no metric {name}: {answer}"))
    }

    /// Opens a connection and says nothing on it.
    pub fn connect_only(&mut self) -> io::Result<()> {
        let connection = self.connect()?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Forgets the connection.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    fn connect(&self) -> io::Result<Connection> {
        let stream = self.place.connect(self.address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let session =
            ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, stream);
        // A handshake that fails must not be taken for a request that did.
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(BufReader::new(stream))
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        idempotency: Option<&str>,
    ) -> String {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        if !self.key.is_empty() {
            request += &format!("authorization: Bearer {}\r\n", self.key);
        }
        if let Some(key) = idempotency {
            request += &format!("idempotency-key: {key}\r\n");
        }
        if !body.is_empty() {
            request += "content-type: application/json\r\n";
        }
        request + &format!("content-length: {}\r\n\r\n{body}", body.len())
    }
}

impl Clone for Api {
    fn clone(&self) -> Self {
        Self {
            address: self.address,
            place: self.place.clone(),
            tls: Arc::clone(&self.tls),
            key: self.key.clone(),
            key_id: self.key_id.clone(),
            connection: None,
        }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, self.text)
    }
}

impl Answer {
    /// The problem's stable code, or nothing.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// The id of what was made, or nothing. Some answers wrap it.
    pub fn id(&self) -> &str {
        ["", "/token", "/api_key"]
            .iter()
            .find_map(|part| self.body.pointer(&format!("{part}/id"))?.as_str())
            .unwrap_or_default()
    }
}

/// The answer, and whether the gateway ends the connection after it.
fn exchange(connection: &mut Connection, request: &[u8]) -> io::Result<(Answer, bool)> {
    connection.get_mut().write_all(request)?;
    connection.get_mut().flush()?;
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let status = line(connection)?;
    let status = status.split(' ').nth(1).and_then(|it| it.parse().ok());
    let mut answer = Answer {
        status: status.ok_or_else(|| bad("no status line"))?,
        ..Answer::default()
    };
    let (mut length, mut chunked, mut closes) = (0, false, false);
    loop {
        let line = line(connection)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(|_| bad("no length"))?,
            "content-type" => answer.kind = value.to_owned(),
            "connection" => closes = value.eq_ignore_ascii_case("close"),
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let length = line(connection)?;
            let length = usize::from_str_radix(&length, 16).map_err(|_| bad("no chunk"))?;
            append(connection, length, &mut body)?;
            line(connection)?;
            if length == 0 {
                break;
            }
        }
    } else {
        append(connection, length, &mut body)?;
    }
    answer.body = serde_json::from_slice(&body).unwrap_or_default();
    answer.text = String::from_utf8_lossy(&body).into_owned();
    Ok((answer, closes))
}

fn append(connection: &mut Connection, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
    let before = body.len();
    body.resize(before + length, 0);
    connection.read_exact(&mut body[before..])
}

fn line(connection: &mut Connection) -> io::Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
