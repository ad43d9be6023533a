//! The command line of `loopback-gateway`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::bail;
use lexopt::prelude::*;

use crate::config::{Config, LogFormat, Overrides};

/// For `--help`.
pub const HELP: &str = "\
loopback-gateway: the control plane

usage: loopback-gateway serve [options]
       loopback-gateway status [--state-dir DIR]
       loopback-gateway backup FILE [--state-dir DIR]
       loopback-gateway backup verify FILE
       loopback-gateway restore FILE [--state-dir DIR] [--revoke-tokens]

  --config FILE              configuration (TOML); see docs/configuration.md
  --state-dir DIR            where everything is kept

serve:
  --listen ADDR:PORT         HTTPS on TCP and QUIC on UDP; port 0 picks a free one
  --public-url URL           https://host:port by which hosts and people reach it
  --releases-dir DIR         agent releases to serve
  --insecure-http ADDR:PORT  plain HTTP as well, on loopback only
  --log-format text|json
  --log FILTER               info, debug, gateway=debug,info ...

Prints `ready URL` once it serves. SIGTERM and SIGINT stop it in order.

status  asks the gateway that runs on this machine.
backup  writes everything a deployment is into one file, while the gateway runs or
        when it does not. The file holds every secret of the deployment and is not
        encrypted: keep it like its keys. `-` writes it to standard output, for a
        program that encrypts it. See docs/backup.md.
restore puts a backup (`-`: from standard input) into an empty state folder.
  --revoke-tokens            also revoke every agent token: some that work in the
                             backup may have been revoked since. No host needs one.

  --version, --help
";

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// Serve.
    Serve(Box<Config>),
    /// Say how the gateway is.
    Status {
        /// Its state.
        state: PathBuf,
    },
    /// Make a backup.
    Backup {
        /// Of this state.
        state: PathBuf,
        /// Into this file.
        file: Stream,
    },
    /// Look whether a backup is whole.
    Verify {
        /// The backup.
        file: Stream,
    },
    /// Restore a backup.
    Restore {
        /// The backup.
        file: Stream,
        /// Into this folder.
        state: PathBuf,
        /// Whether to revoke agent tokens.
        revoke_tokens: bool,
    },
    /// Say which release this is.
    Version,
    /// Explain the command line.
    Help,
}

/// A file, or standard input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stream {
    /// `-`.
    Standard,
    /// A path.
    File(PathBuf),
}

impl From<OsString> for Stream {
    fn from(text: OsString) -> Self {
        if text == "-" {
            Self::Standard
        } else {
            Self::File(text.into())
        }
    }
}

