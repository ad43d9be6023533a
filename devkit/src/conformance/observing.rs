//! Promises about looking: `inspect`, `observe`, `discover`. Nothing is ever submitted.

use std::collections::BTreeMap;

use anyhow::Result;
use plugin_host::ports::ErrorKind;
use plugin_host::power::{FoundPage, Observation, State, Support};
use serde_json::Value;

use super::bench::{Ask, Bench, is_transient};
use super::peer::{Peer, Role};
use super::script::{Quirk, word};
use crate::fixture::Exchange;

/// What the provider can do; nothing if it does not even say that.
pub(super) async fn inspect(bench: &mut Bench<'_>) -> Result<Option<Support>> {
    let peer = bench.peer(Some(State::On));
    let mut tried = bench.call("inspect", "", peer, Ask::Inspect).await?;
    tried.submitted(&[]);
    let support = match &tried.outcome {
        Ok(answer) => serde_json::from_value::<Support>(answer.clone()).ok(),
        Err(error) => {
            let what = format!("does not say what can be done: {error}");
            tried.complain(what);
            None
        }
    };
    for (at, supported) in support.iter().flat_map(|it| it.actions.iter().enumerate()) {
        let action = supported.action;
        let before = support.iter().flat_map(|it| it.actions.iter().take(at));
        if before.into_iter().any(|it| it.action == action) {
            tried.complain(format!("names {} twice", word(action)));
        }
        if bench.script.submit(action).is_none() {
            tried.complain(format!(
                "names {}, and the script has no [[submit]] of it",
                word(action)
            ));
        }
    }
    for submit in &bench.script.submits {
        let action = submit.action()?;
        let actions = support.iter().flat_map(|it| &it.actions);
        if !actions.into_iter().any(|it| it.action == action) {
            tried.complain(format!(
                "does not name {}, and the script has a [[submit]] of it",
                word(action)
            ));
        }
    }
    bench.report(tried);
    Ok(support)
}

/// The cases.
pub(super) async fn run(bench: &mut Bench<'_>, support: &Support) -> Result<()> {
    if support.observable {
        states(bench).await?;
        refusals(bench).await?;
        losses(bench).await?;
    } else {
        bench.pass_over(
            "observe.*",
            "inspect says that the state cannot be observed",
        );
    }
    discover(bench).await
}

async fn states(bench: &mut Bench<'_>) -> Result<()> {
    for wanted in [State::On, State::Off, State::Unknown] {
        if bench.script.state(wanted).is_none() && !bench.script.skip.contains_key("observe.state")
        {
            let what = format!("the script has no [[state]] that is {wanted:?}");
            bench.wrong("observe.state", &what);
        }
    }
    let states = bench.script.states.iter();
    let described: Vec<_> = states
        .map(|it| {
            Ok((
                it.word().to_owned(),
                it.is()?,
                it.raw.clone(),
                it.http.clone(),
            ))
        })
        .collect::<Result<_>>()?;
    for (name, wanted, raw, http) in described {
        let peer = bench.peer_telling(&http);
        let Some(mut tried) = bench
            .try_it("observe.state", &name, peer, Ask::Observe)
            .await?
        else {
            return Ok(());
        };
        tried.submitted(&[]);
        let answer = tried.outcome.clone();
        match answer.map(|answer| {
            (
                serde_json::from_value::<Observation>(answer.clone()),
                answer,
            )
        }) {
            Ok((Ok(seen), _)) if seen.state == wanted => {
                if raw.as_ref().is_some_and(|raw| *raw != seen.raw) {
                    tried.complain(format!("raw is {:?}, not {raw:?}", seen.raw));
                }
            }
            // Who knows a machine no more may say so with an error, too.
            Err(error) if wanted == State::Absent && error.kind == ErrorKind::NotFound => {}
            Ok((_, answer)) => tried.complain(format!("answered {answer}, not {wanted:?}")),
            Err(error) => tried.complain(format!("failed: {error}")),
        }
        bench.report(tried);
    }
    Ok(())
}

async fn refusals(bench: &mut Bench<'_>) -> Result<()> {
    use ErrorKind::{Auth, Busy, Forbidden, Throttled};
    let cases: [(_, _, &[ErrorKind]); 5] = [
        ("observe.auth", Quirk::Auth, &[Auth]),
        ("observe.forbidden", Quirk::Forbidden, &[Forbidden, Auth]),
        ("observe.throttled", Quirk::Throttled, &[Throttled, Busy]),
        ("observe.busy", Quirk::Busy, &[Busy, Throttled]),
        ("observe.broken", Quirk::Broken, &[]),
    ];
    for (case, quirk, kinds) in cases {
        let reply = bench.script.quirk(quirk);
        let peer = bench.peer(Some(State::On)).replying(Role::State, &reply);
        let Some(mut tried) = bench.try_it(case, "", peer, Ask::Observe).await? else {
            continue;
        };
        tried.fails(kinds).submitted(&[]);
        if matches!(quirk, Quirk::Throttled | Quirk::Busy) {
            tried.later(7_000);
        }
        if quirk == Quirk::Broken {
            tried.transient();
        }
        bench.report(tried);
    }
    let reply = bench.script.quirk(Quirk::Missing);
    let peer = bench.peer(Some(State::On)).replying(Role::State, &reply);
    if let Some(mut tried) = bench
        .try_it("observe.missing", "", peer, Ask::Observe)
        .await?
    {
        tried.submitted(&[]);
        let state = tried
            .outcome
            .as_ref()
            .ok()
            .map(|answer| answer["state"].clone());
        match state {
            Some(state) if state != "Absent" && state != "Unknown" => {
                tried.complain(format!("says {state} of a machine that there is not"));
            }
            Some(_) => {}
            None => {
                tried.fails(&[ErrorKind::NotFound]);
            }
        }
        bench.report(tried);
    }
    Ok(())
}

