//! How a command went, in one number and in words.
//!
//! One host: what its process answered, as if it had run here: the exit code, or 128
//! and the signal's number as shells have it. Otherwise one of our own codes, by the
//! worst that happened to any host: nobody can tell how a run ended, a run did not
//! succeed, a run was cancelled, a run was never started. The last one is what
//! `command retry --not-reached` repeats.

use api::v1::command::{Command, Run};
use model::command::{CommandState, RunState};

use crate::failure::{CANCELLED, LOST, NOT_REACHED, NOT_SUCCEEDED};

/// The exit code of a command that has come to its end.
pub fn exit_code<'a>(command: &Command, runs: impl IntoIterator<Item = &'a Run>) -> u8 {
    if command.state == CommandState::Succeeded {
        return 0;
    }
    let mut runs = runs.into_iter().peekable();
    if command.targets == 1
        && let Some(own) = runs.peek().and_then(|run| process_code(run))
    {
        return own;
    }
    let worst = runs.filter_map(own_code).max_by_key(|code| match *code {
        LOST => 3,
        NOT_SUCCEEDED => 2,
        CANCELLED => 1,
        _ => 0,
    });
    // The command did not succeed, so whatever was told of its runs, 0 it is not.
    worst.unwrap_or(NOT_SUCCEEDED)
}

/// What the process itself answered.
fn process_code(run: &Run) -> Option<u8> {
    match run.state {
        RunState::Exited => u8::try_from(run.code?).ok(),
        RunState::Signalled => u8::try_from(run.signal?).ok()?.checked_add(128),
        _ => None,
    }
}

/// The code that this run alone would give to a command of many; nothing for success.
fn own_code(run: &Run) -> Option<u8> {
    match run.state {
        RunState::Exited if run.code == Some(0) => None,
        RunState::Exited | RunState::Signalled | RunState::TimedOut => Some(NOT_SUCCEEDED),
        RunState::Expired | RunState::Refused | RunState::NotStarted => Some(NOT_REACHED),
        RunState::Cancelled => Some(CANCELLED),
        // Not final, though the command is: nobody can tell, then.
        RunState::Lost
        | RunState::Queued
        | RunState::Sending
        | RunState::Delivered
        | RunState::Started => Some(LOST),
    }
}

/// Whether the run ended with exit code 0.
pub fn succeeded(run: &Run) -> bool {
    own_code(run).is_none()
}

/// How a run went beyond its state: `code 3`, `signal 9 (KILL)`, a reason. Empty where
/// there is nothing to say.
pub fn result_text(run: &Run) -> String {
    let mut parts = Vec::new();
    if let Some(code) = run.code {
        parts.push(format!("code {code}"));
    }
    if let Some(signal) = run.signal {
        parts.push(match signal_hook::low_level::signal_name(signal) {
            Some(name) => format!("signal {signal} ({})", name.trim_start_matches("SIG")),
            None => format!("signal {signal}"),
        });
    }
    if let Some(reason) = &run.reason {
        parts.push(reason.clone());
    }
    if run.cancelling && !run.state.is_final() {
        parts.push("being cancelled".to_owned());
    }
    if let Some(ending) = run.ending {
        if ending.killed {
            parts.push("killed after its grace".to_owned());
        }
        if ending.others > 0 {
            parts.push(format!("with {} other processes", ending.others));
        }
        if ending.left > 0 {
            parts.push(format!("{} processes still alive", ending.left));
        }
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{command, run};
    use super::*;
    use model::command::Ending;
    use proptest::prelude::*;

    fn exited(number: u8, code: i32) -> Run {
        Run {
            code: Some(code),
            ..run(number, RunState::Exited)
        }
    }

    fn signalled(signal: i32) -> Run {
        Run {
            code: None,
            signal: Some(signal),
            ..run(1, RunState::Signalled)
        }
    }

    fn one(run: &Run) -> u8 {
        exit_code(&command(1, CommandState::Failed), [run])
    }

    fn many(states: &[RunState]) -> u8 {
        let mut runs = vec![exited(0, 0)];
        runs.extend(states.iter().zip(1..).map(|(state, number)| Run {
            code: Some(3),
            ..run(number, *state)
        }));
        exit_code(&command(9, CommandState::Failed), &runs)
    }

    #[test]
    fn one_host_answers_with_its_own_code() {
        assert_eq!(
            exit_code(&command(1, CommandState::Succeeded), [&exited(1, 0)]),
            0
        );
        assert_eq!(one(&exited(1, 3)), 3);
        assert_eq!(one(&exited(1, 255)), 255);
        assert_eq!(one(&signalled(9)), 137);
        assert_eq!(one(&run(1, RunState::TimedOut)), NOT_SUCCEEDED);
        assert_eq!(one(&run(1, RunState::NotStarted)), NOT_REACHED);
        assert_eq!(one(&run(1, RunState::Expired)), NOT_REACHED);
        assert_eq!(one(&run(1, RunState::Cancelled)), CANCELLED);
        assert_eq!(one(&run(1, RunState::Lost)), LOST);
    }

    #[test]
    fn a_code_that_no_process_can_have_is_a_failure_and_never_success() {
        for code in [256, -1, i32::MAX] {
            assert_eq!(one(&exited(1, code)), NOT_SUCCEEDED);
        }
        assert_eq!(one(&signalled(200)), NOT_SUCCEEDED);
        assert_eq!(
            exit_code(&command(1, CommandState::Failed), []),
            NOT_SUCCEEDED
        );
    }

    #[test]
    fn many_hosts_answer_with_the_worst_that_happened() {
        use RunState::*;
        assert_eq!(many(&[Expired, Refused]), NOT_REACHED);
        assert_eq!(many(&[Expired, Cancelled]), CANCELLED);
        assert_eq!(many(&[Cancelled, Exited, Expired]), NOT_SUCCEEDED);
        assert_eq!(many(&[Signalled]), NOT_SUCCEEDED);
        assert_eq!(many(&[Exited, Lost, Cancelled]), LOST);
    }

    #[test]
    fn what_was_never_started_is_what_can_be_retried_as_not_reached() {
        for state in RunState::ALL {
            if state.is_final() && *state != RunState::Exited {
                let code = own_code(&run(1, *state));
                assert_eq!(code == Some(NOT_REACHED), state.never_ran(), "{state}");
            }
        }
    }

    #[test]
    fn results_are_told_in_words() {
        assert_eq!(result_text(&exited(1, 3)), "code 3");
        assert_eq!(result_text(&signalled(9)), "signal 9 (KILL)");
        assert_eq!(result_text(&signalled(77)), "signal 77");
        let cancelled = Run {
            code: None,
            signal: Some(15),
            reason: Some("cancelled by ada".to_owned()),
            ending: Some(Ending {
                killed: true,
                others: 2,
                left: 1,
            }),
            ..run(1, RunState::Cancelled)
        };
        assert_eq!(
            result_text(&cancelled),
            "signal 15 (TERM), cancelled by ada, killed after its grace, with 2 other processes, 1 processes still alive"
        );
    }

    proptest! {
        #[test]
        fn only_success_is_0(
            states in prop::collection::vec(0..RunState::ALL.len(), 1..5),
            code in 1..300_i32,
        ) {
            let runs: Vec<_> = states.iter().zip(0_u8..).map(|(state, number)| Run {
                code: Some(code),
                signal: Some(code),
                ..run(number, RunState::ALL[*state])
            }).collect();
            let targets = u32::try_from(runs.len()).unwrap();
            prop_assert_ne!(exit_code(&command(targets, CommandState::Failed), &runs), 0);
        }
    }
}
