//! Why a command did not work, what to do about it, and the exit code.
//!
//! The exit codes are a promise to scripts; [`EXIT_CODES`] is their only list,
//! and the documentation is held against it by a test.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use api::Problem;

use crate::audit::VerifyError;
use crate::client::ClientError;
use crate::contexts::ContextsError;

/// Every exit code and what it says.
pub const EXIT_CODES: &[(u8, &str)] = &[
    (0, "done"),
    (1, "not done, for a reason without a code of its own"),
    (2, "the command line, or a value on it, is wrong"),
    (3, "there is no such thing, or the caller may not see it"),
    (
        4,
        "no valid API key, a permission is missing, or a policy says no",
    ),
    (
        NOT_ALLOWED,
        "the current state does not allow it: name taken, not empty, conflict; or a dry run found so",
    ),
    (
        6,
        "the gateway cannot be reached or cannot do it now; try again later",
    ),
    (7, "an audit export does not verify"),
    (
        NOT_SUCCEEDED,
        "a command did not succeed on some hosts: another exit code than 0, a signal, or out of time; or an operation on power failed",
    ),
    (
        NOT_REACHED,
        "a command was never started on some hosts, and succeeded on the others",
    ),
    (
        CANCELLED,
        "a command was cancelled on some hosts, and failed on none; or an operation on power was called off",
    ),
    (
        LOST,
        "how a command on some hosts, or an operation on power, ended is not known",
    ),
    (LEFT, "left while a command goes on"),
    (
        SECTIONS_FAILED,
        "a host was diagnosed, and some sections have failed",
    ),
];

/// The current state does not allow it.
pub const NOT_ALLOWED: u8 = 5;
/// A run ended, and not with exit code 0.
pub const NOT_SUCCEEDED: u8 = 8;
/// A run was never started.
pub const NOT_REACHED: u8 = 9;
/// A run was cancelled.
pub const CANCELLED: u8 = 10;
/// A run may have run, and nobody can tell how it ended.
pub const LOST: u8 = 11;
/// Somebody left before the command's end.
pub const LEFT: u8 = 12;
/// A bundle was written without some sections.
pub const SECTIONS_FAILED: u8 = 13;

/// Why a command did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The command line is wrong in a way that its grammar cannot say.
    #[error("{0}")]
    Usage(String),
    /// The call failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The file of contexts.
    #[error(transparent)]
    Contexts(#[from] ContextsError),
    /// Nothing has this name.
    #[error("there is no {what} `{name}`")]
    NotFound {
        /// The kind of thing.
        what: &'static str,
        /// The name asked for.
        name: String,
    },
    /// More than one thing has this name.
    #[error("{} {what}s are called `{name}`; name one by its id: {}", candidates.len(), candidates.join(", "))]
    Ambiguous {
        /// The kind of thing.
        what: &'static str,
        /// The name asked for.
        name: String,
        /// Their ids.
        candidates: Vec<String>,
    },
    /// The export does not verify.
    #[error("{}", path.display())]
    Verify {
        /// The export.
        path: PathBuf,
        /// Why not.
        source: VerifyError,
    },
    /// An export ended before its head.
    #[error(
        "the export ended at entry {last}, but its header promises {promised}; nothing was kept"
    )]
    ShortExport {
        /// The last entry that came.
        last: u64,
        /// What the header promised.
        promised: u64,
    },
    /// A file.
    #[error("{verb} {}", path.display())]
    File {
        /// What was being done.
        verb: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
    /// The answer cannot be written.
    #[error("write the answer")]
    Output(#[source] io::Error),
    /// The answer cannot be put into words.
    #[error("write the answer as JSON")]
    Json(#[source] serde_json::Error),
    /// A file here has the name of the copy.
    #[error("{} is there already; --force replaces it", .0.display())]
    Exists(PathBuf),
    /// A file changed while it was copied.
    #[error(
        "{0} changed while it was being copied: nothing was kept of it; try again when it is at rest"
    )]
    Changed(String),
    /// A copy is not what the host has.
    #[error(
        "the copy of {0} has another SHA-256 than the file on the host: nothing was kept of it"
    )]
    Differs(String),
    /// Somebody said no at a prompt.
    #[error("not confirmed: nothing was done")]
    Declined,
    /// A command could not be followed to its end.
    #[error("lost sight of command {command}: {why}")]
    LostSight {
        /// Its id.
        command: String,
        /// Why.
        why: String,
    },
    /// The selection is empty.
    #[error("no host is selected: nothing was run")]
    NoTargets,
    /// Ctrl-C cannot be listened for.
    #[error("listen for Ctrl-C")]
    Signals(#[source] io::Error),
    /// Sections of a diagnosis have failed; the others were written.
    #[error("sections of the diagnosis have failed: {0}")]
    SectionsFailed(String),
    /// The gateway answers, but does not serve.
    #[error("the gateway is {0}")]
    NotServing(String),
}

