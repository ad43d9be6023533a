//! Frames of the control stream, as they come through [`FrameReader`]: in any pieces.
//!
//! Input: one byte for the size of the pieces, then the stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use link::frame::{Deadlines, FrameReader, ReadError};
use prost::Message;
use protocol::frame::{HEADER, encode};
use protocol::v1::{
    AgentFrame, CounterStored, Disk, EnrolReply, EnrolRequest, Facts, FileOrder, FileReply,
    GatewayFrame, Goodbye, Grant, Heartbeat, HeartbeatAck, Hello, Opening, Probe, Refusal,
    Reidentify, Renew, ScrapeReply, Settings, Trust, Welcome, agent_frame, enrol_reply,
    gateway_frame,
};
use tokio::io::{AsyncRead, ReadBuf};

use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "frame",
    about: "frames of the control stream: the pieces make no difference, messages survive",
    run,
    seeds,
    longest: 4096,
};

/// Small enough that an input can be past it.
const LIMIT: usize = 2048;

fn run(input: &[u8]) {
    let Some((&piece, stream)) = input.split_first() else {
        return;
    };
    check::<AgentFrame>(stream, piece.into());
    check::<GatewayFrame>(stream, piece.into());
    check::<EnrolRequest>(stream, piece.into());
    check::<EnrolReply>(stream, piece.into());
    check::<ScrapeReply>(stream, piece.into());
    check::<Opening>(stream, piece.into());
    check::<FileReply>(stream, piece.into());
    check::<FileOrder>(stream, piece.into());
}

fn check<M: Message + Default + PartialEq>(stream: &[u8], piece: usize) {
    let (messages, end) = read::<M>(stream, piece.max(1));
    let (whole, whole_end) = read::<M>(stream, stream.len().max(1));
    assert!(messages == whole, "pieces make a difference");
    assert_eq!(end, whole_end, "pieces make a difference");
    for message in messages {
        assert!(message.encoded_len() <= LIMIT, "it grew past the limit");
        let again = M::decode(&encode(&message)[HEADER..]).unwrap();
        assert!(again == message, "a message changed");
    }
}

fn read<M: Message + Default>(stream: &[u8], piece: usize) -> (Vec<M>, &'static str) {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
    }
    let deadlines = Deadlines {
        idle: Duration::from_secs(1),
        frame: Duration::from_secs(1),
    };
    let mut reader = FrameReader::new(Pieces { stream, piece }, LIMIT, deadlines);
    let mut messages = Vec::new();
    let end = RUNTIME.with(|runtime| {
        runtime.block_on(async {
            loop {
                match reader.next().await {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => return "end",
                    Err(ReadError::Codec(_)) => return "codec",
                    Err(ReadError::Truncated { .. }) => return "truncated",
                    Err(error) => panic!("bytes that are there take no time: {error}"),
                }
            }
        })
    });
    (messages, end)
}

struct Pieces<'a> {
    stream: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.piece.min(self.stream.len()).min(buffer.remaining());
        let (now, later) = self.stream.split_at(length);
        buffer.put_slice(now);
        self.stream = later;
        Poll::Ready(Ok(()))
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = messages()
        .into_iter()
        .map(|stream| [&[7], &stream[..]].concat())
        .collect();
    // All in one stream, then the shapes that a header can have.
    seeds.push([&[1], &messages()[..4].concat()[..]].concat());
    for header in [[0xff; 4], [0, 0, 0, 0], [0, 0, 8, 1], [0, 0, 0, 9]] {
        seeds.push([&[3], &header[..], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat());
    }
    // An overlong varint, a group that never ends, text that is not UTF-8.
    for body in [&[0x80; 11][..], &[0x0b, 0x0b, 0x0b], &[0x0a, 2, 0xc3, 0x28]] {
        let length = u8::try_from(body.len()).unwrap();
        seeds.push([&[2, 0, 0, 0, length], body].concat());
    }
    seeds
}

pub(crate) fn facts() -> Facts {
    Facts {
        hostname: "web-1".to_owned(),
        os: "linux".to_owned(),
        addresses: vec!["192.0.2.1".to_owned()],
        cpus: 2,
        memory_bytes: 1 << 30,
        disks: vec![Disk {
            mount: "/".to_owned(),
            kind: "ext4".to_owned(),
            size_bytes: 1 << 40,
            free_bytes: 1 << 39,
        }],
        ..Facts::default()
    }
}

fn messages() -> Vec<Vec<u8>> {
    use agent_frame::Body as A;
    use gateway_frame::Body as G;
    let refusal = Refusal {
        code: 5,
        message: "gone".to_owned(),
        retry_after_ms: 1000,
        server_time_ms: 1_700_000_000_000,
    };
    let trust = Trust {
        version: 3,
        authorities: vec![vec![1, 2], vec![3]],
    };
    let grant = Grant {
        deployment: "dpl".to_owned(),
        certificate: vec![0x30],
        trust: Some(trust.clone()),
        counter: 7,
        ..Grant::default()
    };
    let hello = Hello {
        version_max: 1,
        version_min: 1,
        agent_version: "0.1.0".to_owned(),
        boot_id: "boot".to_owned(),
        instance: vec![9; 16],
        counter: 7,
        facts_digest: vec![8; 32],
        trust_version: 3,
        host_time_ms: 1_700_000_000_000,
    };
    let welcome = Welcome {
        version: 1,
        counter: 8,
        settings: Some(Settings {
            heartbeat_ms: 10_000,
        }),
        want_facts: true,
        trust: Some(trust.clone()),
        display_name: "web".to_owned(),
        ..Welcome::default()
    };
    let agent = [
        A::Hello(hello),
        A::Heartbeat(Heartbeat { sequence: 1 }),
        A::Facts(Box::new(facts())),
        A::Renew(Renew { csr: vec![0x30] }),
        A::CounterStored(CounterStored { counter: 8 }),
        A::ProbeReply(Probe { nonce: 1 }),
        A::Goodbye(Goodbye { reason: 3 }),
    ];
    let gateway = [
        G::Welcome(welcome),
        G::Refused(refusal.clone()),
        G::HeartbeatAck(HeartbeatAck {
            sequence: 1,
            server_time_ms: 1,
        }),
        G::Renewed(grant.clone()),
        G::RenewRefused(refusal.clone()),
        G::Reidentify(Reidentify {
            reason: "clone".to_owned(),
        }),
        G::Advance(CounterStored { counter: 9 }),
        G::Trust(trust),
    ];
    let request = EnrolRequest {
        token: "lbt_x".to_owned(),
        csr: vec![0x30],
        facts: Some(facts()),
        version_max: 1,
        version_min: 1,
    };
    let reply = |answer| {
        encode(&EnrolReply {
            answer: Some(answer),
        })
    };
    let agent = agent.map(|body| encode(&AgentFrame { body: Some(body) }));
    let gateway = gateway.map(|body| encode(&GatewayFrame { body: Some(body) }));
    agent
        .into_iter()
        .chain(gateway)
        .chain([
            encode(&request),
            reply(enrol_reply::Answer::Granted(grant)),
            reply(enrol_reply::Answer::Refused(refusal)),
        ])
        .collect()
}
