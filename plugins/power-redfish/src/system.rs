//! A page of the schema ComputerSystem, read: pure.

use loopback_plugin_sdk::power::{BootDevice, BootOnce, Observation, State};
use loopback_plugin_sdk::{Error, Kv};
use serde_json::Value;

use crate::boot;
use crate::connection::Page;
use crate::place::{Origin, Place};
use crate::reset::ResetType;

/// Such a page.
pub(crate) struct System {
    pub(crate) place: Place,
    page: Page,
}

/// Where it says which ways of resetting there are.
pub(crate) enum Ways {
    /// On the page itself.
    Told(Vec<String>),
    /// On another page.
    Elsewhere(Place),
    /// Nowhere.
    Untold,
}

impl System {
    pub(crate) fn new(place: Place, page: Page) -> Self {
        Self { place, page }
    }

    pub(crate) fn json(&self) -> &Value {
        &self.page.json
    }

    pub(crate) fn etag(&self) -> Option<&str> {
        self.page.etag.as_deref()
    }

    /// The state, and the controller's word for it.
    pub(crate) fn state(&self) -> (State, &str) {
        let word = self.json()["PowerState"].as_str().unwrap_or_default();
        let state = match word {
            "On" => State::On,
            "Off" => State::Off,
            "PoweringOn" => State::PoweringOn,
            "PoweringOff" => State::PoweringOff,
            "Paused" => State::Suspended,
            _ => State::Unknown,
        };
        (state, word)
    }

    pub(crate) fn observation(&self) -> Observation {
        let (state, raw) = self.state();
        let mut seen = Observation::new(state, raw);
        seen.boot_mark = self.text("LastResetTime");
        seen.boot = self.boot();
        for key in ["Manufacturer", "Model", "SerialNumber", "BiosVersion"] {
            seen.extra
                .extend(self.text(key).map(|value| note(key, value)));
        }
        let health = self.json()["Status"]["Health"].as_str();
        seen.extra
            .extend(health.map(|value| note("Health", value.to_owned())));
        let progress = self.json()["BootProgress"]["LastState"].as_str();
        seen.extra
            .extend(progress.map(|value| note("BootProgress", value.to_owned())));
        seen
    }

    /// What the next boot is from, where it is only the next one.
    fn boot(&self) -> Option<BootOnce> {
        let boot = &self.json()["Boot"];
        if boot["BootSourceOverrideEnabled"] != "Once" {
            return None;
        }
        let device = boot::device(boot["BootSourceOverrideTarget"].as_str()?)?;
        let url = boot["HttpBootUri"]
            .as_str()
            .filter(|_| device == BootDevice::Http);
        let uefi = match boot["BootSourceOverrideMode"].as_str() {
            Some("UEFI") => Some(true),
            Some("Legacy") => Some(false),
            _ => None,
        };
        Some(BootOnce {
            device,
            url: url.filter(|url| url.contains("://")).map(str::to_owned),
            uefi,
        })
    }

    /// A text that says something.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        let text = self.json()[key].as_str()?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Where an action is sent to.
    pub(crate) fn reset_target(&self, origin: &Origin) -> Result<Place, Error> {
        match self.reset()["target"].as_str() {
            Some(target) => origin.place(target),
            None => Err(Error::unsupported(
                "redfish.no_reset",
                "the controller has no action ComputerSystem.Reset for this system",
            )),
        }
    }

    pub(crate) fn ways(&self, origin: &Origin) -> Result<Ways, Error> {
        if let Some(told) = allowed(&self.reset()["ResetType@Redfish.AllowableValues"]) {
            return Ok(Ways::Told(told));
        }
        match self.reset()["@Redfish.ActionInfo"].as_str() {
            Some(place) => origin.place(place).map(Ways::Elsewhere),
            None => Ok(Ways::Untold),
        }
    }

    fn reset(&self) -> &Value {
        &self.json()["Actions"]["#ComputerSystem.Reset"]
    }
}

/// Ways of resetting out of an ActionInfo page.
pub(crate) fn ways_of_info(page: &Value) -> Option<Vec<String>> {
    let parameters = page["Parameters"].as_array()?;
    let parameter = parameters.iter().find(|it| it["Name"] == "ResetType")?;
    allowed(&parameter["AllowableValues"])
}

/// Where nothing is said, what nearly every controller can do. One that cannot will say so.
pub(crate) fn usual_ways() -> Vec<String> {
    [
        ResetType::On,
        ResetType::ForceOff,
        ResetType::GracefulShutdown,
        ResetType::ForceRestart,
    ]
    .map(|way| way.as_str().to_owned())
    .to_vec()
}

/// A list of words.
pub(crate) fn allowed(value: &Value) -> Option<Vec<String>> {
    let words = value.as_array()?.iter().filter_map(Value::as_str);
    let words: Vec<_> = words.map(str::to_owned).collect();
    (!words.is_empty()).then_some(words)
}

fn note(key: &str, value: String) -> Kv {
    Kv {
        key: key.to_owned(),
        value,
    }
}