/// Reads the arguments, the first of which is the program's name.
///
/// # Errors
/// What is wrong with them, or with the configuration they name.
pub fn parse<I>(arguments: I) -> anyhow::Result<Command>
where
    I: IntoIterator<Item: Into<OsString>>,
{
    let mut parser = lexopt::Parser::from_iter(arguments);
    let mut words: Vec<OsString> = Vec::new();
    let mut file: Option<PathBuf> = None;
    let mut overrides = Overrides::default();
    let mut revoke_tokens = false;
    let mut only_serve = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Value(word) if words.len() < 3 => words.push(word),
            Long("config") => file = Some(parser.value()?.into()),
            Long("state-dir") => overrides.state_dir = Some(parser.value()?.into()),
            Long("revoke-tokens") => revoke_tokens = true,
            Long("version") => return Ok(Command::Version),
            Long("help") | Short('h') => return Ok(Command::Help),
            Long(option) => {
                let option = option.to_owned();
                serve_option(&option, &mut parser, &mut overrides)?;
                only_serve = Some(option);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let config = || Config::load(file.as_deref(), overrides);
    let mut words = words.into_iter();
    let verb = words.next().unwrap_or_default();
    let verb = verb.to_string_lossy();
    if let Some(option) = only_serve.filter(|_| verb != "serve") {
        bail!("--{option} is an option of `serve` only");
    }
    if revoke_tokens && verb != "restore" {
        bail!("--revoke-tokens is an option of `restore` only");
    }
    let command = match (&*verb, words.next(), words.next()) {
        ("serve", None, None) => Command::Serve(Box::new(config()?)),
        ("status", None, None) => Command::Status {
            state: config()?.state_dir,
        },
        ("backup", Some(verify), Some(file)) if verify == "verify" => {
            Command::Verify { file: file.into() }
        }
        ("backup", Some(verify), None) if verify == "verify" => {
            bail!("say which backup to verify (for a file of that name, write ./verify)")
        }
        ("backup", Some(file), None) => Command::Backup {
            state: config()?.state_dir,
            file: file.into(),
        },
        ("backup", None, None) => {
            bail!("say where to write the backup: a file, or - for standard output")
        }
        ("restore", Some(file), None) => Command::Restore {
            file: file.into(),
            state: config()?.state_dir,
            revoke_tokens,
        },
        ("restore", None, None) => {
            bail!("say which backup to restore: a file, or - for standard input")
        }
        _ => bail!("say what to do: `loopback-gateway serve`; see --help"),
    };
    Ok(command)
}

fn serve_option(
    option: &str,
    parser: &mut lexopt::Parser,
    overrides: &mut Overrides,
) -> anyhow::Result<()> {
    match option {
        "listen" => overrides.listen = Some(parser.value()?.parse()?),
        "public-url" => overrides.public_url = Some(parser.value()?.parse()?),
        "releases-dir" => overrides.releases_dir = Some(parser.value()?.into()),
        "insecure-http" => overrides.insecure_http_listen = Some(parser.value()?.parse()?),
        "log-format" => {
            overrides.log_format = Some(match parser.value()?.string()?.as_str() {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                other => bail!("--log-format is text or json, not {other}"),
            });
        }
        "log" => overrides.log_filter = Some(parser.value()?.string()?),
        _ => return Err(Long(option).unexpected().into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> anyhow::Result<Command> {
        parse(
            ["loopback-gateway"]
                .into_iter()
                .chain(line.split_whitespace()),
        )
    }

    #[test]
    fn each_command_is_understood() {
        let state = || PathBuf::from("/s");
        let table = [
            ("status --state-dir /s", Command::Status { state: state() }),
            (
                "backup /b --state-dir /s",
                Command::Backup {
                    state: state(),
                    file: Stream::File("/b".into()),
                },
            ),
            (
                "backup - --state-dir /s",
                Command::Backup {
                    state: state(),
                    file: Stream::Standard,
                },
            ),
            (
                "backup verify /b",
                Command::Verify {
                    file: Stream::File("/b".into()),
                },
            ),
            (
                "restore --revoke-tokens - --state-dir /s",
                Command::Restore {
                    file: Stream::Standard,
                    state: state(),
                    revoke_tokens: true,
                },
            ),
            ("--version", Command::Version),
            ("serve -h", Command::Help),
        ];
        for (line, wanted) in table {
            assert_eq!(parsed(line).unwrap(), wanted, "{line}");
        }
        let serve = parsed("serve --state-dir /s --listen 127.0.0.1:0 --log debug").unwrap();
        let Command::Serve(config) = serve else {
            panic!("{serve:?}");
        };
        assert_eq!((config.state_dir, config.listen.port()), (state(), 0));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let table = [
            ("", "say what to do"),
            ("dance", "say what to do"),
            ("serve now", "say what to do"),
            ("backup", "say where to write"),
            ("backup verify", "./verify"),
            ("backup a b", "say what to do"),
            ("restore", "say which backup"),
            (
                "backup /b --listen 127.0.0.1:0",
                "--listen is an option of `serve` only",
            ),
            ("serve --revoke-tokens", "an option of `restore` only"),
            ("serve --log-format xml", "text or json"),
            ("serve --nonsense", "--nonsense"),
        ];
        for (line, wanted) in table {
            let error = parsed(line).unwrap_err().to_string();
            assert!(error.contains(wanted), "{line}: {error}");
        }
    }
}
