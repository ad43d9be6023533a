//! The socket by which commands on this host talk to the running agent.
//!
//! A socket rather than a status file: it answers only while the agent lives, so
//! `status` cannot be fooled by a stale file, and it writes nothing to a disk that may
//! be full. One line is asked, one line of JSON is answered. Who may ask, the file
//! system decides: the folder is 0700, the socket 0600.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::status::Status;

const NAME: &str = "agent.sock";
/// Longer than any question.
const MAX_QUESTION: u64 = 64;
/// Time to ask and to take the answer: the asker is a program on this host.
const LIMIT: Duration = Duration::from_secs(5);
/// Time for an answer; deregistering waits for the gateway.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Askers at a time; others wait in the kernel's queue.
const ASKERS: usize = 8;

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// How do you stand?
    Status,
    /// Tell the gateway that this host leaves for good.
    Deregister,
}

impl Question {
    fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Deregister => "deregister",
        }
    }

    fn parse(line: &str) -> Option<Self> {
        [Self::Status, Self::Deregister]
            .into_iter()
            .find(|question| question.as_str() == line)
    }
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// How it stands.
    Status(Box<Status>),
    /// Whether the gateway has taken the goodbye.
    Deregistered {
        /// It has.
        acknowledged: bool,
        /// In words.
        text: String,
    },
    /// The question makes no sense to this version.
    Unknown,
}

/// A question and where its answer goes.
pub type Asked = (Question, oneshot::Sender<Answer>);

/// The agent's end. Takes the socket away when dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    listener: UnixListener,
}

/// Why nobody can be answered.
#[derive(Debug, thiserror::Error)]
#[error("listen for local commands on {path}")]
pub struct ListenError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Server {
    /// Listens in the first of `dirs` that works.
    pub fn bind(dirs: &[PathBuf]) -> Result<Self, ListenError> {
        let mut first = None;
        for dir in dirs {
            match Self::bind_in(dir) {
                Ok(server) => return Ok(server),
                Err(source) => {
                    first.get_or_insert(ListenError {
                        path: dir.join(NAME),
                        source,
                    });
                }
            }
        }
        let nowhere = || ListenError {
            path: NAME.into(),
            source: io::ErrorKind::NotFound.into(),
        };
        Err(first.unwrap_or_else(nowhere))
    }

    fn bind_in(dir: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        let path = dir.join(NAME);
        // The state's lock says that no other agent of ours runs; what answers here
        // belongs to an agent with another state folder.
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another agent answers there",
            ));
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self { path, listener })
    }

    /// Passes questions on until nobody takes them, and delivers the answers given.
    pub async fn serve(&self, asked: mpsc::Sender<Asked>) {
        let mut askers = JoinSet::new();
        loop {
            tokio::select! {
                () = asked.closed() => break,
                accepted = self.listener.accept(), if askers.len() < ASKERS => match accepted {
                    Ok((stream, _)) => {
                        askers.spawn(serve_one(stream, asked.clone()));
                    }
                    // Out of descriptors, say: do not spin.
                    Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                },
                Some(_) = askers.join_next() => {}
            }
        }
        while askers.join_next().await.is_some() {}
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn serve_one(mut stream: UnixStream, asked: mpsc::Sender<Asked>) {
    let answer = match timeout(LIMIT, read_question(&mut stream)).await {
        Ok(Some(question)) => {
            let (give, take) = oneshot::channel();
            if asked.send((question, give)).await.is_err() {
                return;
            }
            match timeout(ANSWER_LIMIT, take).await {
                Ok(Ok(answer)) => answer,
                // The agent ends; the closed socket says so.
                _ => return,
            }
        }
        _ => Answer::Unknown,
    };
    if let Ok(json) = serde_json::to_vec(&answer) {
        let _ = timeout(LIMIT, stream.write_all(&json)).await;
        let _ = timeout(LIMIT, stream.shutdown()).await;
    }
}

async fn read_question(stream: &mut UnixStream) -> Option<Question> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() as u64 <= MAX_QUESTION {
        stream.read_exact(&mut byte).await.ok()?;
        if byte[0] == b'\n' {
            return Question::parse(str::from_utf8(&line).ok()?);
        }
        line.push(byte[0]);
    }
    None
}

/// Why the agent was not asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("the agent is not running")]
    NotRunning,
    /// Not ours to ask.
    #[error("{path} may not be used; run this as the agent's user, usually root")]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// It broke off.
    #[error("ask the running agent")]
    Io(#[source] io::Error),
    /// Something else listens there.
    #[error("the running agent's answer makes no sense")]
    Malformed(#[source] serde_json::Error),
}

/// Asks the agent that listens in one of `dirs`.
pub fn ask(dirs: &[PathBuf], question: Question) -> Result<Answer, AskError> {
    let mut denied = None;
    for dir in dirs {
        let path = dir.join(NAME);
        match std::os::unix::net::UnixStream::connect(&path) {
            Ok(stream) => return ask_over(stream, question),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                denied.get_or_insert(AskError::Denied { path });
            }
            Err(_) => {}
        }
    }
    Err(denied.unwrap_or(AskError::NotRunning))
}

fn ask_over(
    mut stream: std::os::unix::net::UnixStream,
    question: Question,
) -> Result<Answer, AskError> {
    let limit = LIMIT + ANSWER_LIMIT;
    stream.set_read_timeout(Some(limit)).map_err(AskError::Io)?;
    stream
        .set_write_timeout(Some(LIMIT))
        .map_err(AskError::Io)?;
    stream
        .write_all(format!("{}\n", question.as_str()).as_bytes())
        .map_err(AskError::Io)?;
    let mut json = Vec::new();
    BufReader::new(stream.take(1 << 20))
        .read_until(b'\n', &mut json)
        .map_err(AskError::Io)?;
    if json.is_empty() {
        return Err(AskError::NotRunning);
    }
    serde_json::from_slice(&json).map_err(AskError::Malformed)
}
