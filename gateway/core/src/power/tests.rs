//! A machine, a provider, an agent and crashes, all at the mercy of a script.

use std::time::Duration;

use model::Timestamp;
use model::power::{Confirmation, PowerAction, PowerOperationState, PowerState};
use proptest::prelude::*;

use super::bulk::{self, Ending, Tally};
use super::facts::{Known, contradiction, observability};
use super::operation::*;
use super::pace::{Bucket, back_off, look_after};
use super::plan::{By, Step, Support, When, plan};
use super::{Agent, Seen, Trouble};

const START: i64 = 1_700_000_000_000;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

/// Chances, one after the other; quiet ones when they are used up.
struct Script(std::vec::IntoIter<u8>);

impl Script {
    fn one_in(&mut self, many: u8) -> bool {
        self.0.next().is_some_and(|byte| byte % many == 0)
    }

    fn below(&mut self, limit: u8) -> u8 {
        self.0.next().map_or(0, |byte| byte % limit)
    }
}

/// A machine with its provider. It is honest: what it says to have refused, it has not done.
struct Machine {
    script: Script,
    now: Timestamp,
    state: PowerState,
    /// When the state becomes another one.
    becomes: Option<(Timestamp, PowerState)>,
    boot: u32,
    booted_at: Timestamp,
    has_agent: bool,
    observable: bool,
    polled: bool,
    /// It was asked to shut down, and does not.
    ignores: bool,
    /// What was really done, and in which step.
    done: Vec<(usize, PowerAction)>,
}

impl Machine {
    fn settle(&mut self) {
        while let Some((when, state)) = self.becomes.filter(|(when, _)| *when <= self.now) {
            if state == PowerState::On && self.state != PowerState::On {
                self.boot += 1;
                self.booted_at = when;
            }
            self.state = state;
            self.becomes = (state == PowerState::PoweringOn)
                .then(|| (when.saturating_add(Duration::from_secs(3)), PowerState::On));
        }
    }

    fn perform(&mut self, step: usize, action: PowerAction) {
        self.done.push((step, action));
        let soon = self
            .now
            .saturating_add(Duration::from_millis(u64::from(self.script.below(9)) * 500));
        match action {
            PowerAction::On if self.state == PowerState::On => {}
            PowerAction::On => self.becomes = Some((soon, PowerState::On)),
            PowerAction::Shutdown if self.script.one_in(3) => self.ignores = true,
            PowerAction::Shutdown | PowerAction::Off => {
                self.becomes = Some((soon, PowerState::Off))
            }
            PowerAction::Reboot | PowerAction::Reset | PowerAction::Cycle => {
                self.state = PowerState::Rebooting;
                self.becomes = Some((soon, PowerState::On));
            }
            PowerAction::Nmi => {}
        }
    }

    fn agent(&self) -> Agent {
        let linked = self.has_agent && self.state == PowerState::On;
        Agent {
            linked,
            since: Some(self.booted_at.saturating_add(Duration::from_secs(1))),
            boot_id: self.has_agent.then(|| self.boot.to_string()),
        }
    }

    fn seen(&self) -> Seen {
        Seen {
            state: self.state,
            raw: self.state.to_string(),
            boot_mark: None,
            at: self.now,
        }
    }

    fn view(&self) -> View {
        View {
            first: true,
            permit_at: self.now,
            interrupt_at: self.now,
            frozen: false,
            agent: self.agent(),
            roll: 0,
        }
    }

    fn failure(&mut self, outcome_unknown: bool) -> Failure {
        Failure {
            trouble: Trouble::new("played", "as the script wants"),
            transient: outcome_unknown || !self.script.one_in(3),
            retry_after: None,
            outcome_unknown,
        }
    }

