//! Files on hosts: what they are, their content, and uploads.
//!
//! An upload that was cut goes on: [`GetFileUpload`] says how many bytes its host holds, and
//! [`WriteFile`] takes the rest from there. What is held is known by the caller, the path,
//! the size and the digest, on the host alone, so that there is no upload to make first and
//! nothing that a gateway could forget.

use model::Timestamp;
use model::file::{FileMode, FileOwner, HostPath, Sha256};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OfHost;
use crate::endpoint::{Raw, endpoints};

endpoints! {
    /// Show what a file on a host is.
    get_file GetFile: GET "/v1/workspaces/{workspace}/hosts/{host}/files", needs HostFileRead, path OfHost, query FileQuestion,
        reply 200 FileInfo, problems [Conflict];
    /// Read a file on a host, or with `Range` a part of it; `ETag` and `If-Range` tell whether it is still the same.
    read_file ReadFile: GET "/v1/workspaces/{workspace}/hosts/{host}/files/content", needs HostFileRead, path OfHost, query FileAt,
        reply 200 as "application/octet-stream" Raw, problems [Conflict, RangeNotSatisfiable];
    /// Write a file on a host: the body is its content, from `from` to its end.
    write_file WriteFile: PUT "/v1/workspaces/{workspace}/hosts/{host}/files/content", needs HostFileWrite, path OfHost, query FileUpload, body Raw,
        reply 200 FileInfo, problems [NameTaken, BodyTooLarge, UnsupportedMediaType, HostStorageFull];
    /// Show how much of an upload its host holds.
    get_file_upload GetFileUpload: GET "/v1/workspaces/{workspace}/hosts/{host}/files/upload", needs HostFileWrite, path OfHost, query UploadQuestion,
        reply 200 UploadState, problems [Conflict];
}

/// Which file, and what to say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileQuestion {
    /// Where it is.
    pub path: HostPath,
    /// Also the digest of its content, for which the host reads it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub digest: bool,
}

/// Which file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileAt {
    /// Where it is.
    pub path: HostPath,
}

/// A file to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileUpload {
    /// Where it will be.
    pub path: HostPath,
    /// Digest of the whole content. What comes with another is not written.
    pub sha256: Sha256,
    /// Size of the whole content. `from` and `Content-Length` together when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Place of the body's first byte in the content: 0, or up to what the host holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Permissions. Those of the file that is replaced, or 0600, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
    /// Set-user-id, set-group-id and sticky bits in the mode are meant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub special: bool,
    /// `user`, `user:group` or `:group`. As the file that is replaced, or the agent's own
    /// user, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<FileOwner>,
    /// Replace a file that is there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overwrite: bool,
    /// Make the directories that are missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub make_parents: bool,
}

/// Which upload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadQuestion {
    /// Where the file will be.
    pub path: HostPath,
    /// Digest of the whole content.
    pub sha256: Sha256,
    /// Size of the whole content.
    pub size: u64,
}

/// How far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UploadState {
    /// Bytes that the host holds: go on from there.
    pub held: u64,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileInfo {
    /// Where it is.
    pub path: HostPath,
    /// Whether it is a directory, of which nothing more is told.
    pub directory: bool,
    /// Bytes.
    pub size: u64,
    /// Permissions.
    pub mode: FileMode,
    /// Number of its user.
    pub uid: u32,
    /// Number of its group.
    pub gid: u32,
    /// When its content last changed, by the host's clock.
    pub modified_at: Timestamp,
    /// Another one as soon as the file is another or has changed: the `ETag` of its content.
    pub version: String,
    /// Digest of its content, where it was asked for or is known.
    pub sha256: Option<Sha256>,
}
