//! Making errors: by their kind the gateway decides whether to try again, by their code programs
//! know them, and by their message people.

use crate::{Diagnostic, Error, ErrorKind, Kv, Severity};

impl Error {
    /// An error of a kind.
    pub fn new(kind: ErrorKind, code: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: code.to_owned(),
            message: message.into(),
            retry_after_ms: None,
            outcome_unknown: false,
            details: Vec::new(),
        }
    }

    /// The request or the configuration makes no sense. Never tried again.
    pub fn invalid(code: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, code, message)
    }

    /// The plugin or its target cannot do this at all. Never tried again.
    pub fn unsupported(code: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, code, message)
    }

    /// The target answered with an error of its own. Tried again.
    pub fn upstream(code: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Upstream, code, message)
    }

    /// Not at the moment. Tried again.
    pub fn busy(code: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Busy, code, message)
    }

    /// A fault in the plugin itself. Tried again, and counted against it.
    pub fn internal(code: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, code, message)
    }

    /// Not to be tried before this long from now.
    #[must_use]
    pub fn retry_after_ms(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// More for people who search the cause.
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl Into<String>) -> Self {
        self.details.push(Kv {
            key: key.to_owned(),
            value: value.into(),
        });
        self
    }

    /// Whether the gateway tries again what failed like this.
    pub fn is_transient(&self) -> bool {
        match self.kind {
            ErrorKind::Invalid
            | ErrorKind::Auth
            | ErrorKind::Forbidden
            | ErrorKind::NotFound
            | ErrorKind::Unsupported
            | ErrorKind::Conflict
            | ErrorKind::Denied => false,
            ErrorKind::Busy
            | ErrorKind::Throttled
            | ErrorKind::Unreachable
            | ErrorKind::Timeout
            | ErrorKind::Upstream
            | ErrorKind::Cancelled
            | ErrorKind::Internal
            | ErrorKind::Other => true,
        }
    }
}

impl From<serde_json::Error> for Error {
    /// JSON that the plugin itself wrote or was promised: a fault of its own.
    fn from(error: serde_json::Error) -> Self {
        Self::internal("json", error.to_string())
    }
}

impl Diagnostic {
    /// Something that does not work.
    pub fn error(path: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, path, message)
    }

    /// Something that works, and probably not as meant.
    pub fn warning(path: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, path, message)
    }

    /// Something worth knowing.
    pub fn info(path: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Info, path, message)
    }

    fn new(severity: Severity, path: &str, message: impl Into<String>) -> Self {
        Self {
            severity,
            path: path.to_owned(),
            message: message.into(),
        }
    }
}
