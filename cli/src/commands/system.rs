//! `loopback health`, `metrics`, `openapi`, `completions`, `man`.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use api::endpoint::{Nothing, Raw};
use api::v1::system::{GetMetrics, GetOpenapi, GetReady, Health, HealthStatus};
use api::{Endpoint, ProblemCode};
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use model::Timestamp;

use super::{Cli, api_word};
use crate::app::App;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone, duration_text};

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// For which shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// Write a page for every command to this folder
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

pub(super) fn health(app: &mut App) -> Result<(), Failure> {
    let health = app
        .client()?
        .fetch::<GetReady>(&Nothing {})
        .map_err(|error| match error.code() {
            Some(code) if code == ProblemCode::Unavailable.as_str() => {
                Failure::NotServing(error.to_string())
            }
            _ => error.into(),
        })?;
    app.out.write(&health, table)?;
    match health.status {
        HealthStatus::Ok => Ok(()),
        HealthStatus::Starting | HealthStatus::Stopping => {
            Err(Failure::NotServing(api_word(&health.status)))
        }
    }
}

fn table(health: &Health, now: Timestamp) -> Table {
    let tone = if health.status == HealthStatus::Ok {
        Tone::Good
    } else {
        Tone::Warn
    };
    let mut table = Table::of_one();
    table.property("status", Cell::new(api_word(&health.status)).tone(tone));
    table.property("version", health.version.as_str());
    let skew = health.now.as_millis().abs_diff(now.as_millis());
    table.property(
        "clock",
        format!(
            "{} ({} from ours)",
            health.now,
            duration_text(std::time::Duration::from_millis(skew))
        ),
    );
    table
}

pub(super) fn metrics(app: &mut App) -> Result<(), Failure> {
    let client = app.client()?;
    pass_on::<GetMetrics>(app, &client)
}

pub(super) fn openapi(app: &mut App) -> Result<(), Failure> {
    let client = app.client()?;
    pass_on::<GetOpenapi>(app, &client)
}

fn pass_on<E: Endpoint<Body = Nothing, Path = Nothing, Reply = Raw>>(
    app: &mut App,
    client: &Client,
) -> Result<(), Failure> {
    let mut stream = client.stream::<E>(&Nothing {}, &E::Query::default())?;
    let mut text = Vec::new();
    let url = || format!("{}{}", client.base(), E::PATH);
    stream
        .read_to_end(&mut text)
        .map_err(|source| crate::client::ClientError::Cut { url: url(), source })?;
    app.out.raw(&text)
}

pub(super) fn completions(command: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut Cli::command(), "loopback", &mut script);
    io::stdout().write_all(&script).map_err(Failure::Output)
}

pub(super) fn man(command: &Man) -> Result<(), Failure> {
    match &command.dir {
        Some(folder) => {
            let fail = |source| Failure::File {
                verb: "write manual pages to",
                path: folder.clone(),
                source,
            };
            std::fs::create_dir_all(folder).map_err(fail)?;
            clap_mangen::generate_to(Cli::command(), folder).map_err(fail)
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .map_err(Failure::Output)?;
            io::stdout().write_all(&page).map_err(Failure::Output)
        }
    }
}
