//! Signing manifests, and checking manifests and files. Pure: bytes, keys and
//! the time come in, a verdict comes out.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use serde::Deserialize;

use crate::key::{KeyId, PublicKey, SigningKey};
use crate::manifest::{Channel, FileEntry, InvalidManifest, MANIFEST_FORMAT, Manifest};

/// Far above any real manifest (two files: 700 bytes); checked before parsing.
const MAX_MANIFEST: usize = 64 << 10;

/// What the reader insists on besides a good signature.
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    /// The reader's clock, against `expires`.
    pub now: Timestamp,
    /// The highest number the reader has seen; lower ones are a rollback. 0 knows none.
    pub min_number: u64,
    /// The channel the reader follows, when it follows one.
    pub channel: Option<Channel>,
}

/// Why a manifest is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The signature file is not one.
    #[error("not a release signature: {0}")]
    SignatureFormat(&'static str),
    /// Signed by somebody else.
    #[error("signed by key {signer}, which is not among the trusted keys ({})", list(.trusted))]
    UnknownSigner {
        /// Who claims to have signed.
        signer: KeyId,
        /// Whom the reader trusts.
        trusted: Vec<KeyId>,
    },
    /// The right signer's name on wrong bytes.
    #[error(
        "the signature of key {signer} does not belong to this manifest: one of the two was changed"
    )]
    BadSignature {
        /// Who claims to have signed.
        signer: KeyId,
    },
    /// The right signer's name on the wrong component, or on a signature of something else.
    #[error("the signature of key {signer} does not belong to this plugin")]
    BadPluginSignature {
        /// Who claims to have signed.
        signer: KeyId,
    },
    /// Larger than any manifest.
    #[error("the manifest has {size} bytes, more than a manifest can have")]
    TooLarge {
        /// How large.
        size: usize,
    },
    /// Properly signed, but of a kind this build does not know.
    #[error(
        "manifest format {found:?} is unknown to this build (it knows {MANIFEST_FORMAT:?}): update it first"
    )]
    UnknownFormat {
        /// The format word, shortened.
        found: String,
    },
    /// Properly signed, but not a manifest.
    #[error("read the manifest")]
    Malformed(#[source] serde_json::Error),
    /// Properly signed, but a field breaks its rule.
    #[error("the manifest breaks a rule")]
    Invalid(#[source] InvalidManifest),
    /// Too old to be accepted by anybody.
    #[error("release {version} expired at {expired}, and it is {now} here")]
    Expired {
        /// Which release.
        version: String,
        /// When it stopped being acceptable.
        expired: Timestamp,
        /// The reader's clock.
        now: Timestamp,
    },
    /// Older than what the reader has already had.
    #[error(
        "release {version} has number {number}, older than {min_number} which was seen before: a rollback"
    )]
    Rollback {
        /// Which release.
        version: String,
        /// Its number.
        number: u64,
        /// The reader's highest.
        min_number: u64,
    },
    /// For others.
    #[error("release {version} is of channel {found}, wanted was {wanted}")]
    WrongChannel {
        /// Which release.
        version: String,
        /// The manifest's channel.
        found: Channel,
        /// The reader's.
        wanted: Channel,
    },
}

/// Why a file is not the one the manifest means.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Nothing for this platform.
    #[error("release {version} has no agent for {os} on {arch}")]
    NotListed {
        /// Which release.
        version: String,
        /// The wanted system.
        os: String,
        /// The wanted processor.
        arch: String,
    },
    /// Cut, or something else.
    #[error("{name} has {found} bytes, the manifest says {wanted}")]
    Size {
        /// Which file.
        name: String,
        /// What there is.
        found: u64,
        /// What there should be.
        wanted: u64,
    },
    /// Damaged or replaced.
    #[error("{name} has digest {found}, the manifest says {wanted}")]
    Digest {
        /// Which file.
        name: String,
        /// What there is.
        found: String,
        /// What there should be.
        wanted: String,
    },
    /// It could not be read.
    #[error("read {path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Signs the exact bytes; the result is the content of `manifest.json.sig`.
pub fn sign_manifest(bytes: &[u8], key: &SigningKey) -> String {
    format!(
        "key: {}\nsig: {}\n",
        key.public().id(),
        BASE64.encode(&key.sign(bytes))
    )
}

