//! Power providers turn machines on and off.

use std::collections::BTreeMap;
use std::time::Duration;

use api::v1::plugin::PluginFinding;
use async_trait::async_trait;
use gateway_core::power::operation::{Begun, Failure, Progress, Resumed};
use gateway_core::power::plan::Support;
use gateway_core::power::{Seen, Trouble};
use model::ids::WorkspaceId;
use model::names::{Name, Text};
use model::plugin::SecretBinding;
use model::power::{BootDevice, BootOnce, PowerAction, PowerState};
use plugin_host::ports::{ErrorKind, GuestError};
use plugin_host::{Blame, CallError, Invocation, Reason, power};

use super::{Role, millis, within_reason};
use crate::plugins::host::findings;
use crate::power::provider::{Found, Machine, Provider, Submission, waits};

/// Makes one call, and a failure of what went wrong with it. `$touches` says whether the call may
/// have done something.
macro_rules! call {
    ($role:ident, $machine:expr, $operation:expr, $touches:literal, $method:ident($($argument:expr),*)) => {{
        let (app, plugin) = $role.plugin().map_err(|code| not_called($role, code))?;
        let invocation = invocation($machine, $operation);
        match plugin.$method(invocation $(, $argument)*).await {
            Ok(answer) => answer,
            Err(error) => {
                $role.failed(&app, &error).await;
                return Err(failure(error, $touches));
            }
        }
    }};
}

#[async_trait]
impl Provider for Role {
    fn covers(&self, workspace: WorkspaceId) -> bool {
        self.grant.workspaces.covers(Some(workspace))
    }

    fn secrets_of_machines(&self) -> Vec<Name> {
        let Some(app) = self.app.upgrade() else {
            return Vec::new();
        };
        let tables = app.catalog.read();
        let plugin = tables.plugins.get(&self.name);
        let needs = plugin.map(|plugin| &plugin.present.manifest.needs.secrets);
        let needs = needs.into_iter().flatten().filter(|need| need.per_target);
        needs.map(|need| need.name.clone()).collect()
    }

    async fn inspect(&self, machine: &Machine) -> Result<Support, Failure> {
        let said = call!(self, machine, None, false, power_inspect(target(machine)));
        Ok(Support {
            actions: said.actions.iter().map(|it| action(it.action)).collect(),
            observable: said.observable,
            boot_devices: said.boot_devices.iter().map(|it| device(*it)).collect(),
            cancellable: said.cancellable,
            settle: Duration::from_millis(said.settle_ms.into()).min(Duration::from_secs(600)),
            max_parallel: said.max_parallel,
        })
    }

    async fn check(&self, machine: &Machine) -> Result<Vec<PluginFinding>, Failure> {
        let said = call!(self, machine, None, false, power_check(target(machine)));
        Ok(findings(said))
    }

    async fn observe(&self, machine: &Machine) -> Result<Seen, Failure> {
        let said = call!(self, machine, None, false, power_observe(target(machine)));
        Ok(self.seen(said))
    }

    async fn begin(&self, machine: &Machine, what: &Submission) -> Result<Begun, Failure> {
        let begin = operation(what);
        let said = call!(
            self,
            machine,
            Some(what),
            true,
            power_begin(begin, target(machine))
        );
        Ok(match said {
            power::Begun::Already(seen) => Begun::Already(self.seen(seen)),
            power::Begun::Submitted(said) => Begun::Submitted(progress(said)),
            power::Begun::Done => Begun::Taken,
        })
    }

    async fn poll(
        &self,
        machine: &Machine,
        what: &Submission,
        cursor: Vec<u8>,
    ) -> Result<Option<Progress>, Failure> {
        let poll = operation(what);
        let said = call!(
            self,
            machine,
            Some(what),
            false,
            power_poll(poll, target(machine), cursor)
        );
        Ok(match said {
            power::Step::Running(said) => Some(progress(said)),
            power::Step::Done => None,
        })
    }

    async fn resume(&self, machine: &Machine, what: &Submission) -> Result<Resumed, Failure> {
        let resume = operation(what);
        let said = call!(
            self,
            machine,
            Some(what),
            false,
            power_resume(resume, target(machine))
        );
        Ok(match said {
            power::Resumed::NotSubmitted => Resumed::NotSubmitted,
            power::Resumed::Running(said) => Resumed::Running(progress(said)),
            power::Resumed::Done => Resumed::Done,
            power::Resumed::Unknown => Resumed::Unknown,
        })
    }

