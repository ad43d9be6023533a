//! A controller, as far as the provider's tests need one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use loopback_plugin_sdk::host::{AwsKey, AwsRequest, Datagrams, Entry, Hash, Host};
use loopback_plugin_sdk::http::{Request, Response};
use loopback_plugin_sdk::testing::FakeHost;
use loopback_plugin_sdk::{Error, ErrorKind};

use crate::codec::crypt::{Keys, Suite};
use crate::codec::message::checksum;
use crate::codec::packet;
use crate::codec::rakp::{self, Console, Controller};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Nothing comes.
    Silent,
    /// Every second packet that is sent does not arrive.
    EverySecondIsLost,
    /// Other datagrams come before each answer.
    Noise,
    /// Each packet takes this long.
    Slow(u64),
    /// This command is carried out, and its answer lost.
    NoAnswerTo(u8),
    /// The controller has this password.
    Password(&'static str),
    /// This step of a handshake is answered with this status.
    Status(u8, u8),
    /// This command is answered with this completion code, and not carried out.
    Completion(u8, u8),
    /// Version 1.5 only.
    Version1,
    /// Boot options are taken and not kept.
    ForgetsBoot,
}

/// The machine behind it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) on: bool,
    pub(crate) told: Vec<u8>,
    pub(crate) boot_flags: Vec<u8>,
    pub(crate) sessions_closed: u32,
}

/// A host with one controller in its network.
pub(crate) struct Scene {
    fake: FakeHost,
    state: Rc<State>,
}

struct State {
    machine: RefCell<Machine>,
    faults: RefCell<Vec<Fault>>,
    opened: RefCell<Vec<String>>,
    spent_ms: Cell<u64>,
}

impl Scene {
    pub(crate) fn new(machine: Machine) -> Self {
        Self {
            fake: FakeHost::at(1_700_000_000_000),
            state: Rc::new(State {
                machine: RefCell::new(machine),
                faults: RefCell::default(),
                opened: RefCell::default(),
                spent_ms: Cell::new(0),
            }),
        }
    }

    pub(crate) fn with(self, fault: Fault) -> Self {
        self.state.faults.borrow_mut().push(fault);
        self
    }

    pub(crate) fn machine(&self) -> Machine {
        self.state.machine.borrow().clone()
    }

    pub(crate) fn opened(&self) -> Vec<String> {
        self.state.opened.borrow().clone()
    }
}

impl State {
    fn has(&self, fault: Fault) -> bool {
        self.faults.borrow().contains(&fault)
    }

    fn find<T>(&self, wanted: impl Fn(Fault) -> Option<T>) -> Option<T> {
        self.faults.borrow().iter().copied().find_map(wanted)
    }
}

#[derive(Default)]
struct Peer {
    waiting: VecDeque<Vec<u8>>,
    sent: u32,
    suite: Option<Suite>,
    console: Option<Console>,
    keys: Option<Keys>,
    answered: u32,
    last: u32,
}

struct Channel {
    state: Rc<State>,
    peer: RefCell<Peer>,
}

const CONTROLLER: u32 = 0x0102_0304;

impl Datagrams for Channel {
    fn send(&self, data: &[u8]) -> Result<(), Error> {
        let mut peer = self.peer.borrow_mut();
        peer.sent += 1;
        let slow = self.state.find(|fault| match fault {
            Fault::Slow(ms) => Some(ms),
            _ => None,
        });
        let spent = self.state.spent_ms.get() + slow.unwrap_or(0);
        self.state.spent_ms.set(spent);
        let lost = self.state.has(Fault::EverySecondIsLost) && peer.sent % 2 == 1;
        if lost || self.state.has(Fault::Silent) {
            return Ok(());
        }
        if let Some(answer) = peer.hear(&self.state, data) {
            if self.state.has(Fault::Noise) {
                peer.waiting
                    .extend([vec![], vec![6, 0, 255, 7], vec![0xaa; 80]]);
                let mut changed = answer.clone();
                *changed.last_mut().unwrap() ^= 1;
                // Of a session: a handshake is not sealed.
                if changed.get(5) == Some(&0xc0) {
                    peer.waiting.push_back(changed);
                }
            }
            peer.waiting.push_back(answer);
        }
        Ok(())
    }

