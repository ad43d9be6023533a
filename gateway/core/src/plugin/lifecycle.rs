//! One plugin, and what may be done with it.

use model::Timestamp;
use model::names::Name;
use model::plugin::{
    Grant, Needs, PluginDigest, PluginKind, Ungranted, Widening, ungranted, widening,
};

use super::grant::{GrantFault, check_grant};
use super::version::older;

/// A component: what the decisions need to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Which bytes.
    pub digest: PluginDigest,
    /// What it is for.
    pub kind: PluginKind,
    /// Its author's name for it.
    pub name: Name,
    /// Its version.
    pub version: String,
    /// What it asks for.
    pub needs: Needs,
}

/// An upgrade that waits for somebody to look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// What would run.
    pub package: Package,
    /// What it needs more.
    pub widening: Vec<Widening>,
}

/// Whether a plugin is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Never enabled.
    Installed,
    /// It runs.
    Enabled,
    /// Somebody turned it off.
    Disabled,
    /// The gateway turned it off.
    Quarantined {
        /// Why.
        reason: String,
        /// When.
        since: Timestamp,
    },
}

/// Whether a component accepts the present configuration. Its own answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// It does.
    Yes,
    /// It does not, or cannot be asked.
    No,
}

/// An installed plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// What runs, or would.
    pub present: Package,
    /// What ran before.
    pub previous: Option<Package>,
    /// What waits.
    pub pending: Option<Pending>,
    /// What it was given.
    pub grant: Grant,
    /// The component that accepted the present configuration.
    pub accepted_by: Option<PluginDigest>,
    /// Whether it is to run.
    pub state: State,
}

/// How an upgrade went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgraded {
    /// It is what runs.
    Live,
    /// It waits: for approval of what it needs more, for grants, for a configuration.
    Held,
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing would change.
    #[error("this very component is what is installed")]
    SameDigest,
    /// Something else altogether.
    #[error(
        "the component is {found}, and {installed} is installed; install it under a name of its own"
    )]
    Another {
        /// What came.
        found: String,
        /// What is there.
        installed: String,
    },
    /// Going back is a decision of its own.
    #[error(
        "version {found} is older than {installed}, which is installed; roll back, or remove the plugin first"
    )]
    Downgrade {
        /// What came.
        found: String,
        /// What is there.
        installed: String,
    },
    /// It would run and lack something.
    #[error("not granted: {}", list(.0))]
    Ungranted(Vec<Ungranted>),
    /// It would run with a configuration that it does not accept.
    #[error("the plugin has not accepted a configuration; configure it first")]
    NotConfigured,
    /// Only what does not run is removed.
    #[error("the plugin is enabled; disable it first")]
    Enabled,
    /// No upgrade waits.
    #[error("no upgrade waits for approval")]
    NothingPending,
    /// Another one than was looked at.
    #[error("{waiting} waits for approval, not {named}; look at it first")]
    OtherPending {
        /// What waits.
        waiting: PluginDigest,
        /// What was named.
        named: PluginDigest,
    },
    /// There was nothing before.
    #[error("there is no version to go back to")]
    NothingBefore,
    /// The grant means nothing.
    #[error(transparent)]
    Grant(#[from] GrantFault),
}

fn list(missing: &[Ungranted]) -> String {
    let texts: Vec<_> = missing
        .iter()
        .map(|missing| format!("{} ({})", missing.need, missing.what))
        .collect();
    texts.join("; ")
}

impl Plugin {
    /// A new one, which may do nothing.
    pub fn installed(present: Package) -> Self {
        Self {
            present,
            previous: None,
            pending: None,
            grant: Grant::default(),
            accepted_by: None,
            state: State::Installed,
        }
    }

    /// Whether it is to run.
    pub fn enabled(&self) -> bool {
        self.state == State::Enabled
    }

    /// What it needs and was not given.
    pub fn ungranted(&self) -> Vec<Ungranted> {
        ungranted(&self.present.needs, &self.grant)
    }

    /// Whether `package` could run as this plugin now.
    fn runnable(&self, package: &Package, accepts: Accepts) -> Result<(), Refusal> {
        let missing = ungranted(&package.needs, &self.grant);
        if !missing.is_empty() {
            return Err(Refusal::Ungranted(missing));
        }
        match accepts {
            Accepts::Yes => Ok(()),
            Accepts::No => Err(Refusal::NotConfigured),
        }
    }

