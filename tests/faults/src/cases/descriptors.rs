//! `descriptors`: more connections than the process may have files.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use e2e::{
    product::Launch,
    wait::{self, Look},
};
use serde_json::json;

use super::support::{assert_never_lost, join, world};
use crate::{Plan, api::Api, ledger::Book, table::Finding};

const FILES: u32 = 96;
const FLOOD: usize = 200;

pub(super) fn abuse_45_out_of_descriptors(plan: &Plan) -> Result<Finding> {
    let world = world(
        plan,
        Launch {
            wrap: ["prlimit", &format!("--nofile={FILES}"), "--"]
                .map(str::to_owned)
                .into(),
            ..Launch::default()
        },
    )?;
    let mut api = Api::of(&world)?;
    let mut book = Book::open(&world)?;
    let agent = join(&world, "descriptors")?;
    let pid = world.gateway().pid();
    api.read("/v1/projects")?;

    let flood = flood(world.gateway().address());
    wait::until("the gateway to say so", Duration::from_secs(20), || {
        let log = world.gateway().log_tail(usize::MAX);
        let said = log.contains("the system lets no HTTP connection in");
        Ok(Look::when(said, || "nothing in its log".into()))
    })?;
    // Who is connected is served, disk included.
    let host = json!({ "hostname": "made-meanwhile", "labels": {} });
    let path = format!("/v1/workspaces/{}/hosts", book.workspace());
    for _ in 0..20 {
        api.read("/v1/projects")?;
        api.change("POST", &path, Some(&host), 201)?;
        thread::sleep(Duration::from_millis(100));
    }
    let metrics_answer = api.metric("loopback_http_connections")?;
    drop(flood);
    let mut newcomer = api.clone();
    wait::until("newcomers to be let in", Duration::from_secs(30), || {
        let answer = newcomer.get("/v1/projects")?;
        Ok(Look::when(answer.status == 200, || answer.to_string()))
    })?;
    assert_never_lost(&world, &agent.host)?;
    book.write_while(8, || {
        thread::sleep(Duration::from_millis(300));
        Ok(())
    })?;
    book.check_all()?;
    ensure!(world.gateway().pid() == pid, "it was restarted");
    let mut finding = Finding {
        lost: "nothing; no link ended, no process was restarted".into(),
        ..Finding::default()
    };
    finding
        .saw("newcomers wait in the kernel's queue; those who are connected are served, writes too")
        .saw("once the flood is over newcomers are let in, without a restart")
        .measured(format!(
            "{FLOOD} connections against {FILES} descriptors; {metrics_answer:.0} were taken in"
        ));
    Ok(finding)
}

fn flood(to: SocketAddr) -> Vec<io::Result<TcpStream>> {
    let limit = Duration::from_millis(500);
    (0..FLOOD)
        .map(|_| TcpStream::connect_timeout(&to, limit))
        .collect()
}
