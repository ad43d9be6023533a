//! Diagnoses of hosts: who may have one at the moment, and the stream of one.
//!
//! Nothing of a diagnosis is kept here: what a host says goes to whoever asked, section
//! by section, so that one costs the memory of one section. The host has taken secrets
//! out of it; it is not looked at again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::link::frame::{Deadlines, FrameReader, ReadError, write_message};
use api::ProblemCode;
use gateway_core::diagnose::{Heard, Intake, Told};
use model::diagnose::{Outcome, Section};
use model::host::Membership;
use model::ids::HostId;
use model::names::clean;
use protocol::frame::MAX_FRAME;
use protocol::v1::{
    DiagnoseRefusal, DiagnoseRefused, DiagnoseReport, DiagnoseRequest, DiagnoseSection, Opening,
    opening,
};
use quinn::{RecvStream, SendStream};
use tokio::time::{Instant, timeout, timeout_at};

use crate::app::App;
use crate::error::{Error, Result};

/// Diagnoses at a time. Each holds a section, which is 4 MiB.
const MOST: usize = 16;
/// For a host to grant a stream and to take the request.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// Between two frames; the longest section is silent for 22 s.
const READ: Deadlines = Deadlines {
    idle: Duration::from_secs(35),
    frame: Duration::from_secs(30),
};
/// For one section to be answered with, within the time of any request.
pub const ONE_WITHIN: Duration = Duration::from_secs(27);
/// For a bundle.
pub const BUNDLE_WITHIN: Duration = Duration::from_secs(100);
/// How an agent says that it does not know what a stream is for.
const UNKNOWN_KIND: u32 = 1;

/// Hosts that are being diagnosed.
#[derive(Debug, Default)]
pub struct Diagnoses(Mutex<HashSet<HostId>>);

/// The right to diagnose one host now.
#[derive(Debug)]
pub struct Seat {
    of: Arc<Diagnoses>,
    host: HostId,
}

impl Diagnoses {
    /// Takes a seat, if this host has none and there are any left.
    pub fn sit(self: &Arc<Self>, host: HostId) -> Result<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = if taken.contains(&host) {
            "this host is being diagnosed; try again when that has ended"
        } else if taken.len() >= MOST {
            "as many hosts as possible are being diagnosed; try again in a moment"
        } else {
            taken.insert(host);
            let of = Arc::clone(self);
            return Ok(Seat { of, host });
        };
        Err(Error::unavailable(busy, Duration::from_secs(5)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(&self.host);
    }
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Asked {
    /// These sections, in this order.
    pub sections: Vec<Section>,
    /// Of units and journal.
    pub unit: String,
    /// Of journal and kernel; zero for the usual.
    pub lines: u32,
    /// Of network.
    pub targets: Vec<String>,
}

impl Asked {
    fn request(&self, host: HostId, generation: u64, within: Duration) -> DiagnoseRequest {
        let section = |section: &Section| DiagnoseSection {
            name: section.to_string(),
            unit: match section {
                Section::Units | Section::Journal => self.unit.clone(),
                _ => String::new(),
            },
            lines: match section {
                Section::Kernel | Section::Journal => self.lines,
                _ => 0,
            },
            targets: match section {
                Section::Network => self.targets.clone(),
                _ => Vec::new(),
            },
        };
        DiagnoseRequest {
            host: host.to_string(),
            generation,
            sections: self.sections.iter().map(section).collect(),
            within_ms: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
        }
    }
}

/// The stream of one diagnosis. Dropping it tells the host to stop.
pub struct Diagnosis {
    reader: FrameReader<RecvStream>,
    _send: SendStream,
    intake: Intake,
    due: Instant,
    /// What came with the beginning.
    first: Option<Heard>,
    over: Option<String>,
    _seat: Seat,
}

impl Diagnosis {
    /// Asks `host` and waits until it begins.
    pub async fn begin(app: &App, host: HostId, asked: &Asked, within: Duration) -> Result<Self> {
        let membership = {
            let tables = app.catalog.read();
            tables.hosts.get(&host).map(|host| host.membership)
        };
        if membership != Some(Membership::Managed) {
            return Err(Error::conflict(
                "only managed hosts are diagnosed: this one is not, or not yet",
            ));
        }
        let link = app.links.live(host).filter(|link| !link.renewal_only);
        let link = link.ok_or_else(not_linked)?;
        let seat = app.diagnoses.sit(host)?;
        let due = Instant::now() + within;
        let opened = timeout(WRITE_WITHIN, link.connection.open_bi()).await;
        let (mut send, receive) = opened
            .map_err(|_| silent("the host takes no more streams at the moment"))?
            .map_err(|_| not_linked())?;
        // The host is to end by itself a little before it is given up.
        let its_time = within.saturating_sub(Duration::from_secs(3));
        let opening = Opening {
            kind: Some(opening::Kind::Diagnose(asked.request(
                host,
                link.generation,
                its_time,
            ))),
        };
        write_message(&mut send, &opening, MAX_FRAME, WRITE_WITHIN)
            .await
            .map_err(|_| silent("the host does not take the request"))?;
        let mut diagnosis = Self {
            reader: FrameReader::new(receive, MAX_FRAME, READ),
            _send: send,
            intake: Intake::new(&asked.sections),
            due,
            first: None,
            over: None,
            _seat: seat,
        };
        match diagnosis.hear().await {
            Ok(Heard::Refused(refused)) => Err(declined(&refused)),
            Ok(heard) => {
                diagnosis.first = Some(heard);
                Ok(diagnosis)
            }
            Err(Lost::TooOld) => Err(Error::conflict(
                "the agent of this host does not know diagnostics; update it",
            )),
            Err(Lost::Why(why)) => Err(silent(&why)),
        }
    }

    /// The next section, until all that were asked for have been told, by the host or
    /// as failed.
    pub async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(why) = &self.over {
                let section = self.intake.give_up()?;
                return Some(Told::untold(section, why));
            }
            let heard = match self.first.take() {
                Some(heard) => Ok(heard),
                None => self.hear().await,
            };
            match heard {
                Ok(Heard::More) => {}
                Ok(Heard::Section(told)) => return Some(readable(told)),
                Ok(Heard::Done) => self.over = Some("the host has left it out".to_owned()),
                Ok(Heard::Refused(_)) => self.over = Some("the host declined it".to_owned()),
                Err(Lost::Why(why)) => self.over = Some(why),
                Err(Lost::TooOld) => self.over = Some("the host ended the stream".to_owned()),
            }
        }
    }

