//! Everything mirrored in memory: what requests and links are answered from.
//!
//! Rebuilt from the store's list and kept current by its watch. Readers take
//! the lock for the time of a few lookups and clone `Arc`s out; nobody holds it
//! across an await. Writers never write here: they commit, and wait until the
//! mirror has seen the commit.
//!
//! Every change of what decides about access bumps [`Catalog::access_epoch`],
//! which open streams watch, so that a revoked key or role ends them at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use gateway_store::{Change, Index, Item, Key, Prefix, Record, Rev};
use model::access::{Authority, BUILT_IN_ROLES, Holding, Rule};
use model::host::Membership;
use model::ids::{
    AgentTokenId, ApiKeyId, ApprovalId, CommandId, HostId, ProjectId, RoleBindingId, RoleId,
    UserId, WorkspaceId,
};
use model::names::Name;
use model::tenancy::Scope;
use tokio::sync::watch;

use super::authorities::Authorities;
use super::command_records::CommandRecordV1;
use super::facts::{KeptFacts, keep_facts};
use super::plugin_records::{PluginRecordV1, SecretRecordV1};
use super::records::*;
use crate::policy::records::ApprovalRecordV1;
use crate::power::records::{
    PowerBulkRecordV1, PowerOperationRecordV1, PowerSeenRecordV1, PowerTargetRecordV1,
};
use crate::power::tables::PowerTables;
use crate::signal::queue::Queue;
use crate::signal::records::{SignalRecordV1, SignalSinkRecordV1};

/// A mirrored record and its revision.
#[derive(Clone, Debug)]
pub struct Kept<R> {
    /// The record.
    pub record: Arc<R>,
    /// When it was written.
    pub rev: Rev,
}

impl<R> std::ops::Deref for Kept<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.record
    }
}

/// All tables.
#[derive(Debug, Default)]
pub struct Tables {
    /// Projects.
    pub projects: BTreeMap<ProjectId, Kept<ProjectRecordV1>>,
    /// Workspaces.
    pub workspaces: BTreeMap<WorkspaceId, Kept<WorkspaceRecordV1>>,
    /// Users.
    pub users: BTreeMap<UserId, Kept<UserRecordV1>>,
    /// API keys.
    pub api_keys: BTreeMap<ApiKeyId, Kept<ApiKeyRecordV1>>,
    /// Roles that somebody made.
    pub roles: BTreeMap<RoleId, Kept<RoleRecordV1>>,
    /// Role bindings.
    pub bindings: BTreeMap<RoleBindingId, Kept<BindingRecordV1>>,
    /// Agent tokens.
    pub tokens: BTreeMap<AgentTokenId, Kept<TokenRecordV1>>,
    /// Hosts.
    pub hosts: HashMap<HostId, Kept<HostRecordV1>>,
    /// What was observed of hosts.
    pub seen: HashMap<HostId, Kept<HostSeenRecordV1>>,
    /// What hosts say of themselves.
    pub facts: HashMap<HostId, KeptFacts>,
    /// Commands.
    pub commands: BTreeMap<CommandId, Kept<CommandRecordV1>>,
    /// What waits for approval, or did.
    pub approvals: BTreeMap<ApprovalId, Kept<ApprovalRecordV1>>,
    /// Events that wait for notifiers.
    pub signals: Queue,
    /// How far notifiers are, by their names.
    pub sinks: BTreeMap<Name, Kept<SignalSinkRecordV1>>,
    /// Plugins.
    pub plugins: BTreeMap<Name, Kept<PluginRecordV1>>,
    /// Secrets, without their values.
    pub secrets: BTreeMap<SecretAt, Kept<SecretRecordV1>>,
    /// Power.
    pub power: PowerTables,
    /// Whether the first run is over.
    pub claimed: bool,

    // Derived.
    hosts_of: HashMap<WorkspaceId, BTreeSet<HostId>>,
    tokens_of: HashMap<WorkspaceId, BTreeSet<AgentTokenId>>,
    commands_of: HashMap<WorkspaceId, BTreeSet<CommandId>>,
    open_commands: BTreeSet<CommandId>,
    bindings_of: HashMap<UserId, BTreeSet<RoleBindingId>>,
    keys_of: HashMap<UserId, BTreeSet<ApiKeyId>>,
    host_by_key: HashMap<[u8; 32], HostId>,
    authorities: Authorities,
}

