//! Surroundings that write down what is asked of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::names::Name;

use super::{Answered, Asked, Body, Transcript, note};
use crate::ports::{
    CallContext, Credential, Datagrams, Egress, GuestError, HttpRequest, HttpResponse, Secret,
    Secrets, Services, State, StateEntry,
};
use crate::surroundings::Clock;

struct Tap {
    inner: Services,
    clock: Arc<dyn Clock>,
    transcript: Transcript,
}

pub(super) fn tap(
    inner: Services,
    clock: Arc<dyn Clock>,
    transcript: &Transcript,
) -> (Services, Arc<dyn Clock>) {
    let tap = Arc::new(Tap {
        inner,
        clock,
        transcript: Arc::clone(transcript),
    });
    let services = Services {
        secrets: tap.clone(),
        egress: tap.clone(),
        state: tap.clone(),
    };
    (services, tap)
}

impl Tap {
    /// Writes an exchange down and passes its answer on.
    fn noted<T>(
        &self,
        asked: Asked,
        answer: Result<T, GuestError>,
        shown: impl FnOnce(&T) -> Answered,
    ) -> Result<T, GuestError> {
        note(&self.transcript, asked, answer.as_ref().map(shown));
        answer
    }
}

#[async_trait]
impl Secrets for Tap {
    async fn open(&self, call: &CallContext, name: &Name) -> Result<Secret, GuestError> {
        let answer = self.inner.secrets.open(call, name).await;
        self.noted(Asked::Secret(name.to_string()), answer, |secret| {
            Answered::Number(secret.version)
        })
    }
}

#[async_trait]
impl Egress for Tap {
    async fn send(
        &self,
        call: &CallContext,
        request: HttpRequest,
        credentials: Vec<Credential>,
    ) -> Result<HttpResponse, GuestError> {
        let asked = Asked::Http {
            method: request.method.clone(),
            url: request.url.clone(),
            headers: request.headers.clone(),
            body: Body(request.body.clone()),
            credentials: credentials
                .iter()
                .map(|credential| credential.secret.name.to_string())
                .collect(),
        };
        let answer = self.inner.egress.send(call, request, credentials).await;
        self.noted(asked, answer, |response| Answered::Response {
            status: response.status,
            headers: response.headers.clone(),
            body: Body(response.body.clone()),
        })
    }

    async fn datagrams(
        &self,
        call: &CallContext,
        endpoint: &str,
        route: Option<&str>,
    ) -> Result<Box<dyn Datagrams>, GuestError> {
        let answer = self.inner.egress.datagrams(call, endpoint, route).await;
        let channel = self.noted(Asked::Channel(endpoint.to_owned()), answer, |channel| {
            Answered::Peer(channel.peer())
        })?;
        Ok(Box::new(TappedChannel {
            inner: channel,
            transcript: Arc::clone(&self.transcript),
        }))
    }

    async fn wake_on_lan(
        &self,
        call: &CallContext,
        mac: &str,
        route: Option<&str>,
    ) -> Result<(), GuestError> {
        let answer = self.inner.egress.wake_on_lan(call, mac, route).await;
        self.noted(Asked::Wake(mac.to_owned()), answer, |()| Answered::Done)
    }
}

struct TappedChannel {
    inner: Box<dyn Datagrams>,
    transcript: Transcript,
}

#[async_trait]
impl Datagrams for TappedChannel {
    fn peer(&self) -> SocketAddr {
        self.inner.peer()
    }

    async fn send(&mut self, data: &[u8]) -> Result<(), GuestError> {
        let answer = self.inner.send(data).await;
        let shown = answer.as_ref().map(|()| Answered::Done);
        note(&self.transcript, Asked::Send(Body(data.to_vec())), shown);
        answer
    }

    async fn recv(&mut self, timeout: Duration) -> Result<Vec<u8>, GuestError> {
        let answer = self.inner.recv(timeout).await;
        let shown = answer
            .as_ref()
            .map(|data| Answered::Bytes(Body(data.clone())));
        note(&self.transcript, Asked::Receive, shown);
        answer
    }
}

#[async_trait]
impl State for Tap {
    async fn get(&self, call: &CallContext, key: &str) -> Result<Option<StateEntry>, GuestError> {
        let answer = self.inner.state.get(call, key).await;
        self.noted(Asked::Get(key.to_owned()), answer, |entry| {
            Answered::Entry(
                entry
                    .as_ref()
                    .map(|entry| (Body(entry.value.clone()), entry.revision)),
            )
        })
    }

    async fn put(
        &self,
        call: &CallContext,
        key: &str,
        value: Vec<u8>,
        if_revision: Option<u64>,
    ) -> Result<u64, GuestError> {
        let asked = Asked::Put {
            key: key.to_owned(),
            value: Body(value.clone()),
            if_revision,
        };
        let answer = self.inner.state.put(call, key, value, if_revision).await;
        self.noted(asked, answer, |revision| Answered::Number(*revision))
    }

    async fn delete(&self, call: &CallContext, key: &str) -> Result<(), GuestError> {
        let answer = self.inner.state.delete(call, key).await;
        self.noted(Asked::Delete(key.to_owned()), answer, |()| Answered::Done)
    }

    async fn keys(
        &self,
        call: &CallContext,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, GuestError> {
        let answer = self.inner.state.keys(call, prefix, after, limit).await;
        self.noted(Asked::Keys(prefix.to_owned()), answer, |keys| {
            Answered::Names(keys.clone())
        })
    }
}

impl Clock for Tap {
    fn now_ms(&self) -> u64 {
        let now = self.clock.now_ms();
        note(&self.transcript, Asked::Now, Ok(Answered::Number(now)));
        now
    }

    fn remaining_ms(&self, actual: u64) -> u64 {
        let left = self.clock.remaining_ms(actual);
        note(
            &self.transcript,
            Asked::Remaining,
            Ok(Answered::Number(left)),
        );
        left
    }
}
