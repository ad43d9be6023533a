//! What every command needs: the flags of the whole program, the connection, and
//! where answers go.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use model::Timestamp;
use model::ids::{HostId, WorkspaceId};

use crate::client::{Client, Exchange};
use crate::connection::{Connection, Environment, SecretText, read_text, resolve};
use crate::contexts::ContextFile;
use crate::failure::Failure;
use crate::output::{Format, Output, printable};
use crate::{lookup, parse};

/// Flags that every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Context to use instead of the current one
    #[arg(
        long,
        global = true,
        env = "LOOPBACK_CONTEXT",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub context: Option<String>,
    /// Form of the answer: table or json
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "FORMAT"
    )]
    pub output: Format,
    /// The same as --output json
    #[arg(long, global = true, conflicts_with = "output")]
    pub json: bool,
    /// Leave the headers of tables out
    #[arg(long, global = true)]
    pub no_headers: bool,
    /// Do not ask before what cannot be undone
    #[arg(long, short, global = true)]
    pub yes: bool,
    /// How long one attempt at a call may take
    #[arg(long, global = true, value_parser = parse::duration, default_value = "30s", value_name = "DURATION")]
    pub call_timeout: Duration,
    /// Ticket to note in the audit trail
    #[arg(
        long,
        global = true,
        env = "LOOPBACK_TICKET",
        hide_env_values = true,
        value_name = "ID"
    )]
    pub ticket: Option<String>,
    /// Do it although a policy forbids it, for this reason; everybody sees it
    #[arg(long, global = true, value_name = "REASON")]
    pub break_glass: Option<String>,
    /// Tell every call on standard error
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

/// Picks a workspace.
#[derive(Clone, Debug, Args)]
pub struct WorkspaceArg {
    /// Workspace: its name, project/name, or id [default: LOOPBACK_WORKSPACE, the context's, or the only one]
    #[arg(long = "workspace", short, value_name = "WORKSPACE")]
    pub workspace: Option<String>,
}

/// What a command works with.
pub struct App {
    /// Flags of the whole program.
    pub globals: Globals,
    /// Where contexts are kept.
    pub contexts: ContextFile,
    /// What the environment says.
    pub environment: Environment,
    /// Where the answer goes.
    pub out: Output,
}

impl App {
    /// The program as it was started.
    pub fn from_process(globals: Globals) -> Result<Self, Failure> {
        let var = |name: &str| std::env::var(name).ok();
        let format = if globals.json {
            Format::Json
        } else {
            globals.output
        };
        let out = Output::stdout(format, !globals.no_headers);
        Ok(Self {
            contexts: ContextFile::from_env(var)?,
            environment: Environment::read(var),
            out,
            globals,
        })
    }

    /// The connection that flags, environment and contexts amount to.
    pub fn connection(&self) -> Result<Connection, Failure> {
        resolve(
            &self.contexts.load()?,
            self.globals.context.as_deref(),
            &self.environment,
        )
    }

    /// A client for the connection.
    pub fn client(&self) -> Result<Client, Failure> {
        self.client_for(&self.connection()?)
    }

    /// A client for a connection that is not that of a context.
    pub fn client_for(&self, connection: &Connection) -> Result<Client, Failure> {
        let mut builder = Client::builder(connection.url.clone())
            .trust(connection.trust.clone())
            .api_key(connection.api_key.clone())
            .ticket(self.ticket()?)
            .break_glass(self.break_glass()?)
            .timeout(self.globals.call_timeout);
        if self.globals.verbose {
            builder = builder.observe(Arc::new(tell));
        }
        Ok(builder.build()?)
    }

    fn ticket(&self) -> Result<Option<String>, Failure> {
        let Some(ticket) = self
            .globals
            .ticket
            .clone()
            .filter(|ticket| !ticket.is_empty())
        else {
            return Ok(None);
        };
        if fits_a_header(&ticket, 128) {
            Ok(Some(ticket))
        } else {
            Err(Failure::Usage(
                "a ticket has at most 128 printable ASCII characters".to_owned(),
            ))
        }
    }

    fn break_glass(&self) -> Result<Option<String>, Failure> {
        let reason = self.globals.break_glass.clone();
        match &reason {
            Some(text) if text.trim().is_empty() || !fits_a_header(text, 256) => {
                Err(Failure::Usage(
                    "a reason to break the glass has 1 to 256 printable ASCII characters"
                        .to_owned(),
                ))
            }
            Some(_) | None => Ok(reason),
        }
    }