    fn accepted(&self, package: &Package) -> Accepts {
        if self.accepted_by == Some(package.digest) {
            Accepts::Yes
        } else {
            Accepts::No
        }
    }

    /// Takes another version. It becomes what runs if it needs no more than was seen, and, for
    /// an enabled plugin, can run at once.
    pub fn upgrade(mut self, to: Package, accepts: Accepts) -> Result<(Self, Upgraded), Refusal> {
        if to.digest == self.present.digest {
            return Err(Refusal::SameDigest);
        }
        if to.kind != self.present.kind || to.name != self.present.name {
            return Err(Refusal::Another {
                found: format!("{} `{}`", to.kind, to.name),
                installed: format!("{} `{}`", self.present.kind, self.present.name),
            });
        }
        if older(&to.version, &self.present.version) {
            return Err(Refusal::Downgrade {
                found: to.version,
                installed: self.present.version,
            });
        }
        let widening = widening(&self.present.needs, &to.needs);
        let blocked = self.enabled() && self.runnable(&to, accepts).is_err();
        if !widening.is_empty() || blocked {
            self.pending = Some(Pending {
                package: to,
                widening,
            });
            return Ok((self, Upgraded::Held));
        }
        Ok((self.replaced(to, accepts), Upgraded::Live))
    }

    /// Makes the upgrade that waits what runs. `digest` is what the operator looked at.
    pub fn approve(self, digest: PluginDigest, accepts: Accepts) -> Result<Self, Refusal> {
        let Some(pending) = self.pending.clone() else {
            return Err(Refusal::NothingPending);
        };
        if pending.package.digest != digest {
            return Err(Refusal::OtherPending {
                waiting: pending.package.digest,
                named: digest,
            });
        }
        if self.enabled() {
            self.runnable(&pending.package, accepts)?;
        }
        Ok(self.replaced(pending.package, accepts))
    }

    /// Goes back to what ran before. That is no way around approval: it was seen when it ran.
    pub fn rollback(self, accepts: Accepts) -> Result<Self, Refusal> {
        let Some(previous) = self.previous.clone() else {
            return Err(Refusal::NothingBefore);
        };
        if self.enabled() {
            self.runnable(&previous, accepts)?;
        }
        Ok(self.replaced(previous, accepts))
    }

    fn replaced(self, by: Package, accepts: Accepts) -> Self {
        let accepted_by = match accepts {
            Accepts::Yes => Some(by.digest),
            Accepts::No => None,
        };
        Self {
            previous: Some(self.present),
            present: by,
            pending: None,
            accepted_by,
            ..self
        }
    }

    /// Gives it what `grant` says, and nothing else. What runs must not lose what it needs:
    /// it would fail in the middle of something.
    pub fn granted(self, grant: Grant) -> Result<Self, Refusal> {
        let mut needs = vec![&self.present.needs];
        needs.extend(self.pending.as_ref().map(|pending| &pending.package.needs));
        check_grant(&grant, &needs)?;
        let granted = Self { grant, ..self };
        if granted.enabled() {
            granted.runnable(&granted.present, granted.accepted(&granted.present))?;
        }
        Ok(granted)
    }

    /// Notes that the present component accepted a configuration.
    pub fn configured(self) -> Self {
        Self {
            accepted_by: Some(self.present.digest),
            ..self
        }
    }

    /// Lets it run.
    pub fn enable(self) -> Result<Self, Refusal> {
        self.runnable(&self.present, self.accepted(&self.present))?;
        Ok(Self {
            state: State::Enabled,
            ..self
        })
    }

    /// Turns it off.
    pub fn disable(self) -> Self {
        Self {
            state: State::Disabled,
            ..self
        }
    }

    /// Turns off what keeps failing; what does not run is left as it is.
    pub fn quarantine(self, reason: String, since: Timestamp) -> Self {
        if !self.enabled() {
            return self;
        }
        Self {
            state: State::Quarantined { reason, since },
            ..self
        }
    }

    /// Whether it may be removed.
    pub fn removable(&self) -> Result<(), Refusal> {
        if self.enabled() {
            Err(Refusal::Enabled)
        } else {
            Ok(())
        }
    }
}
