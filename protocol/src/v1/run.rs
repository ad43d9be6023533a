//! Streams that the gateway opens, and the first of their kinds: a run of a
//! command. The head of this crate shows how it goes.

use std::fmt;

use prost::{Enumeration, Message, Oneof};

use super::{DiagnoseRequest, FileRequest, ForwardRequest, ScrapeRequest};

/// First frame of every stream that the gateway opens.
#[derive(Clone, PartialEq, Message)]
pub struct Opening {
    /// What the stream is for. Nothing is a kind that this version does not know:
    /// reset the stream.
    #[prost(oneof = "opening::Kind", tags = "1, 2, 3, 4, 5")]
    pub kind: Option<opening::Kind>,
}

/// Parts of [`Opening`].
pub mod opening {
    use super::*;

    /// What a stream is for.
    #[allow(
        clippy::large_enum_variant,
        reason = "there is one at the beginning of each stream, taken apart at once"
    )]
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        /// A run of a command.
        #[prost(message, tag = "1")]
        Run(RunRequest),
        /// A scrape of metrics.
        #[prost(message, tag = "2")]
        Scrape(ScrapeRequest),
        /// A diagnosis of the host.
        #[prost(message, tag = "4")]
        Diagnose(DiagnoseRequest),
        /// A file.
        #[prost(message, tag = "3")]
        File(FileRequest),
        /// A way to somewhere.
        #[prost(message, tag = "5")]
        Forward(ForwardRequest),
    }
}

/// Asks for a run, or after a run that was asked for before.
#[derive(Clone, PartialEq, Message)]
pub struct RunRequest {
    /// Id of the command; with the host, the identity of the run.
    #[prost(string, tag = "1")]
    pub command: String,
    /// Id of the host that is meant. Another one refuses.
    #[prost(string, tag = "2")]
    pub host: String,
    /// Generation of the host's identity that is meant. A host with a newer one
    /// refuses.
    #[prost(uint64, tag = "3")]
    pub generation: u64,
    /// Life of the gateway's state: rises with each restore from a backup. A host
    /// that has seen a later life refuses.
    #[prost(uint64, tag = "4")]
    pub life: u64,
    /// Not to be started at or after this time.
    #[prost(int64, tag = "5")]
    pub start_before_ms: i64,
    /// The gateway's time.
    #[prost(int64, tag = "6")]
    pub server_time_ms: i64,
    /// What to run. Absent: a run that is not in the journal shall never start; the
    /// host notes so and answers `Refused{NeverStarted}`. That is how a run is
    /// settled whose request may have been lost.
    #[prost(message, optional, tag = "7")]
    pub spec: Option<RunSpec>,
    /// First sequence of output that the gateway does not have.
    #[prost(uint64, tag = "8")]
    pub output_from: u64,
    /// The run is cancelled: as if `Cancel` followed.
    #[prost(bool, tag = "9")]
    pub cancel: bool,
}

/// What to run, and how.
#[derive(Clone, PartialEq, Message)]
pub struct RunSpec {
    /// Program and arguments, each as it is. Empty when there is a script.
    #[prost(string, repeated, tag = "1")]
    pub argv: Vec<String>,
    /// Body of a script.
    #[prost(bytes = "vec", tag = "2")]
    pub script: Vec<u8>,
    /// Program and first arguments that get the script's path as last argument.
    #[prost(string, repeated, tag = "3")]
    pub interpreter: Vec<String>,
    /// Name of the user to run as; empty for root, or for whom the agent runs as.
    #[prost(string, tag = "4")]
    pub user: String,
    /// Working directory; empty for the user's home.
    #[prost(string, tag = "5")]
    pub directory: String,
    /// Environment, beside what every run gets.
    #[prost(message, repeated, tag = "6")]
    pub environment: Vec<Variable>,
    /// More of it, whose values are masked in the output and written nowhere.
    #[prost(message, repeated, tag = "7")]
    pub secrets: Vec<Secret>,
    /// Standard input.
    #[prost(bytes = "vec", tag = "8")]
    pub stdin: Vec<u8>,
    /// Longest time from start to end; zero for none.
    #[prost(uint64, tag = "9")]
    pub run_timeout_ms: u64,
    /// Time between TERM and KILL.
    #[prost(uint32, tag = "10")]
    pub grace_ms: u32,
    /// Limits.
    #[prost(message, optional, tag = "11")]
    pub limits: Option<Limits>,
    /// Who asked, for the run's environment.
    #[prost(string, tag = "12")]
    pub actor: String,
    /// Under which ticket, for the run's environment.
    #[prost(string, tag = "13")]
    pub ticket: String,
    /// Exit code by which the program asks for a reboot, after which it is started
    /// again. None when absent.
    #[prost(sint32, optional, tag = "14")]
    pub reboot_code: Option<i32>,
}

