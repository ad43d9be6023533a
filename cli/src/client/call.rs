//! One call, worked out before anything is sent.

use api::{Endpoint, Method};
use schemars::JsonSchema as _;
use serde_json::Value;

use super::address::BaseUrl;
use super::error::ClientError;

/// One call, the same for every attempt at it.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) accept: &'static str,
    pub(super) body: Option<Vec<u8>>,
    pub(super) idempotency_key: Option<String>,
    pub(super) last_event_id: Option<String>,
    pub(super) streaming: bool,
}

impl Call {
    pub(super) fn new<E: Endpoint>(
        base: &BaseUrl,
        path: &E::Path,
        query: &Value,
        body: &E::Body,
    ) -> Result<Self, ClientError> {
        let operation = E::ID;
        let url = base
            .of_operation(E::PATH, path, query)
            .map_err(|source| ClientError::Parameter { operation, source })?;
        let body = match E::Body::schema_name().as_ref() {
            "Nothing" => None,
            _ => Some(
                serde_json::to_vec(body)
                    .map_err(|source| ClientError::Request { operation, source })?,
            ),
        };
        Ok(Self {
            method: E::METHOD,
            url,
            accept: "application/json, application/problem+json",
            body,
            idempotency_key: (E::METHOD != Method::Get).then(random_key),
            last_event_id: None,
            streaming: false,
        })
    }

    pub(super) fn streaming(mut self, accept: &'static str) -> Self {
        self.accept = accept;
        self.streaming = true;
        self
    }
}

pub(super) fn to_value<E: Endpoint>(query: &E::Query) -> Result<Value, ClientError> {
    serde_json::to_value(query).map_err(|source| ClientError::Request {
        operation: E::ID,
        source,
    })
}

/// 128 random bits in hex: what the gateway recognises a repeated request by.
fn random_key() -> String {
    data_encoding::HEXLOWER.encode(&random::<16>())
}

/// Where in an interval to wait, from 0 to 1.
pub(super) fn jitter() -> f64 {
    f64::from(u32::from_le_bytes(random::<4>())) / f64::from(u32::MAX)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let source = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&source, &mut bytes)
        .expect("the system's random source works on every Linux we run on");
    bytes
}
