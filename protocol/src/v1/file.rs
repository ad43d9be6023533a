//! Files to and from a host, one stream each.
//!
//! ```text
//! gateway                      agent
//! Opening{File(stat)}   ──►    Working...  Meta                      (End: its digest)
//! Opening{File(read)}   ──►    Working...  Meta{offset}  Data...  End{digest}
//! Opening{File(held)}   ──►    Held{bytes}
//! Opening{File(write)}  ──►    Working...  Held{bytes}
//!            Data...    ──►    Working...  Meta  End{digest}
//! ```
//!
//! `Refused` may take the place of any frame of the agent and is its last one. `Working`
//! says that a digest is being made of what lies there already, and nothing else.
//!
//! An upload is whole when as many bytes as announced are there; a stream that ends
//! before leaves what came with the host, for a later one that names the same transfer.
//! Nothing of a request outlives its stream but that, so a request needs no expiry: it
//! is bound to the connection it came on.

use prost::{Enumeration, Message, Oneof};

/// Most bytes in one [`FileData`].
pub const MAX_FILE_DATA: usize = 256 << 10;

/// Asks for something about a file.
#[derive(Clone, PartialEq, Message)]
pub struct FileRequest {
    /// Id of the host that is meant. Another one refuses.
    #[prost(string, tag = "1")]
    pub host: String,
    /// Generation of the host's identity that is meant. Another one refuses.
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    /// Absolute, as `model::file::HostPath` has it.
    #[prost(string, tag = "3")]
    pub path: String,
    /// Refuse above this size.
    #[prost(uint64, tag = "4")]
    pub max_bytes: u64,
    /// What to do. Nothing is what this version does not know.
    #[prost(oneof = "file_request::Action", tags = "5, 6, 7, 8")]
    pub action: Option<file_request::Action>,
}

/// Parts of [`FileRequest`].
pub mod file_request {
    use super::*;

    /// What to do with a file.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Action {
        /// Tell what it is.
        #[prost(message, tag = "5")]
        Stat(FileStat),
        /// Send it.
        #[prost(message, tag = "6")]
        Read(FileRead),
        /// Take it.
        #[prost(message, tag = "7")]
        Write(FileWrite),
        /// Tell how much of it has been taken.
        #[prost(message, tag = "8")]
        Held(FileHeldQuestion),
    }
}

/// What is this file?
#[derive(Clone, Copy, PartialEq, Message)]
pub struct FileStat {
    /// Also the digest of its content.
    #[prost(bool, tag = "1")]
    pub digest: bool,
}

/// Send a file, or a part of it.
#[derive(Clone, PartialEq, Message)]
pub struct FileRead {
    /// First byte wanted.
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    /// Bytes wanted; to the end when absent.
    #[prost(uint64, optional, tag = "2")]
    pub length: Option<u64>,
    /// The offset and length are about this version: when the file has another, it is
    /// sent whole. Empty when they count in any case.
    #[prost(bytes = "vec", tag = "3")]
    pub version: Vec<u8>,
}

/// Take a file.
#[derive(Clone, PartialEq, Message)]
pub struct FileWrite {
    /// Names the transfer: 16 bytes, the same for what goes on with it.
    #[prost(bytes = "vec", tag = "1")]
    pub transfer: Vec<u8>,
    /// Size of the whole file.
    #[prost(uint64, tag = "2")]
    pub size: u64,
    /// SHA-256 of the whole file.
    #[prost(bytes = "vec", tag = "3")]
    pub sha256: Vec<u8>,
    /// Place of the first byte that will be sent; what is held beyond it is dropped.
    #[prost(uint64, tag = "4")]
    pub offset: u64,
    /// Permissions; those of the file that is replaced, or 0600, when absent.
    #[prost(uint32, optional, tag = "5")]
    pub mode: Option<u32>,
    /// `user:group`; that of the file that is replaced, or the agent's own, when empty.
    #[prost(string, tag = "6")]
    pub owner: String,
    /// Replace a file that is there.
    #[prost(bool, tag = "7")]
    pub overwrite: bool,
    /// Make the directories that are missing.
    #[prost(bool, tag = "8")]
    pub make_parents: bool,
    /// The mode may have set-user-id, set-group-id and sticky bits.
    #[prost(bool, tag = "9")]
    pub allow_special: bool,
}

/// How much of a transfer is there?
#[derive(Clone, PartialEq, Message)]
pub struct FileHeldQuestion {
    /// Which transfer.
    #[prost(bytes = "vec", tag = "1")]
    pub transfer: Vec<u8>,
}

