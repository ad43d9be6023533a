//! `test`: every fixture of a folder, each as a call of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use plugin_host::{CallError, Invocation, Reason};
use serde_json::{Value, json};

use crate::conformance;
use crate::fixture::{Expect, Fixture};
use crate::runtime::{self, Ready};
use crate::say;
use crate::surroundings::Scene;

/// Runs the fixtures in `tests/` of a folder.
pub(crate) async fn run(folder: &Path, component: &Path) -> Result<()> {
    let fixtures = fixtures(&folder.join("tests"))?;
    let ready = runtime::load(component).await?;
    let mut failed = 0;
    for path in &fixtures {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let complaints = one(&ready, path).await?;
        println!(
            "{}  {name}",
            if complaints.is_empty() {
                "ok  "
            } else {
                "FAIL"
            }
        );
        for complaint in &complaints {
            println!("      {complaint}");
        }
        failed += usize::from(!complaints.is_empty());
    }
    println!("{} passed, {failed} failed", fixtures.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} tests failed", fixtures.len());
    }
    Ok(())
}

fn fixtures(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry
            .with_context(|| format!("read {}", folder.display()))?
            .path();
        let extension = path.extension().unwrap_or_default();
        if conformance::is_script(&path) {
            continue;
        }
        if extension == "toml" || extension == "json" {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        say(&format!("{} has no tests", folder.display()));
    }
    paths.sort();
    Ok(paths)
}

/// What is not as the fixture says.
async fn one(ready: &Ready, path: &Path) -> Result<Vec<String>> {
    let fixture = Fixture::read(path)?;
    let manifest = &ready.loaded.manifest;
    let mut grant = runtime::grant(manifest, fixture.secrets.keys().cloned())?;
    let mut limits = serde_json::to_value(grant.limits).context("write the limits")?;
    for (name, value) in &fixture.limits {
        limits[name] = value.clone();
    }
    grant.limits = serde_json::from_value(limits).context("understand `limits`")?;

    let (function, input) = fixture.call(ready.loaded.kind)?;
    let scene = Scene::of(&fixture);
    let plugin = ready.plugin(grant, &fixture.config.to_string(), scene.services());
    let invocation = || Invocation {
        call: Some("call_test".to_owned()),
        clock: Some(scene.clone()),
        ..Invocation::default()
    };
    let outcome = plugin
        .call_recorded(invocation(), function, input.clone())
        .await;
    let mut complaints = judge(&fixture.expect, &outcome);
    // Installers are pure, and a gateway insists on it.
    if function == "renderer.render" {
        let again = plugin.call_recorded(invocation(), function, input).await;
        if again.as_ref().ok() != outcome.as_ref().ok() {
            complaints.push("the second answer differs from the first".to_owned());
        }
    }
    complaints.extend(scene.complaints());
    let lines: Vec<_> = plugin
        .logs(0, 1_000)
        .lines
        .into_iter()
        .map(|line| {
            let fields = line
                .fields
                .iter()
                .map(|(key, value)| format!(" {key}={value}"));
            format!("{}{}", line.message, fields.collect::<String>())
        })
        .collect();
    let mut rest = lines.iter();
    for wanted in &fixture.expect.log {
        if !rest.any(|line| line.contains(wanted)) {
            complaints.push(format!("no log line has {wanted:?}; there are {lines:?}"));
        }
    }
    let state = scene.state();
    for (key, wanted) in &fixture.expect.state {
        if state.get(key) != Some(wanted) {
            complaints.push(format!(
                "{key} is {:?} in the state, not {wanted:?}",
                state.get(key)
            ));
        }
    }
    Ok(complaints)
}

fn judge(expect: &Expect, outcome: &Result<Value, CallError>) -> Vec<String> {
    let answer = match (outcome, &expect.failed) {
        (Ok(_), Some(code)) => return vec![format!("did not fail with {code}")],
        (Err(error), Some(code)) => {
            let own = match &error.reason {
                Reason::Guest(own) => own.code.as_str(),
                other => other.code(),
            };
            return if own == code {
                Vec::new()
            } else {
                vec![format!("failed with {own}, not with {code}: {error}")]
            };
        }
        (Err(error), None) => return vec![error.to_string()],
        (Ok(answer), None) => answer,
    };
    let mut complaints = Vec::new();
    if let Some(wanted) = &expect.answer {
        within(wanted, answer, "answer", &mut complaints);
    }
    let text = match answer["script"].as_str() {
        Some(script) => script.to_owned(),
        None => answer.to_string(),
    };
    for wanted in expect
        .contains
        .iter()
        .filter(|wanted| !text.contains(*wanted))
    {
        complaints.push(format!("the answer has no {wanted:?}"));
    }
    for unwanted in expect
        .lacks
        .iter()
        .filter(|unwanted| text.contains(*unwanted))
    {
        complaints.push(format!("the answer has {unwanted:?}"));
    }
    complaints
}

