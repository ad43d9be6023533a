use model::command::{CommandState, Priority};
use proptest::prelude::*;
use protocol::v1::{EndKind, RunRefusal};

use super::super::active::Timers;
use super::super::fan_out::{Plan, Share};
use super::*;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + millis)
}

fn host(number: u8) -> HostId {
    HostId::new(at(0), [number; 10])
}

fn command(number: u8) -> CommandId {
    CommandId::new(at(0), [number; 10])
}

fn timers() -> Timers {
    Timers {
        delivery: Some(Duration::from_secs(30)),
        valid_until: at(3_600_000),
        start: Duration::from_secs(60),
    }
}

fn plan(total: u32, concurrency: u32, batches: &[&str], stop_after: Option<&str>) -> Plan {
    let batches: Vec<Share> = batches.iter().map(|text| text.parse().unwrap()).collect();
    let stop_after = stop_after.map(|text| text.parse().unwrap());
    Plan::new(total, concurrency, &batches, stop_after, Priority::Normal)
}

/// A dispatcher with one command on hosts 1 to `total`, of which those are linked.
struct Scene {
    dispatcher: Dispatcher,
    now: Timestamp,
}

impl Scene {
    fn new(plan: Plan, timers: Timers, total: u8, linked: &[u8]) -> (Self, Outcome) {
        let mut scene = Self {
            dispatcher: Dispatcher::default(),
            now: at(0),
        };
        for number in linked {
            scene.does(Event::Linked(host(*number)));
        }
        let targets = (1..=total).map(host);
        let active = Active::new(plan, timers, targets, BTreeMap::new(), at(0));
        let outcome = scene.does(Event::Made(command(1), Box::new(active)));
        (scene, outcome)
    }

    fn does(&mut self, event: Event) -> Outcome {
        let mut outcome = Outcome::default();
        self.dispatcher.handle(event, self.now, &mut outcome);
        self.dispatcher.dispatch(self.now, &mut outcome);
        outcome
    }

    fn waits(&mut self, seconds: i64) -> Outcome {
        self.now = at(self.now.as_millis() - at(0).as_millis() + seconds * 1000);
        let mut outcome = Outcome::default();
        self.dispatcher.dispatch(self.now, &mut outcome);
        outcome
    }

    fn reports(&mut self, number: u8, report: Report) -> Outcome {
        self.does(Event::Report((command(1), host(number)), report))
    }

    fn exits(&mut self, number: u8, code: i32) -> Outcome {
        self.reports(number, exited(code))
    }

    fn states(&self) -> Vec<RunState> {
        let active = self.dispatcher.command(command(1)).unwrap();
        active.runs().map(|(_, run)| run.state).collect()
    }
}

fn exited(code: i32) -> Report {
    Report::Ended(Box::new(RunEnded {
        kind: EndKind::Itself.into(),
        code: Some(code),
        ..RunEnded::default()
    }))
}

fn refused(code: RunRefusal) -> Report {
    Report::Refused(Box::new(RunRefused {
        code: code.into(),
        message: String::new(),
    }))
}

/// Hosts for whose runs a stream is opened.
fn opened(outcome: &Outcome) -> Vec<HostId> {
    let open = |step: &Step| match step {
        Step::Open((_, host), Asking::Run { .. }) => Some(*host),
        Step::Open(..) | Step::Cancel(_) | Step::Taken(_) => None,
    };
    outcome.steps.iter().filter_map(open).collect()
}

#[test]
fn a_run_is_written_down_as_sending_before_its_stream_opens() {
    let (scene, outcome) = Scene::new(plan(1, 0, &[], None), timers(), 1, &[1]);
    assert_eq!(opened(&outcome), [host(1)]);
    assert!(outcome.writes.contains(&(command(1), host(1))));
    assert_eq!(scene.states(), [RunState::Sending]);
}

/// A command on the hosts 1 to `total` that is about to be written.
fn unwritten(plan: Plan, total: u8) -> Active {
    let targets = (1..=total).map(host);
    Active::new(plan, timers(), targets, BTreeMap::new(), at(0))
}

#[test]
fn a_command_that_is_written_with_its_first_runs_sends_them_at_once() {
    let (mut scene, _) = Scene::new(plan(1, 0, &[], None), timers(), 1, &[1, 2, 3, 4]);
    let mut active = unwritten(plan(5, 2, &["3", "100%"], None), 5);
    let given = scene.dispatcher.reserve(command(2), &mut active, 10, at(0));
    assert_eq!(given, [host(1), host(2)], "two at a time");
    let states: Vec<_> = active.runs().map(|(_, run)| run.state).collect();
    assert_eq!(
        states[..3],
        [RunState::Sending, RunState::Sending, RunState::Queued]
    );
    let outcome = scene.does(Event::Made(command(2), Box::new(active)));
    assert_eq!(opened(&outcome), [host(1), host(2)]);
    assert!(outcome.writes.is_empty(), "they are written: {outcome:?}");
    assert_eq!(scene.dispatcher.out, 3);
    assert!(scene.dispatcher.reserved.is_empty());
}