/// An environment variable.
#[derive(Clone, PartialEq, Message)]
pub struct Variable {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// An environment variable with a secret value.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct Secret {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

impl fmt::Debug for Secret {
    /// Hides the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Limits of a run; zero is none, except for `nice`, where it is the usual.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Limits {
    /// Most memory of the tree, bytes.
    #[prost(uint64, tag = "1")]
    pub memory_bytes: u64,
    /// Most processes of the tree.
    #[prost(uint32, tag = "2")]
    pub processes: u32,
    /// Thousandths of one processor.
    #[prost(uint32, tag = "3")]
    pub cpu_millis: u32,
    /// Most open files of each process.
    #[prost(uint64, tag = "4")]
    pub open_files: u64,
    /// Nice value.
    #[prost(sint32, tag = "5")]
    pub nice: i32,
}

/// One frame from the agent on a run's stream.
#[derive(Clone, PartialEq, Message)]
pub struct RunReport {
    /// What it says.
    #[prost(oneof = "run_report::Body", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    pub body: Option<run_report::Body>,
}

/// Parts of [`RunReport`].
pub mod run_report {
    use super::*;

    /// What an agent says about a run.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// It is in the journal.
        #[prost(message, tag = "1")]
        Accepted(RunAccepted),
        /// Its process has been started.
        #[prost(message, tag = "2")]
        Started(RunStarted),
        /// Some of its output.
        #[prost(message, tag = "3")]
        Output(RunOutput),
        /// Output that is gone for good.
        #[prost(message, tag = "4")]
        Gap(RunGap),
        /// It has ended: the last report, sent after all output.
        #[prost(message, tag = "5")]
        Ended(RunEnded),
        /// It will not be started here: the last report.
        #[prost(message, tag = "6")]
        Refused(RunRefused),
        /// It has asked for a reboot, which follows.
        #[prost(message, tag = "7")]
        Rebooting(RunReboot),
        /// It waits to be started again after the reboot that it asked for: ask again,
        /// with what it runs. The last report.
        #[prost(message, tag = "8")]
        Rebooted(RunReboot),
    }
}

/// A run is in the journal.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct RunAccepted {}

/// A process has been started.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct RunStarted {
    /// When, by the host's best knowledge of the gateway's time.
    #[prost(int64, tag = "1")]
    pub at_ms: i64,
    /// Its process id.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
}

/// A reboot that a run asked for.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct RunReboot {
    /// How many of its reboots that is, from 1.
    #[prost(uint32, tag = "1")]
    pub count: u32,
}

/// A piece of output, as the process wrote it but for masked secrets.
#[derive(Clone, PartialEq, Message)]
pub struct RunOutput {
    /// Number of the piece, from zero, over both streams: their order.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// 1 for standard output, 2 for standard error.
    #[prost(uint32, tag = "2")]
    pub stream: u32,
    /// The bytes; any bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub data: Vec<u8>,
}

/// Output that the host could not keep while nobody took it.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct RunGap {
    /// Number of the first piece that is gone.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// Number of the first piece after the gap.
    #[prost(uint64, tag = "2")]
    pub resumes_at: u64,
    /// Bytes that are gone.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
}

