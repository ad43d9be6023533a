use proptest::prelude::*;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
}

fn now(seconds: i64, boot_id: &str, locked: bool) -> Now<'_> {
    Now {
        time: at(seconds),
        boot_id,
        locked,
    }
}

fn run(until: i64) -> Asked {
    Asked::Run {
        start_before: at(until),
    }
}

const SETTLE: Asked = Asked::Settle { cancel: false };
const CANCEL: Asked = Asked::Settle { cancel: true };

fn accepted() -> Journal {
    Journal {
        accepted: Some(Accepted {
            boot_id: "one".to_owned(),
            start_before: at(60),
        }),
        ..Journal::default()
    }
}

#[test]
fn what_is_not_known_starts_in_time_and_never_late() {
    let journal = Journal::default();
    let verdict = |asked, seconds| decide(&journal, asked, now(seconds, "one", false));
    assert_eq!(verdict(run(60), 59), Verdict::AcceptAndStart);
    assert_eq!(verdict(run(60), 60), Verdict::TooLate);
    assert_eq!(verdict(SETTLE, 0), Verdict::Never);
}

#[test]
fn what_was_promised_never_to_start_does_not() {
    let journal = Journal {
        never: true,
        ..Journal::default()
    };
    let verdict = decide(&journal, run(60), now(0, "one", false));
    assert_eq!(verdict, Verdict::Never);
}

#[test]
fn an_agent_that_was_killed_before_it_started_a_run_starts_it_in_the_same_boot_only() {
    let verdict = |boot| decide(&accepted(), run(60), now(1, boot, false));
    assert_eq!(verdict("one"), Verdict::Start);
    assert_eq!(verdict("two"), Verdict::EndLost(Lost::Rebooted));
}

#[test]
fn what_is_watched_is_attended_and_ended_when_that_is_asked() {
    for (asked, cancel) in [(run(60), false), (SETTLE, false), (CANCEL, true)] {
        let verdict = decide(&accepted(), asked, now(999, "one", true));
        assert_eq!(verdict, Verdict::Attend { cancel });
    }
}

#[test]
fn what_asked_for_a_reboot_waits_for_it_and_starts_again_after_it() {
    let journal = Journal {
        reboot: Some(Reboot {
            count: 1,
            boot_id: "one".to_owned(),
        }),
        ..Journal::default()
    };
    let verdict = |asked, boot, locked| decide(&journal, asked, now(10, boot, locked));
    assert_eq!(
        verdict(run(60), "one", true),
        Verdict::Attend { cancel: false }
    );
    let killed = Verdict::EndLost(Lost::WatcherKilled);
    assert_eq!(verdict(run(60), "one", false), killed);
    assert_eq!(verdict(SETTLE, "two", false), Verdict::Rebooted);
    assert_eq!(verdict(run(9), "two", false), Verdict::Rebooted);
    assert_eq!(verdict(CANCEL, "two", false), Verdict::EndCancelled);
    assert_eq!(verdict(run(60), "two", false), Verdict::AcceptAndStart);
    // From then on as at the first time: a loss of power does not start it once more.
    let again = Journal {
        accepted: accepted().accepted,
        ..journal
    };
    let verdict = decide(&again, run(60), now(10, "three", false));
    assert_eq!(verdict, Verdict::EndLost(Lost::Rebooted));
}

#[test]
fn a_run_whose_watcher_was_killed_is_lost() {
    let journal = Journal {
        spawned: true,
        ..accepted()
    };
    let verdict = decide(&journal, run(60), now(1, "one", false));
    assert_eq!(verdict, Verdict::EndLost(Lost::WatcherKilled));
}

#[test]
fn what_was_accepted_and_not_started_is_cancelled_or_expires() {
    let verdict = |asked, seconds| decide(&accepted(), asked, now(seconds, "one", false));
    assert_eq!(verdict(CANCEL, 1), Verdict::EndCancelled);
    assert_eq!(verdict(SETTLE, 1), Verdict::EndExpired);
    assert_eq!(verdict(run(60), 60), Verdict::EndExpired);
}

