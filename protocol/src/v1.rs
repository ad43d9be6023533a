//! Version 1 of the messages. Field numbers are a promise: see
//! `protocol/tests/golden.rs`, which holds the bytes of every message.
//!
//! Text and sizes in here are what the peer claims; whoever receives a message
//! cleans and checks before use. Times are milliseconds since the Unix epoch,
//! durations milliseconds.

mod diagnose;
mod file;
mod forward;
mod run;
mod scrape;

use std::fmt;

use prost::{Enumeration, Message, Oneof};

pub use diagnose::*;
pub use file::*;
pub use forward::*;
pub use run::*;
pub use scrape::*;

/// First message on an enrolment connection.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct EnrolRequest {
    /// The agent token.
    #[prost(string, tag = "1")]
    pub token: String,
    /// PKCS#10 request, DER; its key becomes the host's identity. Subject and
    /// extensions are ignored.
    #[prost(bytes = "vec", tag = "2")]
    pub csr: Vec<u8>,
    /// What the host is.
    #[prost(message, optional, tag = "3")]
    pub facts: Option<Facts>,
    /// Newest message version the agent speaks.
    #[prost(uint32, tag = "4")]
    pub version_max: u32,
    /// Oldest message version the agent speaks.
    #[prost(uint32, tag = "5")]
    pub version_min: u32,
}

impl fmt::Debug for EnrolRequest {
    /// Hides the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolRequest")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

/// The answer to an [`EnrolRequest`].
#[derive(Clone, PartialEq, Message)]
pub struct EnrolReply {
    /// What the answer is.
    #[prost(oneof = "enrol_reply::Answer", tags = "1, 2")]
    pub answer: Option<enrol_reply::Answer>,
}

/// Parts of [`EnrolReply`].
pub mod enrol_reply {
    use super::*;

    /// Enrolled or refused.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Answer {
        /// The host has an identity.
        #[prost(message, tag = "1")]
        Granted(Grant),
        /// It has not.
        #[prost(message, tag = "2")]
        Refused(Refusal),
    }
}

/// An identity: what the agent stores, as a whole, before it goes on.
#[derive(Clone, PartialEq, Message)]
pub struct Grant {
    /// Id of the deployment.
    #[prost(string, tag = "1")]
    pub deployment: String,
    /// Id of the workspace.
    #[prost(string, tag = "2")]
    pub workspace: String,
    /// Id of the host.
    #[prost(string, tag = "3")]
    pub host: String,
    /// Generation of the identity, as in the certificate.
    #[prost(uint64, tag = "4")]
    pub generation: u64,
    /// The certificate, DER.
    #[prost(bytes = "vec", tag = "5")]
    pub certificate: Vec<u8>,
    /// Whom to trust as gateway.
    #[prost(message, optional, tag = "6")]
    pub trust: Option<Trust>,
    /// First value of the generation counter.
    #[prost(uint64, tag = "7")]
    pub counter: u64,
    /// The gateway's time.
    #[prost(int64, tag = "8")]
    pub server_time_ms: i64,
}

/// The authorities that may sign a gateway's certificate.
#[derive(Clone, PartialEq, Message)]
pub struct Trust {
    /// Grows by one with every change.
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// Certificates of the authorities, DER.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub authorities: Vec<Vec<u8>>,
}

/// A refusal: a code for programs, a text for people.
#[derive(Clone, PartialEq, Message)]
pub struct Refusal {
    /// Why.
    #[prost(enumeration = "RefusalCode", tag = "1")]
    pub code: i32,
    /// Why, in words, with what to do.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Come back after this long; zero leaves it to the agent's own backoff.
    #[prost(uint32, tag = "3")]
    pub retry_after_ms: u32,
    /// The gateway's time, for telling a wrong clock.
    #[prost(int64, tag = "4")]
    pub server_time_ms: i64,
}

/// Why something was refused. An unknown number from a newer peer reads as
/// `Unspecified` and is treated as worth retrying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum RefusalCode {
    /// No reason that this version knows.
    Unspecified = 0,
    /// The token is unknown, revoked or malformed.
    TokenInvalid = 1,
    /// The token's time is over.
    TokenExpired = 2,
    /// The token has been used as often as it may be.
    TokenExhausted = 3,
    /// Too many attempts; come back later.
    RateLimited = 4,
    /// The host has been retired: stop, and do not come back.
    HostRetired = 5,
    /// Another certificate of this host is in force.
    Superseded = 6,
    /// The certificate has expired; renew first.
    CertificateExpired = 7,
    /// No common version of the messages.
    VersionUnsupported = 8,
    /// The gateway is stopping or starting.
    Draining = 9,
    /// The request makes no sense; coming back unchanged will not help.
    Invalid = 10,
    /// The gateway cannot answer at the moment.
    Unavailable = 11,
}

