//! Plugins that carry events somewhere.

use crate::bindings::notifier::exports::loopback::signal::sink;
use crate::bindings::notifier::loopback::signal::types;
use crate::glue::{Adapter, prepare};
use crate::host::{Gateway, Host};
use crate::{Error, Plugin, config};

pub use types::Event;

/// A plugin that tells others what happened.
pub trait Notifier: Plugin {
    /// Carries one event. The gateway may bring it again, with the same id.
    fn deliver(host: &dyn Host, config: &Self::Config, event: &Event) -> Result<(), Error>;

    /// Carries events, oldest first, and answers for each. Unless a plugin has something better,
    /// this is one after the other, see [`in_order`].
    fn deliver_all(
        host: &dyn Host,
        config: &Self::Config,
        batch: &[Event],
    ) -> Vec<Result<(), Error>> {
        in_order(host, batch, |event| Self::deliver(host, config, event))
    }
}

/// What a delivery must at least have left of its call to be begun.
const ENOUGH_MS: u64 = 500;

/// One after the other. What will be tried again holds up what follows it, so that receivers see
/// events in their order; what will not be tried again does not. A call that is about to end
/// stops in time, so that what was delivered is known to be.
pub fn in_order(
    host: &dyn Host,
    batch: &[Event],
    mut deliver: impl FnMut(&Event) -> Result<(), Error>,
) -> Vec<Result<(), Error>> {
    let mut held_up: Option<Error> = None;
    let answer = |event| {
        if let Some(why) = &held_up {
            return Err(why.clone());
        }
        if host.cancelled() || host.remaining_ms() < ENOUGH_MS {
            let error = Error::busy(
                "delivery.out_of_time",
                "the call ends before this event's turn",
            );
            held_up = Some(error.clone().retry_after_ms(0));
            return Err(error.retry_after_ms(0));
        }
        let result = deliver(event);
        if let Err(error) = &result
            && error.is_transient()
        {
            let mut why = Error::busy("delivery.waits", "an event before it was not delivered yet");
            why.retry_after_ms = error.retry_after_ms;
            held_up = Some(why);
        }
        result
    };
    batch.iter().map(answer).collect()
}

impl<P: Notifier> sink::Guest for Adapter<P> {
    fn deliver(batch: Vec<Event>) -> Vec<Result<(), Error>> {
        prepare();
        match config::current() {
            Ok(config) => P::deliver_all(&Gateway, &config, &batch),
            Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}

/// Refuses a type that is no plugin of this kind where nothing is exported.
#[doc(hidden)]
pub fn fits<P: Notifier>() {}

/// Makes a notifier of a type that implements [`Notifier`]. Once in a crate.
#[macro_export]
macro_rules! export_notifier {
    ($plugin:ty) => {
        const _: () = {
            type Guest = $crate::glue::Adapter<$plugin>;
            #[cfg(target_family = "wasm")]
            $crate::glue::plugin::export_plugin_world!(Guest with_types_in $crate::glue::plugin);
            #[cfg(target_family = "wasm")]
            $crate::glue::notifier::export_notifier_world!(Guest with_types_in $crate::glue::notifier);
            // Elsewhere there is nothing to export, and the type must fit all the same.
            #[cfg(not(target_family = "wasm"))]
            const _: fn() = $crate::notifier::fits::<$plugin>;
        };
    };
}
