//! Answering the gateway's scrapes: the agent's own samples, or what an exporter on this
//! host's loopback says.
//!
//! The gateway names an exporter, never an address: what can be reached through the
//! agent is what the host's configuration lists. The text goes out as it comes in, in
//! pieces, so that a scrape costs little memory; it counts only once the last frame says
//! that it was whole.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use agent_core::exporter::Exporter;
use agent_core::exporter::http::{Answer, Bad, Format, request};
use link::frame::{MAX_FRAME, write_message};
use model::ids::HostId;
use protocol::v1::{
    ScrapeEnded, ScrapeFormat, ScrapeReply, ScrapeRequest, ScrapeStatus, ScrapeText, scrape_reply,
};
use quinn::SendStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::metrics::sample;

/// Scrapes at a time; a gateway that asks for more is told so.
const AT_A_TIME: usize = 4;
/// The longest that a scrape may take, whatever the gateway asks.
const LONGEST: Duration = Duration::from_secs(30);
/// The largest text, whatever the gateway accepts.
const LARGEST: u64 = 16 << 20;
/// Bytes of text in a frame.
const PIECE: usize = 64 << 10;
/// For the gateway to take a frame, and the end.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// Who answers the scrapes of one link.
#[derive(Debug)]
pub struct Scraper {
    host: HostId,
    generation: u64,
    exporters: Vec<Exporter>,
    seats: Semaphore,
}

/// Why there is no text.
#[derive(Debug)]
struct Failed(ScrapeStatus, String);

impl Failed {
    fn unreachable(error: &io::Error) -> Self {
        let status = match error.kind() {
            io::ErrorKind::TimedOut => ScrapeStatus::TimedOut,
            _ => ScrapeStatus::Unreachable,
        };
        Self(status, format!("the exporter cannot be asked: {error}"))
    }

    fn timed_out() -> Self {
        let message = "there was no whole answer in time";
        Self(ScrapeStatus::TimedOut, message.to_owned())
    }
}

impl From<Bad> for Failed {
    fn from(bad: Bad) -> Self {
        let status = match bad {
            Bad::Status(_) => ScrapeStatus::HttpStatus,
            Bad::TooLarge => ScrapeStatus::TooLarge,
            Bad::Content(_) => ScrapeStatus::BadContent,
        };
        Self(status, bad.to_string())
    }
}

impl Scraper {
    /// Answers as this identity, for these exporters.
    pub fn new(host: HostId, generation: u64, exporters: Vec<Exporter>) -> Self {
        Self {
            host,
            generation,
            exporters,
            seats: Semaphore::new(AT_A_TIME),
        }
    }

    /// Answers one scrape.
    pub async fn answer(&self, request: &ScrapeRequest, send: &mut SendStream) {
        let within = Duration::from_millis(request.deadline_ms.into()).min(LONGEST);
        let outcome = self.text(request, within, send).await;
        let ended = match outcome {
            Ok(format) => ScrapeEnded {
                status: ScrapeStatus::Ok.into(),
                message: String::new(),
                format: format.into(),
            },
            Err(Failed(status, message)) => {
                tracing::debug!(exporter = %model::names::clean(&request.exporter, 64), ?status, %message, "a scrape failed");
                ScrapeEnded {
                    status: status.into(),
                    message,
                    format: ScrapeFormat::Prometheus.into(),
                }
            }
        };
        if say(send, scrape_reply::Body::Ended(ended)).await.is_ok() && send.finish().is_ok() {
            let _ = timeout(WRITE_WITHIN, send.stopped()).await;
        }
    }

    async fn text(
        &self,
        request: &ScrapeRequest,
        within: Duration,
        send: &mut SendStream,
    ) -> Result<ScrapeFormat, Failed> {
        if request.host != self.host.to_string() || request.generation != self.generation {
            let message = "this host has another identity";
            return Err(Failed(ScrapeStatus::NotMine, message.to_owned()));
        }
        let Ok(_seat) = self.seats.try_acquire() else {
            let message = "this host answers as many scrapes as it does at a time";
            return Err(Failed(ScrapeStatus::Busy, message.to_owned()));
        };
        let accepted = request.max_bytes.min(LARGEST);
        if request.exporter.is_empty() {
            let text = before(Instant::now() + within, sample())
                .await?
                .map_err(|error| Failed(ScrapeStatus::Unreachable, error.to_string()))?;
            if text.len() as u64 > accepted {
                return Err(Bad::TooLarge.into());
            }
            pass_on(send, text.as_bytes()).await?;
            return Ok(ScrapeFormat::Prometheus);
        }
        let found = self
            .exporters
            .iter()
            .find(|exporter| exporter.name() == request.exporter);
        let exporter = found.ok_or_else(|| {
            let message = "the agent's configuration names no such exporter";
            Failed(ScrapeStatus::NoSuchExporter, message.to_owned())
        })?;
        ask(exporter, within, accepted, send).await
    }
}

async fn ask(
    exporter: &Exporter,
    within: Duration,
    accepted: u64,
    send: &mut SendStream,
) -> Result<ScrapeFormat, Failed> {
    // Waiting is bounded, but not the writing of a frame: one that is cut in two would
    // leave no way to say how it ended.
    let deadline = Instant::now() + within;
    let unreachable = |error: io::Error| Failed::unreachable(&error);
    let within_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
    let request = request(exporter.host(), exporter.target(), within_ms);
    let connecting = connect(exporter.addresses());
    let mut stream = before(deadline, connecting).await?.map_err(unreachable)?;
    let asking = stream.write_all(&request);
    before(deadline, asking).await?.map_err(unreachable)?;
    let mut answer = Answer::new(accepted);
    let mut bytes = vec![0; PIECE];
    let mut body = Vec::new();
    loop {
        let reading = stream.read(&mut bytes);
        let size = before(deadline, reading).await?.map_err(unreachable)?;
        answer.feed(&bytes[..size], &mut body)?;
        let ended = size == 0 || answer.is_whole();
        if body.len() >= PIECE || ended {
            pass_on(send, &body).await?;
            body.clear();
        }
        if ended {
            return Ok(match answer.end()? {
                Format::Prometheus => ScrapeFormat::Prometheus,
                Format::OpenMetrics => ScrapeFormat::OpenMetrics,
            });
        }
    }
}

async fn before<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T, Failed> {
    timeout_at(deadline, work)
        .await
        .map_err(|_| Failed::timed_out())
}

async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn pass_on(send: &mut SendStream, text: &[u8]) -> Result<(), Failed> {
    for piece in text.chunks(PIECE) {
        let data = piece.to_vec();
        say(send, scrape_reply::Body::Text(ScrapeText { data })).await?;
    }
    Ok(())
}

async fn say(send: &mut SendStream, body: scrape_reply::Body) -> Result<(), Failed> {
    let reply = ScrapeReply { body: Some(body) };
    write_message(send, &reply, MAX_FRAME, WRITE_WITHIN)
        .await
        .map_err(|_| Failed::timed_out())
}