impl Failure {
    /// The exit code, one of [`EXIT_CODES`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Ambiguous { .. } => 2,
            Self::NotFound { .. } | Self::NoTargets => 3,
            Self::Client(error) => client_exit_code(error),
            Self::Exists(_) | Self::Changed(_) => 5,
            Self::Verify { source, .. } if source.is_verdict() => 7,
            Self::NotServing(_) | Self::ShortExport { .. } | Self::LostSight { .. } => 6,
            Self::SectionsFailed(_) => SECTIONS_FAILED,
            Self::Verify { .. }
            | Self::Contexts(_)
            | Self::File { .. }
            | Self::Output(_)
            | Self::Json(_)
            | Self::Signals(_)
            | Self::Differs(_)
            | Self::Declined => 1,
        }
    }

    /// Whether the reader of our output has gone away, as `head` does: not
    /// worth a word.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The text for a person: what failed with all its causes, then what to do.
    pub fn describe(&self) -> String {
        let mut text = format!(
            "error: {}",
            crate::output::printable(&model::error_chain(self))
        );
        if let Self::Client(ClientError::Problem(problem)) = self {
            describe_problem(&mut text, problem);
        }
        if let Some(hint) = self.hint() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n  hint: {hint}");
        }
        text
    }

    fn hint(&self) -> Option<String> {
        let Self::Client(error) = self else {
            return None;
        };
        if error.is_distrust() {
            return Some("the gateway's certificate is not one that this context trusts; if the authority has changed, get its new certificate from whoever runs the gateway and store it with `loopback context add --ca-file`".to_owned());
        }
        match error {
            ClientError::Connect { url, .. } => Some(format!(
                "is a gateway running at {url}? `loopback context show` says where the URL comes from"
            )),
            ClientError::Lost { .. } => {
                Some("it may or may not have been done; look before you repeat it".to_owned())
            }
            ClientError::NotOurs { .. } => Some(
                "is this the URL of the gateway, and not of something in front of it?".to_owned(),
            ),
            ClientError::Problem(problem) => match problem.code.as_str() {
                "unauthenticated" => Some(
                    "store a valid API key with `loopback login`, or set LOOPBACK_API_KEY"
                        .to_owned(),
                ),
                "policy_denied" => Some(
                    "in an emergency, whoever may break the glass can: --break-glass REASON"
                        .to_owned(),
                ),
                "approval_required" => problem.approval.map(|approval| {
                    format!("somebody else: loopback approval approve {approval}; then repeat this")
                }),
                "forbidden" => Some("`loopback whoami` shows what this key may do".to_owned()),
                "internal" => {
                    Some("the gateway's log has the cause under the request id".to_owned())
                }
                _ => None,
            },
            _ => None,
        }
    }
}