#[test]
fn no_room_is_given_that_is_not_there() {
    let (mut scene, _) = Scene::new(plan(1, 0, &[], None), timers(), 1, &[1]);
    for number in 2..=17 {
        let mut active = unwritten(plan(2, 0, &[], None), 2);
        let given = scene
            .dispatcher
            .reserve(command(number), &mut active, 10, at(0));
        // One of the sixteen is under way already; the second host has no link.
        let expected: &[HostId] = if number <= 16 { &[host(1)] } else { &[] };
        assert_eq!(given, expected, "{number}");
    }
    scene.dispatcher.release(command(2));
    assert_eq!(scene.dispatcher.out_of[&host(1)], 15);
    scene.dispatcher.release(command(2));
    assert_eq!(scene.dispatcher.out_of[&host(1)], 15, "given back once");
}

#[test]
fn who_waits_for_a_host_comes_before_a_new_command() {
    let (mut scene, _) = Scene::new(plan(1, 0, &[], None), timers(), 1, &[1]);
    let mut outcome = Outcome::default();
    let waiting = Box::new(unwritten(plan(1, 0, &[], None), 1));
    // Its turn comes with the next look.
    let made = Event::Made(command(2), waiting);
    scene.dispatcher.handle(made, at(0), &mut outcome);
    let mut active = unwritten(plan(1, 0, &[], None), 1);
    let given = scene.dispatcher.reserve(command(3), &mut active, 10, at(0));
    assert!(given.is_empty(), "{given:?}");
}

#[test]
fn no_more_run_at_a_time_than_allowed_and_hosts_without_link_take_no_room() {
    let (mut scene, outcome) = Scene::new(plan(4, 2, &[], None), timers(), 4, &[2, 3, 4]);
    assert_eq!(opened(&outcome), [host(2), host(3)]);
    assert_eq!(opened(&scene.exits(2, 0)), [host(4)]);
    assert_eq!(opened(&scene.does(Event::Linked(host(1)))), []);
    assert_eq!(opened(&scene.exits(3, 0)), [host(1)]);
}

#[test]
fn the_next_batch_waits_for_the_canary() {
    let (mut scene, outcome) =
        Scene::new(plan(3, 0, &["1", "100%"], None), timers(), 3, &[1, 2, 3]);
    assert_eq!(opened(&outcome), [host(1)]);
    assert_eq!(opened(&scene.exits(1, 0)), [host(2), host(3)]);
}

#[test]
fn enough_failures_stop_what_has_not_been_sent() {
    let (mut scene, _) = Scene::new(plan(3, 0, &["1"], Some("1")), timers(), 3, &[1, 2, 3]);
    let outcome = scene.exits(1, 7);
    assert_eq!(opened(&outcome), []);
    assert_eq!(
        scene.states(),
        [RunState::Exited, RunState::Cancelled, RunState::Cancelled]
    );
    assert!(outcome.finished.contains(&command(1)));
    let active = scene.dispatcher.command(command(1)).unwrap();
    assert!(active.stopped().unwrap().contains("1 runs"));
    assert_eq!(active.state(), CommandState::Failed);
}

#[test]
fn a_host_that_is_not_reached_in_time_expires_and_others_do_not() {
    let (mut scene, _) = Scene::new(plan(2, 1, &[], None), timers(), 2, &[2]);
    scene.waits(29);
    assert_eq!(scene.states(), [RunState::Queued, RunState::Sending]);
    scene.waits(1);
    assert_eq!(scene.states(), [RunState::Expired, RunState::Sending]);
}

#[test]
fn within_its_validity_a_command_waits_for_a_host_and_no_longer() {
    let timers = Timers {
        delivery: None,
        ..timers()
    };
    let (mut scene, _) = Scene::new(plan(2, 0, &[], None), timers, 2, &[]);
    scene.waits(1800);
    assert_eq!(opened(&scene.does(Event::Linked(host(1)))), [host(1)]);
    scene.waits(1800);
    assert_eq!(scene.states(), [RunState::Sending, RunState::Expired]);
    assert_eq!(opened(&scene.does(Event::Linked(host(2)))), []);
}

