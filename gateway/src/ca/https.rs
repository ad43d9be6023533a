//! The certificate that browsers, `curl` and the CLI see.
//!
//! Without files of the operator's the internal authority issues it, for the public
//! URL's host and for localhost. Its key is made once and kept, so that a pin printed
//! into an installer years ago still holds after every renewal; the certificate is
//! cheap and made anew at each start.
//!
//! With the operator's files those are used, and read again when they change: ACME
//! clients replace them at will. New files that do not fit together are refused and
//! the old ones stay in use, which an operator sees in the log, once, and a visitor
//! does not.
//!
//! TLS 1.3 only: every browser and `curl` of the last years speaks it, and one version
//! is one thing to reason about. Certificates change while connections and listeners
//! live: rustls asks [`HttpsIdentity`] at each handshake.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use link::identity::SpkiSha256;
use model::Timestamp;
use rcgen::KeyPair;
use rustls::crypto::ring::{default_provider, sign::any_supported_type};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::profile::{self, Subject, WebName};
use super::state::Signer;
use super::{CaError, OWN_LIFETIME, half_of};
use crate::config::PublicUrl;
use crate::files::{self, FileError};

const KEY_FILE: &str = "https.key";
const FILE_LIMIT: u64 = 256 << 10;

/// Where the HTTPS certificate comes from.
#[derive(Clone, Debug)]
pub enum HttpsSource {
    /// The internal authority, for this URL's host and localhost.
    Internal(PublicUrl),
    /// The operator's files, PEM.
    Operator {
        /// The chain, leaf first.
        certificate: PathBuf,
        /// The leaf's key.
        key: PathBuf,
    },
}

/// Why HTTPS has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// A file cannot be used.
    #[error("use the HTTPS certificate's files")]
    File(#[from] FileError),
    /// It is not PEM of the right kind.
    #[error("{path} holds no PEM {wanted}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// A certificate that cannot be read.
    #[error("the certificate in {path} cannot be read")]
    Certificate {
        /// The file.
        path: PathBuf,
    },
    /// A kind of key that TLS does not take.
    #[error("the key in {path} is of a kind that cannot be used; RSA, ECDSA and Ed25519 can")]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key are not of one pair.
    #[error("the key in {key} does not belong to the certificate in {certificate}")]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The internal authority could not make one.
    #[error("issue the HTTPS certificate")]
    Issue(#[source] Box<CaError>),
    /// rustls refuses the settings.
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
}

/// The HTTPS certificate in use, replaceable under live listeners.
pub struct HttpsIdentity {
    source: Source,
    current: ArcSwap<Current>,
    /// New files that were refused: they are not tried again.
    refused: Mutex<Option<[Stamp; 2]>>,
}

enum Source {
    Internal {
        key: PrivatePkcs8KeyDer<'static>,
        names: Vec<WebName>,
    },
    Operator {
        certificate: PathBuf,
        key: PathBuf,
    },
}

struct Current {
    certified: Arc<CertifiedKey>,
    pin: SpkiSha256,
    not_after: Timestamp,
    fresh: Fresh,
}

/// When to look for a new one.
#[derive(PartialEq, Eq)]
enum Fresh {
    /// Before the first moment (the clock was set back) and from the second one on,
    /// or when another authority signs.
    Within(Timestamp, Timestamp, [u8; 32]),
    /// When the files are others.
    Files([Stamp; 2]),
}

/// Tells that a file was replaced or rewritten.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl HttpsIdentity {
    pub(super) fn open(
        dir: &Path,
        source: HttpsSource,
        authority: &Signer,
        now: Timestamp,
    ) -> Result<Self, HttpsError> {
        let source = match source {
            HttpsSource::Internal(url) => Source::Internal {
                key: kept_key(&dir.join(KEY_FILE))?,
                names: names_of(&url),
            },
            HttpsSource::Operator { certificate, key } => Source::Operator { certificate, key },
        };
        let current = source.obtain(authority, now)?;
        Ok(Self {
            source,
            current: ArcSwap::from_pointee(current),
            refused: Mutex::default(),
        })
    }

    pub(super) fn refresh(&self, authority: &Signer, now: Timestamp) -> Result<bool, HttpsError> {
        // Held to the end: one refresh at a time.
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let due = match (&self.current.load().fresh, &self.source) {
            (Fresh::Within(issued, end, issuer), _) => {
                !(*issued..*end).contains(&now) || authority.known.fingerprint() != *issuer
            }
            (Fresh::Files(used), Source::Operator { certificate, key }) => {
                let found = [stamp(certificate)?, stamp(key)?];
                let new = found != *used && refused.as_ref() != Some(&found);
                *refused = Some(found).filter(|_| new).or(*refused);
                new
            }
            (Fresh::Files(_), Source::Internal { .. }) => true,
        };
        if due {
            self.current
                .store(Arc::new(self.source.obtain(authority, now)?));
            *refused = None;
        }
        Ok(due)
    }

    /// Names the key in use.
    pub fn pin(&self) -> SpkiSha256 {
        self.current.load().pin
    }

    /// Until when the certificate in use is valid.
    pub fn not_after(&self) -> Timestamp {
        self.current.load().not_after
    }

    /// TLS for HTTPS listeners, which follows every later change.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<rustls::ServerConfig>, HttpsError> {
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(HttpsError::Tls)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // An early request could be replayed.
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for HttpsIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().certified))
    }
}

