//! Why a call did not work, as a type that programs can switch on.

use std::time::Duration;

use api::Problem;

use super::address::BadParameter;
use super::connect::NotConnected;
use super::tls::TrustError;

/// A call that did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The gateway answered, and the answer is no.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// Nothing of the request was sent.
    #[error("connect to {url}")]
    Connect {
        /// The gateway's URL.
        url: String,
        /// Why not.
        source: ureq::Error,
    },
    /// The request may have been carried out; its reply did not arrive.
    #[error("{method} {url}: no reply")]
    Lost {
        /// HTTP method.
        method: &'static str,
        /// URL without its query.
        url: String,
        /// What broke.
        source: ureq::Error,
    },
    /// The connection ended inside a reply.
    #[error("read the reply of {url}")]
    Cut {
        /// URL without its query.
        url: String,
        /// What broke.
        source: std::io::Error,
    },
    /// What answered does not speak this API.
    #[error(
        "{url} answered {status} with something that is not a reply of a Loopback gateway: {excerpt}"
    )]
    NotOurs {
        /// URL without its query.
        url: String,
        /// HTTP status.
        status: u16,
        /// How it begins, made harmless.
        excerpt: String,
    },
    /// The reply is from a gateway, yet not what this version expects.
    #[error("read the reply of {operation}")]
    Unreadable {
        /// Operation id.
        operation: &'static str,
        /// Where it differs.
        source: serde_json::Error,
    },
    /// A parameter that no URL can carry.
    #[error("build the URL of {operation}")]
    Parameter {
        /// Operation id.
        operation: &'static str,
        /// What is wrong.
        source: BadParameter,
    },
    /// The request does not serialise.
    #[error("write the request of {operation}")]
    Request {
        /// Operation id.
        operation: &'static str,
        /// Why not.
        source: serde_json::Error,
    },
    /// The trust settings cannot be used.
    #[error("set up TLS")]
    Trust(#[from] TrustError),
}

impl ClientError {
    /// The problem, when the gateway answered with one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// The stable code of the problem, when the gateway answered with one.
    pub fn code(&self) -> Option<&str> {
        self.problem().map(|problem| problem.code.as_str())
    }

    /// How long the gateway asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        self.problem()?.retry_after_ms.map(Duration::from_millis)
    }

    /// Whether the certificate was not believed.
    pub fn is_distrust(&self) -> bool {
        let Self::Connect { source, .. } = self else {
            return false;
        };
        distrust(source)
    }
}

fn distrust(error: &ureq::Error) -> bool {
    let certificate = |error: &rustls::Error| matches!(error, rustls::Error::InvalidCertificate(_));
    match error {
        ureq::Error::Rustls(error) => certificate(error),
        ureq::Error::Io(error) => error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .is_some_and(certificate),
        _ => false,
    }
}

/// Sorts an error of the transport by whether the request may have arrived.
pub(crate) fn transport(
    method: &'static str,
    base: &str,
    url: &str,
    error: ureq::Error,
) -> ClientError {
    let connect = |source| ClientError::Connect {
        url: base.to_owned(),
        source,
    };
    match error {
        ureq::Error::Other(inner) => match inner.downcast::<NotConnected>() {
            Ok(marked) => connect(marked.0),
            Err(inner) => ClientError::Lost {
                method,
                url: without_query(url),
                source: ureq::Error::Other(inner),
            },
        },
        error @ (ureq::Error::HostNotFound
        | ureq::Error::BadUri(_)
        | ureq::Error::InvalidProxyUrl
        | ureq::Error::ConnectionFailed
        | ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect)) => connect(error),
        error => ClientError::Lost {
            method,
            url: without_query(url),
            source: error,
        },
    }
}

pub(crate) fn without_query(url: &str) -> String {
    url.split('?').next().unwrap_or_default().to_owned()
}