#[test]
fn a_run_that_may_be_on_its_host_is_never_called_expired_without_asking() {
    let (mut scene, _) = Scene::new(plan(1, 0, &[], None), timers(), 1, &[1]);
    scene.does(Event::Unlinked(host(1)));
    scene.reports(1, Report::Detached);
    scene.waits(2 * 3600);
    assert_eq!(scene.states(), [RunState::Sending]);
    let outcome = scene.does(Event::Linked(host(1)));
    assert_eq!(
        outcome.steps,
        [Step::Open(
            (command(1), host(1)),
            Asking::Settle { cancel: false }
        )]
    );
    scene.reports(1, refused(RunRefusal::NeverStarted));
    assert_eq!(scene.states(), [RunState::Expired]);
}

#[test]
fn a_stream_that_ended_is_opened_again_while_the_host_is_linked() {
    let (mut scene, _) = Scene::new(plan(1, 0, &[], None), timers(), 1, &[1]);
    assert_eq!(opened(&scene.reports(1, Report::Detached)), []);
    assert_eq!(opened(&scene.waits(1)), [host(1)]);
    assert_eq!(opened(&scene.waits(1)), []);
}

#[test]
fn a_busy_host_is_asked_again() {
    let (mut scene, _) = Scene::new(plan(1, 0, &[], None), timers(), 1, &[1]);
    scene.reports(1, refused(RunRefusal::Busy));
    scene.reports(1, Report::Detached);
    assert_eq!(scene.states(), [RunState::Queued]);
    assert_eq!(opened(&scene.waits(1)), [host(1)]);
}

#[test]
fn a_run_that_rebooted_its_host_is_asked_to_go_on_however_late_that_is() {
    let (mut scene, _) = Scene::new(plan(1, 0, &[], None), timers(), 1, &[1]);
    scene.reports(1, Report::Started(at(1)));
    let reboot = |done| Report::Reboot { count: 1, done };
    scene.reports(1, reboot(false));
    scene.reports(1, Report::Detached);
    scene.does(Event::Unlinked(host(1)));
    scene.waits(2 * 3600);
    assert_eq!(scene.states(), [RunState::Started]);
    let settle = Asking::Settle { cancel: false };
    let outcome = scene.does(Event::Linked(host(1)));
    assert_eq!(outcome.steps, [Step::Open((command(1), host(1)), settle)]);
    scene.reports(1, reboot(true));
    scene.reports(1, Report::Detached);
    let outcome = scene.waits(1);
    assert!(
        matches!(outcome.steps[..], [Step::Open(_, Asking::Run { .. })]),
        "{:?}",
        outcome.steps
    );
    scene.reports(1, Report::Started(at(9000)));
    let active = scene.dispatcher.command(command(1)).unwrap();
    let run = active.run(host(1)).unwrap();
    assert_eq!((run.started_at, run.rebooted), (Some(at(1)), false));
}

#[test]
fn cancelling_settles_what_waits_and_tells_what_runs() {
    let (mut scene, _) = Scene::new(plan(2, 1, &[], None), timers(), 2, &[1, 2]);
    scene.reports(1, Report::Started(at(1)));
    let outcome = scene.does(Event::Cancel(command(1), None));
    assert_eq!(scene.states(), [RunState::Started, RunState::Cancelled]);
    assert_eq!(outcome.steps, [Step::Cancel((command(1), host(1)))]);
    let ended = RunEnded {
        kind: EndKind::Cancelled.into(),
        signal: Some(9),
        killed: true,
        others: 1,
        ..RunEnded::default()
    };
    let outcome = scene.reports(1, Report::Ended(Box::new(ended)));
    assert!(outcome.finished.contains(&command(1)));
    let active = scene.dispatcher.command(command(1)).unwrap();
    assert_eq!(active.state(), CommandState::Cancelled);
    let ending = active.run(host(1)).unwrap().ending.unwrap();
    assert_eq!((ending.killed, ending.others, ending.left), (true, 1, 0));
}

#[test]
fn a_retired_host_leaves_what_may_have_run_lost_and_the_rest_refused() {
    let (mut scene, _) = Scene::new(plan(2, 1, &[], None), timers(), 2, &[1, 2]);
    scene.does(Event::Gone(host(1)));
    scene.does(Event::Gone(host(2)));
    // The second had its turn when the first was gone.
    assert_eq!(scene.states(), [RunState::Lost, RunState::Lost]);
    let (mut scene, _) = Scene::new(plan(1, 0, &[], None), timers(), 1, &[]);
    scene.does(Event::Gone(host(1)));
    assert_eq!(scene.states(), [RunState::Refused]);
}

