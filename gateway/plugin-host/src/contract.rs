//! The contract of `wit/` in Rust: types, and the traits that the host implements.
//!
//! The shared package is generated once, in [`base`]; each kind's world is generated on top of it
//! and brings only what it exports. So there is one implementation of each host interface, and a
//! world links those of them that it imports.
//!
//! Another package takes: a folder in `wit/`, a module here with its `bindgen!` and its calls, an
//! arm in [`Exports::of`] and in [`link`], and a [`PluginKind`]. The compiler asks for each.

#[allow(missing_docs, reason = "generated from what is documented in wit/")]
pub(crate) mod base;
#[allow(missing_docs, reason = "generated from what is documented in wit/")]
pub(crate) mod installer;
#[allow(missing_docs, reason = "generated from what is documented in wit/")]
pub(crate) mod notifier;
#[allow(missing_docs, reason = "generated from what is documented in wit/")]
pub(crate) mod policy;
#[allow(missing_docs, reason = "generated from what is documented in wit/")]
pub(crate) mod power;

use model::names::clean;
use model::plugin::PluginKind;
use wasmtime::Store;
use wasmtime::component::{HasSelf, Instance, InstancePre, Linker};

use crate::store::CallState;

/// The version of the contract that this host speaks.
pub(crate) const VERSION: &str = "0.1.0";

/// What a component of any kind may export besides. One of another version is as good as none:
/// nobody relies on it.
const HEALTH: &str = "loopback:base/health@0.1.0";
/// The interface that every plugin exports.
pub(crate) const PLUGIN: &str = "loopback:base/plugin";

/// The interface that makes a component a plugin of a kind.
pub(crate) fn export_of(kind: PluginKind) -> &'static str {
    match kind {
        PluginKind::Installer => "loopback:install/renderer",
        PluginKind::Notifier => "loopback:signal/sink",
        PluginKind::Policy => "loopback:policy/authorizer",
        PluginKind::Power => "loopback:power/provider",
    }
}

/// What a component of this kind may import of ours; a test holds it against `wit/`.
pub(crate) fn imports_of(kind: PluginKind) -> &'static [&'static str] {
    match kind {
        PluginKind::Installer => &[
            "loopback:base/types",
            "loopback:install/types",
            "loopback:base/log",
            "loopback:base/config",
        ],
        PluginKind::Notifier => &[
            "loopback:base/types",
            "loopback:signal/types",
            "loopback:base/log",
            "loopback:base/config",
            "loopback:base/secrets",
            "loopback:base/http",
            "loopback:base/sign",
            "loopback:base/state",
            "loopback:base/task",
        ],
        PluginKind::Policy => &[
            "loopback:base/types",
            "loopback:policy/types",
            "loopback:base/log",
            "loopback:base/config",
        ],
        PluginKind::Power => &[
            "loopback:base/types",
            "loopback:power/types",
            "loopback:base/log",
            "loopback:base/config",
            "loopback:base/secrets",
            "loopback:base/http",
            "loopback:base/sign",
            "loopback:base/datagram",
            "loopback:base/state",
            "loopback:base/task",
        ],
    }
}

/// Links what a world of this kind imports, and no more.
pub(crate) fn link(kind: PluginKind, linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    match kind {
        PluginKind::Installer => {
            installer::Installer::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)
        }
        PluginKind::Notifier => {
            notifier::Notifier::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)
        }
        PluginKind::Policy => {
            policy::Policy::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)
        }
        PluginKind::Power => {
            power::Power::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)
        }
    }
}

/// Where a component's exports are, found once when it is loaded.
pub(crate) struct Exports {
    /// What all kinds export.
    pub(crate) plugin: base::SharedIndices,
    /// What this kind exports.
    pub(crate) kind: KindExports,
    /// How it is, where it can tell.
    pub(crate) health: Option<base::health::WellIndices>,
}

/// See [`Exports`].
pub(crate) enum KindExports {
    Installer(installer::InstallerIndices),
    Notifier(notifier::NotifierIndices),
    Policy(policy::PolicyIndices),
    Power(power::PowerIndices),
}

impl Exports {
    /// Fails when a function is missing. Types are compared by [`Self::compare`].
    pub(crate) fn of(kind: PluginKind, pre: &InstancePre<CallState>) -> wasmtime::Result<Self> {
        let tells = pre.component().get_export_index(None, HEALTH).is_some();
        Ok(Self {
            plugin: base::SharedIndices::new(pre)?,
            health: tells
                .then(|| base::health::WellIndices::new(pre))
                .transpose()?,
            kind: match kind {
                PluginKind::Installer => {
                    KindExports::Installer(installer::InstallerIndices::new(pre)?)
                }
                PluginKind::Notifier => KindExports::Notifier(notifier::NotifierIndices::new(pre)?),
                PluginKind::Policy => KindExports::Policy(policy::PolicyIndices::new(pre)?),
                PluginKind::Power => KindExports::Power(power::PowerIndices::new(pre)?),
            },
        })
    }

    /// Fails when a function has another type than in the contract. All of them are looked at, not
    /// only the one that is about to be called.
    pub(crate) fn compare(
        &self,
        store: &mut Store<CallState>,
        instance: &Instance,
    ) -> Result<(), Misfit> {
        let misfit = |interface: &str, error: wasmtime::Error| {
            Misfit(clean(&format!("`{interface}`: {error:#}"), 500))
        };
        self.plugin
            .load(&mut *store, instance)
            .map_err(|error| misfit(PLUGIN, error))?;
        if let Some(health) = &self.health {
            let fits = health.load(&mut *store, instance).map(drop);
            fits.map_err(|error| misfit(HEALTH, error))?;
        }
        let (kind, fits) = match &self.kind {
            KindExports::Installer(indices) => {
                let fits = indices.load(store, instance).map(drop);
                (PluginKind::Installer, fits)
            }
            KindExports::Notifier(indices) => {
                let fits = indices.load(store, instance).map(drop);
                (PluginKind::Notifier, fits)
            }
            KindExports::Policy(indices) => {
                let fits = indices.load(store, instance).map(drop);
                (PluginKind::Policy, fits)
            }
            KindExports::Power(indices) => {
                let fits = indices.load(store, instance).map(drop);
                (PluginKind::Power, fits)
            }
        };
        fits.map_err(|error| misfit(export_of(kind), error))
    }
}

/// A function has another type than in the contract: of which interface, and what differs.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Misfit(String);

#[derive(Debug, thiserror::Error)]
#[error("called as a plugin of another kind")]
struct AnotherKind;

#[cfg(test)]
mod tests;
