//! A conversation with one registry: who we are to it, and where it sends us.

use std::net::IpAddr;

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use model::plugin::Cidr;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Access, OciError, Reference};
use crate::address;
use crate::audit::Progress;
use crate::dial::Dialler;
use crate::error::code;
use crate::target::{Scheme, Target};
use crate::wire::{self, Answer};

/// Most hops from a blob's address to its bytes.
const MAX_REDIRECTS: usize = 3;
/// Largest answer that is not a blob or a manifest.
const MAX_SMALL: u64 = 64 << 10;

/// See the module.
pub(super) struct Session<'a> {
    dialler: &'a Dialler,
    access: &'a Access,
    reference: &'a Reference,
    /// What to ask a token for: `pull`, or `pull,push`.
    actions: &'static str,
    authorization: Option<HeaderValue>,
}

/// A request to be made, perhaps more than once.
struct Ask<'a> {
    method: Method,
    headers: &'a [(hyper::header::HeaderName, &'static str)],
    body: &'a [u8],
    what: &'static str,
    limit: u64,
}

impl<'a> Ask<'a> {
    fn get(what: &'static str, limit: u64) -> Self {
        Self {
            method: Method::GET,
            headers: &[],
            body: &[],
            what,
            limit,
        }
    }
}

impl<'a> Session<'a> {
    pub(super) fn new(
        dialler: &'a Dialler,
        reference: &'a Reference,
        access: &'a Access,
        actions: &'static str,
    ) -> Self {
        Self {
            dialler,
            access,
            reference,
            actions,
            authorization: None,
        }
    }

    pub(super) async fn manifest(
        &mut self,
        wanted: &str,
        media_type: &'static str,
        limit: u64,
    ) -> Result<Vec<u8>, OciError> {
        let target = self.target(&format!("manifests/{wanted}"))?;
        let ask = Ask {
            headers: &[(ACCEPT, media_type)],
            ..Ask::get("manifest", limit)
        };
        let answer = self.with_login(&target, &ask).await?;
        self.expect(answer, 200, "manifest")
            .map(|answer| answer.body)
    }

