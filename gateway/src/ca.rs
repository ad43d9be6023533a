//! The internal certificate authority: who hosts and gateways are, in certificates.
//!
//! Authorities sign leaves directly (ECDSA P-256 with SHA-256); the profiles are what
//! [`link::verify`] accepts and nothing more. During a rotation there are two:
//!
//! ```text
//!              stage              promote               retire
//! active ────────────► active ────────────► previous ────────────► (gone)
//!                      next   ────────────► active
//! trusted: 1           2                    2                      1
//! ```
//!
//! All are trusted, and each step is refused unless the one before it was done. Hosts
//! get their certificates from the active one. What the gateway itself presents is
//! signed by the previous one as long as there is one: a host that was switched off
//! since before the rotation knows no other, and must be able to come in, learn the new
//! bundle and renew. Retiring destroys the previous key; hosts that never came by then
//! must join again.
//!
//! All authorities with their keys are one file that is replaced atomically
//! ([`crate::files`]): after a crash a rotation has made its step or has not. What is
//! in memory changes only after the file has.
//!
//! The HTTPS certificate of [`https`] has a key of its own. It can never pass for a
//! gateway's on an agent's link: its names are DNS names and addresses, never an
//! identity.

pub mod https;
mod profile;
mod state;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::v1::certificate_authority as view;
use api::v1::certificate_authority::{AuthorityState, RotationStep};
use arc_swap::ArcSwap;
use link::identity::{CertIdentity, SpkiSha256};
use link::tls::Credentials;
use link::trust::{TrustBundle, TrustError, TrustStore, certificate_to_pem};
use model::Timestamp;
use model::ids::DeploymentId;
use rustls_pki_types::CertificateDer;

use self::https::{HttpsError, HttpsIdentity, HttpsSource};
use self::profile::Subject;
use self::state::{Signer, State};
use crate::files::{self, FileError};

pub use self::state::RotateRefused;

const FILE: &str = "authorities.json";
/// Three authorities take 4 KiB.
const FILE_LIMIT: u64 = 256 << 10;

/// How long a gateway's own certificates are good for. They are renewed from half of
/// it on, so this is also how far an agent's clock may run ahead.
const OWN_LIFETIME: Duration = Duration::from_secs(90 * 86_400);

