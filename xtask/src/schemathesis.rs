//! `cargo xtask schemathesis`: requests that are made from the OpenAPI document, against a real
//! gateway, with a key of each built-in role and with none.
//!
//! Our own tests ask what we thought of. schemathesis reads what we promise and looks for an answer
//! that breaks it: a status of 500 and above that is none of those documented, a status, a media
//! type or a header that is not documented, a body that its schema does not describe. With an
//! owner's key it reaches handlers, with an auditor's the refusals, with none the door.
//!
//! The short run, a part of `cargo xtask test`, has a fixed seed and few examples, so that it fails
//! for a change and not for its luck; `--long` takes another seed each time and many more.
//!
//! Left out are the operations whose answer has no end: the streams of events, output that is
//! followed, and the upgrade
//! to a WebSocket. Both have tests of their own.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    interrupt,
    product::{Launch, World},
    scenario::Needs,
    sh, tools,
};
use faults::api::Api;
use lexopt::{Arg, Parser, ValueExt};
use serde_json::{Value, json};

use crate::{
    play::{Built, PRODUCT},
    workspace::{Workspace, target_folder},
};

const VERSION: &str = "4.32.5";
/// What is looked for. The others judge taste (say, that every wrong value gets a 4xx, which a
/// schema cannot know) or are held by the matrix of permissions.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,unsupported_method,use_after_free";
/// Fewer requests than this are not one for each operation.
const OPERATIONS: usize = 60;
const ENDLESS: &[&str] = &[
    "follow_events",
    "follow_command",
    "get_command_output",
    "open_agent_carrier",
];
/// No limit of a key or a source may stand before what is tested, and nothing else may pass for it.
const SETTINGS: &str = "[limits]\n\
    requests_per_key_per_second = 1000000\n\
    requests_per_key_burst = 1000000\n\
    failed_auth_per_source_per_minute = 1000000\n";

/// How much is tried.
#[derive(Debug, Clone, Copy)]
struct Effort {
    seed: u64,
    /// Requests for each operation.
    examples: u32,
    /// Whether everybody tries every limit of every schema once, and sequences of calls. Else the
    /// owner alone does, who gets furthest.
    whole: bool,
    /// For one key.
    limit: Duration,
}

impl Effort {
    const SHORT: Self = Self {
        seed: 1,
        examples: 4,
        whole: false,
        limit: Duration::from_secs(300),
    };
}

/// What is made of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Requests, each by itself, with ids of things that exist.
    Requests,
    /// Sequences, whose ids come from answers. So they may meet the caller's own user, and lock it
    /// out.
    Sequences,
}

