//! How commands and runs look.

use std::time::Duration;

use api::v1::command::{Command, CommandDefinition, Run};
use model::Timestamp;
use model::command::{CommandState, RunState};

use super::super::{age_cell, maybe_age};
use crate::follow::verdict;
use crate::output::{Cell, Table, Tone, bytes_text, duration_text, time_text};

pub(super) fn table(commands: &[Command], now: Timestamp) -> Table {
    let mut table = Table::new(&["ID", "AGE", "STATE", "HOSTS", "RUNS", "BY", "COMMAND"]);
    for command in commands {
        table.row([
            command.id.to_string().into(),
            age_cell(now, command.created_at),
            state_cell(command.state),
            command.targets.to_string().into(),
            counts(command).into(),
            command.created_by.as_str().into(),
            command.title.as_str().into(),
        ]);
    }
    table
}

pub(super) fn properties(command: &Command, now: Timestamp) -> Table {
    let mut table = Table::of_one();
    table.property("id", command.id.to_string());
    table.property("command", command.title.as_str());
    table.property("state", state_cell(command.state));
    table.property("hosts", command.targets.to_string());
    table.property("runs", counts(command));
    if let Some(stopped) = &command.stopped {
        table.property("stopped", Cell::new(stopped).tone(Tone::Bad));
    }
    if let Some(original) = command.retry_of {
        table.property("retry of", original.to_string());
    }
    table.property("by", command.created_by.as_str());
    if let Some(ticket) = &command.ticket {
        table.property("ticket", ticket.as_str());
    }
    table.property("created", time_text(now, command.created_at));
    table.property("valid until", time_text(now, command.valid_until));
    if let Some(finished) = command.finished_at {
        table.property("finished", time_text(now, finished));
    }
    table
}

pub(super) fn definition(table: &mut Table, definition: &CommandDefinition, now: Timestamp) {
    let CommandDefinition {
        argv,
        script,
        interpreter,
        reboot_exit_code,
        user,
        directory,
        environment,
        secrets,
        limits,
        timers,
        fan_out,
    } = definition;
    for (number, word) in argv.iter().enumerate() {
        table.property(if number == 0 { "program" } else { "argument" }, word);
    }
    if !interpreter.is_empty() {
        table.property("interpreter", interpreter.join(" "));
    }
    if let Some(code) = reboot_exit_code {
        table.property("reboots on", format!("exit code {code}"));
    }
    for line in script.iter().flat_map(|script| script.lines()) {
        table.property("script", line);
    }
    table.property("user", user.as_deref().unwrap_or("root"));
    if let Some(directory) = directory {
        table.property("directory", directory);
    }
    for (name, value) in environment {
        table.property("environment", format!("{name}={value}"));
    }
    for name in secrets {
        table.property("secret", name);
    }
    let limits = [
        ("memory", limits.memory_bytes.map(bytes_text)),
        ("processes", limits.processes.map(|most| most.to_string())),
        (
            "processors",
            limits
                .cpu_millis
                .map(|millis| format!("{}.{:03}", millis / 1000, millis % 1000)),
        ),
        ("open files", limits.open_files.map(|most| most.to_string())),
        ("nice", limits.nice.map(|nice| nice.to_string())),
    ];
    for (name, limit) in limits {
        if let Some(limit) = limit {
            table.property(name, limit);
        }
    }
    if let Some(delivery) = timers.delivery_ms {
        table.property("deliver within", millis_text(delivery));
    }
    if let Some(until) = timers.valid_until {
        table.property("start until", time_text(now, until));
    }
    table.property("start within", millis_text(timers.start_ms));
    let run = match timers.run_ms {
        0 => "as long as it likes".to_owned(),
        millis => millis_text(millis),
    };
    table.property("run within", run);
    table.property("grace", millis_text(u64::from(timers.grace_ms)));
    if fan_out.concurrency > 0 {
        table.property("at a time", fan_out.concurrency.to_string());
    }
    if !fan_out.batches.is_empty() {
        table.property("batches", fan_out.batches.join(", "));
    }
    if let Some(stop) = &fan_out.stop_after {
        table.property("stop after", format!("{stop} not successful"));
    }
    table.property("priority", fan_out.priority.as_str());
}

pub(super) fn runs(runs: &[Run], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "HOST", "STATE", "RESULT", "BATCH", "STARTED", "TOOK", "OUTPUT",
    ]);
    for run in runs {
        let took = run
            .started_at
            .zip(run.ended_at)
            .map(|(began, ended)| duration_text(ended.since(began)));
        let output = &run.output;
        let size = bytes_text(output.stdout_bytes.saturating_add(output.stderr_bytes));
        let kept = match (output.deleted, output.dropped_bytes) {
            (true, _) => format!("{size}, deleted"),
            (false, 0) => size,
            (false, dropped) => format!("{size}, {} not kept", bytes_text(dropped)),
        };
        table.row([
            run.name.as_str().into(),
            Cell::new(run.state.as_str()).tone(tone(run)),
            verdict::result_text(run).into(),
            run.batch.to_string().into(),
            maybe_age(now, run.started_at),
            took.unwrap_or_default().into(),
            kept.into(),
        ]);
    }
    table
}

fn tone(run: &Run) -> Tone {
    match run.state {
        RunState::Queued | RunState::Sending | RunState::Delivered => Tone::Faint,
        RunState::Started => Tone::Plain,
        RunState::Expired | RunState::Cancelled | RunState::Refused => Tone::Warn,
        _ if verdict::succeeded(run) => Tone::Good,
        _ => Tone::Bad,
    }
}

fn state_cell(state: CommandState) -> Cell {
    Cell::new(state.as_str()).tone(match state {
        CommandState::Running => Tone::Plain,
        CommandState::Succeeded => Tone::Good,
        CommandState::Failed => Tone::Bad,
        CommandState::Cancelled => Tone::Warn,
    })
}

/// `8 exited, 1 queued`, in the order of a run's life.
fn counts(command: &Command) -> String {
    let parts = command
        .runs
        .iter()
        .map(|(state, count)| format!("{count} {state}"));
    parts.collect::<Vec<_>>().join(", ")
}

fn millis_text(millis: u64) -> String {
    duration_text(Duration::from_millis(millis))
}
