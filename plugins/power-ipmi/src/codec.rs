//! IPMI 2.0 over LAN as functions of bytes: what is sent, and what is understood of what comes.
//!
//! Everything that comes is a stranger's until its integrity check says otherwise. What does not
//! fit is `None` and nothing else: a datagram can be anybody's, so it is not an answer that is
//! wrong, it is no answer.
//!
//! Section and table numbers are those of the IPMI specification, version 2.0, revision 1.1.

pub(crate) mod crypt;
pub(crate) mod message;
pub(crate) mod packet;
pub(crate) mod rakp;

#[cfg(test)]
mod tests;
