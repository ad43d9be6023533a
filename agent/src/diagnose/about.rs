//! What the agent says of itself, asked as any other program would ask it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use model::diagnose::{AgentStatus, AgentView, StateFile};
use model::error_chain;

use super::Inputs;
use super::content::Gathered;
use super::limit::{Found, on_thread, run};
use super::manager::tail_of;
use crate::config::Config;
use crate::local::{Answer, Question, ask};
use crate::state;
use crate::status::Status;

/// For files and the running agent.
const LOOK: Duration = Duration::from_secs(4);
const LOG_LINES: usize = 200;

/// How the agent of this host stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    pub(super) config_path: PathBuf,
    config: Option<Config>,
    status: Option<Status>,
    identity: Option<(String, u64)>,
    files: Vec<StateFile>,
    troubles: Vec<String>,
}

impl Standing {
    pub(super) async fn look(inputs: &Inputs) -> Self {
        let path = inputs.config.clone();
        let (standing, ended) =
            on_thread(LOOK, move |found: &Found<Self>| look(&path, found)).await;
        let mut standing = Self {
            config_path: inputs.config.clone(),
            ..standing
        };
        if !ended {
            let trouble = format!("looking at the agent's files took longer than {LOOK:?}");
            standing.troubles.push(trouble);
        }
        standing
    }

    /// Whether this is the host that is asked.
    pub(super) fn is_meant(&self, host: &str, generation: u64) -> Result<(), &'static str> {
        match &self.identity {
            None => Err("this host cannot tell who it is"),
            Some((mine, _)) if mine != host => Err("another host is meant"),
            Some((_, mine)) if *mine > generation => Err("an older identity of this host is meant"),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn clock_offset_ms(&self) -> Option<i64> {
        let clock = self.status.as_ref()?.clock.as_ref()?;
        Some(clock.skew_ms)
    }
}

fn look(path: &std::path::Path, found: &Found<Standing>) {
    let trouble = |what: String| found.update(|it| it.troubles.push(what));
    let config = match Config::load(path, |name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(error) => return trouble(error_chain(&error)),
    };
    found.update(|it| it.config = Some(config.clone()));
    match state::peek(&config.state_dir) {
        Ok(identity) => found.update(|it| {
            it.identity = identity.map(|it| (it.host.to_string(), it.generation));
        }),
        Err(error) => trouble(error_chain(&error)),
    }
    let entries = std::fs::read_dir(&config.state_dir);
    let mut files: Vec<StateFile> = entries
        .into_iter()
        .flatten()
        .flatten()
        .take(1000)
        .map(|entry| StateFile {
            name: entry.file_name().to_string_lossy().into_owned(),
            bytes: entry.metadata().map_or(0, |it| it.len()),
        })
        .collect();
    files.sort_by(|one, other| one.name.cmp(&other.name));
    found.update(|it| it.files = files);
    match ask(&config.runtime_dirs, Question::Status) {
        Ok(Answer::Status(status)) => found.update(|it| it.status = Some(*status)),
        Ok(_) => trouble("the running agent is of another version".to_owned()),
        Err(error) => trouble(error_chain(&error)),
    }
}

pub(super) async fn agent(standing: &Standing) -> Gathered {
    let view = AgentView {
        version: crate::VERSION.to_owned(),
        status: standing.status.as_ref().map(told),
        config: standing.config.as_ref().map(settings).unwrap_or_default(),
        state_files: standing.files.clone(),
        log: log(standing).await,
        troubles: standing.troubles.clone(),
    };
    let gathered = Gathered::json(view, |it| {
        let more = !it.log.is_empty();
        it.log.clear();
        more
    });
    match standing.troubles.first() {
        Some(trouble) => gathered.missing(trouble),
        None => gathered,
    }
}

fn told(status: &Status) -> AgentStatus {
    AgentStatus {
        state: status.state.clone(),
        summary: status.summary.clone(),
        pid: status.pid,
        started_at: status.started_at.to_string(),
        gateway: status.gateway.clone(),
        link: status.link.as_ref().map_or_else(String::new, |link| {
            format!("{} {}, round trip {} ms", link.rung, link.via, link.rtt_ms)
        }),
        troubles: status
            .troubles
            .iter()
            .map(|it| format!("{}: {} ({})", it.rung, it.what, it.at))
            .collect(),
        warnings: status.warnings.clone(),
    }
}

/// The configuration as it is understood. Of a proxy the place only: who it lets through
/// may stand in its address.
fn settings(config: &Config) -> BTreeMap<String, String> {
    let place = |path: &Option<PathBuf>| path.as_ref().map(|it| it.display().to_string());
    let proxy = config.proxy.for_target(&config.gateway);
    let all = [
        ("gateway", Some(config.gateway.to_string())),
        ("link", Some(config.link.to_string())),
        ("state_dir", Some(config.state_dir.display().to_string())),
        ("token_file", place(&config.token_file)),
        ("ca_file", place(&config.ca_file)),
        ("channel", Some(config.channel.to_string())),
        ("verbose", Some(config.verbose.to_string())),
        ("proxy", proxy.map(|it| it.target().to_string())),
        ("log_file", place(&config.log_file)),
    ];
    all.into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

async fn log(standing: &Standing) -> Vec<String> {
    let file = standing.config.as_ref().and_then(|it| it.log_file.clone());
    let read = match file {
        Some(path) => {
            let (read, _) = on_thread(LOOK, move |found: &Found<Vec<u8>>| {
                let tail = tail_of(&path);
                found.update(|it| *it = tail);
            })
            .await;
            read
        }
        None => {
            let lines = format!("--lines={}", LOG_LINES + super::content::BEFORE);
            let pid = standing.status.as_ref().map_or(0, |it| it.pid);
            // By unit where it is one, else by process.
            let unit = "_SYSTEMD_UNIT=loopback-agent.service";
            let process = format!("_PID={pid}");
            let args = [
                "--no-pager",
                "--quiet",
                "--output=short-iso",
                &lines,
                unit,
                "+",
                &process,
            ];
            run("journalctl", &args, 2 << 20, LOOK).await.output
        }
    };
    let lines = Gathered::latest(&read, LOG_LINES);
    String::from_utf8_lossy(&lines.bytes)
        .lines()
        .map(ToOwned::to_owned)
        .collect()
}
