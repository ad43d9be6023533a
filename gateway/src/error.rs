//! The situations a request can end in, free of any transport.
//!
//! The public text says what happened and what to do; what only an operator
//! should know goes to the log where the error is made. [`crate::http::problem`]
//! turns a situation into HTTP; no other file knows status numbers.

use std::time::Duration;

use api::ProblemCode;
use gateway_store::{
    CommitError, EncodeError, KeyError, ReadError, RecordError, Unavailable, WaitError,
};
use model::ids::ApprovalId;

/// A refused or failed request.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct Error {
    /// The situation.
    pub code: ProblemCode,
    /// What happened and what to do, for whoever asked.
    pub detail: String,
    /// The field to blame.
    pub field: Option<&'static str>,
    /// Try again after this long.
    pub retry_after: Option<Duration>,
    /// What waits for approval.
    pub approval: Option<ApprovalId>,
}

/// What services answer with.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A situation with its public text.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            field: None,
            retry_after: None,
            approval: None,
        }
    }

    /// Absent or invisible: one answer for both.
    pub fn not_found(what: &str) -> Self {
        Self::new(
            ProblemCode::NotFound,
            format!("there is no such {what}, or you cannot see it"),
        )
    }

    /// The state does not allow it.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::Conflict, detail)
    }

    /// A field's value is not allowed.
    pub fn invalid(field: &'static str, detail: impl Into<String>) -> Self {
        Self {
            field: Some(field),
            ..Self::new(ProblemCode::Invalid, detail)
        }
    }

    /// Not now; come back.
    pub fn unavailable(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(ProblemCode::Unavailable, detail)
        }
    }

    /// Too often; come back.
    pub fn rate_limited(retry_after: Duration) -> Self {
        let detail = format!(
            "too many requests; try again in {} ms",
            retry_after.as_millis().max(1)
        );
        Self {
            retry_after: Some(retry_after),
            ..Self::new(ProblemCode::RateLimited, detail)
        }
    }

    /// A fault of ours. `context` is logged here and never answered.
    pub fn internal(context: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %model::error_chain(context), "a request failed by our own fault");
        Self::new(
            ProblemCode::Internal,
            "the gateway has failed; its log has the details under the request id",
        )
    }
}

impl From<Unavailable> for Error {
    fn from(cause: Unavailable) -> Self {
        match cause {
            Unavailable::StorageFull => Self::new(
                ProblemCode::StorageFull,
                "the gateway's disk is full: nothing was changed; free space and try again",
            ),
            other => {
                tracing::warn!(error = %other, "the store is unavailable");
                Self::unavailable(
                    "the gateway's store cannot be reached; nothing was changed",
                    Duration::from_secs(1),
                )
            }
        }
    }
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Unavailable(cause) => cause.into(),
            CommitError::Conflict { .. } => Self::conflict(
                "somebody else changed this at the same moment; look again and retry",
            ),
            // 503 rather than 500: the caller can do something about it.
            CommitError::Unknown => {
                tracing::warn!("the outcome of a commit is unknown");
                Self::unavailable(
                    "the gateway's disk failed while this was being written: it was done or it \
                     was not; repeat it with the same idempotency key, or look before you repeat it",
                    Duration::from_secs(5),
                )
            }
            CommitError::TooLarge { .. } => Self::new(
                ProblemCode::BodyTooLarge,
                "the change is too large for one request",
            ),
            other => Self::internal(&other),
        }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(cause) => cause.into(),
            other => Self::internal(&other),
        }
    }
}

impl From<RecordError> for Error {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Read(error) => error.into(),
            other => Self::internal(&other),
        }
    }
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        Self::internal(&error)
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        Self::internal(&error)
    }
}

impl From<WaitError> for Error {
    /// The change is durable; only this gateway's view of it is late.
    fn from(error: WaitError) -> Self {
        tracing::warn!(error = %error, "the index is late");
        Self::unavailable(
            "the change is stored, but not visible yet; look again in a moment",
            Duration::from_secs(1),
        )
    }
}
