//! What an operator sets: for all controllers, and for a target.

use loopback_plugin_sdk::power::Target;
use loopback_plugin_sdk::{Diagnostic, Error};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::place::Origin;

/// How the plugin speaks with controllers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The user whose password is the secret `password`, unless a target names another.
    #[serde(default = "default_user")]
    #[schemars(length(min = 1, max = 256))]
    pub(crate) user: String,
    /// How that user proves itself.
    #[serde(default)]
    pub(crate) login: Login,
    /// How long a request may take. Controllers are slow: some need seconds for a page.
    #[serde(default = "default_timeout_ms")]
    #[schemars(range(min = 1_000, max = 25_000))]
    pub(crate) timeout_ms: u32,
    /// Controllers whose machines `discover` lists.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub(crate) discover: Vec<Controller>,
}

/// A controller to be asked for its machines.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Controller {
    /// As in `https://bmc-7.example.com`.
    #[schemars(length(max = 2048))]
    pub(crate) address: String,
    /// How it proves itself: a profile's name from the grant.
    #[serde(default)]
    pub(crate) tls_profile: Option<String>,
    /// Through which agents it is reached: a route's name from the grant.
    #[serde(default)]
    pub(crate) route: Option<String>,
}

/// How a user proves itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Login {
    /// User and password in every request.
    #[default]
    Basic,
    /// User and password once, for a token that is shown from then on. For controllers that check
    /// passwords slowly, or that have basic authentication turned off.
    Session,
}

/// What an operator writes for a target.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Params {
    /// The system by its id or its path. Needed only where the controller has several.
    pub(crate) system: Option<String>,
    /// The user, where it is not the configuration's.
    pub(crate) user: Option<String>,
}

fn default_user() -> String {
    "admin".to_owned()
}

fn default_timeout_ms() -> u32 {
    10_000
}

impl Config {
    /// What the type does not say.
    pub(crate) fn findings(&self) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        if self.user.contains(':') && self.login == Login::Basic {
            let message = "a user with a colon in its name cannot log in by `basic`";
            found.push(Diagnostic::error("/user", message));
        }
        for (at, controller) in self.discover.iter().enumerate() {
            let path = format!("/discover/{at}/address");
            match Origin::of(&controller.address) {
                Err(error) => found.push(Diagnostic::error(&path, error.message)),
                Ok(origin) if origin.is_plain() => {
                    let message = "without TLS everybody on the way reads the password";
                    found.push(Diagnostic::warning(&path, message));
                }
                Ok(_) => {}
            }
        }
        found
    }
}

impl Params {
    pub(crate) fn of(target: &Target) -> Result<Self, Error> {
        target.read_params()
    }
}
