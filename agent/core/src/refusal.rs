//! What a refusal asks of the agent.

use protocol::v1::{Refusal, RefusalCode};

/// What to do about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Passing trouble at the gateway: wait as for a bad network.
    Wait,
    /// A person has to change something: come back slowly, keep the identity.
    Person,
    /// The host is retired: stop, and look again once an hour at most, because only
    /// an operator can have made a mistake here.
    Stop,
    /// The certificate is too old: renew on the connection that said so.
    Renew,
}

/// The remedy for `refusal`. A code from the future is worth retrying.
pub fn remedy(refusal: &Refusal) -> Remedy {
    match refusal.code() {
        RefusalCode::Unspecified
        | RefusalCode::RateLimited
        | RefusalCode::Draining
        | RefusalCode::Unavailable => Remedy::Wait,
        RefusalCode::TokenInvalid
        | RefusalCode::TokenExpired
        | RefusalCode::TokenExhausted
        | RefusalCode::Superseded
        | RefusalCode::VersionUnsupported
        | RefusalCode::Invalid => Remedy::Person,
        RefusalCode::HostRetired => Remedy::Stop,
        RefusalCode::CertificateExpired => Remedy::Renew,
    }
}
