//! How a machine is, and what its configuration says of its cards.

use loopback_plugin_sdk::Kv;
use loopback_plugin_sdk::power::{Observation, State};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What `status/current` answers, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Current {
    status: String,
    qmpstatus: Option<String>,
    pub(crate) lock: Option<String>,
    name: Option<String>,
    ha: Option<Ha>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Ha {
    managed: Value,
}

impl Current {
    /// As a list has it: QEMU itself was not asked, so that a machine that is paused runs there.
    pub(crate) fn listed(status: Option<String>, lock: Option<String>) -> Self {
        Self {
            status: status.unwrap_or_default(),
            lock,
            ..Self::default()
        }
    }

    pub(crate) fn observation(&self) -> Observation {
        let mut seen = Observation::new(self.state(), self.raw());
        let mut add = |key: &str, value: &str| {
            seen.extra.push(Kv {
                key: key.to_owned(),
                value: value.to_owned(),
            });
        };
        if let Some(name) = &self.name {
            add("name", name);
        }
        if let Some(lock) = &self.lock {
            add("lock", lock);
        }
        let managed = self.ha.as_ref().map(|ha| &ha.managed);
        if managed.is_some_and(|managed| *managed == 1 || *managed == "1" || *managed == true) {
            add("high availability", "managed");
        }
        seen
    }

    /// QEMU is asked itself while it runs; what it says is more than that it runs.
    pub(crate) fn state(&self) -> State {
        match (self.status.as_str(), self.qmpstatus.as_deref()) {
            // Its memory lies on disk, and the next start goes on with it.
            ("stopped", _) if self.lock.as_deref() == Some("suspended") => State::Suspended,
            ("stopped", _) => State::Off,
            ("running", None | Some("running")) => State::On,
            ("running", Some("paused" | "suspended" | "io-error")) => State::Suspended,
            ("running", Some("shutdown")) => State::PoweringOff,
            _ => State::Unknown,
        }
    }

    /// Whether it is in memory and waits, so that it is not to be started but to go on.
    pub(crate) fn is_paused(&self) -> bool {
        self.status == "running" && self.state() == State::Suspended
    }

    fn raw(&self) -> String {
        match self.qmpstatus.as_deref() {
            Some(said) if said != self.status => format!("{} ({said})", self.status),
            _ => self.status.clone(),
        }
    }
}

/// Hardware addresses in a configuration: `net0`, `net1` and so on.
pub(crate) fn macs(config: &Map<String, Value>) -> Vec<String> {
    let numbered = config.iter().filter_map(|(key, value)| {
        let number: u8 = key.strip_prefix("net")?.parse().ok()?;
        Some((number, value.as_str()?))
    });
    let mut cards: Vec<_> = numbered.collect();
    cards.sort_unstable();
    let of = |card: &str| {
        let mut values = card.split(',').filter_map(|part| part.split_once('='));
        let (_, mac) = values.find(|(_, value)| is_mac(value))?;
        Some(mac.to_ascii_lowercase())
    };
    cards.into_iter().filter_map(|(_, card)| of(card)).collect()
}

fn is_mac(text: &str) -> bool {
    let octet = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.split(':').count() == 6 && text.split(':').all(octet)
}

/// The UUID that a machine finds in its firmware.
pub(crate) fn uuid(config: &Map<String, Value>) -> Option<String> {
    let settings = config.get("smbios1")?.as_str()?;
    let uuid = settings
        .split(',')
        .find_map(|part| part.strip_prefix("uuid="))?;
    Some(uuid.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn states_are_what_qemu_says_and_never_guessed() {
        for (said, state, raw) in [
            (
                json!({ "status": "running", "qmpstatus": "running" }),
                State::On,
                "running",
            ),
            (
                json!({ "status": "stopped", "qmpstatus": "stopped" }),
                State::Off,
                "stopped",
            ),
            (json!({ "status": "running" }), State::On, "running"),
            (json!({ "status": "stopped" }), State::Off, "stopped"),
            (
                json!({ "status": "running", "qmpstatus": "paused" }),
                State::Suspended,
                "running (paused)",
            ),
            (
                json!({ "status": "running", "qmpstatus": "io-error" }),
                State::Suspended,
                "running (io-error)",
            ),
            (
                json!({ "status": "stopped", "lock": "suspended" }),
                State::Suspended,
                "stopped",
            ),
            (
                json!({ "status": "running", "qmpstatus": "shutdown" }),
                State::PoweringOff,
                "running (shutdown)",
            ),
            (
                json!({ "status": "running", "qmpstatus": "guest-panicked" }),
                State::Unknown,
                "running (guest-panicked)",
            ),
            (
                json!({ "status": "word of a later version" }),
                State::Unknown,
                "word of a later version",
            ),
            (json!({}), State::Unknown, ""),
        ] {
            let current: Current = serde_json::from_value(said.clone()).unwrap();
            let seen = current.observation();
            assert_eq!((seen.state, seen.raw.as_str()), (state, raw), "{said}");
        }
    }

    #[test]
    fn cards_are_found_in_both_ways_of_writing_them() {
        let config = json!({
            "net10": "virtio=BC:24:11:00:00:0A,bridge=vmbr0",
            "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1",
            "net1": "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:02,ip=dhcp,type=veth",
            "net2": "model=e1000",
            "netx": "virtio=BC:24:11:00:00:03",
            "smbios1": "uuid=6A0F-X,serial=1",
        });
        let config = config.as_object().unwrap();
        let found = macs(config);
        assert_eq!(
            found,
            [
                "bc:24:11:00:00:01",
                "bc:24:11:00:00:02",
                "bc:24:11:00:00:0a"
            ]
        );
        assert_eq!(uuid(config).unwrap(), "6a0f-x");
    }
}
