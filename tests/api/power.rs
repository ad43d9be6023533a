//! Power through the API, with a machine and a provider that are played; that plugins are asked
//! the same way is shown with real ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::v1::plugin::PluginFinding;
use async_trait::async_trait;
use gateway::policy::{Policy, Request};
use gateway::power::provider::{Found, Machine, Provider, Submission};
use gateway::power::records::PowerTargetRecordV1;
use gateway::state::records::key_of;
use gateway_core::power::operation::{Begun, Failure, Progress, Resumed};
use gateway_core::power::plan::Support;
use gateway_core::power::{Seen, Trouble};
use gateway_store::Batch;
use model::ids::{HostId, WorkspaceId};
use model::names::Name;
use model::power::{PowerAction, PowerMode, PowerState};
use model::tenancy::Environment;
use serde_json::{Value, json};
use tests::{TestGateway, soon};

/// What every target of the tests has.
const SECRET: &str = "bmc";

/// Between two things that one controller is told.
const INTERVAL: Duration = Duration::from_millis(300);

/// Machines, and what was done to them.
#[derive(Default)]
struct Rack {
    states: Mutex<BTreeMap<HostId, PowerState>>,
    done: Mutex<Vec<(HostId, PowerAction)>>,
    /// When which controller was told something.
    told: Mutex<BTreeMap<String, Vec<Instant>>>,
    /// The next submission is done and its answer lost.
    loses_answers: AtomicBool,
    /// Nothing is answered any more.
    hangs: AtomicBool,
    /// Submissions at a time, and the most there were.
    at_once: AtomicU32,
    most_at_once: AtomicU32,
}

impl Rack {
    fn state(&self, host: HostId) -> PowerState {
        let states = self.states.lock().expect("nobody panics");
        states.get(&host).copied().unwrap_or(PowerState::On)
    }

    fn set(&self, host: HostId, state: PowerState) {
        self.states
            .lock()
            .expect("nobody panics")
            .insert(host, state);
    }

    fn done(&self) -> Vec<(HostId, PowerAction)> {
        self.done.lock().expect("nobody panics").clone()
    }

