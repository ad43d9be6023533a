//! What the next boot is from, in Redfish's words: pure.

use loopback_plugin_sdk::Error;
use loopback_plugin_sdk::power::{BootDevice, BootOnce};
use serde_json::{Value, json};

use crate::system::allowed;

const DEVICES: [(BootDevice, &str); 7] = [
    (BootDevice::Disk, "Hdd"),
    (BootDevice::Network, "Pxe"),
    (BootDevice::Http, "UefiHttp"),
    (BootDevice::Cdrom, "Cd"),
    (BootDevice::Usb, "Usb"),
    (BootDevice::FirmwareSetup, "BiosSetup"),
    (BootDevice::Diagnostics, "Diags"),
];

pub(crate) fn device(word: &str) -> Option<BootDevice> {
    if word == "None" {
        return Some(BootDevice::Default);
    }
    let mut all = DEVICES.iter();
    let found = all.find(|(_, known)| *known == word);
    found.map(|(device, _)| *device)
}

fn word(device: BootDevice) -> &'static str {
    let mut all = DEVICES.iter();
    let found = all.find(|(known, _)| *known == device);
    found.map_or("None", |(_, word)| word)
}

/// Devices that a system offers.
pub(crate) fn offered(system: &Value) -> Vec<BootDevice> {
    let targets = allowed(&system["Boot"]["BootSourceOverrideTarget@Redfish.AllowableValues"]);
    let Some(targets) = targets else {
        return Vec::new();
    };
    let devices = DEVICES.into_iter();
    let offered = devices.filter(|(_, word)| targets.iter().any(|target| target == word));
    // Taking an override back is always possible where there can be one.
    let first = std::iter::once(BootDevice::Default);
    first.chain(offered.map(|(device, _)| device)).collect()
}

/// The change of a system that sets it, once.
pub(crate) fn change(system: &Value, wanted: &BootOnce) -> Result<Value, Error> {
    if wanted.device == BootDevice::Default {
        return Ok(json!({ "Boot": {
            "BootSourceOverrideEnabled": "Disabled",
            "BootSourceOverrideTarget": "None",
        } }));
    }
    let target = word(wanted.device);
    if !offered(system).contains(&wanted.device) {
        let what = format!("the controller does not offer to boot once from {target}");
        return Err(Error::unsupported("redfish.boot_device", what));
    }
    let mut boot = json!({
        "BootSourceOverrideEnabled": "Once",
        "BootSourceOverrideTarget": target,
    });
    let uefi = match (wanted.device, wanted.uefi) {
        (BootDevice::Http, Some(false)) => {
            let what = "booting from an address is UEFI's alone";
            return Err(Error::invalid("redfish.boot_mode", what));
        }
        (BootDevice::Http, _) => Some(true),
        (_, uefi) => uefi,
    };
    if let Some(uefi) = uefi {
        boot["BootSourceOverrideMode"] = json!(if uefi { "UEFI" } else { "Legacy" });
    }
    if let Some(url) = wanted
        .url
        .as_ref()
        .filter(|_| wanted.device == BootDevice::Http)
    {
        boot["HttpBootUri"] = json!(url);
    }
    Ok(json!({ "Boot": boot }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system() -> Value {
        json!({ "Boot": {
            "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "UefiHttp", "Floppy"],
        } })
    }

    fn once(device: BootDevice, url: Option<&str>, uefi: Option<bool>) -> BootOnce {
        BootOnce {
            device,
            url: url.map(str::to_owned),
            uefi,
        }
    }

    #[test]
    fn only_what_is_offered_can_be_asked_for() {
        let devices = [BootDevice::Default, BootDevice::Network, BootDevice::Http];
        assert_eq!(offered(&system()), devices);
        assert_eq!(offered(&json!({})), []);
        let error = change(&system(), &once(BootDevice::Cdrom, None, None)).unwrap_err();
        assert_eq!(error.code, "redfish.boot_device");
    }

    #[test]
    fn the_mode_is_changed_only_where_it_is_asked_for_or_has_to_be() {
        let plain = change(&system(), &once(BootDevice::Network, None, None)).unwrap();
        assert_eq!(
            plain,
            json!({ "Boot": {
                "BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe",
            } })
        );
        let url = "https://boot.example/grub.efi";
        let http = change(&system(), &once(BootDevice::Http, Some(url), None)).unwrap();
        assert_eq!(http["Boot"]["BootSourceOverrideMode"], "UEFI");
        assert_eq!(http["Boot"]["HttpBootUri"], url);
        let legacy = change(&system(), &once(BootDevice::Http, None, Some(false)));
        assert_eq!(legacy.unwrap_err().code, "redfish.boot_mode");
        let none = change(&system(), &once(BootDevice::Default, None, None)).unwrap();
        assert_eq!(none["Boot"]["BootSourceOverrideEnabled"], "Disabled");
    }
}