/// One frame from the agent on a file's stream.
#[derive(Clone, PartialEq, Message)]
pub struct FileReply {
    /// What it says.
    #[prost(oneof = "file_reply::Body", tags = "1, 2, 3, 4, 5, 6")]
    pub body: Option<file_reply::Body>,
}

/// Parts of [`FileReply`].
pub mod file_reply {
    use super::*;

    /// What an agent says about a file.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// What the file is.
        #[prost(message, tag = "1")]
        Meta(FileMeta),
        /// A part of its content.
        #[prost(message, tag = "2")]
        Data(FileData),
        /// That was all: the last frame.
        #[prost(message, tag = "3")]
        End(FileEnd),
        /// It is not done: the last frame.
        #[prost(message, tag = "4")]
        Refused(FileRefused),
        /// Bytes of an upload that are there: send what comes after them.
        #[prost(message, tag = "5")]
        Held(FileHeld),
        /// A digest is being made.
        #[prost(message, tag = "6")]
        Working(FileWorking),
    }
}

/// What a file is.
#[derive(Clone, PartialEq, Message)]
pub struct FileMeta {
    /// Bytes.
    #[prost(uint64, tag = "1")]
    pub size: u64,
    /// Permissions and the three bits before them.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// Number of the user.
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    /// Number of the group.
    #[prost(uint32, tag = "4")]
    pub gid: u32,
    /// When its content last changed.
    #[prost(int64, tag = "5")]
    pub modified_at_ms: i64,
    /// Another one as soon as the file is another or has changed.
    #[prost(bytes = "vec", tag = "6")]
    pub version: Vec<u8>,
    /// First byte that follows, when content follows.
    #[prost(uint64, tag = "7")]
    pub offset: u64,
    /// Bytes that follow, when content follows.
    #[prost(uint64, tag = "8")]
    pub length: u64,
    /// It is a directory, about which there is no more to say.
    #[prost(bool, tag = "9")]
    pub is_directory: bool,
}

/// A part of a file, in order.
#[derive(Clone, PartialEq, Message)]
pub struct FileData {
    /// The bytes; at most [`MAX_FILE_DATA`].
    #[prost(bytes = "vec", tag = "1")]
    pub bytes: Vec<u8>,
}

/// That was all.
#[derive(Clone, PartialEq, Message)]
pub struct FileEnd {
    /// SHA-256: of the bytes that were sent when they were read, else of the whole file.
    #[prost(bytes = "vec", tag = "1")]
    pub sha256: Vec<u8>,
}

/// Bytes of an upload that are there.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct FileHeld {
    /// How many.
    #[prost(uint64, tag = "1")]
    pub bytes: u64,
}

/// A digest is being made.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct FileWorking {}

/// It is not done.
#[derive(Clone, PartialEq, Message)]
pub struct FileRefused {
    /// Why.
    #[prost(enumeration = "FileRefusal", tag = "1")]
    pub code: i32,
    /// Why, in words, with what to do.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Why a host declines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum FileRefusal {
    /// None that this version knows.
    Unspecified = 0,
    /// The request makes no sense.
    Invalid = 1,
    /// It is for another host or an older identity.
    NotMine = 2,
    /// The owner of the host has paused it.
    Paused = 3,
    /// As many files as the host takes are under way: ask again later.
    Busy = 4,
    /// The owner of the host does not give this place out, or a link leads out of it.
    Outside = 5,
    /// There is no such file or directory.
    NotFound = 6,
    /// It is a directory.
    IsDirectory = 7,
    /// It is neither a file nor a directory, or lies where files are none.
    NotAFile = 8,
    /// The agent may not.
    Permission = 9,
    /// There is a file of that name.
    Exists = 10,
    /// The host's disk is full.
    DiskFull = 11,
    /// The file changed while it was read or written.
    Changed = 12,
    /// Larger than allowed.
    TooLarge = 13,
    /// What came has another digest than was announced; it is thrown away.
    Digest = 14,
    /// Fewer bytes are held than the offset says.
    Offset = 15,
    /// The disk failed.
    Io = 16,
    /// There is no such user or group.
    NoSuchOwner = 17,
}

/// One frame from the gateway on a file's stream, after the `Opening`.
#[derive(Clone, PartialEq, Message)]
pub struct FileOrder {
    /// What it says.
    #[prost(oneof = "file_order::Body", tags = "1")]
    pub body: Option<file_order::Body>,
}

/// Parts of [`FileOrder`].
pub mod file_order {
    use super::*;

    /// What a gateway says about a file.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// A part of its content.
        #[prost(message, tag = "1")]
        Data(FileData),
    }
}
