//! Which of a controller's ways of resetting does which of our actions: pure.
//!
//! Ways that do something else than the action says are not taken for it: `PushPowerButton` does what
//! the operating system makes of a button, so it stands in only where nothing better is offered, and
//! with a note. `GracefulShutdown` is never made of `ForceOff`, nor the reverse: escalating is the
//! operator's decision.

use loopback_plugin_sdk::Error;
use loopback_plugin_sdk::power::{Action, State, Supported};

/// The ways of the schema that this plugin uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResetType {
    On,
    ForceOn,
    GracefulShutdown,
    ForceOff,
    GracefulRestart,
    ForceRestart,
    PowerCycle,
    Nmi,
    PushPowerButton,
}

const ACTIONS: [Action; 7] = [
    Action::On,
    Action::Shutdown,
    Action::Off,
    Action::Reboot,
    Action::Reset,
    Action::Cycle,
    Action::Nmi,
];

impl ResetType {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::On => "On",
            Self::ForceOn => "ForceOn",
            Self::GracefulShutdown => "GracefulShutdown",
            Self::ForceOff => "ForceOff",
            Self::GracefulRestart => "GracefulRestart",
            Self::ForceRestart => "ForceRestart",
            Self::PowerCycle => "PowerCycle",
            Self::Nmi => "Nmi",
            Self::PushPowerButton => "PushPowerButton",
        }
    }

    /// The first that is offered of those that do the action.
    pub(crate) fn of(action: Action, offered: &[String]) -> Option<Self> {
        let candidates: &[Self] = match action {
            Action::On => &[Self::On, Self::ForceOn, Self::PushPowerButton],
            Action::Shutdown => &[Self::GracefulShutdown, Self::PushPowerButton],
            Action::Off => &[Self::ForceOff],
            Action::Reboot => &[Self::GracefulRestart],
            Action::Reset => &[Self::ForceRestart],
            Action::Cycle => &[Self::PowerCycle],
            Action::Nmi => &[Self::Nmi],
        };
        let mut candidates = candidates.iter().copied();
        candidates.find(|way| offered.iter().any(|word| word == way.as_str()))
    }

    fn note(self) -> &'static str {
        match self {
            Self::ForceOn => "with ForceOn: the controller offers no On",
            Self::PushPowerButton => {
                "presses the power button: the controller offers nothing else, and what a press does is the \
                 operating system's matter"
            }
            _ => "",
        }
    }
}

/// What can be done with what is offered.
pub(crate) fn supported(offered: &[String]) -> Vec<Supported> {
    let of = |action| {
        let note = ResetType::of(action, offered)?.note().to_owned();
        Some(Supported { action, note })
    };
    ACTIONS.into_iter().filter_map(of).collect()
}

/// Whether an action may be sent to a machine in this state. Where it leads is not asked here.
pub(crate) fn may_be_sent(action: Action, way: ResetType, state: State) -> Result<(), Error> {
    let settling = matches!(state, State::PoweringOn | State::PoweringOff);
    // Whoever cuts the power does so because waiting did not help.
    let forced = matches!(action, Action::Off | Action::Reset | Action::Cycle);
    if settling && !forced {
        let what = "the machine is between on and off";
        return Err(
            Error::busy("redfish.settling", what).retry_after_ms(crate::connection::SETTLING_MS)
        );
    }
    let restarts = matches!(
        action,
        Action::Reboot | Action::Reset | Action::Cycle | Action::Nmi
    );
    if restarts && state == State::Off {
        let what = "the machine is off, and there is nothing to restart: turn it on";
        return Err(Error::new(
            loopback_plugin_sdk::ErrorKind::Conflict,
            "redfish.off",
            what,
        ));
    }
    let sure = matches!(state, State::On | State::Off);
    if way == ResetType::PushPowerButton && !sure {
        let what =
            "a press of the button could do the opposite: whether the machine is on is not known";
        return Err(Error::busy("redfish.button", what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn the_best_way_that_is_offered_is_taken() {
        let all = words(&[
            "PushPowerButton",
            "ForceOn",
            "On",
            "GracefulShutdown",
            "ForceOff",
        ]);
        assert_eq!(ResetType::of(Action::On, &all), Some(ResetType::On));
        assert_eq!(
            ResetType::of(Action::Shutdown, &all),
            Some(ResetType::GracefulShutdown)
        );
        assert_eq!(ResetType::of(Action::Cycle, &all), None);
        let few = words(&["PushPowerButton", "ForceOff"]);
        let actions: Vec<_> = supported(&few)
            .into_iter()
            .map(|it| (it.action, it.note.contains("button")))
            .collect();
        assert_eq!(
            actions,
            [
                (Action::On, true),
                (Action::Shutdown, true),
                (Action::Off, false)
            ]
        );
    }

    #[test]
    fn nothing_gentle_is_sent_while_a_machine_settles() {
        for state in [State::PoweringOn, State::PoweringOff] {
            for action in [Action::On, Action::Shutdown, Action::Reboot, Action::Nmi] {
                let error = may_be_sent(action, ResetType::On, state).unwrap_err();
                assert_eq!(error.code, "redfish.settling");
                assert!(error.is_transient());
            }
            assert!(may_be_sent(Action::Off, ResetType::ForceOff, state).is_ok());
        }
    }

    #[test]
    fn what_is_off_is_not_restarted() {
        for action in [Action::Reboot, Action::Reset, Action::Cycle, Action::Nmi] {
            let error = may_be_sent(action, ResetType::ForceRestart, State::Off).unwrap_err();
            assert_eq!(error.code, "redfish.off");
            assert!(!error.is_transient());
        }
        assert!(may_be_sent(Action::On, ResetType::On, State::Off).is_ok());
    }

    #[test]
    fn a_button_is_pressed_only_where_the_state_is_sure() {
        let press = |state| may_be_sent(Action::On, ResetType::PushPowerButton, state).is_ok();
        assert!(press(State::Off));
        assert!(!press(State::Unknown));
        assert!(!press(State::Suspended));
    }
}
