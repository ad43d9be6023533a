use loopback_plugin_sdk::http::Placement;
use loopback_plugin_sdk::power::{BootDevice, BootOnce};
use loopback_plugin_sdk::testing::FakeHost;
use serde_json::json;

use super::*;

const ADDRESS: &str = "https://pve.example:8006/nodes/pve-1/qemu/100";
const BASE: &str = "https://pve.example:8006/api2/json/nodes/pve-1/qemu/100/status";
const TASK: &str = "UPID:pve-1:000F1A2B:0A1B2C3D:65A0B1C2:qmstart:100:loopback@pve!power:";
const RUNNING: &str = r#"{"data":{"status":"running","qmpstatus":"running","name":"web-1"}}"#;
const STOPPED: &str = r#"{"data":{"status":"stopped","qmpstatus":"stopped"}}"#;

fn config() -> Config {
    serde_json::from_value(json!({
        "token_id": "loopback@pve!power", "server": "https://pve.example:8006",
    }))
    .unwrap()
}

fn target() -> Target {
    Target {
        host: "hst_1".into(),
        address: ADDRESS.into(),
        params: "{}".into(),
        tls_profile: Some("pve".into()),
        route: Some("rack".into()),
    }
}

fn operation(action: Action) -> Operation {
    Operation {
        id: "pop_1".into(),
        attempt: 1,
        action,
        boot: None,
        deadline_ms: 300_000,
        before: None,
    }
}

fn begin(host: &FakeHost, action: Action) -> Result<Begun, Error> {
    Proxmox::begin(host, &config(), &operation(action), &target())
}

fn task() -> String {
    json!({ "data": TASK }).to_string()
}

#[test]
fn an_action_is_submitted_once_and_followed_to_its_end() {
    let host = FakeHost::at(0)
        .answer(200, &[], STOPPED)
        .answer(200, &[], &task());
    let Begun::Submitted(progress) = begin(&host, Action::On).unwrap() else {
        panic!("not submitted");
    };
    assert_eq!(progress.remote_id.as_deref(), Some(TASK));
    let requests = host.requests();
    let asked: Vec<_> = requests
        .iter()
        .map(|request| format!("{} {}", request.method, request.url))
        .collect();
    assert_eq!(
        asked,
        [format!("GET {BASE}/current"), format!("POST {BASE}/start")]
    );
    for request in requests {
        let place = Placement::Header {
            name: "authorization".into(),
            prefix: "PVEAPIToken=loopback@pve!power=".into(),
        };
        assert_eq!(request.credentials, [("token".to_owned(), place)]);
        assert_eq!(request.tls_profile.as_deref(), Some("pve"));
        assert_eq!(request.route.as_deref(), Some("rack"));
    }

    let poll = |answer: Value| {
        let answer = json!({ "data": answer }).to_string();
        let host = FakeHost::at(0).answer(200, &[], &answer);
        let operation = operation(Action::On);
        let step = Proxmox::poll(&host, &config(), &operation, &target(), &progress.cursor);
        (step, host.requests()[0].url.clone())
    };
    let (step, url) = poll(json!({ "status": "running" }));
    assert!(matches!(step, Ok(Step::Running(_))));
    let tasks = "https://pve.example:8006/api2/json/nodes/pve-1/tasks";
    assert_eq!(url, format!("{tasks}/{TASK}/status"));
    for exit in ["OK", "WARNINGS: 1"] {
        let (step, _) = poll(json!({ "status": "stopped", "exitstatus": exit }));
        assert!(matches!(step, Ok(Step::Done)), "{exit}");
    }
    let why = "VM quit/powerdown failed - got timeout";
    let (step, _) = poll(json!({ "status": "stopped", "exitstatus": why }));
    let error = step.unwrap_err();
    assert_eq!(error.code, "proxmox.task_failed");
    assert!(error.message.contains(why) && error.outcome_unknown && !error.is_transient());
}

#[test]
fn each_action_has_its_word() {
    for (action, now, word) in [
        (Action::On, STOPPED, "start"),
        (Action::Shutdown, RUNNING, "shutdown"),
        (Action::Off, RUNNING, "stop"),
        (Action::Reboot, RUNNING, "reboot"),
        (Action::Reset, RUNNING, "reset"),
        (
            Action::On,
            r#"{"data":{"status":"running","qmpstatus":"paused"}}"#,
            "resume",
        ),
        (
            Action::On,
            r#"{"data":{"status":"stopped","lock":"suspended"}}"#,
            "start",
        ),
    ] {
        let host = FakeHost::at(0)
            .answer(200, &[], now)
            .answer(200, &[], &task());
        begin(&host, action).unwrap();
        let [_, request] = &host.requests()[..] else {
            panic!("{action:?}");
        };
        assert_eq!(request.url, format!("{BASE}/{word}"));
        // The guest has as long as the operation has.
        let form = if matches!(word, "shutdown" | "reboot") {
            "timeout=300"
        } else {
            ""
        };
        assert_eq!(request.body, form.as_bytes());
    }
}

