//! What certificates look like, and which requests are signed. No state, no files.
//!
//! Leaves say who somebody is in their alternative names and nowhere else; the subject
//! is empty. They are dated back a little, because clocks differ by minutes, and carry
//! a random serial number. Key usage and extended key usage name exactly one purpose.

use std::net::IpAddr;
use std::time::Duration;

use link::identity::{CertIdentity, Role, SpkiSha256};
use model::Timestamp;
use model::ids::DeploymentId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ED25519, PublicKey, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use zeroize::Zeroizing;

use super::CaError;
use super::state::{Known, Signer};
use crate::keys::random;

/// How far validity is dated back.
const BACKDATED: Duration = Duration::from_secs(10 * 60);
/// Longer than any machine it is installed on; rotation is for replacing it.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3653 * 86_400);
/// A request with one key and no names has some 200 bytes.
const MAX_REQUEST: usize = 4 << 10;

/// Whom a certificate is about.
pub(super) enum Subject<'a> {
    /// One end of an agent's link.
    Link(CertIdentity),
    /// A web server of these names and addresses.
    Web(&'a [WebName]),
}

/// A name that browsers and `curl` may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WebName {
    Dns(String),
    Address(IpAddr),
}

/// A leaf certificate.
pub(super) struct Leaf {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) serial: Vec<u8>,
}

/// The key of a signing request: of a kind that is used here, and its holder has
/// proven to have it by signing the request.
pub(super) fn read_request(der: &[u8]) -> Result<PublicKey, CaError> {
    if der.len() > MAX_REQUEST {
        return Err(CaError::Request("it is too large"));
    }
    let request =
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(|error| {
                CaError::Request(match error {
                    rcgen::Error::InvalidCertificationRequestSignature => {
                        "its signature is not by its own key"
                    }
                    rcgen::Error::UnsupportedSignatureAlgorithm => {
                        "its key must be ECDSA P-256 or Ed25519"
                    }
                    _ => "it cannot be read",
                })
            })?;
    let key = request.public_key;
    // rcgen goes by the signature's algorithm, which for ECDSA does not tell the curve:
    // only an uncompressed point of P-256 has this length.
    let bytes = key.der_bytes();
    let p256 = PublicKeyData::algorithm(&key) == &PKCS_ECDSA_P256_SHA256
        && bytes.len() == 65
        && bytes[0] == 4;
    let ed25519 = PublicKeyData::algorithm(&key) == &PKCS_ED25519 && bytes.len() == 32;
    if p256 || ed25519 {
        Ok(key)
    } else {
        Err(CaError::Request("its key must be ECDSA P-256 or Ed25519"))
    }
}

/// Names a public key.
pub(super) fn pin_of(key: &impl PublicKeyData) -> SpkiSha256 {
    SpkiSha256::of_spki(&key.subject_public_key_info())
}

/// A new P-256 key.
pub(super) fn new_key() -> Result<KeyPair, CaError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|source| make("key", source))
}

/// Signs a certificate of `subject` for `key`. It never outlives its authority.
pub(super) fn issue(
    authority: &Signer,
    subject: &Subject<'_>,
    key: &impl PublicKeyData,
    now: Timestamp,
    lifetime: Duration,
) -> Result<Leaf, CaError> {
    let not_before = to_seconds(now.saturating_sub(BACKDATED));
    let not_after = to_seconds(now.saturating_add(lifetime).min(authority.known.not_after));
    let serial = random_serial();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    set_validity(&mut params, not_before, not_after);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let (usage, names) = match subject {
        Subject::Link(identity) => {
            let usage = match identity.role() {
                Role::Agent => ExtendedKeyUsagePurpose::ClientAuth,
                Role::Gateway => ExtendedKeyUsagePurpose::ServerAuth,
            };
            let uri = identity.to_string().try_into();
            (
                usage,
                vec![SanType::URI(
                    uri.map_err(|source| make("certificate", source))?,
                )],
            )
        }
        Subject::Web(names) => (ExtendedKeyUsagePurpose::ServerAuth, web_names(names)?),
    };
    params.extended_key_usages = vec![usage];
    params.subject_alt_names = names;

    let signed = params.signed_by(key, &authority.issuer);
    let certificate = signed.map_err(|source| make("certificate", source))?;
    Ok(Leaf {
        certificate: certificate.into(),
        not_before,
        not_after,
        serial: serial.to_vec(),
    })
}

/// Makes an authority and its key in PKCS#8. Its name is for people who look at it; no two are alike, so
/// that no verifier has to try one for the other.
pub(super) fn new_authority(
    deployment: DeploymentId,
    now: Timestamp,
) -> Result<(Known, Zeroizing<Vec<u8>>), CaError> {
    let key = new_key()?;
    let not_before = to_seconds(now.saturating_sub(BACKDATED));
    let not_after = to_seconds(now.saturating_add(AUTHORITY_LIFETIME));
    let serial = random_serial();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let mark = data_encoding::HEXLOWER.encode(&serial[..4]);
    params.distinguished_name.push(
        DnType::CommonName,
        format!("Loopback authority {deployment} {mark}"),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    set_validity(&mut params, not_before, not_after);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let certificate = params
        .self_signed(&key)
        .map_err(|source| make("authority", source))?;
    let known = Known {
        certificate: certificate.into(),
        not_before,
        not_after,
    };
    Ok((known, Zeroizing::new(key.serialize_der())))
}

fn web_names(names: &[WebName]) -> Result<Vec<SanType>, CaError> {
    names
        .iter()
        .map(|name| match name {
            WebName::Dns(name) => name.as_str().try_into().map(SanType::DnsName),
            WebName::Address(address) => Ok(SanType::IpAddress(*address)),
        })
        .collect::<Result<_, _>>()
        .map_err(|source| make("certificate", source))
}

/// 127 random bits, positive and of a fixed length.
fn random_serial() -> [u8; 16] {
    let mut serial: [u8; 16] = random();
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

/// Certificates count in whole seconds.
fn to_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_secs().saturating_mul(1000))
}

/// The one place that meets the types of rcgen's date library.
fn set_validity(params: &mut CertificateParams, not_before: Timestamp, not_after: Timestamp) {
    let date = |at: Timestamp| date_time_ymd(1970, 1, 1) + at.since(Timestamp::default());
    params.not_before = date(not_before);
    params.not_after = date(not_after);
}

/// The validity of any certificate; nothing when it cannot be read.
pub(super) fn validity_of(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let at = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_millis(time.timestamp().saturating_mul(1000))
    };
    Some((
        at(parsed.validity.not_before),
        at(parsed.validity.not_after),
    ))
}

fn make(what: &'static str, source: rcgen::Error) -> CaError {
    CaError::Make { what, source }
}
