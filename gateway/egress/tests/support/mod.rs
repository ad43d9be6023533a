//! Servers that behave and servers that do not, a caller, and a machine of one's own.
#![allow(dead_code, reason = "each suite uses a part of it")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

pub(crate) mod dns;
pub(crate) mod namespace;
pub(crate) mod registry;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use egress::{Audit, Client, NoRoutes, Options, Record, SystemResolver};
use model::names::Name;
use model::plugin::Grant;
use plugin_host::ports::{
    CallContext, Credential, Egress, GuestError, HttpRequest, HttpResponse, Placement, Secret,
    SecretValue,
};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub(crate) trait Conn: Read + Write {}
impl<C: Read + Write> Conn for C {}

/// What a server does with a request: its text, and the connection to answer on.
pub(crate) type Behaviour = dyn Fn(&str, &mut dyn Conn) + Send + Sync;

/// A server on loopback that notes what it was asked.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
}

impl Server {
    pub(crate) fn plain(behaviour: impl Fn(&str, &mut dyn Conn) + Send + Sync + 'static) -> Self {
        Self::start("127.0.0.1:0", None, behaviour)
    }

    pub(crate) fn answering(answer: &'static str) -> Self {
        Self::plain(move |_, conn| drop(conn.write_all(answer.as_bytes())))
    }

    pub(crate) fn tls(config: ServerConfig) -> Self {
        Self::start("127.0.0.1:0", Some(Arc::new(config)), |_, conn| {
            drop(conn.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
        })
    }

    pub(crate) fn start(
        at: &str,
        tls: Option<Arc<ServerConfig>>,
        behaviour: impl Fn(&str, &mut dyn Conn) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(at).expect(at);
        let address = listener.local_addr().expect("a bound socket");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let (noted, counted) = (Arc::clone(&requests), Arc::clone(&connections));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                *counted.lock().expect("a counter") += 1;
                let (noted, tls, behaviour) =
                    (Arc::clone(&noted), tls.clone(), Arc::clone(&behaviour));
                thread::spawn(move || match tls {
                    None => serve(stream, &noted, &*behaviour),
                    Some(config) => {
                        let session = ServerConnection::new(config).expect("a session");
                        serve(StreamOwned::new(session, stream), &noted, &*behaviour);
                    }
                });
            }
        });
        Self {
            address,
            requests,
            connections,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port())
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("requests").clone()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().expect("a counter")
    }
}

fn serve(mut conn: impl Conn, noted: &Mutex<Vec<String>>, behaviour: &Behaviour) {
    let Some(request) = read_request(&mut conn) else {
        return;
    };
    noted.lock().expect("requests").push(request.clone());
    behaviour(&request, &mut conn);
    let _ = conn.flush();
}

fn read_request(conn: &mut impl Read) -> Option<String> {
    let mut bytes = Vec::new();
    let mut space = [0; 4096];
    loop {
        let read = conn.read(&mut space).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&space[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            })
            .unwrap_or(0);
        if body.len() >= length {
            return Some(text);
        }
    }
}

/// Keeps records.
#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<Record>>);

impl Audit for Recorder {
    fn request_ended(&self, record: Record) {
        self.0.lock().expect("records").push(record);
    }
}

impl Recorder {
    pub(crate) fn records(&self) -> Vec<Record> {
        self.0.lock().expect("records").clone()
    }
}

/// A plugin's call, with a client.
pub(crate) struct Caller {
    pub(crate) client: Client,
    pub(crate) call: CallContext,
    pub(crate) audit: Arc<Recorder>,
}

impl Caller {
    /// With a grant in JSON.
    pub(crate) fn new(grant: &str) -> Self {
        Self::with(Options::default(), grant)
    }

    pub(crate) fn with(options: Options, grant: &str) -> Self {
        let audit = Arc::new(Recorder::default());
        let grant: Grant = serde_json::from_str(grant).expect("a grant");
        Self {
            client: Client::new(
                options,
                Arc::new(SystemResolver::default()),
                Arc::clone(&audit) as Arc<dyn Audit>,
                Arc::new(NoRoutes),
            ),
            call: CallContext {
                plugin: "hook".parse().expect("a name"),
                workspace: None,
                call: "call_1".into(),
                grant: Arc::new(grant),
            },
            audit,
        }
    }

    /// That may speak with these ports of this machine, without TLS, and send the secret `key`.
    pub(crate) fn local(ports: &[u16]) -> Self {
        Self::new(&local_grant(ports))
    }

    pub(crate) async fn send(&self, request: HttpRequest) -> Result<HttpResponse, GuestError> {
        self.client.send(&self.call, request, Vec::new()).await
    }

    pub(crate) async fn code(&self, request: HttpRequest) -> String {
        match self.send(request).await {
            Ok(response) => response.status.to_string(),
            Err(error) => error.code,
        }
    }
}

pub(crate) fn local_grant(ports: &[u16]) -> String {
    format!(
        r#"{{"http": [{{"need": "it", "hosts": ["127.0.0.1", "localhost"], "ports": {ports:?},
            "networks": ["127.0.0.0/8"], "plain": true, "secrets": ["key"]}}]}}"#
    )
}

pub(crate) fn get(url: impl Into<String>) -> HttpRequest {
    HttpRequest {
        method: "GET".into(),
        url: url.into(),
        headers: Vec::new(),
        body: Vec::new(),
        tls_profile: None,
        route: None,
        timeout: Duration::from_secs(20),
        max_response_bytes: 1 << 20,
    }
}

pub(crate) fn credential(secret: &str, placement: Placement) -> Credential {
    Credential {
        secret: Secret {
            name: "key".parse::<Name>().expect("a name"),
            version: 1,
            value: SecretValue::new(secret.as_bytes().to_vec()),
        },
        placement,
    }
}
