//! The command line. Small enough that a parser generator would be the larger part
//! of it; the agent is downloaded by every host.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

/// Where the installer puts the configuration.
pub const DEFAULT_CONFIG: &str = "/etc/loopback-agent/agent.toml";

/// The text of `--help`.
pub const HELP: &str = "\
The Loopback agent: links this host to its gateway.

Usage: loopback-agent COMMAND [OPTIONS]

Commands:
  run             stay linked until stopped (what the service runs)
  status          say how the running agent stands; succeeds when it is linked
  doctor          check each step to the gateway and say what to do
  deregister      tell the gateway that this host leaves for good
  pause           let nobody run commands on this host until resume
  resume          let operators run commands on this host again
  reset           forget this host's identity (for templates and golden images)
  verify-release  check a release's signature and a binary's digest

Options of run, status, doctor, deregister, pause, resume and reset:
  --config FILE   configuration (default: /etc/loopback-agent/agent.toml)

Options of status:
  --json          print JSON
  --wait SECONDS  wait until linked, or refused for a reason that waiting does not cure

Options of doctor:
  --json          print JSON
  --rung NAME     check one of: config dns proxy tcp tls websocket udp quic
                  certificate clock token disk agent

Options of reset:
  --yes           do it

Options of verify-release:
  --manifest FILE --signature FILE --key-file FILE --file FILE

  -h, --help      print this
  -V, --version   print the version

The agent token comes from the configuration's token_file or from the variable
LOOPBACK_TOKEN, never from the command line.

Exit status: 0 yes or done, 1 no or failed, 2 bad usage or configuration,
3 the agent is not running.
";

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Be the agent.
    Run {
        /// The configuration.
        config: PathBuf,
    },
    /// Ask the running agent.
    Status {
        /// The configuration.
        config: PathBuf,
        /// Print JSON.
        json: bool,
        /// Wait until linked.
        wait: Option<Duration>,
    },
    /// Check each step.
    Doctor {
        /// The configuration.
        config: PathBuf,
        /// Print JSON.
        json: bool,
        /// Only this step.
        rung: Option<String>,
    },
    /// Tell the gateway that the host leaves.
    Deregister {
        /// The configuration.
        config: PathBuf,
    },
    /// Let nobody run anything here, or let them again.
    Pause {
        /// The configuration.
        config: PathBuf,
        /// Whether it is a pause, and not its end.
        paused: bool,
    },
    /// Be a runner: the agent starts it.
    Runner {
        /// Where its sockets are.
        folder: PathBuf,
        /// What their names begin with.
        name: String,
    },
    /// Be a worker: a runner starts it.
    Worker,
    /// Forget the identity.
    Reset {
        /// The configuration.
        config: PathBuf,
        /// Meant.
        yes: bool,
    },
    /// Check a release.
    VerifyRelease {
        /// The manifest.
        manifest: PathBuf,
        /// Its signature.
        signature: PathBuf,
        /// Trusted keys.
        key_file: PathBuf,
        /// The binary.
        file: PathBuf,
    },
}

/// The command line makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}; see loopback-agent --help")]
pub struct UsageError(String);

fn usage(text: impl Into<String>) -> UsageError {
    UsageError(text.into())
}

/// Options as they come, before it is known which of them fit.
#[derive(Default)]
struct Given {
    config: Option<PathBuf>,
    json: bool,
    wait: Option<Duration>,
    rung: Option<String>,
    yes: bool,
    manifest: Option<PathBuf>,
    signature: Option<PathBuf>,
    key_file: Option<PathBuf>,
    file: Option<PathBuf>,
    folder: Option<PathBuf>,
    name: Option<String>,
    names: Vec<&'static str>,
}

/// Reads the arguments after the program's name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut command = None;
    let mut given = Given::default();
    while let Some(arg) = parser.next().map_err(|error| usage(error.to_string()))? {
        match arg {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Value(word) if command.is_none() => {
                let word = word
                    .into_string()
                    .map_err(|_| usage("the command is not text"))?;
                command = Some(word);
            }
            Value(word) => return Err(usage(format!("unexpected {word:?}"))),
            Long(name) => {
                let name = OPTIONS
                    .into_iter()
                    .find(|known| *known == name)
                    .ok_or_else(|| usage(format!("unknown option --{name}")))?;
                given.take(name, &mut parser)?;
            }
            Short(letter) => return Err(usage(format!("unknown option -{letter}"))),
        }
    }
    given.into_command(&command.ok_or_else(|| usage("no command given"))?)
}

const OPTIONS: [&str; 11] = [
    "config",
    "json",
    "wait",
    "rung",
    "yes",
    "manifest",
    "signature",
    "key-file",
    "file",
    "folder",
    "name",
];

