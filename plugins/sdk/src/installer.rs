//! Plugins that write installers for hosts.

use crate::bindings::installer::exports::loopback::install::renderer;
use crate::bindings::installer::loopback::install::types;
use crate::glue::{Adapter, prepare};
use crate::{Error, Plugin, config};

pub use types::{Binary, Input, Rendered};

/// A plugin that writes the installer.
pub trait Installer: Plugin {
    /// Writes it. Pure: the gateway calls it twice and refuses answers that differ.
    fn render(config: &Self::Config, input: Input) -> Result<Rendered, Error>;
}

impl Input {
    /// The line by which a script says what it installs. Every script must have it.
    pub fn marker(&self) -> String {
        format!("# loopback-installer: {} {}", self.version, self.channel)
    }

    /// A path on the gateway: `releases` or `script`.
    pub fn path(&self, name: &str) -> Option<&str> {
        let found = self.paths.iter().find(|path| path.key == name);
        found.map(|path| path.value.as_str())
    }
}

impl From<String> for Rendered {
    fn from(script: String) -> Self {
        Self {
            script,
            notes: Vec::new(),
        }
    }
}

impl<P: Installer> renderer::Guest for Adapter<P> {
    fn render(input: Input) -> Result<Rendered, Error> {
        prepare();
        P::render(&config::current()?, input)
    }
}

/// Refuses a type that is no plugin of this kind where nothing is exported.
#[doc(hidden)]
pub fn fits<P: Installer>() {}

/// Makes an installer of a type that implements [`Installer`]. Once in a crate.
#[macro_export]
macro_rules! export_installer {
    ($plugin:ty) => {
        const _: () = {
            type Guest = $crate::glue::Adapter<$plugin>;
            #[cfg(target_family = "wasm")]
            $crate::glue::plugin::export_plugin_world!(Guest with_types_in $crate::glue::plugin);
            #[cfg(target_family = "wasm")]
            $crate::glue::installer::export_installer_world!(Guest with_types_in $crate::glue::installer);
            // Elsewhere there is nothing to export, and the type must fit all the same.
            #[cfg(not(target_family = "wasm"))]
            const _: fn() = $crate::installer::fits::<$plugin>;
        };
    };
}
