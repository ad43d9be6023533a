//! The installer for hosts that comes with the product, as a plugin like any other. The script and
//! its checks are the crate `install-script`; the gateway falls back to the same crate, so both
//! give the very same bytes.

use install_script::{Binary, InstallParams, InstallRefused, RELEASES_PATH, SCRIPT_PATH, render};
use loopback_plugin_sdk::installer::{Input, Installer, Rendered};
use loopback_plugin_sdk::{Error, NoConfig, Plugin};

struct Default;

impl Plugin for Default {
    type Config = NoConfig;
}

impl Installer for Default {
    fn render(_: &NoConfig, input: Input) -> Result<Rendered, Error> {
        // The script has this path written into it.
        if let Some(path) = input.path("releases").filter(|path| *path != RELEASES_PATH) {
            return Err(Error::unsupported(
                "installer.path",
                format!("this installer fetches releases from {RELEASES_PATH}, not from {path}"),
            ));
        }
        let binaries: Vec<_> = input
            .binaries
            .iter()
            .map(|binary| Binary {
                arch: &binary.arch,
                name: &binary.name,
                sha256: &binary.sha256,
                size: binary.size,
            })
            .collect();
        let release_keys: Vec<_> = input.release_keys.iter().map(String::as_str).collect();
        let script = render(&InstallParams {
            base_url: &input.base_url,
            channel: &input.channel,
            verbose: input.verbose,
            production: input.production,
            script_path: input.path("script").unwrap_or(SCRIPT_PATH),
            version: &input.version,
            binaries: &binaries,
            ca_pem: &input.ca_pem,
            https_pin: input.https_pin.as_deref(),
            release_keys: &release_keys,
        })
        .map_err(refused)?;
        Ok(Rendered::from(script))
    }
}

fn refused(why: InstallRefused) -> Error {
    let code = match why {
        InstallRefused::Field { .. } => "installer.field",
        InstallRefused::VerboseInProduction => "installer.verbose_in_production",
        InstallRefused::ArchTwice { .. } => "installer.arch_twice",
    };
    Error::invalid(code, why.to_string())
}

loopback_plugin_sdk::export_installer!(Default);

#[cfg(test)]
mod tests;
