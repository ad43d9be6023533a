//! Everything a story needs at once: hosts, a gateway that somebody has claimed, a workspace.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Cli, Daemon, Gateway, Launch, Programs};
use crate::{
    lab::{Host, Lab, Place},
    say, scenario,
    scratch::Scratch,
    sh,
    wait::{self, Look},
};

/// The workspace that stories play in.
pub const WORKSPACE: &str = "floor";

/// A gateway with an owner, a project and a workspace; with or without a lab of hosts.
#[derive(Debug)]
pub struct World {
    // The order of fields is the order of their end: processes first, the lab they live in last.
    gateway: Gateway,
    cli: Cli,
    agent: PathBuf,
    folder: Scratch,
    lab: Option<Lab>,
}

impl World {
    /// A world with `count` booted hosts, none of which has an agent.
    pub fn with_hosts(programs: &Programs, count: u8) -> Result<Self> {
        Self::with_hosts_and(programs, count, Launch::default())
    }

    /// The same with a gateway that is run differently.
    pub fn with_hosts_and(programs: &Programs, count: u8, launch: Launch) -> Result<Self> {
        let lab = scenario::step(&format!("boot {count} hosts"), || Lab::up(count))?;
        let place = lab.gateway_netns();
        Self::begin(programs, place, Some(lab), launch)
    }

    /// A world of processes on this machine's loopback interface.
    pub fn here(programs: &Programs) -> Result<Self> {
        Self::here_with(programs, Launch::default())
    }

    /// The same with a gateway that is run differently.
    pub fn here_with(programs: &Programs, launch: Launch) -> Result<Self> {
        Self::begin(programs, Place::Here, None, launch)
    }

    fn begin(programs: &Programs, place: Place, lab: Option<Lab>, launch: Launch) -> Result<Self> {
        let folder = Scratch::new()?;
        let gateway = scenario::step("start the gateway", || {
            let gateway = Gateway::new(programs, place.clone(), folder.path(), launch)?;
            gateway.up()?;
            Ok(gateway)
        })?;
        let cli = Cli::new(&programs.cli, place, folder.path().join("cli.toml"));
        let world = Self {
            gateway,
            cli,
            agent: programs.agent.clone(),
            folder,
            lab,
        };
        world.step("claim it, make a project and a workspace", || {
            let (ca, secret) = (world.gateway.ca_file(), world.gateway.owner_secret());
            let text = |path: &Path| path.display().to_string();
            world.cli.text(&[
                "init",
                "--url",
                &world.gateway.url(),
                "--ca-file",
                &text(&ca),
                "--secret-file",
                &text(&secret),
                "--name",
                "owner",
            ])?;
            world.cli.text(&["project", "create", "shop"])?;
            world.cli.text(&[
                "workspace",
                "create",
                "--project",
                "shop",
                WORKSPACE,
                "--environment",
                "production",
            ])?;
            Ok(())
        })?;
        Ok(world)
    }

    /// The gateway.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// The CLI of the gateway's owner.
    pub fn cli(&self) -> &Cli {
        &self.cli
    }

    /// A folder for the story's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The lab's hosts.
    pub fn hosts(&self) -> &[Host] {
        self.lab.as_ref().map_or(&[], Lab::hosts)
    }

    /// Where what shares a host's network runs.
    pub fn place_of(&self, host: &Host) -> Place {
        let lab = self.lab.as_ref();
        lab.map_or(Place::Here, |lab| lab.netns_of(host))
    }

    /// What to put before a command of this machine that talks to the gateway, when it runs in a lab.
    pub fn enter(&self) -> Option<String> {
        self.lab
            .as_ref()
            .map(|lab| format!("nsenter --net=/run/netns/{}-gw", lab.name()))
    }

