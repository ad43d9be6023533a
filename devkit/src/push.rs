//! `push`: a component into a registry, where gateways fetch it.
//!
//! What is printed is the reference with the digest: the one to give to those who install it,
//! because a tag may mean something else tomorrow.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use egress::SystemResolver;
use egress::oci::{Access, Login, Package, Reference, Registries};
use model::plugin::TlsProfile;
use plugin_host::ports::SecretValue;
use zeroize::Zeroizing;

use crate::keys::signature_of;
use crate::say;

/// Options of `push`.
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The component
    file: PathBuf,
    /// Where to, as in oci://registry.example/team/plugin:1.4.0
    #[arg(value_name = "oci://REFERENCE", value_parser = reference)]
    reference: Reference,
    /// Without TLS, and also to this machine: to try things
    #[arg(long, conflicts_with = "ca_file")]
    plain_http: bool,
    /// An account at the registry
    #[arg(long, requires = "password_file")]
    user: Option<String>,
    /// A file with its password or token
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Certificates of the authorities that vouch for the registry, PEM [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

fn reference(text: &str) -> Result<Reference, String> {
    let bare = text
        .strip_prefix("oci://")
        .ok_or("a reference begins with oci://")?;
    bare.parse()
        .map_err(|error: egress::oci::InvalidReference| error.to_string())
}

impl Push {
    /// Pushes, and prints the reference with the digest.
    pub(crate) async fn run(self) -> Result<()> {
        let file = self.file.display().to_string();
        let component = fs::read(&self.file).with_context(|| format!("read {file}"))?;
        // Nobody could install anything else.
        let found = plugin_host::inspect(&component).with_context(|| format!("check {file}"))?;
        let beside = signature_of(&self.file);
        let signature = match fs::read(&beside) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => bail!("read {}: {error}", beside.display()),
        };
        let package = Package {
            component: &component,
            signature: signature.as_deref(),
        };
        let access = self.access()?;
        let registries = Registries::new(Arc::new(SystemResolver::default()));
        let pinned = registries.push(&self.reference, &access, package).await?;
        let signed = match signature {
            Some(_) => "with its signature",
            None => "not signed",
        };
        let manifest = &found.manifest;
        say(&format!(
            "pushed {} {} ({}), {signed}",
            manifest.name, manifest.version, found.digest
        ));
        println!("oci://{pinned}");
        Ok(())
    }

    fn access(&self) -> Result<Access> {
        let profile = match &self.ca_file {
            None => TlsProfile::System,
            Some(path) => TlsProfile::Authorities(text(path)?),
        };
        let login = match (&self.user, &self.password_file) {
            (Some(user), Some(path)) => {
                let password = Zeroizing::new(text(path)?);
                Some(Login {
                    user: user.clone(),
                    password: SecretValue::new(password.trim_end_matches(['\r', '\n']).into()),
                })
            }
            _ => None,
        };
        Ok(Access {
            named: true,
            plain_http: self.plain_http,
            profile,
            login,
            networks: Vec::new(),
        })
    }
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}
