//! The usual installer with a company's notice and proxy in it: what an operator writes who wants
//! the product's own script, and a little more.

use install_script::{Binary, InstallParams, SCRIPT_PATH, render};
use loopback_plugin_sdk::installer::{Input, Installer, Rendered};
use loopback_plugin_sdk::{Diagnostic, Error, Plugin};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Said at the beginning of every installation.
    #[schemars(length(max = 200))]
    notice: String,
    /// Used where the host has no HTTPS_PROXY of its own, as in `http://proxy.example:3128`.
    #[serde(default)]
    #[schemars(regex(pattern = "^https?://[a-z0-9.-]+(:[0-9]+)?$"))]
    proxy: Option<String>,
}

struct Company;

impl Plugin for Company {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        if config.notice.contains(['\'', '\n']) {
            return vec![Diagnostic::error(
                "/notice",
                "must be one line without quotes",
            )];
        }
        Vec::new()
    }
}

impl Installer for Company {
    fn render(config: &Config, input: Input) -> Result<Rendered, Error> {
        let usual = usual(&input)?;
        // The first thing that runs, and before anything else: the script's own settings.
        let mut first = format!("settings() {{\n  printf '%s\\n' '{}'\n", config.notice);
        if let Some(proxy) = &config.proxy {
            first.push_str(&format!(
                "  : \"${{HTTPS_PROXY:={proxy}}}\"\n  export HTTPS_PROXY\n"
            ));
        }
        Ok(Rendered {
            script: usual.replacen("settings() {\n", &first, 1),
            notes: vec![format!("notice: {}", config.notice)],
        })
    }
}

fn usual(input: &Input) -> Result<String, Error> {
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
    let keys: Vec<_> = input.release_keys.iter().map(String::as_str).collect();
    render(&InstallParams {
        base_url: &input.base_url,
        channel: &input.channel,
        verbose: input.verbose,
        production: input.production,
        script_path: input.path("script").unwrap_or(SCRIPT_PATH),
        version: &input.version,
        binaries: &binaries,
        ca_pem: &input.ca_pem,
        https_pin: input.https_pin.as_deref(),
        release_keys: &keys,
    })
    .map_err(|why| Error::invalid("installer.refused", why.to_string()))
}

loopback_plugin_sdk::export_installer!(Company);
