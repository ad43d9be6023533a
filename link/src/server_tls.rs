//! TLS behind a gateway's QUIC connections, without its handshake once that is over.
//!
//! quinn's own session keeps rustls' connection until the end: the buffer that messages were
//! put together in, the state machine, the peer's parameters. Nobody reads any of it again, and
//! a gateway holds tens of thousands of connections that only wait. This session speaks to
//! rustls the same way, and when the handshake is over keeps what can still be asked for:
//!
//! * who the peer is and which protocol was agreed on, for [`crate::tls::peer_of`];
//! * the secrets that the keys after the next key update come from (RFC 9001, 6).
//!
//! What is given up with it: exported keying material, which nothing here uses, and TLS
//! messages after the handshake. A client has none to send over QUIC (RFC 9001, 4.4 and 6.1),
//! and one that sends any is told what rustls would have told it.

use std::any::Any;
use std::mem;
use std::sync::Arc;

use quinn::crypto::rustls::{HandshakeData, NoInitialCipherSuite, QuicServerConfig};
use quinn::crypto::{
    ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session,
    UnsupportedVersion,
};
use quinn::{ConnectionId, Side, TransportErrorCode};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;
use rustls::AlertDescription;
use rustls::quic::{KeyChange, Secrets, ServerConnection, Version};
use rustls_pki_types::CertificateDer;

/// The one version of QUIC that is spoken (RFC 9000).
pub(crate) const QUIC_V1: u32 = 1;

/// Makes a session for each connection.
pub(crate) struct ServerTls {
    tls: Arc<rustls::ServerConfig>,
    /// Keys of first packets, and tags of Retry packets.
    quic: QuicServerConfig,
}

impl ServerTls {
    /// Fails when the first packets' cipher suite is missing.
    pub(crate) fn new(tls: rustls::ServerConfig) -> Result<Self, NoInitialCipherSuite> {
        let tls = Arc::new(tls);
        let quic = QuicServerConfig::try_from(Arc::clone(&tls))?;
        Ok(Self { tls, quic })
    }
}

impl ServerConfig for ServerTls {
    fn initial_keys(
        &self,
        version: u32,
        dst_cid: &ConnectionId,
    ) -> Result<Keys, UnsupportedVersion> {
        // Drafts, which quinn still knows, are answered like any unknown version.
        if version != QUIC_V1 {
            return Err(UnsupportedVersion);
        }
        self.quic.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.quic.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, _: u32, params: &TransportParameters) -> Box<dyn Session> {
        let mut encoded = Vec::new();
        params.write(&mut encoded);
        let progress = match ServerConnection::new(Arc::clone(&self.tls), Version::V1, encoded) {
            Ok(connection) => Progress::Handshake(Box::new(Handshake {
                connection,
                announced: false,
                next: None,
            })),
            Err(error) => Progress::Failed(error),
        };
        Box::new(ServerSession {
            config: self,
            progress,
        })
    }
}

/// TLS of one connection.
struct ServerSession {
    config: Arc<ServerTls>,
    progress: Progress,
}

enum Progress {
    Handshake(Box<Handshake>),
    Established(Established),
    /// rustls did not take its own configuration.
    Failed(rustls::Error),
}

struct Handshake {
    connection: ServerConnection,
    /// It was said that the protocol is agreed on.
    announced: bool,
    /// There once the keys of the application's data were handed out.
    next: Option<Secrets>,
}

/// What is left of a handshake.
struct Established {
    protocol: Option<Vec<u8>>,
    peer: Option<Vec<CertificateDer<'static>>>,
    next: Secrets,
}

impl Handshake {
    fn read(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        self.connection.read_hs(bytes).map_err(|error| {
            let code = match self.connection.alert() {
                Some(alert) => TransportErrorCode::crypto(alert.into()),
                None => TransportErrorCode::PROTOCOL_VIOLATION,
            };
            transport_error(code, error.to_string())
        })?;
        let known = self.connection.alpn_protocol().is_some() || !self.connection.is_handshaking();
        Ok(known && !mem::replace(&mut self.announced, true))
    }

