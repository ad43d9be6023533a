//! What can be said of a host's power, and of an operation on it.
//!
//! ```text
//! queued ─► waiting ─► checking ─► submitting ─► submitted ─► confirming ─► succeeded
//!   │          │          │            │             │            │         failed
//!   │          │          │            └─────────────┴────────────┴───────► timed_out
//!   └──────────┴──────────┴─► cancelled | superseded                        outcome_unknown
//! ```
//!
//! `submitting` is written down before anything leaves the gateway. What a final state says is
//! what happened: `failed` is certain that nothing was done or that the provider gave up;
//! `timed_out` that it was taken and not seen to have worked; `outcome_unknown` that it may have
//! happened and nobody can tell.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::Text;

pub use crate::words::NoSuchWord;

words! {
    /// What is done to a machine. `on`, `shutdown` and `off` lead to a state, and doing them
    /// again changes nothing; the others happen again when they are done again.
    PowerAction {
        /// Power on.
        On "on",
        /// Ask the operating system to shut down: its agent if it is linked, else by the provider.
        Shutdown "shutdown",
        /// Cut the power.
        Off "off",
        /// Ask the operating system to restart: its agent if it is linked, else by the provider.
        Reboot "reboot",
        /// Restart at once, without asking, power staying on.
        Reset "reset",
        /// Cut the power, wait, power on.
        Cycle "cycle",
        /// Send a non-maskable interrupt, which makes a kernel dump its memory or panic.
        Nmi "nmi",
    }
}

words! {
    /// How a machine is, as far as its power goes.
    PowerState {
        /// Powered.
        On "on",
        /// Without power.
        Off "off",
        /// Was told to turn on and is not there yet.
        PoweringOn "powering_on",
        /// Was told to turn off and is not there yet.
        PoweringOff "powering_off",
        /// Restarts.
        Rebooting "rebooting",
        /// Keeps its memory or disk image, and computes nothing.
        Suspended "suspended",
        /// The provider knows it no more.
        Absent "absent",
        /// The provider cannot say.
        Unknown "unknown",
    }
}

words! {
    /// How much is known of a machine's state.
    Observability {
        /// The host has no power provider.
        Unconfigured "unconfigured",
        /// Nobody has looked yet.
        NeverChecked "never_checked",
        /// The last look is recent.
        Fresh "fresh",
        /// The last look that succeeded is long ago.
        Stale "stale",
        /// Looks fail.
        Failing "failing",
        /// The provider cannot tell.
        NotObservable "not_observable",
    }
}

words! {
    /// What an operation's success rests on, the strongest first.
    Confirmation {
        /// The host came back with a new boot id.
        BootId "boot_id",
        /// The provider was seen to go from off to on.
        OffThenOn "off_then_on",
        /// The provider says so, and was asked afterwards.
        Observed "observed",
        /// The provider said so when it was told, and cannot be asked.
        Acknowledged "acknowledged",
        /// It was so already.
        Already "already",
    }
}

words! {
    /// Where an operation is. See the head of this module.
    PowerOperationState {
        /// Written down.
        Queued "queued",
        /// For another operation on the host, or for its turn at the provider.
        Waiting "waiting",
        /// Looks before it acts.
        Checking "checking",
        /// Is about to be told to the provider, or was a moment ago.
        Submitting "submitting",
        /// The provider has it.
        Submitted "submitted",
        /// The provider is done, and it is being seen whether it worked.
        Confirming "confirming",
        /// It worked.
        Succeeded "succeeded",
        /// It was not done, or the provider gave up.
        Failed "failed",
        /// It was taken, and not seen to have worked in time.
        TimedOut "timed_out",
        /// It was called off before anything was done.
        Cancelled "cancelled",
        /// Another one took its place before anything was done.
        Superseded "superseded",
        /// It may have happened, and nobody can tell.
        OutcomeUnknown "outcome_unknown",
    }
}

words! {
    /// What the next boot is from.
    BootDevice {
        /// As the firmware is configured.
        Default "default",
        /// The disk.
        Disk "disk",
        /// PXE or iPXE from the network card.
        Network "network",
        /// An address, by UEFI HTTP boot.
        Http "http",
        /// The CD drive, or what stands in for it.
        Cdrom "cdrom",
        /// USB.
        Usb "usb",
        /// Into the firmware's own menu.
        FirmwareSetup "firmware_setup",
        /// What the vendor brings for finding faults.
        Diagnostics "diagnostics",
    }
}

words! {
    /// What is done when a host's power is not as desired.
    PowerMode {
        /// Nothing: what is seen is shown.
        Observe "observe",
        /// An event tells it.
        Alert "alert",
        /// The power is turned on, or off, again, within limits.
        Enforce "enforce",
    }
}

impl PowerAction {
    /// Whether doing it twice is twice as much: such an action is submitted once, whatever
    /// happens.
    pub fn is_edge(self) -> bool {
        match self {
            Self::On | Self::Shutdown | Self::Off => false,
            Self::Reboot | Self::Reset | Self::Cycle | Self::Nmi => true,
        }
    }

    /// The state that it leads to, if that is all it is about.
    pub fn leads_to(self) -> Option<PowerState> {
        match self {
            Self::On => Some(PowerState::On),
            Self::Shutdown | Self::Off => Some(PowerState::Off),
            Self::Reboot | Self::Reset | Self::Cycle | Self::Nmi => None,
        }
    }

    /// Whether the machine is without power for a while, or for good.
    pub fn interrupts(self) -> bool {
        self != Self::On
    }

    /// Whether the next boot can be chosen with it.
    pub fn boots(self) -> bool {
        matches!(self, Self::On | Self::Reboot | Self::Reset | Self::Cycle)
    }
}

impl PowerOperationState {
    /// Whether nothing changes any more.
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued
            | Self::Waiting
            | Self::Checking
            | Self::Submitting
            | Self::Submitted
            | Self::Confirming => false,
            Self::Succeeded
            | Self::Failed
            | Self::TimedOut
            | Self::Cancelled
            | Self::Superseded
            | Self::OutcomeUnknown => true,
        }
    }
}

/// What the next boot is from, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BootOnce {
    /// The device.
    pub device: BootDevice,
    /// With `http`: what is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Text>,
    /// By UEFI or by BIOS; left as it is without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uefi: Option<bool>,
}