impl Tables {
    /// The hosts of a workspace, by id and so by age.
    pub fn hosts_of(&self, workspace: WorkspaceId) -> impl DoubleEndedIterator<Item = HostId> {
        self.hosts_after(workspace, None)
    }

    /// Those of them that come after one, which need not exist. Costs nothing for what
    /// comes before.
    pub fn hosts_after(
        &self,
        workspace: WorkspaceId,
        after: Option<HostId>,
    ) -> impl DoubleEndedIterator<Item = HostId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let hosts = self.hosts_of.get(&workspace).into_iter();
        hosts.flat_map(move |hosts| hosts.range((from, Bound::Unbounded)).copied())
    }

    /// The agent tokens of a workspace.
    pub fn tokens_of(
        &self,
        workspace: WorkspaceId,
    ) -> impl DoubleEndedIterator<Item = AgentTokenId> {
        self.tokens_of
            .get(&workspace)
            .into_iter()
            .flatten()
            .copied()
    }

    /// The commands of a workspace that are older than one, newest first.
    pub fn commands_before(
        &self,
        workspace: WorkspaceId,
        before: Option<CommandId>,
    ) -> impl Iterator<Item = &Kept<CommandRecordV1>> {
        let to = before.map_or(Bound::Unbounded, Bound::Excluded);
        let commands = self.commands_of.get(&workspace).into_iter();
        commands
            .flat_map(move |commands| commands.range((Bound::Unbounded, to)).rev())
            .filter_map(|id| self.commands.get(id))
    }

    /// Commands that are not finished.
    pub fn open_commands(&self) -> impl Iterator<Item = &Kept<CommandRecordV1>> {
        let open = self.open_commands.iter();
        open.filter_map(|id| self.commands.get(id))
    }

    /// A command of a workspace; commands elsewhere look absent.
    pub fn command_in(
        &self,
        workspace: WorkspaceId,
        command: CommandId,
    ) -> Option<&Kept<CommandRecordV1>> {
        self.commands
            .get(&command)
            .filter(|record| record.workspace == workspace)
    }

    /// The secrets of a workspace, by name.
    pub fn secrets_of(
        &self,
        workspace: WorkspaceId,
    ) -> impl Iterator<Item = &Kept<SecretRecordV1>> {
        let from = Bound::Included(SecretAt::first_of(workspace));
        let secrets = self.secrets.range((from, Bound::Unbounded));
        let these = secrets.take_while(move |(at, _)| at.workspace == workspace);
        these.map(|(_, kept)| kept)
    }

    /// The API keys of a user.
    pub fn keys_of(&self, user: UserId) -> impl DoubleEndedIterator<Item = ApiKeyId> {
        self.keys_of.get(&user).into_iter().flatten().copied()
    }

    /// The roles a user has.
    pub fn bindings_of(&self, user: UserId) -> impl Iterator<Item = &Kept<BindingRecordV1>> {
        self.bindings_of
            .get(&user)
            .into_iter()
            .flatten()
            .filter_map(|id| self.bindings.get(id))
    }

    /// The host of the fleet whose identity has this key.
    pub fn host_by_key(&self, spki_sha256: &[u8; 32]) -> Option<&Kept<HostRecordV1>> {
        self.hosts.get(self.host_by_key.get(spki_sha256)?)
    }

    /// A host of a workspace; hosts elsewhere look absent.
    pub fn host_in(&self, workspace: WorkspaceId, host: HostId) -> Option<&Kept<HostRecordV1>> {
        self.hosts
            .get(&host)
            .filter(|record| record.workspace == workspace)
    }

    /// The rules of a role, built in or made.
    pub fn rules_of(&self, role: RoleId) -> Option<Vec<Rule>> {
        if let Some(built_in) = built_in_role(role) {
            return Some(built_in.rules());
        }
        self.roles.get(&role).map(|record| record.rules.clone())
    }

    /// Names of the roles that a user has at a scope, those from above included.
    pub fn role_names_at(&self, user: UserId, scope: &Scope) -> Vec<String> {
        let here = self
            .bindings_of(user)
            .filter(|binding| binding.scope.covers(scope));
        let names: BTreeSet<String> = here
            .filter_map(|binding| match built_in_role(binding.role) {
                Some(built_in) => Some(built_in.name.to_owned()),
                None => Some(self.roles.get(&binding.role)?.name.to_string()),
            })
            .collect();
        names.into_iter().collect()
    }

    /// What a user's roles amount to.
    pub fn authority_of(&self, user: UserId) -> Authority {
        let holding = |binding: &Kept<BindingRecordV1>| {
            Some(Holding {
                scope: binding.scope,
                rules: self.rules_of(binding.role)?,
            })
        };
        Authority {
            holdings: self.bindings_of(user).filter_map(holding).collect(),
            limits: None,
        }
    }

    /// What may be done with a key: what its user's roles amount to, within its limits.
    pub fn authority_of_key(&self, key: &ApiKeyRecordV1) -> Arc<Authority> {
        self.authorities.of(key, || self.authority_of(key.user))
    }

    /// The scope of a workspace.
    pub fn scope_of(&self, workspace: WorkspaceId) -> Option<Scope> {
        self.workspaces.get(&workspace).map(|record| record.scope())
    }
}

