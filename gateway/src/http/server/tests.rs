//! Against real sockets on loopback, spoken to by hand.

mod http2;

use super::*;
use axum::body::Body;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Extension, Request};
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

/// For everything that must happen; nothing waits this long unless it fails.
const LIMIT: Duration = Duration::from_secs(20);

fn settings() -> Settings {
    Settings {
        trusted_proxies: vec!["127.0.0.9".parse().unwrap()],
        ..Settings::from(&Config::default())
    }
}

fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route(
            "/client",
            get(|request: Request| async move { whoami(&request) }),
        )
        .route("/echo", post(|body: String| async { body }))
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("clumsy handler")
                }
            }),
        )
        .route("/slow", get(slow))
        .route("/flood", get(|| async { Body::from(vec![7; 32 << 20]) }))
        .route(
            "/ws",
            get(|upgrade: WebSocketUpgrade| async { upgrade.on_upgrade(echo) }),
        )
        .layer(Extension(Arc::new(tokio::sync::Notify::new())))
}

/// Begins to answer at once and ends when told to.
async fn slow(Extension(go): Extension<Arc<tokio::sync::Notify>>) -> Body {
    let parts = futures_util::stream::unfold(0, move |part| {
        let go = Arc::clone(&go);
        async move {
            match part {
                0 => Some((Ok::<_, io::Error>("begun"), 1)),
                1 => {
                    go.notified().await;
                    Some((Ok("ended"), 2))
                }
                _ => None,
            }
        }
    });
    Body::from_stream(parts)
}

async fn echo(mut socket: axum::extract::ws::WebSocket) {
    while let Some(Ok(Message::Text(text))) = socket.next().await {
        let _ = socket.send(Message::Text(text)).await;
    }
}

fn whoami(request: &Request) -> String {
    let client = request
        .extensions()
        .get::<ClientAddr>()
        .map(|client| client.0.to_string());
    let admin = request.extensions().get::<LocalAdmin>();
    format!(
        "{client:?} {:?}",
        admin.map(|admin| admin.uid == rustix::process::getuid().as_raw())
    )
}

struct Fixture {
    address: SocketAddr,
    tasks: Tasks,
    metrics: Metrics,
    client: Arc<rustls::ClientConfig>,
}

impl Fixture {
    async fn plain(settings: Settings) -> Self {
        Self::start(settings, router(), |listener, _| Door::Plain(listener)).await
    }

    async fn tls(settings: Settings) -> Self {
        Self::start(settings, router(), Door::Https).await
    }

    async fn start(
        settings: Settings,
        router: Router,
        door: impl FnOnce(TcpListener, Arc<rustls::ServerConfig>) -> Door,
    ) -> Self {
        let metrics = Metrics::new();
        let tasks = Tasks::new(metrics.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tls, client) = configs();
        let server = Server::new(router, settings, tasks.clone(), metrics.clone());
        tasks.spawn_critical("http.test", server.serve(door(listener, tls)));
        Self {
            address,
            tasks,
            metrics,
            client,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn connect_tls(&self, alpn: &[&str]) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut config = rustls::ClientConfig::clone(&self.client);
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, self.connect().await)
            .await
            .unwrap()
    }
}

fn configs() -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("it takes too long")
}

/// Sends `request` and reads to the end.
async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    within(async {
        stream.write_all(request.as_bytes()).await.unwrap();
        rest(&mut stream).await
    })
    .await
}

/// Everything until the other side closes, however it does.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = within(stream.read(&mut buffer)).await {
        all.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, wait)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

fn one(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")
}

#[tokio::test]
async fn requests_are_answered_in_the_clear_and_over_tls() {
    let plain = Fixture::plain(settings()).await;
    assert!(
        talk(plain.connect().await, &one("/", ""))
            .await
            .ends_with("hello")
    );
    let tls = Fixture::tls(settings()).await;
    for alpn in [&[][..], &["http/1.1"]] {
        assert!(
            talk(tls.connect_tls(alpn).await, &one("/", ""))
                .await
                .ends_with("hello")
        );
    }
    let body = "POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
    assert!(
        talk(tls.connect_tls(&[]).await, body)
            .await
            .ends_with("body")
    );
}

