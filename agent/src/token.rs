//! The agent token: where it comes from, and that it leaves no trace.
//!
//! It is read anew for every attempt to enrol, so that an operator can replace a
//! bad one without a restart, and deleted once the host has an identity. The
//! variable `LOOPBACK_TOKEN` wins over the file: it was set for this run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::ids::AgentTokenId;
use model::token::Secret;
use zeroize::Zeroizing;

/// The variable.
pub const VARIABLE: &str = "LOOPBACK_TOKEN";
const MAX_SIZE: u64 = 4096;

/// Where tokens come from.
#[derive(Default)]
pub struct TokenSource {
    variable: Option<Zeroizing<String>>,
    file: Option<PathBuf>,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Neither variable nor file is set.
    #[error("this host has not joined and no token is given: set token_file or {VARIABLE}")]
    Unset,
    /// The file cannot be read.
    #[error("read the agent token from {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What is there is no token. It is not repeated.
    #[error("what {0} holds is not an agent token; one looks like lbt_...")]
    Malformed(String),
}

impl TokenSource {
    /// The value of the variable, and the file of the configuration.
    pub fn new(variable: Option<String>, file: Option<PathBuf>) -> Self {
        let variable = variable
            .filter(|value| !value.trim().is_empty())
            .map(Zeroizing::new);
        Self { variable, file }
    }

    /// The token, at this moment.
    pub fn read(&self) -> Result<Zeroizing<String>, TokenError> {
        if let Some(variable) = &self.variable {
            return checked(variable, VARIABLE);
        }
        let path = self.file.as_ref().ok_or(TokenError::Unset)?;
        let read = |source| TokenError::Read {
            path: path.clone(),
            source,
        };
        let size = fs::metadata(path).map_err(read)?.len();
        if size > MAX_SIZE {
            return Err(TokenError::Malformed(path.display().to_string()));
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(read)?);
        checked(&text, &path.display().to_string())
    }

    /// Forgets and deletes the token: the host has joined.
    pub fn discard(&mut self) -> io::Result<()> {
        self.variable = None;
        match &self.file {
            Some(path) => remove(path),
            None => Ok(()),
        }
    }

    /// The file, when there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Follows a changed configuration.
    pub fn set_file(&mut self, file: Option<PathBuf>) {
        self.file = file;
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn checked(text: &str, place: &str) -> Result<Zeroizing<String>, TokenError> {
    let text = text.trim();
    match text.parse::<Secret<AgentTokenId>>() {
        Ok(_) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(TokenError::Malformed(place.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;

    fn token(seed: u8) -> String {
        let id = AgentTokenId::new(Timestamp::from_millis(1), [seed; 10]);
        Secret::new(id, [seed; 32]).reveal()
    }

    #[test]
    fn the_variable_wins_and_both_are_gone_after_joining() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, format!("{}\n", token(1))).unwrap();
        let file_only = TokenSource::new(Some(" ".into()), Some(path.clone()));
        assert_eq!(*file_only.read().unwrap(), token(1));
        let mut both = TokenSource::new(Some(token(2)), Some(path.clone()));
        assert_eq!(*both.read().unwrap(), token(2));
        both.discard().unwrap();
        assert!(!path.exists());
        assert!(matches!(both.read(), Err(TokenError::Read { .. })));
        both.discard().unwrap();
    }

    #[test]
    fn what_is_not_a_token_is_refused_without_being_repeated() {
        let source = TokenSource::new(Some("hunter2".into()), None);
        let said = source.read().unwrap_err().to_string();
        assert!(said.starts_with("what LOOPBACK_TOKEN holds is not an agent token"));
        assert!(!said.contains("hunter2"));
        assert!(matches!(
            TokenSource::default().read(),
            Err(TokenError::Unset)
        ));
    }
}
