//! What a plugin does beyond computing: requests, signatures, values that outlive a call.
//!
//! A trait, and not functions, so that tests are native: a plugin is handed [`Gateway`] when it
//! runs and `testing::FakeHost` when it is tested. Secrets are named, never held: the gateway puts
//! them where they belong.

pub use crate::bindings::sign::Hash;

use crate::Error;
use crate::bindings::{http as wire, secrets, sign, state, task};
use crate::http::{Placement, Request, Response};

/// A value as it was when read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The bytes.
    pub value: Vec<u8>,
    /// Grows with each change of its key.
    pub revision: u64,
}

/// What the gateway does for a plugin, within its grant.
pub trait Host {
    /// Sends a request. A status that tells of a failure is an answer like others: see
    /// [`Response::success`].
    fn send(&self, request: &Request) -> Result<Response, Error>;

    /// The HMAC of `data` under the secret of this name.
    fn hmac(&self, secret: &str, hash: Hash, data: &[u8]) -> Result<Vec<u8>, Error>;

    /// A value that an earlier call put.
    fn state_get(&self, key: &str) -> Result<Option<Entry>, Error>;

    /// Sets a value and answers its new revision; with `if_revision` only if that is the present
    /// one (0: if there is none), else an error of kind `conflict`.
    fn state_put(&self, key: &str, value: &[u8], if_revision: Option<u64>) -> Result<u64, Error>;

    /// Removes a value. Success also when there was none.
    fn state_delete(&self, key: &str) -> Result<(), Error>;

    /// Milliseconds since 1970 at the gateway: the only clock there is.
    fn now_ms(&self) -> u64;

    /// Milliseconds until the call is ended.
    fn remaining_ms(&self) -> u64;

    /// Whether the gateway wants the call to end early.
    fn cancelled(&self) -> bool;

    /// The same when a call is made again after a failure: an idempotency key.
    fn operation_id(&self) -> String;
}

/// The gateway itself.
#[derive(Clone, Copy, Debug)]
pub struct Gateway;

impl Host for Gateway {
    fn send(&self, request: &Request) -> Result<Response, Error> {
        let opened = request
            .credentials
            .iter()
            .map(|(name, placement)| Ok((secrets::open(name)?, placement)))
            .collect::<Result<Vec<_>, Error>>()?;
        let credentials: Vec<_> = opened
            .iter()
            .map(|(secret, placement)| wire::Credential {
                secret,
                placement: wire_placement(placement),
            })
            .collect();
        let asked = wire::Request {
            method: request.method.clone(),
            url: request.url.clone(),
            headers: request.headers.clone(),
            body: request.body.clone(),
            tls_profile: request.tls_profile.clone(),
            route: request.route.clone(),
            timeout_ms: request.timeout_ms,
            max_response_bytes: request.max_response_bytes,
        };
        let answer = wire::send(&asked, &credentials)?;
        Ok(Response {
            status: answer.status,
            headers: answer.headers,
            body: answer.body,
        })
    }

    fn hmac(&self, secret: &str, hash: Hash, data: &[u8]) -> Result<Vec<u8>, Error> {
        sign::hmac(&secrets::open(secret)?, hash, data)
    }

    fn state_get(&self, key: &str) -> Result<Option<Entry>, Error> {
        Ok(state::get(key)?.map(|entry| Entry {
            value: entry.value,
            revision: entry.revision,
        }))
    }

    fn state_put(&self, key: &str, value: &[u8], if_revision: Option<u64>) -> Result<u64, Error> {
        state::put(key, value, if_revision)
    }

    fn state_delete(&self, key: &str) -> Result<(), Error> {
        state::delete(key)
    }

    fn now_ms(&self) -> u64 {
        task::now_ms()
    }

    fn remaining_ms(&self) -> u64 {
        task::remaining_ms()
    }

    fn cancelled(&self) -> bool {
        task::cancelled()
    }

    fn operation_id(&self) -> String {
        task::operation_id()
    }
}

fn wire_placement(placement: &Placement) -> wire::Placement {
    match placement {
        Placement::Bearer => wire::Placement::Bearer,
        Placement::BasicUser(user) => wire::Placement::BasicUser(user.clone()),
        Placement::Header { name, prefix } => wire::Placement::Header(wire::HeaderPlacement {
            name: name.clone(),
            prefix: prefix.clone(),
        }),
        Placement::Cookie(name) => wire::Placement::Cookie(name.clone()),
        Placement::Query(name) => wire::Placement::Query(name.clone()),
        Placement::Path(marker) => wire::Placement::Path(marker.clone()),
        Placement::JsonPointer(pointer) => wire::Placement::JsonPointer(pointer.clone()),
    }
}