/// One frame from the agent on the control stream.
#[derive(Clone, PartialEq, Message)]
pub struct AgentFrame {
    /// What it says.
    #[prost(oneof = "agent_frame::Body", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub body: Option<agent_frame::Body>,
}

/// Parts of [`AgentFrame`].
pub mod agent_frame {
    use super::*;

    /// What an agent says.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// First frame of every link.
        #[prost(message, tag = "1")]
        Hello(Hello),
        /// Still here.
        #[prost(message, tag = "2")]
        Heartbeat(Heartbeat),
        /// What the host is, when it changed.
        #[prost(message, boxed, tag = "3")]
        Facts(Box<Facts>),
        /// Asks for a certificate.
        #[prost(message, tag = "4")]
        Renew(Renew),
        /// The counter is on disk.
        #[prost(message, tag = "5")]
        CounterStored(CounterStored),
        /// Answers a probe at once.
        #[prost(message, tag = "6")]
        ProbeReply(Probe),
        /// The agent is going away.
        #[prost(message, tag = "7")]
        Goodbye(Goodbye),
    }
}

/// One frame from the gateway on the control stream.
#[derive(Clone, PartialEq, Message)]
pub struct GatewayFrame {
    /// What it says.
    #[prost(oneof = "gateway_frame::Body", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub body: Option<gateway_frame::Body>,
}

/// Parts of [`GatewayFrame`].
pub mod gateway_frame {
    use super::*;

    /// What a gateway says.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// First frame of a link that is accepted.
        #[prost(message, tag = "1")]
        Welcome(Welcome),
        /// First frame of a link that is not; or the last of one that ends.
        #[prost(message, tag = "2")]
        Refused(Refusal),
        /// A heartbeat arrived.
        #[prost(message, tag = "3")]
        HeartbeatAck(HeartbeatAck),
        /// Answer at once, to show that you live.
        #[prost(message, tag = "4")]
        Probe(Probe),
        /// A certificate.
        #[prost(message, tag = "5")]
        Renewed(Grant),
        /// Renewal was refused.
        #[prost(message, tag = "6")]
        RenewRefused(Refusal),
        /// Make a new key and ask for a certificate with it.
        #[prost(message, tag = "7")]
        Reidentify(Reidentify),
        /// Store this counter and say so.
        #[prost(message, tag = "8")]
        Advance(CounterStored),
        /// The workspace's settings changed.
        #[prost(message, tag = "9")]
        Settings(Settings),
        /// The authorities changed.
        #[prost(message, tag = "10")]
        Trust(Trust),
    }
}

/// Who is there, apart from what the certificate proves.
#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    /// Newest message version the agent speaks.
    #[prost(uint32, tag = "1")]
    pub version_max: u32,
    /// Oldest message version the agent speaks.
    #[prost(uint32, tag = "2")]
    pub version_min: u32,
    /// The agent's own version.
    #[prost(string, tag = "3")]
    pub agent_version: String,
    /// The kernel's boot id.
    #[prost(string, tag = "4")]
    pub boot_id: String,
    /// Random, chosen when the agent's process started: tells a reconnect of one
    /// process from a second machine.
    #[prost(bytes = "vec", tag = "5")]
    pub instance: Vec<u8>,
    /// Newest counter on disk.
    #[prost(uint64, tag = "6")]
    pub counter: u64,
    /// SHA-256 of the last facts; the gateway asks by a `Welcome` when it has
    /// others.
    #[prost(bytes = "vec", tag = "7")]
    pub facts_digest: Vec<u8>,
    /// Version of the trust bundle on disk.
    #[prost(uint64, tag = "8")]
    pub trust_version: u64,
    /// The host's clock.
    #[prost(int64, tag = "9")]
    pub host_time_ms: i64,
}

/// The link is accepted.
#[derive(Clone, PartialEq, Message)]
pub struct Welcome {
    /// Message version both will speak.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The next counter: store it, then answer `CounterStored`.
    #[prost(uint64, tag = "2")]
    pub counter: u64,
    /// Current settings.
    #[prost(message, optional, tag = "3")]
    pub settings: Option<Settings>,
    /// The gateway's time.
    #[prost(int64, tag = "4")]
    pub server_time_ms: i64,
    /// Send the facts.
    #[prost(bool, tag = "5")]
    pub want_facts: bool,
    /// Renew the certificate now.
    #[prost(bool, tag = "6")]
    pub want_renewal: bool,
    /// Newer authorities than the agent has.
    #[prost(message, optional, tag = "7")]
    pub trust: Option<Trust>,
    /// The host's name in the fleet, for `status`.
    #[prost(string, tag = "8")]
    pub display_name: String,
    /// Whether the host is quarantined: linked, and given nothing to do.
    #[prost(bool, tag = "9")]
    pub quarantined: bool,
}

