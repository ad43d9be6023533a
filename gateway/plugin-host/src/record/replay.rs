//! Surroundings that answer from a recorded call.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use model::names::Name;

use super::{Answered, Asked, Body, Exchange, RecordedCall};
use crate::ports::{
    CallContext, Credential, Datagrams, Egress, ErrorKind, GuestError, HttpRequest, HttpResponse,
    Secret, SecretValue, Secrets, Services, State, StateEntry,
};
use crate::surroundings::{Clock, Invocation};

/// A recorded call, to be made again.
#[derive(Clone)]
pub struct Replay {
    rest: Arc<Mutex<Rest>>,
    call: String,
}

struct Rest {
    exchanges: VecDeque<Exchange>,
    diverged: Option<String>,
}

impl Replay {
    /// Of this call.
    pub fn of(call: &RecordedCall) -> Arc<Self> {
        Arc::new(Self {
            rest: Arc::new(Mutex::new(Rest {
                exchanges: call.exchanges.clone().into(),
                diverged: None,
            })),
            call: call.call.clone(),
        })
    }

    /// What to make the plugin with. Secrets are text that says whose place it takes.
    pub fn services(self: &Arc<Self>) -> Services {
        Services {
            secrets: self.clone(),
            egress: self.clone(),
            state: self.clone(),
        }
    }

    /// What to call it with.
    pub fn invocation(self: &Arc<Self>) -> Invocation {
        Invocation {
            call: Some(self.call.clone()),
            clock: Some(self.clone()),
            ..Invocation::default()
        }
    }

    /// The first thing that the plugin did otherwise than recorded: what it asked instead, or did
    /// not ask at all.
    pub fn diverged(&self) -> Option<String> {
        let rest = self.lock();
        rest.diverged.clone().or_else(|| {
            let next = rest.exchanges.front()?;
            Some(format!("did not ask any more: {}", short(&next.asked)))
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, asked: &Asked) -> Result<Answered, GuestError> {
        let mut rest = self.lock();
        let next = rest.exchanges.pop_front();
        match next {
            Some(next) if next.asked == *asked => next.answered.map_err(crate::host::from_words),
            other => {
                let expected = match &other {
                    Some(next) => format!("recorded was {}", short(&next.asked)),
                    None => "nothing more was recorded".to_owned(),
                };
                let what = format!("asked {}, and {expected}", short(asked));
                rest.diverged.get_or_insert(what.clone());
                Err(GuestError::new(
                    ErrorKind::Internal,
                    "replay.diverged",
                    what,
                ))
            }
        }
    }

    fn number(&self, asked: &Asked) -> Result<u64, GuestError> {
        match self.answer(asked)? {
            Answered::Number(number) => Ok(number),
            _ => Err(wrong(asked)),
        }
    }

    fn done(&self, asked: &Asked) -> Result<(), GuestError> {
        self.answer(asked).map(drop)
    }
}

fn wrong(asked: &Asked) -> GuestError {
    let what = format!("the recorded answer does not fit {}", short(asked));
    GuestError::new(ErrorKind::Internal, "replay.wrong_answer", what)
}

fn short(asked: &Asked) -> String {
    model::names::clean(&serde_json::to_string(asked).unwrap_or_default(), 200)
}

#[async_trait]
impl Secrets for Replay {
    async fn open(&self, _: &CallContext, name: &Name) -> Result<Secret, GuestError> {
        let version = self.number(&Asked::Secret(name.to_string()))?;
        Ok(Secret {
            name: name.clone(),
            version,
            value: SecretValue::new(format!("[secret {name}]").into_bytes()),
        })
    }
}

#[async_trait]
impl Egress for Replay {
    async fn send(
        &self,
        _: &CallContext,
        request: HttpRequest,
        credentials: Vec<Credential>,
    ) -> Result<HttpResponse, GuestError> {
        let asked = Asked::Http {
            method: request.method,
            url: request.url,
            headers: request.headers,
            body: Body(request.body),
            credentials: credentials
                .iter()
                .map(|credential| credential.secret.name.to_string())
                .collect(),
        };
        match self.answer(&asked)? {
            Answered::Response {
                status,
                headers,
                body,
            } => Ok(HttpResponse {
                status,
                headers,
                body: body.0,
            }),
            _ => Err(wrong(&asked)),
        }
    }

    async fn datagrams(
        &self,
        _: &CallContext,
        endpoint: &str,
        _: Option<&str>,
    ) -> Result<Box<dyn Datagrams>, GuestError> {
        let asked = Asked::Channel(endpoint.to_owned());
        let Answered::Peer(peer) = self.answer(&asked)? else {
            return Err(wrong(&asked));
        };
        let inner = self.clone();
        Ok(Box::new(ReplayedChannel { peer, inner }))
    }

    async fn wake_on_lan(
        &self,
        _: &CallContext,
        mac: &str,
        _: Option<&str>,
    ) -> Result<(), GuestError> {
        self.done(&Asked::Wake(mac.to_owned()))
    }
}

struct ReplayedChannel {
    peer: SocketAddr,
    inner: Replay,
}

#[async_trait]
impl Datagrams for ReplayedChannel {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    async fn send(&mut self, data: &[u8]) -> Result<(), GuestError> {
        self.inner.done(&Asked::Send(Body(data.to_vec())))
    }

    async fn recv(&mut self, _: Duration) -> Result<Vec<u8>, GuestError> {
        match self.inner.answer(&Asked::Receive)? {
            Answered::Bytes(body) => Ok(body.0),
            _ => Err(wrong(&Asked::Receive)),
        }
    }
}

#[async_trait]
impl State for Replay {
    async fn get(&self, _: &CallContext, key: &str) -> Result<Option<StateEntry>, GuestError> {
        let asked = Asked::Get(key.to_owned());
        match self.answer(&asked)? {
            Answered::Entry(entry) => Ok(entry.map(|(value, revision)| StateEntry {
                value: value.0,
                revision,
            })),
            _ => Err(wrong(&asked)),
        }
    }

    async fn put(
        &self,
        _: &CallContext,
        key: &str,
        value: Vec<u8>,
        if_revision: Option<u64>,
    ) -> Result<u64, GuestError> {
        self.number(&Asked::Put {
            key: key.to_owned(),
            value: Body(value),
            if_revision,
        })
    }

    async fn delete(&self, _: &CallContext, key: &str) -> Result<(), GuestError> {
        self.done(&Asked::Delete(key.to_owned()))
    }

    async fn keys(
        &self,
        _: &CallContext,
        prefix: &str,
        _: Option<&str>,
        _: u32,
    ) -> Result<Vec<String>, GuestError> {
        let asked = Asked::Keys(prefix.to_owned());
        match self.answer(&asked)? {
            Answered::Names(names) => Ok(names),
            _ => Err(wrong(&asked)),
        }
    }
}

impl Clock for Replay {
    fn now_ms(&self) -> u64 {
        self.number(&Asked::Now).unwrap_or(0)
    }

    fn remaining_ms(&self, actual: u64) -> u64 {
        self.number(&Asked::Remaining).unwrap_or(actual)
    }
}