/// A host: its disk, what of it is synced, and its processes.
#[derive(Clone, Debug)]
struct Machine {
    journal: Journal,
    synced: Journal,
    boot: u32,
    /// A watcher that was started and has not taken the lock.
    starting: u32,
    /// Whether a watcher holds the lock.
    locked: bool,
    /// Whether its program runs.
    running: bool,
    starts: u32,
    /// What was told last, when it was final.
    told: Option<Verdict>,
    seconds: i64,
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    Ask(i64),
    Settle(bool),
    /// A watcher that was started takes the lock and goes on, or is too late.
    Watch,
    /// The program ends.
    End,
    KillWatcher,
    PowerLoss,
    Wait(u8),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (0..120i64).prop_map(Happening::Ask),
        1 => any::<bool>().prop_map(Happening::Settle),
        4 => Just(Happening::Watch),
        2 => Just(Happening::End),
        1 => Just(Happening::KillWatcher),
        1 => Just(Happening::PowerLoss),
        1 => (0..90u8).prop_map(Happening::Wait),
    ]
}

impl Machine {
    fn new() -> Self {
        Self {
            journal: Journal::default(),
            synced: Journal::default(),
            boot: 1,
            starting: 0,
            locked: false,
            running: false,
            starts: 0,
            told: None,
            seconds: 0,
        }
    }

    fn sync(&mut self) {
        self.synced = self.journal.clone();
    }

    fn asked(&mut self, asked: Asked) {
        let boot = self.boot.to_string();
        let verdict = decide(&self.journal, asked, now(self.seconds, &boot, self.locked));
        match verdict {
            Verdict::AcceptAndStart => {
                self.journal.accepted = Some(Accepted {
                    boot_id: boot,
                    start_before: match asked {
                        Asked::Run { start_before } => start_before,
                        Asked::Settle { .. } => at(self.seconds),
                    },
                });
                self.sync();
                self.starting += 1;
            }
            Verdict::Start => self.starting += 1,
            Verdict::Attend { cancel: true } => self.end(),
            Verdict::Attend { cancel: false } | Verdict::TooLate | Verdict::Rebooted => {}
            Verdict::Tell => self.told = Some(verdict),
            Verdict::EndCancelled | Verdict::EndExpired | Verdict::EndLost(_) => {
                self.journal.ended = true;
                self.sync();
                self.told = Some(verdict);
            }
            Verdict::Never => {
                self.journal.never = true;
                self.sync();
                self.told = Some(verdict);
            }
        }
    }

    /// As a watcher does: the lock first, then another look.
    fn watch(&mut self) {
        if self.starting == 0 || self.locked {
            return;
        }
        self.starting -= 1;
        if self.journal.spawned || self.journal.ended || self.journal.never {
            return;
        }
        self.locked = true;
        self.journal.spawned = true;
        self.running = true;
        self.starts += 1;
    }

    fn end(&mut self) {
        if self.running {
            self.running = false;
            self.locked = false;
            self.journal.ended = true;
            self.sync();
        }
    }

    fn happens(&mut self, what: Happening) {
        match what {
            Happening::Ask(until) => self.asked(run(until)),
            Happening::Settle(cancel) => self.asked(Asked::Settle { cancel }),
            Happening::Watch => self.watch(),
            Happening::End => self.end(),
            Happening::KillWatcher => {
                self.locked = false;
                self.running = false;
            }
            Happening::PowerLoss => {
                self.journal = self.synced.clone();
                self.boot += 1;
                self.starting = 0;
                self.locked = false;
                self.running = false;
            }
            Happening::Wait(seconds) => self.seconds += i64::from(seconds),
        }
    }
}

proptest! {
    #[test]
    fn a_run_starts_at_most_once_and_what_is_told_stays_true(
        happenings in proptest::collection::vec(happening(), 0..40),
    ) {
        let mut machine = Machine::new();
        for what in happenings {
            machine.happens(what);
            prop_assert!(machine.starts <= 1, "{machine:?}");
            match machine.told {
                Some(Verdict::Never | Verdict::EndCancelled | Verdict::EndExpired) => {
                    prop_assert_eq!(machine.starts, 0, "{:?}", machine);
                }
                Some(Verdict::EndLost(Lost::WatcherKilled)) => {
                    prop_assert_eq!(machine.starts, 1, "{:?}", machine);
                }
                _ => {}
            }
        }
    }
}
