//! First packets of QUIC as a hostile client would make them: any frames, any
//! transport parameters, any addresses of connections, under the right keys.
//!
//! Everybody can derive the keys of an Initial packet (RFC 9001, section 5.2), so
//! whatever is inside is read by the gateway before it knows anything of its peer.

use std::sync::Arc;

use rustls::quic::{ClientConnection, Version};
use rustls_pki_types::ServerName;

use crate::tls::{self, SERVER_NAME, Verifier};
use crate::trust::TrustStore;
use crate::verify::system_clock;

/// The least that a client's first datagram must have (RFC 9000, section 14.1).
pub const DATAGRAM: usize = 1200;

const TAG: usize = 16;
const FIXED_LONG_INITIAL: u8 = 0xc0;
const QUIC_V1: [u8; 4] = [0, 0, 0, 1];

/// A datagram of [`DATAGRAM`] bytes or more with one Initial packet: `payload` is its
/// frames, padded; `number` its packet number.
///
/// # Panics
///
/// When an address of a connection is longer than 255 bytes, or `token` and `payload`
/// do not fit into a datagram.
pub fn initial(
    destination: &[u8],
    source: &[u8],
    token: &[u8],
    number: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut header = vec![FIXED_LONG_INITIAL];
    header.extend_from_slice(&QUIC_V1);
    for id in [destination, source] {
        header.push(u8::try_from(id.len()).expect("an address of a connection"));
        header.extend_from_slice(id);
    }
    varint(&mut header, token.len());
    header.extend_from_slice(token);
    // Two bytes of length and one of packet number follow.
    let room = DATAGRAM.saturating_sub(header.len() + 3 + TAG);
    let mut body = payload.to_vec();
    // PADDING frames; the sample of header protection needs some, too.
    body.resize(body.len().max(room).max(4), 0);
    let length = u16::try_from(1 + body.len() + TAG).expect("a datagram");
    header.extend_from_slice(&(0x4000 | length).to_be_bytes());
    header.push(number);

    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .and_then(|suite| suite.quic_suite())
        .expect("the suite of Initial packets");
    let keys = suite
        .keys(destination, rustls::Side::Client, Version::V1)
        .local;
    let tag = keys
        .packet
        .encrypt_in_place(number.into(), &header, &mut body)
        .expect("a packet is encrypted");
    let number_at = header.len() - 1;
    let mut datagram = header;
    datagram.extend_from_slice(&body);
    datagram.extend_from_slice(tag.as_ref());
    // As if the packet number had four bytes: the sample begins after them.
    let (head, rest) = datagram.split_at_mut(number_at + 4);
    let (first, number_bytes) = head.split_at_mut(number_at);
    keys.header
        .encrypt_in_place(&rest[..TAG], &mut first[0], &mut number_bytes[..1])
        .expect("a header is protected");
    datagram
}

/// A CRYPTO frame at `offset`.
pub fn crypto_frame(offset: usize, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x06];
    varint(&mut frame, offset);
    varint(&mut frame, data.len());
    frame.extend_from_slice(data);
    frame
}

/// The ClientHello of a host that asks for enrolment, with these bytes for transport
/// parameters.
pub fn client_hello(trust: TrustStore, parameters: &[u8]) -> Vec<u8> {
    let verifier = Verifier::of_gateways(trust, None, system_clock());
    let config = tls::client_config(verifier, None).expect("a client's TLS");
    let name = ServerName::try_from(SERVER_NAME).expect("a name");
    let mut client =
        ClientConnection::new(Arc::new(config), Version::V1, name, parameters.to_vec())
            .expect("a client");
    let mut hello = Vec::new();
    let _no_keys_yet = client.write_hs(&mut hello);
    hello
}

/// The transport parameter `id` with `value`.
pub fn parameter(id: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    varint(&mut bytes, id);
    varint(&mut bytes, value.len());
    bytes.extend_from_slice(value);
    bytes
}

/// The parameters that a gateway insists on: `source` is the client's own address of
/// the connection (RFC 9000, section 7.3).
pub fn least_parameters(source: &[u8]) -> Vec<u8> {
    parameter(0x0f, source)
}

/// Appends QUIC's variable-length integer (RFC 9000, section 16).
fn varint(bytes: &mut Vec<u8>, value: usize) {
    match u32::try_from(value).expect("a small number") {
        small @ 0..0x40 => bytes.push(small as u8),
        middle @ 0x40..0x4000 => bytes.extend_from_slice(&(0x4000 | middle as u16).to_be_bytes()),
        large @ 0x4000..0x4000_0000 => {
            bytes.extend_from_slice(&(0x8000_0000 | large).to_be_bytes());
        }
        _ => panic!("larger than anything in a datagram"),
    }
}
