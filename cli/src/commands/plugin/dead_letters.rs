//! `loopback plugin dead-letters`: what was given up for a notifier.

use api::Paging;
use api::v1::plugin::*;
use clap::{Args, Subcommand};
use model::Timestamp;
use model::names::Name;

use super::of;
use crate::app::App;
use crate::commands::{LimitArg, age_cell};
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone, note};

#[derive(Debug, Subcommand)]
pub(in crate::commands) enum Command {
    /// List the events that were given up for a notifier, oldest first
    #[command(visible_alias = "ls")]
    List {
        /// The notifier
        name: Name,
        #[command(flatten)]
        limit: LimitArg,
    },
    /// Deliver them again, oldest first, with the ids that they had; the first failure ends it
    Redeliver {
        /// The notifier
        name: Name,
        #[command(flatten)]
        which: Which,
    },
    /// Throw them away
    Discard {
        /// The notifier
        name: Name,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(in crate::commands) struct Which {
    /// The one with this event's id, as `list` shows it
    #[arg(long, value_name = "ID")]
    event: Option<String>,
    /// All of them
    #[arg(long)]
    all: bool,
}

impl Which {
    fn body(&self) -> WhichDeadLetters {
        WhichDeadLetters {
            event: self.event.clone(),
        }
    }
}

pub(super) fn run(app: &mut App, command: Command) -> Result<(), Failure> {
    match command {
        Command::List { name, limit } => {
            let client = app.client()?;
            let paging = Paging::default();
            let page = client.list::<ListDeadLetters, _>(&of(name), &paging, limit.at_most())?;
            app.out.write(&page, |page, now| list(&page.items, now))
        }
        Command::Redeliver { name, which } => {
            let client = app.client()?;
            let came =
                client.send_slowly::<RedeliverDeadLetters>(&of(name.clone()), &which.body())?;
            app.out.write(&came, |came, _| redelivered(came))?;
            if came.more {
                note(&format!(
                    "others wait; `loopback plugin dead-letters list {name}` shows them"
                ));
            }
            Ok(())
        }
        Command::Discard { name, which } => {
            let client = app.client()?;
            let what = match &which.event {
                Some(event) => format!("event {event}"),
                None => "all events".to_owned(),
            };
            app.confirm(&format!(
                "Throw {what} away that notifier {name} never got?"
            ))?;
            let gone = client.send::<DiscardDeadLetters>(&of(name.clone()), &which.body())?;
            app.out.say(&gone, |gone| {
                let more = if gone.more { "; others are left" } else { "" };
                format!("discarded {} dead letters of {name}{more}", gone.discarded)
            })
        }
    }
}

fn list(letters: &[DeadLetter], now: Timestamp) -> Table {
    let mut table = Table::new(&["EVENT", "KIND", "SEVERITY", "CODE", "GIVEN UP", "SUMMARY"]);
    for letter in letters {
        table.row([
            letter.event.as_str().into(),
            letter.kind.as_str().into(),
            letter.severity.as_str().into(),
            Cell::new(&letter.code).tone(Tone::Bad),
            age_cell(now, letter.given_up_at),
            letter.summary.as_str().into(),
        ]);
    }
    table
}

fn redelivered(came: &RedeliveredDeadLetters) -> Table {
    let mut table = Table::new(&["EVENT", "RESULT"]);
    for event in &came.delivered {
        table.row([
            event.as_str().into(),
            Cell::new("delivered").tone(Tone::Good),
        ]);
    }
    for failed in &came.failed {
        let text = format!("failed: {}", failed.code);
        table.row([
            failed.event.as_str().into(),
            Cell::new(text).tone(Tone::Bad),
        ]);
    }
    table
}
