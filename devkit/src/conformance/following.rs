//! Promises about what follows: `resume`, `poll` and `cancel` submit nothing, whatever they find.

use anyhow::Result;
use plugin_host::ports::ErrorKind;
use plugin_host::power::{Action, Begun, State, Support};

use super::beginning::peer;
use super::bench::{Ask, Bench, is_transient};
use super::peer::Role;
use super::script::{Quirk, Went, word};
use crate::fixture::Exchange;

/// The cases.
pub(super) async fn run(bench: &mut Bench<'_>, support: &Support) -> Result<()> {
    resume(bench).await?;
    let cursor = cursor(bench, None).await?;
    match &cursor {
        None if bench.script.polls.is_empty() => {
            bench.pass_over("poll.*", "begin answers no cursor");
        }
        None => bench.wrong(
            "poll.*",
            "begin answers no cursor, and the script has [[poll]]",
        ),
        Some(_) if bench.script.polls.is_empty() => {
            bench.wrong(
                "poll.*",
                "begin answers a cursor, and the script has no [[poll]]",
            );
        }
        Some((action, cursor)) => {
            polls(bench).await?;
            quirks(bench, *action, cursor).await?;
        }
    }
    let nothing = (Action::Reset, Vec::new());
    let (action, cursor) = cursor.unwrap_or(nothing);
    cancel(bench, support, action, cursor).await
}

async fn resume(bench: &mut Bench<'_>) -> Result<()> {
    let mut actions = Vec::new();
    for submit in &bench.script.submits {
        actions.push(submit.action()?);
    }
    let lost = Exchange::failing("timeout", true);
    for action in actions {
        for (state, reply) in [
            (State::On, None),
            (State::Off, None),
            (State::On, Some(&lost)),
        ] {
            let mut about = format!("{}, {state:?}", word(action));
            let mut peer = peer(bench, action, state);
            if let Some(reply) = reply {
                about.push_str(", no answer");
                peer = peer.replying(Role::State, reply);
            }
            let ask = Ask::Resume(action);
            let Some(mut tried) = bench.try_it("resume", &about, peer, ask).await? else {
                return Ok(());
            };
            tried.submitted(&[]);
            bench.report(tried);
        }
    }
    Ok(())
}

/// What `begin` answers to be asked with, of this action or of the first that has one.
async fn cursor(bench: &Bench<'_>, wanted: Option<Action>) -> Result<Option<(Action, Vec<u8>)>> {
    for submit in &bench.script.submits {
        let action = submit.action()?;
        if wanted.is_some_and(|wanted| wanted != action) {
            continue;
        }
        let peer = peer(bench, action, bench.script.start(submit)?);
        let tried = bench.call("poll", "", peer, Ask::Begin(action)).await?;
        let begun = tried.outcome.ok().map(serde_json::from_value::<Begun>);
        if let Some(Ok(Begun::Submitted(progress))) = begun {
            return Ok(Some((action, progress.cursor)));
        }
    }
    Ok(None)
}

async fn polls(bench: &mut Bench<'_>) -> Result<()> {
    for at in 0..bench.script.polls.len() {
        let poll = &bench.script.polls[at];
        let (is, http, wanted) = (poll.is, poll.http.clone(), poll.action()?);
        let case = match is {
            Went::Running => "poll.running",
            Went::Done => "poll.done",
            Went::Failed => "poll.failed",
        };
        let Some((action, cursor)) = cursor(bench, wanted).await? else {
            bench.wrong(case, "begin of this action answers no cursor");
            continue;
        };
        let peer = bench.peer(Some(State::On)).knows(Role::Follow, &http);
        let ask = Ask::Poll(action, cursor);
        let Some(mut tried) = bench.try_it(case, word(action), peer, ask).await? else {
            continue;
        };
        tried.submitted(&[]);
        match (is, tried.outcome.clone()) {
            (Went::Running, Ok(answer)) if answer["Running"].is_object() => {}
            (Went::Done, Ok(answer)) if answer == "Done" => {}
            (Went::Failed, Err(error)) if !is_transient(error.kind) => {}
            (Went::Failed, Err(error)) => tried.complain(format!(
                "failed as {:?}, and the gateway asks again then: {error}",
                error.kind
            )),
            (_, outcome) => tried.complain(format!("answered {outcome:?}")),
        }
        bench.report(tried);
    }
    Ok(())
}

async fn quirks(bench: &mut Bench<'_>, action: Action, cursor: &[u8]) -> Result<()> {
    let first = bench.script.polls.first();
    let http = first.map(|poll| poll.http.clone()).unwrap_or_default();
    let peer = |bench: &Bench<'_>| bench.peer(Some(State::On)).knows(Role::Follow, &http);
    let ask = || Ask::Poll(action, cursor.to_vec());

    let refused = bench.script.quirk(Quirk::Auth);
    let asked = peer(bench).replying(Role::Follow, &refused);
    if let Some(mut tried) = bench
        .try_it("poll.auth", word(action), asked, ask())
        .await?
    {
        tried.fails(&[ErrorKind::Auth]).submitted(&[]);
        bench.report(tried);
    }
    let lost = Exchange::failing("timeout", true);
    let asked = peer(bench).replying(Role::Follow, &lost);
    if let Some(mut tried) = bench
        .try_it("poll.lost", word(action), asked, ask())
        .await?
    {
        tried.fails(&[ErrorKind::Timeout]).submitted(&[]);
        bench.report(tried);
    }
    let asked = peer(bench).cutting(Role::Follow);
    if let Some(mut tried) = bench
        .try_it("poll.garbage", word(action), asked, ask())
        .await?
    {
        tried.submitted(&[]).transient();
        if tried.outcome.as_ref().is_ok_and(|answer| answer == "Done") {
            tried.complain("reads out of half an answer that it is done");
        }
        bench.report(tried);
    }
    let asked = peer(bench);
    let nonsense = Ask::Poll(action, b"\xff{\"nonsense".to_vec());
    if let Some(mut tried) = bench
        .try_it("poll.cursor", word(action), asked, nonsense)
        .await?
    {
        tried.submitted(&[]).fails(&[]);
        bench.report(tried);
    }
    Ok(())
}

async fn cancel(
    bench: &mut Bench<'_>,
    support: &Support,
    action: Action,
    cursor: Vec<u8>,
) -> Result<()> {
    let http = bench
        .script
        .cancel
        .as_ref()
        .map(|cancel| cancel.http.clone());
    let peer = bench.peer(Some(State::On));
    let peer = peer.knows(Role::Follow, http.as_deref().unwrap_or_default());
    let ask = Ask::Cancel(action, cursor);
    let Some(mut tried) = bench.try_it("cancel", word(action), peer, ask).await? else {
        return Ok(());
    };
    tried.submitted(&[]);
    match (support.cancellable, tried.outcome.clone()) {
        (true, Ok(answer)) if answer != "Unsupported" => {}
        (false, Ok(answer)) if answer == "Unsupported" => {}
        (false, Err(error)) if error.kind == ErrorKind::Unsupported => {}
        (_, outcome) => tried.complain(format!(
            "inspect says that cancellable is {}, and the answer is {outcome:?}",
            support.cancellable
        )),
    }
    bench.report(tried);
    Ok(())
}
