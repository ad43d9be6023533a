//! From a host that may be spoken with to a connection with it.
//!
//! ```text
//! resolve once ─► judge every address ─► connect to one that was judged ─► TLS under the name
//! ```
//!
//! The name goes on in the `Host` header and in TLS, the address alone decides where packets go:
//! between judging and connecting nothing is looked up.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use model::plugin::TlsProfile;
use plugin_host::ports::{ErrorKind, GuestError};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use crate::address;
use crate::audit::{Progress, Stage};
use crate::error::{cleaned, code, denied, failed, invalid};
use crate::resolve::{MAX_ADDRESSES, Resolver};
use crate::target::{Host, Target};
use crate::tls::Tls;
use crate::wire::Stream;

/// Most addresses of a host that are tried.
const MAX_ATTEMPTS: usize = 4;
/// For one of them: time for a second packet after a lost first one, and for another address within
/// a call of usual length.
const ATTEMPT: Duration = Duration::from_secs(3);

/// Who connects.
pub(crate) struct Dialler {
    resolver: Arc<dyn Resolver>,
    tls: Tls,
}

impl Dialler {
    pub(crate) fn new(resolver: Arc<dyn Resolver>) -> Self {
        Self {
            resolver,
            tls: Tls::new(),
        }
    }

    /// The addresses of a host, each once.
    pub(crate) async fn addresses(
        &self,
        host: &Host,
        port: u16,
    ) -> Result<Vec<SocketAddr>, String> {
        let name = match host {
            Host::Address(address) => return Ok(vec![SocketAddr::new(*address, port)]),
            Host::Name(name) => name,
        };
        let mut found: Vec<SocketAddr> = Vec::new();
        let answers = self.resolver.resolve(name, port).await;
        for address in answers.map_err(|error| cleaned(&error.to_string()))? {
            if !found.contains(&address) && found.len() < MAX_ADDRESSES {
                found.push(address);
            }
        }
        Ok(found)
    }

    /// A TCP connection with an address of the host that `permits` has nothing against.
    pub(crate) async fn connect(
        &self,
        host: &Host,
        port: u16,
        permits: impl Fn(IpAddr) -> bool,
        progress: &Progress,
    ) -> Result<Box<dyn Stream>, GuestError> {
        progress.enter(Stage::Resolving);
        let unresolved = |why: &str| {
            failed(
                ErrorKind::Unreachable,
                code::NAME_NOT_RESOLVED,
                format!("the name {host} has no address: {why}"),
                progress,
            )
        };
        let addresses = self
            .addresses(host, port)
            .await
            .map_err(|why| unresolved(&why))?;
        let Some(first) = addresses.first() else {
            return Err(unresolved("the resolver answered none"));
        };
        let permitted: Vec<_> = addresses
            .iter()
            .filter(|address| permits(address.ip()))
            .collect();
        if permitted.is_empty() {
            let kind = address::reach(first.ip()).as_str();
            return Err(denied(
                code::NETWORK_NOT_GRANTED,
                format!(
                    "{host} leads to {kind} address ({}), which no network of the grant's rule covers",
                    first.ip()
                ),
            ));
        }
        progress.enter(Stage::Connecting);
        let mut last = io::ErrorKind::TimedOut;
        for address in permitted.into_iter().take(MAX_ATTEMPTS) {
            progress.connecting_to(*address);
            match tokio::time::timeout(ATTEMPT, TcpStream::connect(*address)).await {
                Ok(Ok(stream)) => {
                    // Requests are written at once; waiting for more to send only costs time.
                    let _ = stream.set_nodelay(true);
                    return Ok(Box::new(stream));
                }
                Ok(Err(error)) => last = error.kind(),
                Err(_) => last = io::ErrorKind::TimedOut,
            }
        }
        Err(failed(
            ErrorKind::Unreachable,
            code::CONNECT_FAILED,
            format!("nothing accepts a connection at {host}, port {port}: {last}"),
            progress,
        ))
    }

    /// Agrees on TLS with the host at the other end of `stream`.
    pub(crate) async fn secure(
        &self,
        stream: Box<dyn Stream>,
        target: &Target,
        profile: &TlsProfile,
        progress: &Progress,
    ) -> Result<Box<dyn Stream>, GuestError> {
        progress.enter(Stage::Securing);
        let config = self
            .tls
            .config(profile)
            .map_err(|error| invalid(code::TLS_PROFILE_INVALID, error.to_string()))?;
        let name = match &target.host {
            Host::Name(name) => ServerName::try_from(name.clone())
                .map_err(|_| invalid(code::URL_INVALID, "the host is no name for TLS"))?,
            Host::Address(address) => ServerName::from(*address),
        };
        match tokio_rustls::TlsConnector::from(config)
            .connect(name, stream)
            .await
        {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(tls_failed(&error, target, progress)),
        }
    }
}

fn tls_failed(error: &io::Error, target: &Target, progress: &Progress) -> GuestError {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let (code, message) = match cause {
        Some(rustls::Error::InvalidCertificate(why)) => (
            code::TLS_UNTRUSTED,
            format!("{} does not prove itself: {}", target.host, untrusted(why)),
        ),
        Some(other) => (
            code::TLS_FAILED,
            format!(
                "no TLS with {}: {}",
                target.host,
                cleaned(&other.to_string())
            ),
        ),
        None => (
            code::TLS_FAILED,
            format!("no TLS with {}: {}", target.host, error.kind()),
        ),
    };
    failed(ErrorKind::Unreachable, code, message, progress)
}

fn untrusted(why: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Why;
    match why {
        Why::UnknownIssuer => "no authority of the TLS profile vouches for its certificate".into(),
        Why::ApplicationVerificationFailure => "its key is none of those pinned".into(),
        Why::NotValidForName | Why::NotValidForNameContext { .. } => {
            "its certificate is for other names".into()
        }
        Why::Expired | Why::ExpiredContext { .. } => "its certificate has expired".into(),
        other => cleaned(&other.to_string()),
    }
}
