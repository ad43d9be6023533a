//! The face of the machine: what it is told and what it asks for.

use model::Timestamp;
use protocol::v1::{EnrolReply, GoodbyeReason, Grant, Trust, agent_frame, gateway_frame};

/// One attempt to reach the gateway, and the connection that came of it. Never used
/// twice by a process, so that a late event finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conn(pub u64);

/// A way to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// QUIC over UDP: the way it should be.
    Udp,
    /// The same QUIC packets inside a WebSocket on the HTTPS port.
    WebSocket,
}

impl Rung {
    /// The word for people and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::WebSocket => "websocket",
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Udp => Self::WebSocket,
            Self::WebSocket => Self::Udp,
        }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To get an identity.
    Enrol,
    /// To be linked with it.
    Link,
}

/// Why no connection came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// Somewhere on the way, or a gateway that is not to be trusted: another way, or
    /// another minute, may do better.
    Network,
    /// The gateway does not accept who we are.
    Rejected,
    /// Nothing to dial with: a token or a file is missing on this host.
    Local,
}

/// Which key a certificate is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChoice {
    /// The one in use.
    Current,
    /// A new one, on disk before it is shown to anybody. The same one again when an
    /// earlier request was cut short.
    Pending,
}

/// What the machine knows of the identity on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Newest counter on disk.
    pub counter: u64,
    /// Version of the trust bundle on disk.
    pub trust_version: u64,
    /// Begin of the certificate's validity.
    pub not_before: Timestamp,
    /// End of the certificate's validity.
    pub not_after: Timestamp,
}

/// SHA-256 of encoded facts.
pub type FactsDigest = [u8; 32];

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A deadline passed, or somebody wants the machine to look at the clock.
    Tick,
    /// A dial ended in a connection with an open control stream.
    Connected(Conn),
    /// A dial ended without one.
    Failed(Conn, DialFailure),
    /// A connection ended; how counts only until the gateway's first word.
    Closed(Conn, DialFailure),
    /// Something of this connection's peer arrived since the last look, be it only an
    /// acknowledgement of a keepalive.
    Heard(Conn),
    /// The answer to an enrolment.
    Enrolled(Conn, EnrolReply),
    /// A frame arrived.
    Frame(Conn, gateway_frame::Body),
    /// This counter is on disk.
    CounterStored(u64),
    /// It is not.
    CounterNotStored(u64),
    /// The grant that came over this connection is on disk and in force.
    GrantStored(Conn, Identity),
    /// The grant is not on disk, or not one for a key of ours.
    GrantNotStored(Conn),
    /// A trust bundle of this version is on disk and in force.
    TrustStored(u64),
    /// The renewal could not be asked for: no key.
    RenewalNotSent(Conn),
    /// The facts have been read.
    FactsRead(FactsDigest),
    /// Leave.
    Stop(GoodbyeReason),
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Try a way; answer with `Connected` or `Failed`.
    Dial {
        /// Names the attempt.
        conn: Conn,
        /// Which way.
        rung: Rung,
        /// What for.
        purpose: Purpose,
    },
    /// Give a dial or a connection up, after whatever was sent has left. Further
    /// events about it are not expected.
    Close(Conn),
    /// Send the enrolment request; answer with `Enrolled` or `Closed`.
    Enrol(Conn),
    /// Introduce ourselves.
    Hello {
        /// To whom.
        conn: Conn,
        /// Newest counter on disk.
        counter: u64,
        /// Version of the trust bundle on disk.
        trust_version: u64,
    },
    /// Send a frame.
    Send(Conn, agent_frame::Body),
    /// Ask for a certificate; for [`KeyChoice::Pending`] store the key first.
    Renew(Conn, KeyChoice),
    /// Store a counter; answer with `CounterStored` or `CounterNotStored`.
    StoreCounter(u64),
    /// Store a grant as a whole; answer with `GrantStored` or `GrantNotStored`.
    StoreGrant(Conn, Grant),
    /// Store a trust bundle; answer with `TrustStored` if it is one.
    StoreTrust(Trust),
    /// Read the facts; answer with `FactsRead`.
    ReadFacts,
    /// Send the facts read last.
    SendFacts(Conn),
    /// Nothing more will come: exit.
    Finish {
        /// The gateway has closed the link after a goodbye: it knows.
        acknowledged: bool,
    },
}
