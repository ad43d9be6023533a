//! Turns machines on by Wake-on-LAN.
//!
//! A network card that was left listening turns its machine on when it sees a packet with its own
//! address in it. Nothing answers, nothing can be asked, and nothing else can be done: whether a
//! machine woke is told by its agent, when it connects.

use loopback_plugin_sdk::host::Host;
use loopback_plugin_sdk::power::{
    Action, Begun, Observation, Operation, Provider, State, Support, Supported, Target,
};
use loopback_plugin_sdk::{Diagnostic, Error, Plugin};
use schemars::JsonSchema;
use serde::Deserialize;

/// Cards of one machine.
const MAX_CARDS: usize = 16;

/// How packets are sent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// How often each packet is sent: nothing tells whether one was lost.
    #[serde(default = "default_packets")]
    #[schemars(range(min = 1, max = 10))]
    packets: u32,
}

fn default_packets() -> u32 {
    3
}

/// What is set for a target: nothing. The address is all there is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {}

struct Wol;

impl Plugin for Wol {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        if (1..=10).contains(&config.packets) {
            return Vec::new();
        }
        vec![Diagnostic::error("/packets", "must be 1 to 10")]
    }
}

impl Provider for Wol {
    fn inspect(_: &dyn Host, _: &Config, target: &Target) -> Result<Support, Error> {
        cards(target)?;
        Ok(Support {
            actions: vec![Supported {
                action: Action::On,
                note: "sends a packet; nothing tells whether it was heard".to_owned(),
            }],
            observable: false,
            boot_devices: Vec::new(),
            cancellable: false,
            settle_ms: 0,
            max_parallel: 0,
        })
    }

    fn check_target(_: &dyn Host, _: &Config, target: &Target) -> Result<Vec<Diagnostic>, Error> {
        cards(target)?;
        let mut found = Vec::new();
        if target.tls_profile.is_some() {
            let message = "has no effect: a packet that wakes is not encrypted";
            found.push(Diagnostic::warning("/tls_profile", message));
        }
        Ok(found)
    }

    /// Nothing is known, ever. `inspect` says so too.
    fn observe(_: &dyn Host, _: &Config, target: &Target) -> Result<Observation, Error> {
        cards(target)?;
        Ok(Observation::new(State::Unknown, "not observable"))
    }

    /// A packet to a machine that is on does nothing, so one that may or may not have been sent is
    /// as good as one that was not.
    fn begin(
        host: &dyn Host,
        config: &Config,
        operation: &Operation,
        target: &Target,
    ) -> Result<Begun, Error> {
        if operation.action != Action::On {
            return Err(Error::unsupported(
                "wol.action",
                "Wake-on-LAN can turn a machine on, and nothing else",
            ));
        }
        if operation.boot.is_some() {
            return Err(Error::unsupported(
                "wol.boot",
                "Wake-on-LAN cannot choose what a machine boots from",
            ));
        }
        let cards = cards(target)?;
        for _ in 0..config.packets.clamp(1, 10) {
            for card in &cards {
                host.wake_on_lan(card, target.route.as_deref())
                    .map_err(again)?;
            }
        }
        Ok(Begun::Done)
    }
}

fn again(mut error: Error) -> Error {
    error.outcome_unknown = false;
    error
}

/// The hardware addresses in a target's address, as `aa:bb:cc:dd:ee:ff`. Dashes are read too, as
/// other systems write them.
fn cards(target: &Target) -> Result<Vec<String>, Error> {
    let Params {} = target.read_params()?;
    let cards = target
        .address
        .split(',')
        .map(|text| card(text.trim()))
        .collect::<Result<Vec<_>, _>>()?;
    if cards.len() > MAX_CARDS {
        let message = format!("at most {MAX_CARDS} hardware addresses");
        return Err(Error::invalid("target.address", message));
    }
    Ok(cards)
}

fn card(text: &str) -> Result<String, Error> {
    let card = text.replace('-', ":").to_ascii_lowercase();
    let octets: Vec<&str> = card.split(':').collect();
    let hex = |octet: &&str| octet.len() == 2 && u8::from_str_radix(octet, 16).is_ok();
    let plus = card.contains('+');
    if octets.len() != 6 || !octets.iter().all(hex) || plus {
        let message = "must be hardware addresses as in aa:bb:cc:dd:ee:ff, separated by commas";
        return Err(Error::invalid("target.address", message).detail("address", text));
    }
    let first = u8::from_str_radix(octets[0], 16).unwrap_or(1);
    if first & 1 == 1 {
        let message = "the address of a group wakes nobody in particular";
        return Err(Error::invalid("target.address", message).detail("address", text));
    }
    Ok(card)
}

loopback_plugin_sdk::export_power_provider!(Wol);

#[cfg(test)]
mod tests;