    fn answer(&mut self, question: &Next, operation: &Operation) -> Heard {
        let support = Support {
            actions: PowerAction::ALL.to_vec(),
            observable: self.observable,
            cancellable: true,
            settle: Duration::from_secs(10),
            ..Support::default()
        };
        match question {
            Next::Check if self.script.one_in(6) => Heard::Checked(Err(self.failure(false))),
            Next::Check => Heard::Checked(Ok((support, self.observable.then(|| self.seen())))),
            Next::Submit => {
                let step = operation.step().expect("a step");
                if self.script.one_in(5) {
                    return Heard::Begun(Err(self.failure(false)));
                }
                let arrives = !self.script.one_in(4);
                if arrives {
                    self.perform(operation.at, step.action);
                }
                if !arrives || self.script.one_in(4) {
                    return Heard::Begun(Err(self.failure(true)));
                }
                Heard::Begun(Ok(if self.polled {
                    Begun::Submitted(Progress::default())
                } else {
                    Begun::Taken
                }))
            }
            Next::Resume => Heard::Resumed(match self.script.below(5) {
                0 => Err(self.failure(false)),
                1 if self.done.iter().any(|(step, _)| *step == operation.at) => Ok(Resumed::Done),
                1 => Ok(Resumed::NotSubmitted),
                _ => Ok(Resumed::Unknown),
            }),
            Next::Poll if self.script.one_in(4) => Heard::Polled(Err(Failure {
                transient: true,
                ..self.failure(false)
            })),
            Next::Poll if self.becomes.is_some() || self.ignores => {
                Heard::Polled(Ok(Some(Progress::default())))
            }
            Next::Poll => Heard::Polled(Ok(None)),
            Next::Look if self.script.one_in(5) => Heard::Looked(Err(self.failure(false))),
            Next::Look => Heard::Looked(Ok(self.seen())),
            Next::CallOff => Heard::CalledOff(Ok(Some(false))),
            Next::Wait(_) | Next::Over => unreachable!("no question"),
        }
    }
}

/// Lives an operation to its end. Crashes lose answers, and everything not written down.
fn live(
    action: PowerAction,
    escalate: bool,
    (on, has_agent, observable, polled): (bool, bool, bool, bool),
    script: Vec<u8>,
) -> (Operation, Machine) {
    let mut machine = Machine {
        script: Script(script.into_iter()),
        now: at(0),
        state: if on { PowerState::On } else { PowerState::Off },
        becomes: None,
        boot: 1,
        booted_at: at(-3_600_000),
        has_agent,
        observable,
        polled,
        ignores: false,
        done: Vec::new(),
    };
    let deadline = at(600_000);
    let escalate = escalate.then_some(Duration::from_secs(60));
    let mut operation = Operation::new(action, None, escalate, deadline);
    for _ in 0..10_000 {
        machine.settle();
        let view = machine.view();
        operation.advance(&view, machine.now);
        let question = operation.next(&view, machine.now);
        match question {
            Next::Over => return (operation, machine),
            Next::Wait(until) => {
                let tick = machine.now.saturating_add(Duration::from_secs(1));
                machine.now = until
                    .min(tick)
                    .max(machine.now.saturating_add(Duration::from_millis(1)));
                continue;
            }
            Next::Submit => operation.submit(machine.now),
            _ => {}
        }
        // The gateway dies before it asks, or before it hears.
        if machine.script.one_in(7) {
            continue;
        }
        let answer = machine.answer(&question, &operation);
        machine.now = machine.now.saturating_add(Duration::from_millis(
            u64::from(machine.script.below(20)) * 100,
        ));
        if machine.script.one_in(7) {
            continue;
        }
        machine.settle();
        let view = machine.view();
        operation.hear(answer, &view, machine.now);
        if machine.script.one_in(40) {
            operation.call_off(machine.now);
        }
    }
    panic!("an operation does not end: {operation:#?}");
}

