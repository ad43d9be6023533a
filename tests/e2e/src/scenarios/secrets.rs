//! `secrets`: what must stay secret is nowhere but where it belongs.
//!
//! The product makes its secrets itself, so those are the marks: each is collected where it belongs,
//! the product is used with all of them, the wrong way too, with every log at its most talkative, and
//! then everything that was written anywhere is searched for them.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::support::{JOIN, text};
use crate::{
    product::{Agent, Launch, Programs, WORKSPACE, World},
    say,
};

const ANSWER: Duration = Duration::from_secs(20);

/// Something secret.
struct Mark {
    what: &'static str,
    /// The part that nobody may see; ids in front of it are public.
    secret: String,
    /// Files below the world's folder that may hold it.
    home: Vec<PathBuf>,
}

impl Mark {
    fn new(what: &'static str, whole: &str, home: &[&Path]) -> Result<Self> {
        let secret = whole.trim().rsplit(['_', ' ']).next().unwrap_or_default();
        ensure!(secret.len() >= 32, "{what} is too short to search for");
        Ok(Self {
            what,
            secret: secret.to_owned(),
            home: home.iter().map(|path| (*path).to_owned()).collect(),
        })
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        let secret = self.secret.as_bytes();
        bytes.windows(secret.len()).any(|part| part == secret)
    }
}

pub(super) fn run(programs: &Programs) -> Result<()> {
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let launch = Launch {
        settings: format!("insecure_http_listen = \"{plain}\"\n[log]\nfilter = \"trace\"\n"),
        ..Launch::default()
    };
    let world = World::here_with(programs, launch)?;
    let (marks, agent) = world.step("use it, and collect its secrets", || collect(&world))?;
    world.step("show them in all the wrong places", || {
        for mark in &marks {
            misuse(plain, &mark.secret)?;
        }
        Ok(())
    })?;
    let seen = world.step("gather what it tells whom it serves", || {
        tell(&world, &agent)
    })?;
    world.step("search processes, logs, files and answers", || {
        let mut searched = 0;
        let mut look = |name: &str, bytes: &[u8], home: &dyn Fn(&Mark) -> bool| {
            searched += bytes.len();
            for mark in marks.iter().filter(|mark| !home(mark)) {
                ensure!(!mark.is_in(bytes), "{} is in {name}", mark.what);
            }
            Ok(())
        };
        for (name, bytes) in &seen {
            look(name, bytes, &|_| false)?;
        }
        let mut files = Vec::new();
        files_below(world.folder(), &mut files)?;
        for path in &files {
            let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
            let home = |mark: &Mark| mark.home.contains(path);
            look(&path.display().to_string(), &bytes, &home)?;
        }
        for mark in &marks {
            for home in &mark.home {
                let bytes = fs::read(home).with_context(|| format!("read {}", home.display()))?;
                ensure!(mark.is_in(&bytes), "{} is not where it belongs", mark.what);
            }
        }
        say::line(format_args!(
            "              {} secrets; {} answers and {} files, {searched} bytes",
            marks.len(),
            seen.len(),
            files.len()
        ));
        Ok(())
    })
}

/// Every kind of secret there is, each taken from where it belongs.
fn collect(world: &World) -> Result<(Vec<Mark>, Agent)> {
    let folder = world.folder();
    let cli = world.cli();
    let contexts = fs::read_to_string(cli.config()).context("read the contexts")?;
    let key = contexts
        .split('"')
        .find(|word| word.starts_with("lbk_"))
        .context("the context has a key")?;
    let mut marks = vec![Mark::new("the owner's API key", key, &[cli.config()])?];
    let made = cli.json(&["api-key", "create", "--description", "shown once"])?;
    marks.push(Mark::new("a second API key", text(&made, "secret")?, &[])?);

    let token = world.token(&["--label", "kind=secret"])?;
    let agent = world.agent("agent", &token)?;
    world.wait_labelled("kind", "secret", JOIN)?;
    let rotated = cli.json(&["token", "rotate", "-w", WORKSPACE, &token.id])?;
    // Whether the agent keeps the file is its own affair.
    let file = folder.join("agent/token");
    let kept = if file.exists() { vec![&*file] } else { vec![] };
    marks.push(Mark::new("the agent token", &token.secret, &kept)?);
    marks.push(Mark::new("its successor", text(&rotated, "secret")?, &[])?);

    let server_key = world.gateway().state().join("keys/server.key");
    let server = fs::read_to_string(&server_key).context("read the server's key")?;
    let longest = server.split([' ', '\n']).max_by_key(|word| word.len());
    let longest = longest.unwrap_or_default();
    marks.push(Mark::new("the server's key", longest, &[&server_key])?);
    let mut files = Vec::new();
    files_below(&world.gateway().state().join("ca"), &mut files)?;
    files_below(&folder.join("agent"), &mut files)?;
    let mut keys = 0;
    for path in files {
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        // The middle of a key: its first line is the same for all of a kind.
        let lines = text.split("PRIVATE KEY-----").nth(1);
        let Some(line) = lines.and_then(|body| body.lines().filter(|line| line.len() > 40).nth(1))
        else {
            continue;
        };
        keys += 1;
        marks.push(Mark::new("a private key", line, &[&path])?);
    }
    ensure!(keys >= 2, "there are keys of an authority and of a host");
    Ok((marks, agent))
}

