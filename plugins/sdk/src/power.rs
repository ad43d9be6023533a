//! Plugins that turn machines on and off.

use serde::de::DeserializeOwned;

use crate::bindings::power::exports::loopback::power::provider;
use crate::bindings::power::loopback::power::types;
use crate::glue::{Adapter, prepare};
use crate::host::{Gateway, Host};
use crate::{Diagnostic, Error, Plugin, config};

pub use types::{
    Action, Begun, BootDevice, BootOnce, Cancelled, Found, FoundPage, Observation, Operation,
    Progress, Resumed, State, Step, Support, Supported, Target,
};

/// A plugin that turns machines on and off. Each function is a step of some seconds at most; the
/// gateway keeps what lies between them. `wit/power` says what each promises.
pub trait Provider: Plugin {
    /// What can be done for this target. Changes nothing.
    fn inspect(host: &dyn Host, config: &Self::Config, target: &Target) -> Result<Support, Error>;

    /// Findings about a target. Changes nothing. Unless a plugin knows more, this is what
    /// [`Provider::observe`] says.
    fn check_target(
        host: &dyn Host,
        config: &Self::Config,
        target: &Target,
    ) -> Result<Vec<Diagnostic>, Error> {
        Self::observe(host, config, target).map(|_| Vec::new())
    }

    /// How the target is.
    fn observe(
        host: &dyn Host,
        config: &Self::Config,
        target: &Target,
    ) -> Result<Observation, Error>;

    /// Submits the action, once. An error says whether it may have been submitted all the same
    /// (`outcome_unknown`).
    fn begin(
        host: &dyn Host,
        config: &Self::Config,
        operation: &Operation,
        target: &Target,
    ) -> Result<Begun, Error>;

    /// Asks how it goes on. Not called unless `begin` or `resume` answered with a cursor.
    fn poll(
        host: &dyn Host,
        config: &Self::Config,
        operation: &Operation,
        target: &Target,
        cursor: &[u8],
    ) -> Result<Step, Error> {
        let _ = (host, config, operation, target, cursor);
        Ok(Step::Done)
    }

    /// Finds out what became of a `begin` whose answer is not known, and submits nothing. Unless a
    /// plugin can tell, nobody knows.
    fn resume(
        host: &dyn Host,
        config: &Self::Config,
        operation: &Operation,
        target: &Target,
    ) -> Result<Resumed, Error> {
        let _ = (host, config, operation, target);
        Ok(Resumed::Unknown)
    }

    /// Calls off what was submitted.
    fn cancel(
        host: &dyn Host,
        config: &Self::Config,
        operation: &Operation,
        target: &Target,
        cursor: &[u8],
    ) -> Result<Cancelled, Error> {
        let _ = (host, config, operation, target, cursor);
        Ok(Cancelled::Unsupported)
    }

    /// Machines that the provider knows, page by page.
    fn discover(
        host: &dyn Host,
        config: &Self::Config,
        cursor: Option<&str>,
    ) -> Result<FoundPage, Error> {
        let _ = (host, config, cursor);
        Err(Error::unsupported(
            "power.no_list",
            "this provider has no list of machines",
        ))
    }
}

impl Target {
    /// What the operator wrote for this target, as a type.
    pub fn read_params<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let mut deserializer = serde_json::Deserializer::from_str(&self.params);
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            Error::invalid("target.params", error.inner().to_string()).detail("path", path)
        })
    }
}

impl Observation {
    /// A state, in the provider's own word too.
    pub fn new(state: State, raw: impl Into<String>) -> Self {
        Self {
            state,
            raw: raw.into(),
            boot_mark: None,
            boot: None,
            extra: Vec::new(),
        }
    }

    /// Whether this is where `action` leads, so that there is nothing to do. Never for actions
    /// that happen: they happen again.
    pub fn is_where_it_leads(&self, action: Action) -> bool {
        match action {
            Action::On => self.state == State::On,
            Action::Shutdown | Action::Off => self.state == State::Off,
            Action::Reboot | Action::Reset | Action::Cycle | Action::Nmi => false,
        }
    }
}

impl Supported {
    /// An action about which nothing else is worth knowing.
    pub fn plainly(action: Action) -> Self {
        Self {
            action,
            note: String::new(),
        }
    }
}

impl<P: Provider> provider::Guest for Adapter<P> {
    fn inspect(target: Target) -> Result<Support, Error> {
        prepare();
        P::inspect(&Gateway, &config::current()?, &target)
    }

    fn check(target: Target) -> Result<Vec<Diagnostic>, Error> {
        prepare();
        P::check_target(&Gateway, &config::current()?, &target)
    }

    fn observe(target: Target) -> Result<Observation, Error> {
        prepare();
        P::observe(&Gateway, &config::current()?, &target)
    }

    fn begin(operation: Operation, target: Target) -> Result<Begun, Error> {
        prepare();
        P::begin(&Gateway, &config::current()?, &operation, &target)
    }

    fn poll(operation: Operation, target: Target, cursor: Vec<u8>) -> Result<Step, Error> {
        prepare();
        P::poll(&Gateway, &config::current()?, &operation, &target, &cursor)
    }

    fn resume(operation: Operation, target: Target) -> Result<Resumed, Error> {
        prepare();
        P::resume(&Gateway, &config::current()?, &operation, &target)
    }

    fn cancel(operation: Operation, target: Target, cursor: Vec<u8>) -> Result<Cancelled, Error> {
        prepare();
        P::cancel(&Gateway, &config::current()?, &operation, &target, &cursor)
    }

    fn discover(cursor: Option<String>) -> Result<FoundPage, Error> {
        prepare();
        P::discover(&Gateway, &config::current()?, cursor.as_deref())
    }
}

/// Refuses a type that is no plugin of this kind where nothing is exported.
#[doc(hidden)]
pub fn fits<P: Provider>() {}

/// Makes a power provider of a type that implements [`Provider`]. Once in a crate.
#[macro_export]
macro_rules! export_power_provider {
    ($plugin:ty) => {
        const _: () = {
            type Guest = $crate::glue::Adapter<$plugin>;
            #[cfg(target_family = "wasm")]
    $crate::glue::plugin::export_plugin_world!(Guest with_types_in $crate::glue::plugin);
            #[cfg(target_family = "wasm")]
    $crate::glue::power::export_power_world!(Guest with_types_in $crate::glue::power);
            // Elsewhere there is nothing to export, and the type must fit all the same.
            #[cfg(not(target_family = "wasm"))]
            const _: fn() = $crate::power::fits::<$plugin>;
        };
    };
}
