//! Keys and signatures: those of releases, for components.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use release::{PublicKey, SigningKey, sign_plugin, verify_plugin};

use crate::say;

/// Makes a key: the secret half into a file that only its owner reads.
pub(crate) fn keygen(path: &Path) -> Result<()> {
    let key = SigningKey::generate()?;
    key.save(path)?;
    say(&format!(
        "{}: keep it offline; what gateways trust is:",
        path.display()
    ));
    println!("{}", key.public());
    Ok(())
}

/// Writes `FILE.sig`.
pub(crate) fn sign(file: &Path, key: &Path) -> Result<()> {
    let component = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let key = SigningKey::load(key)?;
    let beside = signature_of(file);
    fs::write(&beside, sign_plugin(&component, &key))
        .with_context(|| format!("write {}", beside.display()))?;
    say(&format!(
        "{}: signed by key {}",
        beside.display(),
        key.public().id()
    ));
    Ok(())
}

/// Checks `FILE.sig`.
pub(crate) fn verify(file: &Path, keys: &Path) -> Result<()> {
    let component = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let beside = signature_of(file);
    let signature =
        fs::read_to_string(&beside).with_context(|| format!("read {}", beside.display()))?;
    let keys = fs::read_to_string(keys).with_context(|| format!("read {}", keys.display()))?;
    let signer = verify_plugin(&component, &signature, &PublicKey::parse_list(&keys)?)?;
    say(&format!("{}: signed by key {signer}", file.display()));
    Ok(())
}

/// Where the signature of a component lies.
pub(crate) fn signature_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}
