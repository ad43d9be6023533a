//! QUIC packets in WebSocket messages: what is read and written again is the same.

use bytes::Bytes;
use link::carrier::message::{MAX_DATAGRAM, decode, encode};

use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "carrier",
    about: "messages of the WebSocket carrier: read or refused, and written as they were read",
    run,
    seeds,
    longest: 4096,
};

fn run(input: &[u8]) {
    let Ok(datagrams) = decode(Bytes::copy_from_slice(input)) else {
        return;
    };
    let Ok(datagrams) = datagrams.collect::<Result<Vec<_>, _>>() else {
        return;
    };
    assert!(!datagrams.is_empty());
    assert!(
        datagrams
            .iter()
            .all(|datagram| (1..=MAX_DATAGRAM).contains(&datagram.len()))
    );
    let again = encode(datagrams.iter().map(|datagram| &datagram[..])).unwrap();
    assert_eq!(&again[..], input);
}

fn seeds() -> Vec<Vec<u8>> {
    let message = |datagrams: &[&[u8]]| encode(datagrams.iter().copied()).unwrap().to_vec();
    vec![
        message(&[b"quic"]),
        message(&[b"quic", b"!", &[7; 300]]),
        message(&[&[0; MAX_DATAGRAM], &[1; MAX_DATAGRAM]]),
        vec![0],
        vec![0, 0],
        vec![0xff, 0xff, 7],
        vec![0, 1, 7, 0],
    ]
}