/// Whether everything in `wanted` is in `got`.
fn within(wanted: &Value, got: &Value, place: &str, complaints: &mut Vec<String>) {
    match (wanted, got) {
        (Value::Object(wanted), Value::Object(_)) => {
            for (key, wanted) in wanted {
                let got = got.get(key).unwrap_or(&Value::Null);
                within(wanted, got, &format!("{place}.{key}"), complaints);
            }
        }
        (Value::Array(wanted), Value::Array(got)) if wanted.len() == got.len() => {
            for (at, (wanted, got)) in wanted.iter().zip(got).enumerate() {
                within(wanted, got, &format!("{place}[{at}]"), complaints);
            }
        }
        // TOML has no null: an empty table stands for it in results that carry nothing.
        (Value::Object(wanted), Value::Null) if wanted.is_empty() => {}
        (wanted, got) if wanted == got => {}
        _ => complaints.push(format!("{place} is {got}, not {wanted}")),
    }
}

/// `replay`: a recorded call once more.
pub(crate) async fn replay(component: &Path, call: &Path) -> Result<()> {
    use plugin_host::record::{Outcome, RecordedCall, Replay};
    let text = fs::read_to_string(call).with_context(|| format!("read {}", call.display()))?;
    let call: RecordedCall = serde_json::from_str(&text).context("understand the recorded call")?;
    let ready = runtime::load(component).await?;
    let replay = Replay::of(&call);
    let names = ready.loaded.manifest.needs.secrets.iter();
    let grant = runtime::grant(&ready.loaded.manifest, names.map(|need| need.name.clone()))?;
    let plugin = ready.plugin(grant, &call.config, replay.services());
    let outcome = plugin
        .call_recorded(replay.invocation(), &call.function, call.input.clone())
        .await;
    for line in plugin.logs(0, 1_000).lines {
        println!("{:?}  {}", line.level, line.message);
    }
    if let Some(what) = replay.diverged() {
        bail!("the call went another way: {what}");
    }
    let outcome = match outcome {
        Ok(answer) => Outcome::Answer(answer),
        Err(error) => Outcome::Failed {
            code: error.reason.code().to_owned(),
            message: error.to_string(),
        },
    };
    println!("{}", serde_json::to_string_pretty(&json!(outcome))?);
    if outcome != call.outcome {
        bail!("the call ended otherwise than recorded");
    }
    println!("as recorded");
    Ok(())
}

/// `bench`: how long the first fixture's call takes, again and again.
pub(crate) async fn bench(folder: &Path, component: &Path, calls: u32) -> Result<()> {
    let path = fixtures(&folder.join("tests"))?;
    let path = path
        .first()
        .context("a call to measure: the first file in tests/")?;
    let fixture = Fixture::read(path)?;
    let ready = runtime::load(component).await?;
    let (function, input) = fixture.call(ready.loaded.kind)?;
    let mut took = Vec::new();
    for _ in 0..calls.max(1) {
        let scene = Scene::of(&fixture);
        let grant = runtime::grant(&ready.loaded.manifest, fixture.secrets.keys().cloned())?;
        let plugin = ready.plugin(grant, &fixture.config.to_string(), scene.services());
        let invocation = Invocation {
            clock: Some(scene.clone()),
            ..Invocation::default()
        };
        let begun = std::time::Instant::now();
        let _ = plugin
            .call_recorded(invocation, function, input.clone())
            .await;
        took.push(begun.elapsed());
    }
    took.sort();
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    println!(
        "{function}, {} calls of {}: median {:?}, 99th percentile {:?}, slowest {:?}",
        took.len(),
        path.display(),
        at(50),
        at(99),
        at(100)
    );
    Ok(())
}