/// The command.
pub(crate) fn run(workspace: &Workspace, mut args: Parser) -> Result<ExitCode> {
    let (mut effort, mut only) = (Effort::SHORT, None);
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("long") => {
                effort = Effort {
                    seed: fresh_seed(),
                    examples: 100,
                    whole: true,
                    limit: Duration::from_secs(3600),
                };
            }
            Arg::Long("seed") => effort.seed = args.value()?.parse()?,
            Arg::Long("examples") => effort.examples = args.value()?.parse()?,
            Arg::Long("role") => only = Some(args.value()?.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    interrupt::listen()?;
    play(workspace, PRODUCT, effort, only.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

/// The short run, as a part of all checks.
pub(crate) fn check(workspace: &Workspace, packages: &[&str]) -> Result<()> {
    play(workspace, packages, Effort::SHORT, None)
}

/// A seed that differs from run to run; it is printed, and `--seed` repeats it.
fn fresh_seed() -> u64 {
    jiff::Timestamp::now().as_second().unsigned_abs()
}

fn play(
    workspace: &Workspace,
    packages: &[&str],
    effort: Effort,
    only: Option<&str>,
) -> Result<()> {
    let tool = tools::packaged(
        "schemathesis",
        "schemathesis",
        VERSION,
        &target_folder().join("tools"),
    )?;
    // Its name is relative to where we are, and it is run elsewhere.
    let tool = fs::canonicalize(tool).context("find schemathesis")?;
    let built = Built::build(workspace, packages, Needs::PROCESSES)?;
    let launch = Launch {
        settings: SETTINGS.into(),
        ..Launch::default()
    };
    let world = World::here_with(&built.programs, launch)?;
    let mut owner = Api::of(&world)?;
    let mut callers = callers(&mut owner)?;
    if let Some(only) = only {
        callers.retain(|caller| caller.name == only);
        ensure!(!callers.is_empty(), "there is no role {only:?}");
    }
    println!(
        "seed {}, {} examples for each operation",
        effort.seed, effort.examples
    );
    for caller in &mut callers {
        caller.settings = settings(&world, &mut owner, caller)?;
    }
    // Strangers and roles at once; then the owner, who takes things away from everybody.
    let (owners, others): (Vec<_>, Vec<_>) = callers.iter().partition(|caller| caller.is_owner());
    let sequences_of = if effort.whole {
        others.clone()
    } else {
        Vec::new()
    };
    for (pass, crowd) in [
        (Pass::Requests, others),
        (Pass::Requests, owners.clone()),
        (Pass::Sequences, sequences_of),
        (Pass::Sequences, owners),
    ] {
        let runs = thread::scope(|scope| -> Result<Vec<_>> {
            let mut runs = Vec::new();
            for caller in crowd {
                let mut command = command(&tool, &world, caller, effort, pass)?;
                let run = scope.spawn(move || {
                    let began = Instant::now();
                    let output = sh::run(&mut command, effort.limit);
                    (output, began.elapsed())
                });
                runs.push((caller, run));
            }
            let ended = runs
                .into_iter()
                .map(|(caller, run)| Some((caller, run.join().ok()?)));
            Ok(ended.collect())
        })?;
        // All of them are shown, so that one finding does not hide another.
        let mut found = Vec::new();
        for run in runs {
            let (caller, (output, took)) = run.context("a run panicked")?;
            if let Err(error) = judge(&world, caller, pass, &output?, took) {
                found.push(format!("as {}: {error:#}", caller.name));
            }
        }
        ensure!(found.is_empty(), "{}", found.join("; "));
    }
    let log = world.gateway().log_tail(usize::MAX);
    let errors: Vec<_> = log
        .lines()
        .filter(|line| line.contains(" ERROR "))
        .collect();
    ensure!(errors.is_empty(), "the gateway logged {errors:#?}");
    Ok(())
}

/// Somebody who calls.
struct Caller {
    name: String,
    /// Nothing for strangers.
    key: Option<String>,
    user: Value,
    /// Of schemathesis.
    settings: PathBuf,
}

impl Caller {
    fn is_owner(&self) -> bool {
        self.name == "owner"
    }
}

/// Strangers, and a service account for each built-in role. The owner comes last: nobody takes more
/// away from the others.
fn callers(owner: &mut Api) -> Result<Vec<Caller>> {
    let mut callers = vec![Caller {
        name: "nobody".into(),
        key: None,
        user: Value::Null,
        settings: PathBuf::new(),
    }];
    let roles = owner.read("/v1/roles")?;
    let roles = roles["items"].as_array().context("a list of roles")?;
    let built_in = || roles.iter().filter(|role| role["built_in"] == true);
    let is_owner = |role: &&Value| role["name"] == "owner";
    for role in built_in()
        .filter(|role| !is_owner(role))
        .chain(built_in().filter(is_owner))
    {
        let name = role["name"].as_str().context("a role's name")?.to_owned();
        let user = create(
            owner,
            "/v1/users",
            &json!({ "name": format!("as-{name}"), "kind": "service_account" }),
        )?;
        let grant = json!({ "user": user["id"], "role": role["id"] });
        create(owner, "/v1/role-bindings", &grant)?;
        let key = create(owner, &keys_of(&user), &json!({}))?;
        callers.push(Caller {
            name,
            key: Some(secret(&key)?),
            user,
            settings: PathBuf::new(),
        });
    }
    ensure!(callers.len() > 2, "there are no built-in roles");
    Ok(callers)
}

fn create(owner: &mut Api, path: &str, body: &Value) -> Result<Value> {
    owner.change("POST", path, Some(body), 201)
}

fn keys_of(user: &Value) -> String {
    format!(
        "/v1/users/{}/api-keys",
        user["id"].as_str().unwrap_or_default()
    )
}

fn secret(key: &Value) -> Result<String> {
    let secret = key["secret"].as_str();
    Ok(secret.context("the answer has no key")?.to_owned())
}

/// What runs schemathesis for one caller.
fn command(
    tool: &Path,
    world: &World,
    caller: &Caller,
    effort: Effort,
    pass: Pass,
) -> Result<Command> {
    let gateway = world.gateway();
    let ca = gateway.ca_file().display().to_string();
    let phases = match pass {
        Pass::Requests if effort.whole || caller.is_owner() => "examples,coverage,fuzzing",
        Pass::Requests => "examples,fuzzing",
        Pass::Sequences => "stateful",
    };
    let home = caller.settings.parent().context("it lies in a folder")?;
    let mut command = Command::new(tool);
    command
        .current_dir(home)
        .env("LOOPBACK_KEY", caller.key.as_deref().unwrap_or_default())
        .arg("--config-file")
        .arg(&caller.settings)
        .args(["run", &format!("{}/v1/openapi.json", gateway.url())])
        .args(["--tls-verify", &ca, "--checks", CHECKS])
        .args(["--phases", phases])
        // Hypothesis parses the source of what generates. In two threads at once CPython 3.11 fails
        // at that now and then, "AST constructor recursion depth mismatch": its counter belongs to
        // the interpreter and not to the thread.
        .args(["--workers", "1"])
        .args(["--seed", &effort.seed.to_string()])
        .args(["--max-examples", &effort.examples.to_string()])
        .args(["--request-timeout", "20", "--max-redirects", "0"])
        .args(["--warnings", "off", "--suppress-health-check", "all"])
        .args(["--generation-database", "none", "--no-color"]);
    for operation in ENDLESS {
        command.args(["--exclude-operation-id", operation]);
    }
    Ok(command)
}

/// What came of it.
fn judge(
    world: &World,
    caller: &Caller,
    pass: Pass,
    output: &sh::Output,
    took: Duration,
) -> Result<()> {
    if !output.status.success() {
        println!("{}\n{}", output.stdout, output.stderr);
        bail!("an answer is not as documented, see above");
    }
    let took = took.as_secs_f32();
    if pass == Pass::Sequences {
        println!(
            "  as {:16} sequences, all answered as documented, {took:.0} s",
            caller.name
        );
        return Ok(());
    }
    if let Some(key) = &caller.key {
        // A caller who was locked out on the way has tested the door only.
        let answer = Api::new(world.gateway(), key)?.get("/v1/self")?;
        ensure!(answer.status != 401, "the key ended during the run");
    }
    let tried = tried(&output.stdout)?;
    ensure!(
        tried >= OPERATIONS,
        "{tried} requests are not every operation"
    );
    println!(
        "  as {:16} {tried:6} requests, all answered as documented, {took:.0} s",
        caller.name,
    );
    Ok(())
}

/// Its configuration: the credentials, and ids of things that exist. Random ones would never reach
/// a handler.
fn settings(world: &World, owner: &mut Api, caller: &Caller) -> Result<PathBuf> {
    let home = world.folder().join(&caller.name);
    fs::create_dir_all(&home).context("make a folder for schemathesis")?;
    let mut text = String::new();
    if caller.key.is_some() {
        text += "headers = { Authorization = \"Bearer ${LOOPBACK_KEY}\" }\n\n";
    }
    let victims = victims(owner, caller)?;
    text += "[parameters]\n";
    for (name, _) in &victims {
        writeln!(
            text,
            "\"path.{name}\" = {{ dictionary = \"{name}\", probability = 0.7 }}"
        )?;
    }
    for (name, ids) in &victims {
        writeln!(text, "\n[dictionaries.{name}]\nvalues = {}", json!(ids))?;
    }
    text += "\n[generation]\nallow-x00 = true\n";
    let path = home.join("schemathesis.toml");
    fs::write(&path, text).context("write schemathesis' configuration")?;
    Ok(path)
}

/// Things to read, change and delete, for each parameter of a path.
fn victims(owner: &mut Api, caller: &Caller) -> Result<Vec<(&'static str, Vec<Value>)>> {
    let name = format!("victim-of-{}", caller.name);
    let project = create(owner, "/v1/projects", &json!({ "name": name }))?;
    let project_id = project["id"].as_str().context("a project's id")?;
    let workspaces = format!("/v1/projects/{project_id}/workspaces");
    let workspace = json!({ "name": "floor", "environment": "staging" });
    let workspace = create(owner, &workspaces, &workspace)?;
    let inside = format!(
        "/v1/workspaces/{}",
        workspace["id"].as_str().context("a workspace's id")?
    );
    let mut hosts = Vec::new();
    for number in 0..3 {
        let host = json!({ "hostname": format!("h{number}") });
        hosts.push(create(owner, &format!("{inside}/hosts"), &host)?["id"].take());
    }
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let mut made = create(owner, &format!("{inside}/agent-tokens"), &json!({}))?;
        tokens.push(made["token"]["id"].take());
    }
    let user = json!({ "name": name, "kind": "person" });
    let user = create(owner, "/v1/users", &user)?;
    let role = json!({ "name": name, "rules": [{ "allow": "self" }] });
    let role = create(owner, "/v1/roles", &role)?;
    let grant = json!({ "user": user["id"], "role": role["id"] });
    let mut bindings = vec![create(owner, "/v1/role-bindings", &grant)?["id"].take()];
    bindings.push(create(owner, &format!("{inside}/role-bindings"), &grant)?["id"].take());
    let mut keys = vec![create(owner, &keys_of(&user), &json!({}))?["api_key"]["id"].take()];
    if caller.key.is_some() {
        // One of its own, too, beside the one it calls with.
        keys.push(create(owner, &keys_of(&caller.user), &json!({}))?["api_key"]["id"].take());
    }
    let victims = vec![
        ("workspace", vec![workspace["id"].clone()]),
        ("project", vec![project["id"].clone()]),
        ("host", hosts),
        ("token", tokens),
        ("user", vec![user["id"].clone()]),
        ("role", vec![role["id"].clone()]),
        ("api_key", keys),
        ("binding", bindings),
    ];
    for (name, ids) in &victims {
        ensure!(
            ids.iter().all(Value::is_string),
            "no id for {name}: {ids:?}"
        );
    }
    Ok(victims)
}

/// How many requests it made, in its own words.
fn tried(stdout: &str) -> Result<usize> {
    let line = stdout
        .lines()
        .find_map(|line| line.trim().split_once(" generated,"));
    let number = line.and_then(|(number, _)| number.parse().ok());
    number.with_context(|| format!("schemathesis does not say what it did:\n{stdout}"))
}
