//! Where a component comes from: a file that is sent, or a registry that the gateway asks. The
//! client has no part in the second but to name it: what is fetched is the gateway's to check.

use std::path::{Path, PathBuf};

use api::Endpoint;
use api::endpoint::{Nothing, Raw};
use api::v1::plugin::*;
use clap::builder::{PathBufValueParser, TypedValueParser};
use model::names::Name;

use super::read_whole;
use crate::client::Client;
use crate::failure::Failure;

/// A file or a reference.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    File(PathBuf),
    Registry(String),
}

impl Source {
    /// For the command line. Paths need not be text.
    pub(super) fn parser() -> impl TypedValueParser<Value = Self> {
        PathBufValueParser::new().map(Self::read)
    }

    fn read(path: PathBuf) -> Self {
        let reference = path.to_str().and_then(|text| text.strip_prefix("oci://"));
        match reference {
            Some(reference) => Self::Registry(reference.to_owned()),
            None => Self::File(path),
        }
    }

    pub(super) fn install(
        &self,
        client: &Client,
        name: Option<Name>,
        signature: &SignatureArg,
    ) -> Result<Plugin, Failure> {
        match self {
            Self::File(file) => {
                let query = NewPlugin {
                    name,
                    signature: signature.read(file)?,
                    source: source_of(file),
                };
                send::<InstallPlugin>(client, &Nothing {}, &query, file)
            }
            Self::Registry(reference) => {
                signature.refuse()?;
                let body = InstallFromRegistry {
                    reference: reference.clone(),
                    name,
                };
                Ok(client.send_slowly::<InstallPluginFromRegistry>(&Nothing {}, &body)?)
            }
        }
    }

    pub(super) fn upgrade(
        &self,
        client: &Client,
        path: &OfPlugin,
        signature: &SignatureArg,
    ) -> Result<UpgradedPlugin, Failure> {
        match self {
            Self::File(file) => {
                let query = PluginOrigin {
                    signature: signature.read(file)?,
                    source: source_of(file),
                };
                send::<UpgradePlugin>(client, path, &query, file)
            }
            Self::Registry(reference) => {
                signature.refuse()?;
                let body = UpgradeFromRegistry {
                    reference: reference.clone(),
                };
                Ok(client.send_slowly::<UpgradePluginFromRegistry>(path, &body)?)
            }
        }
    }
}

fn send<E: Endpoint<Body = Raw>>(
    client: &Client,
    path: &E::Path,
    query: &E::Query,
    file: &Path,
) -> Result<E::Reply, Failure> {
    let bytes = read_whole(file, MAX_COMPONENT_BYTES)?;
    let length = bytes.len() as u64;
    Ok(client.send_content::<E>(path, query, &mut bytes.as_slice(), length)?)
}

/// The file's name, not its path: that of somebody's home is nobody's matter.
fn source_of(file: &Path) -> Option<model::names::Text> {
    file.file_name()?.to_str()?.parse().ok()
}

/// A detached signature.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SignatureArg {
    /// The signature of a file [default: FILE.sig, if it is there]
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
}

impl SignatureArg {
    pub(super) fn read(&self, component: &Path) -> Result<Option<String>, Failure> {
        let beside = PathBuf::from(format!("{}.sig", component.display()));
        let path = match &self.signature {
            Some(path) => path,
            None if beside.exists() => &beside,
            None => return Ok(None),
        };
        let text = read_whole(path, 1024)?;
        String::from_utf8(text)
            .map(Some)
            .map_err(|_| Failure::Usage(format!("{} is not a signature", path.display())))
    }

    /// A package brings its own.
    fn refuse(&self) -> Result<(), Failure> {
        match self.signature {
            None => Ok(()),
            Some(_) => Err(Failure::Usage(
                "--signature goes with a file; a package in a registry has its signature with it"
                    .to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn what_is_not_a_reference_is_a_file_whatever_its_bytes() {
        let read = |bytes: &[u8]| Source::read(OsStr::from_bytes(bytes).into());
        let reference = read(b"oci://registry.example/a:1");
        assert!(matches!(reference, Source::Registry(it) if it == "registry.example/a:1"));
        for path in [&b"hook.wasm"[..], b"-", b"./oci://a", b"h\xffk.wasm"] {
            let file = read(path);
            assert!(matches!(file, Source::File(it) if it.as_os_str().as_bytes() == path));
        }
    }
}