fn actions() -> impl Strategy<Value = PowerAction> {
    prop::sample::select(PowerAction::ALL)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_happens_again_is_submitted_once_and_every_operation_ends_with_the_truth(
        action in actions(),
        escalate: bool,
        world: (bool, bool, bool, bool),
        script in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let escalate = escalate && matches!(action, PowerAction::Shutdown | PowerAction::Reboot);
        let (operation, machine) = live(action, escalate, world, script);
        for step in 0..4 {
            let times = machine.done.iter().filter(|(at, action)| *at == step && action.is_edge());
            prop_assert!(times.count() <= 1, "{:?}", machine.done);
        }
        let Phase::Ended(outcome) = &operation.phase else { panic!("it ended") };
        prop_assert!(outcome.at <= operation.deadline.saturating_add(Duration::from_secs(5)));
        let something_done = !machine.done.is_empty();
        match outcome.state {
            PowerOperationState::Succeeded => {
                let confirmation = outcome.confirmation.expect("success rests on something");
                prop_assert!(something_done || confirmation == Confirmation::Already);
                match action.leads_to() {
                    Some(PowerState::On) => prop_assert!(machine.boot > 1 || world.0),
                    Some(wanted) => prop_assert_eq!(machine.state, wanted),
                    None => {}
                }
            }
            // Nothing of a failed operation can have happened, but for a soft step that did not
            // work before the hard one was refused.
            PowerOperationState::Failed | PowerOperationState::Cancelled => {
                let here = machine.done.iter().any(|(step, _)| *step == operation.at);
                prop_assert!(!here || operation.at > 0 || !operation.plan.is_empty() && operation.attempt > 1,
                    "{:?} {:?}", outcome, machine.done);
            }
            PowerOperationState::OutcomeUnknown | PowerOperationState::TimedOut => {}
            other => prop_assert!(false, "{other} is not final"),
        }
    }

    #[test]
    fn waits_grow_and_stay_within_bounds(looks: u32, failures: u32, roll: u32) {
        prop_assert!(look_after(looks, None, roll) <= Duration::from_secs(19));
        prop_assert!(back_off(failures, None, roll) <= Duration::from_secs(75));
        prop_assert!(look_after(looks, None, 0) >= Duration::from_secs(1));
        prop_assert!(back_off(failures, Some(Duration::ZERO), 0) >= Duration::from_millis(250));
    }

    #[test]
    fn a_bulk_is_never_wider_than_asked(
        hosts in 0u32..200, active in 0u32..50, succeeded in 0u32..100, failed in 0u32..100,
        at_once in 0u32..20, canary: bool, stop_after in 0u32..5, cancelled: bool,
    ) {
        let tally = Tally { hosts, active, succeeded, failed };
        match bulk::step(tally, at_once, canary, stop_after, cancelled) {
            bulk::Step::Begin(more) => {
                prop_assert!(more > 0 && active + more <= at_once.max(1));
                prop_assert!(!cancelled && more <= tally.waiting());
                prop_assert!(!canary || succeeded > 0 || active + more == 1);
            }
            bulk::Step::Wait => prop_assert!(active > 0),
            bulk::Step::Over(_) => prop_assert_eq!(active, 0),
        }
    }
}

fn world(on: bool, agent: bool) -> (bool, bool, bool, bool) {
    (on, agent, true, true)
}

#[test]
fn a_reset_is_proven_by_a_new_boot() {
    let (operation, machine) = live(PowerAction::Reset, false, world(true, true), vec![1; 400]);
    let Phase::Ended(outcome) = operation.phase else {
        panic!("it ended")
    };
    assert_eq!(outcome.state, PowerOperationState::Succeeded);
    assert_eq!(outcome.confirmation, Some(Confirmation::BootId));
    assert_eq!(machine.done, [(0, PowerAction::Reset)]);
}

#[test]
fn without_an_agent_off_and_on_again_is_proof_enough() {
    let (operation, _) = live(PowerAction::On, false, world(false, false), vec![1; 400]);
    let Phase::Ended(outcome) = operation.phase else {
        panic!("it ended")
    };
    assert_eq!(outcome.confirmation, Some(Confirmation::OffThenOn));
}

#[test]
fn what_is_so_already_is_not_submitted() {
    let (operation, machine) = live(PowerAction::On, false, world(true, false), vec![1; 400]);
    let Phase::Ended(outcome) = operation.phase else {
        panic!("it ended")
    };
    assert_eq!(outcome.confirmation, Some(Confirmation::Already));
    assert_eq!(machine.done, []);
}