impl fmt::Debug for HttpsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsIdentity")
            .field("pin", &self.pin())
            .finish_non_exhaustive()
    }
}

impl Source {
    fn obtain(&self, authority: &Signer, now: Timestamp) -> Result<Current, HttpsError> {
        match self {
            Self::Internal { key, names } => internal(key, names, authority, now),
            Self::Operator { certificate, key } => operator(certificate, key, now),
        }
    }
}

fn internal(
    key: &PrivatePkcs8KeyDer<'static>,
    names: &[WebName],
    authority: &Signer,
    now: Timestamp,
) -> Result<Current, HttpsError> {
    let failed = |error| HttpsError::Issue(Box::new(error));
    let pair = KeyPair::try_from(key).map_err(|source| {
        failed(CaError::Make {
            what: "certificate",
            source,
        })
    })?;
    let leaf = profile::issue(authority, &Subject::Web(names), &pair, now, OWN_LIFETIME)
        .map_err(failed)?;
    let key = any_supported_type(&key.clone_key().into()).map_err(HttpsError::Tls)?;
    Ok(Current {
        certified: Arc::new(CertifiedKey::new(vec![leaf.certificate], key)),
        pin: profile::pin_of(&pair),
        not_after: leaf.not_after,
        fresh: Fresh::Within(
            now,
            half_of(now, leaf.not_after),
            authority.known.fingerprint(),
        ),
    })
}

fn operator(certificate: &Path, key: &Path, now: Timestamp) -> Result<Current, HttpsError> {
    // Stamps first: files replaced while they are read are then read again.
    let stamps = [stamp(certificate)?, stamp(key)?];
    let pem = files::read_public(certificate, FILE_LIMIT)?;
    let no_chain = || HttpsError::Pem {
        path: certificate.to_owned(),
        wanted: "certificate",
    };
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| no_chain())?;
    let leaf = chain.first().ok_or_else(no_chain)?;
    let unreadable = || HttpsError::Certificate {
        path: certificate.to_owned(),
    };
    let pin = SpkiSha256::of(leaf).map_err(|_| unreadable())?;
    let (not_before, not_after) = profile::validity_of(leaf).ok_or_else(unreadable)?;
    if now > not_after || now < not_before {
        // Used all the same: a gateway that does not start again would take the links
        // of all agents down with the page, and visitors are told by their browsers.
        tracing::error!(
            path = %certificate.display(), %not_before, %not_after,
            "the operator's HTTPS certificate is not valid at this time: replace it"
        );
    }

    let pem = files::read_operator_secret(key, FILE_LIMIT)?;
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| HttpsError::Pem {
        path: key.to_owned(),
        wanted: "private key",
    })?;
    let signer = any_supported_type(&private).map_err(|_| HttpsError::Key {
        path: key.to_owned(),
    })?;
    let certified = CertifiedKey::new(chain, signer);
    certified.keys_match().map_err(|_| HttpsError::Mismatch {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
    })?;
    Ok(Current {
        certified: Arc::new(certified),
        pin,
        not_after,
        fresh: Fresh::Files(stamps),
    })
}

/// The key of the internal certificate, made when there is none.
fn kept_key(path: &Path) -> Result<PrivatePkcs8KeyDer<'static>, HttpsError> {
    if files::read_private(path, FILE_LIMIT)?.is_none() {
        let key = profile::new_key().map_err(|error| HttpsError::Issue(Box::new(error)))?;
        let pem = zeroize::Zeroizing::new(key.serialize_pem());
        files::create_private(path, pem.as_bytes())?;
    }
    let damaged = || HttpsError::Pem {
        path: path.to_owned(),
        wanted: "private key",
    };
    let pem = files::read_private(path, FILE_LIMIT)?.ok_or_else(damaged)?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| damaged())?;
    match KeyPair::try_from(&key) {
        Ok(_) => Ok(key),
        Err(_) => Err(HttpsError::Key {
            path: path.to_owned(),
        }),
    }
}

fn names_of(url: &PublicUrl) -> Vec<WebName> {
    let own = match url.target().ip() {
        Some(address) => WebName::Address(address),
        None => WebName::Dns(url.host().to_owned()),
    };
    let mut names = vec![own];
    for local in [
        WebName::Dns("localhost".to_owned()),
        WebName::Address(Ipv4Addr::LOCALHOST.into()),
        WebName::Address(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ] {
        if !names.contains(&local) {
            names.push(local);
        }
    }
    names
}

fn stamp(path: &Path) -> Result<Stamp, FileError> {
    let found = fs::metadata(path).map_err(|source: io::Error| FileError::Io {
        verb: "look at",
        path: path.to_owned(),
        source,
    })?;
    Ok(Stamp {
        inode: found.ino(),
        modified: (found.mtime(), found.mtime_nsec()),
        size: found.len(),
    })
}
