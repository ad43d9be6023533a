//! `loopback:base/http`.
//!
//! What a request may be, where it may go and how the server proves itself is the egress's matter.
//! Here are: how much of it, whether to try at all, and that no secret comes back.

use std::time::{Duration, Instant};

use super::{Answer, denied, invalid};
use crate::breaker::Went;
use crate::contract::base::loopback::base::http::{Credential, Host, Placement, Request, Response};
use crate::ports::{self, ErrorKind, GuestError, HttpRequest, HttpResponse};
use crate::store::{BODY_BYTES, CallState};

/// Credentials in one request.
const MAX_CREDENTIALS: usize = 8;

impl Host for CallState {
    async fn send(&mut self, request: Request, credentials: Vec<Credential>) -> Answer<Response> {
        self.enter()?;
        if credentials.len() > MAX_CREDENTIALS {
            let what = "a request has at most 8 credentials";
            return self.tell(Err(invalid("http.credentials", what)));
        }
        let mut shown = Vec::with_capacity(credentials.len());
        for credential in credentials {
            let secret = self.table.get(&credential.secret)?.clone();
            let placement = match placement(credential.placement) {
                Ok(placement) => placement,
                Err(error) => return self.tell(Err(error)),
            };
            shown.push(ports::Credential { secret, placement });
        }
        let answer = self.http_send(request, shown).await;
        self.tell(answer)
    }
}

impl CallState {
    async fn http_send(
        &mut self,
        request: Request,
        credentials: Vec<ports::Credential>,
    ) -> Result<Response, GuestError> {
        self.surroundings()?;
        let sent = u64::try_from(request.body.len()).unwrap_or(u64::MAX);
        if request.body.len() > BODY_BYTES {
            return Err(invalid("http.body", "a body has at most 4 MiB"));
        }
        let requests = self.budget.http_requests.checked_sub(1);
        let requests = requests
            .ok_or_else(|| denied("limit.http_requests", "no requests are left for this call"))?;
        let bytes = self.budget.http_bytes.checked_sub(sent);
        let bytes = bytes
            .ok_or_else(|| denied("limit.http_bytes", "the body is larger than what is left"))?;

        let target = target(&request.url);
        let around = self.surroundings()?;
        if let Err(rest) = around.guards.targets().ask(&target, Instant::now()) {
            let what = format!("{target} failed repeatedly and is left alone for a while");
            let mut error = GuestError::new(ErrorKind::Unreachable, "breaker.target", what);
            error.retry_after = Some(rest);
            return Err(error);
        }
        for credential in &credentials {
            self.secret_use(&credential.secret)?;
        }
        self.budget.http_requests = requests;
        self.budget.http_bytes = bytes;

        let remaining = self.remaining();
        let asked = Duration::from_millis(request.timeout_ms.into());
        let timeout = if asked.is_zero() {
            remaining
        } else {
            asked.min(remaining)
        };
        let most = match request.max_response_bytes {
            0 => bytes,
            most => bytes.min(most.into()),
        };
        let request = HttpRequest {
            method: request.method,
            url: request.url,
            headers: request.headers,
            body: request.body,
            tls_profile: request.tls_profile,
            route: request.route,
            timeout,
            max_response_bytes: most,
        };
        let around = self.surroundings()?;
        let answer = around
            .services
            .egress
            .send(&around.context, request, credentials)
            .await;
        around
            .guards
            .targets()
            .tell(&target, Instant::now(), went(&answer));
        let response = answer?;
        let received = u64::try_from(response.body.len()).unwrap_or(u64::MAX);
        self.budget.http_bytes = bytes.saturating_sub(received);
        if received > most {
            let what = "the answer is larger than what the call may receive";
            return Err(GuestError::new(
                ErrorKind::Upstream,
                "http.response_size",
                what,
            ));
        }
        Ok(self.without_secrets(response))
    }

    fn without_secrets(&self, response: HttpResponse) -> Response {
        let scrub = |text| self.scrubber.text(text);
        Response {
            status: response.status,
            headers: response
                .headers
                .into_iter()
                .map(|(name, value)| (scrub(name), scrub(value)))
                .collect(),
            body: self.scrubber.bytes(response.body),
        }
    }
}

fn placement(placement: Placement) -> Result<ports::Placement, GuestError> {
    Ok(match placement {
        Placement::Bearer => ports::Placement::Bearer,
        Placement::BasicUser(user) => ports::Placement::BasicUser(user),
        Placement::Header(header) => ports::Placement::Header {
            name: header.name,
            prefix: header.prefix,
        },
        Placement::Cookie(name) => ports::Placement::Cookie(name),
        Placement::Query(name) => ports::Placement::Query(name),
        Placement::Path(text) => ports::Placement::Path(text),
        Placement::JsonPointer(pointer) => ports::Placement::JsonPointer(pointer),
        Placement::Other(_) => {
            let what = "this gateway knows no such place for a secret";
            return Err(GuestError::new(
                ErrorKind::Unsupported,
                "http.placement",
                what,
            ));
        }
    })
}

/// Scheme, host and port as the plugin wrote them: only to tell servers apart.
fn target(url: &str) -> String {
    let rest = url.find("://").map_or(0, |at| at + 3);
    let end = url[rest..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| rest + at);
    model::names::clean(&url[..end], 280).to_ascii_lowercase()
}

/// What an answer says about the server.
fn went(answer: &Result<HttpResponse, GuestError>) -> Went {
    match answer {
        // These say that what stands in front of the server does not reach it.
        Ok(response) if matches!(response.status, 502..=504) => Went::Badly,
        Ok(_) => Went::Well,
        Err(error) => match error.kind {
            ErrorKind::Unreachable | ErrorKind::Timeout => Went::Badly,
            ErrorKind::Invalid
            | ErrorKind::Auth
            | ErrorKind::Forbidden
            | ErrorKind::NotFound
            | ErrorKind::Unsupported
            | ErrorKind::Conflict
            | ErrorKind::Busy
            | ErrorKind::Throttled
            | ErrorKind::Upstream
            | ErrorKind::Denied
            | ErrorKind::Cancelled
            | ErrorKind::Internal
            | ErrorKind::Other => Went::Unclear,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_scheme_host_and_port() {
        for (url, expected) in [
            ("https://H.example:8443/a?b#c", "https://h.example:8443"),
            ("https://h.example?x=/", "https://h.example"),
            ("h.example/x", "h.example"),
            ("", ""),
        ] {
            assert_eq!(target(url), expected);
        }
    }
}
