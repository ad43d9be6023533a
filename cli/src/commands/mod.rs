//! The commands, a file per area of the API. Each file has the grammar of its
//! commands, what they call, and how the answers look in tables.

mod access;
mod agent_token;
mod api_key;
mod approval;
mod audit;
mod certificate_authority;
mod command;
mod context;
mod cp;
mod event;
mod host;
mod monitoring;
mod plugin;
mod power;
mod project;
mod role;
mod run;
mod secret;
mod session;
mod system;
mod user;
mod workspace;

use clap::{Parser, Subcommand};
use model::Timestamp;

use crate::app::{App, Globals};
use crate::failure::Failure;
use crate::output::{Cell, age, time_text};

/// Operator's command line of Loopback, a self-hosted control plane for hosts.
#[derive(Debug, Parser)]
#[command(
    name = "loopback",
    version,
    max_term_width = 100,
    propagate_version = false
)]
#[command(
    after_help = "Start with `loopback init` on a new deployment, or `loopback login` on an existing one."
)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Become the owner of a new deployment and keep a context for it
    Init(session::Init),
    /// Keep an API key for a gateway
    Login(session::Login),
    /// Show who you are and what you may do
    Whoami,
    /// Choose among gateways
    #[command(subcommand)]
    Context(context::Command),
    /// Hosts: list, label, maintain, repair, retire
    #[command(subcommand)]
    Host(host::Command),
    /// Run a program or a script on hosts, and follow it
    Run(Box<run::Run>),
    /// Commands that were run: list, show, cancel, retry, output
    #[command(subcommand, name = "command")]
    Runs(command::Command),
    /// What Prometheus is told about hosts
    #[command(subcommand)]
    Monitoring(monitoring::Command),
    /// Copy a file to a host or from one: HOST:PATH names it there
    Cp(Box<cp::Cp>),
    /// Show hosts, and with --follow what changes
    Events(event::Events),
    /// Agent tokens: what hosts join with
    #[command(subcommand, name = "token")]
    AgentToken(agent_token::Command),
    /// What a policy allows only when others agree
    #[command(subcommand)]
    Approval(approval::Command),
    /// Plugins: install, grant, configure, enable, upgrade
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Hosts on and off from the outside: status, on, off, reset, history
    #[command(subcommand)]
    Power(power::Command),
    /// Secrets that plugins use
    #[command(subcommand)]
    Secret(secret::Command),
    /// Projects hold workspaces
    #[command(subcommand)]
    Project(project::Command),
    /// Workspaces hold hosts
    #[command(subcommand)]
    Workspace(workspace::Command),
    /// People
    #[command(subcommand)]
    User(user::Command),
    /// Programs that call the API
    #[command(subcommand)]
    ServiceAccount(user::Command),
    /// API keys: what people and programs call with
    #[command(subcommand)]
    ApiKey(api_key::Command),
    /// Roles: what is allowed, by name
    #[command(subcommand)]
    Role(role::Command),
    /// Who has which role where
    #[command(subcommand)]
    Access(access::Command),
    /// The audit trail: read, export, verify
    #[command(subcommand)]
    Audit(audit::Command),
    /// The internal certificate authority
    #[command(subcommand, name = "ca")]
    CertificateAuthority(certificate_authority::Command),
    /// Ask whether the gateway serves
    Health,
    /// Print the gateway's metrics in the Prometheus text format
    Metrics,
    /// Print the gateway's OpenAPI document
    Openapi,
    /// Print completions for a shell
    Completions(system::Completions),
    /// Print the manual page, or write all of them to a folder
    Man(system::Man),
}

impl Cli {
    /// Does what the command line says, and answers with the exit code.
    pub fn run(self) -> Result<u8, Failure> {
        // These work without any configuration.
        match self.command {
            Command::Completions(command) => return system::completions(&command).map(|()| 0),
            Command::Man(command) => return system::man(&command).map(|()| 0),
            _ => {}
        }
        let mut app = App::from_process(self.globals)?;
        let done = match self.command {
            // These answer with what hosts answered.
            Command::Run(command) => return run::run(&mut app, *command),
            Command::Runs(command) => return command::run(&mut app, command),
            Command::Power(command) => return power::run(&mut app, command),
            Command::Init(command) => session::init(&mut app, command),
            Command::Login(command) => session::login(&mut app, command),
            Command::Whoami => session::whoami(&mut app),
            Command::Context(command) => context::run(&mut app, command),
            Command::Host(command) => host::run(&mut app, command),
            Command::Monitoring(command) => monitoring::run(&mut app, command),
            Command::Cp(command) => cp::run(&mut app, *command),
            Command::Events(command) => event::run(&mut app, &command),
            Command::AgentToken(command) => agent_token::run(&mut app, command),
            Command::Approval(command) => approval::run(&mut app, command),
            Command::Plugin(command) => plugin::run(&mut app, command),
            Command::Secret(command) => secret::run(&mut app, command),
            Command::Project(command) => project::run(&mut app, command),
            Command::Workspace(command) => workspace::run(&mut app, command),
            Command::User(command) => user::run(&mut app, command, model_user_kind(false)),
            Command::ServiceAccount(command) => user::run(&mut app, command, model_user_kind(true)),
            Command::ApiKey(command) => api_key::run(&mut app, command),
            Command::Role(command) => role::run(&mut app, command),
            Command::Access(command) => access::run(&mut app, command),
            Command::Audit(command) => audit::run(&mut app, command),
            Command::CertificateAuthority(command) => certificate_authority::run(&mut app, command),
            Command::Health => system::health(&mut app),
            Command::Metrics => system::metrics(&mut app),
            Command::Openapi => system::openapi(&mut app),
            Command::Completions(_) | Command::Man(_) => Ok(()),
        };
        done.map(|()| 0)
    }
}

fn model_user_kind(service: bool) -> api::v1::people::UserKind {
    if service {
        api::v1::people::UserKind::ServiceAccount
    } else {
        api::v1::people::UserKind::Person
    }
}

/// How many items of a list.
#[derive(Clone, Copy, Debug, clap::Args)]
struct LimitArg {
    /// Most items to list [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl LimitArg {
    fn at_most(self) -> Option<usize> {
        self.limit
            .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
    }
}

/// How many items of what only grows.
#[derive(Clone, Copy, Debug, clap::Args)]
struct RecentArg {
    /// Most entries to list, the newest
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "all")]
    limit: u64,
    /// All entries
    #[arg(long)]
    all: bool,
}

impl RecentArg {
    fn at_most(self) -> Option<usize> {
        (!self.all).then(|| usize::try_from(self.limit).unwrap_or(usize::MAX))
    }
}

/// `5m` in a list.
fn age_cell(now: Timestamp, at: Timestamp) -> Cell {
    age(now, at).into()
}

/// `5m`, or nothing.
fn maybe_age(now: Timestamp, at: Option<Timestamp>) -> Cell {
    at.map(|at| age(now, at)).unwrap_or_default().into()
}

/// The full time, or `never`.
fn time_or(now: Timestamp, at: Option<Timestamp>, never: &str) -> String {
    at.map_or_else(|| never.to_owned(), |at| time_text(now, at))
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// The word that a value has in the API.
fn api_word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}
