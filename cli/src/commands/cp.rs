//! `loopback cp`: one file to a host or from one.
//!
//! Directories are refused, and there is no archive in between: what is packed in one
//! place and unpacked in another brings names, links and devices along that neither side
//! has checked. Whoever wants that runs `tar` where it belongs.

mod download;
mod progress;
mod upload;

use std::path::PathBuf;
use std::time::Duration;

use api::v1::OfHost;
use clap::Args;
use model::file::{FileMode, FileOwner, HostPath};

use crate::app::{App, WorkspaceArg};
use crate::client::ClientError;
use crate::failure::Failure;
use crate::parse::word;

/// Attempts in a row that bring nothing, with longer and longer pauses between them.
const ATTEMPTS: u32 = 6;

#[derive(Debug, Args)]
#[command(
    after_help = "Paths on hosts are absolute: web-1:/etc/app.conf. `-` is standard input or output.\nA copy that was cut goes on where it was when the same command is run again; its digest is\nverified at the receiving end, where it gets its name only when it is whole.\nFor a directory: loopback run --host HOST -- tar -cf /tmp/x.tar -C /etc app, then copy that."
)]
pub(super) struct Cp {
    /// What to copy: HOST:PATH, a file here, or `-`
    #[arg(value_name = "FROM", allow_hyphen_values = true)]
    from: String,
    /// Where to: HOST:PATH, a file or folder here, or `-`
    #[arg(value_name = "TO", allow_hyphen_values = true)]
    to: String,
    /// Permissions of the copy, as in 0644 [default: to a host as the file here, from a host 0600]
    #[arg(long, value_parser = word::<FileMode>)]
    mode: Option<FileMode>,
    /// On a host, whose the copy is: user, user:group or :group
    #[arg(long, value_parser = word::<FileOwner>, value_name = "OWNER")]
    owner: Option<FileOwner>,
    /// Replace a file that is there
    #[arg(long, short)]
    force: bool,
    /// On a host, make the directories that are missing
    #[arg(long)]
    parents: bool,
    /// Set-user-id, set-group-id and sticky bits in --mode are meant
    #[arg(long, requires = "mode")]
    special: bool,
    /// Begin at the beginning, whatever an earlier copy has left
    #[arg(long)]
    no_resume: bool,
    #[command(flatten)]
    workspace: WorkspaceArg,
}

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Host { host: String, path: String },
    Here(PathBuf),
    Standard,
}

impl End {
    /// `HOST:/PATH` is on a host; what has a slash before its first colon is not, so that
    /// `./a:/b` names a file here.
    fn parse(text: &str) -> Result<Self, Failure> {
        if text == "-" {
            return Ok(Self::Standard);
        }
        match text.split_once(':') {
            Some((host, path)) if !host.is_empty() && !host.contains('/') => {
                if path.starts_with('/') {
                    Ok(Self::Host {
                        host: host.to_owned(),
                        path: path.to_owned(),
                    })
                } else {
                    Err(Failure::Usage(format!(
                        "paths on hosts are absolute: `{host}:/...`; for a file here of this name write ./{text}"
                    )))
                }
            }
            _ if text.is_empty() => Err(Failure::Usage("an empty name names no file".to_owned())),
            _ => Ok(Self::Here(text.into())),
        }
    }
}

pub(super) fn run(app: &mut App, command: Cp) -> Result<(), Failure> {
    match (End::parse(&command.from)?, End::parse(&command.to)?) {
        (End::Host { .. }, End::Host { .. }) => Err(Failure::Usage(
            "one of the two must be here: copy from the one host, then to the other".to_owned(),
        )),
        (End::Host { host, path }, to) => {
            if command.owner.is_some() || command.parents {
                return Err(Failure::Usage(
                    "--owner and --parents are for copies to a host".to_owned(),
                ));
            }
            download::run(app, &command, &host, path_of(&path)?, to)
        }
        (from, End::Host { host, path }) => upload::run(app, &command, &host, &path, from),
        _ => Err(Failure::Usage(
            "one of the two must be on a host: HOST:/PATH".to_owned(),
        )),
    }
}

fn path_of(text: &str) -> Result<HostPath, Failure> {
    text.parse()
        .map_err(|error| Failure::Usage(format!("`{}`: {error}", crate::output::printable(text))))
}

/// A file on a host, for calls and for people.
struct There {
    client: crate::client::Client,
    at: OfHost,
    path: HostPath,
    name: String,
}

impl There {
    fn find(app: &App, command: &Cp, host: &str, path: HostPath) -> Result<Self, Failure> {
        let (client, workspace, id) = app.on_host(&command.workspace, host)?;
        Ok(Self {
            name: format!("{host}:{path}"),
            client,
            at: OfHost {
                workspace,
                host: id,
            },
            path,
        })
    }
}

/// When to give up.
#[derive(Default)]
struct Attempts(u32);

impl Attempts {
    /// Something came: the line works.
    fn progressed(&mut self) {
        self.0 = 0;
    }

    /// Waits before another attempt, or gives `error` back.
    fn again(&mut self, error: ClientError) -> Result<(), ClientError> {
        self.0 += 1;
        let passing = matches!(
            error,
            ClientError::Lost { .. } | ClientError::Cut { .. } | ClientError::Connect { .. }
        ) || matches!(
            error.code(),
            Some("unavailable" | "timeout" | "rate_limited")
        );
        // Before anything worked, nobody is waited for who is not there.
        let refused = matches!(error, ClientError::Connect { .. }) && self.0 == 1;
        if !passing || error.is_distrust() || refused || self.0 >= ATTEMPTS {
            return Err(error);
        }
        let wait = Duration::from_millis(250 << self.0);
        std::thread::sleep(error.retry_after().map_or(wait, |asked| asked.max(wait)));
        Ok(())
    }
}

/// What a directory is answered with.
fn directory(name: &str) -> Failure {
    Failure::Usage(format!(
        "{name} is a directory, and only files are copied: pack it with tar first (on a host with `loopback run -- tar -cf ...`) and copy the archive"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        let host = |host: &str, path: &str| End::Host {
            host: host.to_owned(),
            path: path.to_owned(),
        };
        for (text, expected) in [
            ("web-1:/etc/x", host("web-1", "/etc/x")),
            ("web-1:/a:b", host("web-1", "/a:b")),
            ("./web-1:/x", End::Here("./web-1:/x".into())),
            ("/srv/a:b", End::Here("/srv/a:b".into())),
            ("a.txt", End::Here("a.txt".into())),
            ("-", End::Standard),
        ] {
            assert_eq!(End::parse(text).unwrap(), expected, "{text}");
        }
        for wrong in ["", "web-1:etc/x", "web-1:", "C:\\x", "web-1:../x"] {
            assert_eq!(End::parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
