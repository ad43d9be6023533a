//! Scrapes: a host is asked for metrics on a stream of its link.
//!
//! What comes back is a stranger's text. It is taken in up to a size, must be text, and
//! goes to the asker whole or not at all, so that a failure is a problem with a code and
//! not half an answer. Nothing of it is read here: a host says what it likes about
//! itself, and cannot speak for another, because Prometheus labels series by the target
//! it asked (see docs/monitoring.md).
//!
//! Seats bound the memory: `AT_A_TIME` texts of `limits.scrape_bytes`. Who finds none
//! waits, as long as there is time; a host that holds its answers back holds at most
//! `OF_ONE_HOST` of them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::link::frame::{Deadlines, FrameReader, write_message};
use api::ProblemCode;
use model::ids::HostId;
use model::names::clean;
use protocol::frame::MAX_FRAME;
use protocol::v1::{
    Opening, ScrapeEnded, ScrapeFormat, ScrapeReply, ScrapeRequest, ScrapeStatus, opening,
    scrape_reply,
};
use quinn::VarInt;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::app::App;
use crate::error::{Error, Result};
use crate::link::registry::LiveLink;

/// Scrapes of all hosts at a time.
const AT_A_TIME: usize = 32;
/// Scrapes of one host at a time: two Prometheus servers, with two exporters each.
const OF_ONE_HOST: usize = 4;
/// What the host is given less than the asker, so that its own words arrive in time.
const MARGIN: Duration = Duration::from_millis(250);
/// The scrape's own limit, around all of it, comes first.
const NEVER: Duration = Duration::from_secs(600);
/// Told to a host whose answer nobody waits for any more.
const NOT_WANTED: VarInt = VarInt::from_u32(0);
/// Longest reason of a host that is passed on.
const MAX_REASON: usize = 300;

/// Who is being scraped.
#[derive(Debug)]
pub struct Scrapes {
    seats: Semaphore,
    hosts: Mutex<HashMap<HostId, usize>>,
}

impl Default for Scrapes {
    fn default() -> Self {
        Self {
            seats: Semaphore::new(AT_A_TIME),
            hosts: Mutex::default(),
        }
    }
}

/// What a host said.
#[derive(Debug, PartialEq, Eq)]
pub struct Scraped {
    /// The text.
    pub text: String,
    /// What it is written in.
    pub format: ScrapeFormat,
}

/// A host's seat; left when dropped.
struct Seat<'a>(&'a Scrapes, HostId);

impl Scrapes {
    fn sit(&self, host: HostId) -> Option<Seat<'_>> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = hosts.entry(host).or_default();
        if *taken >= OF_ONE_HOST {
            return None;
        }
        *taken += 1;
        Some(Seat(self, host))
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut hosts = self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = hosts.get_mut(&self.1) {
            *taken -= 1;
            if *taken == 0 {
                hosts.remove(&self.1);
            }
        }
    }
}

/// Asks the host at the end of `link` for its own samples, or for those of `exporter`.
pub async fn scrape(
    app: &App,
    host: HostId,
    link: &LiveLink,
    exporter: &str,
    within: Duration,
) -> Result<Scraped> {
    let began = Instant::now();
    let asked = async {
        let _seat = app.scrapes.sit(host).ok_or_else(|| {
            let detail = "this host is being scraped as often as it may be at a time";
            Error::unavailable(detail, Duration::from_secs(1))
        })?;
        let turn = app.scrapes.seats.acquire().await;
        let _turn = turn.map_err(|error| Error::internal(&error))?;
        ask(app, host, link, exporter, began + within).await
    };
    let asked = tokio::time::timeout(within, asked).await;
    let asked = asked.unwrap_or_else(|_| Err(timed_out("the host did not answer in time")));
    app.metrics.scrape(outcome(&asked), began.elapsed());
    asked
}

fn outcome(asked: &Result<Scraped>) -> &'static str {
    match asked {
        Ok(_) => "ok",
        Err(error) => match error.code {
            ProblemCode::HostNotLinked => "not_linked",
            ProblemCode::NoSuchExporter => "no_such_exporter",
            ProblemCode::ExporterFailed => "exporter_failed",
            ProblemCode::Timeout => "timeout",
            ProblemCode::Unavailable => "busy",
            _ => "failed",
        },
    }
}

async fn ask(
    app: &App,
    host: HostId,
    link: &LiveLink,
    exporter: &str,
    deadline: Instant,
) -> Result<Scraped> {
    let (mut send, receive) = link
        .connection
        .open_bi()
        .await
        .map_err(|error| lost(&error))?;
    let left = deadline.saturating_duration_since(Instant::now());
    let accepted = app.config.limits.scrape_bytes;
    let request = ScrapeRequest {
        host: host.to_string(),
        generation: link.generation,
        exporter: exporter.to_owned(),
        server_time_ms: app.now().as_millis(),
        deadline_ms: u32::try_from(left.saturating_sub(MARGIN).as_millis()).unwrap_or(u32::MAX),
        max_bytes: accepted as u64,
    };
    let opening = Opening {
        kind: Some(opening::Kind::Scrape(request)),
    };
    write_message(&mut send, &opening, MAX_FRAME, NEVER)
        .await
        .map_err(|error| lost(&error))?;
    let deadlines = Deadlines {
        idle: NEVER,
        frame: NEVER,
    };
    let mut reader = FrameReader::new(receive, MAX_FRAME, deadlines);
    let taken = take(&mut reader, accepted).await;
    // Whatever else the host has to say is not wanted.
    let _ = reader.into_inner().stop(NOT_WANTED);
    let _ = send.finish();
    let (text, ended) = taken?;
    judge(text, ended)
}

