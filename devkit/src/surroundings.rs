//! What a plugin meets in a test: a server that answers from a list, secrets and values of the
//! test's own, and a clock that stands still.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use model::names::Name;
use plugin_host::Clock;
use plugin_host::ports::{
    CallContext, Credential, Datagrams, Egress, ErrorKind, GuestError, HttpRequest, HttpResponse,
    Secret, SecretValue, Secrets, Services, State, StateEntry,
};

use crate::datagrams::{Channel, Datagram};
use crate::fixture::{Exchange, Fixture};

/// The surroundings of one test.
pub(crate) struct Scene {
    now_ms: u64,
    remaining_ms: Option<u64>,
    secrets: BTreeMap<Name, String>,
    inner: Mutex<Inner>,
    itself: Weak<Self>,
}

struct Inner {
    http: VecDeque<(usize, Exchange)>,
    datagrams: VecDeque<(usize, Datagram)>,
    wake: VecDeque<String>,
    state: BTreeMap<String, StateEntry>,
    complaints: Vec<String>,
}

impl Scene {
    pub(crate) fn of(fixture: &Fixture) -> Arc<Self> {
        let entry = |value: &String| StateEntry {
            value: value.clone().into_bytes(),
            revision: 1,
        };
        Arc::new_cyclic(|itself| Self {
            itself: itself.clone(),
            now_ms: fixture.now_ms,
            remaining_ms: fixture.remaining_ms,
            secrets: fixture.secrets.clone(),
            inner: Mutex::new(Inner {
                http: (1..).zip(fixture.http.iter().cloned()).collect(),
                datagrams: (1..).zip(fixture.datagram.iter().cloned()).collect(),
                wake: fixture.wake.iter().cloned().collect(),
                state: fixture
                    .state
                    .iter()
                    .map(|(key, value)| (key.clone(), entry(value)))
                    .collect(),
                complaints: Vec::new(),
            }),
        })
    }

    pub(crate) fn services(self: &Arc<Self>) -> Services {
        Services {
            secrets: self.clone(),
            egress: self.clone(),
            state: self.clone(),
        }
    }

    /// What was not as the test says.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut inner = self.lock();
        let mut complaints = std::mem::take(&mut inner.complaints);
        for (number, _) in &inner.http {
            complaints.push(format!("request {number} was not made"));
        }
        for (number, _) in &inner.datagrams {
            complaints.push(format!("datagram {number} was not sent"));
        }
        for mac in &inner.wake {
            complaints.push(format!("{mac} was not woken"));
        }
        complaints
    }

    /// The values there are, as text.
    pub(crate) fn state(&self) -> BTreeMap<String, String> {
        let text = |entry: &StateEntry| String::from_utf8_lossy(&entry.value).into_owned();
        let inner = self.lock();
        inner
            .state
            .iter()
            .map(|(key, entry)| (key.clone(), text(entry)))
            .collect()
    }

    /// The next datagram that is to be sent, and its number.
    pub(crate) fn next_datagram(&self) -> Option<(usize, Datagram)> {
        self.lock().datagrams.pop_front()
    }

    pub(crate) fn complain(&self, what: String) {
        self.lock().complaints.push(what);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for Scene {
    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn remaining_ms(&self, actual: u64) -> u64 {
        self.remaining_ms.unwrap_or(actual)
    }
}

#[async_trait]
impl Secrets for Scene {
    async fn open(&self, _: &CallContext, name: &Name) -> Result<Secret, GuestError> {
        let value = self.secrets.get(name).ok_or_else(|| {
            GuestError::new(
                ErrorKind::NotFound,
                "secret.not_found",
                "the test has no such secret",
            )
        })?;
        Ok(Secret {
            name: name.clone(),
            version: 1,
            value: SecretValue::new(value.clone().into_bytes()),
        })
    }
}

#[async_trait]
impl Egress for Scene {
    async fn send(
        &self,
        _: &CallContext,
        request: HttpRequest,
        credentials: Vec<Credential>,
    ) -> Result<HttpResponse, GuestError> {
        let mut inner = self.lock();
        let Some((number, exchange)) = inner.http.pop_front() else {
            let what = format!("an unexpected request: {} {}", request.method, request.url);
            inner.complaints.push(what.clone());
            return Err(GuestError::new(ErrorKind::Denied, "test.unexpected", what));
        };
        let found = exchange.differs(&request, &credentials);
        let found = found
            .into_iter()
            .map(|what| format!("request {number}: {what}"));
        inner.complaints.extend(found);
        exchange.answer()
    }

    async fn datagrams(
        &self,
        _: &CallContext,
        endpoint: &str,
        _: Option<&str>,
    ) -> Result<Box<dyn Datagrams>, GuestError> {
        let scene = self.itself.upgrade().ok_or_else(|| {
            let what = "the test has ended";
            GuestError::new(ErrorKind::Cancelled, "test.ended", what)
        })?;
        Ok(Box::new(Channel::new(scene, endpoint)))
    }

    async fn wake_on_lan(
        &self,
        _: &CallContext,
        mac: &str,
        _: Option<&str>,
    ) -> Result<(), GuestError> {
        let wanted = self.lock().wake.pop_front();
        if wanted.as_deref() == Some(mac) {
            return Ok(());
        }
        let what = match wanted {
            Some(wanted) => format!("{mac} is woken, not {wanted}"),
            None => format!("an unexpected packet for {mac}"),
        };
        self.complain(what.clone());
        Err(GuestError::new(ErrorKind::Denied, "test.unexpected", what))
    }
}

#[async_trait]
impl State for Scene {
    async fn get(&self, _: &CallContext, key: &str) -> Result<Option<StateEntry>, GuestError> {
        Ok(self.lock().state.get(key).cloned())
    }

    async fn put(
        &self,
        _: &CallContext,
        key: &str,
        value: Vec<u8>,
        if_revision: Option<u64>,
    ) -> Result<u64, GuestError> {
        let mut inner = self.lock();
        let present = inner.state.get(key).map_or(0, |entry| entry.revision);
        if if_revision.is_some_and(|wanted| wanted != present) {
            let what = "the value has changed";
            return Err(GuestError::new(ErrorKind::Conflict, "state.revision", what));
        }
        let revision = present + 1;
        inner
            .state
            .insert(key.to_owned(), StateEntry { value, revision });
        Ok(revision)
    }

    async fn delete(&self, _: &CallContext, key: &str) -> Result<(), GuestError> {
        self.lock().state.remove(key);
        Ok(())
    }

    async fn keys(
        &self,
        _: &CallContext,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, GuestError> {
        let inner = self.lock();
        let keys = inner.state.keys().filter(|key| {
            key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)
        });
        Ok(keys.take(limit as usize).cloned().collect())
    }
}