    async fn cancel(
        &self,
        machine: &Machine,
        what: &Submission,
        cursor: Vec<u8>,
    ) -> Result<Option<bool>, Failure> {
        let cancel = operation(what);
        let said = call!(
            self,
            machine,
            Some(what),
            false,
            power_cancel(cancel, target(machine), cursor)
        );
        Ok(match said {
            power::Cancelled::Cancelled => Some(true),
            power::Cancelled::TooLate | power::Cancelled::Unsupported => Some(false),
            power::Cancelled::Unknown => None,
        })
    }

    async fn discover(
        &self,
        workspace: WorkspaceId,
        secrets: &BTreeMap<Name, Name>,
        cursor: Option<String>,
    ) -> Result<(Vec<Found>, Option<String>), Failure> {
        let (app, plugin) = self.plugin().map_err(|code| not_called(self, code))?;
        let invocation = Invocation {
            secrets: bindings(workspace, secrets),
            ..Invocation::of(Some(workspace))
        };
        let page = match plugin.power_discover(invocation, cursor).await {
            Ok(page) => page,
            Err(error) => {
                self.failed(&app, &error).await;
                return Err(failure(error, false));
            }
        };
        let found = page.found.into_iter().map(|found| Found {
            address: found.address,
            params: found.params,
            name: found.name,
            macs: found.macs,
            serial: found.serial,
            provider_id: found.provider_id,
            state: state(found.state),
        });
        Ok((found.collect(), page.next))
    }
}

impl Role {
    fn seen(&self, said: power::Observation) -> Seen {
        Seen {
            state: state(said.state),
            raw: said.raw,
            boot_mark: said.boot_mark,
            at: self
                .app
                .upgrade()
                .map_or_else(crate::app::wall_clock, |app| app.now()),
        }
    }
}

fn invocation(machine: &Machine, what: Option<&Submission>) -> Invocation {
    Invocation {
        workspace: Some(machine.workspace),
        operation: what.map(key),
        secrets: bindings(machine.workspace, &machine.secrets),
        ..Invocation::default()
    }
}

/// Secrets of a workspace, to be used and not read.
fn bindings(
    workspace: WorkspaceId,
    secrets: &BTreeMap<Name, Name>,
) -> BTreeMap<Name, SecretBinding> {
    let bound = secrets.iter().map(|(name, secret)| {
        let binding = SecretBinding {
            workspace,
            secret: secret.clone(),
            reveal: false,
        };
        (name.clone(), binding)
    });
    bound.collect()
}

/// The same in every call about one step, and another one for each.
fn key(what: &Submission) -> String {
    match what.step {
        0 => what.id.to_string(),
        step => format!("{}-{step}", what.id),
    }
}

fn target(machine: &Machine) -> power::Target {
    power::Target {
        host: machine.host.to_string(),
        address: machine.address.clone(),
        params: machine.params.clone(),
        tls_profile: machine.tls_profile.as_ref().map(ToString::to_string),
        route: machine.route.as_ref().map(ToString::to_string),
    }
}

fn operation(what: &Submission) -> power::Operation {
    power::Operation {
        id: key(what),
        attempt: what.attempt,
        action: match what.action {
            PowerAction::On => power::Action::On,
            PowerAction::Shutdown => power::Action::Shutdown,
            PowerAction::Off => power::Action::Off,
            PowerAction::Reboot => power::Action::Reboot,
            PowerAction::Reset => power::Action::Reset,
            PowerAction::Cycle => power::Action::Cycle,
            PowerAction::Nmi => power::Action::Nmi,
        },
        boot: what.boot.as_ref().map(boot),
        deadline_ms: millis(what.deadline),
        before: what.before.as_ref().map(observation),
    }
}

fn boot(boot: &BootOnce) -> power::BootOnce {
    power::BootOnce {
        device: match boot.device {
            BootDevice::Default => power::BootDevice::Default,
            BootDevice::Disk => power::BootDevice::Disk,
            BootDevice::Network => power::BootDevice::Network,
            BootDevice::Http => power::BootDevice::Http,
            BootDevice::Cdrom => power::BootDevice::Cdrom,
            BootDevice::Usb => power::BootDevice::Usb,
            BootDevice::FirmwareSetup => power::BootDevice::FirmwareSetup,
            BootDevice::Diagnostics => power::BootDevice::Diagnostics,
        },
        url: boot.url.as_ref().map(Text::to_string),
        uefi: boot.uefi,
    }
}

