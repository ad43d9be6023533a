//! Promises about submitting: at most one request of `begin` does something, and an error says
//! whether it may have been done.

use anyhow::Result;
use plugin_host::ports::ErrorKind;
use plugin_host::power::{Action, State, Support};

use super::bench::{Ask, Bench};
use super::observing::elsewhere;
use super::peer::{Peer, Role};
use super::script::{ACTIONS, Quirk, word};
use crate::fixture::Exchange;

/// What an error has to say of the outcome.
#[derive(Clone, Copy)]
enum Outcome {
    /// Nothing was done.
    Known,
    /// It may have been.
    Unknown,
    /// Either is right.
    Either,
}

/// The cases.
pub(super) async fn run(bench: &mut Bench<'_>, support: &Support) -> Result<()> {
    if support.observable {
        already(bench).await?;
    } else {
        bench.pass_over("begin.already", "the state cannot be observed");
    }
    unsupported(bench, support).await?;
    let mut actions = Vec::new();
    for submit in &bench.script.submits {
        actions.push((submit.action()?, bench.script.start(submit)?));
    }
    for (action, start) in actions {
        accepted(bench, action, start).await?;
        blind(bench, action).await?;
        refused(bench, action, start).await?;
        lost(bench, action, start).await?;
    }
    Ok(())
}

/// A peer for submitting `action`: the request that is its own comes before others that look alike.
pub(super) fn peer(bench: &Bench<'_>, action: Action, start: State) -> Peer {
    let own = bench.script.submit(action).map(|submit| &submit.http);
    let own = own.map_or(&[][..], std::slice::from_ref);
    let described = bench.script.state(start);
    let told = described.map_or(&[][..], |described| &described.http);
    Peer::new()
        .knows(Role::Submit(action), own)
        .with(bench.peer_telling(told))
}

async fn already(bench: &mut Bench<'_>) -> Result<()> {
    for (action, state) in [
        (Action::On, State::On),
        (Action::Off, State::Off),
        (Action::Shutdown, State::Off),
    ] {
        if bench.script.submit(action).is_none() {
            continue;
        }
        let peer = bench.peer(Some(state));
        let ask = Ask::Begin(action);
        let Some(mut tried) = bench
            .try_it("begin.already", word(action), peer, ask)
            .await?
        else {
            return Ok(());
        };
        tried.submitted(&[]);
        match tried.outcome.clone() {
            Ok(answer) if answer["Already"].is_object() => {}
            Ok(answer) => tried.complain(format!("answered {answer}, not that it is so already")),
            Err(error) => tried.complain(format!("failed: {error}")),
        }
        bench.report(tried);
    }
    Ok(())
}

async fn unsupported(bench: &mut Bench<'_>, support: &Support) -> Result<()> {
    for (name, action) in ACTIONS {
        if support.actions.iter().any(|it| it.action == action) {
            continue;
        }
        let state = if action == Action::On {
            State::Off
        } else {
            State::On
        };
        let peer = bench.peer(Some(state));
        let ask = Ask::Begin(action);
        let Some(mut tried) = bench.try_it("begin.unsupported", name, peer, ask).await? else {
            return Ok(());
        };
        tried.fails(&[ErrorKind::Unsupported]);
        tried.outcome_unknown(false).submitted(&[]);
        bench.report(tried);
    }
    Ok(())
}

async fn accepted(bench: &mut Bench<'_>, action: Action, start: State) -> Result<()> {
    let peer = peer(bench, action, start);
    let ask = Ask::Begin(action);
    if let Some(mut tried) = bench
        .try_it("begin.accepted", word(action), peer, ask)
        .await?
    {
        tried.submitted(&[action]);
        match tried.outcome.clone() {
            Ok(answer) if answer == "Done" || answer["Submitted"].is_object() => {}
            Ok(answer) => tried.complain(format!("answered {answer}, not that it was submitted")),
            Err(error) => tried.complain(format!("failed: {error}")),
        }
        bench.report(tried);
    }
    Ok(())
}

/// What is asked before gets no answer. The gateway says of a request that was sent that its
/// outcome is unknown, and of this one that does not matter: it changed nothing.
async fn blind(bench: &mut Bench<'_>, action: Action) -> Result<()> {
    let lost = Exchange::failing("timeout", true);
    let state = if action == Action::On {
        State::Off
    } else {
        State::On
    };
    let peer = peer(bench, action, state).replying(Role::State, &lost);
    let ask = Ask::Begin(action);
    if let Some(mut tried) = bench.try_it("begin.blind", word(action), peer, ask).await? {
        if tried.submits.is_empty() {
            tried.fails(&[]).outcome_unknown(false);
        } else {
            tried.submitted(&[action]);
        }
        bench.report(tried);
    }
    Ok(())
}

async fn refused(bench: &mut Bench<'_>, action: Action, start: State) -> Result<()> {
    use ErrorKind::{Auth, Busy, Conflict, Throttled};
    let cases: [(_, _, &[ErrorKind], _); 5] = [
        ("begin.auth", Quirk::Auth, &[Auth, Busy], Outcome::Known),
        (
            "begin.throttled",
            Quirk::Throttled,
            &[Throttled, Busy],
            Outcome::Known,
        ),
        (
            "begin.busy",
            Quirk::Busy,
            &[Busy, Throttled],
            Outcome::Either,
        ),
        (
            "begin.conflict",
            Quirk::Conflict,
            &[Conflict, Busy],
            Outcome::Known,
        ),
        ("begin.broken", Quirk::Broken, &[], Outcome::Unknown),
    ];
    for (case, quirk, kinds, outcome) in cases {
        let reply = bench.script.quirk(quirk);
        let peer = peer(bench, action, start).replying(Role::Submit(action), &reply);
        let ask = Ask::Begin(action);
        let Some(mut tried) = bench.try_it(case, word(action), peer, ask).await? else {
            continue;
        };
        tried.fails(kinds).submitted(&[action]).says(outcome);
        if matches!(quirk, Quirk::Throttled | Quirk::Busy) {
            tried.later(7_000);
        }
        bench.report(tried);
    }
    Ok(())
}

async fn lost(bench: &mut Bench<'_>, action: Action, start: State) -> Result<()> {
    use ErrorKind::{Timeout, Unreachable};
    let role = Role::Submit(action);
    for (case, kinds, reply, outcome) in [
        (
            "begin.lost",
            &[Timeout][..],
            Exchange::failing("timeout", true),
            Outcome::Unknown,
        ),
        (
            "begin.unreachable",
            &[Unreachable],
            Exchange::failing("unreachable", false),
            Outcome::Known,
        ),
        ("begin.redirect", &[], elsewhere(307), Outcome::Either),
    ] {
        let peer = peer(bench, action, start).replying(role, &reply);
        let ask = Ask::Begin(action);
        if let Some(mut tried) = bench.try_it(case, word(action), peer, ask).await? {
            tried.fails(kinds).submitted(&[action]).says(outcome);
            bench.report(tried);
        }
    }
    let peer = peer(bench, action, start).cutting(role);
    let ask = Ask::Begin(action);
    if let Some(mut tried) = bench
        .try_it("begin.garbage", word(action), peer, ask)
        .await?
    {
        tried.submitted(&[action]).outcome_unknown(true);
        bench.report(tried);
    }
    Ok(())
}

impl super::bench::Tried {
    fn says(&mut self, outcome: Outcome) -> &mut Self {
        match outcome {
            Outcome::Known => self.outcome_unknown(false),
            Outcome::Unknown => self.outcome_unknown(true),
            Outcome::Either => self,
        }
    }
}
