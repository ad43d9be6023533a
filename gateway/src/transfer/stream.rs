//! One stream about a file: opened, asked on, listened to.

use std::sync::Arc;
use std::time::Duration;

use ::link::frame::{Deadlines, FrameReader, ReadError, write_message};
use api::ProblemCode;
use api::v1::file::FileInfo;
use model::Timestamp;
use model::file::{FileMode, HostPath, Sha256};
use model::host::Membership;
use model::ids::{HostId, WorkspaceId};
use protocol::frame::MAX_FRAME;
use protocol::v1::{
    FileData, FileMeta, FileOrder, FileRefusal, FileRefused, FileReply, FileRequest, MAX_FILE_DATA,
    Opening, file_order, file_reply, file_request, opening,
};

use super::{STALLED, Seat};
use crate::app::App;
use crate::error::{Error, Result};

/// For the host to grant a stream.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// For the host to make a digest: of the largest file, from the slowest disk.
pub const WORK_WITHIN: Duration = Duration::from_secs(900);
const READ: Deadlines = Deadlines {
    idle: STALLED,
    frame: STALLED,
};
/// Longest text of a refusal that is passed on.
const MOST_TEXT: usize = 256;

/// What the host says.
pub struct Hearing {
    reader: FrameReader<quinn::RecvStream>,
    _seat: Seat,
}

/// What the host is told.
pub struct Telling(quinn::SendStream);

/// Asks a host that the workspace has.
pub async fn open(
    app: &Arc<App>,
    workspace: WorkspaceId,
    host: HostId,
    path: &HostPath,
    action: file_request::Action,
) -> Result<(Telling, Hearing)> {
    let membership = app
        .catalog
        .read()
        .host_in(workspace, host)
        .map(|record| record.membership)
        .ok_or_else(|| Error::not_found("host"))?;
    if membership != Membership::Managed {
        return Err(Error::conflict(
            "only managed hosts read and write files; this one is quarantined, retired, or has no agent",
        ));
    }
    let away = || {
        Error::unavailable(
            "the host has no link at this moment; try again when it is connected",
            Duration::from_secs(5),
        )
    };
    let link = app.links.live(host).filter(|link| !link.renewal_only);
    let link = link.ok_or_else(away)?;
    let seat = app.transfers.take(host).ok_or_else(|| {
        let detail = "as many files of this host as it takes at a time are under way";
        Error::unavailable(detail, Duration::from_secs(1))
    })?;
    let opened = tokio::time::timeout(OPEN_WITHIN, link.connection.open_bi()).await;
    let (mut send, receive) = match opened {
        Ok(Ok(streams)) => streams,
        Ok(Err(_)) => return Err(away()),
        Err(_) => {
            let detail = "the host takes no more streams at this moment";
            return Err(Error::unavailable(detail, Duration::from_secs(5)));
        }
    };
    let request = FileRequest {
        host: host.to_string(),
        generation: link.generation,
        path: path.to_string(),
        max_bytes: app.config.limits.file_bytes as u64,
        action: Some(action),
    };
    let opening = Opening {
        kind: Some(opening::Kind::File(request)),
    };
    write_message(&mut send, &opening, MAX_FRAME, STALLED)
        .await
        .map_err(|_| away())?;
    let hearing = Hearing {
        reader: FrameReader::new(receive, MAX_FRAME, READ),
        _seat: seat,
    };
    Ok((Telling(send), hearing))
}

impl Telling {
    /// Sends a piece. False when the host takes no more: it has said why, or is gone.
    pub async fn tell(&mut self, piece: &[u8]) -> bool {
        for bytes in piece.chunks(MAX_FILE_DATA) {
            let data = FileData {
                bytes: bytes.to_vec(),
            };
            let order = FileOrder {
                body: Some(file_order::Body::Data(data)),
            };
            if write_message(&mut self.0, &order, MAX_FRAME, STALLED)
                .await
                .is_err()
            {
                return false;
            }
        }
        true
    }

    /// That was all there is for now.
    pub fn end(&mut self) {
        // One that has ended already has nothing to be told.
        let _ = self.0.finish();
    }
}

impl Hearing {
    /// The next thing that the host says of the file.
    pub async fn next(&mut self) -> Result<file_reply::Body> {
        // An agent that is at work for ever is none.
        tokio::time::timeout(WORK_WITHIN, self.next_but_work())
            .await
            .unwrap_or_else(|_| Err(silent()))
    }

