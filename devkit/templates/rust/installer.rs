//! Writes the installer for hosts.

use loopback_plugin_sdk::Plugin;
use loopback_plugin_sdk::installer::{Input, Installer, Rendered};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Said at the beginning of every installation.
    #[schemars(regex(pattern = "^[A-Za-z0-9 .,:-]*$"))]
    notice: String,
}

struct ThisPlugin;

impl Plugin for ThisPlugin {
    type Config = Config;
}

impl Installer for ThisPlugin {
    fn render(config: &Config, input: Input) -> Result<Rendered, loopback_plugin_sdk::Error> {
        let (marker, url, notice) = (input.marker(), &input.base_url, &config.notice);
        // Nothing runs before the last line is there: a download may be cut.
        let script = format!(
            "#!/bin/sh\n{marker}\nmain() {{\n  set -eu\n  echo '{notice}'\n  \
             echo 'the gateway is {url}'\n}}\nmain \"$@\"\n"
        );
        Ok(Rendered::from(script))
    }
}

loopback_plugin_sdk::export_installer!(ThisPlugin);
