//! The machine around a controller: its power and what it boots from (section 28).

use loopback_plugin_sdk::power::{Action, BootDevice, BootOnce, Observation, State};
use loopback_plugin_sdk::{Error, Kv};

use crate::codec::message::Command;
use crate::refusal::{completion, is_unclear};
use crate::session::Session;

const DEVICE_ID: Command = Command {
    function: 6,
    command: 1,
    name: "Get Device ID",
};
const STATUS: Command = Command {
    function: 0,
    command: 1,
    name: "Get Chassis Status",
};
const CONTROL: Command = Command {
    function: 0,
    command: 2,
    name: "Chassis Control",
};
const SET_BOOT: Command = Command {
    function: 0,
    command: 8,
    name: "Set System Boot Options",
};
const GET_BOOT: Command = Command {
    function: 0,
    command: 9,
    name: "Get System Boot Options",
};

/// Parameters of the boot options (table 28-14).
const SET_IN_PROGRESS: u8 = 0;
const ACKNOWLEDGE: u8 = 4;
const BOOT_FLAGS: u8 = 5;

/// In the first byte of the flags: they count; beyond the next boot; by UEFI.
const VALID: u8 = 0x80;
const PERSISTENT: u8 = 0x40;
const UEFI: u8 = 0x20;

/// What Chassis Control calls an action; none for what it has no word for.
pub(crate) fn control_of(action: Action) -> Option<u8> {
    Some(match action {
        Action::Off => 0,
        Action::On => 1,
        Action::Cycle => 2,
        Action::Reset => 3,
        Action::Nmi => 4,
        Action::Shutdown => 5,
        Action::Reboot => return None,
    })
}

/// Boot devices by their numbers in the flags.
const DEVICES: [(BootDevice, u8); 7] = [
    (BootDevice::Default, 0),
    (BootDevice::Network, 1),
    (BootDevice::Disk, 2),
    (BootDevice::Diagnostics, 4),
    (BootDevice::Cdrom, 5),
    (BootDevice::FirmwareSetup, 6),
    (BootDevice::Usb, 15),
];

pub(crate) fn boot_devices() -> Vec<BootDevice> {
    DEVICES.map(|(device, _)| device).to_vec()
}

pub(crate) fn device_number(device: BootDevice) -> Option<u8> {
    let found = DEVICES.iter().find(|(one, _)| *one == device);
    found.map(|(_, number)| *number)
}

/// How the machine is.
pub(crate) fn observe(session: &mut Session<'_>) -> Result<Observation, Error> {
    let answer = session.ask(STATUS, &[])?;
    let mut seen = status(completion(STATUS, &answer)?)?;
    // Not every controller has boot options, and the power is what is asked for.
    if let Ok(answer) = session.ask(GET_BOOT, &[BOOT_FLAGS, 0, 0]) {
        let data = completion(GET_BOOT, &answer);
        seen.boot = data.ok().and_then(boot);
    }
    Ok(seen)
}

fn status(data: &[u8]) -> Result<Observation, Error> {
    let &[power, last, ..] = data else {
        return Err(too_short(STATUS));
    };
    let (state, raw) = if power & 1 == 1 {
        (State::On, "on")
    } else {
        (State::Off, "off")
    };
    let mut seen = Observation::new(state, raw);
    let mut add = |key: &str, value: &str| {
        seen.extra.push(Kv {
            key: key.to_owned(),
            value: value.to_owned(),
        });
    };
    for (bit, what) in [
        (1, "power overload"),
        (2, "interlock"),
        (3, "power fault"),
        (4, "power control fault"),
    ] {
        if power & (1 << bit) != 0 {
            add("fault", what);
        }
    }
    let restored = match (power >> 5) & 3 {
        0 => "stays off",
        1 => "as it was",
        2 => "turns on",
        _ => "unknown",
    };
    add("when power returns", restored);
    if last & 1 != 0 {
        add("last event", "power was lost");
    }
    Ok(seen)
}

/// What the flags say about the next boot, if they count.
fn boot(data: &[u8]) -> Option<BootOnce> {
    // Of what, whether it may be read, and the flags.
    let &[_, parameter, flags, device, ..] = data else {
        return None;
    };
    let counts = parameter == BOOT_FLAGS && flags & VALID != 0;
    let number = (device >> 2) & 0xf;
    let known = DEVICES.iter().find(|(_, one)| *one == number && *one != 0);
    let (device, _) = known.filter(|_| counts)?;
    Some(BootOnce {
        device: *device,
        url: None,
        uefi: Some(flags & UEFI != 0),
    })
}

/// Sets what the next boot is from, once, and looks whether it was set: some controllers take what
/// they do not keep.
pub(crate) fn set_boot(session: &mut Session<'_>, device: u8, uefi: bool) -> Result<(), Error> {
    let mut set = |parameter: u8, data: &[u8]| {
        let data = [&[parameter], data].concat();
        session.ask(SET_BOOT, &data)
    };
    let flags = VALID | if uefi { UEFI } else { 0 };
    // Announced and acknowledged for those that insist; those that do not know it need it not.
    let announced = set(SET_IN_PROGRESS, &[1])?;
    if announced.completion == 0x81 {
        return completion(SET_BOOT, &announced).map(drop);
    }
    set(ACKNOWLEDGE, &[1, 1])?;
    let answer = set(BOOT_FLAGS, &[flags, device << 2, 0, 0, 0]);
    set(SET_IN_PROGRESS, &[0])?;
    completion(SET_BOOT, &answer?)?;

    let answer = session.ask(GET_BOOT, &[BOOT_FLAGS, 0, 0])?;
    let kept = completion(GET_BOOT, &answer)?;
    let &[_, _, kept, on, ..] = kept else {
        return Err(too_short(GET_BOOT));
    };
    if (on >> 2) & 0xf != device || kept & PERSISTENT != 0 {
        let message = "the controller took the boot device and did not keep it";
        return Err(Error::unsupported("ipmi.boot_device", message));
    }
    Ok(())
}

/// Has the machine do something, once.
pub(crate) fn control(session: &mut Session<'_>, control: u8) -> Result<(), Error> {
    let answer = session.once(CONTROL, &[control])?;
    completion(CONTROL, &answer).map(drop).map_err(|mut error| {
        error.outcome_unknown = is_unclear(answer.completion);
        error
    })
}

/// The controller itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// For people.
    pub(crate) what: String,
    /// It takes an update, or starts.
    pub(crate) busy: bool,
}

pub(crate) fn device(session: &mut Session<'_>) -> Result<Device, Error> {
    let answer = session.ask(DEVICE_ID, &[])?;
    let data = completion(DEVICE_ID, &answer)?;
    let &[_, _, major, minor, version, _, m0, m1, m2, p0, p1, ..] = data else {
        return Err(too_short(DEVICE_ID));
    };
    Ok(Device {
        what: format!(
            "IPMI {}.{}, firmware {}.{minor:02x}, manufacturer {}, product {}",
            version & 0xf,
            version >> 4,
            major & 0x7f,
            u32::from_le_bytes([m0, m1, m2, 0]),
            u16::from_le_bytes([p0, p1]),
        ),
        busy: major & 0x80 != 0,
    })
}

fn too_short(command: Command) -> Error {
    Error::upstream("ipmi.short", "the controller's answer is too short")
        .detail("command", command.name)
}

#[cfg(test)]
mod tests;
