//! What a plugin does beyond computing: requests, datagrams, signatures, values that outlive a call.
//!
//! A trait, and not functions, so that tests are native: a plugin is handed [`Gateway`] when it
//! runs and `testing::FakeHost` when it is tested. Secrets are named, never held: the gateway puts
//! them where they belong.

pub use crate::bindings::sign::{AwsRequest, Hash};

use crate::Error;
use crate::bindings::{datagram, http as wire, secrets, sign, state, task};
use crate::http::{Placement, Request, Response};

/// A value as it was when read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The bytes.
    pub value: Vec<u8>,
    /// Grows with each change of its key.
    pub revision: u64,
}

/// Names of the secrets that a request to AWS is signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AwsKey<'a> {
    /// The access key's id.
    pub id: &'a str,
    /// The secret access key.
    pub secret: &'a str,
    /// The token of temporary credentials.
    pub session_token: Option<&'a str>,
}

/// Datagrams to and from one address.
pub trait Datagrams {
    /// Sends at most 1,472 bytes.
    fn send(&self, data: &[u8]) -> Result<(), Error>;

    /// The next one from the other side; an error of kind `timeout` when none comes.
    fn receive(&self, timeout_ms: u32) -> Result<Vec<u8>, Error>;
}

impl Datagrams for datagram::Channel {
    fn send(&self, data: &[u8]) -> Result<(), Error> {
        datagram::Channel::send(self, data)
    }

    fn receive(&self, timeout_ms: u32) -> Result<Vec<u8>, Error> {
        self.recv(timeout_ms)
    }
}

/// What the gateway does for a plugin, within its grant.
pub trait Host {
    /// Sends a request. A status that tells of a failure is an answer like others: see
    /// [`Response::success`].
    fn send(&self, request: &Request) -> Result<Response, Error>;

    /// The HMAC of `data` under the secret of this name.
    fn hmac(&self, secret: &str, hash: Hash, data: &[u8]) -> Result<Vec<u8>, Error>;

    /// Headers that sign a request to AWS, with the secrets of these names.
    fn aws_sigv4(
        &self,
        key: &AwsKey<'_>,
        request: AwsRequest,
    ) -> Result<Vec<(String, String)>, Error>;

    /// Opens a way for datagrams to and from `host:port`, by `route`.
    fn datagrams(&self, endpoint: &str, route: Option<&str>) -> Result<Box<dyn Datagrams>, Error>;

    /// Sends a Wake-on-LAN packet for `mac` where `route` leads.
    fn wake_on_lan(&self, mac: &str, route: Option<&str>) -> Result<(), Error>;

    /// Which version of a secret a call works with: grows when the operator replaces it.
    fn secret_version(&self, secret: &str) -> Result<u64, Error>;

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

    fn aws_sigv4(
        &self,
        key: &AwsKey<'_>,
        request: AwsRequest,
    ) -> Result<Vec<(String, String)>, Error> {
        let (id, secret) = (secrets::open(key.id)?, secrets::open(key.secret)?);
        let token = key.session_token.map(secrets::open).transpose()?;
        sign::aws_sigv4(&id, &secret, token.as_ref(), &request)
    }

    fn datagrams(&self, endpoint: &str, route: Option<&str>) -> Result<Box<dyn Datagrams>, Error> {
        Ok(Box::new(datagram::open(endpoint, route)?))
    }

    fn wake_on_lan(&self, mac: &str, route: Option<&str>) -> Result<(), Error> {
        datagram::wake_on_lan(mac, route)
    }

    fn secret_version(&self, secret: &str) -> Result<u64, Error> {
        Ok(secrets::open(secret)?.version())
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
