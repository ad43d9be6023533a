//! A session with a controller, within one call: begun, used, ended.
//!
//! What asks or sets something that stays the same is sent again when no answer comes, with the
//! number of its message as it was and with a new number of its packet, as section 6.12.13 wants
//! it. What happens when it is heard is sent once: see [`Session::once`].

use loopback_plugin_sdk::host::{Datagrams, Host};
use loopback_plugin_sdk::{Error, ErrorKind};

use crate::codec::crypt::{Keys, Suite};
use crate::codec::message::{self, Answer, Command};
use crate::codec::packet;
use crate::codec::rakp::{self, Console, Said};
use crate::refusal;

/// The plugin's name for the secret.
const PASSWORD: &str = "password";
/// Datagrams that fit nothing, for each one that is sent. Somebody may send as many as they like.
const STRAYS: u32 = 16;
/// Left of a call for its answer.
const SPARE_MS: u64 = 250;

const CAPABILITIES: Command = Command {
    function: 6,
    command: 0x38,
    name: "Get Channel Authentication Capabilities",
};
const SET_PRIVILEGE: Command = Command {
    function: 6,
    command: 0x3b,
    name: "Set Session Privilege Level",
};
const CLOSE: Command = Command {
    function: 6,
    command: 0x3c,
    name: "Close Session",
};

/// How a controller is spoken with.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    /// `host:port`.
    pub(crate) endpoint: String,
    pub(crate) route: Option<String>,
    pub(crate) user: String,
    pub(crate) suite: Suite,
    /// 3 operator, 4 administrator.
    pub(crate) privilege: u8,
    /// How long an answer is waited for.
    pub(crate) answer_ms: u32,
    /// How often something is sent.
    pub(crate) tries: u32,
}

/// A session. End it with [`Session::close`]: controllers have few.
pub(crate) struct Session<'a> {
    link: Link<'a>,
    keys: Keys,
    console: u32,
    controller: u32,
    /// Of the last packet that was sent, and of the latest that came.
    sent: u32,
    came: u32,
    /// Of the last message, 6 bits.
    message: u8,
}

struct Link<'a> {
    host: &'a dyn Host,
    channel: Box<dyn Datagrams>,
    answer_ms: u32,
    tries: u32,
}

impl<'a> Session<'a> {
    /// Begins one, as the user and with the privilege that are asked for.
    pub(crate) fn begin(host: &'a dyn Host, manner: &Manner) -> Result<Self, Error> {
        let link = Link {
            host,
            channel: host.datagrams(&manner.endpoint, manner.route.as_deref())?,
            answer_ms: manner.answer_ms,
            tries: manner.tries,
        };
        link.capable(manner.privilege)?;
        let mut session = link.handshake(manner)?;
        let raised = session
            .ask(SET_PRIVILEGE, &[manner.privilege])
            .and_then(|answer| refusal::completion(SET_PRIVILEGE, &answer).map(drop));
        match raised {
            Ok(()) => Ok(session),
            Err(error) => {
                session.close();
                Err(error)
            }
        }
    }

    /// Asks, and asks again when no answer comes.
    pub(crate) fn ask(&mut self, command: Command, data: &[u8]) -> Result<Answer, Error> {
        let (tries, wait_ms) = (self.link.tries, self.link.answer_ms);
        self.exchange(command, data, tries, wait_ms)
    }

    /// Has something happen: sent once, so that it happens once at most. An error that comes after
    /// that says that the outcome is unknown.
    pub(crate) fn once(&mut self, command: Command, data: &[u8]) -> Result<Answer, Error> {
        // As long as a question is tried, because this is not asked again.
        let wait_ms = self.link.answer_ms.saturating_mul(self.link.tries);
        let before = self.sent;
        let answer = self.exchange(command, data, 1, wait_ms);
        answer.map_err(|mut error| {
            // What the gateway refuses to send has not left it.
            error.outcome_unknown = self.sent != before && error.kind != ErrorKind::Denied;
            error
        })
    }

    /// Ends it. Nobody waits for the answer: a session that is not ended ends itself in a minute.
    pub(crate) fn close(mut self) {
        let data = self.controller.to_le_bytes();
        self.message = (self.message + 1) & 0x3f;
        let message = message::request(CLOSE, self.message, &data);
        self.sent += 1;
        let packet = packet::seal(&self.keys, self.controller, self.sent, &message);
        let _ = self.link.channel.send(&packet);
    }

    fn exchange(
        &mut self,
        command: Command,
        data: &[u8],
        tries: u32,
        wait_ms: u32,
    ) -> Result<Answer, Error> {
        self.message = (self.message + 1) & 0x3f;
        let request = message::request(command, self.message, data);
        let Self {
            link,
            keys,
            console,
            controller,
            sent,
            came,
            message: number,
        } = self;
        link.exchange(
            command.name,
            (tries, wait_ms),
            || {
                *sent += 1;
                packet::seal(keys, *controller, *sent, &request)
            },
            |packet| {
                let (sequence, message) = packet::open(keys, *console, packet)?;
                // Later than all before, so that nothing that was recorded is taken again.
                (sequence > *came).then_some(())?;
                *came = sequence;
                message::answer(command, *number, &message)
            },
        )
    }
}