/// Where a secret lies: the rest of its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretAt {
    /// The workspace that has it.
    pub workspace: WorkspaceId,
    /// Its name there; nothing comes before all names.
    name: String,
}

impl SecretAt {
    /// Of a secret.
    pub fn new(workspace: WorkspaceId, name: &Name) -> Self {
        let name = name.to_string();
        Self { workspace, name }
    }

    fn first_of(workspace: WorkspaceId) -> Self {
        let name = String::new();
        Self { workspace, name }
    }
}

impl std::fmt::Display for SecretAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.workspace, self.name)
    }
}

impl std::str::FromStr for SecretAt {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (workspace, name) = text.split_once('/').ok_or(())?;
        Ok(Self {
            workspace: workspace.parse().map_err(drop)?,
            name: name.to_owned(),
        })
    }
}

/// Built-in roles have fixed ids: their place in the list, born at the epoch.
pub fn built_in_role_id(place: usize) -> RoleId {
    let mut random = [0; 10];
    random[9] = u8::try_from(place).unwrap_or(u8::MAX);
    RoleId::new(model::Timestamp::from_millis(0), random)
}

/// The built-in role with this id.
pub fn built_in_role(id: RoleId) -> Option<&'static model::access::BuiltInRole> {
    BUILT_IN_ROLES
        .iter()
        .enumerate()
        .find(|(place, _)| built_in_role_id(*place) == id)
        .map(|(_, role)| role)
}

/// The tables, shared.
#[derive(Debug)]
pub struct Catalog {
    tables: RwLock<Tables>,
    access_epoch: watch::Sender<u64>,
    changed_hosts: watch::Sender<u64>,
    changed_commands: watch::Sender<u64>,
    changed_signals: watch::Sender<u64>,
    changed_plugins: watch::Sender<u64>,
    changed_power: watch::Sender<u64>,
    host_changes: tokio::sync::broadcast::Sender<HostId>,
}

/// Host changes kept for a slow follower; one that lags is told and reads all.
const HOST_CHANGES_KEPT: usize = 4096;

impl Default for Catalog {
    fn default() -> Self {
        Self {
            tables: RwLock::default(),
            access_epoch: watch::Sender::new(0),
            changed_hosts: watch::Sender::new(0),
            changed_commands: watch::Sender::new(0),
            changed_signals: watch::Sender::new(0),
            changed_plugins: watch::Sender::new(0),
            changed_power: watch::Sender::new(0),
            host_changes: tokio::sync::broadcast::Sender::new(HOST_CHANGES_KEPT),
        }
    }
}

impl Catalog {
    /// For reading. Never hold it across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves whenever access may have changed.
    pub fn access_epoch(&self) -> watch::Receiver<u64> {
        self.access_epoch.subscribe()
    }

    /// Moves whenever something a host reconciler plans from has changed.
    pub fn hosts_epoch(&self) -> watch::Receiver<u64> {
        self.changed_hosts.subscribe()
    }

    /// Moves whenever a command was made, cancelled or finished.
    pub fn commands_epoch(&self) -> watch::Receiver<u64> {
        self.changed_commands.subscribe()
    }

    /// Moves whenever there are more events for notifiers, or a notifier has got some.
    pub fn signals_epoch(&self) -> watch::Receiver<u64> {
        self.changed_signals.subscribe()
    }

    /// Moves whenever a plugin was installed, changed or removed.
    pub fn plugins_epoch(&self) -> watch::Receiver<u64> {
        self.changed_plugins.subscribe()
    }

