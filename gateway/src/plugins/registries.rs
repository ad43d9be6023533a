//! Packages from registries: what the configuration says of each, and what went wrong for people.
//!
//! Whoever may install plugins may name any registry, and whom the gateway reaches is not theirs
//! to decide: one that the configuration does not name is asked like a stranger, at public
//! addresses, over TLS that the system's authorities vouch for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::ProblemCode;
use api::v1::plugin::MAX_REFERENCE_BYTES;
use egress::SystemResolver;
use egress::oci::{Access, Login, OciError, Pulled, Reference};
use model::names::clean;
use model::plugin::TlsProfile;
use plugin_host::ports::SecretValue;
use zeroize::Zeroizing;

use super::engine::LOAD_WITHIN;
use crate::config::{Config, Registry};
use crate::error::{Error, Result};
use crate::files::{self, FileError};

/// For an answer: a pull has five minutes; then the component is loaded, and says what it thinks
/// of a configuration.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(300 + LOAD_WITHIN.as_secs() + 60);

/// Most bytes of a file that an entry names.
const FILE_LIMIT: u64 = 1 << 20;

/// The registries.
pub struct Registries {
    client: egress::oci::Registries,
    named: BTreeMap<String, Registry>,
}

impl Registries {
    /// As configured.
    pub fn new(config: &Config) -> Self {
        Self {
            client: egress::oci::Registries::new(Arc::new(SystemResolver::default())),
            named: config.plugins.registries.clone(),
        }
    }

    /// Reads a reference.
    pub fn reference(text: &str) -> Result<Reference> {
        if text.len() > MAX_REFERENCE_BYTES {
            let detail = format!("a reference has at most {MAX_REFERENCE_BYTES} bytes");
            return Err(Error::invalid("reference", detail));
        }
        text.parse()
            .map_err(|error: egress::oci::InvalidReference| {
                Error::invalid("reference", error.to_string())
            })
    }

    /// Fetches a package.
    pub async fn pull(&self, reference: &Reference) -> Result<Pulled> {
        let registry = self.named.get(reference.registry()).cloned();
        let named = registry.is_some();
        let access = tokio::task::spawn_blocking(move || registry.map_or(Ok(stranger()), access));
        let access = access.await.map_err(|error| Error::internal(&error))?;
        let access = access.map_err(|error| {
            let name = reference.registry();
            let why = model::error_chain(&error);
            tracing::warn!(registry = name, error = %why, "what the configuration says of a registry cannot be used");
            Error::conflict(format!(
                "what plugins.registries says of {name} cannot be used; the gateway's log says why"
            ))
        })?;
        let pulled = self.client.pull(reference, &access).await;
        pulled.map_err(|error| told(&error, named))
    }
}

fn stranger() -> Access {
    Access::default()
}

/// Why an entry of the configuration cannot be used. What files say is not repeated.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("read {0}")]
    File(&'static str, #[source] FileError),
    #[error("ca_file is no PEM text of certificates")]
    Authorities,
}

/// The files are read each time: a token is often replaced while the gateway runs.
fn access(registry: Registry) -> Result<Access, Unusable> {
    let profile = match &registry.ca_file {
        None => TlsProfile::System,
        Some(path) => {
            let bytes = files::read_public(path, FILE_LIMIT)
                .map_err(|error| Unusable::File("ca_file", error))?;
            let text = String::from_utf8(bytes).map_err(|_| Unusable::Authorities)?;
            TlsProfile::Authorities(text)
        }
    };
    egress::check_profile(&profile).map_err(|_| Unusable::Authorities)?;
    let login = match (registry.user, &registry.password_file) {
        (Some(user), Some(path)) => {
            let password: Zeroizing<Vec<u8>> = files::read_operator_secret(path, FILE_LIMIT)
                .map_err(|error| Unusable::File("password_file", error))?;
            let line = password.strip_suffix(b"\n").unwrap_or(&password);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            Some(Login {
                user,
                password: SecretValue::new(line.to_vec()),
            })
        }
        _ => None,
    };
    Ok(Access {
        named: true,
        plain_http: registry.plain_http,
        profile,
        login,
        networks: registry.networks,
    })
}

/// A failure, as who asked should know it.
fn told(error: &OciError, named: bool) -> Error {
    let chain = model::error_chain(error);
    let mut detail = format!("[{}] {}", error.code(), clean(&chain.to_string(), 1024));
    if !named && error.code() == egress::code::NETWORK_NOT_GRANTED {
        detail.push_str(
            "; a registry that is not public is named in plugins.registries of the gateway's \
             configuration",
        );
    }
    match error {
        OciError::Late => Error::new(ProblemCode::Timeout, detail),
        OciError::Network(_)
        | OciError::NotFound(_)
        | OciError::Unauthorized
        | OciError::Status { .. }
        | OciError::Malformed(_)
        | OciError::Redirect(_)
        | OciError::NotAPackage(_)
        | OciError::TooLarge { .. }
        | OciError::Digest(_) => Error::invalid("reference", detail),
    }
}
