//! Agent releases: what is signed, how, and how it is checked.
//!
//! A release is a folder:
//!
//! ```text
//! manifest.json                  what there is: channel, version, number, expiry, files with digests
//! manifest.json.sig              which key signed, and the signature over the manifest's exact bytes
//! loopback-agent-linux-x86_64    static binaries, named by the manifest
//! loopback-agent-linux-aarch64
//! ```
//!
//! The signing key never touches a gateway: releases are signed where they are
//! built and gateways only hand the folder on. So a stolen gateway can withhold
//! a release but can neither forge one (signature), nor roll hosts back to an
//! old one with known holes (`number` only grows, hosts remember the highest
//! they ran), nor feed them a stale one for ever (`expires`), nor slip an
//! unstable one to stable hosts (`channel`).
//!
//! The idea is TUF's with one role instead of four: one offline key, several of
//! which may be trusted at once so that a key can be replaced with overlap.
//! Full TUF buys separate snapshot and timestamp keys, which only pay off when
//! those keys live on different machines; here they would all be offline.
//! The format is minisign-like rather than minisign because minisign prehashes
//! with BLAKE2, which nothing else here needs; plain ed25519 over the bytes can
//! be checked by hand with `openssl pkeyutl -verify -rawin`.
//!
//! The same kind of key signs plugins, alone and in a context of their own ([`sign_plugin`]).
//!
//! Order of checks, everywhere: signature first, then format, then content,
//! then time and number. Nothing unsigned is ever parsed.

mod folder;
mod key;
mod manifest;
mod verify;

pub use folder::{
    Draft, DraftFile, MANIFEST_NAME, Release, ReleaseError, SIGNATURE_NAME, load_release,
    write_release,
};
pub use key::{KeyError, KeyId, PublicKey, SigningKey};
pub use manifest::{Channel, FileEntry, InvalidManifest, MANIFEST_FORMAT, Manifest};
pub use verify::{
    Expect, FileError, VerifyError, sign_manifest, sign_plugin, verify_file, verify_file_at,
    verify_manifest, verify_plugin,
};
