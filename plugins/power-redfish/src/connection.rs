//! Requests to one controller, with whatever it wants to see first.
//!
//! There are two ways, and they differ in what an error means. What is *asked* changes nothing, so
//! that its outcome is known whatever became of it, and it may be asked twice. What is *submitted*
//! is sent once: where its answer is lost or is a 5xx, it may have been done.

use loopback_plugin_sdk::host::Host;
use loopback_plugin_sdk::http::{Placement, Request, Response};
use loopback_plugin_sdk::power::Target;
use loopback_plugin_sdk::{Error, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{Config, Controller, Login, Params};
use crate::place::{Origin, Place};
use crate::refusal;

/// The plugin's name for the password.
const PASSWORD: &str = "password";

/// Pages of Redfish are some kilobytes; whatever is larger is none.
const MOST_BYTES: u32 = 1_048_576;

/// When to come again to a controller that is still settling.
pub(crate) const SETTLING_MS: u64 = 5_000;

/// A controller that is spoken with.
pub(crate) struct Connection<'a> {
    host: &'a dyn Host,
    pub(crate) origin: Origin,
    user: String,
    login: Login,
    timeout_ms: u32,
    tls_profile: Option<String>,
    route: Option<String>,
}

/// A page of a controller.
pub(crate) struct Page {
    pub(crate) json: Value,
    pub(crate) etag: Option<String>,
}

/// What is kept of a session.
#[derive(Debug, Serialize, Deserialize)]
struct Session {
    token: String,
    /// Of the password that it was had for.
    version: u64,
}

impl<'a> Connection<'a> {
    /// To the controller of a target.
    pub(crate) fn of(
        host: &'a dyn Host,
        config: &Config,
        target: &Target,
        params: &Params,
    ) -> Result<Self, Error> {
        let user = params.user.as_ref().unwrap_or(&config.user);
        Ok(Self {
            host,
            origin: Origin::of(&target.address)?,
            user: user.clone(),
            login: config.login,
            timeout_ms: config.timeout_ms,
            tls_profile: target.tls_profile.clone(),
            route: target.route.clone(),
        })
    }

    /// To a controller whose machines are looked for.
    pub(crate) fn to(
        host: &'a dyn Host,
        config: &Config,
        controller: &Controller,
    ) -> Result<Self, Error> {
        Ok(Self {
            host,
            origin: Origin::of(&controller.address)?,
            user: config.user.clone(),
            login: config.login,
            timeout_ms: config.timeout_ms,
            tls_profile: controller.tls_profile.clone(),
            route: controller.route.clone(),
        })
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.host.now_ms()
    }

    /// A page.
    pub(crate) fn page(&self, place: &Place) -> Result<Page, Error> {
        let answer = self.ask(self.request("GET", place))?;
        let answer = refusal::judge(answer, self.now_ms())?;
        let json: Value = serde_json::from_slice(&answer.body).map_err(not_json)?;
        if !json.is_object() {
            return Err(Error::upstream(
                "redfish.not_json",
                "the page is no JSON object",
            ));
        }
        let etag = answer.header("etag").map(str::to_owned);
        let etag = etag.or_else(|| json["@odata.etag"].as_str().map(str::to_owned));
        Ok(Page { json, etag })
    }

    /// Asks, and may ask twice. Whatever becomes of it, nothing was changed by it that matters.
    pub(crate) fn ask(&self, request: Request) -> Result<Response, Error> {
        let answer = match self.login {
            Login::Basic => self.host.send(&self.with_password(request)),
            Login::Session => self.asked_in_session(&request),
        };
        answer.map_err(harmless)
    }

    fn asked_in_session(&self, request: &Request) -> Result<Response, Error> {
        if let Some(token) = self.token()? {
            let answer = self.host.send(&with_token(request.clone(), &token))?;
            if answer.status != 401 {
                return Ok(answer);
            }
            self.forget()?;
        }
        let token = self.log_in()?;
        self.host.send(&with_token(request.clone(), &token))
    }

