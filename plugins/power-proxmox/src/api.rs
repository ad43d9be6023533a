//! Requests to the API and what its answers mean.

use loopback_plugin_sdk::host::Host;
use loopback_plugin_sdk::http::{Placement, Request, Response};
use loopback_plugin_sdk::{Error, ErrorKind};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::address::is_node;

/// The plugin's name for the secret.
const TOKEN: &str = "token";

/// How a server is spoken with.
pub(crate) struct Client<'a> {
    pub(crate) host: &'a dyn Host,
    /// As in `loopback@pve!power`.
    pub(crate) token_id: String,
    pub(crate) tls_profile: Option<String>,
    pub(crate) route: Option<String>,
}

/// What every answer is wrapped in.
#[derive(Deserialize)]
struct Envelope<T> {
    data: T,
}

/// Where newer servers say what went wrong.
#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    message: String,
}

impl Client<'_> {
    pub(crate) fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, Error> {
        let asked = self.host.send(&self.signed(Request::get(url)));
        // Whatever became of a question, nothing was submitted by it.
        let answer = asked.map_err(|mut error| {
            error.outcome_unknown = false;
            error
        })?;
        read(&self.good(answer)?)
    }

    /// Submits something: the task that it became. Every error that comes after the request may
    /// have arrived says so, unless the server itself said that it did nothing.
    pub(crate) fn submit(&self, url: &str, form: &str) -> Result<String, Error> {
        let kind = "application/x-www-form-urlencoded";
        let request = self.signed(Request::post(url, kind, form.into()));
        let answer = self.host.send(&request)?;
        let status = answer.status;
        let answer = self.good(answer).map_err(|mut error| {
            // What the server says in its own words comes before the task begins, and 503 before
            // that. What else a 5xx means, a proxy between nodes included, nobody can say.
            let said = [LOCKED, REFUSED, ABSENT].contains(&error.code.as_str());
            error.outcome_unknown = status >= 500 && status != 503 && !said;
            error
        })?;
        let unknown = |mut error: Error| {
            error.outcome_unknown = true;
            error
        };
        let task: String = read(&answer).map_err(unknown)?;
        if node_of_task(&task).is_none() {
            let message = "the server did not answer with a task";
            return Err(unknown(Error::upstream("proxmox.no_task", message)));
        }
        Ok(task)
    }

    fn signed(&self, mut request: Request) -> Request {
        request.tls_profile.clone_from(&self.tls_profile);
        request.route.clone_from(&self.route);
        request.secret(
            TOKEN,
            Placement::Header {
                name: "authorization".to_owned(),
                prefix: format!("PVEAPIToken={}=", self.token_id),
            },
        )
    }

    fn good(&self, answer: Response) -> Result<Response, Error> {
        let complaint = complaint(&answer);
        let status = answer.status;
        answer
            .success("proxmox", self.host.now_ms())
            .map_err(|error| match complaint {
                Some((kind, code, message)) if status == 500 => {
                    let mut said = Error::new(kind, code, message);
                    said.details = error.details;
                    said
                }
                _ => error,
            })
    }
}

pub(crate) const LOCKED: &str = "proxmox.locked";
pub(crate) const ABSENT: &str = "proxmox.absent";
const REFUSED: &str = "proxmox.refused";

/// Servers say most of what went wrong with status 500, in words.
fn complaint(answer: &Response) -> Option<(ErrorKind, &'static str, &'static str)> {
    let said: Complaint = serde_json::from_slice(&answer.body).ok()?;
    let has = |text: &str| said.message.contains(text);
    if has("is locked") || has("can't lock file") || has("got lock") {
        let message = "the machine is locked: a backup, a migration or the like is at it";
        return Some((ErrorKind::Busy, LOCKED, message));
    }
    if has("does not exist") {
        let message = "there is no such machine on this node";
        return Some((ErrorKind::NotFound, ABSENT, message));
    }
    if has("not running") || has("already running") {
        let message = "the server does not do this in the state that the machine is in";
        return Some((ErrorKind::Conflict, REFUSED, message));
    }
    None
}

fn read<T: DeserializeOwned>(answer: &Response) -> Result<T, Error> {
    let envelope: Envelope<T> = serde_json::from_slice(&answer.body).map_err(|error| {
        let message = format!("the server's answer is not as its API says: {error}");
        Error::upstream("proxmox.answer", message)
    })?;
    Ok(envelope.data)
}

/// The node that a task runs on: `UPID:NODE:...`. None if it is no task's name, or one that does
/// not fit into a URL as it is.
pub(crate) fn node_of_task(task: &str) -> Option<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ":.@!_-".contains(c);
    let fits = task.len() <= 512 && task.chars().all(plain);
    let node = task.strip_prefix("UPID:")?.split(':').next()?;
    (fits && is_node(node) && task.matches(':').count() >= 7).then_some(node)
}
