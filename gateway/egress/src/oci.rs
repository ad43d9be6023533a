//! Packages of plugins in OCI registries.
//!
//! A package is an image manifest whose artifact type is [`ARTIFACT_TYPE`]: one layer with the
//! component, and one with its detached signature if it has one. Every registry of the last years
//! keeps that, and every tool for registries copies and mirrors it.
//!
//! A registry is not trusted with anything but availability. A tag is looked up once and becomes
//! a digest; manifest and layers are held against their digests; what comes out is to be verified
//! by signature like a file. A reference with a digest goes on meaning the same package when its
//! tag has moved.
//!
//! Whom a registry sends us to (redirects to where blobs lie, a service for tokens) is the
//! registry's word and not the operator's: such hosts are reached over TLS at public addresses
//! only, or within networks that the operator has named, and are never shown the registry's
//! authorization.

mod manifest;
mod reference;
mod session;

use std::sync::Arc;
use std::time::Duration;

use model::plugin::{Cidr, PluginDigest, TlsProfile};
use plugin_host::ports::{GuestError, SecretValue};
use sha2::Digest as _;

pub use manifest::{ARTIFACT_TYPE, COMPONENT_TYPE, NotAPackage, SIGNATURE_TYPE};
pub use reference::{InvalidReference, Reference};

use crate::dial::Dialler;
use crate::resolve::Resolver;
use manifest::{Descriptor, EMPTY, EMPTY_TYPE, MANIFEST_TYPE, Manifest};
use session::Session;

/// Largest component, in bytes.
pub const MAX_COMPONENT: u64 = 64 << 20;
/// Largest signature, in bytes.
const MAX_SIGNATURE: u64 = 4 << 10;
/// Largest manifest, in bytes.
const MAX_MANIFEST: u64 = 256 << 10;
/// For all of a pull or push.
const LIMIT: Duration = Duration::from_secs(300);

/// How a registry is reached, in the operator's words.
#[derive(Clone, Debug)]
pub struct Access {
    /// Whether it was an operator who named the registry: it may lie in a private network then.
    /// One that somebody else names lies at a public address, or the name would be a way to ask
    /// servers that only this machine reaches.
    pub named: bool,
    /// Without TLS, and also on this machine: for a registry to try things with.
    pub plain_http: bool,
    /// How the registry proves itself.
    pub profile: TlsProfile,
    /// Who we are to it.
    pub login: Option<Login>,
    /// Networks beyond the public ones where hosts may lie that the registry sends us to, and the
    /// registry itself.
    pub networks: Vec<Cidr>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            named: false,
            plain_http: false,
            profile: TlsProfile::System,
            login: None,
            networks: Vec::new(),
        }
    }
}

/// An account at a registry.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password or token.
    pub password: SecretValue,
}

/// A package, as it is pushed.
#[derive(Clone, Copy, Debug)]
pub struct Package<'a> {
    /// The component's bytes.
    pub component: &'a [u8],
    /// The text of its detached signature.
    pub signature: Option<&'a [u8]>,
}

/// A package, as it was pulled. Digests hold; the signature has not been looked at.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The reference with the digest of the manifest: what to write down, and to pull again.
    pub pinned: Reference,
    /// The component's digest.
    pub digest: PluginDigest,
    /// The component's bytes.
    pub component: Vec<u8>,
    /// The text of its detached signature, if there is one.
    pub signature: Option<Vec<u8>>,
}