#[test]
fn an_edge_whose_answer_is_lost_is_looked_into_and_not_repeated() {
    let mut operation = Operation::new(PowerAction::Nmi, None, None, at(60_000));
    let view = View {
        first: true,
        permit_at: at(0),
        interrupt_at: at(0),
        frozen: false,
        agent: Agent::default(),
        roll: 0,
    };
    operation.advance(&view, at(0));
    let support = Support {
        actions: vec![PowerAction::Nmi],
        ..Support::default()
    };
    operation.hear(Heard::Checked(Ok((support, None))), &view, at(1));
    assert_eq!(operation.next(&view, at(1)), Next::Submit);
    operation.submit(at(2));
    // Read back after a crash.
    assert_eq!(operation.next(&view, at(3)), Next::Resume);
    operation.hear(Heard::Resumed(Ok(Resumed::Unknown)), &view, at(4));
    operation.advance(&view, at(60_001));
    assert_eq!(operation.state(), PowerOperationState::OutcomeUnknown);
}

#[test]
fn while_automatic_actions_stand_still_nothing_is_submitted() {
    let mut operation = Operation::new(PowerAction::Off, None, None, at(60_000));
    let view = View {
        first: true,
        permit_at: at(0),
        interrupt_at: at(0),
        frozen: true,
        agent: Agent::default(),
        roll: 0,
    };
    operation.advance(&view, at(0));
    let support = Support {
        actions: vec![PowerAction::Off],
        ..Support::default()
    };
    operation.hear(Heard::Checked(Ok((support, None))), &view, at(1));
    assert!(matches!(operation.next(&view, at(2)), Next::Wait(_)));
    operation.advance(&view, at(60_000));
    assert_eq!(operation.state(), PowerOperationState::Failed);
    assert_eq!(
        operation.trouble.expect("a reason").code,
        "never_had_its_turn"
    );
}

#[test]
fn plans_say_what_a_provider_cannot_do() {
    let able = |actions: &[PowerAction]| Support {
        actions: actions.to_vec(),
        observable: true,
        ..Support::default()
    };
    let by = |by, action, when| Step { by, action, when };
    use PowerAction::{Cycle, Off, On, Reboot, Reset, Shutdown};
    let composed = plan(Cycle, false, None, &able(&[On, Off]), false).expect("a plan");
    let first = by(By::Provider, Off, When::Done);
    assert_eq!(composed, [first, by(By::Provider, On, When::Done)]);

    let soft = plan(Shutdown, true, None, &able(&[On, Off]), true).expect("a plan");
    let asked = by(By::Agent, Shutdown, When::Done);
    assert_eq!(soft, [asked, by(By::Provider, Off, When::NotDone)]);
    // Nobody can be asked: then at once.
    let hard = plan(Shutdown, true, None, &able(&[On, Off]), false).expect("a plan");
    assert_eq!(hard, [by(By::Provider, Off, When::Done)]);

    let refused = plan(Reboot, false, None, &able(&[On, Off]), false).expect_err("no reboot");
    assert_eq!(refused.code, "action_unsupported");
    assert!(refused.message.contains("it can do on, off"));
    assert!(plan(Off, true, None, &able(&[Off, Reset]), false).is_err());
}

#[test]
fn a_bucket_lets_a_burst_pass_and_then_one_at_a_time() {
    let mut bucket = Bucket::new(3, Duration::from_secs(10));
    for _ in 0..3 {
        assert!(bucket.next_at() <= at(0));
        bucket.take(at(0));
    }
    assert_eq!(bucket.next_at(), at(10_000));
    bucket.take(at(10_000));
    assert_eq!(bucket.next_at(), at(20_000));
    assert!(bucket.next_at() <= at(60_000));
}

#[test]
fn the_truth_table_of_provider_and_agent() {
    let seen = |state, millis| Seen {
        state,
        raw: String::new(),
        boot_mark: None,
        at: at(millis),
    };
    let agent = |linked| Agent {
        linked,
        since: Some(at(0)),
        boot_id: Some("b".into()),
    };
    let now = at(300_000);
    for state in PowerState::ALL {
        let down = matches!(
            state,
            PowerState::Off | PowerState::Suspended | PowerState::Absent
        );
        let told = contradiction(&seen(*state, 200_000), &agent(true), now);
        assert_eq!(told.is_some(), down, "{state}");
        assert_eq!(
            contradiction(&seen(*state, 200_000), &agent(false), now),
            None
        );
    }
    // The agent came back after the look.
    assert_eq!(
        contradiction(&seen(PowerState::Off, -5), &agent(true), now),
        None
    );
    // It has only just come back.
    assert_eq!(
        contradiction(&seen(PowerState::Off, 10), &agent(true), at(20)),
        None
    );
}

