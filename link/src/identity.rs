//! What a certificate of a deployment says about its holder.
//!
//! A certificate carries its meaning in one place: a single URI as the only
//! subject alternative name. The subject, its common name and other extensions
//! are ignored, so that there are never two answers to "who is this".
//!
//! ```text
//! loopback://<deployment>/agent/<workspace>/<host>/<generation>
//! loopback://<deployment>/gateway
//! ```
//!
//! One spelling per identity: the parser accepts exactly what the printer writes,
//! so that URIs may be compared as text. Workspace and host are both named although
//! a host's record says its workspace: a certificate that was issued before a host
//! moved must not act in the new workspace. The generation counts the identities a
//! host has had; ids are never reused, and an older generation is refused by the
//! gateway.

use std::fmt;
use std::str::FromStr;

use model::ids::{DeploymentId, HostId, NotAnId, WorkspaceId};
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

const SCHEME: &str = "loopback://";

/// Who the holder of a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CertIdentity {
    /// The agent of one host.
    Agent {
        /// The deployment whose authority issued the certificate.
        deployment: DeploymentId,
        /// Workspace of the host when the certificate was issued.
        workspace: WorkspaceId,
        /// The host.
        host: HostId,
        /// Which of the host's identities this is.
        generation: u64,
    },
    /// A gateway.
    Gateway {
        /// The deployment it serves.
        deployment: DeploymentId,
    },
}

/// What a peer must be to be talked to on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// An agent.
    Agent,
    /// A gateway.
    Gateway,
}

impl CertIdentity {
    /// The role part.
    pub fn role(&self) -> Role {
        match self {
            Self::Agent { .. } => Role::Agent,
            Self::Gateway { .. } => Role::Gateway,
        }
    }

    /// The deployment part.
    pub fn deployment(&self) -> DeploymentId {
        match self {
            Self::Agent { deployment, .. } | Self::Gateway { deployment } => *deployment,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Gateway => "gateway",
        })
    }
}

impl fmt::Display for CertIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent {
                deployment,
                workspace,
                host,
                generation,
            } => {
                write!(
                    f,
                    "{SCHEME}{deployment}/agent/{workspace}/{host}/{generation}"
                )
            }
            Self::Gateway { deployment } => write!(f, "{SCHEME}{deployment}/gateway"),
        }
    }
}

/// Why a URI is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The URI has another shape.
    #[error("not an identity of the form loopback://<deployment>/<role>...")]
    Shape,
    /// A part is not an id of its kind.
    #[error("read an id in the identity")]
    Id(#[from] NotAnId),
    /// The generation is not a plain decimal number.
    #[error("generation is not a plain decimal number")]
    Generation,
}

impl FromStr for CertIdentity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let path = uri.strip_prefix(SCHEME).ok_or(IdentityError::Shape)?;
        let mut parts = path.split('/');
        let mut next = || parts.next().ok_or(IdentityError::Shape);
        let deployment = next()?.parse()?;
        let identity = match next()? {
            "gateway" => Self::Gateway { deployment },
            "agent" => Self::Agent {
                deployment,
                workspace: next()?.parse()?,
                host: next()?.parse()?,
                generation: parse_generation(next()?)?,
            },
            _ => return Err(IdentityError::Shape),
        };
        if parts.next().is_some() {
            Err(IdentityError::Shape)
        } else {
            Ok(identity)
        }
    }
}

/// `u64::from_str` also takes `+7` and `007`.
fn parse_generation(text: &str) -> Result<u64, IdentityError> {
    let generation: u64 = text.parse().map_err(|_| IdentityError::Generation)?;
    if generation.to_string() == text {
        Ok(generation)
    } else {
        Err(IdentityError::Generation)
    }
}

/// SHA-256 of a certificate's public key (its SubjectPublicKeyInfo): names a key
/// pair through every renewal of its certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpkiSha256(pub [u8; 32]);

impl SpkiSha256 {
    /// The pin of `certificate`'s key.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, webpki::Error> {
        let spki = EndEntityCert::try_from(certificate)?.subject_public_key_info();
        Ok(Self::of_spki(&spki))
    }

    /// The pin of a DER SubjectPublicKeyInfo.
    pub fn of_spki(spki: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, spki).as_ref());
        Self(hash)
    }
}

/// The form that `curl --pinnedpubkey` takes: `sha256//` and base64.
impl fmt::Display for SpkiSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256//{}", data_encoding::BASE64.encode(&self.0))
    }
}

impl fmt::Debug for SpkiSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a public key pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a public key pin; it looks like sha256//<44 characters of base64>")]
pub struct NotAPin;

impl FromStr for SpkiSha256 {
    type Err = NotAPin;

    fn from_str(text: &str) -> Result<Self, NotAPin> {
        let encoded = text.strip_prefix("sha256//").ok_or(NotAPin)?;
        let bytes = data_encoding::BASE64
            .decode(encoded.as_bytes())
            .map_err(|_| NotAPin)?;
        bytes.try_into().map(Self).map_err(|_| NotAPin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;
    use proptest::prelude::*;

    fn ids(millis: u32, random: [u8; 10]) -> (DeploymentId, WorkspaceId, HostId) {
        let now = Timestamp::from_millis(millis.into());
        (
            DeploymentId::new(now, random),
            WorkspaceId::new(now, random),
            HostId::new(now, random),
        )
    }

    proptest! {
        #[test]
        fn an_identity_survives_its_uri(
            millis: u32, random: [u8; 10], generation: u64, gateway: bool,
        ) {
            let (deployment, workspace, host) = ids(millis, random);
            let identity = if gateway {
                CertIdentity::Gateway { deployment }
            } else {
                CertIdentity::Agent { deployment, workspace, host, generation }
            };
            prop_assert_eq!(identity.to_string().parse(), Ok(identity));
        }

        #[test]
        fn whatever_parses_is_spelled_as_printed(uri in "loopback://[a-z0-9_/+]{0,120}") {
            if let Ok(identity) = uri.parse::<CertIdentity>() {
                prop_assert_eq!(identity.to_string(), uri);
            }
        }

        #[test]
        fn a_pin_survives_its_text(hash: [u8; 32]) {
            prop_assert_eq!(SpkiSha256(hash).to_string().parse(), Ok(SpkiSha256(hash)));
        }
    }

    #[test]
    fn near_misses_are_refused() {
        let (deployment, workspace, host) = ids(7, [7; 10]);
        let good = format!("loopback://{deployment}/agent/{workspace}/{host}/7");
        assert!(good.parse::<CertIdentity>().is_ok());
        for bad in [
            String::new(),
            format!("{good}/"),
            format!("{good}/8"),
            format!(" {good}"),
            format!("{good}?x"),
            good.replace("loopback:", "LOOPBACK:"),
            good.replace("/agent/", "/agents/"),
            good.replace("/agent/", "/gateway/"),
            good.replace("/7", "/07"),
            good.replace("/7", "/+7"),
            good.replace("/7", "/18446744073709551616"),
            // A workspace's id where the host's belongs.
            format!("loopback://{deployment}/agent/{workspace}/{workspace}/7"),
            format!("loopback://{deployment}/gateway/"),
            format!("loopback://{deployment}"),
        ] {
            assert!(bad.parse::<CertIdentity>().is_err(), "{bad} was accepted");
        }
    }
}
