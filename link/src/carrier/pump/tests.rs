use super::*;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::carrier::Hub;
use futures_util::stream;

const LIMITS: PumpLimits = PumpLimits {
    ping_every: Some(Duration::from_secs(20)),
    idle: Duration::from_secs(60),
    write: Duration::from_secs(10),
};

fn remote() -> SocketAddr {
    "203.0.113.7:4711".parse().unwrap()
}

/// A peer that takes at most `room` messages and remembers them.
#[derive(Default)]
struct Taking {
    room: usize,
    taken: Vec<WsMessage>,
}

impl Sink<WsMessage> for Taking {
    type Error = Infallible;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.taken.len() < self.room {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn start_send(mut self: Pin<&mut Self>, message: WsMessage) -> Result<(), Infallible> {
        self.taken.push(message);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

async fn end_after(sent: Vec<WsMessage>) -> PumpEnd {
    let hub = Hub::new();
    let from_peer = stream::iter(sent.into_iter().map(Ok::<_, Infallible>));
    let mut to_peer = Taking {
        room: 9,
        ..Taking::default()
    };
    let end = pump(from_peer, &mut to_peer, hub.attach(remote()), LIMITS).await;
    assert_eq!(hub.attached(), 0, "still attached");
    assert_eq!(to_peer.taken, [WsMessage::Close]);
    end
}

#[tokio::test]
async fn every_end_has_its_name() {
    use WsMessage::{Close, Datagrams, Other, Ping, Pong};
    let bytes = Bytes::from_static;
    assert_eq!(end_after(vec![]).await, PumpEnd::Closed);
    assert_eq!(
        end_after(vec![Pong, Ping(Bytes::new()), Close, Other]).await,
        PumpEnd::Closed
    );
    assert_eq!(end_after(vec![Other]).await, PumpEnd::NotDatagrams);
    let good = Datagrams(bytes(&[0, 1, 7]));
    assert_eq!(
        end_after(vec![good, Datagrams(bytes(&[0, 2, 7]))]).await,
        PumpEnd::Message(MessageError::Truncated)
    );
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_websocket_and_pings_fill_it() {
    let hub = Hub::new();
    let from_peer = stream::pending::<Result<_, Infallible>>();
    let mut to_peer = Taking {
        room: 9,
        ..Taking::default()
    };
    let end = pump(from_peer, &mut to_peer, hub.attach(remote()), LIMITS).await;
    assert_eq!(end, PumpEnd::Idle(LIMITS.idle));
    let ping = WsMessage::Ping(Bytes::new());
    assert_eq!(to_peer.taken[..2], [ping.clone(), ping]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_is_let_go() {
    let hub = Hub::new();
    let from_peer = stream::pending::<Result<_, Infallible>>();
    let mut to_peer = Taking {
        room: 1,
        ..Taking::default()
    };
    let end = pump(from_peer, &mut to_peer, hub.attach(remote()), LIMITS).await;
    assert_eq!(end, PumpEnd::Stalled(LIMITS.write));
    assert_eq!(hub.attached(), 0);
}
