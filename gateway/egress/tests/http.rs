//! Requests to real servers on loopback, most of which mean no good.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use egress::{Options, Outcome, code};
use plugin_host::ports::{Egress as _, ErrorKind, HttpRequest, Placement};
use support::{Caller, Conn, Server, credential, get, local_grant};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_request_arrives_as_it_was_meant() {
    let server = Server::answering(
        "HTTP/1.1 201 Created\r\nX-Id: 7\r\nx-id: 8\r\nContent-Length: 2\r\n\r\nok",
    );
    let caller = Caller::local(&[server.port()]);
    let request = HttpRequest {
        method: "POST".into(),
        headers: vec![("X-Mine".into(), "yes".into())],
        body: b"{}".to_vec(),
        ..get(server.url("/a/../b?c=%20"))
    };
    let response = caller.send(request).await.expect("an answer");
    assert_eq!((response.status, &response.body[..]), (201, &b"ok"[..]));
    let ids: Vec<_> = response
        .headers
        .iter()
        .filter(|(name, _)| name == "x-id")
        .collect();
    assert_eq!(ids.len(), 2);
    let port = server.port();
    assert_eq!(
        server.requests(),
        [format!(
            "POST /a/../b?c=%20 HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nuser-agent: loopback\r\n\
             accept-encoding: identity\r\nx-mine: yes\r\ncontent-length: 2\r\n\r\n{{}}"
        )]
    );
    let [record] = &caller.audit.records()[..] else {
        panic!("one record");
    };
    assert_eq!(record.outcome, Outcome::Status(201));
    assert_eq!(record.address, Some(server.address));
    assert_eq!(
        (&*record.method, &*record.host, record.port),
        ("POST", "127.0.0.1", port)
    );
    assert!(record.bytes_out > 100 && record.bytes_in > 50, "{record:?}");
}

#[tokio::test]
async fn abuse_34_a_redirect_is_an_answer_and_leads_nowhere() {
    let secret_place = Server::answering(OK);
    let to = secret_place.url("/latest/meta-data");
    let server = Server::plain(move |_, conn| {
        drop(write!(
            conn,
            "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
        ));
    });
    // Even though the grant would allow the second.
    let caller = Caller::local(&[server.port(), secret_place.port()]);
    let response = caller.send(get(server.url("/"))).await.expect("an answer");
    assert_eq!(response.status, 302);
    assert_eq!(secret_place.connections(), 0);
}