/// What a workspace asks of its agents.
#[derive(Clone, PartialEq, Message)]
pub struct Settings {
    /// How often to send a heartbeat.
    #[prost(uint32, tag = "1")]
    pub heartbeat_ms: u32,
}

/// Still here.
#[derive(Clone, PartialEq, Message)]
pub struct Heartbeat {
    /// Grows by one within a link.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
}

/// A heartbeat arrived.
#[derive(Clone, PartialEq, Message)]
pub struct HeartbeatAck {
    /// Of the heartbeat.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// The gateway's time.
    #[prost(int64, tag = "2")]
    pub server_time_ms: i64,
}

/// A question whose answer shows that a link lives.
#[derive(Clone, PartialEq, Message)]
pub struct Probe {
    /// Comes back unchanged.
    #[prost(uint64, tag = "1")]
    pub nonce: u64,
}

/// Asks for a certificate.
#[derive(Clone, PartialEq, Message)]
pub struct Renew {
    /// PKCS#10 request, DER. With the key of the link's certificate, or with a
    /// new one when rotating or after `Reidentify`.
    #[prost(bytes = "vec", tag = "1")]
    pub csr: Vec<u8>,
}

/// Make a new key and send [`Renew`] with it; then reconnect with what comes.
#[derive(Clone, PartialEq, Message)]
pub struct Reidentify {
    /// Why, for the host's log and `status`.
    #[prost(string, tag = "1")]
    pub reason: String,
}

/// A value of the generation counter.
#[derive(Clone, PartialEq, Message)]
pub struct CounterStored {
    /// The value.
    #[prost(uint64, tag = "1")]
    pub counter: u64,
}

/// The agent is going away.
#[derive(Clone, PartialEq, Message)]
pub struct Goodbye {
    /// Why.
    #[prost(enumeration = "GoodbyeReason", tag = "1")]
    pub reason: i32,
}

/// Why an agent goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum GoodbyeReason {
    /// Not said.
    Unspecified = 0,
    /// The service was stopped.
    Stopping = 1,
    /// The host is shutting down or rebooting.
    HostShutdown = 2,
    /// The agent is being removed: retire this host.
    Uninstalled = 3,
    /// Only the carrier changes; the next link is about to be there.
    CarrierChange = 4,
}

/// What the host is: see `model::facts::Facts` for the meanings.
#[derive(Clone, PartialEq, Message)]
pub struct Facts {
    /// The host's own name.
    #[prost(string, tag = "1")]
    pub hostname: String,
    /// `linux`.
    #[prost(string, tag = "2")]
    pub os: String,
    /// Pretty name of the distribution.
    #[prost(string, tag = "3")]
    pub os_version: String,
    /// Kernel release.
    #[prost(string, tag = "4")]
    pub kernel: String,
    /// Machine architecture.
    #[prost(string, tag = "5")]
    pub arch: String,
    /// Addresses of interfaces.
    #[prost(string, repeated, tag = "6")]
    pub addresses: Vec<String>,
    /// Logical processors.
    #[prost(uint32, tag = "7")]
    pub cpus: u32,
    /// Model of the first processor.
    #[prost(string, tag = "8")]
    pub cpu_model: String,
    /// Memory in bytes.
    #[prost(uint64, tag = "9")]
    pub memory_bytes: u64,
    /// Mounted disks.
    #[prost(message, repeated, tag = "10")]
    pub disks: Vec<Disk>,
    /// Kind of virtualization.
    #[prost(string, tag = "11")]
    pub virtualization: String,
    /// `/etc/machine-id`.
    #[prost(string, tag = "12")]
    pub machine_id: String,
    /// The agent's version.
    #[prost(string, tag = "13")]
    pub agent_version: String,
    /// When the host booted, seconds since the epoch.
    #[prost(int64, tag = "14")]
    pub booted_at_secs: i64,
    /// Names of the exporters that can be scraped through the agent.
    #[prost(string, repeated, tag = "15")]
    pub exporters: Vec<String>,
    /// Hardware addresses of the network cards.
    #[prost(string, repeated, tag = "16")]
    pub macs: Vec<String>,
    /// The machine's serial number.
    #[prost(string, tag = "17")]
    pub serial: String,
    /// The machine's UUID.
    #[prost(string, tag = "18")]
    pub system_uuid: String,
    /// Asset tag of the board or chassis.
    #[prost(string, tag = "19")]
    pub asset_tag: String,
}

/// One mounted file system.
#[derive(Clone, PartialEq, Message)]
pub struct Disk {
    /// Where it is mounted.
    #[prost(string, tag = "1")]
    pub mount: String,
    /// Type of file system.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// Size in bytes.
    #[prost(uint64, tag = "3")]
    pub size_bytes: u64,
    /// Free in bytes.
    #[prost(uint64, tag = "4")]
    pub free_bytes: u64,
}
