//! The WebSocket end of the carrier: QUIC packets from agents whose network lets
//! no UDP through.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ::link::carrier::{PumpLimits, SUBPROTOCOL, WsMessage, message, pump};
use api::ProblemCode;
use api::v1::system::OpenAgentCarrier;
use axum::body::Body;
use axum::extract::FromRequestParts as _;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::http::Response;
use axum::http::header::ORIGIN;
use axum::http::request::Parts;
use axum::response::IntoResponse as _;
use futures_util::{SinkExt as _, StreamExt as _, future};

use crate::app::App;
use crate::error::{Error, Result};
use crate::http::call::PublicCall;

/// Takes in a WebSocket and moves packets until it ends.
pub async fn open_agent_carrier(
    app: Arc<App>,
    call: PublicCall<OpenAgentCarrier>,
    mut parts: Parts,
) -> Result<Response<Body>> {
    // Browsers always say which page they act for, and agents never do.
    if parts.headers.contains_key(ORIGIN) {
        return Err(Error::new(
            ProblemCode::MalformedRequest,
            "this path is for agents, not for web pages",
        ));
    }
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|_| {
            Error::new(
                ProblemCode::MalformedRequest,
                "this path takes WebSocket upgrades of Loopback agents only",
            )
        })?;
    let hub = app.hub.get().cloned().ok_or_else(|| {
        Error::unavailable("the gateway is starting", std::time::Duration::from_secs(1))
    })?;
    let remote = SocketAddr::new(
        call.meta
            .source
            .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
        0,
    );
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(message::MAX_MESSAGE)
        .max_frame_size(message::MAX_MESSAGE);
    let tasks = app.tasks.clone();
    let response = upgrade.on_upgrade(move |socket| async move {
        let (to_peer, from_peer) = socket.split();
        let from_peer = from_peer.map(|message| message.map(inbound));
        let to_peer = Box::pin(
            to_peer.with(|message| future::ready(Ok::<_, axum::Error>(outbound(message)))),
        );
        let attached = hub.attach(remote);
        let end = tokio::select! {
            biased;
            () = tasks.stop().cancelled() => return,
            end = pump(from_peer, to_peer, attached, PumpLimits::GATEWAY) => end,
        };
        tracing::debug!(%remote, %end, "carrier closed");
    });
    Ok(response.into_response())
}

fn inbound(message: Message) -> WsMessage {
    match message {
        Message::Binary(bytes) => WsMessage::Datagrams(bytes),
        Message::Ping(bytes) => WsMessage::Ping(bytes),
        Message::Pong(_) => WsMessage::Pong,
        Message::Close(_) => WsMessage::Close,
        Message::Text(_) => WsMessage::Other,
    }
}

fn outbound(message: WsMessage) -> Message {
    match message {
        WsMessage::Datagrams(bytes) => Message::Binary(bytes),
        WsMessage::Ping(bytes) => Message::Ping(bytes),
        WsMessage::Pong => Message::Pong(Default::default()),
        WsMessage::Close | WsMessage::Other => Message::Close(None),
    }
}
