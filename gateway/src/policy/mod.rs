//! The policy stage: what plugins say about a request that permissions allow.
//!
//! ```text
//! permission ──► policies, all at once ──► permit ───────────────► handler
//!   (auth)           │                ├──► approval_required   an approval waits; the same
//!                    │                │                        request passes once it is approved
//!                    │                └──► policy_denied, policy_unavailable
//!                    └── glass broken: each is asked, none is obeyed, all is written down first
//! ```
//!
//! Every operation that changes something in a workspace passes here ([`is_judged`]); reading does
//! not, and neither does what concerns the deployment: whoever may install and disable plugins must
//! be able to when a policy has locked everybody out. It fails closed: a policy that is enabled and
//! does not answer is a no. Breaking the glass is native, so that no plugin can prevent it: a
//! header with a reason, a permission of its own, and an audit entry before anything is done.

pub mod records;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{Access, Endpoint, Method, ProblemCode};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures_util::future::join_all;
use gateway_core::approval::State;
use gateway_core::policy::{Answer, Decision, Verdict, combine};
use gateway_store::{Batch, Condition};
use model::Timestamp;
use model::ids::{ApprovalId, HostId, UserId, WorkspaceId};
use model::names::Name;
use model::permission::Permission;
use model::tenancy::{Environment, Scope};
use sha2::{Digest as _, Sha256};

use self::records::ApprovalRecordV1;
use crate::app::App;
use crate::auth::Proof;
use crate::error::{Error, Result};
use crate::http::call::Meta;
use crate::state::change::Origin;
use crate::state::edit::edit;
use crate::state::records::key_of;

/// The request header that breaks the glass; its value is the reason.
pub const BREAK_GLASS: &str = "x-loopback-break-glass";

/// A policy is given up after this: above the limit of its own calls.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long an approval is good for.
const APPROVAL_VALID: Duration = Duration::from_secs(3600);
/// Targets that a policy is shown, as the contract says.
const SHOWN: usize = 100;
/// Targets that an approval names.
const NAMED: usize = 16;

/// Operations that judge in their handlers, because only those know the targets.
const IN_HANDLER: [&str; 5] = [
    "create_command",
    "retry_command",
    "bulk_power_on",
    "bulk_power_off",
    "bulk_power_reset",
];

/// A policy plugin that is enabled, whether it works or not.
#[async_trait]
pub trait Policy: Send + Sync {
    /// Whether it judges requests in this workspace.
    fn covers(&self, workspace: WorkspaceId) -> bool;

    /// What it says.
    async fn decide(&self, request: Arc<Request>) -> Answer;
}

/// The policies that are enabled, by name. Empty until somebody enables one.
#[derive(Default)]
pub struct Policies(ArcSwap<BTreeMap<Name, Arc<dyn Policy>>>);

impl Policies {
    /// Replaces all.
    pub fn set(&self, policies: BTreeMap<Name, Arc<dyn Policy>>) {
        self.0.store(Arc::new(policies));
    }

    fn of(&self, workspace: WorkspaceId) -> Vec<(Name, Arc<dyn Policy>)> {
        let all = self.0.load();
        let covering = all.iter().filter(|(_, policy)| policy.covers(workspace));
        covering
            .map(|(name, policy)| (name.clone(), Arc::clone(policy)))
            .collect()
    }
}

/// What a policy is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// The permission.
    pub action: Permission,
    /// Who asks.
    pub subject: Subject,
    /// On what, at most a hundred.
    pub targets: Vec<Target>,
    /// On how many.
    pub target_count: u64,
    /// Under which ticket.
    pub ticket: Option<String>,
    /// When.
    pub now: Timestamp,
    /// Who has approved this very request.
    pub approvals: Vec<Subject>,
    /// Whether the answer will be obeyed.
    pub break_glass: bool,
    /// Where.
    pub workspace: WorkspaceId,
}

/// A person.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Their id.
    pub id: UserId,
    /// Their name.
    pub name: String,
    /// Names of their roles at this place.
    pub roles: Vec<String>,
}

/// A thing.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host` or `workspace`.
    pub kind: &'static str,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The workspace's name.
    pub workspace: String,
    /// The workspace's environment.
    pub environment: Environment,
    /// A host's labels.
    pub labels: Vec<(String, String)>,
}