async fn losses(bench: &mut Bench<'_>) -> Result<()> {
    use ErrorKind::{Timeout, Unreachable};
    for (case, kind, reply) in [
        ("observe.lost", Timeout, Exchange::failing("timeout", true)),
        (
            "observe.unreachable",
            Unreachable,
            Exchange::failing("unreachable", false),
        ),
    ] {
        let peer = bench.peer(Some(State::On)).replying(Role::State, &reply);
        if let Some(mut tried) = bench.try_it(case, "", peer, Ask::Observe).await? {
            tried.fails(&[kind]).submitted(&[]);
            bench.report(tried);
        }
    }
    let peer = bench.peer(Some(State::On)).cutting(Role::State);
    if let Some(mut tried) = bench
        .try_it("observe.garbage", "", peer, Ask::Observe)
        .await?
    {
        tried.submitted(&[]);
        let state = tried
            .outcome
            .as_ref()
            .ok()
            .map(|answer| answer["state"].clone());
        match state {
            Some(state) if state != "Unknown" => {
                tried.complain(format!("reads {state} out of half an answer"));
            }
            Some(_) => {}
            None => {
                tried.fails(&[ErrorKind::Upstream]);
            }
        }
        bench.report(tried);
    }
    let peer = bench
        .peer(Some(State::On))
        .replying(Role::State, &elsewhere(302));
    if let Some(mut tried) = bench
        .try_it("observe.redirect", "", peer, Ask::Observe)
        .await?
    {
        tried.fails(&[]).submitted(&[]);
        bench.report(tried);
    }
    Ok(())
}

async fn discover(bench: &mut Bench<'_>) -> Result<()> {
    let Some(list) = &bench.script.discover else {
        let peer = Peer::new().without_target();
        if let Some(mut tried) = bench.try_it("discover", "", peer, Ask::Discover).await? {
            tried.fails(&[ErrorKind::Unsupported]);
            if tried.requests > 0 {
                tried.complain("there is a list, it seems: the script needs [discover]");
            }
            bench.report(tried);
        }
        return Ok(());
    };
    let (http, found) = (list.http.clone(), list.found.clone());
    let peer = bench.peer(None).knows(Role::Other, &http).without_target();
    let Some(mut tried) = bench.try_it("discover", "", peer, Ask::Discover).await? else {
        return Ok(());
    };
    tried.submitted(&[]);
    let page = tried
        .outcome
        .clone()
        .map(serde_json::from_value::<FoundPage>);
    match page {
        Ok(Ok(page)) => {
            for machine in &page.found {
                for mac in machine.macs.iter().filter(|mac| !is_mac(mac)) {
                    tried.complain(format!("{mac} is not written as aa:bb:cc:dd:ee:ff"));
                }
                let params = serde_json::from_str::<Value>(&machine.params);
                if !params.is_ok_and(|params| params.is_object()) {
                    tried.complain(format!("params are no JSON object: {}", machine.params));
                }
            }
            if page.found.is_empty() {
                tried.complain("nothing is found");
            }
            for address in &found {
                if !page.found.iter().any(|machine| machine.address == *address) {
                    tried.complain(format!("{address} is not found"));
                }
            }
        }
        Ok(Err(error)) => tried.complain(format!("is no page: {error}")),
        Err(error) => tried.complain(format!("failed: {error}")),
    }
    bench.report(tried);
    Ok(())
}

fn is_mac(text: &str) -> bool {
    text.len() == 17
        && text.split(':').count() == 6
        && text.split(':').all(|pair| {
            pair.len() == 2
                && pair
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
}

/// An answer that sends the request somewhere else, where nobody may follow.
pub(super) fn elsewhere(status: u16) -> Exchange {
    let to = "https://elsewhere.example/power".to_owned();
    let headers = BTreeMap::from([("location".to_owned(), to)]);
    Exchange::answering(status, headers, "")
}

impl super::bench::Tried {
    /// If it is an error, the gateway tries again.
    pub(super) fn transient(&mut self) -> &mut Self {
        let kind = self.outcome.as_ref().err().map(|error| error.kind);
        if let Some(kind) = kind.filter(|kind| !is_transient(*kind)) {
            self.complain(format!("{kind:?} is not tried again"));
        }
        self
    }
}
