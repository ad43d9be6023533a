//! Who may do what: roles as data, grants by prefix, and the rule that nobody
//! gives more than they have.
//!
//! A role is a list of [`Rule`]s: patterns, each narrowed to some environments.
//! There are no denials: what a role leaves out is left out, so that adding a
//! role never takes anything away and "covers" is a simple question. A user has
//! roles at scopes ([`Holding`]s); an API key can be narrower than its owner
//! ([`Limits`]) and never wider, because both are asked at every request.
//!
//! [`Authority::covers`] compares patterns, not the permissions they expand to
//! today: somebody who holds every permission under `project.workspace.host`
//! one by one may not hand out the prefix, which would grow with the next
//! version.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{Name, Text};
use crate::permission::{Pattern, Permission};
use crate::tenancy::{Environment, Scope};

/// One line of a role: a pattern, in these environments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What is allowed.
    pub allow: Pattern,
    /// Where it counts. Empty means in every environment. What has no
    /// environment (projects, users...) is only allowed by unnarrowed rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<Environment>,
}

impl Rule {
    /// A rule for every environment.
    pub fn everywhere(allow: Pattern) -> Self {
        Self {
            allow,
            environments: Vec::new(),
        }
    }

    fn allows(&self, permission: Permission, environment: Option<Environment>) -> bool {
        self.allow.allows(permission) && self.counts_in(environment)
    }

    fn counts_in(&self, environment: Option<Environment>) -> bool {
        self.environments.is_empty()
            || environment.is_some_and(|environment| self.environments.contains(&environment))
    }

    /// Everywhere `None`, else each environment named.
    fn places(&self) -> Vec<Option<Environment>> {
        if self.environments.is_empty() {
            vec![None]
        } else {
            self.environments.iter().copied().map(Some).collect()
        }
    }
}

/// A role's rules at a scope: what a binding amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Where.
    pub scope: Scope,
    /// What.
    pub rules: Vec<Rule>,
}

/// What an API key is narrowed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Only here.
    pub scope: Scope,
    /// Only this.
    pub rules: Vec<Rule>,
}

/// What a caller may do: what its user holds, within its key's limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authority {
    /// From the user's roles.
    pub holdings: Vec<Holding>,
    /// From the key; `None` is not narrowed.
    pub limits: Option<Limits>,
}

impl Authority {
    /// Whether `permission` is allowed at `scope`. `environment` is the
    /// workspace's, when the scope is a workspace.
    pub fn allows(
        &self,
        permission: Permission,
        scope: &Scope,
        environment: Option<Environment>,
    ) -> bool {
        let held = self.holdings.iter().any(|holding| {
            holding.scope.covers(scope)
                && holding
                    .rules
                    .iter()
                    .any(|rule| rule.allows(permission, environment))
        });
        let within = self.limits.as_ref().is_none_or(|limits| {
            limits.scope.covers(scope)
                && limits
                    .rules
                    .iter()
                    .any(|rule| rule.allows(permission, environment))
        });
        held && within
    }

    /// Whether anything at all is allowed at `scope` or below it: without that,
    /// what lies there must look absent.
    pub fn sees(&self, scope: &Scope, environment: Option<Environment>) -> bool {
        Permission::ALL
            .iter()
            .any(|permission| self.allows(*permission, scope, environment))
    }

    /// Whether a caller could hand out `rules` at `scope` without giving more
    /// than it has.
    pub fn covers(&self, scope: &Scope, rules: &[Rule]) -> bool {
        rules.iter().all(|wanted| {
            wanted
                .places()
                .into_iter()
                .all(|place| self.covers_one(scope, &wanted.allow, place))
        })
    }

    /// `place` of `None` means every environment, which only an unnarrowed
    /// rule, or rules for each environment, covers.
    fn covers_one(&self, scope: &Scope, wanted: &Pattern, place: Option<Environment>) -> bool {
        let gives = |outer: &Scope, rules: &[Rule]| {
            outer.covers(scope)
                && rules
                    .iter()
                    .any(|rule| rule.allow.covers(wanted) && rule.counts_in(place))
        };
        self.holdings
            .iter()
            .any(|holding| gives(&holding.scope, &holding.rules))
            && self
                .limits
                .as_ref()
                .is_none_or(|limits| gives(&limits.scope, &limits.rules))
    }
}