    fn receive(&self, timeout_ms: u32) -> Result<Vec<u8>, Error> {
        self.peer.borrow_mut().waiting.pop_front().ok_or_else(|| {
            let spent = self.state.spent_ms.get() + u64::from(timeout_ms);
            self.state.spent_ms.set(spent);
            Error::new(ErrorKind::Timeout, "datagram.timeout", "nothing came")
        })
    }
}

impl Peer {
    fn hear(&mut self, state: &State, data: &[u8]) -> Option<Vec<u8>> {
        if let Some(message) = packet::plain_message(data) {
            let types = if state.has(Fault::Version1) {
                0x17
            } else {
                0x97
            };
            let answer = answer(message, 0, &[1, types, 6, 3, 0, 0, 0, 0]);
            return Some(packet::plain(&answer));
        }
        let refused = |kind: u8| {
            state.find(|fault| match fault {
                Fault::Status(step, status) if step == kind => Some(status),
                _ => None,
            })
        };
        for kind in [rakp::OPEN, rakp::FIRST, rakp::THIRD] {
            if let Some(payload) = packet::setup_payload(kind, data) {
                if let Some(status) = refused(kind) {
                    return Some(packet::setup(kind + 1, &[payload[0], status]));
                }
                let said = self.step(state, kind, payload);
                return Some(packet::setup(kind + 1, &said));
            }
        }
        let keys = self.keys.clone()?;
        let (sequence, message) = packet::open(&keys, CONTROLLER, data)?;
        assert!(sequence > self.last, "numbers of packets grow");
        self.last = sequence;
        let answer = command(state, &message)?;
        self.answered += 1;
        let to = self.console.as_ref()?.session;
        Some(packet::seal(&keys, to, self.answered, &answer))
    }

    fn step(&mut self, state: &State, kind: u8, payload: &[u8]) -> Vec<u8> {
        let password = state.find(|fault| match fault {
            Fault::Password(other) => Some(other),
            _ => None,
        });
        let password = password.unwrap_or("right").as_bytes();
        let controller = Controller {
            session: CONTROLLER,
            random: [7; 16],
            guid: [9; 16],
        };
        match kind {
            rakp::OPEN => {
                let suite = if payload[12] == 1 {
                    Suite::Three
                } else {
                    Suite::Seventeen
                };
                self.suite = Some(suite);
                let session = u32::from_le_bytes(payload[4..8].try_into().unwrap());
                self.console = Some(Console {
                    suite,
                    session,
                    random: [0; 16],
                    privilege: payload[1],
                    user: Vec::new(),
                });
                let mut said = vec![payload[0], 0, payload[1], 0];
                said.extend_from_slice(&payload[4..8]);
                said.extend_from_slice(&CONTROLLER.to_le_bytes());
                said.extend_from_slice(&payload[8..32]);
                said
            }
            rakp::FIRST => {
                let console = self.console.as_mut().unwrap();
                console.random = payload[8..24].try_into().unwrap();
                assert_eq!(payload[24], 0x10 | console.privilege);
                assert_eq!(usize::from(payload[27]), payload.len() - 28);
                console.user = payload[28..].to_vec();
                let mut said = vec![payload[0], 0, 0, 0];
                said.extend_from_slice(&console.session.to_le_bytes());
                said.extend_from_slice(&controller.random);
                said.extend_from_slice(&controller.guid);
                let proof = console.controller_proof(&controller);
                said.extend_from_slice(&console.suite.mac(password, &proof));
                said
            }
            _ => {
                let console = self.console.as_ref().unwrap();
                let proof = console
                    .suite
                    .mac(password, &console.console_proof(&controller));
                assert_eq!(payload[8..], proof);
                let session = console
                    .suite
                    .mac(password, &console.session_key(&controller));
                let keys = Keys::new(console.suite, session);
                let mut said = vec![payload[0], 0, 0, 0];
                said.extend_from_slice(&console.session.to_le_bytes());
                said.extend_from_slice(&console.last_proof(&controller, &keys));
                self.keys = Some(keys);
                said
            }
        }
    }
}

