//! For native tests of plugins: a host that answers what it was told to and remembers what it was
//! asked, and the log lines of a test. What a test shows with it is the plugin's own logic; limits,
//! grants and the component itself are what `loopback-plugin test` is for.

use std::cell::RefCell;

use crate::log::Level;

thread_local! {
    static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn keep(level: Level, message: &str, fields: &[(String, String)]) {
    let level = match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    let mut line = format!("{level} {message}");
    for (key, value) in fields {
        line.push_str(&format!(" {key}={value}"));
    }
    LOG.with_borrow_mut(|lines| lines.push(line));
}

/// The lines that this thread's plugin has logged since the last time, as in `warn odd key=value`.
pub fn log_lines() -> Vec<String> {
    LOG.take()
}

#[cfg(any(feature = "notifier", feature = "power"))]
pub use fake::FakeHost;

#[cfg(any(feature = "notifier", feature = "power"))]
mod fake {
    use std::cell::{Cell, RefCell};
    use std::collections::{BTreeMap, VecDeque};

    use crate::host::{AwsKey, AwsRequest, Datagrams, Entry, Hash, Host};
    use crate::http::{Request, Response};
    use crate::{Error, ErrorKind};

    /// A host for tests. Requests are answered in the order of `answer`; one too many fails.
    #[derive(Default)]
    pub struct FakeHost {
        answers: RefCell<VecDeque<Result<Response, Error>>>,
        requests: RefCell<Vec<Request>>,
        values: RefCell<BTreeMap<String, Entry>>,
        now_ms: Cell<u64>,
        spent_ms: Cell<u64>,
        each_request_ms: Cell<u64>,
        datagrams: RefCell<VecDeque<Box<dyn Datagrams>>>,
        woken: RefCell<Vec<String>>,
        secret_version: Cell<u64>,
    }

    /// How long a call may take.
    const CALL_MS: u64 = 10_000;

    impl FakeHost {
        /// At this time.
        pub fn at(now_ms: u64) -> Self {
            let host = Self::default();
            host.now_ms.set(now_ms);
            host
        }

        /// The next request is answered with this status, these headers and this body.
        #[must_use]
        pub fn answer(self, status: u16, headers: &[(&str, &str)], body: &str) -> Self {
            let headers = headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            self.answers.borrow_mut().push_back(Ok(Response {
                status,
                headers: headers.collect(),
                body: body.as_bytes().to_vec(),
            }));
            self
        }

        /// The next request fails.
        #[must_use]
        pub fn fail(self, error: Error) -> Self {
            self.answers.borrow_mut().push_back(Err(error));
            self
        }

        /// Each request takes this long.
        #[must_use]
        pub fn slow(self, ms: u64) -> Self {
            self.each_request_ms.set(ms);
            self
        }

        /// The next way for datagrams leads to this peer.
        #[must_use]
        pub fn peer(self, peer: Box<dyn Datagrams>) -> Self {
            self.datagrams.borrow_mut().push_back(peer);
            self
        }

        /// Secrets have this version.
        #[must_use]
        pub fn secrets_at(self, version: u64) -> Self {
            self.secret_version.set(version);
            self
        }

        /// Whom a Wake-on-LAN packet was sent for.
        pub fn woken(&self) -> Vec<String> {
            self.woken.borrow().clone()
        }

        /// What was asked.
        pub fn requests(&self) -> Vec<Request> {
            self.requests.borrow().clone()
        }
    }

    impl Host for FakeHost {
        fn send(&self, request: &Request) -> Result<Response, Error> {
            self.requests.borrow_mut().push(request.clone());
            self.spent_ms
                .set(self.spent_ms.get() + self.each_request_ms.get());
            let next = self.answers.borrow_mut().pop_front();
            next.unwrap_or_else(|| {
                Err(Error::new(
                    ErrorKind::Denied,
                    "test.no_answer",
                    "the test has no answer left",
                ))
            })
        }

        /// Not a MAC, and recognisable: the secret's name, the hash and the data.
        fn hmac(&self, secret: &str, hash: Hash, data: &[u8]) -> Result<Vec<u8>, Error> {
            let mut mac = format!("{secret} {hash:?} ").into_bytes();
            mac.extend_from_slice(data);
            Ok(mac)
        }

        /// Not a signature, and recognisable: what it covers, and with which secrets.
        fn aws_sigv4(
            &self,
            key: &AwsKey<'_>,
            request: AwsRequest,
        ) -> Result<Vec<(String, String)>, Error> {
            let signed = format!(
                "{} {} {} {}/{}",
                key.id, request.method, request.url, request.region, request.service
            );
            Ok(vec![("authorization".to_owned(), signed)])
        }

        fn datagrams(&self, endpoint: &str, _: Option<&str>) -> Result<Box<dyn Datagrams>, Error> {
            let waiting = self.datagrams.borrow_mut().pop_front();
            match waiting {
                Some(peer) => Ok(peer),
                None => Err(Error::new(
                    ErrorKind::Unreachable,
                    "test.no_peer",
                    format!("the test has no peer left for {endpoint}"),
                )),
            }
        }

        fn wake_on_lan(&self, mac: &str, _: Option<&str>) -> Result<(), Error> {
            self.woken.borrow_mut().push(mac.to_owned());
            Ok(())
        }

        fn secret_version(&self, _: &str) -> Result<u64, Error> {
            Ok(self.secret_version.get())
        }

        fn state_get(&self, key: &str) -> Result<Option<Entry>, Error> {
            Ok(self.values.borrow().get(key).cloned())
        }

        fn state_put(
            &self,
            key: &str,
            value: &[u8],
            if_revision: Option<u64>,
        ) -> Result<u64, Error> {
            let mut values = self.values.borrow_mut();
            let present = values.get(key).map_or(0, |entry| entry.revision);
            if if_revision.is_some_and(|wanted| wanted != present) {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "state.revision",
                    "changed meanwhile",
                ));
            }
            let revision = present + 1;
            let value = value.to_vec();
            values.insert(key.to_owned(), Entry { value, revision });
            Ok(revision)
        }

        fn state_delete(&self, key: &str) -> Result<(), Error> {
            self.values.borrow_mut().remove(key);
            Ok(())
        }

        fn now_ms(&self) -> u64 {
            self.now_ms.get() + self.spent_ms.get()
        }

        fn remaining_ms(&self) -> u64 {
            CALL_MS.saturating_sub(self.spent_ms.get())
        }

        fn cancelled(&self) -> bool {
            false
        }

        fn operation_id(&self) -> String {
            "call_test".to_owned()
        }
    }
}

#[cfg(feature = "power")]
pub use power::{operation, target};

#[cfg(feature = "power")]
mod power {
    use crate::power::{Action, Operation, Target};

    /// A target at this address, with a TLS profile and a route that requests must name.
    pub fn target(address: &str) -> Target {
        Target {
            host: "hst_1".to_owned(),
            address: address.to_owned(),
            params: "{}".to_owned(),
            tls_profile: Some("pinned".to_owned()),
            route: Some("inside".to_owned()),
        }
    }

    /// An operation that is to be submitted for the first time.
    pub fn operation(action: Action) -> Operation {
        Operation {
            id: "pop_1".to_owned(),
            attempt: 1,
            action,
            boot: None,
            deadline_ms: 1,
            before: None,
        }
    }
}