/// A role that every deployment has. It cannot be changed or deleted.
pub struct BuiltInRole {
    /// Its name.
    pub name: &'static str,
    /// For whom it is.
    pub description: &'static str,
    rules: &'static [(&'static str, &'static [Environment])],
}

impl BuiltInRole {
    /// Its rules.
    pub fn rules(&self) -> Vec<Rule> {
        let rule = |(allow, environments): &(&str, &[Environment])| Rule {
            allow: allow.parse().expect("a test parses every built-in rule"),
            environments: environments.to_vec(),
        };
        self.rules.iter().map(rule).collect()
    }

    /// Its name as a typed one.
    pub fn typed_name(&self) -> Name {
        self.name
            .parse()
            .expect("a test parses every built-in name")
    }

    /// Its description as typed text.
    pub fn typed_description(&self) -> Text {
        self.description
            .parse()
            .expect("a test parses every built-in description")
    }
}

const EVERYWHERE: &[Environment] = &[];
const NOT_PRODUCTION: &[Environment] = &[Environment::Staging, Environment::Development];

/// The built-in roles. Minting tokens is split from seeing and revoking them,
/// because whoever mints opens a path into the fleet; shell sessions are root on
/// a host, so no role but the owner's may open them in production, and the
/// owner's role names them apart so that even there a custom role is needed. Commands
/// are as powerful, though every one is named and kept: operators run them outside
/// production only. Diagnostics only look, but at more than a viewer should see.
/// are as powerful, though every one is named and kept, and so are files, of which the
/// trail keeps names and digests: operators have both outside production only.
pub const BUILT_IN_ROLES: &[BuiltInRole] = &[
    BuiltInRole {
        name: "owner",
        description: "everything, except shell sessions in production",
        rules: &[
            ("self", EVERYWHERE),
            ("deployment", EVERYWHERE),
            ("project.create", EVERYWHERE),
            ("project.list", EVERYWHERE),
            ("project.update", EVERYWHERE),
            ("project.delete", EVERYWHERE),
            ("project.access", EVERYWHERE),
            ("project.workspace.create", EVERYWHERE),
            ("project.workspace.list", EVERYWHERE),
            ("project.workspace.update", EVERYWHERE),
            ("project.workspace.delete", EVERYWHERE),
            ("project.workspace.access", EVERYWHERE),
            ("project.workspace.event", EVERYWHERE),
            ("project.workspace.audit", EVERYWHERE),
            ("project.workspace.approval", EVERYWHERE),
            ("project.workspace.break_glass", EVERYWHERE),
            ("project.workspace.secret", EVERYWHERE),
            ("project.workspace.agent_token", EVERYWHERE),
            ("project.workspace.host.create", EVERYWHERE),
            ("project.workspace.host.list", EVERYWHERE),
            ("project.workspace.host.update", EVERYWHERE),
            ("project.workspace.host.maintenance", EVERYWHERE),
            ("project.workspace.host.repair", EVERYWHERE),
            ("project.workspace.host.retire", EVERYWHERE),
            ("project.workspace.host.metrics", EVERYWHERE),
            ("project.workspace.host.diagnose", EVERYWHERE),
            ("project.workspace.host.command", EVERYWHERE),
            ("project.workspace.host.file", EVERYWHERE),
            ("project.workspace.host.power", EVERYWHERE),
            ("project.workspace.host.shell_session", NOT_PRODUCTION),
        ],
    },
    BuiltInRole {
        name: "workspace-admin",
        description: "runs workspaces: access, tokens, hosts; no shell sessions in production",
        rules: &[
            ("self", EVERYWHERE),
            ("project.list", EVERYWHERE),
            ("project.workspace.list", EVERYWHERE),
            ("project.workspace.update", EVERYWHERE),
            ("project.workspace.access", EVERYWHERE),
            ("project.workspace.event", EVERYWHERE),
            ("project.workspace.audit.read", EVERYWHERE),
            ("project.workspace.approval", EVERYWHERE),
            ("project.workspace.break_glass", EVERYWHERE),
            ("project.workspace.secret", EVERYWHERE),
            ("project.workspace.agent_token", EVERYWHERE),
            ("project.workspace.host.create", EVERYWHERE),
            ("project.workspace.host.list", EVERYWHERE),
            ("project.workspace.host.update", EVERYWHERE),
            ("project.workspace.host.maintenance", EVERYWHERE),
            ("project.workspace.host.repair", EVERYWHERE),
            ("project.workspace.host.retire", EVERYWHERE),
            ("project.workspace.host.metrics", EVERYWHERE),
            ("project.workspace.host.diagnose", EVERYWHERE),
            ("project.workspace.host.command", EVERYWHERE),
            ("project.workspace.host.file", EVERYWHERE),
            ("project.workspace.host.power", EVERYWHERE),
            ("project.workspace.host.shell_session", NOT_PRODUCTION),
        ],
    },
    BuiltInRole {
        name: "operator",
        description: "works with hosts; sees tokens but mints none; no shell sessions in production",
        rules: &[
            ("self", EVERYWHERE),
            ("project.list", EVERYWHERE),
            ("project.workspace.list", EVERYWHERE),
            ("project.workspace.event", EVERYWHERE),
            ("project.workspace.approval.list", EVERYWHERE),
            ("project.workspace.agent_token.list", EVERYWHERE),
            ("project.workspace.host.create", EVERYWHERE),
            ("project.workspace.host.list", EVERYWHERE),
            ("project.workspace.host.update", EVERYWHERE),
            ("project.workspace.host.maintenance", EVERYWHERE),
            ("project.workspace.host.metrics.read", EVERYWHERE),
            ("project.workspace.host.diagnose", EVERYWHERE),
            ("project.workspace.host.command.list", EVERYWHERE),
            ("project.workspace.host.command.cancel", EVERYWHERE),
            ("project.workspace.host.command.run", NOT_PRODUCTION),
            ("project.workspace.host.file", NOT_PRODUCTION),
            ("project.workspace.host.power.read", EVERYWHERE),
            ("project.workspace.host.power.on", EVERYWHERE),
            ("project.workspace.host.power.cancel", EVERYWHERE),
            ("project.workspace.host.power.off", NOT_PRODUCTION),
            ("project.workspace.host.power.reset", NOT_PRODUCTION),
            ("project.workspace.host.shell_session", NOT_PRODUCTION),
        ],
    },
    BuiltInRole {
        name: "enroller",
        description: "mints and rotates agent tokens and nothing else, for provisioning pipelines",
        rules: &[
            ("self.read", EVERYWHERE),
            ("project.workspace.list", EVERYWHERE),
            ("project.workspace.agent_token.create", EVERYWHERE),
            ("project.workspace.agent_token.list", EVERYWHERE),
            ("project.workspace.agent_token.rotate", EVERYWHERE),
        ],
    },
    BuiltInRole {
        name: "auditor",
        description: "reads everything that happened, and the keys to verify it; changes nothing",
        rules: &[
            ("self", EVERYWHERE),
            ("deployment.audit", EVERYWHERE),
            ("deployment.user.list", EVERYWHERE),
            ("deployment.role.list", EVERYWHERE),
            ("deployment.access.list", EVERYWHERE),
            ("project.list", EVERYWHERE),
            ("project.access.list", EVERYWHERE),
            ("project.workspace.list", EVERYWHERE),
            ("project.workspace.access.list", EVERYWHERE),
            ("project.workspace.audit", EVERYWHERE),
            ("project.workspace.agent_token.list", EVERYWHERE),
            ("project.workspace.host.list", EVERYWHERE),
            ("project.workspace.host.power.read", EVERYWHERE),
        ],
    },
    BuiltInRole {
        name: "viewer",
        description: "sees hosts with their metrics, and what changes",
        rules: &[
            ("self", EVERYWHERE),
            ("project.list", EVERYWHERE),
            ("project.workspace.list", EVERYWHERE),
            ("project.workspace.event", EVERYWHERE),
            ("project.workspace.host.list", EVERYWHERE),
            ("project.workspace.host.metrics.read", EVERYWHERE),
            ("project.workspace.host.power.read", EVERYWHERE),
        ],
    },
];

#[cfg(test)]
mod tests;