    /// A step of the story. When it fails, what the gateway and the hosts' agents logged is shown:
    /// a moment later the world is gone.
    pub fn step<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        scenario::step(what, work).inspect_err(|_| self.show_logs())
    }

    /// Makes an agent token; `args` are further options. Its secret and the command to install.
    pub fn token(&self, args: &[&str]) -> Result<Token> {
        let mut all = vec!["token", "create", "-w", WORKSPACE];
        all.extend(args);
        Token::from_answer(&self.cli.json(&all)?)
    }

    /// All hosts, as the CLI lists them.
    pub fn listed(&self) -> Result<Vec<Value>> {
        self.cli.list(&["host", "list", "-w", WORKSPACE])
    }

    /// The hosts of this name, as the CLI lists them. Two may share a name.
    pub fn listed_as(&self, name: &str) -> Result<Vec<Value>> {
        Ok(self
            .listed()?
            .into_iter()
            .filter(|host| host["name"] == name)
            .collect())
    }

    /// One host by id, with all its facts.
    pub fn host(&self, id: &str) -> Result<Value> {
        self.cli.json(&["host", "show", "-w", WORKSPACE, id])
    }

    /// A host's history, newest first.
    pub fn history(&self, id: &str) -> Result<Vec<Value>> {
        self.cli.list(&["host", "history", "-w", WORKSPACE, id])
    }

    /// Waits until the only host named `name` satisfies `wanted`; the host.
    pub fn wait_host(
        &self,
        name: &str,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        wait::until(&format!("{name} to be {what}"), limit, || {
            let hosts = self.listed_as(name)?;
            let found = hosts.iter().find(|host| wanted(host)).cloned();
            Ok(Look::some(found, || describe(&hosts)))
        })
    }

    /// Waits until `name` is managed and connected; the host.
    pub fn wait_connected(&self, name: &str, limit: Duration) -> Result<Value> {
        self.wait_host(name, "managed and connected", limit, is_connected)
    }

    /// Waits until a host with this label is managed and connected; the host.
    pub fn wait_labelled(&self, label: &str, value: &str, limit: Duration) -> Result<Value> {
        wait::until(
            &format!("the host with {label}={value} to be connected"),
            limit,
            || {
                let hosts = self.listed()?;
                let found = hosts.iter().find(|host| host["labels"][label] == value);
                let ready = found.filter(|host| is_connected(host)).cloned();
                Ok(Look::some(ready, || {
                    describe(&found.cloned().into_iter().collect::<Vec<_>>())
                }))
            },
        )
    }

    /// Waits until a history has an event of this kind; the entry.
    pub fn wait_event(&self, id: &str, kind: &str, limit: Duration) -> Result<Value> {
        wait::until(&format!("a {kind} entry in the history"), limit, || {
            let history = self.history(id)?;
            let found = history
                .iter()
                .find(|entry| entry["event"]["kind"] == kind)
                .cloned();
            let kinds = || {
                history
                    .iter()
                    .map(|entry| entry["event"]["kind"].to_string())
            };
            Ok(Look::some(found, || kinds().collect::<Vec<_>>().join(", ")))
        })
    }

    /// Runs an agent as a process of this machine, joining with `token`.
    pub fn agent(&self, name: &str, token: &Token) -> Result<Agent> {
        self.agent_program(name, token, &[&self.agent.display().to_string()])
    }

    /// [`Self::agent`] with another program, given as an argument vector.
    pub fn agent_program(&self, name: &str, token: &Token, argv: &[&str]) -> Result<Agent> {
        Agent::start(
            argv,
            &self.gateway,
            &self.folder.path().join(name),
            &token.secret,
        )
    }

    fn show_logs(&self) {
        say::line(format_args!(
            "  ---- the gateway's log ends\n{}",
            self.gateway.log_tail(40)
        ));
        for host in self.hosts() {
            let journal = host
                .exec(&[
                    "journalctl",
                    "-u",
                    "loopback-agent",
                    "-n",
                    "25",
                    "--no-pager",
                    "-o",
                    "cat",
                ])
                .run()
                .map_or_else(|error| format!("{error:#}"), |output| output.stdout);
            say::line(format_args!(
                "  ---- the agent's log on {} ends\n{journal}",
                host.name()
            ));
        }
    }
}