#[tokio::test]
async fn abuse_34_what_is_not_granted_is_not_connected_to_and_written_down() {
    let server = Server::answering(OK);
    let caller = Caller::new(
        r#"{"http": [
            {"need": "public", "hosts": ["127.0.0.1", "localhost", "::1", "::ffff:127.0.0.1"], "plain": true, "ports": [PORT]},
            {"need": "wide", "hosts": ["0.0.0.0"], "plain": true, "networks": ["0.0.0.0/0", "::/0"], "ports": [PORT]}
        ]}"#
        .replace("PORT", &server.port().to_string())
        .as_str(),
    );
    let port = server.port();
    for (url, expected) in [
        (
            format!("http://127.0.0.1:{port}/"),
            code::NETWORK_NOT_GRANTED,
        ),
        (
            format!("http://localhost:{port}/"),
            code::NETWORK_NOT_GRANTED,
        ),
        (
            format!("http://0x7f000001:{port}/"),
            code::NETWORK_NOT_GRANTED,
        ),
        (
            format!("http://017700000001:{port}/"),
            code::NETWORK_NOT_GRANTED,
        ),
        (
            format!("http://2130706433:{port}/"),
            code::NETWORK_NOT_GRANTED,
        ),
        (format!("http://127.1:{port}/"), code::NETWORK_NOT_GRANTED),
        (format!("http://[::1]:{port}/"), code::NETWORK_NOT_GRANTED),
        (
            format!("http://[::ffff:127.0.0.1]:{port}/"),
            code::NETWORK_NOT_GRANTED,
        ),
        (format!("http://0.0.0.0:{port}/"), code::NETWORK_NOT_GRANTED),
        (format!("http://0:{port}/"), code::NETWORK_NOT_GRANTED),
        (format!("http://127.0.0.2:{port}/"), code::HOST_NOT_GRANTED),
        (
            format!("http://169.254.169.254:{port}/"),
            code::HOST_NOT_GRANTED,
        ),
        (format!("http://localhost.:{port}/"), code::URL_INVALID),
        (format!("http://x@localhost:{port}/"), code::URL_INVALID),
        (format!("http://localhost:{port}/#x"), code::URL_INVALID),
        ("http://localhost:1/".to_owned(), code::PORT_NOT_GRANTED),
    ] {
        let result = caller.send(get(url.clone())).await;
        let error = result.expect_err(&url);
        assert_eq!(error.code, expected, "{url}");
        assert!(!error.outcome_unknown);
        let record = caller.audit.records().pop().expect("a record");
        assert_eq!(record.outcome, Outcome::Failed(expected.into()), "{url}");
        assert_eq!(record.bytes_out, 0);
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn methods_headers_routes_and_secrets_outside_the_rules_are_refused() {
    let server = Server::answering(OK);
    let caller = Caller::local(&[server.port()]);
    let with = |change: fn(&mut HttpRequest)| {
        let mut request = get(server.url("/"));
        change(&mut request);
        request
    };
    for (request, expected) in [
        (
            with(|it| it.method = "CONNECT".into()),
            code::METHOD_NOT_ALLOWED,
        ),
        (
            with(|it| it.method = "GET / HTTP/1.1\r\n".into()),
            code::METHOD_NOT_ALLOWED,
        ),
        (
            with(|it| it.headers = vec![("Host".into(), "b".into())]),
            code::HEADER_NOT_ALLOWED,
        ),
        (
            with(|it| it.headers = vec![("A".into(), "b\r\nc: d".into())]),
            code::HEADER_INVALID,
        ),
        (
            with(|it| it.body = vec![0; (4 << 20) + 1]),
            code::BODY_TOO_LARGE,
        ),
        (
            with(|it| it.route = Some("near".into())),
            code::ROUTE_NOT_GRANTED,
        ),
        (
            with(|it| it.tls_profile = Some("x".into())),
            code::TLS_PROFILE_NOT_GRANTED,
        ),
    ] {
        assert_eq!(caller.code(request).await, expected);
    }
    let mut other = credential("s3cr3t-s3cr3t", Placement::Bearer);
    other.secret.name = "other".parse().expect("a name");
    let result = caller
        .client
        .send(&caller.call, get(server.url("/")), vec![other])
        .await;
    assert_eq!(
        result.expect_err("not granted").code,
        code::SECRET_NOT_GRANTED
    );
    assert_eq!(server.connections(), 0);
    assert_eq!(caller.audit.records().len(), 8);
}

/// A rule with a route is for another network: what it permits there is not permitted from here.
#[tokio::test]
async fn a_rule_with_a_route_covers_nothing_that_leaves_from_here() {
    let server = Server::answering(OK);
    let caller = Caller::new(&format!(
        r#"{{"http": [{{"need": "it", "hosts": ["127.0.0.1"], "ports": [{}], "plain": true,
            "networks": ["127.0.0.0/8"], "routes": ["near"]}}],
            "routes": {{"near": {{"workspace": "wsp_00000000000000000000000000", "selector": "a=b"}}}}}}"#,
        server.port()
    ));
    for (route, expected) in [
        (None, code::ROUTE_NOT_GRANTED),
        (Some("far"), code::ROUTE_NOT_GRANTED),
        (Some("near"), code::ROUTE_UNSUPPORTED),
    ] {
        let request = HttpRequest {
            route: route.map(str::to_owned),
            ..get(server.url("/"))
        };
        assert_eq!(caller.code(request).await, expected, "{route:?}");
    }
    assert_eq!(server.connections(), 0);
    let records = caller.audit.records();
    assert_eq!(records[1].route.as_deref(), Some("far"));
}