#[test]
fn what_is_so_already_and_what_is_locked_is_not_submitted() {
    for (action, now) in [
        (Action::On, RUNNING),
        (Action::Off, STOPPED),
        (Action::Shutdown, STOPPED),
    ] {
        let host = FakeHost::at(0).answer(200, &[], now);
        assert!(
            matches!(begin(&host, action), Ok(Begun::Already(_))),
            "{action:?}"
        );
    }
    let locked = r#"{"data":{"status":"running","qmpstatus":"running","lock":"backup"}}"#;
    let host = FakeHost::at(0).answer(200, &[], locked);
    let error = begin(&host, Action::Off).unwrap_err();
    assert_eq!(
        (error.kind, error.code.as_str()),
        (ErrorKind::Busy, "proxmox.locked")
    );
    assert!(!error.outcome_unknown);
    assert_eq!(host.requests().len(), 1);
}

#[test]
fn what_may_have_been_submitted_says_so() {
    let locked = r#"{"data":null,"message":"VM is locked (backup)\n"}"#;
    for (status, body, kind, unknown) in [
        (500, locked, ErrorKind::Busy, false),
        (
            500,
            r#"{"data":null,"message":"VM 100 not running\n"}"#,
            ErrorKind::Conflict,
            false,
        ),
        (500, r#"{"data":null}"#, ErrorKind::Upstream, true),
        (500, "<html>", ErrorKind::Upstream, true),
        (595, "", ErrorKind::Upstream, true),
        (503, "", ErrorKind::Busy, false),
        (200, r#"{"data":"UPID:pve"#, ErrorKind::Upstream, true),
        (200, r#"{"data":null}"#, ErrorKind::Upstream, true),
        (200, r#"{"data":"../../x"}"#, ErrorKind::Upstream, true),
        (302, "", ErrorKind::Invalid, false),
        (401, "", ErrorKind::Auth, false),
        (403, "", ErrorKind::Forbidden, false),
        (429, "", ErrorKind::Throttled, false),
    ] {
        let host = FakeHost::at(0)
            .answer(200, &[], RUNNING)
            .answer(status, &[], body);
        let error = begin(&host, Action::Reset).unwrap_err();
        assert_eq!(
            (error.kind, error.outcome_unknown),
            (kind, unknown),
            "{status} {body}"
        );
    }
    // The gateway itself says so where bytes went out.
    let mut lost = Error::new(ErrorKind::Timeout, "http.timeout", "too late");
    lost.outcome_unknown = true;
    let host = FakeHost::at(0).answer(200, &[], RUNNING).fail(lost);
    assert!(begin(&host, Action::Reset).unwrap_err().outcome_unknown);
    // Before that, nothing was submitted, whatever fails.
    let mut lost = Error::new(ErrorKind::Timeout, "http.timeout", "too late");
    lost.outcome_unknown = true;
    let host = FakeHost::at(0).fail(lost);
    assert!(!begin(&host, Action::Reset).unwrap_err().outcome_unknown);
    let host = FakeHost::at(0).answer(500, &[], "");
    assert!(!begin(&host, Action::Reset).unwrap_err().outcome_unknown);
}

#[test]
fn a_resumption_submits_nothing() {
    for (action, now, done) in [
        (Action::On, RUNNING, true),
        (Action::On, STOPPED, false),
        (Action::Off, STOPPED, true),
        (Action::Reset, RUNNING, false),
    ] {
        let host = FakeHost::at(0).answer(200, &[], now);
        let resumed = Proxmox::resume(&host, &config(), &operation(action), &target());
        assert_eq!(
            matches!(resumed.unwrap(), Resumed::Done),
            done,
            "{action:?}"
        );
        assert_eq!(host.requests()[0].method, "GET");
    }
}

#[test]
fn a_machine_that_is_gone_is_absent() {
    let gone = json!({
        "data": null,
        "message": "Configuration file 'nodes/pve-1/qemu-server/100.conf' does not exist\n",
    });
    let host = FakeHost::at(0).answer(500, &[], &gone.to_string());
    let seen = Proxmox::observe(&host, &config(), &target()).unwrap();
    assert_eq!(seen.state, State::Absent);
    let host = FakeHost::at(0).answer(500, &[], &gone.to_string());
    assert_eq!(
        begin(&host, Action::On).unwrap_err().kind,
        ErrorKind::NotFound
    );
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_is_asked() {
    let host = FakeHost::at(0);
    for action in [Action::Cycle, Action::Nmi] {
        let error = begin(&host, action).unwrap_err();
        assert_eq!(error.code, "proxmox.action", "{action:?}");
    }
    let mut on = operation(Action::On);
    on.boot = Some(BootOnce {
        device: BootDevice::Network,
        url: None,
        uefi: None,
    });
    let error = Proxmox::begin(&host, &config(), &on, &target()).unwrap_err();
    assert_eq!(error.code, "proxmox.boot");
    let mut container = target();
    container.address = ADDRESS.replace("qemu", "lxc");
    let reset = operation(Action::Reset);
    let error = Proxmox::begin(&host, &config(), &reset, &container).unwrap_err();
    assert_eq!(error.code, "proxmox.action");
    let mut odd = target();
    for params in [json!({ "token_id": "x\r\ny: z" }), json!({ "token": "x" })] {
        odd.params = params.to_string();
        let error = Proxmox::observe(&host, &config(), &odd).unwrap_err();
        assert_eq!(error.code, "target.params", "{params}");
    }
    let cursor = b"UPID:../x:1:2:3:4:5:6:7";
    let error = Proxmox::poll(&host, &config(), &operation(Action::On), &target(), cursor);
    assert_eq!(error.unwrap_err().code, "proxmox.cursor");
    assert!(host.requests().is_empty());
}

#[test]
fn a_check_says_what_the_token_may_not() {
    let check = |permissions: &str| {
        let host = FakeHost::at(0)
            .answer(200, &[], RUNNING)
            .answer(200, &[], permissions);
        let found = Proxmox::check_target(&host, &config(), &target()).unwrap();
        (found.len(), host.requests()[1].url.clone())
    };
    let (findings, url) = check(r#"{"data":{"/vms/100":{"VM.Audit":1,"VM.PowerMgmt":1}}}"#);
    assert_eq!(findings, 0);
    assert!(url.ends_with("/access/permissions?path=/vms/100"), "{url}");
    assert_eq!(check(r#"{"data":{"/vms/100":{"VM.Audit":1}}}"#).0, 1);
    assert_eq!(check("nothing of the kind").0, 0);
}

#[test]
fn machines_are_found_page_by_page() {
    let machines: Vec<_> = (100..118)
        .rev()
        .map(|id| {
            json!({
                "type": if id % 2 == 0 { "qemu" } else { "lxc" }, "vmid": id, "node": "pve-1",
                "name": format!("vm-{id}"), "status": "running", "template": u8::from(id == 101),
            })
        })
        .chain([json!({ "type": "storage", "node": "pve-1", "status": "available" })])
        .collect();
    let list = json!({ "data": machines }).to_string();
    let host = (0..15).fold(
        FakeHost::at(0).answer(200, &[], &list).answer(
            200,
            &[],
            r#"{"data":{"net0":"virtio=BC:24:11:00:00:01,bridge=vmbr0","smbios1":"uuid=A-1"}}"#,
        ),
        |host, _| host.answer(403, &[], ""),
    );
    let first = Proxmox::discover(&host, &config(), None).unwrap();
    assert_eq!(first.found.len(), 16);
    assert_eq!(first.found[0].address, ADDRESS);
    assert_eq!(first.found[0].macs, ["bc:24:11:00:00:01"]);
    assert_eq!(first.found[0].serial.as_deref(), Some("a-1"));
    // The template is left out, and one that may not be looked into has no cards.
    assert_eq!(first.found[1].name, "vm-102");
    assert!(first.found[1].macs.is_empty());
    assert_eq!(first.next.as_deref(), Some("116"));
    let requests = host.requests();
    assert!(requests[0].url.ends_with("/cluster/resources?type=vm"));
    assert_eq!(requests[0].tls_profile, None);

    let host = FakeHost::at(0)
        .answer(200, &[], &list)
        .answer(200, &[], r#"{"data":{}}"#);
    let last = Proxmox::discover(&host, &config(), first.next.as_deref()).unwrap();
    assert_eq!((last.found.len(), last.next), (1, None));
    assert_eq!(last.found[0].name, "vm-117");

    let error = Proxmox::discover(&FakeHost::at(0), &Config::default(), None).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
}

#[test]
fn configurations_that_cannot_work_are_found() {
    for (config, path) in [
        (json!({ "token_id": "loopback@pve" }), "/token_id"),
        (json!({ "token_id": "loopback!power" }), "/token_id"),
        (json!({ "token_id": "a b@pve!power" }), "/token_id"),
        (json!({ "server": "pve.example" }), "/server"),
        (json!({ "server": "https://u:p@pve.example" }), "/server"),
        (json!({ "server": "http://pve.example" }), "/server"),
        (json!({ "route": "rack" }), "/tls_profile"),
    ] {
        let read: Config = serde_json::from_value(config.clone()).unwrap();
        let found = Proxmox::check(&read);
        assert!(
            found.iter().any(|one| one.path == path),
            "{config}: {found:?}"
        );
    }
    assert!(Proxmox::check(&config()).is_empty());
}
