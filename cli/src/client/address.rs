//! Where a gateway is, and the URL of one operation of it.
//!
//! Everything that comes from outside is percent-encoded down to RFC 3986's
//! unreserved characters, so no parameter can change which operation is called.
//! `.` and `..` as whole parameters are refused: encoding does not help there,
//! because proxies treat `%2e%2e` as a step up, too.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;
use ureq::http::Uri;

/// The URL of a gateway: `https://gateway.example:8443`, perhaps with a path in
/// front of `/v1` where a reverse proxy adds one; or `unix:///path/admin.sock`,
/// the gateway's socket for administrators of its own machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    text: String,
    door: Door,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Door {
    Far,
    Loopback,
    Socket(PathBuf),
}

/// The text is not a URL that a gateway can be at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` cannot be the gateway's URL: {why}; write it as https://gateway.example:8443")]
pub struct BadUrl {
    text: String,
    why: &'static str,
}

impl BaseUrl {
    /// The URL without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it names this machine.
    pub fn is_loopback(&self) -> bool {
        self.door != Door::Far
    }

    /// Whether connections are TLS.
    pub fn is_tls(&self) -> bool {
        self.text.starts_with("https:")
    }

    /// The Unix socket, if it is one.
    pub fn socket(&self) -> Option<&Path> {
        match &self.door {
            Door::Socket(path) => Some(path),
            Door::Far | Door::Loopback => None,
        }
    }

    /// The URL of `template` with its `{parameters}` filled from the fields of
    /// `path`, and the fields of `query` that are not null behind it.
    pub fn of_operation(
        &self,
        template: &str,
        path: &impl Serialize,
        query: &Value,
    ) -> Result<String, BadParameter> {
        let fields = serde_json::to_value(path).map_err(|_| BadParameter::NotAnObject)?;
        // HTTP over a socket still wants a host; this one needs no lookup.
        let mut url = self
            .socket()
            .map_or(self.text.as_str(), |_| "http://127.0.0.1")
            .to_owned();
        for segment in template.split('/').skip(1) {
            url.push('/');
            match segment
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'))
            {
                None => url.push_str(segment),
                Some(name) => {
                    let value = fields
                        .get(name)
                        .and_then(scalar)
                        .ok_or_else(|| BadParameter::Missing(name.to_owned()))?;
                    if matches!(value.as_str(), "" | "." | "..") {
                        return Err(BadParameter::NotASegment(name.to_owned()));
                    }
                    encode_into(&mut url, &value);
                }
            }
        }
        let mut separator = '?';
        for (name, value) in query.as_object().into_iter().flatten() {
            if value.is_null() {
                continue;
            }
            let value = scalar(value).ok_or_else(|| BadParameter::Missing(name.clone()))?;
            url.push(separator);
            encode_into(&mut url, name);
            url.push('=');
            encode_into(&mut url, &value);
            separator = '&';
        }
        Ok(url)
    }
}

/// A parameter that no URL can carry. Typed parameters never are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadParameter {
    /// The parameters do not serialise to an object.
    #[error("the path parameters are not named fields")]
    NotAnObject,
    /// A parameter of the path is absent or not a single value.
    #[error("parameter `{0}` is missing or not a single value")]
    Missing(String),
    /// Empty, `.` or `..`.
    #[error("parameter `{0}` is empty or a dot segment")]
    NotASegment(String),
}