fn command(state: &State, message: &[u8]) -> Option<Vec<u8>> {
    let (function, command) = (message[1] >> 2, message[5]);
    let data = &message[6..message.len() - 1];
    let refused = state.find(|fault| match fault {
        Fault::Completion(number, code) if number == command => Some(code),
        _ => None,
    });
    if let Some(code) = refused {
        return Some(answer(message, code, &[]));
    }
    let mut machine = state.machine.borrow_mut();
    let said = match (function, command) {
        (6, 1) => vec![0, 3, 9, 8, 2, 0x9f, 0x91, 0x12, 0, 2, 0x0f, 0, 0, 0, 0],
        (6, 0x3b) => data.to_vec(),
        (6, 0x3c) => {
            assert_eq!(data, CONTROLLER.to_le_bytes());
            machine.sessions_closed += 1;
            Vec::new()
        }
        (0, 1) => vec![0x20 | u8::from(machine.on), 0, 0],
        (0, 2) => {
            machine.told.push(data[0]);
            Vec::new()
        }
        (0, 8) => {
            if data[0] == 5 && !state.has(Fault::ForgetsBoot) {
                machine.boot_flags = data[1..].to_vec();
            }
            Vec::new()
        }
        (0, 9) => {
            let mut said = vec![1, 5];
            said.extend_from_slice(&machine.boot_flags);
            said.resize(7, 0);
            said
        }
        other => panic!("an unexpected command: {other:?}"),
    };
    if state.has(Fault::NoAnswerTo(command)) {
        return None;
    }
    Some(answer(message, 0, &said))
}

fn answer(request: &[u8], completion: u8, data: &[u8]) -> Vec<u8> {
    let head = [0x81, request[1] | 4];
    let mut body = vec![0x20, request[4], request[5], completion];
    body.extend_from_slice(data);
    let sums = [checksum(&head), checksum(&body)];
    [&head[..], &sums[..1], &body, &sums[1..]].concat()
}

impl Host for Scene {
    fn hmac(&self, secret: &str, hash: Hash, data: &[u8]) -> Result<Vec<u8>, Error> {
        assert_eq!(secret, "password");
        let suite = match hash {
            Hash::Sha1 => Suite::Three,
            _ => Suite::Seventeen,
        };
        Ok(suite.mac(b"right", data))
    }

    fn datagrams(&self, endpoint: &str, _: Option<&str>) -> Result<Box<dyn Datagrams>, Error> {
        self.state.opened.borrow_mut().push(endpoint.to_owned());
        Ok(Box::new(Channel {
            state: Rc::clone(&self.state),
            peer: RefCell::default(),
        }))
    }

    fn now_ms(&self) -> u64 {
        self.fake.now_ms() + self.state.spent_ms.get()
    }

    fn remaining_ms(&self) -> u64 {
        self.fake
            .remaining_ms()
            .saturating_sub(self.state.spent_ms.get())
    }

    fn send(&self, request: &Request) -> Result<Response, Error> {
        self.fake.send(request)
    }

    fn aws_sigv4(
        &self,
        key: &AwsKey<'_>,
        request: AwsRequest,
    ) -> Result<Vec<(String, String)>, Error> {
        self.fake.aws_sigv4(key, request)
    }

    fn wake_on_lan(&self, mac: &str, route: Option<&str>) -> Result<(), Error> {
        self.fake.wake_on_lan(mac, route)
    }

    fn secret_version(&self, secret: &str) -> Result<u64, Error> {
        self.fake.secret_version(secret)
    }

    fn state_get(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.fake.state_get(key)
    }

    fn state_put(&self, key: &str, value: &[u8], revision: Option<u64>) -> Result<u64, Error> {
        self.fake.state_put(key, value, revision)
    }

    fn state_delete(&self, key: &str) -> Result<(), Error> {
        self.fake.state_delete(key)
    }

    fn cancelled(&self) -> bool {
        self.fake.cancelled()
    }

    fn operation_id(&self) -> String {
        self.fake.operation_id()
    }
}