#[tokio::test]
async fn http2_is_spoken_where_it_was_agreed_on() {
    let fixture = Fixture::tls(settings()).await;
    let mut stream = fixture.connect_tls(&["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    // Preface, empty SETTINGS, and HEADERS for GET / by static table indices, with `a` as its authority.
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    request.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    request.extend([0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x87, 0x41, 1, b'a']);
    within(stream.write_all(&request)).await.unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !seen.windows(5).any(|part| part == b"hello") {
        let count = within(stream.read(&mut buffer)).await.unwrap();
        assert_ne!(count, 0, "closed after {seen:?}");
        seen.extend_from_slice(&buffer[..count]);
    }
}

#[tokio::test]
async fn abuse_17_an_http2_peer_that_says_nothing_is_let_go() {
    let settings = Settings {
        head: Duration::from_millis(40),
        ..settings()
    };
    let fixture = Fixture::tls(settings).await;
    let mut stream = fixture.connect_tls(&["h2"]).await;
    rest(&mut stream).await;
    until("the connection is over", || {
        fixture.tasks.running("http.connection") == 0
    })
    .await;
}

#[tokio::test]
async fn abuse_17_a_handshake_that_is_never_finished_ends() {
    let settings = Settings {
        handshake: Duration::from_millis(20),
        ..settings()
    };
    let fixture = Fixture::tls(settings).await;
    let mut silent = fixture.connect().await;
    assert_eq!(rest(&mut silent).await, "");
    let mut half = fixture.connect().await;
    half.write_all(&[0x16, 3, 1, 0, 200, 1]).await.unwrap();
    assert_eq!(rest(&mut half).await, "");
    until("both are over", || {
        fixture.tasks.running("http.connection") == 0
    })
    .await;
}

#[tokio::test]
async fn abuse_17_a_head_that_trickles_in_ends() {
    let settings = Settings {
        head: Duration::from_millis(50),
        ..settings()
    };
    let fixture = Fixture::plain(settings).await;
    let (mut reader, mut writer) = fixture.connect().await.into_split();
    let trickle = async move {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        loop {
            tick.tick().await;
            if writer.write_all(b"X").await.is_err() {
                return;
            }
        }
    };
    let answer = tokio::select! {
        answer = rest(&mut reader) => answer,
        () = trickle => String::new(),
    };
    assert!(!answer.contains("200"), "{answer}");
    until("it is over", || {
        fixture.tasks.running("http.connection") == 0
    })
    .await;
}

#[tokio::test]
async fn abuse_17_an_idle_connection_ends_and_a_busy_one_does_not() {
    let settings = Settings {
        head: Duration::from_millis(40),
        idle: Duration::from_millis(40),
        ..settings()
    };
    let go = Arc::new(tokio::sync::Notify::new());
    let slow = Router::new()
        .route("/slow", get(slow))
        .layer(Extension(Arc::clone(&go)));
    let fixture = Fixture::start(settings, slow, |listener, _| Door::Plain(listener)).await;
    let mut idle = fixture.connect().await;
    let mut busy = fixture.connect().await;
    busy.write_all(one("/slow", "").as_bytes()).await.unwrap();
    rest(&mut idle).await;
    until("only the busy one is left", || {
        fixture.tasks.running("http.connection") == 1
    })
    .await;
    go.notify_one();
    let answer = rest(&mut busy).await;
    assert!(
        answer.contains("begun") && answer.contains("ended"),
        "{answer}"
    );
}

#[tokio::test]
async fn abuse_17_a_client_that_does_not_read_is_cut_off() {
    let settings = Settings {
        stall: Duration::from_millis(50),
        ..settings()
    };
    let fixture = Fixture::plain(settings).await;
    let mut stream = fixture.connect().await;
    stream
        .write_all(one("/flood", "").as_bytes())
        .await
        .unwrap();
    until("it was taken in", || {
        fixture.tasks.running("http.connection") == 1
    })
    .await;
    until("it is cut off", || {
        fixture.tasks.running("http.connection") == 0
    })
    .await;
}

#[tokio::test]
async fn abuse_24_heads_that_are_too_large_get_431_and_two_hosts_400() {
    let fixture = Fixture::plain(Settings {
        header_bytes: 8 << 10,
        ..settings()
    })
    .await;
    let large = |bytes| one("/", &format!("X-Large: {}\r\n", "x".repeat(bytes)));
    assert!(
        talk(fixture.connect().await, &large(7 << 10))
            .await
            .ends_with("hello")
    );
    let ours = talk(fixture.connect().await, &large(9 << 10)).await;
    assert!(
        ours.starts_with("HTTP/1.1 431") && ours.contains("headers_too_large"),
        "{ours}"
    );
    let theirs = talk(fixture.connect().await, &large(40 << 10)).await;
    assert!(theirs.starts_with("HTTP/1.1 431"), "{theirs}");
    let twice = talk(fixture.connect().await, &one("/", "Host: other\r\n")).await;
    assert!(
        twice.starts_with("HTTP/1.1 400") && twice.contains("malformed_request"),
        "{twice}"
    );
}

#[tokio::test]
async fn abuse_24_a_request_whose_end_is_in_doubt_is_the_last_of_its_connection() {
    let fixture = Fixture::plain(settings()).await;
    let two = |fields: &str| {
        format!(
            "POST /echo HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n0\r\n\r\n\
             GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
    };
    for fields in [
        "Transfer-Encoding: chunked",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
    ] {
        let answers = talk(fixture.connect().await, &two(fields)).await;
        assert!(answers.contains("connection: close"), "{fields}: {answers}");
        assert_eq!(
            answers.matches("HTTP/1.1 ").count(),
            1,
            "there is no second answer: {answers}"
        );
    }
    // Where the encoding does not say where the end is, there is no answer but a refusal.
    for fields in [
        "Transfer-Encoding: x",
        "Transfer-Encoding: chunked, x",
        "Content-Length: 5\r\nContent-Length: 6",
    ] {
        let answers = talk(fixture.connect().await, &two(fields)).await;
        assert!(answers.starts_with("HTTP/1.1 400"), "{fields}: {answers}");
        assert!(!answers.contains("hello"), "{fields}: {answers}");
    }
    // What follows a length alone is not in doubt.
    let plain = "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    let plain = talk(fixture.connect().await, &format!("{plain}{}", one("/", ""))).await;
    assert!(plain.ends_with("hello"), "{plain}");
}

#[tokio::test]
async fn abuse_25_foreign_pages_and_names_get_no_answer() {
    let plain = Fixture::plain(settings()).await;
    let tls = Fixture::tls(settings()).await;
    let foreign = one("/", "Origin: https://evil.example\r\n");
    let own = one("/", "Origin: http://localhost\r\n");
    let bent = one("/", "").replace("localhost", "evil.example");
    for (request, in_the_clear, encrypted) in [
        (foreign, "foreign_origin", "foreign_origin"),
        (own, "hello", "hello"),
        // Over TLS the browser has seen that the certificate is of another name.
        (bent, "misdirected", "hello"),
    ] {
        let answer = talk(plain.connect().await, &request).await;
        assert!(answer.contains(in_the_clear), "{request}: {answer}");
        let answer = talk(tls.connect_tls(&[]).await, &request).await;
        assert!(answer.contains(encrypted), "{request}: {answer}");
    }
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let fixture = Fixture::plain(settings()).await;
    for (path, status) in [("/", "405"), ("/nothing", "404")] {
        let length = 900_000;
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        let mut stream = fixture.connect().await;
        within(stream.write_all(head.as_bytes())).await.unwrap();
        within(stream.write_all(&vec![b'x'; length])).await.unwrap();
        // The connection is as good as before.
        let answers = talk(stream, &one("/", "")).await;
        assert!(
            answers.starts_with(&format!("HTTP/1.1 {status}")),
            "{answers}"
        );
        assert!(answers.ends_with("hello"), "{answers}");
    }
}

#[tokio::test]
async fn abuse_17_a_refused_body_without_end_is_not_read_for_ever() {
    let fixture = Fixture::plain(settings()).await;
    let stream = fixture.connect().await;
    let (mut reader, mut writer) = stream.into_split();
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    writer.write_all(head.as_bytes()).await.unwrap();
    let mut sent = 0;
    let feed = async {
        let chunk = [b"1000\r\n".to_vec(), vec![b'x'; 0x1000], b"\r\n".to_vec()].concat();
        while writer.write_all(&chunk).await.is_ok() {
            sent += chunk.len();
        }
    };
    let (answer, ()) = tokio::join!(rest(&mut reader), within(feed));
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 405"),
        "{answer}"
    );
    assert!(sent < 16 << 20, "{sent} bytes were taken");
    until("it is over", || {
        fixture.tasks.running("http.connection") == 0
    })
    .await;
}

#[tokio::test]
async fn a_panic_costs_its_request() {
    let fixture = Fixture::plain(settings()).await;
    let answer = talk(fixture.connect().await, &one("/panic", "")).await;
    assert!(
        answer.starts_with("HTTP/1.1 500") && answer.contains("\"internal\""),
        "{answer}"
    );
    assert!(
        !answer.contains("clumsy"),
        "the panic's text is not for the client"
    );
    assert!(
        fixture
            .metrics
            .encode()
            .contains("loopback_panics_total{task=\"http.request\"} 1")
    );
    assert!(
        talk(fixture.connect().await, &one("/", ""))
            .await
            .ends_with("hello")
    );
}

#[tokio::test]
async fn abuse_19_one_source_cannot_take_all_connections() {
    let settings = Settings {
        connections_per_source: 2,
        ..settings()
    };
    let fixture = Fixture::plain(settings).await;
    let mut first = fixture.connect().await;
    let _second = fixture.connect().await;
    until("two are in", || {
        fixture.tasks.running("http.connection") == 2
    })
    .await;
    // The third gets in, and it is a silent one of the same source that pays for it.
    assert!(
        talk(fixture.connect().await, &one("/", ""))
            .await
            .ends_with("hello")
    );
    assert_eq!(rest(&mut first).await, "");
    until("only the younger silent one is left", || {
        fixture.tasks.running("http.connection") == 1
    })
    .await;
    // A proxy's connections are those of many.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let proxy = socket.connect(fixture.address).await.unwrap();
    assert!(talk(proxy, &one("/", "")).await.ends_with("hello"));
}

#[tokio::test]
async fn abuse_19_newcomers_wait_for_a_free_slot() {
    let fixture = Fixture::plain(Settings {
        connections: 1,
        ..settings()
    })
    .await;
    let first = fixture.connect().await;
    until("the slot is taken", || {
        fixture.tasks.running("http.connection") == 1
    })
    .await;
    let mut second = fixture.connect().await;
    second.write_all(one("/", "").as_bytes()).await.unwrap();
    drop(first);
    assert!(rest(&mut second).await.ends_with("hello"));
}

#[tokio::test]
async fn abuse_24_the_client_is_the_peer_unless_a_trusted_proxy_says_otherwise() {
    let fixture = Fixture::plain(settings()).await;
    let claim = one("/client", "X-Forwarded-For: 192.0.2.7\r\n");
    let direct = talk(fixture.connect().await, &claim).await;
    assert!(direct.ends_with("Some(\"127.0.0.1\") None"), "{direct}");
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let proxied = talk(socket.connect(fixture.address).await.unwrap(), &claim).await;
    assert!(proxied.ends_with("Some(\"192.0.2.7\") None"), "{proxied}");
}

#[tokio::test]
async fn abuse_14_the_admin_socket_is_private_marked_and_has_room_of_its_own() {
    let settings = Settings {
        connections: 1,
        ..settings()
    };
    let metrics = Metrics::new();
    let tasks = Tasks::new(metrics.clone());
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(ADMIN_SOCKET);
    drop(bind_admin_socket(&path).unwrap());
    let admin = bind_admin_socket(&path).expect("one left behind is replaced");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let server = Server::new(router(), settings, tasks.clone(), metrics);
    tasks.spawn_critical("http.plain", Arc::clone(&server).serve(Door::Plain(tcp)));
    let behind = router().route("/admin/v1/only", get(|| async { "here" }));
    tasks.spawn_critical("http.admin", server.serve(Door::Admin(admin, behind)));
    let _hog = TcpStream::connect(address).await.unwrap();
    until("all slots are taken", || {
        tasks.running("http.connection") == 1
    })
    .await;
    let socket = UnixStream::connect(&path).await.unwrap();
    let claim = one("/client", "X-Forwarded-For: 192.0.2.7\r\n");
    let answer = talk(socket, &claim).await;
    assert!(answer.ends_with("None Some(true)"), "{answer}");
    let socket = UnixStream::connect(&path).await.unwrap();
    let answer = talk(socket, &one("/admin/v1/only", "")).await;
    assert!(answer.ends_with("here"), "{answer}");

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "not a socket").unwrap();
    assert!(bind_admin_socket(&path).is_err(), "nothing else is removed");
}

#[tokio::test]
async fn websockets_are_upgraded_and_give_their_slot_back() {
    let fixture = Fixture::tls(Settings {
        connections: 1,
        ..settings()
    })
    .await;
    let mut stream = fixture.connect_tls(&["http/1.1"]).await;
    let upgrade = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stream.read_u8()).await.unwrap());
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101"),
        "{}",
        String::from_utf8_lossy(&head)
    );
    until("the slot is free", || {
        fixture.tasks.running("http.connection") == 0
    })
    .await;
    // A masked text frame "hi" with a mask of zeros, and its echo.
    stream
        .write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'])
        .await
        .unwrap();
    let mut echo = [0; 4];
    within(stream.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, &[0x81, 2, b'h', b'i']);
    assert!(
        talk(fixture.connect_tls(&[]).await, &one("/", ""))
            .await
            .ends_with("hello")
    );
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_no_others_begin() {
    let go = Arc::new(tokio::sync::Notify::new());
    let slow = Router::new()
        .route("/slow", get(slow))
        .layer(Extension(Arc::clone(&go)));
    let fixture = Fixture::start(settings(), slow, |listener, _| Door::Plain(listener)).await;
    let mut busy = fixture.connect().await;
    let mut idle = fixture.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut begun = Vec::new();
    while !begun.windows(5).any(|part| part == b"begun") {
        begun.push(within(busy.read_u8()).await.unwrap());
    }
    until("both are in", || {
        fixture.tasks.running("http.connection") == 2
    })
    .await;
    fixture.tasks.stop().cancel();
    assert_eq!(rest(&mut idle).await, "");
    until("the door is shut", || {
        fixture.tasks.running("http.test") == 0
    })
    .await;
    assert!(TcpStream::connect(fixture.address).await.is_err());
    go.notify_one();
    assert!(rest(&mut busy).await.contains("ended"));
    assert!(within(fixture.tasks.finish(LIMIT)).await.is_empty());
    assert_eq!(fixture.tasks.failure(), None);
}

#[tokio::test]
async fn connections_that_outlast_the_drain_are_dropped() {
    let fixture = Fixture::plain(settings()).await;
    let mut busy = fixture.connect().await;
    busy.write_all(one("/slow", "").as_bytes()).await.unwrap();
    until("it is in", || fixture.tasks.running("http.connection") == 1).await;
    let late = within(fixture.tasks.finish(Duration::from_millis(50))).await;
    assert_eq!(late, ["http.connection"]);
    rest(&mut busy).await;
}