impl<'a> Link<'a> {
    /// Whether version 2.0 is spoken, by what anybody may ask. Only for a better error than
    /// silence: nothing proves that it is the controller who answers here.
    fn capable(&self, privilege: u8) -> Result<(), Error> {
        // This channel, with what version 2.0 has to say.
        let request = message::request(CAPABILITIES, 0, &[0x8e, privilege]);
        let answer = self.exchange(
            CAPABILITIES.name,
            (self.tries, self.answer_ms),
            || packet::plain(&request),
            |packet| message::answer(CAPABILITIES, 0, packet::plain_message(packet)?),
        )?;
        // Some do not know the question. What they are shows when a session is opened.
        let &[_, types, status, extended, ..] = &answer.data[..] else {
            return Ok(());
        };
        if answer.completion != 0 {
            return Ok(());
        }
        if types & 0x80 == 0 || extended & 2 == 0 {
            return Err(Error::unsupported(
                "ipmi.version",
                "the controller does not speak IPMI 2.0 over LAN, or it is switched off",
            ));
        }
        if status & 0x20 != 0 {
            return Err(Error::unsupported(
                "ipmi.bmc_key",
                "the controller has a key of its own (Kg) beside passwords, which is not supported",
            ));
        }
        Ok(())
    }

    fn handshake(self, manner: &Manner) -> Result<Session<'a>, Error> {
        let console = self.console(manner)?;
        let controller = self.step(rakp::OPEN, &console.open(1), rakp::OPENED, |payload| {
            console.opened(1, payload)
        })?;
        let first = console.first(2, controller);
        let (controller, proof) = self.step(rakp::FIRST, &first, rakp::SECOND, |payload| {
            console.second(2, controller, payload)
        })?;
        let mac = |data: &[u8]| self.host.hmac(PASSWORD, manner.suite.hash(), data);
        if !crate::codec::crypt::same(&mac(&console.controller_proof(&controller))?, &proof) {
            return Err(Error::new(
                ErrorKind::Auth,
                "ipmi.password",
                "the controller has another password for this user",
            ));
        }
        let keys = Keys::new(manner.suite, mac(&console.session_key(&controller))?);
        let proof = mac(&console.console_proof(&controller))?;
        let third = Console::third(3, &controller, &proof);
        let same = self.step(rakp::THIRD, &third, rakp::FOURTH, |payload| {
            console.fourth(3, &controller, &keys, payload)
        })?;
        if !same {
            return Err(Error::new(
                ErrorKind::Auth,
                "ipmi.bmc_key",
                "the controller knows the password and makes another key: it has one of its own \
                 (Kg), which is not supported",
            ));
        }
        Ok(Session {
            link: self,
            keys,
            console: console.session,
            controller: controller.session,
            sent: 0,
            came: 0,
            message: 0,
        })
    }

    /// What this side chooses. There are no random numbers here, so that calls can be played
    /// again. What nobody foresees is made of the password instead, and what makes calls differ
    /// goes into it. The label keeps it apart from all that is a proof.
    fn console(&self, manner: &Manner) -> Result<Console, Error> {
        let what = format!(
            "loopback console random\0{}\0{}\0{}\0{}",
            manner.endpoint,
            self.host.operation_id(),
            self.host.now_ms(),
            self.host.remaining_ms(),
        );
        let hash = loopback_plugin_sdk::host::Hash::Sha256;
        let made = self.host.hmac(PASSWORD, hash, what.as_bytes())?;
        let short = || Error::internal("ipmi.hmac", "the gateway's HMAC is too short");
        let (random, rest) = made.split_first_chunk().ok_or_else(short)?;
        let session = rest.first_chunk().ok_or_else(short)?;
        Ok(Console {
            suite: manner.suite,
            // Not nought, which stands for no session.
            session: u32::from_le_bytes(*session) | 1,
            random: *random,
            privilege: manner.privilege,
            user: manner.user.as_bytes().to_vec(),
        })
    }

    fn step<T>(
        &self,
        kind: u8,
        payload: &[u8],
        answer: u8,
        mut read: impl FnMut(&[u8]) -> Option<Said<T>>,
    ) -> Result<T, Error> {
        let said = self.exchange(
            "opening a session",
            (self.tries, self.answer_ms),
            || packet::setup(kind, payload),
            |packet| read(packet::setup_payload(answer, packet)?),
        )?;
        said.map_err(refusal::status)
    }

    /// Sends, and waits for what fits; everything else that comes is nobody's answer.
    fn exchange<T>(
        &self,
        what: &str,
        (tries, wait_ms): (u32, u32),
        mut packet: impl FnMut() -> Vec<u8>,
        mut read: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<T, Error> {
        for _ in 0..tries.max(1) {
            let until = self.host.now_ms() + u64::from(wait_ms);
            let left = self.host.remaining_ms();
            if left <= SPARE_MS {
                break;
            }
            if self.host.cancelled() {
                let message = "the gateway wants the call to end";
                return Err(Error::new(ErrorKind::Cancelled, "ipmi.cancelled", message));
            }
            self.channel.send(&packet())?;
            for _ in 0..STRAYS {
                let left = self.host.remaining_ms().saturating_sub(SPARE_MS);
                let wait = until.saturating_sub(self.host.now_ms()).min(left);
                let wait = u32::try_from(wait).unwrap_or(u32::MAX);
                match self.channel.receive(wait.max(1)) {
                    Ok(datagram) => {
                        if let Some(answer) = read(&datagram) {
                            return Ok(answer);
                        }
                    }
                    Err(error) if error.kind == ErrorKind::Timeout => break,
                    Err(error) => return Err(error),
                }
            }
        }
        let message = format!("the controller does not answer ({what})");
        Err(Error::new(ErrorKind::Timeout, "ipmi.no_answer", message))
    }
}
