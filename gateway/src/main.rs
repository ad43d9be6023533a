//! `loopback-gateway`: reads arguments and configuration, starts logging and the
//! runtime, and hands over to [`gateway::serve`].

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the command line speaks to people"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use gateway::config::{Config, LogFormat, Overrides};
use lexopt::prelude::*;
use tracing_subscriber::EnvFilter;

const HELP: &str = "\
loopback-gateway: the control plane

usage: loopback-gateway serve [options]

  --config FILE              configuration (TOML); see docs/configuration.md
  --state-dir DIR            where everything is kept
  --listen ADDR:PORT         HTTPS on TCP and QUIC on UDP; port 0 picks a free one
  --public-url URL           https://host:port by which hosts and people reach it
  --releases-dir DIR         agent releases to serve
  --insecure-http ADDR:PORT  plain HTTP as well, on loopback only
  --log-format text|json
  --log FILTER               info, debug, gateway=debug,info ...
  --version, --help

Prints `ready URL` once it serves. SIGTERM and SIGINT stop it in order.
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loopback-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let Some(config) = arguments()? else {
        return Ok(());
    };
    start_logging(&config)?;
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(gateway::serve::run(config))
}

fn arguments() -> anyhow::Result<Option<Config>> {
    let mut parser = lexopt::Parser::from_env();
    let mut serve = false;
    let mut file: Option<PathBuf> = None;
    let mut overrides = Overrides::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(word) if word == "serve" && !serve => serve = true,
            Long("config") => file = Some(parser.value()?.into()),
            Long("state-dir") => overrides.state_dir = Some(parser.value()?.into()),
            Long("listen") => overrides.listen = Some(parser.value()?.parse()?),
            Long("public-url") => overrides.public_url = Some(parser.value()?.parse()?),
            Long("releases-dir") => overrides.releases_dir = Some(parser.value()?.into()),
            Long("insecure-http") => {
                overrides.insecure_http_listen = Some(parser.value()?.parse()?)
            }
            Long("log-format") => {
                overrides.log_format = Some(match parser.value()?.string()?.as_str() {
                    "text" => LogFormat::Text,
                    "json" => LogFormat::Json,
                    other => bail!("--log-format is text or json, not {other}"),
                });
            }
            Long("log") => overrides.log_filter = Some(parser.value()?.string()?),
            Long("version") => {
                println!("loopback-gateway {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            Long("help") | Short('h') => {
                print!("{HELP}");
                return Ok(None);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if !serve {
        bail!("say what to do: `loopback-gateway serve`; see --help");
    }
    Ok(Some(Config::load(file.as_deref(), overrides)?))
}

fn start_logging(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log.filter).context("read the log filter")?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would complain about a standard error that cannot be written (a log file on a full
        // disk) on that very standard error, and panic because it cannot.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