/// Why a package was not pulled or pushed.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// The registry, or whom it named, was not reached.
    #[error("the registry was not reached")]
    Network(#[source] GuestError),
    /// Not within five minutes.
    #[error("the registry took longer than {} s", LIMIT.as_secs())]
    Late,
    /// No such package.
    #[error("the registry has no {0}, or shows it only to others")]
    NotFound(String),
    /// The login was refused, or there is none and one is needed.
    #[error("the registry wants another login")]
    Unauthorized,
    /// The registry answered something else.
    #[error("the registry answered {status} to {what}")]
    Status {
        /// What was asked for.
        what: &'static str,
        /// The status.
        status: u16,
    },
    /// What the registry said makes no sense.
    #[error("the registry's {0} cannot be read")]
    Malformed(&'static str),
    /// The registry sent us somewhere we do not go.
    #[error("the registry leads to a place that is not allowed: {0}")]
    Redirect(&'static str),
    /// It is not the package of a plugin.
    #[error("the image is not the package of a plugin")]
    NotAPackage(#[source] NotAPackage),
    /// Something is larger than allowed.
    #[error("the {what} is larger than {limit} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Bytes.
        limit: u64,
    },
    /// The bytes are not those that were named: damaged, or exchanged.
    #[error("the {0} is not what its digest says: it was damaged or exchanged")]
    Digest(&'static str),
}

impl OciError {
    /// A stable word.
    pub fn code(&self) -> &str {
        match self {
            Self::Network(error) => &error.code,
            Self::Late => "oci.late",
            Self::NotFound(_) => "oci.not_found",
            Self::Unauthorized => "oci.unauthorized",
            Self::Status { .. } => "oci.status",
            Self::Malformed(_) => "oci.malformed",
            Self::Redirect(_) => "oci.redirect",
            Self::NotAPackage(_) => "oci.not_a_package",
            Self::TooLarge { .. } => "oci.too_large",
            Self::Digest(_) => "oci.digest_mismatch",
        }
    }
}

/// Pulls and pushes packages.
pub struct Registries {
    dialler: Dialler,
}

impl Registries {
    /// With this resolver.
    pub fn new(resolver: Arc<dyn Resolver>) -> Self {
        Self {
            dialler: Dialler::new(resolver),
        }
    }

    /// Fetches a package.
    pub async fn pull(&self, reference: &Reference, access: &Access) -> Result<Pulled, OciError> {
        within_limit(self.pull_all(reference, access)).await
    }

    /// Uploads a package and answers the reference with its digest.
    pub async fn push(
        &self,
        reference: &Reference,
        access: &Access,
        package: Package<'_>,
    ) -> Result<Reference, OciError> {
        within_limit(self.push_all(reference, access, package)).await
    }

    async fn pull_all(&self, reference: &Reference, access: &Access) -> Result<Pulled, OciError> {
        let mut session = Session::new(&self.dialler, reference, access, "pull");
        let bytes = session
            .manifest(&reference.wanted(), MANIFEST_TYPE, MAX_MANIFEST)
            .await?;
        let digest = digest_of(&bytes);
        if reference.digest().is_some_and(|wanted| wanted != digest) {
            return Err(OciError::Digest("manifest"));
        }
        let manifest = Manifest::read(&bytes).map_err(OciError::NotAPackage)?;
        let (component, signature) = manifest.layers().map_err(OciError::NotAPackage)?;
        let signature = match signature {
            None => None,
            Some(layer) => Some(fetch(&mut session, layer, "signature", MAX_SIGNATURE).await?),
        };
        let bytes = fetch(&mut session, component, "component", MAX_COMPONENT).await?;
        Ok(Pulled {
            pinned: reference.pinned(digest),
            digest: component.digest,
            component: bytes,
            signature,
        })
    }

    async fn push_all(
        &self,
        reference: &Reference,
        access: &Access,
        package: Package<'_>,
    ) -> Result<Reference, OciError> {
        let too_large = |what, bytes: &[u8], limit| {
            if bytes.len() as u64 > limit {
                return Err(OciError::TooLarge { what, limit });
            }
            Ok(())
        };
        too_large("component", package.component, MAX_COMPONENT)?;
        too_large(
            "signature",
            package.signature.unwrap_or_default(),
            MAX_SIGNATURE,
        )?;
        let mut blobs = vec![(EMPTY_TYPE, EMPTY), (COMPONENT_TYPE, package.component)];
        blobs.extend(package.signature.map(|bytes| (SIGNATURE_TYPE, bytes)));
        let mut session = Session::new(&self.dialler, reference, access, "pull,push");
        let mut layers = Vec::new();
        for (media_type, bytes) in blobs {
            let layer = Descriptor::new(media_type, bytes);
            session.upload(&layer.digest.to_string(), bytes).await?;
            layers.push(layer);
        }
        let config = layers.remove(0);
        let manifest = Manifest::new(config, layers).written();
        let digest = digest_of(&manifest);
        if reference.digest().is_some_and(|wanted| wanted != digest) {
            return Err(OciError::Digest("manifest"));
        }
        let tag = reference
            .tag()
            .map_or_else(|| digest.to_string(), str::to_owned);
        session.put_manifest(&tag, MANIFEST_TYPE, manifest).await?;
        Ok(reference.pinned(digest))
    }
}

async fn fetch(
    session: &mut Session<'_>,
    layer: &Descriptor,
    what: &'static str,
    limit: u64,
) -> Result<Vec<u8>, OciError> {
    if layer.size > limit {
        return Err(OciError::TooLarge { what, limit });
    }
    let bytes = session
        .blob(&layer.digest.to_string(), what, layer.size)
        .await?;
    if digest_of(&bytes) != layer.digest {
        return Err(OciError::Digest(what));
    }
    Ok(bytes)
}

fn digest_of(bytes: &[u8]) -> PluginDigest {
    let digest: [u8; 32] = sha2::Sha256::digest(bytes).into();
    digest.into()
}

async fn within_limit<T>(work: impl Future<Output = Result<T, OciError>>) -> Result<T, OciError> {
    tokio::time::timeout(LIMIT, work)
        .await
        .unwrap_or(Err(OciError::Late))
}