    async fn next_but_work(&mut self) -> Result<file_reply::Body> {
        loop {
            let reply: Option<FileReply> = self.reader.next().await.map_err(|error| cut(&error))?;
            match reply {
                Some(FileReply {
                    body: Some(file_reply::Body::Working(_)) | None,
                }) => {}
                Some(FileReply {
                    body: Some(file_reply::Body::Refused(refused)),
                }) => return Err(refusal(&refused)),
                Some(FileReply { body: Some(body) }) => return Ok(body),
                None => return Err(gone()),
            }
        }
    }

    /// What the file is, which must come next.
    pub async fn meta(&mut self) -> Result<FileMeta> {
        match self.next().await? {
            file_reply::Body::Meta(meta) => Ok(meta),
            _ => Err(nonsense()),
        }
    }

    /// The digest, which must come next.
    pub async fn end(&mut self) -> Result<Sha256> {
        match self.next().await? {
            file_reply::Body::End(end) => {
                Sha256::try_from(end.sha256.as_slice()).map_err(|_| nonsense())
            }
            _ => Err(nonsense()),
        }
    }

    /// How much is held, which must come next.
    pub async fn held(&mut self) -> Result<u64> {
        match self.next().await? {
            file_reply::Body::Held(held) => Ok(held.bytes),
            _ => Err(nonsense()),
        }
    }
}

/// What is answered about a file.
pub fn info(path: &HostPath, meta: &FileMeta, sha256: Option<Sha256>) -> Result<FileInfo> {
    Ok(FileInfo {
        path: path.clone(),
        directory: meta.is_directory,
        size: meta.size,
        mode: FileMode::of(meta.mode),
        uid: meta.uid,
        gid: meta.gid,
        modified_at: Timestamp::from_millis(meta.modified_at_ms),
        version: version(meta)?,
        sha256,
    })
}

/// The version as it travels.
pub fn version(meta: &FileMeta) -> Result<String> {
    if meta.version.len() == 16 {
        Ok(data_encoding::HEXLOWER.encode(&meta.version))
    } else {
        Err(nonsense())
    }
}

/// The host does not keep to the protocol.
pub fn nonsense() -> Error {
    Error::conflict(
        "the host's agent answered with something that makes no sense, and nothing of it was believed",
    )
}

fn gone() -> Error {
    Error::unavailable(
        "the host ended the transfer; it may be going down, or its link was lost",
        Duration::from_secs(2),
    )
}

fn silent() -> Error {
    Error::new(
        ProblemCode::Timeout,
        "the host fell silent in the middle of the transfer",
    )
}

fn cut(error: &ReadError) -> Error {
    match error {
        ReadError::Codec(_) => nonsense(),
        ReadError::Idle(_) | ReadError::Slow(_) => silent(),
        ReadError::Io(error) if is_reset(error) => {
            Error::conflict("the agent of this host does not know what is asked; update it")
        }
        ReadError::Io(_) | ReadError::Truncated { .. } => gone(),
    }
}

/// An agent resets what it does not know.
fn is_reset(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|it| it.downcast_ref());
    matches!(inner, Some(quinn::ReadError::Reset(_)))
}

/// A host's refusal as a situation.
fn refusal(refused: &FileRefused) -> Error {
    let said = model::names::clean(&refused.message, MOST_TEXT);
    let detail = format!("the host says: {said}");
    match refused.code() {
        FileRefusal::NotFound => Error::new(ProblemCode::NotFound, detail),
        FileRefusal::Invalid => Error::new(ProblemCode::Invalid, detail),
        FileRefusal::Outside | FileRefusal::IsDirectory | FileRefusal::NotAFile => {
            Error::invalid("path", detail)
        }
        FileRefusal::NoSuchOwner => Error::invalid("owner", detail),
        FileRefusal::Digest => Error::invalid("sha256", detail),
        FileRefusal::TooLarge => Error::new(ProblemCode::BodyTooLarge, detail),
        FileRefusal::Exists => Error::new(ProblemCode::NameTaken, detail),
        FileRefusal::DiskFull => Error::new(ProblemCode::HostStorageFull, detail),
        FileRefusal::Busy | FileRefusal::NotMine => {
            Error::unavailable(detail, Duration::from_secs(1))
        }
        FileRefusal::Unspecified
        | FileRefusal::Paused
        | FileRefusal::Permission
        | FileRefusal::Changed
        | FileRefusal::Offset
        | FileRefusal::Io => Error::conflict(detail),
    }
}
