//! `loopback-gateway`: reads arguments, starts logging and the runtime, and hands
//! over to [`gateway::serve`] or [`gateway::commands`].

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the command line speaks to people"
)]

use std::process::ExitCode;

use anyhow::Context as _;
use gateway::args::{self, Command};
use gateway::backup::BackupError;
use gateway::backup::restore::Choices;
use gateway::commands;
use gateway::config::Config;
use gateway::plugins::host::COMPILE;

fn main() -> ExitCode {
    // Not a command for people: how the gateway has plugins compiled, in a process of its own.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == COMPILE) {
        return plugin_host::compile_main(arguments);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref::<BackupError>() {
                Some(known) => eprintln!("loopback-gateway: [{}] {error:#}", known.code()),
                None => eprintln!("loopback-gateway: {error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let (mut out, mut notes) = (std::io::stdout(), std::io::stderr());
    match args::parse(std::env::args_os())? {
        Command::Serve(config) => return serve(*config),
        Command::Status { state } => commands::status(&state, &mut out)?,
        Command::Backup { state, file } => commands::backup(&state, &file, &mut notes)?,
        Command::Verify { file } => commands::verify(&file, &mut out)?,
        Command::Restore {
            file,
            state,
            revoke_tokens,
        } => commands::restore(&file, &state, Choices { revoke_tokens }, &mut out)?,
        Command::Version => println!("loopback-gateway {}", env!("CARGO_PKG_VERSION")),
        Command::Help => print!("{}", args::HELP),
    }
    Ok(())
}

fn serve(config: Config) -> anyhow::Result<()> {
    gateway::log::start(&config)?;
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(gateway::serve::run(config))
}
