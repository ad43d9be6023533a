//! A diagnosis of this host: what it gathers when a gateway asks.
//!
//! ```text
//! request ─► for each section: gather, within its time ─► take secrets out ─► frames
//! ```
//!
//! A host that is diagnosed is ill. So no section may hold the others up: what can hang
//! (a file system whose server is dead, `/proc` of a process that is stuck on it, a
//! service manager that does not answer) runs on a thread that is left behind or in a
//! child that is ended ([`limit`]), and what was gathered until then is sent as it is.
//!
//! Nothing here knows the engine. A diagnosis needs the place of the configuration and
//! finds the rest as any other program would: the file, the state folder, the running
//! agent's socket. So it can run in the agent, beside it, or without it.
//!
//! Every byte goes through [`agent_core::diagnose::redact`], in [`content`], here and
//! nowhere else: what has left the host holds no secrets that could be told by their
//! looks, and what receives it need not look again.

mod about;
mod content;
mod limit;
mod manager;
mod network;
mod proc;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use link::frame::{MAX_FRAME, WriteError, write_message};
use model::diagnose::{MAX_LINES, MAX_SECTION, MAX_TARGETS, MAX_TOTAL, Outcome, Section};
use model::names::clean;
use protocol::v1::{
    DiagnoseDone, DiagnoseRefusal, DiagnoseRefused, DiagnoseReport, DiagnoseRequest,
    DiagnoseSection, SectionBegun, SectionEnded, SectionOutcome, SectionPiece, diagnose_report,
};
use quinn::SendStream;
use tokio::io::AsyncWrite;
use tokio::sync::Semaphore;

use self::about::Standing;
use self::content::Gathered;
use crate::args::{self, Command, DEFAULT_CONFIG};

/// For one section, whatever happens in it.
const SECTION: Duration = Duration::from_secs(12);
/// For the one that dials the gateway both ways, with the patience that takes.
const NETWORK: Duration = Duration::from_secs(22);
/// For all of them, unless the gateway asks for less.
const ALL: Duration = Duration::from_secs(90);
/// For the gateway to take a frame.
const WRITE: Duration = Duration::from_secs(30);
const PIECE: usize = 64 << 10;
/// One at a time: a diagnosis reads all of `/proc`.
static ONE: Semaphore = Semaphore::const_new(1);

/// What a diagnosis needs to know.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// Where the agent's configuration is.
    pub config: PathBuf,
}

impl Inputs {
    /// As this process was started.
    pub fn of_this_process() -> Self {
        let config = match args::parse(std::env::args_os().skip(1)) {
            Ok(
                Command::Run { config }
                | Command::Status { config, .. }
                | Command::Doctor { config, .. }
                | Command::Deregister { config },
            ) => config,
            _ => DEFAULT_CONFIG.into(),
        };
        Self { config }
    }
}

/// Answers a gateway, until it has what it asked for or does not want it any more.
pub async fn answer(request: DiagnoseRequest, mut send: SendStream) {
    let stopped = send.stopped();
    let inputs = Inputs::of_this_process();
    let served = tokio::select! {
        served = serve(&inputs, request, &mut send) => served,
        _ = stopped => return tracing::info!("the gateway has given a diagnosis up"),
    };
    match served {
        Ok(()) => {
            let _ = send.finish();
            let _ = tokio::time::timeout(WRITE, send.stopped()).await;
        }
        Err(error) => {
            let why = model::error_chain(&error);
            tracing::info!(%why, "the gateway has not taken a diagnosis");
        }
    }
}