/// Says that policies were asked and do not object. Made here; what must not be done without one
/// asks for it.
#[derive(Clone, Copy, Debug)]
#[must_use = "what is permitted until a time must end then"]
pub struct Permit {
    until: Option<Timestamp>,
}

impl Permit {
    /// Where no policy has a say.
    const FREE: Self = Self { until: None };

    /// For an answer that is given a second time: nothing is done for it.
    pub(crate) const fn replayed() -> Self {
        Self::FREE
    }

    /// What goes on for longer ends then.
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }
}

/// Whether policies have a say in an operation.
pub fn is_judged<E: Endpoint>() -> bool {
    let Access::Needs(permission) = E::ACCESS else {
        return false;
    };
    E::METHOD != Method::Get
        && permission.as_str().starts_with("project.workspace.")
        // Some questions need a body, or are too much to be asked by following a link.
        && !permission.as_str().ends_with(".read")
        // Who decides about approvals must not need one.
        && permission != Permission::WorkspaceApprovalDecide
}

/// Judges an operation whose targets stand in its path; nothing is said here about those that
/// judge in their handlers.
pub async fn before_handler<E: Endpoint>(
    app: &App,
    proof: &Proof<E>,
    meta: &Meta,
    host: Option<HostId>,
    body: &[u8],
    uri: &str,
) -> Result<Permit> {
    if !is_judged::<E>() || IN_HANDLER.contains(&E::ID) {
        return Ok(Permit::FREE);
    }
    let fingerprint = fingerprint(proof, &[uri.as_bytes(), body]);
    judge(app, proof, meta, host.as_slice(), fingerprint).await
}

/// Judges an operation on hosts that its handler found. `what` is everything else that makes
/// the request this one.
pub async fn on_hosts<E: Endpoint>(
    app: &App,
    proof: &Proof<E>,
    meta: &Meta,
    hosts: &[HostId],
    what: &[u8],
) -> Result<Permit> {
    let digest = crate::command::check::digest_of(hosts);
    let fingerprint = fingerprint(proof, &[digest.as_bytes(), what]);
    judge(app, proof, meta, hosts, fingerprint).await
}

