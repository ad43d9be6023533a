//! QUIC inside a WebSocket on the gateway's HTTPS port, directly or through an HTTP
//! proxy. See [`crate::carrier`] for what the outer layers are and are not.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt, future};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::error::{DialError, Reason, Rung};
use super::outer;
use super::proxy::{self, Proxy, printable};
use super::race::{race, resolve};
use super::target::Target;
use super::{DialLimits, Link, Path, udp};
use crate::carrier::message::MAX_MESSAGE;
use crate::carrier::{Hub, PATH, PumpEnd, PumpLimits, SUBPROTOCOL, WsMessage, pump};
use crate::transport::Client;

/// Dials `target` by a WebSocket, through `proxy` if there is one. The proxy, not
/// this machine, resolves the target's name then.
pub async fn dial_websocket(
    target: &Target,
    client: &Client,
    proxy: Option<&Proxy>,
    limits: &DialLimits,
) -> Result<Link, DialError> {
    let first_hop = proxy.map_or(target, Proxy::target);
    let (mut stream, remote) = dial_tcp(first_hop, limits).await?;
    if let Some(proxy) = proxy {
        let connected = timeout(limits.proxy, proxy::connect(&mut stream, proxy, target)).await;
        connected
            .unwrap_or(Err(Reason::Timeout(limits.proxy)))
            .map_err(|reason| fail(Rung::Proxy, first_hop, reason))?;
    }

    // Boxes: TLS and QUIC states are kilobytes that every caller's future would carry.
    let handshake = Box::pin(outer::handshake(stream, target, client.verifier.trust()));
    let (stream, outer) = timeout(limits.tls, handshake)
        .await
        .unwrap_or(Err(Reason::Timeout(limits.tls)))
        .map_err(|reason| fail(Rung::Tls, target, reason))?;

    let websocket = timeout(
        limits.websocket,
        Box::pin(upgrade(Box::new(stream), target)),
    )
    .await
    .unwrap_or(Err(Reason::Timeout(limits.websocket)))
    .map_err(|reason| fail(Rung::WebSocket, target, reason))?;

    let proxy = proxy.map(|proxy| proxy.target().to_string());
    let path = Path::WebSocket {
        remote,
        proxy,
        outer,
    };
    let connecting = Box::pin(connect_inside(websocket, remote, client, path));
    timeout(limits.quic, connecting)
        .await
        .unwrap_or(Err((Rung::Quic, Reason::Timeout(limits.quic))))
        .map_err(|(rung, reason)| fail(rung, target, reason))
}

fn fail(rung: Rung, peer: &Target, reason: Reason) -> DialError {
    DialError {
        rung,
        peer: peer.to_string(),
        reason,
    }
}

async fn dial_tcp(
    target: &Target,
    limits: &DialLimits,
) -> Result<(TcpStream, SocketAddr), DialError> {
    let addresses = resolve(target, limits).await?;
    let attempts = addresses.into_iter().map(async |address| {
        let stream = TcpStream::connect(address).await?;
        // Packets are small and wait for nobody.
        stream.set_nodelay(true)?;
        Ok((stream, address))
    });
    match timeout(limits.tcp, race(attempts, limits.stagger)).await {
        Ok(Some(result)) => result.map_err(|error| fail(Rung::Tcp, target, Reason::Io(error))),
        Ok(None) => Err(fail(Rung::Dns, target, Reason::NoAddress)),
        Err(_) => Err(fail(Rung::Tcp, target, Reason::Timeout(limits.tcp))),
    }
}

async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    target: &Target,
) -> Result<WebSocketStream<S>, Reason> {
    let mut request = format!("wss://{target}{PATH}")
        .into_client_request()
        .map_err(|error| Reason::WebSocket(error.to_string()))?;
    request.headers_mut().insert(
        "Sec-WebSocket-Protocol",
        HeaderValue::from_static(SUBPROTOCOL),
    );
    let config = WebSocketConfig::default()
        .read_buffer_size(MAX_MESSAGE)
        .write_buffer_size(MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((websocket, _)) => Ok(websocket),
        Err(Error::Http(response)) => Err(Reason::NotAWebSocket(describe(&response))),
        Err(Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_))) => {
            Err(Reason::Subprotocol)
        }
        Err(error) => Err(Reason::WebSocket(printable(&error.to_string()))),
    }
}

/// `302 text/html, to http://portal.example/`
fn describe(response: &Response) -> String {
    let header = |name| {
        let value = response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok());
        printable(value.unwrap_or_default())
    };
    let mut text = format!("{} {}", response.status().as_u16(), header("content-type"));
    if response.status().is_redirection() {
        text.push_str(", to ");
        text.push_str(&header("location"));
    }
    text.trim_end().to_owned()
}

async fn connect_inside<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    websocket: WebSocketStream<S>,
    remote: SocketAddr,
    client: &Client,
    path: Path,
) -> Result<Link, (Rung, Reason)> {
    let hub = Hub::new();
    let endpoint = hub
        .endpoint(None)
        .map_err(|error| (Rung::Quic, Reason::Io(error)))?;
    let attached = hub.attach(remote);
    let gateway = attached.address();

    let (to_peer, from_peer) = websocket.split();
    let to_peer = to_peer.with(|message| future::ready(Ok::<_, Error>(to_tungstenite(message))));
    let from_peer = from_peer.map(|message| message.map(from_tungstenite));
    let pumping = Box::pin(pump(from_peer, to_peer, attached, PumpLimits::AGENT));

    let mut carrier = JoinSet::new();
    let closing = endpoint.clone();
    carrier.spawn(async move {
        let end = pumping.await;
        tracing::debug!(%end, "websocket carrier ended");
        // QUIC alone would notice after its idle timeout only.
        closing.close(quinn::VarInt::from_u32(0), b"carrier ended");
        end
    });

    match udp::connect(&endpoint, gateway, client).await {
        Ok(connection) => Ok(Link {
            connection,
            endpoint,
            path,
            carrier,
        }),
        // Nobody but the carrier's end closes the endpoint from this side.
        Err((_, Reason::Connection(quinn::ConnectionError::LocallyClosed))) => {
            let end = match carrier.join_next().await {
                Some(Ok(end)) => end,
                Some(Err(error)) => PumpEnd::Failed(error.to_string()),
                None => PumpEnd::EndpointClosed,
            };
            Err((Rung::WebSocket, Reason::CarrierEnded(end)))
        }
        Err(failure) => Err(failure),
    }
}

fn to_tungstenite(message: WsMessage) -> Message {
    match message {
        WsMessage::Datagrams(bytes) => Message::Binary(bytes),
        WsMessage::Ping(bytes) => Message::Ping(bytes),
        // Never sent by a pump: the library answers pings itself.
        WsMessage::Pong => Message::Pong(bytes::Bytes::new()),
        WsMessage::Close | WsMessage::Other => Message::Close(None),
    }
}

fn from_tungstenite(message: Message) -> WsMessage {
    match message {
        Message::Binary(bytes) => WsMessage::Datagrams(bytes),
        Message::Ping(bytes) => WsMessage::Ping(bytes),
        Message::Pong(_) => WsMessage::Pong,
        Message::Close(_) => WsMessage::Close,
        Message::Text(_) | Message::Frame(_) => WsMessage::Other,
    }
}
