//! The other end of the admin socket: how this program's commands reach a gateway that
//! runs.
//!
//! HTTP/1.0, because its answers end with the connection and not with a framing of
//! their own: a page of code instead of a client library. What must be known to be
//! complete says so itself (a backup has an end and a digest, JSON has braces).

use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::Problem;

use crate::http::server::ADMIN_SOCKET;

/// A gateway that says nothing for this long hangs.
const SILENCE: Duration = Duration::from_secs(60);
/// No head and no problem of ours is larger.
const MAX_TEXT: u64 = 64 * 1024;

/// Why the gateway did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The socket is there and not for us.
    #[error("reach the gateway at {path}; run this as root or as the gateway's user")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It broke off.
    #[error("talk to the gateway at {path}")]
    Talk {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

/// The body of the gateway's answer to `method path`; nothing when no gateway serves
/// the state in `state`.
pub fn request(
    state: &Path,
    method: &str,
    path: &str,
) -> Result<Option<impl Read + use<>>, AdminError> {
    let socket = state.join(ADMIN_SOCKET);
    let stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        // Nobody listens: there is none, or one was left behind by a crash.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(source) => {
            return Err(AdminError::Connect {
                path: socket,
                source,
            });
        }
    };
    let talk = |source| AdminError::Talk {
        path: socket.clone(),
        source,
    };
    let (status, body) = exchange(stream, method, path).map_err(talk)?;
    if status == 200 {
        return Ok(Some(body));
    }
    let mut text = String::new();
    body.take(MAX_TEXT)
        .read_to_string(&mut text)
        .map_err(talk)?;
    let detail = serde_json::from_str::<Problem>(&text).map(|problem| problem.detail);
    Err(AdminError::Refused(detail.unwrap_or_else(|_| {
        format!("it answered {status}; is it of another release?")
    })))
}

fn exchange(
    mut stream: UnixStream,
    method: &str,
    path: &str,
) -> io::Result<(u16, BufReader<UnixStream>)> {
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut body = BufReader::with_capacity(256 * 1024, stream);
    let status = line(&mut body)?;
    while !line(&mut body)?.is_empty() {}
    let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("this is no HTTP"))?;
    Ok((status, body))
}

fn line(body: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    body.take(MAX_TEXT).read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(text) => Ok(text.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
