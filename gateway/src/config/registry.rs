//! A registry that plugins come from.
//!
//! A registry needs no entry when it is at a public address, proves itself to everybody and asks
//! for no account. An entry says what differs, and is what lets it lie in a private network.

use std::path::PathBuf;

use egress::oci::Reference;
use model::plugin::Cidr;
use serde::{Deserialize, Serialize};

use super::{ConfigError, invalid};

const KEY: &str = "plugins.registries";

/// How a registry is reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Without TLS, and also on this machine.
    pub plain_http: bool,
    /// The authorities that vouch for it, PEM; the system's without one.
    pub ca_file: Option<PathBuf>,
    /// Networks beyond the public ones where hosts may lie that it sends us to.
    pub networks: Vec<Cidr>,
    /// Who we are to it.
    pub user: Option<String>,
    /// A file with the password or token; read for each package.
    pub password_file: Option<PathBuf>,
}

impl Registry {
    pub(super) fn check(&self, name: &str) -> Result<(), ConfigError> {
        let refuse = |reason: &str| Err(invalid(KEY, format!("\"{name}\": {reason}")));
        let reference = format!("{name}/a:b").parse::<Reference>();
        if !reference.is_ok_and(|reference| reference.registry() == name) {
            return refuse("is no registry; write it as in references, host or host:port");
        }
        if self.user.is_some() != self.password_file.is_some() {
            return refuse("user needs password_file, and the reverse");
        }
        if self.plain_http && self.ca_file.is_some() {
            return refuse("ca_file says nothing without TLS; leave out plain_http");
        }
        if self.user.as_ref().is_some_and(|user| user.contains(':')) {
            return refuse("a user has no colon");
        }
        Ok(())
    }
}