#[tokio::test]
async fn secrets_that_a_server_repeats_are_taken_out() {
    let server = Server::plain(|request, conn| {
        let first = request.lines().next().unwrap_or_default().to_owned();
        let body = format!("you sent: {request} and again {first}");
        drop(write!(
            conn,
            "HTTP/1.1 200 OK\r\nLocation: {first}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
    });
    let caller = Caller::local(&[server.port()]);
    let credentials = vec![
        credential("s3cr3t/with&signs", Placement::Query("token".into())),
        credential("s3cr3t/with&signs", Placement::BasicUser("me".into())),
        credential(
            "s3cr3t/with&signs",
            Placement::Header {
                name: "x-key".into(),
                prefix: "k=".into(),
            },
        ),
        credential("s3cr3t/with&signs", Placement::Path("MARK".into())),
        credential("s3cr3t/with&signs", Placement::JsonPointer("/auth".into())),
    ];
    let request = HttpRequest {
        method: "POST".into(),
        body: br#"{"auth": "x", "n": 1}"#.to_vec(),
        ..get(server.url("/hook/MARK"))
    };
    let response = caller
        .client
        .send(&caller.call, request, credentials)
        .await
        .expect("an answer");
    let sent = server.requests().pop().expect("a request");
    assert!(
        sent.starts_with("POST /hook/s3cr3t/with&signs?token=s3cr3t%2Fwith%26signs "),
        "{sent}"
    );
    assert!(
        sent.contains("authorization: Basic bWU6czNjcjN0L3dpdGgmc2lnbnM="),
        "{sent}"
    );
    assert!(
        sent.ends_with(r#"{"auth": "s3cr3t/with&signs", "n": 1}"#),
        "{sent}"
    );
    let shown = format!(
        "{:?} {}",
        response.headers,
        String::from_utf8_lossy(&response.body)
    );
    assert!(shown.contains("[secret]"));
    for trace in ["s3cr3t", "bWU6", "czNjcjN0", "signs"] {
        assert!(!shown.contains(trace), "{trace}: {shown}");
    }
    let records = format!("{:?}", caller.audit.records());
    assert!(
        !records.contains("s3cr3t") && !records.contains("/hook"),
        "{records}"
    );
}

type Answer = fn(&mut dyn Conn);

fn forever(conn: &mut dyn Conn, piece: &[u8]) {
    while conn.write_all(piece).is_ok() {}
}

/// What a server may do to whoever asks it, and what becomes of it. Each request has 20 seconds
/// and ends long before.
#[tokio::test]
async fn servers_that_mean_no_good_cost_a_request_and_nothing_else() {
    let cases: [(&str, Answer, &str); 14] = [
        (
            "endless body",
            |conn| {
                drop(conn.write_all(b"HTTP/1.1 200 OK\r\n\r\n"));
                forever(conn, &[b'x'; 4096]);
            },
            code::RESPONSE_TOO_LARGE,
        ),
        (
            "endless chunks of one byte",
            |conn| {
                drop(conn.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"));
                forever(conn, b"1\r\nx\r\n");
            },
            code::RESPONSE_TOO_LARGE,
        ),
        (
            "a length beyond all",
            |conn| {
                drop(conn.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n"));
            },
            code::RESPONSE_TOO_LARGE,
        ),
        (
            "endless headers",
            |conn| {
                drop(conn.write_all(b"HTTP/1.1 200 OK\r\n"));
                forever(conn, b"a: b\r\n");
            },
            code::RESPONSE_HEAD_TOO_LARGE,
        ),
        (
            "one endless header",
            |conn| {
                drop(conn.write_all(b"HTTP/1.1 200 OK\r\na: "));
                forever(conn, &[b'x'; 4096]);
            },
            code::RESPONSE_HEAD_TOO_LARGE,
        ),
        (
            "too many headers",
            |conn| {
                drop(conn.write_all(b"HTTP/1.1 200 OK\r\n"));
                drop(conn.write_all("a: b\r\n".repeat(101).as_bytes()));
                drop(conn.write_all(b"\r\n"));
            },
            code::RESPONSE_HEAD_TOO_LARGE,
        ),
        (
            "too long headers",
            |conn| {
                drop(conn.write_all(
                    format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "x".repeat(40_000)).as_bytes(),
                ));
            },
            code::RESPONSE_HEAD_TOO_LARGE,
        ),
        (
            "endless interim answers",
            |conn| {
                forever(conn, b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n");
            },
            code::RESPONSE_HEAD_TOO_LARGE,
        ),
        (
            "an endless first line",
            |conn| {
                forever(conn, b"HTTP/1.1 200 OOOOOOOOOOOOOOOOOOOOOO");
            },
            code::RESPONSE_HEAD_TOO_LARGE,
        ),
        (
            "no HTTP",
            |conn| {
                drop(conn.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"));
            },
            code::RESPONSE_MALFORMED,
        ),
        (
            "two lengths",
            |conn| {
                drop(conn.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
                ));
            },
            code::RESPONSE_MALFORMED,
        ),
        ("an end before the answer", |_| {}, code::CONNECTION_LOST),
        (
            "an end within the headers",
            |conn| {
                drop(conn.write_all(b"HTTP/1.1 200 OK\r\nContent-Le"));
            },
            code::CONNECTION_LOST,
        ),
        (
            "an end within the body",
            |conn| {
                drop(conn.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab"));
            },
            code::CONNECTION_LOST,
        ),
    ];
    for (what, answer, expected) in cases {
        let server = Server::plain(move |_, conn| answer(conn));
        let caller = Caller::local(&[server.port()]);
        let began = Instant::now();
        let request = HttpRequest {
            max_response_bytes: 16 << 10,
            ..get(server.url("/"))
        };
        let error = caller.send(request).await.expect_err(what);
        assert_eq!(error.code, expected, "{what}");
        assert!(error.outcome_unknown, "{what}: the request was sent");
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
    }
}

#[tokio::test]
async fn who_is_slow_is_given_up_at_the_deadline() {
    let drop_by_drop = |conn: &mut dyn Conn, text: &[u8]| {
        for byte in text.iter().cycle() {
            if conn.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let head = Server::plain(move |_, conn| drop_by_drop(conn, b"HTTP/1.1 200 OK\r\nX: y"));
    let body = Server::plain(move |_, conn| {
        drop(conn.write_all(b"HTTP/1.1 200 OK\r\n\r\n"));
        drop_by_drop(conn, b"x");
    });
    let silent = Server::plain(|_, conn| while conn.read(&mut [0]).is_ok_and(|read| read > 0) {});
    for server in [head, body, silent] {
        let caller = Caller::local(&[server.port()]);
        let request = HttpRequest {
            timeout: Duration::from_millis(400),
            ..get(server.url("/"))
        };
        let began = Instant::now();
        let error = caller.send(request).await.expect_err("too slow");
        assert_eq!(
            (error.kind, &*error.code),
            (ErrorKind::Timeout, code::TIMEOUT)
        );
        assert!(error.outcome_unknown);
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn nothing_there_is_unreachable_and_nothing_was_sent() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound").port()
    };
    let caller = Caller::local(&[port]);
    let error = caller
        .send(get(format!("http://127.0.0.1:{port}/")))
        .await
        .expect_err("nothing");
    assert_eq!(
        (error.kind, &*error.code),
        (ErrorKind::Unreachable, code::CONNECT_FAILED)
    );
    assert!(!error.outcome_unknown);
}

#[tokio::test]
async fn one_slow_server_does_not_take_the_places_of_others() {
    let slow = Server::plain(|_, conn| while conn.read(&mut [0]).is_ok_and(|read| read > 0) {});
    let quick = Server::answering(OK);
    let options = Options {
        requests_per_target: 2,
    };
    let caller = Arc::new(Caller::with(
        options,
        &local_grant(&[slow.port(), quick.port()]),
    ));
    let request = HttpRequest {
        timeout: Duration::from_millis(1_500),
        ..get(slow.url("/"))
    };
    let hanging = [caller.code(request.clone()), caller.code(request.clone())];
    let hanging = futures(hanging);
    let waiting = async {
        // Behind the two that hang, with less patience than they have.
        let third = HttpRequest {
            timeout: Duration::from_millis(300),
            ..request.clone()
        };
        let error = caller.send(third).await.expect_err("no place");
        assert_eq!(
            (error.kind, &*error.code),
            (ErrorKind::Busy, code::TARGET_SATURATED)
        );
        assert!(!error.outcome_unknown);
        assert_eq!(caller.code(get(quick.url("/"))).await, "200");
    };
    let (codes, ()) = tokio::join!(hanging, waiting);
    assert_eq!(codes, [code::TIMEOUT, code::TIMEOUT]);
    assert_eq!(slow.connections(), 2);
}

async fn futures<F: Future<Output = String>>([a, b]: [F; 2]) -> [String; 2] {
    let (a, b) = tokio::join!(a, b);
    [a, b]
}

#[tokio::test]
async fn an_abandoned_request_is_written_down_and_its_connection_closed() {
    let (closed, was_closed) = std::sync::mpsc::channel();
    let server = Server::plain(move |_, conn| {
        while conn.read(&mut [0]).is_ok_and(|read| read > 0) {}
        let _ = closed.send(());
    });
    let caller = Caller::local(&[server.port()]);
    let send = caller.send(get(server.url("/")));
    let _ = tokio::time::timeout(Duration::from_millis(300), send).await;
    let record = caller.audit.records().pop().expect("a record");
    assert_eq!(record.outcome, Outcome::Failed(code::ABANDONED.into()));
    assert!(record.bytes_out > 0);
    was_closed
        .recv_timeout(Duration::from_secs(5))
        .expect("the connection is closed");
}

#[tokio::test]
async fn nothing_is_unpacked() {
    // 1 MiB of zeros, packed.
    let packed = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3, 0xed, 0xc1, 1, 1][..];
    let server = Server::plain(|_, conn| {
        let head = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 14\r\n\r\n";
        drop(conn.write_all(head.as_bytes()));
        drop(conn.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3, 0xed, 0xc1, 1, 1]));
    });
    let caller = Caller::local(&[server.port()]);
    let response = caller.send(get(server.url("/"))).await.expect("an answer");
    assert_eq!(response.body, packed);
}
