//! Plugins that can tell how they are, whatever their kind.

use crate::bindings::health::exports::loopback::base::health;
use crate::glue::{Adapter, prepare};
use crate::{Diagnostic, Error, Plugin, config};

/// A plugin that can tell how it is. The gateway asks about once a minute while it is enabled, and
/// when an operator wants to know; whoever has no opinion leaves it out, and is asked about its
/// configuration.
///
/// What the grant allows may be used: where the kind has a `Host`, that is `host::Gateway`.
pub trait Health: Plugin {
    /// What there is to say: nothing if all is well. An error means that it could not find out.
    fn probe(config: &Self::Config) -> Result<Vec<Diagnostic>, Error>;
}

impl<P: Health> health::Guest for Adapter<P> {
    fn probe() -> Result<Vec<Diagnostic>, Error> {
        prepare();
        P::probe(&config::current()?)
    }
}

/// Refuses a type that cannot tell where nothing is exported.
#[doc(hidden)]
pub fn fits<P: Health>() {}

/// Has a plugin tell how it is: a type that implements [`Health`], beside the macro of its kind.
#[macro_export]
macro_rules! export_health {
    ($plugin:ty) => {
        const _: () = {
            #[cfg(target_family = "wasm")]
            type Guest = $crate::glue::Adapter<$plugin>;
            #[cfg(target_family = "wasm")]
    $crate::glue::health::export_health_world!(Guest with_types_in $crate::glue::health);
            // Elsewhere there is nothing to export, and the type must fit all the same.
            #[cfg(not(target_family = "wasm"))]
            const _: fn() = $crate::health::fits::<$plugin>;
        };
    };
}
