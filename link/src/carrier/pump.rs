//! Moves messages between one WebSocket and its place in a [`super::Hub`].
//!
//! Deadlines make sure that a WebSocket cannot hold resources for nothing: silence
//! ends it, and so does a peer that stops reading. The agent pings, the gateway only
//! answers (its WebSocket library does): both directions stay busy, and the gateway
//! saves the timers.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::hub::{Attached, Delivery};
use super::message::{MessageError, decode};

/// A WebSocket message in nobody's library's words. Pings that come in are answered
/// by the library; they are passed on here as signs of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WsMessage {
    /// Binary.
    Datagrams(Bytes),
    /// A ping; sent with this content.
    Ping(Bytes),
    /// An answer to a ping.
    Pong,
    /// The closing message.
    Close,
    /// Anything else: not our protocol.
    Other,
}

/// Times of a pump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PumpLimits {
    /// How often to ping, if at all.
    pub ping_every: Option<Duration>,
    /// Silence after which the WebSocket is given up.
    pub idle: Duration,
    /// How long the peer may take no bytes while there are some for it.
    pub write: Duration,
}

impl PumpLimits {
    /// For agents: pings below the 30 s after which impatient proxies close.
    pub const AGENT: Self = Self {
        ping_every: Some(Duration::from_secs(20)),
        idle: Duration::from_secs(60),
        write: Duration::from_secs(20),
    };
    /// For gateways.
    pub const GATEWAY: Self = Self {
        ping_every: None,
        ..Self::AGENT
    };
}

/// Why a pump ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PumpEnd {
    /// The peer closed the WebSocket.
    #[error("websocket was closed by the peer")]
    Closed,
    /// The WebSocket failed.
    #[error("websocket failed: {0}")]
    Failed(String),
    /// The peer sent something else than datagrams.
    #[error("websocket carried something else than datagrams")]
    NotDatagrams,
    /// The peer sent a malformed message.
    #[error("read carrier message")]
    Message(#[source] MessageError),
    /// Nothing came for too long.
    #[error("websocket was silent for {0:?}")]
    Idle(Duration),
    /// The peer took nothing for too long.
    #[error("websocket's peer took no data for {0:?}")]
    Stalled(Duration),
    /// The hub is gone.
    #[error("quic endpoint has closed")]
    EndpointClosed,
}

/// Runs until the WebSocket or the hub ends; drop the future to end it from here.
pub async fn pump<R, W, E>(
    mut from_peer: R,
    mut to_peer: W,
    attached: Attached,
    limits: PumpLimits,
) -> PumpEnd
where
    R: Stream<Item = Result<WsMessage, E>> + Unpin,
    W: Sink<WsMessage, Error = E> + Unpin,
    E: Display,
{
    let Attached {
        address: _,
        delivery,
        mut outbound,
        _detach,
    } = attached;
    let end = tokio::select! {
        end = take_in(&mut from_peer, &delivery, limits) => end,
        end = give_out(&mut to_peer, &mut outbound, limits) => end,
    };
    // A courtesy that a dead peer must not delay for long.
    let _ = timeout(Duration::from_secs(1), async {
        let _ = to_peer.send(WsMessage::Close).await;
        to_peer.close().await
    })
    .await;
    end
}

async fn take_in<R, E>(from_peer: &mut R, delivery: &Delivery, limits: PumpLimits) -> PumpEnd
where
    R: Stream<Item = Result<WsMessage, E>> + Unpin,
    E: Display,
{
    loop {
        let message = match timeout(limits.idle, from_peer.next()).await {
            Err(_) => return PumpEnd::Idle(limits.idle),
            Ok(None | Some(Ok(WsMessage::Close))) => return PumpEnd::Closed,
            Ok(Some(Err(error))) => return PumpEnd::Failed(error.to_string()),
            Ok(Some(Ok(WsMessage::Ping(_) | WsMessage::Pong))) => continue,
            Ok(Some(Ok(WsMessage::Other))) => return PumpEnd::NotDatagrams,
            Ok(Some(Ok(WsMessage::Datagrams(message)))) => message,
        };
        let datagrams = match decode(message) {
            Ok(datagrams) => datagrams,
            Err(error) => return PumpEnd::Message(error),
        };
        for datagram in datagrams {
            match datagram {
                Err(error) => return PumpEnd::Message(error),
                Ok(datagram) => {
                    if !delivery.deliver(datagram).await {
                        return PumpEnd::EndpointClosed;
                    }
                }
            }
        }
    }
}

async fn give_out<W, E>(
    to_peer: &mut W,
    outbound: &mut mpsc::Receiver<Bytes>,
    limits: PumpLimits,
) -> PumpEnd
where
    W: Sink<WsMessage, Error = E> + Unpin,
    E: Display,
{
    // Without pings the timer is there and never fires in the life of a connection.
    let mut pings = interval(limits.ping_every.unwrap_or(Duration::from_secs(1 << 30)));
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    loop {
        let first = tokio::select! {
            message = outbound.recv() => match message {
                Some(message) => WsMessage::Datagrams(message),
                None => return PumpEnd::EndpointClosed,
            },
            _ = pings.tick() => WsMessage::Ping(Bytes::new()),
        };
        let burst = async {
            to_peer.feed(first).await?;
            // What queued up meanwhile shares the flush.
            while let Ok(message) = outbound.try_recv() {
                to_peer.feed(WsMessage::Datagrams(message)).await?;
            }
            to_peer.flush().await
        };
        match timeout(limits.write, burst).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return PumpEnd::Failed(error.to_string()),
            Err(_) => return PumpEnd::Stalled(limits.write),
        }
    }
}

#[cfg(test)]
mod tests;
