//! Puts secrets where a request wants them.
//!
//! This happens after the address was read and judged, and can change of it only path and query:
//! no secret, and no marker, moves a request to another host. What a secret looks like on the
//! wire is remembered for [`crate::scrub`].

use data_encoding::BASE64;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderName};
use plugin_host::ports::{Credential, GuestError, Placement};
use zeroize::Zeroizing;

use crate::error::{code, invalid};
use crate::target::Target;
use crate::{head, pointer};

/// Most credentials of a request.
const MAX_CREDENTIALS: usize = 8;

/// A request with its secrets in place.
pub(crate) struct Placed {
    /// `/path?query`.
    pub(crate) path_and_query: Zeroizing<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Secrets in the forms they took, beyond their own bytes.
    pub(crate) forms: Vec<Zeroizing<Vec<u8>>>,
}

/// Puts `credentials` into a request.
pub(crate) fn place(
    target: &Target,
    headers: HeaderMap,
    body: Vec<u8>,
    credentials: &[Credential],
) -> Result<Placed, GuestError> {
    if credentials.len() > MAX_CREDENTIALS {
        return Err(refused(format!("more than {MAX_CREDENTIALS} credentials")));
    }
    let mut query = target.query.clone();
    let mut markers = Vec::new();
    let mut placed = Placed {
        path_and_query: Zeroizing::default(),
        headers,
        body,
        forms: Vec::new(),
    };
    for credential in credentials {
        let name = &credential.secret.name;
        let secret = credential.secret.value.expose();
        match &credential.placement {
            Placement::Bearer => {
                placed.header(AUTHORIZATION, &[b"Bearer ", secret].concat(), name.as_str())?;
            }
            Placement::BasicUser(user) => {
                if user.contains(':') || user.chars().any(char::is_control) {
                    return Err(refused("a user's name with a colon or a control character"));
                }
                let pair = Zeroizing::new([user.as_bytes(), b":", secret].concat());
                let encoded = Zeroizing::new(BASE64.encode(&pair));
                placed
                    .forms
                    .push(Zeroizing::new(encoded.as_bytes().to_vec()));
                let value = Zeroizing::new(format!("Basic {}", *encoded));
                placed.header(AUTHORIZATION, value.as_bytes(), name.as_str())?;
            }
            Placement::Header {
                name: header,
                prefix,
            } => {
                let header = head::name(header)?;
                let value = Zeroizing::new([prefix.as_bytes(), secret].concat());
                placed.header(header, &value, name.as_str())?;
            }
            Placement::Cookie(cookie) => placed.cookie(cookie, secret, name.as_str())?,
            Placement::Query(parameter) => {
                query = Some(with_parameter(query.as_deref(), parameter, secret)?);
            }
            Placement::Path(marker) => markers.push((marker.as_str(), secret)),
            Placement::JsonPointer(pointer) => {
                let text = std::str::from_utf8(secret)
                    .map_err(|_| unfit(name.as_str(), "is not UTF-8, as JSON must be"))?;
                placed.body = pointer::replace(&placed.body, pointer, text)
                    .map_err(|error| refused(error.to_string()))?;
            }
        }
    }
    let mut whole = with_markers(&target.path, &markers)?;
    if let Some(query) = query {
        whole.push('?');
        whole.push_str(&query);
    }
    placed.path_and_query = Zeroizing::new(whole);
    Ok(placed)
}

impl Placed {
    fn header(&mut self, name: HeaderName, value: &[u8], secret: &str) -> Result<(), GuestError> {
        if self.headers.contains_key(&name) {
            return Err(refused(format!(
                "the header {name} is there already, and a credential would be a second one"
            )));
        }
        let mut value = head::value(value).ok_or_else(|| {
            unfit(
                secret,
                "contains what no header may, or ends with a blank or line break",
            )
        })?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(())
    }

    fn cookie(&mut self, cookie: &str, value: &[u8], secret: &str) -> Result<(), GuestError> {
        // A cookie's name is a token, as a header's is.
        if HeaderName::from_bytes(cookie.as_bytes()).is_err() {
            return Err(refused(
                "a cookie's name contains what no cookie's name may",
            ));
        }
        let fits = value
            .iter()
            .all(|byte| byte.is_ascii_graphic() && !b"\",;\\".contains(byte));
        if !fits {
            return Err(unfit(secret, "contains what no cookie may"));
        }
        let mut all = Zeroizing::new(Vec::new());
        for before in self.headers.get_all(COOKIE) {
            all.extend_from_slice(before.as_bytes());
            all.extend_from_slice(b"; ");
        }
        all.extend_from_slice(cookie.as_bytes());
        all.push(b'=');
        all.extend_from_slice(value);
        self.headers.remove(COOKIE);
        self.header(COOKIE, &all, secret)
    }
}

fn with_parameter(
    query: Option<&str>,
    parameter: &str,
    secret: &[u8],
) -> Result<String, GuestError> {
    let name = encoded(parameter.as_bytes(), b"");
    let taken = query.unwrap_or_default().split('&').any(|pair| {
        let key = pair.split('=').next().unwrap_or_default();
        key == name || key == parameter
    });
    if parameter.is_empty() || taken {
        return Err(refused(
            "the query parameter has no name, or is there already",
        ));
    }
    let pair = format!("{name}={}", encoded(secret, b""));
    Ok(match query {
        Some(before) if !before.is_empty() => format!("{before}&{pair}"),
        Some(_) | None => pair,
    })
}

/// The path with each marker replaced. Places are looked up in the path as the plugin gave it, so
/// that no secret is taken for another's marker.
fn with_markers(path: &str, markers: &[(&str, &[u8])]) -> Result<String, GuestError> {
    let mut places = Vec::new();
    for (marker, secret) in markers {
        let mut found = path.match_indices(marker);
        let (Some((at, _)), None, false) = (found.next(), found.next(), marker.is_empty()) else {
            return Err(refused("the marker is not in the path exactly once"));
        };
        places.push((at, at + marker.len(), encoded(secret, b"/:@!$&'()*+,;=")));
    }
    places.sort();
    let mut changed = String::new();
    let mut done = 0;
    for (start, end, secret) in places {
        if start < done {
            return Err(refused("two markers overlap in the path"));
        }
        changed.push_str(&path[done..start]);
        changed.push_str(&secret);
        done = end;
    }
    changed.push_str(&path[done..]);
    if !changed.starts_with('/') {
        changed.insert(0, '/');
    }
    Ok(changed)
}

fn encoded(bytes: &[u8], kept: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) || kept.contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn refused(message: impl Into<String>) -> GuestError {
    invalid(code::PLACEMENT_INVALID, message)
}

fn unfit(secret: &str, why: &str) -> GuestError {
    refused(format!("the secret {secret} {why}"))
}

#[cfg(test)]
mod tests;