/// Who asks for what: the same for the same request by the same person.
fn fingerprint<E: Endpoint>(proof: &Proof<E>, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let user = proof.caller().user.id.to_string();
    for part in [user.as_bytes(), E::ID.as_bytes()].iter().chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

async fn judge<E: Endpoint>(
    app: &App,
    proof: &Proof<E>,
    meta: &Meta,
    hosts: &[HostId],
    fingerprint: [u8; 32],
) -> Result<Permit> {
    let (Scope::Workspace { workspace, .. }, Access::Needs(action)) = (proof.scope(), E::ACCESS)
    else {
        return Ok(Permit::FREE);
    };
    let policies = app.policies.of(workspace);
    if policies.is_empty() && meta.break_glass.is_none() {
        return Ok(Permit::FREE);
    }
    let origin = Origin {
        actor: proof.caller().actor(),
        source: meta.source.map(|address| address.to_string()),
        request: Some(meta.request),
        ticket: meta.ticket.clone(),
    };
    if meta.break_glass.is_some() {
        may_break_glass(app, proof, workspace)?;
    }
    let approval = open_approval(app, workspace, fingerprint, meta.now);
    let request = Arc::new(request(
        app,
        proof,
        meta,
        action,
        workspace,
        hosts,
        approval.as_deref(),
    ));
    let approved = request.approvals.len();
    let answers = ask(policies, &request).await;
    let decision = combine(&answers, approved, meta.now);
    if let Some(reason) = &meta.break_glass {
        let entry = origin
            .entry(meta.now, "policy.break_glass")
            .on(workspace)
            .with("permission", action.as_str())
            .with("reason", reason)
            .with("targets", request.target_count)
            .with("would_have", said(&decision));
        let mut batch = Batch::new();
        entry.in_workspace(workspace, &mut batch);
        app.commit(batch).await?;
        tracing::warn!(user = %request.subject.name, permission = action.as_str(), reason, "the glass was broken: policies are not obeyed");
        return Ok(Permit::FREE);
    }
    match decision {
        Decision::Permit { until } => {
            if let Some(approval) =
                approval.filter(|approval| approval.decided().state(meta.now) == State::Approved)
            {
                spend(app, approval.id, meta.now, &origin).await?;
            }
            Ok(Permit { until })
        }
        Decision::NeedsApproval {
            policy,
            approvers,
            reason,
        } => {
            let record = ApprovalRecordV1 {
                id: app.new_id(ApprovalId::new),
                workspace,
                request: fingerprint,
                action: action.as_str().to_owned(),
                targets: request
                    .targets
                    .iter()
                    .take(NAMED)
                    .map(|it| it.name.clone())
                    .collect(),
                target_count: request.target_count,
                requested_by: request.subject.id,
                requester: request.subject.name.clone(),
                ticket: meta.ticket.clone(),
                policy: policy.to_string(),
                reason: model::names::clean(&reason.message, 512),
                approvers,
                approved_by: Vec::new(),
                refused_by: None,
                created_at: meta.now,
                expires_at: meta.now.saturating_add(APPROVAL_VALID),
                used_at: None,
            };
            let id = match approval {
                Some(approval) => approval.id,
                None => ask_for(app, record, &origin).await?,
            };
            let detail = format!(
                "{} ({policy} wants {approvers} to approve). {id} waits for approval: repeat the same request \
                 once others have approved it",
                model::names::clean(&reason.message, 256)
            );
            Err(Error {
                approval: Some(id),
                ..Error::new(ProblemCode::ApprovalRequired, detail)
            })
        }
        Decision::Deny { policy, reason } => {
            let message = model::names::clean(&reason.message, 512);
            let code = model::names::clean(&reason.code, 64);
            let entry = origin
                .entry(meta.now, "policy.deny")
                .on(workspace)
                .with("permission", action.as_str())
                .with("policy", &policy)
                .with("code", &code)
                .refused(&message);
            crate::refusals::write(app, proof.scope(), entry).await;
            let detail = format!("{message} (policy {policy}: {code})");
            Err(Error::new(ProblemCode::PolicyDenied, detail))
        }
        Decision::Unavailable { policy, code } => {
            let entry = origin
                .entry(meta.now, "policy.unavailable")
                .on(workspace)
                .with("permission", action.as_str())
                .with("policy", &policy)
                .refused(&code);
            crate::refusals::write(app, proof.scope(), entry).await;
            tracing::warn!(plugin = %policy, code, permission = action.as_str(), "a policy does not answer: what it judges is refused");
            let detail = format!(
                "policy {policy} does not answer ({code}), so this is refused; see `loopback plugin show {policy}`, \
                 or break the glass if you may"
            );
            Err(Error {
                retry_after: Some(Duration::from_secs(5)),
                ..Error::new(ProblemCode::PolicyUnavailable, detail)
            })
        }
    }
}

fn may_break_glass<E: Endpoint>(app: &App, proof: &Proof<E>, workspace: WorkspaceId) -> Result<()> {
    let tables = app.catalog.read();
    let environment = tables.workspaces.get(&workspace).map(|it| it.environment);
    let scope = proof.scope();
    let needed = Permission::WorkspaceBreakGlass;
    if proof.caller().authority.allows(needed, &scope, environment) {
        return Ok(());
    }
    let detail = format!(
        "you lack the permission `{}` in this workspace",
        needed.as_str()
    );
    Err(Error::new(ProblemCode::Forbidden, detail))
}

async fn ask(
    policies: Vec<(Name, Arc<dyn Policy>)>,
    request: &Arc<Request>,
) -> Vec<(Name, Answer)> {
    let asked = policies.into_iter().map(|(name, policy)| async move {
        let answer = tokio::time::timeout(ANSWER_WITHIN, policy.decide(Arc::clone(request))).await;
        (
            name,
            answer.unwrap_or_else(|_| Answer::Failed("timeout".into())),
        )
    });
    join_all(asked).await
}

fn request<E: Endpoint>(
    app: &App,
    proof: &Proof<E>,
    meta: &Meta,
    action: Permission,
    workspace: WorkspaceId,
    hosts: &[HostId],
    approval: Option<&ApprovalRecordV1>,
) -> Request {
    let tables = app.catalog.read();
    let user = &proof.caller().user;
    let scope = proof.scope();
    let subject = |id: UserId, name: &str| Subject {
        id,
        name: name.to_owned(),
        roles: tables.role_names_at(id, &scope),
    };
    let record = tables.workspaces.get(&workspace);
    let workspace_name = record.map_or_else(String::new, |it| it.name.to_string());
    let environment = record.map_or(Environment::Production, |it| it.environment);
    let mut targets: Vec<Target> = hosts
        .iter()
        .filter_map(|id| tables.host_in(workspace, *id))
        .take(SHOWN)
        .map(|host| Target {
            kind: "host",
            id: host.id.to_string(),
            name: crate::view::name_of(host, crate::view::hostname_of(&tables, host)),
            workspace: workspace_name.clone(),
            environment,
            labels: host
                .labels
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
        })
        .collect();
    if hosts.is_empty() {
        targets.push(Target {
            kind: "workspace",
            id: workspace.to_string(),
            name: workspace_name.clone(),
            workspace: workspace_name,
            environment,
            labels: Vec::new(),
        });
    }
    Request {
        action,
        subject: subject(user.id, user.name.as_str()),
        targets,
        target_count: hosts.len().max(1) as u64,
        ticket: meta.ticket.clone(),
        now: meta.now,
        approvals: approval
            .iter()
            .flat_map(|approval| &approval.approved_by)
            .map(|by| subject(by.user, &by.name))
            .collect(),
        break_glass: meta.break_glass.is_some(),
        workspace,
    }
}

/// The approval of this very request that waits or may be used.
fn open_approval(
    app: &App,
    workspace: WorkspaceId,
    fingerprint: [u8; 32],
    now: Timestamp,
) -> Option<Arc<ApprovalRecordV1>> {
    let tables = app.catalog.read();
    let found = tables.approvals.values().rev().find(|approval| {
        approval.workspace == workspace
            && approval.request == fingerprint
            && matches!(
                approval.decided().state(now),
                State::Waiting | State::Approved
            )
    });
    found.map(|approval| Arc::clone(&approval.record))
}

async fn ask_for(app: &App, record: ApprovalRecordV1, origin: &Origin) -> Result<ApprovalId> {
    let mut batch = Batch::new();
    let key = key_of::<ApprovalRecordV1>(record.id);
    batch.require(&key, Condition::Absent);
    batch.put_record(&key, &record)?;
    origin
        .entry(record.created_at, "approval.request")
        .on(record.id)
        .with("permission", &record.action)
        .with("policy", &record.policy)
        .with("targets", record.target_count)
        .in_workspace(record.workspace, &mut batch);
    app.commit(batch).await?;
    Ok(record.id)
}

/// An approval is good for one request.
async fn spend(app: &App, approval: ApprovalId, now: Timestamp, origin: &Origin) -> Result<()> {
    let key = key_of::<ApprovalRecordV1>(approval);
    let spent = edit::<ApprovalRecordV1>(app, &key, |found, batch| {
        let open = |it: &ApprovalRecordV1| it.decided().state(now) == State::Approved;
        let Some(record) = found.filter(open) else {
            return Ok(None);
        };
        origin
            .entry(now, "approval.use")
            .on(record.id)
            .with("permission", &record.action)
            .in_workspace(record.workspace, batch);
        Ok(Some(ApprovalRecordV1 {
            used_at: Some(now),
            ..record
        }))
    });
    match spent.await? {
        Some(_) => Ok(()),
        None => Err(Error::conflict(
            "the approval was used at the same moment: ask for another",
        )),
    }
}

fn said(decision: &Decision) -> String {
    match decision {
        Decision::Permit { .. } => "permitted".into(),
        Decision::NeedsApproval { policy, .. } => format!("needed approval: {policy}"),
        Decision::Deny { policy, reason } => format!("denied: {policy} {}", reason.code),
        Decision::Unavailable { policy, code } => format!("refused: {policy} {code}"),
    }
}

/// What a plugin's verdict is called in logs.
pub fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Abstain => "abstain",
        Verdict::PermitUntil(_) => "permit_until",
        Verdict::RequireApproval { .. } => "require_approval",
        Verdict::Deny(_) => "deny",
    }
}
