//! Server-sent events as the CLI follows them.
//!
//! Input: one byte for the size of the reads, then the stream.

use std::io::BufReader;

use cli::client::sse::{EventReader, MAX_EVENT, RawEvent};

use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "sse",
    about: "event streams: the pieces make no difference, events stay within bounds",
    run,
    seeds,
    longest: 2048,
};

fn run(input: &[u8]) {
    let Some((&piece, stream)) = input.split_first() else {
        return;
    };
    let whole = read(stream, stream.len().max(1));
    assert_eq!(read(stream, usize::from(piece).max(1)), whole);
    for event in &whole.events {
        assert!(event.data.len() <= MAX_EVENT && !event.event.contains('\n'));
    }
    if let Some(id) = &whole.last_id {
        assert!(!id.contains(['\0', '\n']), "an id that no header can carry");
    }
}

#[derive(Debug, PartialEq)]
struct Read {
    events: Vec<RawEvent>,
    failed: bool,
    last_id: Option<String>,
    retry_ms: Option<u64>,
}

fn read(stream: &[u8], piece: usize) -> Read {
    let mut reader = EventReader::new(BufReader::with_capacity(piece, stream), None);
    let mut events = Vec::new();
    let failed = loop {
        match reader.next_event() {
            Ok(Some(event)) => events.push(event),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    Read {
        events,
        failed,
        last_id: reader.last_id().map(str::to_owned),
        retry_ms: reader.retry_ms(),
    }
}

fn seeds() -> Vec<Vec<u8>> {
    [
        "\u{feff}: hi\nretry: 500\n\nid: 7\r\nevent: a\r\ndata: x\r\ndata:y\n\ndata\n\n",
        "id: 1\ndata: a\n\nid: 2\ndata: b\n",
        "id: a\0b\ndata: x\n\n",
        "event: host.changed\ndata: {\"host\":\"hst_0\"}\n\n",
        "retry: 99999999999999999999\n\n",
        "data: a\rdata: b\r\r",
        "\n\n\n",
    ]
    .map(|text| [&[3], text.as_bytes()].concat())
    .into()
}
