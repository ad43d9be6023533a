//! What controllers say instead of doing what they were asked, as errors.

use loopback_plugin_sdk::{Error, ErrorKind};

use crate::codec::message::{Answer, Command};

/// A status in a handshake (table 13-15).
pub(crate) fn status(status: u8) -> Error {
    let (kind, code, message) = match status {
        0x01 | 0x0b => (
            ErrorKind::Busy,
            "ipmi.sessions",
            "the controller has no session left at the moment",
        ),
        0x09 | 0x0a => (
            ErrorKind::Forbidden,
            "ipmi.privilege",
            "the user may not have the privilege that is asked for",
        ),
        0x0c | 0x0d => (
            ErrorKind::Auth,
            "ipmi.user",
            "the controller has no such user, or not for this channel",
        ),
        0x0f => (
            ErrorKind::Auth,
            "ipmi.password",
            "the controller has another password for this user",
        ),
        0x04..=0x07 | 0x10 | 0x11 => (
            ErrorKind::Unsupported,
            "ipmi.cipher_suite",
            "the controller does not have this cipher suite, or it is switched off",
        ),
        _ => (
            ErrorKind::Upstream,
            "ipmi.handshake",
            "the controller opens no session",
        ),
    };
    Error::new(kind, code, message).detail("status", format!("{status:#04x}"))
}

/// What was answered, if the command was carried out (completion codes, table 5-2).
pub(crate) fn completion(command: Command, answer: &Answer) -> Result<&[u8], Error> {
    let (kind, code, message) = match answer.completion {
        0 => return Ok(&answer.data),
        0xc0 | 0xc4 | 0xd0..=0xd2 => (
            ErrorKind::Busy,
            "ipmi.busy",
            "the controller is busy: with itself, an update or its start",
        ),
        0xd4 => (
            ErrorKind::Forbidden,
            "ipmi.privilege",
            "the user has not the privilege for this",
        ),
        // Of Set Session Privilege Level: more than the user may have.
        0x80 | 0x81 if command.command == 0x3b => (
            ErrorKind::Forbidden,
            "ipmi.privilege",
            "the user may not have the privilege that is asked for",
        ),
        // Of Set System Boot Options: somebody else is at it.
        0x81 if command.function == 0 && command.command == 8 => (
            ErrorKind::Busy,
            "ipmi.boot_options",
            "somebody else is changing the boot options",
        ),
        0xd5 => (
            ErrorKind::Conflict,
            "ipmi.state",
            "the controller does not do this in the state that the machine is in",
        ),
        0xc1 | 0xc2 | 0xc9 | 0xcc | 0xd6 | 0x80 | 0x82 => (
            ErrorKind::Unsupported,
            "ipmi.unsupported",
            "the controller cannot do this",
        ),
        _ => (
            ErrorKind::Upstream,
            "ipmi.failed",
            "the controller says that it failed",
        ),
    };
    Err(Error::new(kind, code, message)
        .detail("command", command.name)
        .detail("completion", format!("{:#04x}", answer.completion)))
}

/// Whether a completion code leaves open if the command was carried out: it took too long, its
/// answer could not be made, it failed for no reason that has a name, or by the maker's own.
pub(crate) fn is_unclear(completion: u8) -> bool {
    matches!(completion, 0x01..=0x7e | 0xc3 | 0xce | 0xd3 | 0xff)
}