    async fn hear(&mut self) -> std::result::Result<Heard, Lost> {
        let frame = timeout_at(self.due, self.reader.next::<DiagnoseReport>()).await;
        let why = |why: &str| Lost::Why(why.to_owned());
        match frame {
            Err(_) => Err(why("the host did not answer in time")),
            Ok(Err(error)) if is_too_old(&error) => Err(Lost::TooOld),
            Ok(Err(error)) => Err(Lost::Why(format!(
                "the host was lost: {}",
                model::error_chain(&error)
            ))),
            Ok(Ok(None)) => Err(why("the host ended the stream")),
            Ok(Ok(Some(report))) => self.intake.hear(report).map_err(|nonsense| {
                tracing::info!(%nonsense, "a diagnosis is given up");
                Lost::Why(nonsense.to_string())
            }),
        }
    }
}

enum Lost {
    TooOld,
    Why(String),
}

/// A document that is none is not handed on under the name of one.
fn readable(told: Told) -> Told {
    let section = told.section;
    let bad = !section.is_text()
        && told.outcome != Outcome::Failed
        && serde_json::from_slice::<serde::de::IgnoredAny>(&told.content).is_err();
    if bad {
        return Told::untold(section, "what the host sent is not JSON");
    }
    told
}

fn is_too_old(error: &ReadError) -> bool {
    let ReadError::Io(error) = error else {
        return false;
    };
    let cause = error.get_ref().and_then(|it| it.downcast_ref());
    matches!(cause, Some(quinn::ReadError::Reset(code)) if *code == UNKNOWN_KIND.into())
}

fn declined(refused: &DiagnoseRefused) -> Error {
    let why = clean(&refused.message, 256);
    match refused.code() {
        DiagnoseRefusal::Busy => silent(&format!("the host declines: {why}")),
        _ => Error::conflict(format!("the host declines: {why}")),
    }
}

fn not_linked() -> Error {
    Error::new(
        ProblemCode::HostNotLinked,
        "this host has no link at the moment, so nobody can look into it from here; \
         `loopback-agent doctor` on the host says why",
    )
}

fn silent(why: &str) -> Error {
    Error::unavailable(why, Duration::from_secs(5))
}