    pub(super) async fn blob(
        &mut self,
        digest: &str,
        what: &'static str,
        size: u64,
    ) -> Result<Vec<u8>, OciError> {
        let first = self.target(&format!("blobs/{digest}"))?;
        let ask = Ask::get(what, size);
        let mut answer = self.with_login(&first, &ask).await?;
        let mut at = first;
        for _ in 0..MAX_REDIRECTS {
            if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                break;
            }
            at = resolved(&at, header(&answer, "location").unwrap_or_default())?;
            // Addresses of blobs carry their own permission; ours is the registry's alone.
            answer = if self.is_registry(&at) {
                self.with_login(&at, &ask).await?
            } else {
                self.once(&at, &ask, None).await?
            };
        }
        self.expect(answer, 200, what).map(|answer| answer.body)
    }

    /// Uploads a blob, unless it is there.
    pub(super) async fn upload(&mut self, digest: &str, bytes: &[u8]) -> Result<(), OciError> {
        let there = self.target(&format!("blobs/{digest}"))?;
        let look = Ask {
            method: Method::HEAD,
            ..Ask::get("blob", MAX_SMALL)
        };
        if self.with_login(&there, &look).await?.status == 200 {
            return Ok(());
        }
        let begin = self.target("blobs/uploads/")?;
        let ask = Ask {
            method: Method::POST,
            ..Ask::get("upload", MAX_SMALL)
        };
        let answer = self.with_login(&begin, &ask).await?;
        let answer = self.expect(answer, 202, "upload")?;
        let location = header(&answer, "location").unwrap_or_default();
        let mut target = resolved(&begin, location)?;
        if !self.is_registry(&target) {
            return Err(OciError::Redirect("an upload to another host"));
        }
        let query = target.query.take().unwrap_or_default();
        let joint = if query.is_empty() { "" } else { "&" };
        target.query = Some(format!("{query}{joint}digest={digest}"));
        let ask = Ask {
            method: Method::PUT,
            headers: &[(CONTENT_TYPE, "application/octet-stream")],
            body: bytes,
            ..Ask::get("upload", MAX_SMALL)
        };
        let answer = self.with_login(&target, &ask).await?;
        self.expect(answer, 201, "upload").map(drop)
    }

    pub(super) async fn put_manifest(
        &mut self,
        tag: &str,
        media_type: &'static str,
        bytes: Vec<u8>,
    ) -> Result<(), OciError> {
        let target = self.target(&format!("manifests/{tag}"))?;
        let ask = Ask {
            method: Method::PUT,
            headers: &[(CONTENT_TYPE, media_type)],
            body: &bytes,
            ..Ask::get("manifest", MAX_SMALL)
        };
        let answer = self.with_login(&target, &ask).await?;
        self.expect(answer, 201, "manifest").map(drop)
    }

    fn target(&self, path: &str) -> Result<Target, OciError> {
        let scheme = if self.access.plain_http {
            "http"
        } else {
            "https"
        };
        let (registry, repository) = (self.reference.registry(), self.reference.repository());
        Target::parse(&format!("{scheme}://{registry}/v2/{repository}/{path}"))
            .map_err(|_| OciError::Malformed("address"))
    }

    fn is_registry(&self, target: &Target) -> bool {
        self.target("").is_ok_and(|registry| {
            (registry.scheme, &registry.host, registry.port)
                == (target.scheme, &target.host, target.port)
        })
    }

    fn expect(&self, answer: Answer, status: u16, what: &'static str) -> Result<Answer, OciError> {
        match answer.status {
            got if got == status => Ok(answer),
            404 => Err(OciError::NotFound(format!("{what} of {}", self.reference))),
            401 | 403 => Err(OciError::Unauthorized),
            status => Err(OciError::Status { what, status }),
        }
    }

    /// Asks, and once more after logging in if that is what the registry wants.
    async fn with_login(&mut self, target: &Target, ask: &Ask<'_>) -> Result<Answer, OciError> {
        let authorization = self.authorization.clone();
        let answer = self.once(target, ask, authorization).await?;
        if answer.status != 401 {
            return Ok(answer);
        }
        let challenge = header(&answer, "www-authenticate").unwrap_or_default();
        let authorization = self.login(challenge).await?;
        self.authorization = Some(authorization.clone());
        self.once(target, ask, Some(authorization)).await
    }

    async fn login(&self, challenge: &str) -> Result<HeaderValue, OciError> {
        let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return self.basic().ok_or(OciError::Unauthorized);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(OciError::Malformed("challenge"));
        }
        let realm = parameter(parameters, "realm").ok_or(OciError::Malformed("challenge"))?;
        let mut target = Target::parse(&realm).map_err(|_| OciError::Malformed("challenge"))?;
        // What we want, not what the registry says we should want.
        let scope = format!(
            "repository:{}:{}",
            self.reference.repository(),
            self.actions
        );
        let mut query = target.query.take().map_or_else(String::new, |it| it + "&");
        query.push_str(&format!("scope={scope}"));
        if let Some(service) = parameter(parameters, "service") {
            query.push_str(&format!("&service={}", encoded(&service)));
        }
        target.query = Some(query);
        let ask = Ask::get("token", MAX_SMALL);
        let answer = self.once(&target, &ask, self.basic()).await?;
        let answer = self.expect(answer, 200, "token")?;
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let token: Token =
            serde_json::from_slice(&answer.body).map_err(|_| OciError::Malformed("token"))?;
        let token = token
            .token
            .or(token.access_token)
            .ok_or(OciError::Malformed("token"))?;
        sensitive(&format!("Bearer {token}")).ok_or(OciError::Malformed("token"))
    }

    fn basic(&self) -> Option<HeaderValue> {
        let login = self.access.login.as_ref()?;
        let pair = [login.user.as_bytes(), b":", login.password.expose()].concat();
        let pair = Zeroizing::new(pair);
        sensitive(&format!("Basic {}", BASE64.encode(&pair)))
    }

    async fn once(
        &self,
        target: &Target,
        ask: &Ask<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Answer, OciError> {
        if target.scheme == Scheme::Http && !self.access.plain_http {
            return Err(OciError::Redirect("without TLS"));
        }
        let uri = match &target.query {
            Some(query) => format!("{}?{query}", target.path),
            None => target.path.clone(),
        };
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(uri)
            .header(HOST, target.authority())
            .header(USER_AGENT, "loopback");
        for (name, value) in ask.headers {
            request = request.header(name, *value);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request
            .body(Full::new(Bytes::copy_from_slice(ask.body)))
            .map_err(|_| OciError::Malformed("address"))?;
        let progress = std::sync::Arc::new(Progress::default());
        let permits = |address| self.permits(target, address);
        let mut stream = self
            .dialler
            .connect(&target.host, target.port, permits, &progress)
            .await
            .map_err(OciError::Network)?;
        if target.scheme == Scheme::Https {
            stream = self
                .dialler
                .secure(stream, target, &self.access.profile, &progress)
                .await
                .map_err(OciError::Network)?;
        }
        wire::exchange(stream, request, ask.limit, &progress)
            .await
            .map_err(|error| match error.code.as_str() {
                code::RESPONSE_TOO_LARGE => OciError::TooLarge {
                    what: ask.what,
                    limit: ask.limit,
                },
                _ => OciError::Network(error),
            })
    }

    /// A registry that the operator named lies where they say, on this machine only if they say
    /// so; others lie at public addresses, or in networks that the operator has named.
    fn permits(&self, target: &Target, address: IpAddr) -> bool {
        let ours = self.access.named && self.is_registry(target);
        if !ours && !self.access.plain_http {
            return address::permits(&[], address)
                || address::permits_listed(&self.access.networks, address);
        }
        let mut networks = vec!["0.0.0.0/0", "::/0"];
        if self.access.plain_http {
            networks.extend(["127.0.0.0/8", "::1/128"]);
        }
        let networks: Vec<Cidr> = networks
            .into_iter()
            .filter_map(|network| network.parse().ok())
            .chain(self.access.networks.iter().copied())
            .collect();
        address::permits_listed(&networks, address)
    }
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer
        .headers
        .iter()
        .find(|(header, _)| header == name)
        .map(|(_, value)| value.as_str())
}

/// Where a `Location` leads: an URL, or a path on the same host.
fn resolved(from: &Target, location: &str) -> Result<Target, OciError> {
    let absolute = if location.starts_with('/') && !location.starts_with("//") {
        format!("{}://{}{location}", from.scheme.as_str(), from.authority())
    } else {
        location.to_owned()
    };
    Target::parse(&absolute).map_err(|_| OciError::Malformed("location"))
}

/// A parameter of a challenge: `name="value"`, without escapes.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let mut rest = parameters;
    while let Some((key, behind)) = rest.split_once("=\"") {
        let (value, behind) = behind.split_once('"')?;
        if key
            .trim_start_matches([',', ' '])
            .eq_ignore_ascii_case(name)
        {
            return Some(value.to_owned());
        }
        rest = behind;
    }
    None
}

fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let text = r#"realm="https://auth.example/token",service="reg.example",scope="a:b,c:pull""#;
        let read = |name| parameter(text, name);
        assert_eq!(read("realm").as_deref(), Some("https://auth.example/token"));
        assert_eq!(read("service").as_deref(), Some("reg.example"));
        assert_eq!(read("scope").as_deref(), Some("a:b,c:pull"));
        assert_eq!(read("other"), None);
        assert_eq!(parameter("realm=\"x", "realm"), None);
        assert_eq!(parameter("", "realm"), None);
    }

    #[test]
    fn a_location_is_a_path_or_an_url() {
        let from = Target::parse("https://r.example:5000/v2/").expect("an URL");
        let to = |location| {
            resolved(&from, location)
                .map(|it| it.authority() + &it.path)
                .ok()
        };
        assert_eq!(to("/x?y"), Some("r.example:5000/x".into()));
        assert_eq!(to("https://cdn.example/x"), Some("cdn.example/x".into()));
        for odd in ["", "x", "//evil.example/x", "file:///etc/passwd"] {
            assert_eq!(to(odd), None, "{odd}");
        }
    }

    #[test]
    fn where_a_registry_may_lie_depends_on_who_named_it() {
        let dialler = Dialler::new(std::sync::Arc::new(crate::SystemResolver::default()));
        let reference: Reference = "r.example/a:1".parse().expect("a reference");
        let registry = Target::parse("https://r.example/v2/").expect("an URL");
        let other = Target::parse("https://cdn.example/").expect("an URL");
        let (public, private, here, metadata) =
            ("1.1.1.1", "10.1.2.3", "127.0.0.1", "169.254.169.254");
        let stranger = Access::default();
        let named = Access {
            named: true,
            ..Access::default()
        };
        let networks = Access {
            networks: vec![
                "10.0.0.0/8".parse().expect("a network"),
                "127.0.0.0/8".parse().expect("a network"),
            ],
            ..named.clone()
        };
        let plain = Access {
            plain_http: true,
            ..Access::default()
        };
        for (access, target, may) in [
            (&stranger, &registry, &[public][..]),
            (&stranger, &other, &[public]),
            (&named, &registry, &[public, private]),
            (&named, &other, &[public]),
            (&networks, &registry, &[public, private, here]),
            (&networks, &other, &[public, private, here]),
            (&plain, &registry, &[public, private, here]),
        ] {
            let session = Session::new(&dialler, &reference, access, "pull");
            for text in [public, private, here, metadata] {
                let address = text.parse().expect("an address");
                let expected = may.contains(&text);
                assert_eq!(
                    session.permits(target, address),
                    expected,
                    "{target:?} at {text} by {access:?}"
                );
            }
        }
    }
}
