//! What a request becomes: the steps by which it is done.
//!
//! A provider that cannot do an action by itself is not made to guess: what is put together here
//! is put together in the open, and each step is submitted and confirmed by itself.

use std::time::Duration;

use model::power::{BootDevice, BootOnce, PowerAction};
use serde::{Deserialize, Serialize};

use super::Trouble;

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// The provider.
    Provider,
    /// The host's own agent.
    Agent,
}

/// When a step has its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    /// It is the first, or the one before it was confirmed.
    Done,
    /// The one before it did not work in time.
    NotDone,
}

/// One thing to be submitted and confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// By whom.
    pub by: By,
    /// What.
    pub action: PowerAction,
    /// When.
    pub when: When,
}

/// What a provider can do for a target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    /// Actions that it can do.
    pub actions: Vec<PowerAction>,
    /// Whether the state can be asked for.
    pub observable: bool,
    /// Devices to boot from, once.
    pub boot_devices: Vec<BootDevice>,
    /// Whether what was submitted can be called off.
    pub cancellable: bool,
    /// How long a state lags, at worst.
    pub settle: Duration,
    /// Calls at once to the endpoint; 0 is no opinion.
    pub max_parallel: u32,
}

/// The steps of an action.
pub fn plan(
    action: PowerAction,
    escalate: bool,
    boot: Option<&BootOnce>,
    support: &Support,
    agent_linked: bool,
) -> Result<Vec<Step>, Trouble> {
    if let Some(boot) = boot
        && !support.boot_devices.contains(&boot.device)
    {
        let message = format!(
            "this provider cannot have the host boot from {}",
            boot.device
        );
        return Err(Trouble::new("boot_unsupported", message));
    }
    let can = |action| support.actions.contains(&action);
    let step = |by, action, when| Step { by, action, when };
    let mut steps = Vec::new();
    match action {
        // With another boot device the provider must do it: only it can set both.
        PowerAction::Shutdown | PowerAction::Reboot if agent_linked && boot.is_none() => {
            steps.push(step(By::Agent, action, When::Done));
        }
        PowerAction::Cycle if !can(action) && can(PowerAction::Off) && can(PowerAction::On) => {
            if !support.observable {
                let message = "this provider cannot cycle by itself, nor tell when it is off";
                return Err(Trouble::new("action_unsupported", message));
            }
            steps.push(step(By::Provider, PowerAction::Off, When::Done));
            steps.push(step(By::Provider, PowerAction::On, When::Done));
        }
        _ if can(action) => steps.push(step(By::Provider, action, When::Done)),
        // Whoever asked for more than asking gets that at once where nobody can be asked.
        PowerAction::Shutdown | PowerAction::Reboot if escalate => {}
        _ => return Err(unsupported(action, support)),
    }
    if escalate {
        let harder = match action {
            PowerAction::Shutdown => PowerAction::Off,
            PowerAction::Reboot => PowerAction::Reset,
            _ => {
                return Err(Trouble::new(
                    "nothing_harder",
                    "only shutdown and reboot can be followed by something harder",
                ));
            }
        };
        if can(harder) {
            let when = if steps.is_empty() {
                When::Done
            } else {
                When::NotDone
            };
            steps.push(step(By::Provider, harder, when));
        } else if harder == PowerAction::Reset && can(PowerAction::Cycle) {
            let when = if steps.is_empty() {
                When::Done
            } else {
                When::NotDone
            };
            steps.push(step(By::Provider, PowerAction::Cycle, when));
        } else {
            return Err(unsupported(harder, support));
        }
    }
    Ok(steps)
}

fn unsupported(action: PowerAction, support: &Support) -> Trouble {
    let able: Vec<_> = support
        .actions
        .iter()
        .map(|action| action.as_str())
        .collect();
    let message = if able.is_empty() {
        format!("this provider cannot do {action}, nor anything else")
    } else {
        format!(
            "this provider cannot do {action}; it can do {}",
            able.join(", ")
        )
    };
    Trouble::new("action_unsupported", message)
}