#[test]
fn how_much_is_known() {
    use model::power::Observability as O;
    let minute = Duration::from_secs(60);
    let seen = Seen {
        state: PowerState::On,
        raw: "On".into(),
        boot_mark: None,
        at: at(0),
    };
    let mut known = Known::default();
    assert_eq!(observability(&known, minute, at(0)), O::Unconfigured);
    known.configured = true;
    assert_eq!(observability(&known, minute, at(0)), O::NeverChecked);
    known.seen = Some(seen);
    assert_eq!(observability(&known, minute, at(180_000)), O::Fresh);
    assert_eq!(observability(&known, minute, at(180_001)), O::Stale);
    known.failing = Some((at(1), Trouble::new("x", "y")));
    assert_eq!(observability(&known, minute, at(2)), O::Failing);
    known.observable = Some(false);
    assert_eq!(observability(&known, minute, at(2)), O::NotObservable);
}

#[test]
fn a_bulk_begins_with_its_canary_and_stops_after_failures() {
    let tally = |hosts, active, succeeded, failed| Tally {
        hosts,
        active,
        succeeded,
        failed,
    };
    use bulk::Step;
    assert_eq!(
        bulk::step(tally(50, 0, 0, 0), 10, true, 2, false),
        Step::Begin(1)
    );
    assert_eq!(
        bulk::step(tally(50, 1, 0, 0), 10, true, 2, false),
        Step::Wait
    );
    assert_eq!(
        bulk::step(tally(50, 0, 1, 0), 10, true, 2, false),
        Step::Begin(10)
    );
    assert_eq!(
        bulk::step(tally(50, 4, 1, 2), 10, true, 2, false),
        Step::Wait
    );
    assert_eq!(
        bulk::step(tally(50, 0, 5, 2), 10, true, 2, false),
        Step::Over(Ending::Stopped)
    );
    assert_eq!(
        bulk::step(tally(50, 0, 5, 1), 10, true, 2, true),
        Step::Over(Ending::Cancelled)
    );
    assert_eq!(
        bulk::step(tally(6, 0, 5, 1), 10, true, 2, false),
        Step::Over(Ending::Complete)
    );
}

#[test]
fn an_interruption_waits_for_its_slot_before_it_looks_and_after_each_refusal() {
    let mut operation = Operation::new(PowerAction::Reset, None, None, at(600_000));
    let mut view = View {
        first: true,
        permit_at: at(0),
        interrupt_at: at(60_000),
        frozen: false,
        agent: Agent::default(),
        roll: 0,
    };
    operation.advance(&view, at(0));
    assert_eq!(operation.next(&view, at(0)), Next::Wait(at(60_000)));
    operation.advance(&view, at(60_000));
    assert_eq!(operation.next(&view, at(60_000)), Next::Check);
    assert!(operation.holds_slot());
    let support = Support {
        actions: vec![PowerAction::Reset],
        ..Support::default()
    };
    operation.hear(Heard::Checked(Ok((support, None))), &view, at(61_000));
    view.interrupt_at = at(120_000);
    assert_eq!(
        operation.next(&view, at(61_000)),
        Next::Submit,
        "it has its slot"
    );
    operation.submit(at(61_000));
    let refused = Failure {
        trouble: Trouble::new("busy", "not now"),
        transient: true,
        retry_after: None,
        outcome_unknown: false,
    };
    operation.hear(Heard::Begun(Err(refused)), &view, at(62_000));
    assert!(operation.wants_slot(), "that one is gone");
    assert_eq!(operation.next(&view, at(100_000)), Next::Wait(at(120_000)));
    assert_eq!(operation.next(&view, at(120_000)), Next::Submit);
    // Turning on waits for nobody.
    let mut on = Operation::new(PowerAction::On, None, None, at(600_000));
    on.advance(&view, at(0));
    assert_eq!(on.next(&view, at(0)), Next::Check);
}