    async fn answers(&self) {
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

fn failure(code: &str, transient: bool, outcome_unknown: bool) -> Failure {
    Failure {
        trouble: Trouble::new(code, "as the test wants"),
        transient,
        retry_after: None,
        outcome_unknown,
    }
}

#[async_trait]
impl Provider for Rack {
    fn covers(&self, _: WorkspaceId) -> bool {
        true
    }

    fn secrets_of_machines(&self) -> Vec<Name> {
        Vec::new()
    }

    async fn inspect(&self, _: &Machine) -> Result<Support, Failure> {
        self.answers().await;
        Ok(Support {
            actions: PowerAction::ALL.to_vec(),
            observable: true,
            settle: Duration::from_secs(1),
            max_parallel: 50,
            ..Support::default()
        })
    }

    async fn check(&self, _: &Machine) -> Result<Vec<PluginFinding>, Failure> {
        Ok(Vec::new())
    }

    async fn observe(&self, machine: &Machine) -> Result<Seen, Failure> {
        self.answers().await;
        let now = gateway::app::wall_clock();
        let state = self.state(machine.host);
        if state == PowerState::Rebooting {
            self.set(machine.host, PowerState::On);
        }
        Ok(Seen {
            state,
            raw: state.to_string(),
            boot_mark: None,
            at: now,
        })
    }

    async fn begin(&self, machine: &Machine, what: &Submission) -> Result<Begun, Failure> {
        self.answers().await;
        let controller = machine.address.rsplit_once('/').expect("an address").0;
        let mut told = self.told.lock().expect("nobody panics");
        let times = told.entry(controller.to_owned()).or_default();
        times.push(Instant::now());
        drop(told);
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        self.done
            .lock()
            .expect("nobody panics")
            .push((machine.host, what.action));
        self.set(
            machine.host,
            match what.action {
                PowerAction::On => PowerState::On,
                PowerAction::Shutdown | PowerAction::Off => PowerState::Off,
                _ => PowerState::Rebooting,
            },
        );
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        if self.loses_answers.swap(false, Ordering::SeqCst) {
            return Err(failure("lost", true, true));
        }
        Ok(Begun::Taken)
    }

    async fn poll(
        &self,
        _: &Machine,
        _: &Submission,
        _: Vec<u8>,
    ) -> Result<Option<Progress>, Failure> {
        Ok(None)
    }

    async fn resume(&self, _: &Machine, _: &Submission) -> Result<Resumed, Failure> {
        Ok(Resumed::Unknown)
    }

    async fn cancel(
        &self,
        _: &Machine,
        _: &Submission,
        _: Vec<u8>,
    ) -> Result<Option<bool>, Failure> {
        Ok(Some(false))
    }

    async fn discover(
        &self,
        _: WorkspaceId,
        _: &BTreeMap<Name, Name>,
        _: Option<String>,
    ) -> Result<(Vec<Found>, Option<String>), Failure> {
        Ok((Vec::new(), None))
    }
}

struct Story {
    gateway: TestGateway,
    workspace: WorkspaceId,
    rack: Arc<Rack>,
    hosts: Vec<HostId>,
}

impl Story {
    async fn begin(environment: Environment, hosts: usize) -> Self {
        Self::begin_with(environment, hosts, |_| ()).await
    }

    async fn begin_with(
        environment: Environment,
        hosts: usize,
        change: impl FnOnce(&mut gateway::config::Config),
    ) -> Self {
        let gateway = TestGateway::start_with(|config| {
            change(config);
            config.limits.requests_per_key_per_second = 100_000;
            config.limits.requests_per_key_burst = 100_000;
            config.power.endpoint_burst = 1;
            config.power.endpoint_interval = INTERVAL;
        });
        let gateway = gateway.await.expect("starts");
        let workspace = gateway
            .workspace("lab", environment)
            .await
            .expect("made")
            .id;
        let mut story = Self {
            gateway,
            workspace,
            rack: Arc::new(Rack::default()),
            hosts: Vec::new(),
        };
        story.provide();
        for number in 0..hosts {
            let host = story.host(&format!("web-{number}")).await;
            story.hosts.push(host);
        }
        story
    }

    fn provide(&self) {
        let provider: Arc<dyn Provider> = Arc::clone(&self.rack) as _;
        let providers = BTreeMap::from([("rack".parse().expect("a name"), provider)]);
        self.gateway.app.power.providers.set(providers);
    }

    /// A host with a provider. The plugin's record is not needed beyond checking what is
    /// configured, so the target is written as it would be.
    async fn host(&self, name: &str) -> HostId {
        let path = format!("/v1/workspaces/{}/hosts", self.workspace);
        let labels = json!({ "rack": "r1" });
        let body = Some(json!({ "hostname": name, "display_name": name, "labels": labels }));
        let owner = &self.gateway.owner;
        let made: Value = self
            .gateway
            .expect(owner, "POST", &path, body, 201)
            .await
            .expect("made");
        let host: HostId = made["id"].as_str().expect("an id").parse().expect("an id");
        self.target(host, false, PowerMode::Observe, None).await;
        host
    }

    /// Ten hosts are behind one controller.
    fn controller_of(&self, host: HostId) -> String {
        let place = self.hosts.iter().position(|it| *it == host);
        let place = place.unwrap_or(self.hosts.len());
        format!("https://bmc-{}/{host}", place / 10)
    }

    async fn target(
        &self,
        host: HostId,
        never_off: bool,
        mode: PowerMode,
        desired: Option<PowerState>,
    ) {
        let record = PowerTargetRecordV1 {
            host,
            workspace: self.workspace,
            plugin: "rack".parse().expect("a name"),
            address: self.controller_of(host),
            params: "{}".into(),
            secrets: BTreeMap::from([(
                "password".parse().expect("a name"),
                SECRET.parse().expect("a name"),
            )]),
            tls_profile: None,
            route: None,
            endpoint: None,
            never_off,
            mode,
            desired,
        };
        let mut batch = Batch::new();
        let key = key_of::<PowerTargetRecordV1>(host);
        batch.put_record(&key, &record).expect("encodes");
        self.gateway.app.commit(batch).await.expect("written");
    }

    fn path(&self, host: HostId, rest: &str) -> String {
        format!("/v1/workspaces/{}/hosts/{host}/power{rest}", self.workspace)
    }

    async fn ask(&self, host: HostId, verb: &str, body: Value) -> tests::Answer {
        let path = self.path(host, verb);
        let owner = &self.gateway.owner;
        self.gateway
            .call(owner, "POST", &path, Some(body))
            .await
            .expect("answers")
    }

    async fn get(&self, path: &str) -> Value {
        let owner = &self.gateway.owner;
        self.gateway
            .expect(owner, "GET", path, None, 200)
            .await
            .expect("answers")
    }

    async fn ended(&self, operation: &Value) -> Value {
        let id = operation["id"].as_str().expect("an id");
        let path = format!("/v1/workspaces/{}/power-operations/{id}", self.workspace);
        soon(async {
            loop {
                let shown = self.get(&path).await;
                if !shown["ended_at"].is_null() {
                    return shown;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .expect("it ends")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_is_turned_off_and_on_and_its_history_tells_how() {
    let story = Story::begin(Environment::Development, 1).await;
    let host = story.hosts[0];
    let asked = story.ask(host, "/off", json!({})).await;
    assert_eq!(asked.status, 202, "{:?}", asked.body);
    assert_eq!(asked.body["action"], "shutdown");
    let off = story.ended(&asked.body).await;
    assert_eq!(off["state"], "succeeded", "{off}");
    assert_eq!(off["confirmation"], "observed");
    let shown = story.get(&story.path(host, "")).await;
    assert_eq!(shown["observed"]["state"], "off");
    assert_eq!(shown["observability"], "fresh");

    let on = story
        .ended(&story.ask(host, "/on", json!({})).await.body)
        .await;
    assert_eq!(on["confirmation"], "off_then_on", "{on}");
    let again = story
        .ended(&story.ask(host, "/on", json!({})).await.body)
        .await;
    assert_eq!(again["confirmation"], "already", "{again}");
    let done = [(host, PowerAction::Shutdown), (host, PowerAction::On)];
    assert_eq!(story.rack.done(), done);

    let states = on["history"].as_array().expect("a history").iter();
    let states: Vec<_> = states
        .map(|it| it["state"].as_str().expect("a word"))
        .collect();
    assert_eq!(states[0], "queued");
    assert!(states.contains(&"submitting") && states.contains(&"confirming"));
    let path = format!("/v1/workspaces/{}/audit?limit=1000", story.workspace);
    let audit = story.get(&path).await;
    let entries = audit["items"].as_array().expect("items").iter();
    let actions: Vec<_> = entries
        .map(|it| -> Value {
            serde_json::from_str(it["body"].as_str().expect("a body")).expect("an entry")
        })
        .filter_map(|entry| entry["action"].as_str().map(str::to_owned))
        .collect();
    for action in ["power.request", "power.submit", "power.end"] {
        assert!(
            actions.iter().any(|it| it == action),
            "{action} in {actions:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_whose_answer_is_lost_is_not_repeated() {
    let story = Story::begin(Environment::Development, 1).await;
    let host = story.hosts[0];
    story.rack.loses_answers.store(true, Ordering::SeqCst);
    let asked = story.ask(host, "/reset", json!({})).await;
    let ended = story.ended(&asked.body).await;
    // It was seen to go down and up, so it is known to have happened.
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(ended["confirmation"], "off_then_on");
    assert_eq!(story.rack.done(), [(host, PowerAction::Reset)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_be_confirmed_and_what_is_never_done() {
    let story = Story::begin(Environment::Production, 1).await;
    let host = story.hosts[0];
    let refused = story.ask(host, "/off", json!({})).await;
    assert_eq!(refused.status, 422, "{:?}", refused.body);
    assert!(
        refused.body.to_string().contains("`web-0`"),
        "{:?}",
        refused.body
    );
    // Turning on interrupts nobody.
    assert_eq!(story.ask(host, "/on", json!({})).await.status, 202);
    let asked = story
        .ask(host, "/off", json!({ "confirm": "web-0", "action": "off" }))
        .await;
    assert_eq!(asked.status, 202, "{:?}", asked.body);
    story.ended(&asked.body).await;

    story.target(host, true, PowerMode::Observe, None).await;
    let never = story
        .ask(host, "/reset", json!({ "confirm": "web-0" }))
        .await;
    assert_eq!(never.status, 409, "{:?}", never.body);
    assert!(never.body.to_string().contains("never_off"));
    for wrong in [
        json!({ "action": "on" }),
        json!({ "then_hard_after_ms": 1000 }),
        json!({ "action": "reboot", "then_hard_after_ms": 60_000, "timeout_ms": 60_000 }),
        json!({ "boot": { "device": "http" } }),
        json!({ "action": "nmi", "boot": { "device": "disk" } }),
    ] {
        let answer = story.ask(host, "/reset", wrong.clone()).await;
        assert!(
            matches!(answer.status.as_u16(), 409 | 422),
            "{wrong} {:?}",
            answer.body
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_operation_at_a_time_and_those_that_wait_can_be_taken_back() {
    let story = Story::begin(Environment::Development, 1).await;
    let host = story.hosts[0];
    story.rack.hangs.store(true, Ordering::SeqCst);
    let first = story.ask(host, "/off", json!({})).await.body;
    let second = story.ask(host, "/on", json!({})).await.body;
    let third = story.ask(host, "/reset", json!({})).await.body;
    let shown = story.get(&story.path(host, "")).await;
    assert_eq!(shown["operations"].as_array().map(Vec::len), Some(3));
    let path = format!(
        "/v1/workspaces/{}/power-operations/{}/cancel",
        story.workspace,
        third["id"].as_str().expect("an id")
    );
    let owner = &story.gateway.owner;
    let cancelled = story
        .gateway
        .call(owner, "POST", &path, None)
        .await
        .expect("answers");
    assert_eq!(cancelled.body["state"], "cancelled");
    let last = story
        .ask(host, "/off", json!({ "action": "off", "supersede": true }))
        .await;
    assert_eq!(last.status, 202);
    assert_eq!(story.ended(&first).await["state"], "superseded");
    assert_eq!(story.ended(&second).await["state"], "superseded");
    assert_eq!(story.rack.done(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_hosts_go_some_at_a_time_and_the_rest_is_called_off() {
    let story = Story::begin(Environment::Development, 12).await;
    let path = format!("/v1/workspaces/{}/power-bulks/reset", story.workspace);
    let owner = &story.gateway.owner;
    let body = json!({ "targets": { "hosts": story.hosts }, "at_once": 3, "canary": true });
    let refused = story
        .gateway
        .call(owner, "POST", &path, Some(body.clone()))
        .await;
    assert_eq!(refused.expect("answers").status, 422);
    let mut body = body;
    body["confirm"] = json!("main");
    let bulk = story
        .gateway
        .call(owner, "POST", &path, Some(body))
        .await
        .expect("answers");
    assert_eq!(bulk.status, 202, "{:?}", bulk.body);
    let path = format!(
        "/v1/workspaces/{}/power-bulks/{}",
        story.workspace,
        bulk.body["id"].as_str().expect("an id")
    );
    let some = soon(async {
        loop {
            let shown = story.get(&path).await;
            assert!(shown["active"].as_u64() <= Some(3), "{shown}");
            if shown["succeeded"].as_u64() >= Some(4) {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    some.await.expect("some are done");
    let cancel = format!("{path}/cancel");
    let cancelled = story
        .gateway
        .call(owner, "POST", &cancel, None)
        .await
        .expect("answers");
    assert_eq!(cancelled.status, 200);
    let over = soon(async {
        loop {
            let shown = story.get(&path).await;
            if !shown["ended_at"].is_null() {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let over = over.await.expect("it ends");
    assert_eq!(over["state"], "cancelled");
    let done = story.rack.done().len() as u64;
    assert!((4..12).contains(&done), "{over}");
    assert_eq!(
        over["waiting"],
        12 - over["succeeded"].as_u64().expect("a number")
            - over["failed"].as_u64().expect("a number")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_desired_is_brought_about_when_it_is_enforced() {
    let story = Story::begin(Environment::Development, 1).await;
    let host = story.hosts[0];
    story
        .target(host, false, PowerMode::Enforce, Some(PowerState::On))
        .await;
    story.rack.set(host, PowerState::Off);
    let looked = story.ask(host, "/observe", json!(null)).await;
    assert_eq!(looked.status, 200, "{:?}", looked.body);
    let back = soon(async {
        while story.rack.state(host) != PowerState::On {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    back.await.expect("it is turned on");
    // Whoever turns it off means it.
    let asked = story.ask(host, "/off", json!({ "action": "off" })).await;
    story.ended(&asked.body).await;
    let shown = story.get(&story.path(host, "")).await;
    assert_eq!(shown["desired"]["state"], "off");
    story.ask(host, "/observe", json!(null)).await;
    assert_eq!(story.rack.state(host), PowerState::Off);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_hosts_behind_fifty_controllers_that_are_not_hurried() {
    let story = Story::begin(Environment::Development, 500).await;
    let path = format!("/v1/workspaces/{}/power-bulks/reset", story.workspace);
    let owner = &story.gateway.owner;
    let body = json!({
        "targets": { "selector": "" }, "at_once": 200, "confirm": "main", "stop_after": 0,
    });
    let bulk = story.gateway.call(owner, "POST", &path, Some(body)).await;
    let bulk = bulk.expect("answers");
    assert_eq!(bulk.status, 202, "{:?}", bulk.body);
    assert_eq!(bulk.body["hosts"], 500);
    let path = format!(
        "/v1/workspaces/{}/power-bulks/{}",
        story.workspace,
        bulk.body["id"].as_str().expect("an id")
    );
    let mut seen = Vec::new();
    let half = soon(async {
        loop {
            let shown = story.get(&path).await;
            let succeeded = shown["succeeded"].as_u64().expect("a number");
            seen.push(succeeded);
            if succeeded >= 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    half.await.expect("two hundred are done");
    assert!(seen.is_sorted() && seen.len() > 3, "no progress: {seen:?}");
    let cancel = format!("{path}/cancel");
    let cancelled = story.gateway.call(owner, "POST", &cancel, None).await;
    assert_eq!(cancelled.expect("answers").status, 200);
    let over = soon(async {
        loop {
            let shown = story.get(&path).await;
            if !shown["ended_at"].is_null() {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let over = over.await.expect("it ends");
    assert_eq!(over["state"], "cancelled");
    assert!(
        over["waiting"].as_u64() > Some(0),
        "nothing was left: {over}"
    );
    // A busy machine may be late with one and not with the next; unhurried by half is far from ten at
    // once.
    let told = story.rack.told.lock().expect("nobody panics");
    assert!(told.len() > 20);
    for (controller, times) in &*told {
        let span = times[times.len() - 1] - times[0];
        let least = INTERVAL * u32::try_from(times.len() - 1).expect("a few");
        assert!(
            span * 2 >= least,
            "{controller} was told {} things in {span:?}",
            times.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_hosts_are_interrupted_in_a_minute_than_a_label_may() {
    let limits = |config: &mut gateway::config::Config| {
        config.power.interruptions_per_minute = 10;
        config.power.interruptions_per_label = BTreeMap::from([("rack".to_owned(), 2)]);
    };
    let mut story = Story::begin_with(Environment::Development, 4, limits).await;
    let began = Instant::now();
    for host in &story.hosts {
        let off = json!({ "action": "off", "timeout_ms": 600_000 });
        assert_eq!(story.ask(*host, "/off", off).await.status, 202);
    }
    let offs = |story: &Story| {
        let done = story.rack.done();
        done.iter()
            .filter(|(_, it)| *it == PowerAction::Off)
            .count()
    };
    soon(async {
        while offs(&story) < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("two are told");
    // The minute is not over because the gateway was started again.
    story.gateway.restart().await.expect("starts again");
    story.provide();
    let told = story.rack.done()[0].0;
    let on = story.ask(told, "/on", json!({})).await.body;
    assert_eq!(story.ended(&on).await["state"], "succeeded");
    let minutes = usize::try_from(began.elapsed().as_secs() / 60).expect("few");
    assert!(offs(&story) <= 2 + 2 * minutes, "{:?}", story.rack.done());
    let owner = &story.gateway.owner;
    let path = format!("/v1/workspaces/{}/power-bulks/plan", story.workspace);
    let body = json!({ "targets": { "hosts": story.hosts }, "action": "off" });
    let plan = story.gateway.call(owner, "POST", &path, Some(body)).await;
    let plan = plan.expect("answers").body;
    assert_eq!(plan["at_least_ms"], 60_000, "{plan}");
    // Operations of many hosts are not even made before they have a slot.
    let path = format!("/v1/workspaces/{}/power-bulks", story.workspace);
    let body = json!({ "targets": { "hosts": story.hosts }, "action": "off" });
    let off = format!("{path}/off");
    let bulk = story.gateway.call(owner, "POST", &off, Some(body)).await;
    let bulk = bulk.expect("answers").body;
    let on = story.ask(told, "/on", json!({})).await.body;
    assert_eq!(story.ended(&on).await["state"], "succeeded");
    let id = bulk["id"].as_str().expect("an id");
    let shown = story.get(&format!("{path}/{id}")).await;
    let begun = 4 - shown["waiting"].as_u64().expect("a number");
    assert!(begun <= 2 * began.elapsed().as_secs() / 60, "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_says_what_would_happen_and_nothing_does() {
    let story = Story::begin(Environment::Production, 12).await;
    let (host, never) = (story.hosts[0], story.hosts[1]);
    story.target(never, true, PowerMode::Observe, None).await;
    let words = |plan: &Value| -> Vec<String> {
        let objections = plan["objections"].as_array().expect("a list").iter();
        objections
            .map(|it| it["code"].as_str().expect("a code").to_owned())
            .collect()
    };
    let unnamed = story.ask(host, "/plan", json!({})).await;
    assert_eq!(unnamed.status, 422, "{:?}", unnamed.body);
    let soft = json!({ "action": "shutdown", "then_hard_after_ms": 60_000, "confirm": "web-0" });
    let plan = story.ask(host, "/plan", soft).await.body;
    assert_eq!(plan["ok"], true, "{plan}");
    assert_eq!(plan["observed"]["state"], "on");
    let steps = plan["steps"].as_array().expect("steps").iter();
    let steps: Vec<_> = steps
        .map(|it| format!("{} {} {}", it["action"], it["by"], it["when"]).replace('"', ""))
        .collect();
    assert_eq!(
        steps,
        ["shutdown provider first", "off provider after_failure"]
    );
    let plan = story
        .ask(never, "/plan", json!({ "action": "reset" }))
        .await;
    assert_eq!(words(&plan.body), ["never_off", "confirm"]);

    let owner = &story.gateway.owner;
    let path = format!("/v1/workspaces/{}/power-bulks/plan", story.workspace);
    let targets = json!({ "selector": "rack=r1" });
    let body = json!({ "targets": targets, "action": "reset", "at_once": 5 });
    let plan = story.gateway.call(owner, "POST", &path, Some(body)).await;
    let plan = plan.expect("answers").body;
    assert_eq!(words(&plan), ["confirm"]);
    assert_eq!((&plan["hosts"], &plan["at_once"]), (&json!(12), &json!(5)));
    assert_eq!(plan["failing_hosts"], 1, "{plan}");
    assert_eq!(plan["failing"][0]["host_name"], "web-1");
    assert_eq!(plan["providers"], json!({ "rack": 11 }));
    assert_eq!(plan["endpoints"], 2);
    // Nine behind the first controller, one at once and the others each an interval later.
    assert_eq!(plan["at_least_ms"], 8 * 300);

    assert_eq!(story.rack.done(), []);
    let path = format!("/v1/workspaces/{}/power-operations", story.workspace);
    assert_eq!(story.get(&path).await["items"], json!([]));
}

/// Counts what it is asked.
#[derive(Default)]
struct Judge(Mutex<Vec<(String, u64)>>);

#[async_trait]
impl Policy for Judge {
    fn covers(&self, _: WorkspaceId) -> bool {
        true
    }

    async fn decide(&self, request: Arc<Request>) -> gateway_core::policy::Answer {
        let asked = (request.action.as_str().to_owned(), request.target_count);
        self.0.lock().expect("nobody panics").push(asked);
        gateway_core::policy::Answer::Said(gateway_core::policy::Verdict::Abstain)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_judge_once_with_every_host_and_not_what_only_looks() {
    let story = Story::begin(Environment::Development, 3).await;
    let judge = Arc::new(Judge::default());
    let policy: Arc<dyn Policy> = Arc::clone(&judge) as _;
    let policies = BTreeMap::from([("judge".parse().expect("a name"), policy)]);
    story.gateway.app.policies.set(policies);
    let owner = &story.gateway.owner;
    let path = format!("/v1/workspaces/{}/power-bulks/off", story.workspace);
    let body = json!({ "targets": { "hosts": story.hosts }, "action": "off" });
    let bulk = story.gateway.call(owner, "POST", &path, Some(body)).await;
    assert_eq!(bulk.expect("answers").status, 202);
    story.ask(story.hosts[0], "/on", json!({})).await;
    story.ask(story.hosts[0], "/observe", json!(null)).await;
    let power = |word: &str| format!("project.workspace.host.power.{word}");
    let asked = judge.0.lock().expect("nobody panics").clone();
    assert_eq!(asked, [(power("off"), 3), (power("on"), 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_of_a_target_stays_and_a_retired_host_is_left_alone() {
    let story = Story::begin(Environment::Development, 1).await;
    let host = story.hosts[0];
    let owner = &story.gateway.owner;
    let secret = format!("/v1/workspaces/{}/secrets/{SECRET}", story.workspace);
    let body = Some(json!({ "value": "correct-horse" }));
    let set = story.gateway.call(owner, "PUT", &secret, body).await;
    let set = set.expect("answers");
    assert!(set.status.is_success(), "{:?}", set.body);
    let delete = || story.gateway.call(owner, "DELETE", &secret, None);
    let refused = delete().await.expect("answers");
    assert_eq!(refused.status, 409, "{:?}", refused.body);
    assert!(refused.body.to_string().contains("power target"));

    let path = format!("/v1/workspaces/{}/hosts/{host}/retire", story.workspace);
    let retired = story
        .gateway
        .call(owner, "POST", &path, Some(json!({})))
        .await;
    let retired = retired.expect("answers");
    assert_eq!(retired.status, 200, "{:?}", retired.body);
    assert_eq!(story.ask(host, "/on", json!({})).await.status, 409);
    let target = story.path(host, "/target");
    let gone = story.gateway.call(owner, "DELETE", &target, None).await;
    assert_eq!(gone.expect("answers").status, 204);
    assert_eq!(delete().await.expect("answers").status, 204);
    assert_eq!(story.rack.done(), []);
}
