//! The installer that hosts fetch: written by a plugin where one is enabled, else by the gateway.
//!
//! ```text
//! request ──► input (checked values) ──► kept from before? ──────────────────────────► host
//!                                           │ no
//!              renderers that cover it, the most specific first
//!                 │ twice, same answer, fit for hosts, `sh -n` accepts it ──► kept ──► host
//!                 │ "not mine" (unsupported) ──► the next one
//!                 └ anything else: loudly ──► what was last good for this input,
//!                                             else the gateway's own
//! ```
//!
//! The script runs as root on every new host, and the path is open to everybody. So a plugin is
//! asked once for each different input (and again when plugins change), never for each request;
//! and nothing that it gets wrong reaches a host.

pub mod records;
mod shell;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use gateway_core::installer::check;
use gateway_store::{Batch, Read, fetch};
use model::ids::WorkspaceId;
use model::names::Name;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use self::records::RenderRecordV1;
use crate::app::App;
use crate::state::change::Origin;

/// Different scripts kept in memory: channels, verbosity, workspaces with their own.
const KEPT: usize = 64;
/// A renderer that failed is asked again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What a script is written from: `loopback:install/types.input`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Input {
    /// The gateway as hosts reach it.
    pub base_url: String,
    /// `stable` or `unstable`.
    pub channel: String,
    /// Whether agents log more.
    pub verbose: bool,
    /// Whether this is production.
    pub production: bool,
    /// The workspace's id and name, if it is the script of one.
    pub workspace: Option<(WorkspaceId, String)>,
    /// The release's version.
    pub version: String,
    /// Its programs.
    pub binaries: Vec<Binary>,
    /// Authorities of the link.
    pub ca_pem: String,
    /// The HTTPS key.
    pub https_pin: Option<String>,
    /// Keys that sign releases.
    pub release_keys: Vec<String>,
    /// Where releases lie.
    pub releases_path: String,
    /// Where this script lies.
    pub script_path: String,
}

/// A program of the release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Binary {
    /// As `uname -m` says it.
    pub arch: String,
    /// The file's name.
    pub name: String,
    /// Lower-case hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// Why a renderer gave no script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoScript {
    /// It leaves this one to others.
    NotMine,
    /// It failed: a stable word, and more for people.
    Failed {
        /// The word.
        code: String,
        /// More.
        detail: String,
    },
}

/// An installer plugin that is enabled.
#[async_trait]
pub trait Renderer: Send + Sync {
    /// How closely it is meant for this workspace: the higher the closer; nothing if not at all.
    fn covers(&self, workspace: Option<WorkspaceId>) -> Option<Closeness>;

    /// Writes the script.
    async fn render(&self, input: &Input) -> Result<String, NoScript>;
}

/// How closely a renderer is meant for a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closeness {
    /// It is for all.
    Everywhere,
    /// It names the workspace.
    Named,
}

/// The renderers that are enabled, by name.
pub type Renderers = BTreeMap<Name, Arc<dyn Renderer>>;

/// Renderers, and what they wrote.
#[derive(Default)]
pub struct Installers {
    renderers: ArcSwap<Renderers>,
    kept: Mutex<HashMap<[u8; 32], Arc<OnceCell<String>>>>,
}

impl Installers {
    /// Replaces all renderers. What they wrote is forgotten.
    pub fn set(&self, renderers: Renderers) {
        self.renderers.store(Arc::new(renderers));
        self.forget();
    }

    /// Whether a renderer is meant for this very workspace.
    pub fn is_special(&self, workspace: WorkspaceId) -> bool {
        let renderers = self.renderers.load();
        let mut all = renderers.values();
        all.any(|renderer| renderer.covers(Some(workspace)) == Some(Closeness::Named))
    }

    /// Forgets what renderers wrote: one of them is another now.
    pub fn forget(&self) {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn cell(&self, key: [u8; 32]) -> Arc<OnceCell<String>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT && !kept.contains_key(&key) {
            kept.clear();
        }
        Arc::clone(kept.entry(key).or_default())
    }

    fn of(&self, workspace: Option<WorkspaceId>) -> Vec<(Name, Arc<dyn Renderer>)> {
        let renderers = self.renderers.load();
        let mut found: Vec<_> = renderers
            .iter()
            .filter_map(|(name, renderer)| {
                let close = renderer.covers(workspace)?;
                Some((close, name.clone(), Arc::clone(renderer)))
            })
            .collect();
        found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        found.into_iter().map(|(_, name, it)| (name, it)).collect()
    }
}