/// A host with a journal, as agents have one.
#[derive(Clone, Debug, Default)]
struct Machine {
    linked: bool,
    /// Starts of the process.
    starts: u32,
    /// `Some` once the journal knows the run.
    journal: Option<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Never,
    Running,
    Over(i32),
}

#[derive(Clone, Debug)]
enum Happening {
    Link(u8),
    Unlink(u8),
    /// The request arrives, or is lost with its stream.
    Arrive(u8, bool),
    /// The process ends; its report arrives or is lost.
    End(u8, i32, bool),
    Cancel(Option<u8>),
    /// The gateway is killed, with or without the last outcome on disk.
    Kill,
    Wait(u16),
}

fn happening(hosts: u8) -> impl Strategy<Value = Happening> {
    let one = 1..=hosts;
    prop_oneof![
        3 => one.clone().prop_map(Happening::Link),
        1 => one.clone().prop_map(Happening::Unlink),
        4 => (one.clone(), any::<bool>()).prop_map(|(host, heard)| Happening::Arrive(host, heard)),
        3 => (one.clone(), 0..3i32, any::<bool>())
            .prop_map(|(host, code, heard)| Happening::End(host, code, heard)),
        1 => proptest::option::of(one).prop_map(Happening::Cancel),
        1 => Just(Happening::Kill),
        2 => (0..2000u16).prop_map(Happening::Wait),
    ]
}

/// The gateway with its disk, and its hosts.
struct World {
    scene: Scene,
    plan: Plan,
    total: u8,
    disk: BTreeMap<HostId, Run>,
    machines: BTreeMap<HostId, Machine>,
    /// Streams that wait for the host's answer.
    asked: BTreeMap<HostId, Asking>,
    taken: BTreeSet<HostId>,
}

impl World {
    /// The first `linked` hosts are there before the command is made, and are given a head
    /// start.
    fn new(plan: Plan, total: u8, linked: u8) -> Self {
        let mut world = Self {
            scene: Scene {
                dispatcher: Dispatcher::default(),
                now: at(0),
            },
            plan: plan.clone(),
            total,
            disk: BTreeMap::new(),
            machines: (1..=total)
                .map(|it| (host(it), Machine::default()))
                .collect(),
            asked: BTreeMap::new(),
            taken: BTreeSet::new(),
        };
        for number in 1..=linked {
            world.happens(Happening::Link(number));
        }
        let targets = (1..=total).map(host);
        let mut active = Active::new(plan, timers(), targets, BTreeMap::new(), at(0));
        let dispatcher = &mut world.scene.dispatcher;
        for host in dispatcher.reserve(command(1), &mut active, 3, at(0)) {
            let run = active.run(host).unwrap().clone();
            assert_eq!(run.state, RunState::Sending);
            world.disk.insert(host, run);
        }
        world.event(Event::Made(command(1), Box::new(active)));
        world
    }

    fn run(&self, host: HostId) -> Option<&Run> {
        self.scene.dispatcher.command(command(1))?.run(host)
    }

    fn takes(&mut self, outcome: Outcome) {
        for (_, host) in &outcome.writes {
            if let Some(run) = self.run(*host).cloned() {
                self.disk.insert(*host, run);
            }
        }
        for step in outcome.steps {
            match step {
                Step::Open((_, host), asking) => {
                    self.asked.insert(host, asking);
                }
                Step::Cancel((_, host)) => {
                    if let Some(machine) = self.machines.get_mut(&host)
                        && machine.journal == Some(Entry::Running)
                        && machine.linked
                    {
                        machine.journal = Some(Entry::Over(-15));
                    }
                }
                Step::Taken((_, host)) => {
                    // Only what is on disk may be forgotten by the host.
                    assert!(
                        self.disk[&host].is_final() || self.disk[&host].state == RunState::Queued
                    );
                    self.taken.insert(host);
                }
            }
        }
    }

    fn event(&mut self, event: Event) {
        let outcome = self.scene.does(event);
        self.takes(outcome);
    }

    fn report(&mut self, host: HostId, report: Report) {
        self.event(Event::Report((command(1), host), report));
    }

