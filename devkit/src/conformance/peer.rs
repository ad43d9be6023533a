//! The peer: it answers by what it is asked and not by when, so that a provider is free in what it
//! asks first, and it remembers what would have changed something.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use plugin_host::ports::{
    CallContext, Credential, Datagrams, Egress, ErrorKind, GuestError, HttpRequest, HttpResponse,
};
use plugin_host::power::Action;

use super::script::{ROUTE, TLS_PROFILE};
use crate::fixture::Exchange;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Role {
    /// It does an action to the machine.
    Submit(Action),
    /// It asks how something goes on, or calls it off.
    Follow,
    /// It asks how the machine is.
    State,
    /// Anything else.
    Other,
}

struct Route {
    role: Role,
    wanted: Exchange,
    reply: Exchange,
}

/// The other side of one call.
pub(super) struct Peer {
    routes: Vec<Route>,
    /// Whether the call is about a target.
    targeted: bool,
    seen: Mutex<Seen>,
}

/// What came.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) requests: usize,
    pub(super) submits: Vec<Action>,
    pub(super) complaints: Vec<String>,
}

impl Peer {
    /// Knows nothing yet.
    pub(super) fn new() -> Self {
        Self {
            routes: Vec::new(),
            targeted: true,
            seen: Mutex::default(),
        }
    }

    pub(super) fn without_target(mut self) -> Self {
        self.targeted = false;
        self
    }

    /// Answers these requests. The first that fits counts.
    pub(super) fn knows(mut self, role: Role, exchanges: &[Exchange]) -> Self {
        self.routes.extend(exchanges.iter().map(|exchange| Route {
            role,
            wanted: exchange.clone(),
            reply: exchange.clone(),
        }));
        self
    }

    /// Answers what the other answers, too.
    pub(super) fn with(mut self, other: Self) -> Self {
        self.routes.extend(other.routes);
        self
    }

    /// Answers requests of this role with this instead.
    pub(super) fn replying(mut self, role: Role, reply: &Exchange) -> Self {
        for route in self.routes.iter_mut().filter(|route| route.role == role) {
            route.reply = reply.clone();
        }
        self
    }

    /// Answers requests of this role with half of what it says.
    pub(super) fn cutting(mut self, role: Role) -> Self {
        for route in self.routes.iter_mut().filter(|route| route.role == role) {
            route.reply = route.wanted.cut();
        }
        self
    }

    pub(super) fn shared(self) -> Arc<Self> {
        Arc::new(self)
    }

    pub(super) fn seen(&self) -> Seen {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Egress for Peer {
    async fn send(
        &self,
        _: &CallContext,
        request: HttpRequest,
        _: Vec<Credential>,
    ) -> Result<HttpResponse, GuestError> {
        let mut seen = self.lock();
        seen.requests += 1;
        let what = format!("{} {}", request.method, request.url);
        if self.targeted {
            if request.tls_profile.as_deref() != Some(TLS_PROFILE) {
                let complaint = format!("{what} does not carry the target's tls-profile");
                seen.complaints.push(complaint);
            }
            if request.route.as_deref() != Some(ROUTE) {
                let complaint = format!("{what} does not carry the target's route");
                seen.complaints.push(complaint);
            }
        }
        let route = self.routes.iter().find(|route| {
            let usual = match route.role {
                Role::Submit(_) => "POST",
                Role::Follow | Role::State | Role::Other => "GET",
            };
            route.wanted.is(&request, usual)
        });
        let Some(route) = route else {
            let body = String::from_utf8_lossy(&request.body);
            let complaint = format!("an unexpected request: {what} {body}");
            seen.complaints.push(complaint);
            let what = "the peer knows no such request";
            return Err(GuestError::new(ErrorKind::Denied, "test.unexpected", what));
        };
        if let Role::Submit(action) = route.role {
            seen.submits.push(action);
        }
        route.reply.answer()
    }

    async fn datagrams(
        &self,
        _: &CallContext,
        _: &str,
        _: Option<&str>,
    ) -> Result<Box<dyn Datagrams>, GuestError> {
        Err(no_datagrams())
    }

    async fn wake_on_lan(
        &self,
        _: &CallContext,
        _: &str,
        _: Option<&str>,
    ) -> Result<(), GuestError> {
        Err(no_datagrams())
    }
}

fn no_datagrams() -> GuestError {
    let what = "the peer speaks HTTP only";
    GuestError::new(ErrorKind::Unsupported, "test.datagrams", what)
}