    /// What remains, if the handshake is over.
    fn established(&mut self) -> Option<Established> {
        if self.connection.is_handshaking() {
            return None;
        }
        Some(Established {
            next: self.next.take()?,
            protocol: self.connection.alpn_protocol().map(<[u8]>::to_vec),
            peer: self.connection.peer_certificates().map(owned),
        })
    }
}

impl Session for ServerSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, _: Side) -> Keys {
        let keys = self.config.quic.initial_keys(QUIC_V1, dst_cid);
        keys.unwrap_or_else(|UnsupportedVersion| unreachable!("version 1 is supported"))
    }

    /// The server's name is not in it: it is the same for everybody (see [`crate::tls`]).
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let protocol = match &self.progress {
            Progress::Handshake(handshake) if handshake.announced => {
                handshake.connection.alpn_protocol().map(<[u8]>::to_vec)
            }
            Progress::Established(established) => established.protocol.clone(),
            Progress::Handshake(_) | Progress::Failed(_) => return None,
        };
        Some(Box::new(HandshakeData {
            protocol,
            server_name: None,
        }))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        let certificates = match &self.progress {
            Progress::Handshake(handshake) => handshake.connection.peer_certificates().map(owned),
            Progress::Established(established) => established.peer.clone(),
            Progress::Failed(_) => None,
        };
        Some(Box::new(certificates?))
    }

    /// There is no 0-RTT.
    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        match &self.progress {
            Progress::Handshake(handshake) => handshake.connection.is_handshaking(),
            Progress::Established(_) => false,
            Progress::Failed(_) => true,
        }
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        match &mut self.progress {
            Progress::Handshake(handshake) => handshake.read(bytes),
            Progress::Established(_) => Err(transport_error(
                TransportErrorCode::crypto(AlertDescription::UnexpectedMessage.into()),
                "a TLS message after the handshake".to_owned(),
            )),
            Progress::Failed(error) => Err(transport_error(
                TransportErrorCode::INTERNAL_ERROR,
                error.to_string(),
            )),
        }
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Progress::Handshake(handshake) = &self.progress else {
            return Ok(None);
        };
        let Some(mut encoded) = handshake.connection.quic_transport_parameters() else {
            return Ok(None);
        };
        // The parameters of a client, read by a server.
        Ok(Some(TransportParameters::read(Side::Server, &mut encoded)?))
    }

    fn write_handshake(&mut self, into: &mut Vec<u8>) -> Option<Keys> {
        let Progress::Handshake(handshake) = &mut self.progress else {
            return None;
        };
        let keys = match handshake.connection.write_hs(into) {
            Some(KeyChange::Handshake { keys }) => keys,
            Some(KeyChange::OneRtt { keys, next }) => {
                handshake.next = Some(next);
                keys
            }
            // All that was to be said is said; was it the end?
            None => {
                if let Some(established) = handshake.established() {
                    self.progress = Progress::Established(established);
                }
                return None;
            }
        };
        Some(Keys {
            header: KeyPair {
                local: Box::new(keys.local.header),
                remote: Box::new(keys.remote.header),
            },
            packet: KeyPair {
                local: Box::new(keys.local.packet),
                remote: Box::new(keys.remote.packet),
            },
        })
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let next = match &mut self.progress {
            Progress::Handshake(handshake) => handshake.next.as_mut(),
            Progress::Established(established) => Some(&mut established.next),
            Progress::Failed(_) => None,
        };
        let keys = next?.next_packet_keys();
        Some(KeyPair {
            local: Box::new(keys.local),
            remote: Box::new(keys.remote),
        })
    }

    /// Only clients get Retry packets.
    fn is_valid_retry(&self, _: &ConnectionId, _: &[u8], _: &[u8]) -> bool {
        false
    }

    fn export_keying_material(
        &self,
        _: &mut [u8],
        _: &[u8],
        _: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

fn owned(certificates: &[CertificateDer<'_>]) -> Vec<CertificateDer<'static>> {
    let owned = certificates.iter().map(|it| it.clone().into_owned());
    owned.collect()
}

fn transport_error(code: TransportErrorCode, reason: String) -> TransportError {
    TransportError {
        code,
        frame: None,
        reason,
    }
}