/// Why the authority cannot do what is asked.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Its file or folder cannot be used.
    #[error("use the certificate authority's files")]
    File(#[from] FileError),
    /// Its file is not what was written.
    #[error(
        "{path} is damaged ({what}): restore it from a backup; a new authority would cut off \
         every host, so none is made"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// It is another deployment's.
    #[error("{path} belongs to deployment {found}, this is {wanted}: the state folder is mixed up")]
    Deployment {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: DeploymentId,
        /// Whose it should be.
        wanted: DeploymentId,
    },
    /// The signing request is not acceptable.
    #[error("the certificate signing request is not acceptable: {0}")]
    Request(&'static str),
    /// The library refused.
    #[error("make a {what}")]
    Make {
        /// What.
        what: &'static str,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// The authorities do not make a trust bundle.
    #[error("put the trust bundle together")]
    Trust(#[from] TrustError),
    /// HTTPS cannot be set up.
    #[error("set up HTTPS")]
    Https(#[from] HttpsError),
}

/// Why a rotation made no step.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// It is not this step's turn.
    #[error(transparent)]
    Refused(#[from] RotateRefused),
    /// It could not be done; nothing changed.
    #[error("rotate the certificate authority")]
    Failed(#[from] CaError),
}

/// A certificate for an agent, and what to remember of it.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Begin of its validity.
    pub not_before: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
    /// Its serial number, big-endian.
    pub serial: Vec<u8>,
    /// Names the agent's key.
    pub spki_sha256: SpkiSha256,
    /// SHA-256 of the certificate of the authority that signed it.
    pub issuer_fingerprint: [u8; 32],
}

/// The deployment's authorities, and the gateway's HTTPS identity.
pub struct CertificateAuthority {
    path: PathBuf,
    deployment: DeploymentId,
    state: ArcSwap<State>,
    /// One step of a rotation at a time.
    rotating: Mutex<()>,
    trust: TrustStore,
    https: Arc<HttpsIdentity>,
}

impl CertificateAuthority {
    /// Reads the authorities in `dir` or makes the first one: for a deployment without
    /// state.
    pub fn load_or_create(
        dir: &Path,
        deployment: DeploymentId,
        https: HttpsSource,
        now: Timestamp,
    ) -> Result<Self, CaError> {
        Self::create_missing(dir, deployment, now)?;
        Self::load(dir, deployment, https, now)
    }

    /// Makes the first authority in `dir` if there is none: for a deployment without
    /// state, and before it has any.
    pub fn create_missing(
        dir: &Path,
        deployment: DeploymentId,
        now: Timestamp,
    ) -> Result<(), CaError> {
        files::ensure_private_dir(dir)?;
        let path = dir.join(FILE);
        if files::read_private(&path, FILE_LIMIT)?.is_none() {
            let state = State::first(deployment, now)?;
            files::create_private(&path, &state.to_bytes())?;
        }
        Ok(())
    }

    /// Reads the authorities in `dir`. Absent is an error.
    pub fn load(
        dir: &Path,
        deployment: DeploymentId,
        https: HttpsSource,
        now: Timestamp,
    ) -> Result<Self, CaError> {
        files::ensure_private_dir(dir)?;
        let path = dir.join(FILE);
        let damaged = |what| CaError::Damaged {
            path: path.clone(),
            what,
        };
        let bytes = files::read_private(&path, FILE_LIMIT)?
            .ok_or_else(|| damaged("it is missing although the deployment has state".to_owned()))?;
        let state = State::from_bytes(&bytes).map_err(damaged)?;
        if state.deployment != deployment {
            let found = state.deployment;
            return Err(CaError::Deployment {
                path,
                found,
                wanted: deployment,
            });
        }
        let trust = TrustStore::new(state.bundle()?);
        let https = HttpsIdentity::open(dir, https, state.presenting(), now)?;
        Ok(Self {
            path,
            deployment,
            state: ArcSwap::from_pointee(state),
            rotating: Mutex::new(()),
            trust,
            https: Arc::new(https),
        })
    }

    /// What agents and gateways believe, kept current through rotations.
    pub fn trust_store(&self) -> TrustStore {
        self.trust.clone()
    }

    /// What they believe at this moment.
    pub fn trust_bundle(&self) -> Arc<TrustBundle> {
        self.trust.bundle()
    }

    /// The HTTPS certificate in use.
    pub fn https(&self) -> &Arc<HttpsIdentity> {
        &self.https
    }

    /// Pin of the HTTPS key, as `curl --pinnedpubkey` takes it.
    pub fn https_pin(&self) -> String {
        self.https.pin().to_string()
    }

    /// Renews the HTTPS certificate when it is due, or reads the operator's files again
    /// when they changed. Says whether there is a new one. The old one stays in use when
    /// this fails.
    pub fn refresh_https(&self, now: Timestamp) -> Result<bool, CaError> {
        Ok(self.https.refresh(self.state.load().presenting(), now)?)
    }

    /// Names the key of a signing request whose signature, the proof that the sender
    /// holds the key, is good.
    pub fn csr_key(&self, csr_der: &[u8]) -> Result<SpkiSha256, CaError> {
        profile::read_request(csr_der).map(|key| profile::pin_of(&key))
    }

    /// Signs a certificate that says that the holder of the request's key is
    /// `identity`. Of the request only the key counts: names and extensions it may ask
    /// for are ignored.
    pub fn issue_agent(
        &self,
        csr_der: &[u8],
        identity: CertIdentity,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Issued, CaError> {
        let key = profile::read_request(csr_der)?;
        let state = self.state.load();
        let leaf = profile::issue(&state.active, &Subject::Link(identity), &key, now, lifetime)?;
        Ok(Issued {
            certificate: leaf.certificate,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            serial: leaf.serial,
            spki_sha256: profile::pin_of(&key),
            issuer_fingerprint: state.active.known.fingerprint(),
        })
    }

    /// A certificate for this gateway's end of links, with a new key, and when to ask
    /// for the next one: at half of its life, or sooner after a rotation or when the
    /// clock is set back behind its beginning.
    pub fn issue_gateway(&self, now: Timestamp) -> Result<(Credentials, Timestamp), CaError> {
        let key = profile::new_key()?;
        let identity = CertIdentity::Gateway {
            deployment: self.deployment,
        };
        let state = self.state.load();
        let leaf = profile::issue(
            state.presenting(),
            &Subject::Link(identity),
            &key,
            now,
            OWN_LIFETIME,
        )?;
        let credentials = Credentials {
            certificate: leaf.certificate,
            key: key.into(),
        };
        Ok((credentials, half_of(now, leaf.not_after)))
    }

    /// Makes a step of a rotation. What was decided is durable when this returns.
    /// After a retirement the gateway needs a new certificate of its own.
    pub fn rotate(&self, step: RotationStep, now: Timestamp) -> Result<(), RotateError> {
        let _one_at_a_time = self.rotating.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.state.load_full();
        let fresh = || Ok(Signer::generate(self.deployment, now)?);
        let after = before.rotated::<RotateError>(step, fresh)?;
        let bundle = after.bundle().map_err(CaError::Trust)?;
        files::write_private(&self.path, &after.to_bytes()).map_err(CaError::File)?;
        self.state.store(Arc::new(after));
        self.trust.replace(bundle);
        Ok(())
    }

    /// For the API. `hosts` says how many hosts have a certificate of the authority
    /// with that fingerprint.
    pub fn view(&self, hosts: impl Fn(&[u8; 32]) -> u64) -> view::CertificateAuthority {
        let state = self.state.load();
        let authorities = state.authorities().map(|(state, known)| view::Authority {
            fingerprint: data_encoding::HEXLOWER.encode(&known.fingerprint()),
            state,
            not_before: known.not_before,
            not_after: known.not_after,
            hosts: hosts(&known.fingerprint()),
            pem: certificate_to_pem(&known.certificate),
        });
        view::CertificateAuthority {
            trust_version: state.trust_version,
            authorities: authorities.collect(),
        }
    }

    /// When the authority that signs ends.
    pub fn active_until(&self) -> Timestamp {
        self.state.load().active.known.not_after
    }

    /// The fingerprint of the authority that signs.
    pub fn active_fingerprint(&self) -> [u8; 32] {
        self.state.load().active.known.fingerprint()
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.load();
        let states: Vec<AuthorityState> = state.authorities().map(|(state, _)| state).collect();
        f.debug_struct("CertificateAuthority")
            .field("deployment", &self.deployment)
            .field("trust_version", &state.trust_version)
            .field("authorities", &states)
            .finish_non_exhaustive()
    }
}

/// Makes a restored authority's trust bundle newer than every bundle that was handed out
/// since the backup was made: hosts take only newer ones, and would keep believing those
/// of a rotation that no longer exists, and miss the next one. `incarnation` rises with
/// every restore and is far above the number of any rotation.
pub fn fence_restored(
    dir: &Path,
    deployment: DeploymentId,
    incarnation: u64,
) -> Result<(), CaError> {
    let path = dir.join(FILE);
    let damaged = |what| CaError::Damaged {
        path: path.clone(),
        what,
    };
    let bytes = files::read_private(&path, FILE_LIMIT)?
        .ok_or_else(|| damaged("it is missing".to_owned()))?;
    let mut state = State::from_bytes(&bytes).map_err(damaged)?;
    if state.deployment != deployment {
        let found = state.deployment;
        return Err(CaError::Deployment {
            path,
            found,
            wanted: deployment,
        });
    }
    state.trust_version = incarnation.max(state.trust_version.saturating_add(1));
    files::write_private(&path, &state.to_bytes())?;
    Ok(())
}

/// The middle of a validity that began `now`.
fn half_of(now: Timestamp, not_after: Timestamp) -> Timestamp {
    now.saturating_add(not_after.since(now) / 2)
}

#[cfg(test)]
mod tests;
