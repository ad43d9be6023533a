use super::*;

use std::future::poll_fn;

fn remote() -> SocketAddr {
    "203.0.113.7:4711".parse().unwrap()
}

fn send(hub: &Hub, to: SocketAddr, contents: &[u8], segment_size: Option<usize>) {
    let transmit = Transmit {
        destination: to,
        ecn: None,
        contents,
        segment_size,
        src_ip: None,
    };
    hub.try_send(&transmit).unwrap();
}

/// Takes what is there, at least one datagram.
async fn receive(hub: &Hub) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut storage = vec![[0; 1500]; 8];
    let mut meta = vec![RecvMeta::default(); 8];
    let count = poll_fn(|cx| {
        let mut buffers: Vec<_> = storage
            .iter_mut()
            .map(|buffer| IoSliceMut::new(buffer))
            .collect();
        hub.poll_recv(cx, &mut buffers, &mut meta)
    })
    .await
    .unwrap();
    (0..count)
        .map(|n| (meta[n].addr, storage[n][..meta[n].len].to_vec()))
        .collect()
}

#[tokio::test]
async fn datagrams_find_their_websocket_and_only_it() {
    let hub = Hub::new();
    let (mut one, mut other) = (hub.attach(remote()), hub.attach(remote()));
    assert!(is_synthetic(one.address()) && !is_synthetic(remote()));
    assert_ne!(one.address(), other.address());
    assert_eq!(hub.remote_of(one.address()), Some(remote()));

    send(&hub, one.address(), b"aabbc", Some(2));
    let message = one.outbound.try_recv().unwrap();
    let datagrams: Result<Vec<_>, _> = message::decode(message).unwrap().collect();
    assert_eq!(datagrams.unwrap(), [&b"aa"[..], b"bb", b"c"]);
    assert!(other.outbound.try_recv().is_err());

    other.delivery.deliver(Bytes::from_static(b"in")).await;
    assert_eq!(receive(&hub).await, [(other.address(), b"in".to_vec())]);
}

#[tokio::test]
async fn a_backlog_drops_for_the_slow_one_alone_and_ends_when_it_reads_again() {
    let hub = Hub::new();
    let (mut slow, mut quick) = (hub.attach(remote()), hub.attach(remote()));
    for _ in 0..OUTBOUND + 5 {
        send(&hub, slow.address(), b"x", None);
    }
    assert_eq!(hub.dropped(), 5);
    send(&hub, quick.address(), b"y", None);
    assert!(quick.outbound.try_recv().is_ok());

    while slow.outbound.try_recv().is_ok() {}
    send(&hub, slow.address(), b"z", None);
    assert_eq!(hub.dropped(), 5);
    assert!(slow.outbound.try_recv().is_ok());
}

#[tokio::test]
async fn a_flooding_websocket_waits_for_itself() {
    let hub = Hub::new();
    let (loud, quiet) = (hub.attach(remote()), hub.attach(remote()));
    for _ in 0..INBOUND_SHARE {
        loud.delivery.deliver(Bytes::from_static(b"flood")).await;
    }
    let one_more = loud.delivery.deliver(Bytes::from_static(b"flood"));
    tokio::pin!(one_more);
    assert!(futures_util::poll!(&mut one_more).is_pending());
    assert!(quiet.delivery.deliver(Bytes::from_static(b"calm")).await);

    let taken = receive(&hub).await;
    assert_eq!(taken.len(), 8);
    assert!(one_more.await);
}

#[tokio::test]
async fn a_detached_websocket_leaves_nothing() {
    let hub = Hub::new();
    let attached = hub.attach(remote());
    let address = attached.address();
    drop(attached);
    assert_eq!((hub.attached(), hub.remote_of(address)), (0, None));
    send(&hub, address, b"late", None);
    assert_ne!(hub.attach(remote()).address(), address);
}