/// Whether a listed host is in the fleet and heard.
pub fn is_connected(host: &Value) -> bool {
    host["membership"] == "managed" && host["connectivity"] == "connected"
}

/// A join secret, as its maker saw it.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its id.
    pub id: String,
    /// The secret, shown once.
    pub secret: String,
    /// The command to paste on a host.
    pub install_command: String,
}

impl Token {
    /// Installs the agent on a lab host the way a person would: the printed command, pasted into a
    /// root shell. It is read from standard input: the secret is to be seen in no process list.
    pub fn install(&self, host: &Host) -> Result<sh::Output> {
        host.exec(&["bash", "-o", "pipefail"])
            .input(self.install_command.as_bytes())
            .limit(Duration::from_secs(120))
            .run()
    }

    fn from_answer(answer: &Value) -> Result<Self> {
        let text = |value: &Value, what: &str| {
            value
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("the answer has no {what}"))
        };
        Ok(Self {
            id: text(&answer["token"]["id"], "token id")?,
            secret: text(&answer["secret"], "secret")?,
            install_command: text(&answer["install_command"], "install command")?,
        })
    }
}

/// An agent as an unprivileged process.
#[derive(Debug)]
pub struct Agent {
    /// Its process.
    pub process: Daemon,
    /// Its configuration file.
    pub config: PathBuf,
    argv: Vec<String>,
}

impl Agent {
    /// Starts an agent with its files in `folder`.
    pub fn start(argv: &[&str], gateway: &Gateway, folder: &Path, secret: &str) -> Result<Self> {
        fs::create_dir_all(folder).context("make the agent's folder")?;
        let (config, token) = (folder.join("agent.toml"), folder.join("token"));
        fs::write(&token, secret).context("write the token")?;
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).context("hide the token")?;
        // These paths come from the system's temporary folder: nothing in them needs escaping.
        let text = format!(
            "gateway = \"{}\"\nstate_dir = \"{}\"\ntoken_file = \"{}\"\nca_file = \"{}\"\n",
            gateway.url(),
            folder.join("state").display(),
            token.display(),
            gateway.ca_file().display(),
        );
        fs::write(&config, text).context("write the agent's configuration")?;
        let argv: Vec<String> = argv.iter().map(|&word| word.to_owned()).collect();
        let mut run = argv.clone();
        run.extend([
            "run".into(),
            "--config".into(),
            config.display().to_string(),
        ]);
        let process = Daemon::start("the agent", sh::command(&run), &folder.join("agent.log"))?;
        Ok(Self {
            process,
            config,
            argv,
        })
    }

    /// Starts it again on what it left, with `argv` from now on. It must have ended.
    pub fn start_again(&mut self, argv: &[&str]) -> Result<()> {
        self.argv = argv.iter().map(|&word| word.to_owned()).collect();
        let mut run = self.argv.clone();
        run.extend([
            "run".into(),
            "--config".into(),
            self.config.display().to_string(),
        ]);
        let log = self.config.with_file_name("agent.log");
        self.process = Daemon::start("the agent", sh::command(&run), &log)?;
        Ok(())
    }

    /// Where its state lies.
    pub fn state(&self) -> PathBuf {
        self.config.with_file_name("state")
    }

    /// Runs another command of the same program on the same configuration.
    pub fn ask(&self, args: &[&str]) -> Result<sh::Output> {
        let mut argv = self.argv.clone();
        argv.extend(args.iter().map(|&word| word.to_owned()));
        argv.extend(["--config".into(), self.config.display().to_string()]);
        sh::run(&mut sh::command(&argv), Duration::from_secs(60))
    }
}

fn describe(hosts: &[Value]) -> String {
    if hosts.is_empty() {
        return "no such host is listed".into();
    }
    let word = |host: &Value| {
        ["membership", "connectivity", "carrier"]
            .map(|fact| host[fact].as_str().unwrap_or("-").to_owned())
            .join(" ")
    };
    hosts.iter().map(word).collect::<Vec<_>>().join("; ")
}