    /// Moves whenever anything about hosts' power has changed.
    pub fn power_epoch(&self) -> watch::Receiver<u64> {
        self.changed_power.subscribe()
    }

    /// Every host that changes, from now on. Lossy for the slow: read all then.
    pub fn host_changes(&self) -> tokio::sync::broadcast::Receiver<HostId> {
        self.host_changes.subscribe()
    }

    /// Everything that is mirrored.
    pub fn prefixes() -> Vec<Prefix> {
        vec![
            all_of::<ProjectRecordV1>(),
            all_of::<WorkspaceRecordV1>(),
            all_of::<UserRecordV1>(),
            all_of::<ApiKeyRecordV1>(),
            all_of::<RoleRecordV1>(),
            all_of::<BindingRecordV1>(),
            all_of::<TokenRecordV1>(),
            all_of::<HostRecordV1>(),
            all_of::<HostSeenRecordV1>(),
            all_of::<HostFactsRecordV1>(),
            all_of::<CommandRecordV1>(),
            all_of::<ApprovalRecordV1>(),
            all_of::<SignalRecordV1>(),
            all_of::<SignalSinkRecordV1>(),
            all_of::<PluginRecordV1>(),
            all_of::<SecretRecordV1>(),
            all_of::<PowerTargetRecordV1>(),
            all_of::<PowerSeenRecordV1>(),
            all_of::<PowerOperationRecordV1>(),
            all_of::<PowerBulkRecordV1>(),
            all_of::<ClaimedRecordV1>(),
        ]
    }

    fn after(&self, touched: Touched) {
        if touched.access {
            self.access_epoch.send_modify(|epoch| *epoch += 1);
        }
        if !touched.hosts.is_empty() || touched.thresholds {
            self.changed_hosts.send_modify(|epoch| *epoch += 1);
        }
        if touched.commands {
            self.changed_commands.send_modify(|epoch| *epoch += 1);
        }
        if touched.signals {
            self.changed_signals.send_modify(|epoch| *epoch += 1);
        }

        if touched.power {
            self.changed_power.send_modify(|epoch| *epoch += 1);
        }
        if touched.plugins {
            self.changed_plugins.send_modify(|epoch| *epoch += 1);
        }
        for host in touched.hosts {
            // Nobody listening is fine.
            let _ = self.host_changes.send(host);
        }
    }
}

/// What a batch of changes concerned.
#[derive(Default)]
struct Touched {
    access: bool,
    thresholds: bool,
    commands: bool,
    signals: bool,
    plugins: bool,
    power: bool,
    hosts: BTreeSet<HostId>,
}

impl Index for Catalog {
    fn reset(&self, prefix: &Prefix, items: Vec<(Key, Item)>) {
        let mut touched = Touched::default();
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        for key in tables.keys_under(prefix) {
            if items.binary_search_by(|(kept, _)| kept.cmp(&key)).is_err() {
                tables.take_in(&key, None, &mut touched);
            }
        }
        for (key, item) in items {
            tables.take_in(&key, Some(&item), &mut touched);
        }
        drop(tables);
        self.after(touched);
    }

    fn apply(&self, changes: Vec<Change>) {
        let mut touched = Touched::default();
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            match change {
                Change::Put { key, item } => tables.take_in(&key, Some(&item), &mut touched),
                Change::Delete { key, .. } => tables.take_in(&key, None, &mut touched),
            }
        }
        drop(tables);
        self.after(touched);
    }
}