/// Gathers what `request` asks for and writes the frames of it to `sink`.
pub async fn serve<W: AsyncWrite + Unpin>(
    inputs: &Inputs,
    request: DiagnoseRequest,
    sink: &mut W,
) -> Result<(), WriteError> {
    let began = Instant::now();
    if let Err(why) = check(&request) {
        return refuse(sink, DiagnoseRefusal::Invalid, why).await;
    }
    let Ok(_one) = ONE.try_acquire() else {
        let why = "another diagnosis of this host is under way; ask again when it has ended";
        return refuse(sink, DiagnoseRefusal::Busy, why).await;
    };
    let standing = Standing::look(inputs).await;
    if let Err(why) = standing.is_meant(&request.host, request.generation) {
        return refuse(sink, DiagnoseRefusal::NotMine, why).await;
    }
    let names: Vec<_> = request
        .sections
        .iter()
        .map(|it| clean(&it.name, 32))
        .collect();
    tracing::debug!(sections = %names.join(" "), "sections of a diagnosis");
    let asked = Duration::from_millis(request.within_ms.into());
    let all = if asked.is_zero() { ALL } else { asked.min(ALL) };
    let mut room = MAX_TOTAL;
    for section in &request.sections {
        let name = section.name.clone();
        say(sink, diagnose_report::Body::Begun(SectionBegun { name })).await?;
        let started = Instant::now();
        let left = all.saturating_sub(began.elapsed());
        let gathered = gather(&standing, section, left)
            .await
            .within(room.min(MAX_SECTION));
        room -= gathered.bytes.len();
        for piece in gathered.bytes.chunks(PIECE) {
            let data = piece.to_vec();
            say(sink, diagnose_report::Body::Piece(SectionPiece { data })).await?;
        }
        let ended = SectionEnded {
            outcome: wire(gathered.outcome()).into(),
            reason: gathered.reason(),
            duration_ms: u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX),
        };
        say(sink, diagnose_report::Body::Ended(ended)).await?;
    }
    say(sink, diagnose_report::Body::Done(DiagnoseDone {})).await
}

fn check(request: &DiagnoseRequest) -> Result<(), &'static str> {
    let sections = &request.sections;
    if sections.is_empty() || sections.len() > 32 {
        return Err("a diagnosis has 1 to 32 sections");
    }
    let twice = |place: usize| {
        sections[..place]
            .iter()
            .any(|it| it.name == sections[place].name)
    };
    if (0..sections.len()).any(twice) {
        return Err("a section is asked for twice");
    }
    let odd = |it: &DiagnoseSection| {
        !(it.unit.is_empty() || model::diagnose::is_unit_name(&it.unit))
            || it.lines > MAX_LINES
            || it.targets.len() > MAX_TARGETS
            || it
                .targets
                .iter()
                .any(|target| model::diagnose::target(target).is_none())
    };
    if sections.iter().any(odd) {
        return Err("a unit, a number of lines or a target is not one");
    }
    Ok(())
}

async fn gather(standing: &Standing, asked: &DiagnoseSection, left: Duration) -> Gathered {
    let Ok(section) = asked.name.parse::<Section>() else {
        return Gathered::failed("the agent of this host does not know this section");
    };
    let within = match section {
        Section::Network => NETWORK,
        _ => SECTION,
    };
    let within = within.min(left);
    let work = async {
        match section {
            Section::System => proc::system(standing),
            Section::Processes => proc::processes().await,
            Section::Disks => proc::disks().await,
            Section::Sockets => proc::sockets().await,
            Section::Units => manager::units(&asked.unit).await,
            Section::Agent => about::agent(standing).await,
            Section::Network => network::network(standing, &asked.targets).await,
            Section::Kernel => manager::kernel(asked.lines).await,
            Section::Journal => manager::journal(&asked.unit, asked.lines).await,
        }
    };
    match tokio::time::timeout(within, work).await {
        Ok(gathered) => gathered,
        Err(_) => Gathered::failed(&format!("it did not end within {within:?}")),
    }
}

fn wire(outcome: Outcome) -> SectionOutcome {
    match outcome {
        Outcome::Ok => SectionOutcome::Ok,
        Outcome::Partial => SectionOutcome::Partial,
        Outcome::Failed => SectionOutcome::Failed,
    }
}

async fn say<W: AsyncWrite + Unpin>(
    sink: &mut W,
    body: diagnose_report::Body,
) -> Result<(), WriteError> {
    let report = DiagnoseReport { body: Some(body) };
    write_message(sink, &report, MAX_FRAME, WRITE).await
}

async fn refuse<W: AsyncWrite + Unpin>(
    sink: &mut W,
    code: DiagnoseRefusal,
    why: &str,
) -> Result<(), WriteError> {
    tracing::info!(%why, "a diagnosis is declined");
    let refused = DiagnoseRefused {
        code: code.into(),
        message: why.to_owned(),
    };
    say(sink, diagnose_report::Body::Refused(refused)).await
}

#[cfg(test)]
mod tests;
