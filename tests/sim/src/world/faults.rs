//! What goes wrong, and what operators do meanwhile.

use model::ids::AgentTokenId;

use super::machine::Disk;
use super::{Ev, World};
use crate::Break;
use crate::queue::{HOUR, MINUTE, Ms, SECOND};

impl World {
    /// One of them.
    pub(super) fn fault(&mut self) {
        let m = self.some_machine();
        let length = self.rng.between(SECOND, 10 * MINUTE);
        let kind = self.rng.below(18);
        self.note(|| format!("fault {kind} on machine {m} for {length} ms"));
        match kind {
            0 | 1 => self.cut(m, length),
            2 => self.cut_most(length),
            3 if self.gateway.up => {
                self.gateway_down();
                self.queue.push(self.now + length, Ev::GatewayUp);
            }
            4 if self.machines[m].agent.is_some() => {
                self.kill(m);
                self.queue.push(self.now + length, Ev::PowerOn(m));
            }
            5 if self.machines[m].agent.is_some() => self.power_cut(m, length),
            // Also for longer than a certificate lasts.
            6 if self.machines[m].agent.is_some() => self.power_cut(m, length * 100),
            7 => self.copy(m),
            8 => self.machines[m].skew = self.some_skew(),
            9 => self.gateway.skew = self.step_of_the_gateway(),
            10 | 11 => self.replace_token(m, kind == 11),
            12 if self.gateway.up && self.rng.percent(30) => self.retire_and_reinstall(m),
            14 | 15 if self.gateway.up => self.back_up(),
            16 if self.rng.percent(50) => {
                self.lose_gateway();
            }
            _ => {}
        }
    }

    fn some_machine(&mut self) -> usize {
        let count = u64::try_from(self.machines.len()).unwrap_or(1);
        usize::try_from(self.rng.below(count)).unwrap_or(0)
    }

    fn cut_most(&mut self, length: Ms) {
        for m in 0..self.machines.len() {
            if self.rng.percent(80) {
                self.cut(m, length);
            }
        }
    }

    /// What was not synced is gone.
    fn power_cut(&mut self, m: usize, length: Ms) {
        self.kill(m);
        let boot = self.rng.roll();
        let machine = &mut self.machines[m];
        machine.boot = boot;
        machine.disk = machine.synced.clone();
        self.queue.push(self.now + length, Ev::PowerOn(m));
    }

    /// Copied with its disk while it runs.
    fn copy(&mut self, m: usize) {
        let room = self.machines.len() < 2 * self.options.hosts as usize;
        // A machine whose confirmations are lies would make copies look like lies, too.
        let wanted = self.options.broken != Some(Break::CounterUnsynced);
        if !room || !wanted || self.rng.percent(75) {
            return;
        }
        // An image that is rolled out is rolled out more than once.
        let copies = if self.rng.percent(30) { 2 } else { 1 };
        for _ in 0..copies {
            let branch = self.truth.disk(Some(self.machines[m].disk.branch));
            let disk = Disk {
                branch,
                ..self.machines[m].synced.clone()
            };
            self.machine(disk);
        }
    }

    /// The gateway's machine is gone; a while later another serves what the backup holds.
    pub(super) fn lose_gateway(&mut self) {
        let length = self.rng.between(SECOND, 10 * MINUTE);
        // Down already: then it comes up with what is restored.
        if self.gateway.up {
            self.gateway_down();
            self.queue.push(self.now + length, Ev::GatewayUp);
        }
        self.restore();
    }

    /// Half an hour is more than a clock is set by in good order, and less than what
    /// agents take for somebody's mistake.
    fn step_of_the_gateway(&mut self) -> i64 {
        let half = 30 * MINUTE;
        let drawn = self.rng.between(0, 2 * half);
        i64::try_from(drawn).unwrap_or(0) - i64::try_from(half).unwrap_or(0)
    }

    /// The token is revoked and another made; meanwhile a machine is installed anew,
    /// perhaps with the one that is just being revoked.
    fn replace_token(&mut self, m: usize, late: bool) {
        if !self.gateway.up {
            return;
        }
        let old = self.gateway.newest_token;
        self.new_token();
        let when = if late { self.rng.between(0, SECOND) } else { 0 };
        self.queue.push(self.now + when, Ev::Revoke(old));
        if self.rng.percent(50) {
            self.reinstall(m, old);
            self.queue.push(self.now + HOUR, Ev::Reinstall(m));
        }
    }

    /// Retired by an operator, and later installed as a new host.
    fn retire_and_reinstall(&mut self, m: usize) {
        if let Some(held) = self.machines[m].disk.held {
            self.retire(held.host);
            let when = self.rng.between(MINUTE, HOUR);
            self.queue.push(self.now + when, Ev::Reinstall(m));
        }
    }

    /// An operator installs a machine with the newest token, if it is not in the fleet.
    pub(super) fn reinstall_if_lost(&mut self, m: usize) {
        let held = self.machines[m].disk.held;
        let lost = held.is_none_or(|held| {
            let host = self.gateway.store.hosts.get(&held.host);
            host.is_none_or(|host| !host.is_live())
        });
        if lost && self.machines[m].agent.is_some() {
            let token: AgentTokenId = self.gateway.newest_token;
            self.reinstall(m, token);
        }
    }
}
