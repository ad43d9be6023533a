//! Every permission there is, listed once.
//!
//! A permission is a dotted name; what lies left of the last dot is what it is
//! about, what lies right of it is what may be done. A grant names a permission
//! or a prefix of one (`project.workspace.host` covers everything on hosts, also
//! what later versions add there).

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

macro_rules! permissions {
    ($($(#[$doc:meta])* $variant:ident $name:literal,)*) => {
        /// One permission.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Permission {
            $($(#[$doc])* $variant,)*
        }

        impl Permission {
            /// All permissions, in the order of this file.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The dotted name.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

permissions! {
    /// See who one is and what one may do.
    SelfRead "self.read",
    /// Make an API key for oneself.
    SelfApiKeyCreate "self.api_key.create",
    /// See one's own API keys.
    SelfApiKeyList "self.api_key.list",
    /// Revoke one's own API keys.
    SelfApiKeyDelete "self.api_key.delete",

    /// Read metrics of the gateway.
    DeploymentMetricsRead "deployment.metrics.read",
    /// Make users and service accounts.
    DeploymentUserCreate "deployment.user.create",
    /// See users and service accounts.
    DeploymentUserList "deployment.user.list",
    /// Change or disable users and service accounts.
    DeploymentUserUpdate "deployment.user.update",
    /// Delete users and service accounts.
    DeploymentUserDelete "deployment.user.delete",
    /// Make API keys for service accounts.
    DeploymentUserApiKeyCreate "deployment.user.api_key.create",
    /// See others' API keys (never their secrets).
    DeploymentUserApiKeyList "deployment.user.api_key.list",
    /// Revoke others' API keys.
    DeploymentUserApiKeyDelete "deployment.user.api_key.delete",
    /// Make roles.
    DeploymentRoleCreate "deployment.role.create",
    /// See roles.
    DeploymentRoleList "deployment.role.list",
    /// Change roles.
    DeploymentRoleUpdate "deployment.role.update",
    /// Delete roles.
    DeploymentRoleDelete "deployment.role.delete",
    /// Give roles for the whole deployment.
    DeploymentAccessCreate "deployment.access.create",
    /// See who has roles for the whole deployment.
    DeploymentAccessList "deployment.access.list",
    /// Take roles for the whole deployment away.
    DeploymentAccessDelete "deployment.access.delete",
    /// See the certificate authorities.
    DeploymentCertificateAuthorityRead "deployment.certificate_authority.read",
    /// Rotate the certificate authority.
    DeploymentCertificateAuthorityRotate "deployment.certificate_authority.rotate",
    /// Read the audit trail of the deployment.
    DeploymentAuditRead "deployment.audit.read",
    /// Export the audit trail of the deployment.
    DeploymentAuditExport "deployment.audit.export",
    /// Read the key that verifies an export of the deployment's trail.
    DeploymentAuditKeyRead "deployment.audit.key.read",
    /// Put plugins into the deployment. They can do nothing until they are granted something.
    DeploymentPluginInstall "deployment.plugin.install",
    /// See plugins: what they need, what they were given, how they are.
    DeploymentPluginList "deployment.plugin.list",
    /// Replace plugins by other versions, approve what these need more, and go back.
    DeploymentPluginUpgrade "deployment.plugin.upgrade",
    /// Say what plugins may do: for which workspaces, with which servers and secrets.
    DeploymentPluginGrant "deployment.plugin.grant",
    /// Configure plugins.
    DeploymentPluginConfigure "deployment.plugin.configure",
    /// Enable and disable plugins.
    DeploymentPluginEnable "deployment.plugin.enable",
    /// Have plugins look whether they work.
    DeploymentPluginCheck "deployment.plugin.check",
    /// Remove plugins.
    DeploymentPluginRemove "deployment.plugin.remove",
    /// Read what plugins log.
    DeploymentPluginLogRead "deployment.plugin.log.read",
    /// See events that were given up for notifiers.
    DeploymentPluginDeadLetterList "deployment.plugin.dead_letter.list",
    /// Have events that were given up delivered again.
    DeploymentPluginDeadLetterRedeliver "deployment.plugin.dead_letter.redeliver",
    /// Throw events away that were given up.
    DeploymentPluginDeadLetterDiscard "deployment.plugin.dead_letter.discard",

    /// Make projects.
    ProjectCreate "project.create",
    /// See projects.
    ProjectList "project.list",
    /// Change projects.
    ProjectUpdate "project.update",
    /// Delete empty projects.
    ProjectDelete "project.delete",
    /// Give roles in a project.
    ProjectAccessCreate "project.access.create",
    /// See who has roles in a project.
    ProjectAccessList "project.access.list",
    /// Take roles in a project away.
    ProjectAccessDelete "project.access.delete",

    /// Make workspaces.
    WorkspaceCreate "project.workspace.create",
    /// See workspaces.
    WorkspaceList "project.workspace.list",
    /// Change workspaces, their thresholds included.
    WorkspaceUpdate "project.workspace.update",
    /// Delete empty workspaces.
    WorkspaceDelete "project.workspace.delete",
    /// Give roles in a workspace.
    WorkspaceAccessCreate "project.workspace.access.create",
    /// See who has roles in a workspace.
    WorkspaceAccessList "project.workspace.access.list",
    /// Take roles in a workspace away.
    WorkspaceAccessDelete "project.workspace.access.delete",
    /// Follow what changes in a workspace.
    WorkspaceEventRead "project.workspace.event.read",
    /// Read the audit trail of a workspace.
    WorkspaceAuditRead "project.workspace.audit.read",
    /// Export the audit trail of a workspace.
    WorkspaceAuditExport "project.workspace.audit.export",
    /// See what waits for approval in a workspace.
    WorkspaceApprovalList "project.workspace.approval.list",
    /// Approve or refuse what others ask for in a workspace.
    WorkspaceApprovalDecide "project.workspace.approval.decide",
    /// Do what policies forbid, in an emergency, with a reason that everybody sees.
    WorkspaceBreakGlass "project.workspace.break_glass",
    /// Read the key that verifies an export of a workspace's trail.
    WorkspaceAuditKeyRead "project.workspace.audit.key.read",

    /// Set secrets that plugins use, and have plugins use them.
    WorkspaceSecretWrite "project.workspace.secret.write",
    /// See which secrets there are. Nobody can read one.
    WorkspaceSecretList "project.workspace.secret.list",
    /// Delete secrets that no plugin uses.
    WorkspaceSecretDelete "project.workspace.secret.delete",

    /// Make agent tokens: a path for machines into the workspace.
    AgentTokenCreate "project.workspace.agent_token.create",
    /// See agent tokens (never their secrets).
    AgentTokenList "project.workspace.agent_token.list",
    /// Revoke agent tokens.
    AgentTokenDelete "project.workspace.agent_token.delete",
    /// Replace an agent token by a new one, both valid for a while.
    AgentTokenRotate "project.workspace.agent_token.rotate",

    /// Put hosts into the inventory.
    HostCreate "project.workspace.host.create",
    /// See hosts and their history.
    HostList "project.workspace.host.list",
    /// Rename and label hosts.
    HostUpdate "project.workspace.host.update",
    /// Put hosts into maintenance and take them out.
    HostMaintenance "project.workspace.host.maintenance",
    /// Decide about suspected clones.
    HostRepair "project.workspace.host.repair",
    /// Retire hosts.
    HostRetire "project.workspace.host.retire",
    /// Look into hosts: processes, sockets, units, journals, secrets removed.
    HostDiagnose "project.workspace.host.diagnose",
    /// Run commands on hosts: root for many purposes.
    HostCommandRun "project.workspace.host.command.run",
    /// See commands, their results and their output.
    HostCommandList "project.workspace.host.command.list",
    /// Cancel commands, others' too.
    HostCommandCancel "project.workspace.host.command.cancel",
    /// Read metrics of hosts, taken by their agents or by exporters on them.
    HostMetricsRead "project.workspace.host.metrics.read",
    /// Read files on hosts: every secret of a host, where its owner does not narrow it.
    HostFileRead "project.workspace.host.file.read",
    /// Write files on hosts: root for all purposes, where its owner does not narrow it.
    HostFileWrite "project.workspace.host.file.write",
    /// Open a recorded interactive shell on a host: root for many purposes.
    HostShellSession "project.workspace.host.shell_session",
    /// See hosts' power, and what was done to it.
    HostPowerRead "project.workspace.host.power.read",
    /// Turn hosts on.
    HostPowerOn "project.workspace.host.power.on",
    /// Turn hosts off.
    HostPowerOff "project.workspace.host.power.off",
    /// Restart hosts.
    HostPowerReset "project.workspace.host.power.reset",
    /// Call off what is being done to hosts' power.
    HostPowerCancel "project.workspace.host.power.cancel",
    /// Say by which provider hosts are turned on and off.
    HostPowerConfigure "project.workspace.host.power.configure",
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no such permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no permission `{0}`")]
pub struct NoSuchPermission(String);

impl FromStr for Permission {
    type Err = NoSuchPermission;

    fn from_str(text: &str) -> Result<Self, NoSuchPermission> {
        let found = Self::ALL
            .iter()
            .copied()
            .find(|permission| permission.as_str() == text);
        found.ok_or_else(|| NoSuchPermission(crate::names::clean(text, 128)))
    }
}

impl Serialize for Permission {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Permission {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for Permission {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Permission".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let names: Vec<_> = Self::ALL
            .iter()
            .map(|permission| permission.as_str())
            .collect();
        schemars::json_schema!({ "type": "string", "enum": names })
    }
}

/// A permission name or a dotted prefix of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Pattern(String);

/// The text covers no permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a permission nor a prefix of one; see `loopback role permissions`")]
pub struct BadPattern(String);

impl Pattern {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the grant of this pattern gives `permission`.
    pub fn allows(&self, permission: Permission) -> bool {
        is_prefix(&self.0, permission.as_str())
    }

    /// Whether this pattern gives everything `other` gives, now and when more
    /// permissions are added under either.
    pub fn covers(&self, other: &Self) -> bool {
        is_prefix(&self.0, &other.0)
    }
}

impl From<Permission> for Pattern {
    fn from(permission: Permission) -> Self {
        Self(permission.as_str().to_owned())
    }
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let known = Permission::ALL
            .iter()
            .any(|permission| is_prefix(text, permission.as_str()));
        if known {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadPattern(crate::names::clean(text, 128)))
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    /// Also reads patterns that no permission of this version lies under: a
    /// record written by a newer build must not become unreadable. Such a
    /// pattern allows nothing here. Requests are checked with [`str::parse`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if well_formed(&text) {
            Ok(Self(text))
        } else {
            Err(de::Error::custom(BadPattern(crate::names::clean(
                &text, 128,
            ))))
        }
    }
}

/// The alphabet alone: what any version could have written.
fn well_formed(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text.split('.').all(|word| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        })
}

impl JsonSchema for Pattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PermissionPattern".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[a-z_]+(\\.[a-z_]+)*$",
            "maxLength": 128,
            "description": "a permission or a dotted prefix of one",
        })
    }
}

fn is_prefix(prefix: &str, name: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_what_lies_under_it_at_word_boundaries() {
        let pattern: Pattern = "project.workspace.host".parse().unwrap();
        assert!(pattern.allows(Permission::HostRetire));
        assert!(pattern.allows(Permission::HostShellSession));
        assert!(!pattern.allows(Permission::WorkspaceList));
        assert!("project.workspace.hos".parse::<Pattern>().is_err());
        assert!("".parse::<Pattern>().is_err());
        assert!("project.workspace.host.".parse::<Pattern>().is_err());
    }

    #[test]
    fn names_are_distinct_and_parse_back() {
        for permission in Permission::ALL {
            assert_eq!(
                permission.as_str().parse::<Permission>().unwrap(),
                *permission
            );
        }
    }
}