/// Checks signature, format, content, channel, number and expiry, in this order.
/// A number equal to the highest seen is fine: that is the same release again.
pub fn verify_manifest(
    bytes: &[u8],
    signature: &str,
    trusted: &[PublicKey],
    expect: Expect,
) -> Result<Manifest, VerifyError> {
    if bytes.len() > MAX_MANIFEST {
        return Err(VerifyError::TooLarge { size: bytes.len() });
    }
    let (signer, signature) = parse_signature(signature)?;
    let key = trusted
        .iter()
        .find(|key| key.id() == signer)
        .ok_or_else(|| VerifyError::UnknownSigner {
            signer,
            trusted: trusted.iter().map(PublicKey::id).collect(),
        })?;
    if !key.verify(bytes, &signature) {
        return Err(VerifyError::BadSignature { signer });
    }

    #[derive(Deserialize)]
    struct Format {
        format: String,
    }
    let Format { format } = serde_json::from_slice(bytes).map_err(VerifyError::Malformed)?;
    if format != MANIFEST_FORMAT {
        return Err(VerifyError::UnknownFormat {
            found: format.chars().take(64).collect(),
        });
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(VerifyError::Malformed)?;
    manifest.validate().map_err(VerifyError::Invalid)?;

    let version = manifest.version.clone();
    if let Some(wanted) = expect.channel.filter(|wanted| *wanted != manifest.channel) {
        return Err(VerifyError::WrongChannel {
            version,
            found: manifest.channel,
            wanted,
        });
    }
    if manifest.number < expect.min_number {
        let (number, min_number) = (manifest.number, expect.min_number);
        return Err(VerifyError::Rollback {
            version,
            number,
            min_number,
        });
    }
    if expect.now >= manifest.expires {
        return Err(VerifyError::Expired {
            version,
            expired: manifest.expires,
            now: expect.now,
        });
    }
    Ok(manifest)
}

/// Checks bytes against the entry for a platform.
pub fn verify_file<'m>(
    manifest: &'m Manifest,
    os: &str,
    arch: &str,
    bytes: &[u8],
) -> Result<&'m FileEntry, FileError> {
    let entry = entry(manifest, os, arch)?;
    check(entry, bytes).map_err(|source| FileError::Io {
        path: entry.name.clone().into(),
        source,
    })?
}

/// Checks a file against the entry for a platform, reading it in pieces.
pub fn verify_file_at<'m>(
    manifest: &'m Manifest,
    os: &str,
    arch: &str,
    path: &Path,
) -> Result<&'m FileEntry, FileError> {
    let entry = entry(manifest, os, arch)?;
    let io = |source| FileError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(io)?;
    check(entry, file).map_err(io)?
}

fn entry<'m>(manifest: &'m Manifest, os: &str, arch: &str) -> Result<&'m FileEntry, FileError> {
    manifest.file(os, arch).ok_or_else(|| FileError::NotListed {
        version: manifest.version.clone(),
        os: os.to_owned(),
        arch: arch.to_owned(),
    })
}

fn check(entry: &FileEntry, from: impl Read) -> io::Result<Result<&FileEntry, FileError>> {
    // One byte more than expected is enough to know that it is too long.
    let mut from = from.take(entry.size + 1);
    let (mut context, mut found, mut buffer) = (Context::new(&SHA256), 0, vec![0; 64 << 10]);
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        context.update(&buffer[..n]);
        found += n as u64;
    }
    let name = || entry.name.clone();
    if found != entry.size {
        return Ok(Err(FileError::Size {
            name: name(),
            found,
            wanted: entry.size,
        }));
    }
    let found = HEXLOWER.encode(context.finish().as_ref());
    if found != entry.sha256 {
        return Ok(Err(FileError::Digest {
            name: name(),
            found,
            wanted: entry.sha256.clone(),
        }));
    }
    Ok(Ok(entry))
}

/// What stands before a component's bytes when they are signed. A manifest is JSON and begins
/// with a brace, so no signature over one can be passed off as one over the other.
const PLUGIN_CONTEXT: &[u8] = b"loopback plugin v1\0";

/// Signs a plugin's component; the result is the content of its `.sig` file, in the form of
/// [`sign_manifest`]'s.
pub fn sign_plugin(component: &[u8], key: &SigningKey) -> String {
    format!(
        "key: {}\nsig: {}\n",
        key.public().id(),
        BASE64.encode(&key.sign(&in_context(component)))
    )
}

/// Checks the signature over a plugin's component, and answers who made it.
pub fn verify_plugin(
    component: &[u8],
    signature: &str,
    trusted: &[PublicKey],
) -> Result<KeyId, VerifyError> {
    let (signer, signature) = parse_signature(signature)?;
    let key = trusted
        .iter()
        .find(|key| key.id() == signer)
        .ok_or_else(|| VerifyError::UnknownSigner {
            signer,
            trusted: trusted.iter().map(PublicKey::id).collect(),
        })?;
    if key.verify(&in_context(component), &signature) {
        Ok(signer)
    } else {
        Err(VerifyError::BadPluginSignature { signer })
    }
}

/// The digest rather than the bytes: a component may be tens of megabytes, and what is
/// signed is what is pinned everywhere else.
fn in_context(component: &[u8]) -> Vec<u8> {
    let digest = ring::digest::digest(&SHA256, component);
    [PLUGIN_CONTEXT, digest.as_ref()].concat()
}

fn parse_signature(text: &str) -> Result<(KeyId, [u8; 64]), VerifyError> {
    let bad = VerifyError::SignatureFormat;
    let mut lines = text.lines();
    let mut field = |name: &str, missing| {
        lines
            .next()
            .and_then(|line| line.strip_prefix(name))
            .ok_or(bad(missing))
    };
    let id = field("key: ", "its first line is not key: ID")?;
    let signature = field("sig: ", "its second line is not sig: SIGNATURE")?;
    if lines.next().is_some() {
        return Err(bad("it has more than two lines"));
    }
    let id = id
        .parse()
        .map_err(|_| bad("the key id is not 16 hex digits"))?;
    let signature = BASE64
        .decode(signature.as_bytes())
        .map_err(|_| bad("the signature is not base64"))?
        .try_into()
        .map_err(|_| bad("the signature is not 64 bytes"))?;
    Ok((id, signature))
}

fn list(ids: &[KeyId]) -> String {
    if ids.is_empty() {
        return "none".to_owned();
    }
    ids.iter()
        .map(KeyId::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests;