impl Given {
    fn take(&mut self, name: &'static str, parser: &mut lexopt::Parser) -> Result<(), UsageError> {
        let mut value = || parser.value().map_err(|error| usage(error.to_string()));
        match name {
            "json" => self.json = true,
            "yes" => self.yes = true,
            "wait" => self.wait = Some(seconds(&value()?)?),
            "rung" => self.rung = Some(value()?.to_string_lossy().into_owned()),
            "config" => self.config = Some(value()?.into()),
            "manifest" => self.manifest = Some(value()?.into()),
            "signature" => self.signature = Some(value()?.into()),
            "key-file" => self.key_file = Some(value()?.into()),
            "folder" => self.folder = Some(value()?.into()),
            "name" => self.name = Some(value()?.to_string_lossy().into_owned()),
            _ => self.file = Some(value()?.into()),
        }
        self.names.push(name);
        Ok(())
    }

    fn into_command(self, command: &str) -> Result<Command, UsageError> {
        let allowed: &[&str] = match command {
            "run" | "deregister" | "pause" | "resume" => &["config"],
            "runner" => &["folder", "name"],
            "worker" => &[],
            "status" => &["config", "json", "wait"],
            "doctor" => &["config", "json", "rung"],
            "reset" => &["config", "yes"],
            "verify-release" => &["manifest", "signature", "key-file", "file"],
            _ => return Err(usage(format!("unknown command {command:?}"))),
        };
        if let Some(stray) = self.names.iter().find(|name| !allowed.contains(name)) {
            return Err(usage(format!("{command} takes no --{stray}")));
        }
        let config = self.config.unwrap_or_else(|| DEFAULT_CONFIG.into());
        let need = |value: Option<PathBuf>, name| {
            value.ok_or_else(|| usage(format!("{command} needs --{name}")))
        };
        Ok(match command {
            "run" => Command::Run { config },
            "deregister" => Command::Deregister { config },
            "pause" | "resume" => Command::Pause {
                config,
                paused: command == "pause",
            },
            "runner" => Command::Runner {
                folder: need(self.folder, "folder")?,
                name: self.name.ok_or_else(|| usage("runner needs --name"))?,
            },
            "worker" => Command::Worker,
            "status" => Command::Status {
                config,
                json: self.json,
                wait: self.wait,
            },
            "doctor" => Command::Doctor {
                config,
                json: self.json,
                rung: self.rung,
            },
            "reset" => Command::Reset {
                config,
                yes: self.yes,
            },
            _ => Command::VerifyRelease {
                manifest: need(self.manifest, "manifest")?,
                signature: need(self.signature, "signature")?,
                key_file: need(self.key_file, "key-file")?,
                file: need(self.file, "file")?,
            },
        })
    }
}

fn seconds(value: &OsString) -> Result<Duration, UsageError> {
    value
        .to_str()
        .and_then(|text| text.parse::<u32>().ok())
        .map(|seconds| Duration::from_secs(seconds.into()))
        .ok_or_else(|| usage("--wait takes whole seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn commands_are_read_with_their_options() {
        let config = PathBuf::from(DEFAULT_CONFIG);
        for (line, expected) in [
            (
                "run",
                Command::Run {
                    config: config.clone(),
                },
            ),
            (
                "run --config=/x",
                Command::Run {
                    config: "/x".into(),
                },
            ),
            (
                "status --json --wait 30",
                Command::Status {
                    config: config.clone(),
                    json: true,
                    wait: Some(Duration::from_secs(30)),
                },
            ),
            (
                "doctor --rung udp",
                Command::Doctor {
                    config: config.clone(),
                    json: false,
                    rung: Some("udp".into()),
                },
            ),
            (
                "reset --yes",
                Command::Reset {
                    config: config.clone(),
                    yes: true,
                },
            ),
            (
                "deregister --config /y",
                Command::Deregister {
                    config: "/y".into(),
                },
            ),
            ("--version", Command::Version),
            ("status --help", Command::Help),
        ] {
            assert_eq!(read(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        for (line, expected) in [
            ("", "no command given"),
            ("dance", "unknown command \"dance\""),
            ("run --token x", "unknown option --token"),
            ("run --json", "run takes no --json"),
            ("status --wait soon", "--wait takes whole seconds"),
            ("verify-release --file x", "verify-release needs --manifest"),
            ("run now", "unexpected \"now\""),
            ("run --config", "missing argument for option '--config'"),
        ] {
            let said = read(line).unwrap_err();
            assert_eq!(said, format!("{expected}; see loopback-agent --help"));
        }
    }
}