impl Tables {
    /// Puts one item in, or takes it out.
    fn take_in(&mut self, key: &Key, item: Option<&Item>, touched: &mut Touched) {
        let text = String::from_utf8_lossy(key.as_bytes());
        let Some((kind, id)) = text.split_once('/') else {
            return;
        };
        match kind {
            ProjectRecordV1::KIND => {
                keep(&mut self.projects, key, id, item);
                touched.access = true;
            }
            WorkspaceRecordV1::KIND => {
                keep(&mut self.workspaces, key, id, item);
                touched.access = true;
                touched.thresholds = true;
            }
            UserRecordV1::KIND => {
                keep(&mut self.users, key, id, item);
                touched.access = true;
            }
            ApiKeyRecordV1::KIND => {
                let (old, new) = keep(&mut self.api_keys, key, id, item);
                unlink(
                    &mut self.keys_of,
                    old.map(|record| (record.user, record.id)),
                );
                link(
                    &mut self.keys_of,
                    new.map(|record| (record.user, record.id)),
                );
                touched.access = true;
            }
            RoleRecordV1::KIND => {
                keep(&mut self.roles, key, id, item);
                touched.access = true;
            }
            BindingRecordV1::KIND => {
                let (old, new) = keep(&mut self.bindings, key, id, item);
                unlink(
                    &mut self.bindings_of,
                    old.map(|record| (record.user, record.id)),
                );
                link(
                    &mut self.bindings_of,
                    new.map(|record| (record.user, record.id)),
                );
                touched.access = true;
            }
            TokenRecordV1::KIND => {
                let (old, new) = keep(&mut self.tokens, key, id, item);
                unlink(
                    &mut self.tokens_of,
                    old.map(|record| (record.workspace, record.id)),
                );
                link(
                    &mut self.tokens_of,
                    new.map(|record| (record.workspace, record.id)),
                );
            }
            HostRecordV1::KIND => {
                let (old, new) = keep(&mut self.hosts, key, id, item);
                unlink(
                    &mut self.hosts_of,
                    old.as_ref().map(|record| (record.workspace, record.id)),
                );
                link(
                    &mut self.hosts_of,
                    new.as_ref().map(|record| (record.workspace, record.id)),
                );
                // A retired host's key may have joined again as another host, which
                // is the one to find by it.
                if let Some((key, host)) = old.as_deref().and_then(holder_of_key)
                    && self.host_by_key.get(&key) == Some(&host)
                {
                    self.host_by_key.remove(&key);
                }
                if let Some((key, host)) = new.as_deref().and_then(holder_of_key) {
                    self.host_by_key.insert(key, host);
                }
                touched.hosts.extend(new.or(old).map(|record| record.id));
            }
            HostSeenRecordV1::KIND => {
                keep(&mut self.seen, key, id, item);
                touched.hosts.extend(id.parse::<HostId>());
            }
            HostFactsRecordV1::KIND => {
                keep_facts(&mut self.facts, key, id, item);
                touched.hosts.extend(id.parse::<HostId>());
            }
            CommandRecordV1::KIND => {
                let (old, new) = keep(&mut self.commands, key, id, item);
                if let Some(old) = &old {
                    self.open_commands.remove(&old.id);
                }
                if let Some(new) = new.as_ref().filter(|new| new.finished.is_none()) {
                    self.open_commands.insert(new.id);
                }
                unlink(
                    &mut self.commands_of,
                    old.map(|record| (record.workspace, record.id)),
                );
                link(
                    &mut self.commands_of,
                    new.map(|record| (record.workspace, record.id)),
                );
                touched.commands = true;
            }
            ApprovalRecordV1::KIND => {
                keep(&mut self.approvals, key, id, item);
            }
            SignalRecordV1::KIND => {
                self.signals.take_in(id, item);
                touched.signals = true;
            }
            SignalSinkRecordV1::KIND => {
                keep(&mut self.sinks, key, id, item);
                touched.signals = true;
            }

            PluginRecordV1::KIND => {
                keep(&mut self.plugins, key, id, item);
                touched.plugins = true;
            }
            SecretRecordV1::KIND => {
                keep(&mut self.secrets, key, id, item);
            }
            ClaimedRecordV1::KIND => self.claimed = item.is_some(),
            _ => touched.power |= self.power.take_in(kind, key, id, item),
        }
        if touched.access {
            self.authorities.forget();
        }
    }