fn device(device: power::BootDevice) -> BootDevice {
    match device {
        power::BootDevice::Default => BootDevice::Default,
        power::BootDevice::Disk => BootDevice::Disk,
        power::BootDevice::Network => BootDevice::Network,
        power::BootDevice::Http => BootDevice::Http,
        power::BootDevice::Cdrom => BootDevice::Cdrom,
        power::BootDevice::Usb => BootDevice::Usb,
        power::BootDevice::FirmwareSetup => BootDevice::FirmwareSetup,
        power::BootDevice::Diagnostics => BootDevice::Diagnostics,
    }
}

fn action(action: power::Action) -> PowerAction {
    match action {
        power::Action::On => PowerAction::On,
        power::Action::Shutdown => PowerAction::Shutdown,
        power::Action::Off => PowerAction::Off,
        power::Action::Reboot => PowerAction::Reboot,
        power::Action::Reset => PowerAction::Reset,
        power::Action::Cycle => PowerAction::Cycle,
        power::Action::Nmi => PowerAction::Nmi,
    }
}

fn state(state: power::State) -> PowerState {
    match state {
        power::State::On => PowerState::On,
        power::State::Off => PowerState::Off,
        power::State::PoweringOn => PowerState::PoweringOn,
        power::State::PoweringOff => PowerState::PoweringOff,
        power::State::Rebooting => PowerState::Rebooting,
        power::State::Suspended => PowerState::Suspended,
        power::State::Absent => PowerState::Absent,
        power::State::Unknown => PowerState::Unknown,
    }
}

fn observation(seen: &Seen) -> power::Observation {
    power::Observation {
        state: match seen.state {
            PowerState::On => power::State::On,
            PowerState::Off => power::State::Off,
            PowerState::PoweringOn => power::State::PoweringOn,
            PowerState::PoweringOff => power::State::PoweringOff,
            PowerState::Rebooting => power::State::Rebooting,
            PowerState::Suspended => power::State::Suspended,
            PowerState::Absent => power::State::Absent,
            PowerState::Unknown => power::State::Unknown,
        },
        raw: seen.raw.clone(),
        boot_mark: seen.boot_mark.clone(),
        boot: None,
        extra: Vec::new(),
    }
}

fn progress(said: power::Progress) -> Progress {
    let after = Duration::from_millis(said.poll_after_ms.into());
    Progress {
        cursor: said.cursor,
        poll_after: (!after.is_zero()).then_some(after),
        remote_id: said.remote_id,
        percent: said.percent,
        message: said.message,
    }
}

fn not_called(role: &Role, code: &'static str) -> Failure {
    let message = format!(
        "the power provider `{0}` is not at work: see `loopback plugin show {0}`",
        role.name
    );
    waits(code, message)
}

/// What a failed call says of what was asked. A call that ended in the middle of a submission may
/// have submitted.
fn failure(error: CallError, touches: bool) -> Failure {
    let code = error.reason.code();
    match error.reason {
        Reason::Guest(said) => said_no(said, touches),
        reason => {
            let began = match reason {
                Reason::Saturated { .. }
                | Reason::BreakerOpen { .. }
                | Reason::NotGranted
                | Reason::WrongKind => false,
                _ => touches,
            };
            let retry_after = match &reason {
                Reason::BreakerOpen { retry_after } => Some(*retry_after),
                _ => None,
            };
            let transient = match &reason {
                Reason::NotGranted | Reason::WrongKind => false,
                reason => reason.blame() != Blame::Plugin || !began,
            };
            Failure {
                trouble: Trouble::new(code, reason.to_string()),
                transient,
                retry_after: within_reason(retry_after),
                outcome_unknown: began,
            }
        }
    }
}

fn said_no(said: GuestError, touches: bool) -> Failure {
    let transient = match said.kind {
        ErrorKind::Busy
        | ErrorKind::Throttled
        | ErrorKind::Unreachable
        | ErrorKind::Timeout
        | ErrorKind::Upstream
        | ErrorKind::Cancelled
        | ErrorKind::Internal
        | ErrorKind::Other => true,
        ErrorKind::Invalid
        | ErrorKind::Auth
        | ErrorKind::Forbidden
        | ErrorKind::NotFound
        | ErrorKind::Unsupported
        | ErrorKind::Conflict
        | ErrorKind::Denied => false,
    };
    Failure {
        trouble: Trouble::new(&said.code, said.message),
        transient,
        retry_after: within_reason(said.retry_after),
        outcome_unknown: said.outcome_unknown && touches,
    }
}
