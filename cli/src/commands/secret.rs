//! `loopback secret`: what plugins log in and sign with. Values go in and never come out, and
//! never stand on a command line, where every user of the machine could read them.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use api::Paging;
use api::v1::InWorkspace;
use api::v1::secret::{
    DeleteSecret, ListSecrets, MAX_SECRET_BYTES, OfSecret, Secret, SecretText, SetSecret,
    SetSecretValue,
};
use clap::Subcommand;
use model::Timestamp;
use model::names::Name;

use super::{LimitArg, age_cell};
use crate::app::{App, WorkspaceArg, read_secret};
use crate::failure::Failure;
use crate::output::Table;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List secrets: names, versions, who uses them; never values
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        limit: LimitArg,
        #[command(flatten)]
        workspace: WorkspaceArg,
    },
    /// Set a secret from a file, or from standard input
    Set {
        /// Its name
        name: Name,
        /// File with the value; - for standard input
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
        /// Keep a line end at the value's end, which is taken off otherwise
        #[arg(long)]
        exact: bool,
        #[command(flatten)]
        workspace: WorkspaceArg,
    },
    /// Delete a secret that no plugin uses
    #[command(visible_alias = "rm")]
    Delete {
        /// Its name
        name: Name,
        #[command(flatten)]
        workspace: WorkspaceArg,
    },
}

pub(super) fn run(app: &mut App, command: Command) -> Result<(), Failure> {
    match command {
        Command::List { limit, workspace } => {
            let (client, workspace) = app.in_workspace(&workspace)?;
            let page = client.list::<ListSecrets, _>(
                &InWorkspace { workspace },
                &Paging::default(),
                limit.at_most(),
            )?;
            app.out.write(&page, |page, now| table(&page.items, now))
        }
        Command::Set {
            name,
            from_file,
            exact,
            workspace,
        } => {
            let (client, workspace) = app.in_workspace(&workspace)?;
            let body = body_of(value(from_file.as_deref(), exact)?);
            let path = OfSecret {
                workspace,
                secret: name,
            };
            let set = client.send::<SetSecretValue>(&path, &body)?;
            app.out.say(&set, |set| {
                format!("secret {} has version {}", set.name, set.version)
            })
        }
        Command::Delete { name, workspace } => {
            let (client, workspace) = app.in_workspace(&workspace)?;
            app.confirm(&format!("Delete secret {name}?"))?;
            let path = OfSecret {
                workspace,
                secret: name.clone(),
            };
            let nothing = client.fetch::<DeleteSecret>(&path)?;
            app.out.say(&nothing, |_| format!("deleted secret {name}"))
        }
    }
}

fn value(file: Option<&Path>, exact: bool) -> Result<Vec<u8>, Failure> {
    // One byte more than may be, to know that it is too long.
    let most = MAX_SECRET_BYTES as u64 + 3;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Failure::File {
            verb: "read the secret in",
            path,
            source,
        }
    };
    let mut bytes = Vec::new();
    match file {
        Some(path) if path != Path::new("-") => {
            let file = std::fs::File::open(path).map_err(failed(path))?;
            let read = file.take(most).read_to_end(&mut bytes);
            read.map_err(failed(path))?;
        }
        _ if io::stdin().is_terminal() => {
            return Ok(read_secret(None, "secret")?.0.into_bytes());
        }
        _ => {
            let read = io::stdin().lock().take(most).read_to_end(&mut bytes);
            read.map_err(failed(Path::new("standard input")))?;
        }
    }
    if !exact {
        bytes.truncate(without_line_end(&bytes));
    }
    if bytes.is_empty() || bytes.len() > MAX_SECRET_BYTES {
        return Err(Failure::Usage(format!(
            "a secret has 1 to {MAX_SECRET_BYTES} bytes"
        )));
    }
    Ok(bytes)
}

/// Editors and `echo` put one there, and no server takes it for part of a password.
fn without_line_end(bytes: &[u8]) -> usize {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes).len()
}

fn body_of(value: Vec<u8>) -> SetSecret {
    match String::from_utf8(value) {
        Ok(text) => SetSecret {
            value: Some(SecretText(text)),
            value_base64: None,
        },
        Err(bytes) => SetSecret {
            value: None,
            value_base64: Some(SecretText(data_encoding::BASE64.encode(bytes.as_bytes()))),
        },
    }
}

fn table(secrets: &[Secret], now: Timestamp) -> Table {
    let mut table = Table::new(&["NAME", "VERSION", "SET", "BY", "USED BY"]);
    for secret in secrets {
        let users: Vec<_> = secret.used_by.iter().map(Name::as_str).collect();
        table.row([
            secret.name.as_str().into(),
            secret.version.to_string().into(),
            age_cell(now, secret.updated_at),
            secret.updated_by.as_str().into(),
            users.join(", ").into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_end_at_the_end_is_no_part_of_a_secret() {
        for (text, length) in [("a\n", 1), ("a\r\n", 1), ("a\n\n", 2), ("a", 1), ("\n", 0)] {
            assert_eq!(without_line_end(text.as_bytes()), length, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_text_travels_as_base64() {
        let body = body_of(vec![0xff, 0]);
        assert!(body.value.is_none());
        assert_eq!(body.value_base64.map(|it| it.0).as_deref(), Some("/wA="));
    }
}
