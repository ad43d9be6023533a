//! HTTP/2 as its attackers speak it, frame by frame: no client would.

use super::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// GET / of `a` over https, by static table indices.
const GET_ROOT: &[u8] = &[0x82, 0x84, 0x87, 0x41, 1, b'a'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A connection after its preface.
async fn connect(fixture: &Fixture) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut stream = fixture.connect_tls(&["h2"]).await;
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend(frame(4, 0, 0, &[]));
    within(stream.write_all(&hello)).await.unwrap();
    stream
}

/// Kinds of the frames that come until the end, or until one of `last`.
async fn kinds(stream: &mut (impl AsyncRead + Unpin), last: &[u8]) -> Vec<u8> {
    let mut seen = Vec::new();
    loop {
        let mut head = [0; 9];
        if within(stream.read_exact(&mut head)).await.is_err() {
            return seen;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        if within(stream.read_exact(&mut payload)).await.is_err() {
            return seen;
        }
        seen.push(head[3]);
        if last.contains(&head[3]) {
            return seen;
        }
    }
}

async fn is_served(fixture: &Fixture) {
    let mut other = connect(fixture).await;
    let get = frame(HEADERS, END_STREAM | END_HEADERS, 1, GET_ROOT);
    within(other.write_all(&get)).await.unwrap();
    let seen = kinds(&mut other, &[DATA]).await;
    assert_eq!(seen.last(), Some(&DATA), "others are served");
}

#[tokio::test]
async fn abuse_17_streams_that_are_reset_at_once_pile_up_no_work() {
    let fixture = Fixture::tls(settings()).await;
    let (mut reader, mut writer) = tokio::io::split(connect(&fixture).await);
    // Requests that nobody answers, so that only the reset ends them.
    let slow: &[u8] = &[
        0x82, 0x04, 5, b'/', b's', b'l', b'o', b'w', 0x87, 0x41, 1, b'a',
    ];
    let attack = async {
        let mut sent = 0;
        for number in 0..20_000 {
            let stream = number * 2 + 1;
            let mut both = frame(HEADERS, END_STREAM | END_HEADERS, stream, slow);
            both.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
            if writer.write_all(&both).await.is_err() {
                break;
            }
            sent += 1;
        }
        sent
    };
    let (sent, seen) = tokio::join!(
        async {
            let sent = within(attack).await;
            // At most what one connection may ask at a time, whatever was asked.
            let streams = usize::try_from(settings().streams).unwrap();
            until("what was reset is over", || {
                fixture.tasks.running("http.stream") <= streams
            })
            .await;
            is_served(&fixture).await;
            sent
        },
        kinds(&mut reader, &[GOAWAY])
    );
    drop(writer);
    assert!(sent > 0);
    assert!(seen.contains(&GOAWAY), "it is told to stop: {seen:?}");
    until("nothing of it is left", || {
        fixture.tasks.running("http.stream") == 0
    })
    .await;
}

#[tokio::test]
async fn abuse_17_24_a_head_that_goes_on_for_ever_ends_its_connection() {
    let fixture = Fixture::tls(settings()).await;
    let (mut reader, mut writer) = tokio::io::split(connect(&fixture).await);
    // A literal field without a name that is kept: two bytes of name, and a long value.
    let mut field = vec![0, 1, b'x', 0x7f, 0x80 | 0x01, 0x7f];
    field.resize(16_000, b'y');
    let attack = async {
        let mut sent = 0;
        let first = frame(HEADERS, END_STREAM, 1, GET_ROOT);
        if writer.write_all(&first).await.is_err() {
            return sent;
        }
        for _ in 0..4000 {
            if writer
                .write_all(&frame(CONTINUATION, 0, 1, &field))
                .await
                .is_err()
            {
                break;
            }
            sent += field.len();
        }
        sent
    };
    let (sent, seen) = tokio::join!(within(attack), kinds(&mut reader, &[GOAWAY]));
    assert!(!seen.contains(&DATA), "{seen:?}");
    assert!(sent < 32 << 20, "{sent} bytes were taken");
    is_served(&fixture).await;
    drop(writer);
    until("nothing of it is left", || {
        fixture.tasks.running("http.stream") == 0
    })
    .await;
}

/// HPACK is the one compression that a stranger may use on us: one byte can stand for a field of
/// four thousand.
#[tokio::test]
async fn abuse_21_a_small_head_that_unpacks_into_a_giant_is_refused() {
    let fixture = Fixture::tls(settings()).await;
    let mut stream = connect(&fixture).await;
    let mut kept = GET_ROOT.to_vec();
    // Literal with indexing: name `x`, a value of 3900 bytes (127 + 0x3d + 29 * 128), index 62 from
    // now on.
    kept.extend([0x40, 1, b'x', 0x7f, 0x80 | 0x3d, 0x1d]);
    kept.extend([b'y'; 3900]);
    let mut attack = frame(HEADERS, END_STREAM | END_HEADERS, 1, &kept);
    let mut bomb = GET_ROOT.to_vec();
    bomb.resize(16_000, 0x80 | 62);
    attack.extend(frame(HEADERS, END_STREAM | END_HEADERS, 3, &bomb));
    within(stream.write_all(&attack)).await.unwrap();
    // The first is a large head like any other; the second stands for 62 MB and is told off.
    let mut bodies = 0;
    let mut answers = 0;
    while answers < 2 {
        let seen = kinds(&mut stream, &[HEADERS, DATA, RST_STREAM, GOAWAY]).await;
        match seen.last() {
            Some(&DATA) => bodies += 1,
            Some(&HEADERS) => answers += 1,
            Some(_) => break,
            None => panic!("closed without a word"),
        }
    }
    assert!(bodies <= 1, "the second reached a handler");
    is_served(&fixture).await;
}
