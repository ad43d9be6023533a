//! QUIC's limits at both ends.
//!
//! A gateway holds some 50,000 connections that are idle nearly always, and the goal
//! is 24 KiB of memory for each. quinn allocates stream state for every stream that
//! the peer *may* open, and buffers only what arrives, so the numbers that matter
//! are the count of streams (kept small on the gateway) and what a hostile agent may
//! make it buffer (the receive windows). Windows towards the agent are larger: it has
//! one peer, which it trusts with its machine.
//!
//! Keepalives come from the agent alone, every 15 s: below the 30 s after which the
//! worst NATs forget a UDP mapping, and half of all timers saved on the gateway. The
//! idle timeout is three of them.
//!
//! Packets start at 1200 bytes, the least that QUIC may assume, and grow to what Ethernet
//! carries if the one probe for it arrives; after a black hole quinn falls back by itself.
//! quinn's own search takes four probes in each direction, one after another and each with
//! its acknowledgement: sixteen packets to learn the MTU of a path that may never carry more
//! than heartbeats. A path that carries something between (a tunnel) stays at 1200.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::server_tls::{QUIC_V1, ServerTls};
use crate::tls::{self, Credentials, Verifier};

/// How often an agent makes sure that the path stays open.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Silence after which either side gives the connection up.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// Time for a handshake, from the first packet accepted: ten round trips of the
/// slowest satellite path, and short enough that unfinished ones do not pile up.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between two stateless resets. Ten thousand agents that all speak within five
/// seconds of a restart get theirs; a flood of forged packets gets some 5 % of a core
/// and answers that are smaller than what was sent.
const RESET_EVERY: Duration = Duration::from_micros(100);
const MTU: u16 = 1200;
/// What IPv6 over Ethernet leaves to a UDP datagram.
const MTU_MOST: u16 = 1452;
/// Streams an agent may open at a time: control and a few transfers. Each has its places
/// in quinn's tables from the beginning, and seven are what the smallest tables hold.
const STREAMS_BY_AGENT: u32 = 7;
/// Streams a gateway may open at a time: commands, shells, files.
const STREAMS_BY_GATEWAY: u32 = 256;

/// Why a configuration could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// rustls refused the certificate, the key or a setting.
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
    /// No cipher suite for QUIC's first packets.
    #[error("set up TLS for QUIC")]
    InitialCipher(#[source] quinn::crypto::rustls::NoInitialCipherSuite),
    /// A time that QUIC cannot carry.
    #[error("idle timeout of {0:?} is out of range")]
    IdleTimeout(Duration),
}

/// What an agent dials with: the inner handshake and QUIC's settings, and the
/// verifier that can say afterwards why a gateway was refused.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) quic: quinn::ClientConfig,
    pub(crate) verifier: Arc<Verifier>,
}

impl Client {
    /// An enrolled agent with `credentials`, or without them a host that wants to
    /// enrol.
    pub fn new(
        verifier: Arc<Verifier>,
        credentials: Option<Credentials>,
        idle_timeout: Duration,
    ) -> Result<Self, ConfigError> {
        let tls =
            tls::client_config(Arc::clone(&verifier), credentials).map_err(ConfigError::Tls)?;
        let crypto = QuicClientConfig::try_from(tls).map_err(ConfigError::InitialCipher)?;
        let mut quic = quinn::ClientConfig::new(Arc::new(crypto));
        quic.transport_config(Arc::new(agent_transport(idle_timeout)?));
        Ok(Self { quic, verifier })
    }

    /// For dialling over an endpoint of one's own.
    pub fn quic(&self) -> &quinn::ClientConfig {
        &self.quic
    }

    /// The verifier of gateways.
    pub fn verifier(&self) -> &Arc<Verifier> {
        &self.verifier
    }
}

/// The configuration of a gateway's QUIC endpoints (UDP and carrier alike).
/// Replace it with [`quinn::Endpoint::set_server_config`] when the certificate is
/// renewed; live connections do not notice.
pub fn server_config(
    verifier: Arc<Verifier>,
    credentials: Credentials,
    idle_timeout: Duration,
) -> Result<quinn::ServerConfig, ConfigError> {
    let key = tls::provider()
        .key_provider
        .load_private_key(credentials.key)
        .map_err(ConfigError::Tls)?;
    let certified = CertifiedKey::new(vec![credentials.certificate], key);
    certified.keys_match().map_err(ConfigError::Tls)?;
    let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(certified));
    let tls = tls::server_config(verifier, resolver).map_err(ConfigError::Tls)?;
    let crypto = ServerTls::new(tls).map_err(ConfigError::InitialCipher)?;

    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(gateway_transport(idle_timeout)?))
        // Agents roam and NATs rebind.
        .migration(true)
        // First packets wait here for admission (see `accept`): a bound on memory
        // that a flood from forged addresses can take.
        .max_incoming(4096)
        .incoming_buffer_size(16 << 10)
        .incoming_buffer_size_total(16 << 20);
    Ok(config)
}

/// Settings of an endpoint that dials, or whose peers see it end.
pub fn endpoint_config() -> quinn::EndpointConfig {
    let mut config = quinn::EndpointConfig::default();
    // No drafts.
    config.supported_versions(vec![QUIC_V1]);
    config
}

/// Settings of a gateway's UDP endpoint. With the same `secret` after a restart it
/// recognises packets of connections from its life before and answers them with a
/// stateless reset (RFC 9000, 10.3): an agent of a gateway that was killed hears so at
/// its next packet, within [`KEEP_ALIVE`], instead of waiting for its own timeouts.
pub fn gateway_endpoint_config(secret: &[u8; 32]) -> quinn::EndpointConfig {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let ids = hmac::sign(&key, b"connection ids");
    let ids = ids.as_ref().first_chunk().copied().unwrap_or_default();
    let ids = u64::from_be_bytes(ids);
    let mut config = quinn::EndpointConfig::new(Arc::new(key));
    config
        .supported_versions(vec![QUIC_V1])
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)))
        .min_reset_interval(RESET_EVERY);
    config
}

fn gateway_transport(idle_timeout: Duration) -> Result<TransportConfig, ConfigError> {
    let mut transport = common_transport(idle_timeout)?;
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_BY_AGENT))
        .stream_receive_window(VarInt::from_u32(256 << 10))
        .receive_window(VarInt::from_u32(1 << 20))
        .send_window(4 << 20);
    Ok(transport)
}

fn agent_transport(idle_timeout: Duration) -> Result<TransportConfig, ConfigError> {
    let mut transport = common_transport(idle_timeout)?;
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_BY_GATEWAY))
        .stream_receive_window(VarInt::from_u32(2 << 20))
        .receive_window(VarInt::from_u32(8 << 20))
        .send_window(4 << 20)
        .keep_alive_interval(Some(KEEP_ALIVE.min(idle_timeout / 3)));
    Ok(transport)
}

fn common_transport(idle_timeout: Duration) -> Result<TransportConfig, ConfigError> {
    let idle =
        IdleTimeout::try_from(idle_timeout).map_err(|_| ConfigError::IdleTimeout(idle_timeout))?;
    let mut mtu = MtuDiscoveryConfig::default();
    // No step is that wide but the one from the least to the most.
    mtu.upper_bound(MTU_MOST).minimum_change(MTU_MOST - MTU);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(idle))
        .initial_mtu(MTU)
        .min_mtu(MTU)
        .mtu_discovery_config(Some(mtu));
    Ok(transport)
}
