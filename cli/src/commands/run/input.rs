//! What a command takes from files, the environment, and standard input.
//!
//! A secret's value never stands on the command line: every user of the machine could
//! read it there, and the shell keeps it in its history. No error repeats it either.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use api::v1::command::SecretValue;

use crate::failure::Failure;

/// Longest script and longest standard input, as the API has it.
const MOST_TEXT: u64 = 256 << 10;

/// Longest secret, as the API has it.
const MOST_SECRET: u64 = 64 << 10;

/// Reads files; standard input for one of them only.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    /// The flag that has taken standard input.
    taken: Option<String>,
}

impl Inputs {
    /// The text in a file, or on standard input for `-`.
    pub(super) fn text(&mut self, path: &str, flag: &str) -> Result<String, Failure> {
        let bytes = self.read(path, flag, MOST_TEXT)?;
        String::from_utf8(bytes)
            .map_err(|_| Failure::Usage(format!("{flag} {path}: this is not text in UTF-8")))
    }

    /// The secrets that these flags name, with their values.
    pub(super) fn secrets(
        &mut self,
        flags: &[String],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<BTreeMap<String, SecretValue>, Failure> {
        let mut secrets = BTreeMap::new();
        for flag in flags {
            let (name, value) = match flag.split_once('=') {
                None => {
                    let value = variable(flag).ok_or_else(|| {
                        Failure::Usage(format!(
                            "--secret {flag}: there is no such variable in the environment here"
                        ))
                    })?;
                    (flag.as_str(), value)
                }
                Some((name, place)) => match place.strip_prefix('@') {
                    Some(path) => (name, self.secret(name, path)?),
                    None => {
                        return Err(Failure::Usage(format!(
                            "--secret {name}=...: a secret on the command line can be read by every user of this machine, so it is refused, and should be taken for known now; put it into the environment and say --secret {name}, or into a file and say --secret {name}=@FILE"
                        )));
                    }
                },
            };
            if name.is_empty() {
                return Err(Failure::Usage("--secret: the name is missing".to_owned()));
            }
            if secrets
                .insert(name.to_owned(), SecretValue(value))
                .is_some()
            {
                return Err(Failure::Usage(format!("--secret {name} is given twice")));
            }
        }
        Ok(secrets)
    }

    /// What a file holds, without the line end that editors put at its end.
    fn secret(&mut self, name: &str, path: &str) -> Result<String, Failure> {
        let flag = format!("--secret {name}");
        let bytes = self.read(path, &flag, MOST_SECRET)?;
        let mut text = String::from_utf8(bytes)
            .map_err(|_| Failure::Usage(format!("{flag}: this is not text in UTF-8")))?;
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(text)
    }

    fn read(&mut self, path: &str, flag: &str, most: u64) -> Result<Vec<u8>, Failure> {
        let fail = |source| Failure::File {
            verb: "read",
            path: if path == "-" { "standard input" } else { path }.into(),
            source,
        };
        let source: Box<dyn Read> = if path == "-" {
            if let Some(other) = self.taken.replace(flag.to_owned()) {
                return Err(Failure::Usage(format!(
                    "{other} and {flag} cannot both be standard input"
                )));
            }
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(path).map_err(fail)?)
        };
        let mut bytes = Vec::new();
        source
            .take(most + 1)
            .read_to_end(&mut bytes)
            .map_err(fail)?;
        if bytes.len() as u64 > most {
            return Err(Failure::Usage(format!(
                "{flag} {path}: more than {} KiB; put it on the hosts and have the command read it there",
                most >> 10
            )));
        }
        Ok(bytes)
    }
}

/// Reads `NAME=VALUE`.
pub(super) fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flags: &[&str]) -> Result<BTreeMap<String, SecretValue>, Failure> {
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let variable = |name: &str| (name == "TOKEN").then(|| "hunter2".to_owned());
        Inputs::default().secrets(&flags, variable)
    }

    #[test]
    fn secrets_come_from_the_environment_or_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from a file\r\n").unwrap();
        let from_file = format!("KEY=@{}", file.path().display());
        let secrets = read(&["TOKEN", &from_file]).unwrap();
        assert_eq!(secrets["TOKEN"].0, "hunter2");
        assert_eq!(secrets["KEY"].0, "from a file");
    }

    #[test]
    fn abuse_30_a_secret_on_the_command_line_is_refused_and_not_repeated() {
        let error = read(&["TOKEN=hunter2"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(!format!("{} {error:?}", error.describe()).contains("hunter2"));
        for wrong in [&["MISSING"][..], &["=@/dev/null"], &["TOKEN", "TOKEN"]] {
            assert_eq!(read(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
        assert_eq!(read(&["A=@/nowhere"]).unwrap_err().exit_code(), 1);
    }

    #[test]
    fn standard_input_is_read_for_one_thing_only_and_files_have_a_largest_size() {
        let mut inputs = Inputs {
            taken: Some("--script".to_owned()),
        };
        let error = inputs.text("-", "--stdin").unwrap_err().to_string();
        assert_eq!(error, "--script and --stdin cannot both be standard input");
        let error = inputs.text("/dev/zero", "--stdin").unwrap_err();
        assert!(error.to_string().contains("256 KiB"), "{error}");
    }
}