/// The script for hosts. `own` is the gateway's.
pub async fn script(
    app: &Arc<App>,
    input: Input,
    own: impl FnOnce() -> crate::error::Result<String>,
) -> crate::error::Result<String> {
    let renderers = app
        .installers
        .of(input.workspace.as_ref().map(|(id, _)| *id));
    if renderers.is_empty() {
        return own();
    }
    let digest = digest_of(&input);
    let cell = app.installers.cell(digest);
    // One asks the plugins, the others wait for its answer.
    let script = cell
        .get_or_try_init(|| async {
            match ask(app, &renderers, &input).await {
                Asked::Wrote(plugin, script) => {
                    keep(app, &plugin, digest, &script).await;
                    Ok(script)
                }
                Asked::Nobody => own(),
                Asked::Failed(plugin) => {
                    // Asked again after a while, and not by each request meanwhile.
                    forget_later(app, digest);
                    match last_good(app, digest).await {
                        Some(script) => {
                            tracing::error!(plugin = %plugin, "hosts get the last good script of an installer plugin that fails");
                            Ok(script)
                        }
                        None => {
                            tracing::error!(plugin = %plugin, "hosts get the gateway's own script, because an installer plugin fails");
                            own()
                        }
                    }
                }
            }
        })
        .await?;
    Ok(script.clone())
}

enum Asked {
    Wrote(Name, String),
    Nobody,
    Failed(Name),
}

async fn ask(app: &Arc<App>, renderers: &[(Name, Arc<dyn Renderer>)], input: &Input) -> Asked {
    for (name, renderer) in renderers {
        let (code, detail) = match render_twice(&**renderer, input).await {
            Ok(script) => return Asked::Wrote(name.clone(), script),
            Err(NoScript::NotMine) => continue,
            Err(NoScript::Failed { code, detail }) => (code, detail),
        };
        tracing::error!(plugin = %name, code, detail, "an installer plugin gave no script fit for hosts");
        let mut batch = Batch::new();
        let mut entry = Origin::gateway()
            .entry(app.now(), "plugin.render_failed")
            .on(name)
            .with("code", code)
            .with("channel", &input.channel);
        if let Some((workspace, _)) = &input.workspace {
            entry = entry.with("workspace", workspace);
        }
        entry.noticed().in_deployment(&mut batch);
        if let Err(error) = app.commit(batch).await {
            tracing::warn!(error = %error, "a failed installer plugin could not be written to the audit trail");
        }
        return Asked::Failed(name.clone());
    }
    Asked::Nobody
}

/// Asks twice and checks everything.
async fn render_twice(renderer: &dyn Renderer, input: &Input) -> Result<String, NoScript> {
    let failed = |code: &str, detail: String| NoScript::Failed {
        code: code.to_owned(),
        detail,
    };
    let script = renderer.render(input).await?;
    if renderer.render(input).await? != script {
        let detail = "two answers to the same question differ".to_owned();
        return Err(failed("script.not_pure", detail));
    }
    check(&script, &input.base_url, &input.version, &input.channel)
        .map_err(|bad| failed(bad.code(), bad.to_string()))?;
    shell::accepts(&script)
        .await
        .map_err(|detail| failed("script.syntax", detail))?;
    Ok(script)
}

async fn keep(app: &App, plugin: &Name, digest: [u8; 32], script: &str) {
    let record = RenderRecordV1 {
        plugin: plugin.clone(),
        script: script.to_owned(),
        at: app.now(),
    };
    let written = async {
        let mut batch = Batch::new();
        batch.put_record(&RenderRecordV1::key(&digest)?, &record)?;
        app.commit(batch).await
    };
    if let Err(error) = written.await {
        tracing::warn!(plugin = %plugin, error = %error, "an installer script could not be kept for worse times");
    }
}

async fn last_good(app: &App, digest: [u8; 32]) -> Option<String> {
    let key = RenderRecordV1::key(&digest).ok()?;
    let found = fetch::<RenderRecordV1>(&*app.store, &key, Read::Linearizable);
    Some(found.await.ok()??.record.script)
}

fn forget_later(app: &Arc<App>, digest: [u8; 32]) {
    let task = Arc::clone(app);
    app.tasks.spawn("installer.again", async move {
        tokio::select! {
            () = task.tasks.stop().cancelled() => {}
            () = tokio::time::sleep(AGAIN_AFTER) => {
                let mut kept = task.installers.kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.remove(&digest);
            }
        }
    });
}

fn digest_of(input: &Input) -> [u8; 32] {
    let text = serde_json::to_vec(input).expect("plain text, numbers and lists");
    Sha256::digest(text).into()
}