    /// Submits, once. The answer is good.
    pub(crate) fn submit(&self, request: Request) -> Result<Response, Error> {
        let request = match self.login {
            Login::Basic => self.with_password(request),
            Login::Session => {
                let token = self.token().map_err(harmless)?;
                let token = token.map_or_else(|| self.log_in(), Ok).map_err(harmless)?;
                with_token(request, &token)
            }
        };
        let answer = self.host.send(&request)?;
        if answer.status == 401 && self.login == Login::Session {
            self.forget().map_err(harmless)?;
            let what = "the session ended just before the action; it is begun anew";
            return Err(Error::busy("redfish.session_ended", what).retry_after_ms(1_000));
        }
        let status = answer.status;
        refusal::judge(answer, self.now_ms()).map_err(|mut error| {
            // 503 is said before anything is done: the service is starting, or has too much to do.
            error.outcome_unknown =
                status == 408 || (status >= 500 && !matches!(status, 501 | 503));
            error
        })
    }

    pub(crate) fn request(&self, method: &str, place: &Place) -> Request {
        let mut request = Request::new(method, &self.origin.at(place))
            .header("accept", "application/json")
            .header("odata-version", "4.0");
        request.timeout_ms = self.timeout_ms;
        request.max_response_bytes = MOST_BYTES;
        request.tls_profile.clone_from(&self.tls_profile);
        request.route.clone_from(&self.route);
        request
    }

    pub(crate) fn request_with(
        &self,
        method: &str,
        place: &Place,
        body: &Value,
    ) -> Result<Request, Error> {
        let mut request = self
            .request(method, place)
            .header("content-type", "application/json");
        request.body = serde_json::to_vec(body)?;
        Ok(request)
    }

    fn with_password(&self, request: Request) -> Request {
        request.secret(PASSWORD, Placement::BasicUser(self.user.clone()))
    }

    /// A session's token, if there is one that this password was shown for.
    fn token(&self) -> Result<Option<String>, Error> {
        let Some(entry) = self.host.state_get(&self.key())? else {
            return Ok(None);
        };
        let session: Option<Session> = serde_json::from_slice(&entry.value).ok();
        let version = self.host.secret_version(PASSWORD)?;
        let session = session.filter(|session| session.version == version);
        Ok(session.map(|session| session.token))
    }

    fn log_in(&self) -> Result<String, Error> {
        let body = json!({ "UserName": self.user, "Password": "" });
        let request = self.request_with("POST", &Place::sessions(), &body)?;
        let request = request.secret(PASSWORD, Placement::JsonPointer("/Password".to_owned()));
        let answer = self.host.send(&request)?;
        let answer = match answer.status {
            // Some say 400 to a password that is wrong.
            400 => {
                let what = "the controller does not take user and password";
                return Err(Error::new(ErrorKind::Auth, "redfish.login_refused", what));
            }
            404 | 405 | 501 => {
                let what = "the controller has no sessions: set `login` to `basic`";
                return Err(Error::unsupported("redfish.no_sessions", what));
            }
            _ => refusal::judge(answer, self.now_ms())?,
        };
        let Some(token) = answer
            .header("x-auth-token")
            .filter(|token| !token.is_empty())
        else {
            let what = "the controller opened a session and gave no token for it";
            return Err(Error::upstream("redfish.no_token", what));
        };
        let session = Session {
            token: token.to_owned(),
            version: self.host.secret_version(PASSWORD)?,
        };
        // Whoever logs in at the same time has a token that is as good: the later one stays.
        self.host
            .state_put(&self.key(), &serde_json::to_vec(&session)?, None)?;
        Ok(session.token)
    }

    fn forget(&self) -> Result<(), Error> {
        self.host.state_delete(&self.key())
    }

    /// Of controller and user, and within what a key may be, whatever they are.
    fn key(&self) -> String {
        let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        for byte in format!("{} {}", self.origin.as_str(), self.user).bytes() {
            hash = (hash ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
        }
        format!("session/{hash:032x}")
    }
}

fn with_token(request: Request, token: &str) -> Request {
    request.header("x-auth-token", token)
}

/// The outcome of what was asked does not matter.
fn harmless(mut error: Error) -> Error {
    error.outcome_unknown = false;
    error
}

fn not_json(error: serde_json::Error) -> Error {
    Error::upstream("redfish.not_json", format!("the page is no JSON: {error}"))
}