/// Requests that carry a secret where it has no business, as a confused client sends them.
fn misuse(gateway: SocketAddr, secret: &str) -> Result<()> {
    let body = format!("{{\"secret\":\"{secret}\",\"name\":\"{secret}\",\"{secret}\":1}}");
    for (head, body) in [
        (format!("GET /v1/{secret}"), ""),
        (format!("GET /v1/self?api_key={secret}"), ""),
        (format!("{secret} /v1/self"), ""),
        ("POST /v1/first-run".into(), body.as_str()),
        ("POST /v1/first-run".into(), secret),
    ] {
        let mut stream = TcpStream::connect_timeout(&gateway, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let request = format!(
            "{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer \
             lbk_{secret}\r\nCookie: session={secret}\r\nX-Loopback-Ticket: T-1\r\nContent-Type: \
             application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        ensure!(!answer.contains(secret), "the answer repeats it: {answer}");
    }
    Ok(())
}

/// What the product says of itself, by name.
fn tell(world: &World, agent: &Agent) -> Result<Vec<(String, Vec<u8>)>> {
    let cli = world.cli();
    let mut seen = Vec::new();
    let id = text(&world.wait_labelled("kind", "secret", JOIN)?, "id")?.to_owned();
    for args in [
        vec!["metrics"],
        vec!["audit", "export", "-w", WORKSPACE],
        vec!["audit", "export", "--deployment"],
        vec!["events", "-w", WORKSPACE],
        vec!["token", "list", "-w", WORKSPACE, "--output", "json"],
        vec!["api-key", "list", "--output", "json"],
        vec!["user", "list", "--output", "json"],
        vec!["ca", "show", "--output", "json"],
        vec!["context", "show", "--output", "json"],
        vec!["whoami", "--output", "json"],
        vec!["host", "show", "-w", WORKSPACE, &id, "--output", "json"],
        vec!["host", "history", "-w", WORKSPACE, &id],
    ] {
        let output = cli.run(&args)?;
        ensure!(output.status.success(), "{output}");
        let name = format!("the answer to {}", args.join(" "));
        seen.push((name, (output.stdout + &output.stderr).into_bytes()));
    }
    for args in [&["status", "--json"][..], &["status"], &["doctor"]] {
        let output = agent.ask(args)?;
        let name = format!("the agent's answer to {}", args.join(" "));
        seen.push((name, (output.stdout + &output.stderr).into_bytes()));
    }
    let gateway = world.gateway().pid().context("the gateway runs")?;
    for pid in [gateway, agent.process.pid()] {
        for file in ["cmdline", "environ"] {
            let path = format!("/proc/{pid}/{file}");
            let bytes = fs::read(&path).with_context(|| format!("read {path}"))?;
            seen.push((path, bytes));
        }
        // Threads are named, too.
        for thread in fs::read_dir(format!("/proc/{pid}/task")).context("list threads")? {
            let path = thread?.path().join("comm");
            if let Ok(bytes) = fs::read(&path) {
                seen.push((path.display().to_string(), bytes));
            }
        }
    }
    let log = world.gateway().log_tail(usize::MAX);
    ensure!(log.contains("TRACE"), "the log is at its most talkative");
    let audit: Value = cli.json(&["audit", "list", "--deployment"])?;
    seen.push(("the audit trail".into(), audit.to_string().into_bytes()));
    Ok(seen)
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        if kind.is_dir() {
            files_below(&path, found)?;
        } else if kind.is_file() {
            found.push(path);
        }
    }
    Ok(())
}