/// How a run ended.
#[derive(Clone, PartialEq, Message)]
pub struct RunEnded {
    /// What kind of end it was.
    #[prost(enumeration = "EndKind", tag = "1")]
    pub kind: i32,
    /// Exit code of the first process, if it ended with one.
    #[prost(sint32, optional, tag = "2")]
    pub code: Option<i32>,
    /// Signal that ended the first process, if one did.
    #[prost(sint32, optional, tag = "3")]
    pub signal: Option<i32>,
    /// Whether KILL was needed after TERM.
    #[prost(bool, tag = "4")]
    pub killed: bool,
    /// Processes that were ended beside the first.
    #[prost(uint32, tag = "5")]
    pub others: u32,
    /// Processes that are alive after all.
    #[prost(uint32, tag = "6")]
    pub left: u32,
    /// When it started, if it did.
    #[prost(int64, optional, tag = "7")]
    pub started_at_ms: Option<i64>,
    /// When it ended.
    #[prost(int64, tag = "8")]
    pub ended_at_ms: i64,
    /// Why it could not be started or cannot be known, in words.
    #[prost(string, tag = "9")]
    pub reason: String,
    /// Number of pieces of output, those in gaps included.
    #[prost(uint64, tag = "10")]
    pub pieces: u64,
}

/// What kind of end a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum EndKind {
    /// None that this version knows: read as lost.
    Unspecified = 0,
    /// By itself: with a code, or by a signal that the agent did not send.
    Itself = 1,
    /// Not started: the program cannot be executed, there is no such user...
    NotStarted = 2,
    /// It ran longer than allowed.
    TimedOut = 3,
    /// It was cancelled while it ran, or in the journal before it was started.
    Cancelled = 4,
    /// It was not started in time.
    Expired = 5,
    /// It may have run; the host cannot tell how it ended.
    Lost = 6,
}

/// A run will not be started.
#[derive(Clone, PartialEq, Message)]
pub struct RunRefused {
    /// Why.
    #[prost(enumeration = "RunRefusal", tag = "1")]
    pub code: i32,
    /// Why, in words, with what to do.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Why a host declines a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum RunRefusal {
    /// None that this version knows.
    Unspecified = 0,
    /// The request makes no sense.
    Invalid = 1,
    /// It is for another host, an older identity or an older life of the gateway.
    NotMine = 2,
    /// It came too late.
    Expired = 3,
    /// Not in the journal, and it never will be.
    NeverStarted = 4,
    /// As many runs as the host takes are under way: ask again later. Nothing was
    /// written to the journal.
    Busy = 5,
    /// The host's disk is full: nothing was written to the journal.
    DiskFull = 6,
    /// The owner of the host has paused commands.
    Paused = 7,
    /// The host cannot do what is asked, limits without control groups say.
    Unsupported = 8,
    /// The journal cannot be read or written.
    Journal = 9,
}

/// One frame from the gateway on a run's stream, after the [`Opening`].
#[derive(Clone, PartialEq, Message)]
pub struct RunOrder {
    /// What it says.
    #[prost(oneof = "run_order::Body", tags = "1, 2, 3")]
    pub body: Option<run_order::Body>,
}

/// Parts of [`RunOrder`].
pub mod run_order {
    use super::*;

    /// What a gateway says about a run.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// End it.
        #[prost(message, tag = "1")]
        Cancel(RunCancel),
        /// Output has been stored.
        #[prost(message, tag = "2")]
        OutputStored(RunOutputStored),
        /// The result has been stored: the last order.
        #[prost(message, tag = "3")]
        ResultStored(RunResultStored),
    }
}

/// End a run: TERM, grace, KILL.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct RunCancel {}

/// Output that the gateway has stored and the host may drop.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct RunOutputStored {
    /// First sequence that is not stored.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
}

/// The gateway has stored how a run ended.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct RunResultStored {}
