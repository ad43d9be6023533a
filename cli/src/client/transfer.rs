//! Contents: bodies that are no JSON, on the way out and in, as long as they take.
//!
//! Each is one attempt. What to go on with after a lost connection, and from where, is
//! known to whoever has the file.

use std::io::Read;
use std::time::Duration;

use api::Endpoint;
use api::endpoint::{Nothing, Raw};
use ureq::http::header::{CONTENT_LENGTH, ETAG};
use ureq::http::{Request, Response, StatusCode};
use ureq::{Body, SendBody};

use super::call::{Call, to_value};
use super::error::{self, ClientError};
use super::{Client, read_all, refusal};

/// A line that brings nothing for this long is taken for dead.
const STALLED: Duration = Duration::from_secs(60);
/// For what a host does before it answers: making a digest, or syncing its disk.
const PATIENT: Duration = Duration::from_secs(900);

/// A content on its way in.
pub struct Content {
    /// Whether it begins where it was asked to; else it is the whole.
    pub partial: bool,
    /// The version that it is of.
    pub version: String,
    /// Bytes that follow.
    pub length: u64,
    /// The bytes.
    pub body: Box<dyn Read + Send>,
}

impl Client {
    /// Calls `E`, which may take as long as a disk does.
    pub fn fetch_slowly<E: Endpoint<Body = Nothing>>(
        &self,
        path: &E::Path,
        query: &E::Query,
    ) -> Result<E::Reply, ClientError> {
        let call = Call::new::<E>(&self.base, path, &to_value::<E>(query)?, &Nothing {})?;
        let reply = self.carry(&call, &[], SendBody::none(), PATIENT)?;
        parse::<E>(&call, reply)
    }

    /// Calls `E`, which takes a body and may take as long as servers elsewhere do. It is not made
    /// again by itself.
    pub fn send_slowly<E: Endpoint>(
        &self,
        path: &E::Path,
        body: &E::Body,
    ) -> Result<E::Reply, ClientError> {
        let query = to_value::<E>(&E::Query::default())?;
        let call = Call::new::<E>(&self.base, path, &query, body)?;
        let mut content = call.body.as_deref().unwrap_or_default();
        let fields = [
            ("content-type", "application/json".to_owned()),
            ("content-length", content.len().to_string()),
        ];
        let reply = self.carry(&call, &fields, SendBody::from_reader(&mut content), PATIENT)?;
        parse::<E>(&call, reply)
    }

    /// Reads a content, from `first` on if it is still that `version`.
    pub fn fetch_content<E: Endpoint<Body = Nothing, Reply = Raw>>(
        &self,
        path: &E::Path,
        query: &E::Query,
        first: u64,
        version: &str,
    ) -> Result<Content, ClientError> {
        let call = Call::new::<E>(&self.base, path, &to_value::<E>(query)?, &Nothing {})?
            .streaming(E::MEDIA);
        let range = [
            ("range", format!("bytes={first}-")),
            ("if-range", format!("\"{version}\"")),
        ];
        let range = if first == 0 { &[][..] } else { &range[..] };
        let reply = self.carry(&call, range, SendBody::none(), STALLED)?;
        let field = |name| reply.headers().get(name).and_then(|it| it.to_str().ok());
        let version = field(ETAG).unwrap_or_default().trim_matches('"').to_owned();
        let length = field(CONTENT_LENGTH).and_then(|it| it.parse().ok());
        Ok(Content {
            partial: reply.status() == StatusCode::PARTIAL_CONTENT,
            version,
            length: length.unwrap_or(0),
            body: Box::new(
                reply
                    .into_body()
                    .into_with_config()
                    .limit(u64::MAX)
                    .reader(),
            ),
        })
    }

    /// Sends a content of `length` bytes. A refusal that needs nothing of it comes before
    /// it is sent.
    pub fn send_content<E: Endpoint<Body = Raw>>(
        &self,
        path: &E::Path,
        query: &E::Query,
        content: &mut dyn Read,
        length: u64,
    ) -> Result<E::Reply, ClientError> {
        let call = Call::new::<E>(&self.base, path, &to_value::<E>(query)?, &Raw {})?;
        let fields = [
            ("content-type", "application/octet-stream".to_owned()),
            ("content-length", length.to_string()),
            ("expect", "100-continue".to_owned()),
        ];
        let reply = self.carry(&call, &fields, SendBody::from_reader(content), PATIENT)?;
        parse::<E>(&call, reply)
    }

    fn carry(
        &self,
        call: &Call,
        fields: &[(&str, String)],
        body: SendBody<'_>,
        silence: Duration,
    ) -> Result<Response<Body>, ClientError> {
        let mut request = Request::builder()
            .method(call.method.as_str())
            .uri(&call.url)
            .header("accept", call.accept);
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {}", key.reveal()));
        }
        if let Some(ticket) = &self.ticket {
            request = request.header("x-loopback-ticket", ticket);
        }
        if let Some(reason) = &self.break_glass {
            request = request.header("x-loopback-break-glass", reason);
        }
        for (name, value) in fields {
            request = request.header(*name, value);
        }
        let lost =
            |error| error::transport(call.method.as_str(), self.base.as_str(), &call.url, error);
        let request = request
            .body(body)
            .map_err(|error| lost(ureq::Error::Http(error)))?;
        let request = self
            .agent
            .configure_request(request)
            .timeout_global(None)
            .timeout_recv_response(Some(PATIENT))
            .timeout_per_read(Some(silence))
            .timeout_per_write(Some(STALLED))
            .build();
        let reply = self.observed(call, || self.agent.run(request).map_err(lost))?;
        if reply.status().is_success() {
            Ok(reply)
        } else {
            Err(refusal(&call.url, reply))
        }
    }
}

fn parse<E: Endpoint>(call: &Call, reply: Response<Body>) -> Result<E::Reply, ClientError> {
    let bytes = read_all(&call.url, reply)?;
    serde_json::from_slice(&bytes).map_err(|source| ClientError::Unreadable {
        operation: E::ID,
        source,
    })
}
