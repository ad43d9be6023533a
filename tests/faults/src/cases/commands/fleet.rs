//! The hosts of the story, and how their agents die.

use std::{fs, path::PathBuf, thread};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::{
    lab::Host,
    product::{Agent, Token, World, is_connected},
    wait::{self, Look},
};

use super::super::support::JOIN;
use crate::Plan;

/// Where runs leave their lines on a booted host.
const ON_HOST: &str = "/root/ran";
const UNIT: &str = "loopback-agent.service";
/// Five seconds, as installed, would leave hosts away for several rounds after each kill.
const SOONER: &str = "[Service]\nRestartSec=200ms\n";

/// Agents that can be killed.
#[derive(Debug)]
pub(super) enum Fleet {
    /// Processes of this machine, which nobody else starts again.
    Processes {
        agents: Vec<Agent>,
        argv: Vec<String>,
        folder: PathBuf,
    },
    /// Units of the world's booted hosts.
    Hosts,
}

impl Fleet {
    /// Unprivileged agents on this machine, connected.
    pub(super) fn of_processes(plan: &Plan, world: &World, count: u8) -> Result<Self> {
        let mut agents = Vec::new();
        for number in 0..count {
            let token = token(world, number.into())?;
            agents.push(world.agent(&format!("agent-{number}"), &token)?);
        }
        until_connected(world, count)?;
        let folder = world.folder().join("ran");
        fs::create_dir(&folder)?;
        Ok(Self::Processes {
            agents,
            argv: vec![plan.programs.agent.display().to_string()],
            folder,
        })
    }

    /// Agents as they are installed, on every host of the world, connected.
    pub(super) fn of_hosts(world: &World) -> Result<Self> {
        world.step("install the agent on them", || {
            for (number, host) in world.hosts().iter().enumerate() {
                let token = token(world, number)?;
                let installed = token.install(host)?;
                ensure!(installed.status.success(), "{installed}");
                host.write_file(
                    &format!("/etc/systemd/system/{UNIT}.d/sooner.conf"),
                    SOONER.as_bytes(),
                )?;
                host.sh(&format!("systemctl daemon-reload; mkdir {ON_HOST}"))?;
            }
            until_connected(world, u8::try_from(world.hosts().len())?)
        })?;
        Ok(Self::Hosts)
    }

    /// The folder in which runs leave their lines, as they see it.
    pub(super) fn folder(&self) -> String {
        match self {
            Self::Processes { folder, .. } => folder.display().to_string(),
            Self::Hosts => ON_HOST.to_owned(),
        }
    }

    /// The same, as it is seen from here: one for each file system.
    pub(super) fn folders(&self, world: &World) -> Vec<PathBuf> {
        match self {
            Self::Processes { folder, .. } => vec![folder.clone()],
            Self::Hosts => {
                let inside = ON_HOST.trim_start_matches('/');
                let hosts = world.hosts().iter();
                hosts.map(|host| host.root().join(inside)).collect()
            }
        }
    }

    /// Kills these agents at once; each is started again. How many there were to kill.
    pub(super) fn kill(&mut self, world: &World, numbers: &[usize]) -> Result<u32> {
        match self {
            Self::Processes { agents, argv, .. } => {
                let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
                for number in numbers {
                    agents[*number].process.kill()?;
                }
                for number in numbers {
                    agents[*number].start_again(&argv)?;
                }
                Ok(u32::try_from(numbers.len())?)
            }
            Self::Hosts => {
                let hosts: Vec<_> = numbers.iter().map(|it| &world.hosts()[*it]).collect();
                thread::scope(|scope| {
                    let kills: Vec<_> = hosts
                        .iter()
                        .map(|host| scope.spawn(|| kill_main(host)))
                        .collect();
                    let mut killed = 0;
                    for kill in kills {
                        let kill = kill.join();
                        let there_was = kill.map_err(|_| anyhow!("a kill panicked"))??;
                        killed += u32::from(there_was);
                    }
                    Ok(killed)
                })
            }
        }
    }
}

/// Ends the unit's main process. Not there when the one before it died a moment ago.
fn kill_main(host: &Host) -> Result<bool> {
    let script = format!(
        "pid=$(systemctl show --value --property=MainPID {UNIT}); [ \"$pid\" = 0 ] || kill -9 $pid; echo $pid"
    );
    let pid = host.sh(&script).context("kill the agent")?;
    Ok(pid.trim() != "0")
}

/// Each host can be selected alone, too.
fn token(world: &World, number: usize) -> Result<Token> {
    world.token(&[
        "--label",
        "case=commands",
        "--label",
        &format!("nr={number}"),
    ])
}

fn until_connected(world: &World, count: u8) -> Result<()> {
    wait::until("all agents to be connected", JOIN * 2, || {
        let listed = world.listed()?;
        let linked = listed.iter().filter(|host| is_connected(host)).count();
        Ok(Look::when(linked == usize::from(count), || {
            format!("{linked}")
        }))
    })
}