    fn happens(&mut self, what: Happening) {
        match what {
            Happening::Link(number) => {
                self.machines.get_mut(&host(number)).unwrap().linked = true;
                self.event(Event::Linked(host(number)));
            }
            Happening::Unlink(number) => self.unlink(host(number)),
            Happening::Arrive(number, heard) => self.arrive(host(number), heard),
            Happening::End(number, code, heard) => {
                let host = host(number);
                let machine = self.machines.get_mut(&host).unwrap();
                if machine.journal == Some(Entry::Running) {
                    machine.journal = Some(Entry::Over(code));
                }
                if let Some(Entry::Over(code)) = machine.journal
                    && machine.linked
                    && !self.asked.contains_key(&host)
                {
                    let told = if heard {
                        exited(code)
                    } else {
                        Report::Detached
                    };
                    self.report(host, told);
                }
            }
            Happening::Cancel(hosts) => {
                let hosts = hosts.map(|number| BTreeSet::from([host(number)]));
                self.event(Event::Cancel(command(1), hosts));
            }
            Happening::Kill => self.kill(),
            Happening::Wait(seconds) => {
                let outcome = self.scene.waits(seconds.into());
                self.takes(outcome);
            }
        }
    }

    fn unlink(&mut self, host: HostId) {
        self.machines.get_mut(&host).unwrap().linked = false;
        self.asked.remove(&host);
        self.event(Event::Unlinked(host));
        self.report(host, Report::Detached);
    }

    /// What the agent does with a request.
    fn arrive(&mut self, host: HostId, heard: bool) {
        let machine = self.machines.get_mut(&host).unwrap();
        if !machine.linked {
            return;
        }
        let Some(asking) = self.asked.remove(&host) else {
            return;
        };
        let cancel = matches!(asking, Asking::Settle { cancel: true });
        let report = match (machine.journal, asking) {
            (None, Asking::Run { start_before }) if self.scene.now < start_before => {
                machine.starts += 1;
                machine.journal = Some(Entry::Running);
                Report::Started(self.scene.now)
            }
            (None, Asking::Run { .. }) => refused(RunRefusal::Expired),
            (None | Some(Entry::Never), _) => {
                machine.journal = Some(Entry::Never);
                refused(RunRefusal::NeverStarted)
            }
            (Some(Entry::Running), _) if cancel => {
                machine.journal = Some(Entry::Over(-15));
                exited(-15)
            }
            (Some(Entry::Running), _) => Report::Started(self.scene.now),
            (Some(Entry::Over(code)), _) => exited(code),
        };
        if heard {
            self.report(host, report);
        } else {
            self.report(host, Report::Detached);
        }
    }

    /// The gateway comes back with what is on its disk.
    fn kill(&mut self) {
        let now = self.scene.now;
        self.asked.clear();
        let active = Active::new(
            self.plan.clone(),
            timers(),
            (1..=self.total).map(host),
            self.disk.clone(),
            now,
        );
        self.scene = Scene {
            dispatcher: Dispatcher::default(),
            now,
        };
        for machine in self.machines.values_mut() {
            machine.linked = false;
        }
        self.event(Event::Made(command(1), Box::new(active)));
    }

    fn check(&self) {
        for (host, machine) in &self.machines {
            let Some(run) = self.run(*host) else { continue };
            assert!(
                machine.starts <= 1,
                "{host} started {} times",
                machine.starts
            );
            if run.state.never_ran() && run.is_final() {
                assert_eq!(machine.starts, 0, "{host} ran and is {}", run.state);
            }
            if run.state == RunState::Exited {
                assert_eq!(machine.journal, run.code.map(Entry::Over), "{host}");
            }
        }
    }
}

proptest! {
    /// Whatever is lost, killed, cut or cancelled: a host starts a run at most once,
    /// and what is said of a run is what happened. With everybody back, all is settled.
    #[test]
    fn runs_happen_once_and_are_told_as_they_were(
        concurrency in 0u32..4,
        batches in proptest::sample::select(vec![&[][..], &["1", "50%"][..], &["2"][..]]),
        stop_after in proptest::sample::select(vec![None, Some("1"), Some("60%")]),
        linked in 0u8..=4,
        happenings in proptest::collection::vec(happening(4), 0..80),
    ) {
        let mut world = World::new(plan(4, concurrency, batches, stop_after), 4, linked);
        for what in happenings {
            world.happens(what);
            world.check();
        }
        for _ in 0..40 {
            for number in 1..=4 {
                world.happens(Happening::Link(number));
                world.happens(Happening::Arrive(number, true));
                world.happens(Happening::End(number, 0, true));
                world.check();
            }
            world.happens(Happening::Wait(100));
        }
        let active = world.scene.dispatcher.command(command(1)).unwrap();
        prop_assert!(active.state() != CommandState::Running, "{:?}", active.counts());
        prop_assert_eq!(world.scene.dispatcher.out, 0);
        prop_assert!(world.scene.dispatcher.of_host.is_empty());
    }
}
