//! `loopback audit`.

mod export;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use api::Page;
use api::endpoint::Nothing;
use api::v1::InWorkspace;
use api::v1::audit::{
    AuditFilter, AuditKey, AuditRecord, GetDeploymentAuditKey, GetWorkspaceAuditKey,
    ListDeploymentAudit, ListWorkspaceAudit,
};
use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;
use model::Timestamp;
use model::audit::{Actor, AuditEntry, AuditResult};
use model::audit_chain::Head;
use model::ids::WorkspaceId;

use super::{RecentArg, age_cell, api_word};
use crate::app::{App, WorkspaceArg};
use crate::audit::{KeyFile, VerifyError, head_text, parse_head, verify};
use crate::client::Client;
use crate::connection::read_text;
use crate::contexts::write_private;
use crate::failure::Failure;
use crate::output::{Cell, Format, Table, Tone, note};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List what was done and refused, newest first
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        chain: ChainArg,
        #[command(flatten)]
        recent: RecentArg,
    },
    /// Export the whole trail with its seals, oldest first
    Export {
        #[command(flatten)]
        chain: ChainArg,
        /// File to write [default: standard output]
        #[arg(long, short = 'o', value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Fetch the key that verifies exports; who has it can also forge them
    Key {
        #[command(flatten)]
        chain: ChainArg,
        /// File to write, readable by you alone [default: standard output]
        #[arg(long, short = 'o', value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Check an export without a gateway; exit code 7 when it is not whole and unchanged
    Verify {
        /// The export
        file: PathBuf,
        /// The key, as `audit key` wrote it
        #[arg(long, value_name = "FILE")]
        key_file: PathBuf,
        /// A head noted earlier, which must lie on the chain; repeatable
        #[arg(long, value_parser = parse_head, value_name = "SEQ:MAC")]
        head: Vec<Head>,
    },
}

/// Whose trail.
#[derive(Clone, Debug, Args)]
pub(super) struct ChainArg {
    #[command(flatten)]
    workspace: WorkspaceArg,
    /// The deployment's own trail instead of a workspace's
    #[arg(long, conflicts_with = "workspace")]
    deployment: bool,
}

impl ChainArg {
    /// A client, and the workspace unless the deployment's trail is meant.
    fn resolve(&self, app: &App) -> Result<(Client, Option<WorkspaceId>), Failure> {
        if self.deployment {
            return Ok((app.client()?, None));
        }
        app.in_workspace(&self.workspace)
            .map(|(client, workspace)| (client, Some(workspace)))
    }
}

pub(super) fn run(app: &mut App, command: Command) -> Result<(), Failure> {
    match command {
        Command::List { chain, recent } => list(app, &chain, recent),
        Command::Export { chain, file } => {
            let (client, workspace) = chain.resolve(app)?;
            export::run(app, &client, workspace, file.as_deref())
        }
        Command::Key { chain, file } => key(app, &chain, file.as_deref()),
        Command::Verify {
            file,
            key_file,
            head,
        } => verify_export(app, &file, &key_file, head),
    }
}

fn list(app: &mut App, chain: &ChainArg, recent: RecentArg) -> Result<(), Failure> {
    let (client, workspace) = chain.resolve(app)?;
    let all = AuditFilter::default();
    let page: Page<AuditRecord> = match workspace {
        Some(workspace) => client.list::<ListWorkspaceAudit, _>(
            &InWorkspace { workspace },
            &all,
            recent.at_most(),
        )?,
        None => client.list::<ListDeploymentAudit, _>(&Nothing {}, &all, recent.at_most())?,
    };
    app.out.write(&page, |page, now| table(&page.items, now))?;
    if page.next.is_some() && app.out.format() == Format::Table {
        note("there are older entries: --limit N or --all");
    }
    Ok(())
}

fn key(app: &mut App, chain: &ChainArg, file: Option<&Path>) -> Result<(), Failure> {
    let (client, workspace) = chain.resolve(app)?;
    let key: AuditKey = match workspace {
        Some(workspace) => client.fetch::<GetWorkspaceAuditKey>(&InWorkspace { workspace })?,
        None => client.fetch::<GetDeploymentAuditKey>(&Nothing {})?,
    };
    let Some(path) = file else {
        return app.out.json(&key);
    };
    let mut text = serde_json::to_vec(&key).map_err(Failure::Json)?;
    text.push(b'\n');
    write_private(path, &text).map_err(|source| Failure::File {
        verb: "write",
        path: path.to_owned(),
        source,
    })?;
    note(&format!(
        "key of chain {} written to {}; its head is {}:{}",
        key.chain,
        path.display(),
        key.head_seq,
        key.head_mac
    ));
    Ok(())
}

fn verify_export(
    app: &mut App,
    path: &Path,
    key_file: &Path,
    mut noted: Vec<Head>,
) -> Result<(), Failure> {
    let malformed = |error| Failure::Usage(format!("{}: {error}", key_file.display()));
    let key = KeyFile::parse(&read_text(key_file, "read the key in")?).map_err(malformed)?;
    let file = File::open(path).map_err(|source| Failure::File {
        verb: "open",
        path: path.to_owned(),
        source,
    })?;
    // The key file notes a head too. One that lies past the export's end proves
    // nothing: the export may simply be older.
    let asked = noted.len();
    noted.extend(key.head);
    let read = |noted: &[Head]| {
        use std::io::Seek as _;
        (&file).rewind().map_err(VerifyError::Read)?;
        verify(BufReader::new(&file), &key.key, key.chain.as_deref(), noted)
    };
    let mut result = read(&noted);
    let mut older = None;
    if let (
        Err(VerifyError::CutTail {
            noted: true,
            expected,
            ..
        }),
        Some(head),
    ) = (&result, key.head)
        && *expected == head.seq
        && noted[..asked].iter().all(|asked| asked.seq < head.seq)
    {
        older = Some(head.seq);
        result = read(&noted[..asked]);
    }
    match result {
        Ok(verified) => {
            let answer = serde_json::json!({
                "verified": true,
                "chain": verified.chain,
                "entries": verified.head.seq,
                "head": { "seq": verified.head.seq, "mac": HEXLOWER.encode(&verified.head.mac) },
                "exported_at": verified.exported_at,
            });
            app.out.say(&answer, |_| {
                let head = head_text(&verified.head);
                format!(
                    "verified: all {} entries of chain {}\nhead: {head}",
                    verified.head.seq, verified.chain
                )
            })?;
            if let Some(head) = older {
                note(&format!(
                    "the chain had {head} entries when the key was fetched, this export has {}: it is older, or its end was cut off; --head tells which",
                    verified.head.seq
                ));
            }
            Ok(())
        }
        Err(source) => {
            if app.out.format() == Format::Json && source.is_verdict() {
                app.out.json(&serde_json::json!({
                    "verified": false,
                    "first_bad_entry": source.first_bad_entry(),
                    "why": source.to_string(),
                }))?;
            }
            Err(Failure::Verify {
                path: path.to_owned(),
                source,
            })
        }
    }
}

fn table(records: &[AuditRecord], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "SEQ", "TIME", "AGE", "ACTOR", "ACTION", "TARGET", "RESULT", "SOURCE", "DETAILS",
    ]);
    for record in records {
        let seq = Cell::new(record.seq.to_string());
        match record.entry() {
            Ok(entry) => {
                table.row([
                    seq,
                    entry.at.to_string().into(),
                    age_cell(now, entry.at),
                    actor(&entry.actor).into(),
                    entry.action.as_str().into(),
                    entry.target.as_deref().unwrap_or_default().into(),
                    Cell::new(api_word(&entry.result)).tone(tone(entry.result)),
                    entry.source.as_deref().unwrap_or_default().into(),
                    details(&entry).into(),
                ]);
            }
            // Of a newer gateway, say; it is still there to be seen.
            Err(_) => table.row([seq, record.body.as_str().into()]),
        }
    }
    table
}

fn tone(result: AuditResult) -> Tone {
    match result {
        AuditResult::Done => Tone::Plain,
        AuditResult::Refused => Tone::Bad,
        AuditResult::Noticed => Tone::Warn,
    }
}

fn actor(actor: &Actor) -> String {
    match actor {
        Actor::Gateway => "gateway".to_owned(),
        Actor::User { name, .. } => name.clone(),
        Actor::Host { host } => host.to_string(),
        Actor::AgentToken { token } => token.clone(),
        Actor::Nobody => "nobody".to_owned(),
    }
}

fn details(entry: &AuditEntry) -> String {
    let ticket = entry.ticket.iter().map(|ticket| format!("ticket={ticket}"));
    let rest = entry
        .details
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    ticket.chain(rest).collect::<Vec<_>>().join(" ")
}