async fn take(
    reader: &mut FrameReader<quinn::RecvStream>,
    accepted: usize,
) -> Result<(Vec<u8>, ScrapeEnded)> {
    let mut text = Vec::new();
    loop {
        let reply: Option<ScrapeReply> = reader.next().await.map_err(|error| lost(&error))?;
        let Some(ScrapeReply { body }) = reply else {
            let detail = "the host's agent does not answer scrapes; update it";
            return Err(failed(detail));
        };
        match body {
            Some(scrape_reply::Body::Text(piece)) => {
                if text.len() + piece.data.len() > accepted {
                    return Err(failed("the host sent more than it was asked for"));
                }
                text.extend_from_slice(&piece.data);
            }
            Some(scrape_reply::Body::Ended(ended)) => return Ok((text, ended)),
            // A body that this version does not know says nothing to it.
            None => {}
        }
    }
}

fn judge(text: Vec<u8>, ended: ScrapeEnded) -> Result<Scraped> {
    let status = ScrapeStatus::try_from(ended.status).unwrap_or(ScrapeStatus::Unspecified);
    let reason = clean(&ended.message, MAX_REASON);
    match status {
        ScrapeStatus::Ok => {
            let text = String::from_utf8(text)
                .map_err(|_| failed("what the host sent is no text (UTF-8)"))?;
            // A control character has no place in it, and would reach terminals and pages.
            let odd = |byte: u8| byte < b' ' && !b"\n\r\t".contains(&byte);
            if text.bytes().any(odd) {
                return Err(failed("what the host sent has control characters"));
            }
            Ok(Scraped {
                text,
                format: ScrapeFormat::try_from(ended.format).unwrap_or(ScrapeFormat::Prometheus),
            })
        }
        ScrapeStatus::NoSuchExporter => Err(Error::new(
            ProblemCode::NoSuchExporter,
            "the agent's configuration names no such exporter",
        )),
        ScrapeStatus::TimedOut => Err(timed_out(&reason)),
        ScrapeStatus::Busy => Err(Error::unavailable(reason, Duration::from_secs(1))),
        // Its identity has changed since the link began: the next link is about to be there.
        ScrapeStatus::NotMine => Err(not_linked()),
        ScrapeStatus::Unreachable
        | ScrapeStatus::TooLarge
        | ScrapeStatus::HttpStatus
        | ScrapeStatus::BadContent
        | ScrapeStatus::Unspecified => Err(failed(&reason)),
    }
}

/// There is no link to ask on.
pub fn not_linked() -> Error {
    Error::new(
        ProblemCode::HostNotLinked,
        "the host is not connected: nothing can be asked of it",
    )
}

fn failed(reason: &str) -> Error {
    let reason = match reason {
        "" => "the host gave no reason",
        reason => reason,
    };
    Error::new(ProblemCode::ExporterFailed, reason)
}

fn timed_out(reason: &str) -> Error {
    Error::new(ProblemCode::Timeout, reason)
}

/// The stream or the link broke. An agent that knows no scrapes resets the stream.
fn lost(error: &(dyn std::error::Error + 'static)) -> Error {
    let why = model::error_chain(error);
    tracing::debug!(%why, "a scrape has lost its stream");
    failed("the host's agent broke off: it lost its link, or is too old to answer scrapes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(status: ScrapeStatus, message: &str) -> ScrapeEnded {
        ScrapeEnded {
            status: status.into(),
            message: message.to_owned(),
            format: ScrapeFormat::OpenMetrics.into(),
        }
    }

    #[test]
    fn only_whole_clean_text_is_passed_on() {
        let good = judge("up{a=\"é\"} 1\n".into(), ended(ScrapeStatus::Ok, "ignored"));
        let expected = Scraped {
            text: "up{a=\"é\"} 1\n".to_owned(),
            format: ScrapeFormat::OpenMetrics,
        };
        assert_eq!(good.unwrap(), expected);
        for bad in [&b"up \xff"[..], b"up 1\0", b"\x1b[31mup 1"] {
            let refused = judge(bad.to_vec(), ended(ScrapeStatus::Ok, "")).unwrap_err();
            assert_eq!(refused.code, ProblemCode::ExporterFailed);
        }
    }

    #[test]
    fn every_end_has_a_code_and_text_before_it_does_not_count() {
        use ProblemCode as P;
        for (status, code) in [
            (ScrapeStatus::Unspecified, P::ExporterFailed),
            (ScrapeStatus::NotMine, P::HostNotLinked),
            (ScrapeStatus::NoSuchExporter, P::NoSuchExporter),
            (ScrapeStatus::Unreachable, P::ExporterFailed),
            (ScrapeStatus::TooLarge, P::ExporterFailed),
            (ScrapeStatus::TimedOut, P::Timeout),
            (ScrapeStatus::HttpStatus, P::ExporterFailed),
            (ScrapeStatus::BadContent, P::ExporterFailed),
            (ScrapeStatus::Busy, P::Unavailable),
        ] {
            let error = judge(b"up 1\n".to_vec(), ended(status, "why\x1b[31m")).unwrap_err();
            assert_eq!(error.code, code, "{status:?}");
            assert!(!error.detail.contains('\x1b'), "{}", error.detail);
        }
    }

    #[test]
    fn a_host_has_a_few_seats_and_gives_them_back() {
        let scrapes = Scrapes::default();
        let host = |last| HostId::new(model::Timestamp::from_millis(1), [last; 10]);
        let seats: Vec<_> = (0..OF_ONE_HOST).map(|_| scrapes.sit(host(1))).collect();
        assert!(seats.iter().all(Option::is_some));
        assert!(scrapes.sit(host(1)).is_none() && scrapes.sit(host(2)).is_some());
        drop(seats);
        assert!(scrapes.sit(host(1)).is_some());
        assert!(scrapes.hosts.lock().unwrap().is_empty());
    }
}