impl FromStr for BaseUrl {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let fail = |why| BadUrl {
            text: model::names::clean(text, 200),
            why,
        };
        if let Some(path) = text.trim().strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                return Err(fail("the path of a socket begins with /"));
            }
            // It is shown to people, and no path has a NUL.
            if model::names::clean(path, usize::MAX) != path {
                return Err(fail("the path of a socket holds control characters"));
            }
            return Ok(Self {
                text: format!("unix://{path}"),
                door: Door::Socket(path.into()),
            });
        }
        let trimmed = text.trim().trim_end_matches('/');
        // It is shown to people, and a URL encodes whatever else it holds.
        if !trimmed.is_ascii() || model::names::clean(trimmed, usize::MAX) != trimmed {
            return Err(fail(
                "it holds control characters or letters that are not ASCII",
            ));
        }
        let uri: Uri = trimmed.parse().map_err(|_| fail("it is not a URL"))?;
        let authority = uri.authority().ok_or_else(|| fail("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(fail("credentials do not belong into a URL"));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(fail("it has a query or a fragment"));
        }
        let loopback = is_loopback(authority.host());
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if loopback => {}
            Some("http") => return Err(fail("plain http is only for this machine itself")),
            _ => return Err(fail("it does not begin with https://")),
        }
        let door = if loopback { Door::Loopback } else { Door::Far };
        Ok(Self {
            text: trimmed.to_owned(),
            door,
        })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn encode_into(url: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push('%');
            url.push_str(&data_encoding::HEXUPPER.encode(&[byte]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn base() -> BaseUrl {
        "https://gw.example:8443/".parse().unwrap()
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for good in [
            "http://127.0.0.1:80",
            "http://[::1]:1",
            "http://localhost",
            "https://gw",
            "https://gw/prefix/",
        ] {
            good.parse::<BaseUrl>().unwrap();
        }
        for bad in [
            "http://gw",
            "gw:8443",
            "",
            "ftp://gw",
            "https://u:p@gw",
            "https://gw/?a=b",
            "https://gw#x",
            "http://127.0.0.1.evil",
            "https://gw/\u{93}",
            "https://g\u{456}thub.example",
        ] {
            let error = bad.parse::<BaseUrl>().unwrap_err().to_string();
            assert!(
                error.contains("https://gateway.example:8443"),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn a_socket_of_this_machine_is_a_gateway_too() {
        for text in ["unix:///run/gw/admin.sock", "unix:/run/gw/admin.sock"] {
            let base: BaseUrl = text.parse().unwrap();
            assert_eq!(
                (base.as_str(), base.is_tls()),
                ("unix:///run/gw/admin.sock", false)
            );
            assert_eq!(base.socket(), Some(Path::new("/run/gw/admin.sock")));
            assert_eq!(
                base.of_operation("/v1/health", &json!({}), &Value::Null)
                    .unwrap(),
                "http://127.0.0.1/v1/health"
            );
        }
        assert!("unix:admin.sock".parse::<BaseUrl>().is_err());
    }

    #[test]
    fn nulls_are_left_out_and_scalars_are_encoded() {
        let query =
            json!({ "selector": "role=web,env!=dev", "limit": 5, "all": true, "after": null });
        let url = base()
            .of_operation("/v1/a/{id}", &json!({ "id": "x/y" }), &query)
            .unwrap();
        assert_eq!(
            url,
            "https://gw.example:8443/v1/a/x%2Fy?all=true&limit=5&selector=role%3Dweb%2Cenv%21%3Ddev"
        );
    }

    #[test]
    fn parameters_that_would_leave_their_place_are_refused() {
        for value in ["", ".", ".."] {
            let error = base()
                .of_operation("/v1/a/{id}", &json!({ "id": value }), &Value::Null)
                .unwrap_err();
            assert_eq!(error, BadParameter::NotASegment("id".to_owned()));
        }
        assert!(
            base()
                .of_operation("/v1/a/{id}", &json!({}), &Value::Null)
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn whatever_the_parameters_hold_the_operation_stays_the_same(
            id in "\\PC{1,40}", value in any::<String>()
        ) {
            prop_assume!(id != "." && id != "..");
            let url = base()
                .of_operation("/v1/things/{id}/parts", &json!({ "id": id }), &json!({ "name": value }))
                .unwrap();
            let uri: Uri = url.parse().unwrap();
            prop_assert_eq!(uri.authority().unwrap().as_str(), "gw.example:8443");
            let segments: Vec<_> = uri.path().split('/').collect();
            prop_assert_eq!(segments.len(), 5);
            prop_assert_eq!((segments[1], segments[2], segments[4]), ("v1", "things", "parts"));
            prop_assert_eq!(decode(segments[3]), id);
            let (name, found) = uri.query().unwrap().split_once('=').unwrap();
            prop_assert_eq!((name, decode(found)), ("name", value));
        }
    }

    fn decode(text: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            if byte == b'%' {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                bytes.extend(data_encoding::HEXUPPER.decode(&digits).unwrap());
            } else {
                bytes.push(byte);
            }
        }
        String::from_utf8(bytes).unwrap()
    }
}