    /// Keys of everything held under a prefix that is a whole kind.
    fn keys_under(&self, prefix: &Prefix) -> Vec<Key> {
        let text = String::from_utf8_lossy(prefix.as_bytes()).into_owned();
        match text.trim_end_matches('/') {
            ProjectRecordV1::KIND => self
                .projects
                .keys()
                .map(key_of::<ProjectRecordV1>)
                .collect(),
            WorkspaceRecordV1::KIND => self
                .workspaces
                .keys()
                .map(key_of::<WorkspaceRecordV1>)
                .collect(),
            UserRecordV1::KIND => self.users.keys().map(key_of::<UserRecordV1>).collect(),
            ApiKeyRecordV1::KIND => self.api_keys.keys().map(key_of::<ApiKeyRecordV1>).collect(),
            RoleRecordV1::KIND => self.roles.keys().map(key_of::<RoleRecordV1>).collect(),
            BindingRecordV1::KIND => self
                .bindings
                .keys()
                .map(key_of::<BindingRecordV1>)
                .collect(),
            TokenRecordV1::KIND => self.tokens.keys().map(key_of::<TokenRecordV1>).collect(),
            HostRecordV1::KIND => self.hosts.keys().map(key_of::<HostRecordV1>).collect(),
            HostSeenRecordV1::KIND => self.seen.keys().map(key_of::<HostSeenRecordV1>).collect(),
            HostFactsRecordV1::KIND => self.facts.keys().map(key_of::<HostFactsRecordV1>).collect(),
            CommandRecordV1::KIND => self
                .commands
                .keys()
                .map(key_of::<CommandRecordV1>)
                .collect(),
            ApprovalRecordV1::KIND => self
                .approvals
                .keys()
                .map(key_of::<ApprovalRecordV1>)
                .collect(),
            SignalRecordV1::KIND => self.signals.keys().collect(),
            SignalSinkRecordV1::KIND => self
                .sinks
                .keys()
                .map(key_of::<SignalSinkRecordV1>)
                .collect(),
            PluginRecordV1::KIND => self
                .plugins
                .keys()
                .filter_map(|name| PluginRecordV1::key_of(name).ok())
                .collect(),
            SecretRecordV1::KIND => self
                .secrets
                .values()
                .filter_map(|kept| SecretRecordV1::key_of(kept.workspace, &kept.name).ok())
                .collect(),
            kind => self.power.keys_of_kind(kind),
        }
    }
}

fn holder_of_key(record: &HostRecordV1) -> Option<([u8; 32], HostId)> {
    let identity = record.identity.as_ref()?;
    let live = record.membership != Membership::Retired;
    live.then_some((identity.spki_sha256, record.id))
}

/// The record before and after.
pub(crate) type Swap<R> = (Option<Arc<R>>, Option<Arc<R>>);

pub(crate) fn keep<I, R, M>(table: &mut M, key: &Key, id: &str, item: Option<&Item>) -> Swap<R>
where
    I: std::str::FromStr,
    R: Record,
    M: Table<I, Kept<R>>,
{
    let Ok(id) = id.parse::<I>() else {
        tracing::error!(key = %key, "a record lies under a key that is not its id; it is ignored");
        return (None, None);
    };
    let Some(item) = item else {
        return (table.take(&id).map(|kept| kept.record), None);
    };
    match R::decode(&item.value) {
        Ok(record) => {
            let record = Arc::new(record);
            let old = table.put(
                id,
                Kept {
                    record: Arc::clone(&record),
                    rev: item.rev,
                },
            );
            (old.map(|kept| kept.record), Some(record))
        }
        // Keeping the old value would be wrong in silence; absence refuses.
        Err(error) => {
            tracing::error!(key = %key, error = %model::error_chain(&error), "a record cannot be read; it is treated as absent");
            (table.take(&id).map(|kept| kept.record), None)
        }
    }
}

fn link<P: std::hash::Hash + Eq, C: Ord>(
    index: &mut HashMap<P, BTreeSet<C>>,
    pair: Option<(P, C)>,
) {
    if let Some((parent, child)) = pair {
        index.entry(parent).or_default().insert(child);
    }
}

fn unlink<P: std::hash::Hash + Eq, C: Ord>(
    index: &mut HashMap<P, BTreeSet<C>>,
    pair: Option<(P, C)>,
) {
    if let Some((parent, child)) = pair
        && let Some(children) = index.get_mut(&parent)
    {
        children.remove(&child);
        if children.is_empty() {
            index.remove(&parent);
        }
    }
}

/// What the two kinds of map have in common.
pub(crate) trait Table<I, V> {
    fn put(&mut self, id: I, value: V) -> Option<V>;
    fn take(&mut self, id: &I) -> Option<V>;
}

impl<I: Ord, V> Table<I, V> for BTreeMap<I, V> {
    fn put(&mut self, id: I, value: V) -> Option<V> {
        self.insert(id, value)
    }

    fn take(&mut self, id: &I) -> Option<V> {
        self.remove(id)
    }
}

impl<I: std::hash::Hash + Eq, V> Table<I, V> for HashMap<I, V> {
    fn put(&mut self, id: I, value: V) -> Option<V> {
        self.insert(id, value)
    }

    fn take(&mut self, id: &I) -> Option<V> {
        self.remove(id)
    }
}
