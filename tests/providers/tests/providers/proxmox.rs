//! `power-proxmox` against a server that is played by the published API of Proxmox VE. What is shown
//! is that the component in the real host, through the real client, speaks what that API says.

use std::time::Duration;

use e2e::peers::proxmox::{Proxmox, TOKEN_ID};
use e2e::wait::{self, Look};
use model::plugin::Grant;
use plugin_host::ports::{ErrorKind, GuestError};
use plugin_host::power::{Action, Begun, Resumed, State, Step, Target};
use serde_json::json;

use crate::support::{self, Provider, own_error};

const TOKEN: &str = "d5c1b0a9-0000-4000-8000-000000000001";

async fn provider(server: &Proxmox, token: &str) -> Provider {
    let grant = Grant {
        // The played one has no certificate; TLS is the client's matter, and shown with it.
        http: vec![support::http_rule("api", server.port(), &["token"])],
        ..Grant::default()
    };
    let config = json!({ "token_id": TOKEN_ID, "server": server.url() });
    Provider::load("power-proxmox", grant, config, &[("token", token)]).await
}

fn machine(server: &Proxmox, kind: &str, id: u32) -> Target {
    support::target(
        &format!("{}/nodes/pve-1/{kind}/{id}", server.url()),
        json!({}),
    )
}

/// Submits, and asks after the task until it has ended.
async fn done(proxmox: &Provider, action: Action, target: &Target) -> Result<(), GuestError> {
    let operation = support::operation(action, None);
    let begun = proxmox
        .plugin
        .power_begin(support::of(), operation.clone(), target.clone())
        .await
        .map_err(own_error)?;
    let Begun::Submitted(progress) = begun else {
        panic!("not submitted: {begun:?}");
    };
    assert!(
        progress
            .remote_id
            .expect("a task")
            .starts_with("UPID:pve-1:")
    );
    // The played server ends a task when it was asked after it three times.
    for _ in 0..10 {
        let step = proxmox
            .plugin
            .power_poll(
                support::of(),
                operation.clone(),
                target.clone(),
                progress.cursor.clone(),
            )
            .await
            .map_err(own_error)?;
        if step == Step::Done {
            return Ok(());
        }
    }
    panic!("the task does not end");
}

#[tokio::test]
async fn machines_and_containers_are_turned_on_and_off_by_tasks() {
    let server = Proxmox::start(TOKEN).expect("it is served");
    let proxmox = provider(&server, TOKEN).await;
    let state = async |target: &Target| {
        let seen = proxmox
            .plugin
            .power_observe(support::of(), target.clone())
            .await;
        seen.expect("observed").state
    };
    for (kind, id) in [("qemu", 100), ("lxc", 200)] {
        let target = machine(&server, kind, id);
        let found = proxmox
            .plugin
            .power_check(support::of(), target.clone())
            .await;
        let found = found.expect("checked");
        // That it is without TLS, and nothing else.
        assert_eq!(found.len(), 1, "{found:?}");

        assert_eq!(state(&target).await, State::Off);
        done(&proxmox, Action::On, &target).await.expect("started");
        assert_eq!(state(&target).await, State::On);
        let on = support::operation(Action::On, None);
        let again = proxmox
            .plugin
            .power_begin(support::of(), on.clone(), target.clone())
            .await;
        assert!(matches!(again, Ok(Begun::Already(_))), "{again:?}");
        let resumed = proxmox
            .plugin
            .power_resume(support::of(), on, target.clone())
            .await;
        assert_eq!(resumed.expect("resumed"), Resumed::Done);
        done(&proxmox, Action::Reboot, &target)
            .await
            .expect("rebooted");
        done(&proxmox, Action::Shutdown, &target)
            .await
            .expect("shut down");
        assert_eq!(state(&target).await, State::Off);
        let verbs = server.submitted();
        assert_eq!(verbs, ["start", "reboot", "shutdown"], "{kind}");
    }
    let target = machine(&server, "qemu", 100);
    done(&proxmox, Action::On, &target).await.expect("started");
    done(&proxmox, Action::Reset, &target).await.expect("reset");
    server.pause(100);
    assert_eq!(state(&target).await, State::Suspended);
    done(&proxmox, Action::On, &target).await.expect("goes on");
    assert_eq!(state(&target).await, State::On);
    done(&proxmox, Action::Off, &target).await.expect("stopped");
    assert_eq!(server.submitted(), ["start", "reset", "resume", "stop"]);
    assert_eq!(state(&machine(&server, "qemu", 999)).await, State::Absent);
}

#[tokio::test]
async fn locks_failed_tasks_and_tokens_that_are_not_good_are_told_apart() {
    let server = Proxmox::start(TOKEN).expect("it is served");
    let proxmox = provider(&server, TOKEN).await;
    let target = machine(&server, "qemu", 100);

    server.lock(100, Some("backup"));
    let error = done(&proxmox, Action::On, &target)
        .await
        .expect_err("locked");
    assert_eq!(
        (error.kind, &*error.code),
        (ErrorKind::Busy, "proxmox.locked")
    );
    assert!(!error.outcome_unknown);
    server.lock(100, None);
    assert!(server.submitted().is_empty());

    server.fail_next("start failed: exit code 1");
    let error = done(&proxmox, Action::On, &target)
        .await
        .expect_err("fails");
    assert_eq!(&*error.code, "proxmox.task_failed");
    assert!(error.message.contains("exit code 1"), "{error}");

    proxmox
        .replace_secret("token", "d5c1b0a9-0000-4000-8000-000000000002")
        .await;
    let error = done(&proxmox, Action::On, &target)
        .await
        .expect_err("no token");
    assert_eq!(error.kind, ErrorKind::Auth);
    assert!(!error.outcome_unknown);
    proxmox.replace_secret("token", TOKEN).await;

    // The server takes it and says nothing more.
    server.hang_up_after_next();
    let error = done(&proxmox, Action::On, &target)
        .await
        .expect_err("no answer");
    assert!(error.outcome_unknown, "{error}");
    wait::until("the machine to run", Duration::from_secs(10), || {
        Ok(Look::when(server.is_running(100), || "stopped".to_owned()))
    })
    .expect("it was submitted");
}

#[tokio::test]
async fn machines_are_found_with_their_cards_page_by_page() {
    let server = Proxmox::start(TOKEN).expect("it is served");
    let proxmox = provider(&server, TOKEN).await;
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let page = proxmox.plugin.power_discover(support::of(), cursor).await;
        let page = page.expect("a page");
        found.extend(page.found);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), Proxmox::MACHINES);
    let first = &found[0];
    assert_eq!(
        first.address,
        format!("{}/nodes/pve-1/qemu/100", server.url())
    );
    assert_eq!(first.macs, ["bc:24:11:00:00:64"]);
    let mut names: Vec<_> = found.iter().map(|one| &one.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), Proxmox::MACHINES, "each once");
}