    /// A client, and the workspace meant.
    pub fn in_workspace(&self, workspace: &WorkspaceArg) -> Result<(Client, WorkspaceId), Failure> {
        let connection = self.connection()?;
        let client = self.client_for(&connection)?;
        let named = workspace
            .workspace
            .as_deref()
            .or(connection.workspace.as_deref());
        let id = lookup::workspace_or_only(&client, named)?;
        Ok((client, id))
    }

    /// A client, the workspace meant, and a host in it.
    pub fn on_host(
        &self,
        workspace: &WorkspaceArg,
        host: &str,
    ) -> Result<(Client, WorkspaceId, HostId), Failure> {
        let (client, workspace) = self.in_workspace(workspace)?;
        let host = lookup::host(&client, workspace, host)?;
        Ok((client, workspace, host))
    }

    /// Asks before what cannot be undone. Without a terminal nobody can answer,
    /// so `--yes` must have.
    pub fn confirm(&self, question: &str) -> Result<(), Failure> {
        if self.globals.yes {
            return Ok(());
        }
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return Err(Failure::Usage(format!(
                "this cannot be undone, and nobody can be asked here: {question} Say --yes"
            )));
        }
        ask(question)
    }

    /// Asks whether this much is meant. Unlike [`App::confirm`] it does not stand in
    /// the way of a script, which says what it means.
    pub fn confirm_on_terminal(&self, question: &str) -> Result<(), Failure> {
        if self.globals.yes || !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            Ok(())
        } else {
            ask(question)
        }
    }
}

fn ask(question: &str) -> Result<(), Failure> {
    let mut error = io::stderr();
    write!(error, "{} [y/N] ", printable(question))
        .and_then(|()| error.flush())
        .map_err(Failure::Output)?;
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|source| stdin_error("read the answer from", source))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::Declined)
    }
}

/// The wall clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A secret from a file, or from standard input where there is none: without
/// echo from a terminal, and never from the command line, where every user of
/// the machine could read it.
pub fn read_secret(file: Option<&Path>, what: &str) -> Result<SecretText, Failure> {
    const MOST: u64 = 4096;
    let text = match file {
        Some(path) if path != Path::new("-") => read_text(path, "read the secret in")?,
        _ if io::stdin().is_terminal() => prompt_without_echo(what)?,
        _ => {
            let mut text = String::new();
            let read = io::stdin().lock().take(MOST).read_to_string(&mut text);
            read.map_err(|source| stdin_error("read the secret from", source))?;
            text
        }
    };
    let text = text.trim();
    if text.is_empty() {
        Err(Failure::Usage(format!("there is no {what} in the input")))
    } else {
        Ok(SecretText(text.to_owned()))
    }
}

/// Ctrl-C must not leave the terminal without echo, so for the length of the
/// prompt it is a character that ends the line instead of a signal.
fn prompt_without_echo(what: &str) -> Result<String, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
    const CTRL_C: u8 = 3;
    let fail = |source| stdin_error("read the secret from", source);
    let mut stdin = io::stdin();
    let mut error = io::stderr();
    write!(error, "{what}: ")
        .and_then(|()| error.flush())
        .map_err(Failure::Output)?;
    let before = tcgetattr(&stdin).map_err(|error| fail(error.into()))?;
    let mut quiet = before.clone();
    quiet
        .local_modes
        .remove(LocalModes::ECHO | LocalModes::ISIG);
    quiet.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
    tcsetattr(&stdin, OptionalActions::Flush, &quiet).map_err(|error| fail(error.into()))?;
    let mut line = [0; 4096];
    let read = stdin.read(&mut line);
    let restored = tcsetattr(&stdin, OptionalActions::Now, &before);
    let _ = writeln!(error);
    let line = &line[..read.map_err(fail)?];
    restored.map_err(|error| fail(error.into()))?;
    if line.contains(&CTRL_C) {
        return Err(Failure::Declined);
    }
    Ok(String::from_utf8_lossy(line).into_owned())
}

fn stdin_error(verb: &'static str, source: io::Error) -> Failure {
    Failure::File {
        verb,
        path: "standard input".into(),
        source,
    }
}

fn tell(exchange: &Exchange<'_>) {
    let outcome = exchange
        .outcome
        .as_ref()
        .map_or_else(Clone::clone, u16::to_string);
    let id = exchange
        .request_id
        .map(|id| format!(" ({id})"))
        .unwrap_or_default();
    let took = crate::output::duration_text(exchange.took);
    crate::output::note(&format!(
        "{} {}: {outcome} in {took}{id}",
        exchange.method, exchange.url
    ));
}

fn fits_a_header(text: &str, most: usize) -> bool {
    let printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    text.len() <= most && text.bytes().all(printable)
}
