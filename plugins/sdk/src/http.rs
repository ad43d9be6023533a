//! Requests and what comes back.

use serde::Serialize;

use crate::{Error, ErrorKind};

/// Where in a request a secret goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// `Authorization: Bearer`.
    Bearer,
    /// `Authorization: Basic` with this user.
    BasicUser(String),
    /// A header of its own.
    Header {
        /// Its name.
        name: String,
        /// What stands before the secret.
        prefix: String,
    },
    /// A cookie.
    Cookie(String),
    /// A query parameter. Prefer others: addresses end up in logs of servers.
    Query(String),
    /// In the path, instead of this text.
    Path(String),
    /// A string in a JSON body.
    JsonPointer(String),
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// As in `GET`.
    pub method: String,
    /// Absolute.
    pub url: String,
    /// Without those that the gateway adds.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Names of secrets, and where each goes.
    pub credentials: Vec<(String, Placement)>,
    /// How the server proves itself: a name from the grant.
    pub tls_profile: Option<String>,
    /// Through which agents: a name from the grant.
    pub route: Option<String>,
    /// Zero: what is left of the call.
    pub timeout_ms: u32,
    /// Zero: as much as the grant allows.
    pub max_response_bytes: u32,
}

impl Request {
    /// Without a body.
    pub fn new(method: &str, url: &str) -> Self {
        Self {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            credentials: Vec::new(),
            tls_profile: None,
            route: None,
            timeout_ms: 0,
            max_response_bytes: 0,
        }
    }

    /// `GET`.
    pub fn get(url: &str) -> Self {
        Self::new("GET", url)
    }

    /// `POST` of bytes.
    pub fn post(url: &str, content_type: &str, body: Vec<u8>) -> Self {
        let mut request = Self::new("POST", url).header("content-type", content_type);
        request.body = body;
        request
    }

    /// `POST` of JSON.
    pub fn post_json(url: &str, body: &impl Serialize) -> Result<Self, Error> {
        Ok(Self::post(
            url,
            "application/json",
            serde_json::to_vec(body)?,
        ))
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a secret in it, by the plugin's name for it.
    #[must_use]
    pub fn secret(mut self, name: &str, placement: Placement) -> Self {
        self.credentials.push((name.to_owned(), placement));
        self
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// As much of an answer as helps to understand it.
const EXCERPT: usize = 200;

impl Response {
    /// The first header of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The answer, if its status is 2xx; else the error that fits the status: 429 and 503 are
    /// tried again, when the server says so (`Retry-After`), 408, 425 and 5xx are tried again,
    /// other 4xx and 3xx (redirects are not followed) are not.
    ///
    /// `code` is what the error's code begins with, as in `webhook`.
    pub fn success(self, code: &str, now_ms: u64) -> Result<Self, Error> {
        let kind = match self.status {
            200..=299 => return Ok(self),
            401 | 407 => ErrorKind::Auth,
            403 => ErrorKind::Forbidden,
            404 | 410 => ErrorKind::NotFound,
            408 => ErrorKind::Timeout,
            409 => ErrorKind::Conflict,
            425 | 429 => ErrorKind::Throttled,
            503 => ErrorKind::Busy,
            500..=599 => ErrorKind::Upstream,
            _ => ErrorKind::Invalid,
        };
        let mut error = Error::new(
            kind,
            &format!("{code}.status_{}", self.status),
            format!("the server answered with status {}", self.status),
        );
        if matches!(kind, ErrorKind::Throttled | ErrorKind::Busy) {
            error.retry_after_ms = self
                .header("retry-after")
                .and_then(|value| retry_after_ms(value, now_ms));
        }
        if let Some(to) = self.header("location").filter(|_| self.status < 400) {
            error = error.detail("location", to);
        }
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(EXCERPT)]);
        if !text.trim().is_empty() {
            error = error.detail("answer", text.trim());
        }
        Err(error)
    }
}

/// Seconds, or a date as in `Sun, 06 Nov 1994 08:49:37 GMT`. At most a day: what a server says
/// beyond that is a mistake of its clock or ours.
fn retry_after_ms(value: &str, now_ms: u64) -> Option<u64> {
    const DAY_MS: u64 = 86_400_000;
    let value = value.trim();
    let ms = match value.parse::<u64>() {
        Ok(seconds) => seconds.saturating_mul(1000),
        Err(_) => http_date_ms(value)?.saturating_sub(now_ms),
    };
    Some(ms.min(DAY_MS))
}

fn http_date_ms(text: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let (_, rest) = text.split_once(", ")?;
    let parts: Vec<_> = rest.split(' ').collect();
    let [day, month, year, time, "GMT"] = parts[..] else {
        return None;
    };
    let month = u64::try_from(MONTHS.find(month)? / 3 + 1).ok()?;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let clock: Vec<u64> = time
        .split(':')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    let [hours, minutes, seconds] = clock[..] else {
        return None;
    };
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    // Years begin in March, so that the leap day is the last of one.
    let shifted = if month > 2 { year } else { year - 1 };
    let month_index = (month + 9) % 12;
    let days = shifted * 365 + shifted / 4 - shifted / 100
        + shifted / 400
        + (month_index * 306 + 5) / 10
        + (day - 1);
    let since_1970 = days.checked_sub(719_468)?;
    Some((since_1970 * 86_400 + hours * 3600 + minutes * 60 + seconds) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, headers: &[(&str, &str)]) -> Result<Response, Error> {
        Response {
            status,
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            body: b"because".to_vec(),
        }
        .success("hook", 784_111_770_000)
    }

    #[test]
    fn statuses_become_kinds_that_are_tried_again_or_not() {
        assert!(answered(204, &[]).is_ok());
        for (status, kind) in [
            (302, ErrorKind::Invalid),
            (400, ErrorKind::Invalid),
            (401, ErrorKind::Auth),
            (403, ErrorKind::Forbidden),
            (404, ErrorKind::NotFound),
            (408, ErrorKind::Timeout),
            (429, ErrorKind::Throttled),
            (500, ErrorKind::Upstream),
            (503, ErrorKind::Busy),
            (599, ErrorKind::Upstream),
        ] {
            let error = answered(status, &[]).unwrap_err();
            assert_eq!(error.kind, kind, "{status}");
            assert_eq!(error.code, format!("hook.status_{status}"));
            assert_eq!(error.details[0].value, "because");
            let again = matches!(status, 408 | 429 | 500..);
            assert_eq!(error.is_transient(), again, "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_at_most_a_day() {
        for (value, ms) in [
            ("7", Some(7_000)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7_000)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("Thu, 29 Feb 2096 09:08:09 GMT", Some(86_400_000)),
            ("99999999999999999999", None),
            ("9999999999999", Some(86_400_000)),
            ("soon", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
        ] {
            let error = answered(429, &[("retry-after", value)]).unwrap_err();
            assert_eq!(error.retry_after_ms, ms, "{value}");
        }
    }

    #[test]
    fn dates_become_the_right_milliseconds() {
        assert_eq!(http_date_ms("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(
            http_date_ms("Tue, 29 Feb 2000 23:59:59 GMT"),
            Some(951_868_799_000)
        );
    }
}