fn describe_problem(text: &mut String, problem: &Problem) {
    let _ = write!(
        text,
        "\n  code: {}",
        crate::output::printable(&problem.code)
    );
    if let Some(field) = &problem.field {
        let _ = write!(text, "\n  field: {}", crate::output::printable(field));
    }
    if let Some(wait) = problem.retry_after_ms {
        let wait = std::time::Duration::from_millis(wait);
        let _ = write!(
            text,
            "\n  try again in: {}",
            crate::output::duration_text(wait)
        );
    }
    if let Some(id) = problem.approval {
        let _ = write!(text, "\n  approval: {id}");
    }
    if let Some(id) = problem.request_id {
        let _ = write!(text, "\n  request id: {id}");
    }
}

fn client_exit_code(error: &ClientError) -> u8 {
    match error {
        ClientError::Problem(problem) => problem_exit_code(problem),
        ClientError::Connect { .. } if error.is_distrust() => 1,
        ClientError::Connect { .. } | ClientError::Lost { .. } | ClientError::Cut { .. } => 6,
        _ => 1,
    }
}

/// By code where the code is known, else by status: a newer gateway may have
/// codes that this version does not know.
fn problem_exit_code(problem: &Problem) -> u8 {
    match (problem.code.as_str(), problem.status) {
        (
            "rate_limited" | "unavailable" | "timeout" | "storage_full" | "idempotency_in_progress",
            _,
        ) => 6,
        (_, 400 | 413 | 415 | 416 | 422) => 2,
        (_, 404 | 410) => 3,
        (_, 401 | 403) => 4,
        (_, 409) => 5,
        (_, 429 | 502 | 503 | 504 | 507) => 6,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::ProblemCode;

    fn failure(code: ProblemCode) -> Failure {
        Failure::Client(ClientError::Problem(Box::new(Problem::new(code, "…"))))
    }

    #[test]
    fn every_problem_has_its_exit_code() {
        use ProblemCode::*;
        for code in ProblemCode::ALL {
            let expected = match code {
                MalformedRequest | BodyTooLarge | UnsupportedMediaType | Invalid
                | RangeNotSatisfiable | BadSignature => 2,
                NotFound | NoSuchExporter | Gone => 3,
                Unauthenticated | Forbidden | ExceedsMaker | ForeignOrigin | PolicyDenied
                | ApprovalRequired => 4,
                Conflict | NameTaken | NotEmpty | IdempotencyMismatch => 5,
                RateLimited
                | Unavailable
                | PolicyUnavailable
                | HostNotLinked
                | ExporterFailed
                | Timeout
                | StorageFull
                | HostStorageFull
                | IdempotencyInProgress => 6,
                MethodNotAllowed | HeadersTooLarge | Misdirected | Internal => 1,
            };
            assert_eq!(failure(*code).exit_code(), expected, "{code:?}");
        }
    }

    #[test]
    fn an_unknown_code_goes_by_its_status() {
        let mut problem = Problem::new(ProblemCode::Conflict, "…");
        problem.code = "frozen_by_policy".to_owned();
        assert_eq!(problem_exit_code(&problem), 5);
    }

    #[test]
    fn every_exit_code_is_documented() {
        let document = include_str!("../../docs/cli.md");
        for (code, meaning) in EXIT_CODES {
            assert!(
                document.contains(&format!("| {code} | {meaning} |")),
                "docs/cli.md lacks `| {code} | {meaning} |`"
            );
        }
    }

    #[test]
    fn a_problem_is_told_with_code_wait_request_and_advice() {
        let mut problem = Problem::new(
            ProblemCode::Unauthenticated,
            "the key\u{1b}[31m has expired",
        );
        problem.retry_after_ms = Some(1500);
        problem.request_id = Some("req_00000000000000000000000001".parse().unwrap());
        let text = Failure::Client(ClientError::Problem(Box::new(problem))).describe();
        let expected = "error: the key\\u{1b}[31m has expired\n  code: unauthenticated\n  try again in: 1.5s\n  request id: req_00000000000000000000000001\n  hint: store a valid API key with `loopback login`, or set LOOPBACK_API_KEY";
        assert_eq!(text, expected);
    }
}
