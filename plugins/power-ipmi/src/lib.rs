//! Turns machines on and off through management controllers that speak IPMI 2.0 over LAN (RMCP+).
//!
//! Each call is a session of its own: opened, used, closed. Nothing of a session outlives a call,
//! because controllers have few and end idle ones. The password never comes here: the gateway makes
//! the HMACs under it of which all keys of a session follow.

mod chassis;
mod codec;
mod endpoint;
mod refusal;
mod session;

use loopback_plugin_sdk::host::Host;
use loopback_plugin_sdk::power::{
    Action, Begun, Observation, Operation, Provider, Resumed, Support, Supported, Target,
};
use loopback_plugin_sdk::{Diagnostic, Error, Plugin};
use schemars::JsonSchema;
use serde::Deserialize;

use codec::crypt::Suite;
use codec::rakp::USER_BYTES;
use session::{Manner, Session};

/// What a session may do at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Privilege {
    /// Enough for everything here.
    #[default]
    Operator,
    /// For controllers that want it all the same.
    Administrator,
}

/// How controllers are spoken with, unless a target says otherwise.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The user at controllers. Targets may name another.
    #[serde(default)]
    #[schemars(length(max = 16))]
    user: Option<String>,
    /// How sessions are proved and encrypted: 3 (SHA-1) or 17 (SHA-256). AES-128 both.
    #[serde(default = "default_cipher_suite")]
    cipher_suite: u8,
    /// What sessions may do.
    #[serde(default)]
    privilege: Privilege,
    /// How long an answer is waited for.
    #[serde(default = "default_answer_ms")]
    #[schemars(range(min = 100, max = 5_000))]
    answer_ms: u32,
    /// How often a question is sent. An action is sent once, always.
    #[serde(default = "default_tries")]
    #[schemars(range(min = 1, max = 10))]
    tries: u32,
}

fn default_cipher_suite() -> u8 {
    3
}

fn default_answer_ms() -> u32 {
    1_000
}

fn default_tries() -> u32 {
    4
}

/// What is set for a target.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    user: Option<String>,
    cipher_suite: Option<u8>,
    privilege: Option<Privilege>,
    /// How the machine boots where an operation does not say. Yes unless said.
    uefi: Option<bool>,
}

struct Ipmi;

impl Plugin for Ipmi {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        if Suite::of(config.cipher_suite).is_none() {
            found.push(Diagnostic::error("/cipher_suite", "must be 3 or 17"));
        }
        if let Some(Err(error)) = config.user.as_deref().map(check_user) {
            found.push(Diagnostic::error("/user", error));
        }
        if !(100..=5_000).contains(&config.answer_ms) {
            found.push(Diagnostic::error("/answer_ms", "must be 100 to 5000"));
        }
        if !(1..=10).contains(&config.tries) {
            found.push(Diagnostic::error("/tries", "must be 1 to 10"));
        }
        if u64::from(config.answer_ms) * u64::from(config.tries) > 8_000 {
            let message = "a call may end before all tries are made, unless the grant's wall_ms is \
                           above the usual";
            found.push(Diagnostic::warning("/tries", message));
        }
        found
    }
}

impl Provider for Ipmi {
    fn inspect(_: &dyn Host, config: &Config, target: &Target) -> Result<Support, Error> {
        manner(config, target)?;
        let actions = [
            (Action::On, ""),
            (Action::Shutdown, "as if the power button was pressed"),
            (Action::Off, ""),
            (Action::Reset, "not while the machine is off"),
            (
                Action::Cycle,
                "many controllers refuse it while the machine is off",
            ),
            (Action::Nmi, ""),
        ];
        let supported = |(action, note): (Action, &str)| Supported {
            action,
            note: note.to_owned(),
        };
        Ok(Support {
            actions: actions.map(supported).to_vec(),
            observable: true,
            boot_devices: chassis::boot_devices(),
            cancellable: false,
            settle_ms: 10_000,
            // More, and controllers refuse sessions.
            max_parallel: 1,
        })
    }

    fn check_target(
        host: &dyn Host,
        config: &Config,
        target: &Target,
    ) -> Result<Vec<Diagnostic>, Error> {
        let (manner, _) = manner(config, target)?;
        let device = within(host, &manner, |session| {
            // What `observe` asks is allowed too, then.
            chassis::observe(session)?;
            chassis::device(session)
        })?;
        let mut found = vec![Diagnostic::info("", device.what)];
        if device.busy {
            let message = "the controller starts or takes an update";
            found.push(Diagnostic::warning("", message));
        }
        if target.tls_profile.is_some() {
            let message = "has no effect: IPMI knows no TLS";
            found.push(Diagnostic::warning("/tls_profile", message));
        }
        Ok(found)
    }

    fn observe(host: &dyn Host, config: &Config, target: &Target) -> Result<Observation, Error> {
        let (manner, _) = manner(config, target)?;
        within(host, &manner, chassis::observe)
    }

    fn begin(
        host: &dyn Host,
        config: &Config,
        operation: &Operation,
        target: &Target,
    ) -> Result<Begun, Error> {
        let (manner, params) = manner(config, target)?;
        let Some(control) = chassis::control_of(operation.action) else {
            return Err(Error::unsupported(
                "ipmi.action",
                "IPMI cannot ask an operating system to restart: reset or cycle, or shut down and \
                 turn on",
            ));
        };
        let boot = match &operation.boot {
            None => None,
            Some(boot) => {
                let number = chassis::device_number(boot.device)
                    .filter(|_| boot.url.is_none())
                    .ok_or_else(|| {
                        let message = "IPMI cannot have a machine boot from an address";
                        Error::unsupported("ipmi.boot_device", message)
                    })?;
                Some((number, boot.uefi.or(params.uefi).unwrap_or(true)))
            }
        };
        within(host, &manner, |session| {
            let seen = chassis::observe(session)?;
            if seen.is_where_it_leads(operation.action) {
                return Ok(Begun::Already(seen));
            }
            if let Some((device, uefi)) = boot {
                chassis::set_boot(session, device, uefi)?;
            }
            chassis::control(session, control)?;
            Ok(Begun::Done)
        })
    }

    /// Controllers keep no account of what they were told. Where an action leads to a state and
    /// the machine is there, nothing is left to be done; everything else nobody knows.
    fn resume(
        host: &dyn Host,
        config: &Config,
        operation: &Operation,
        target: &Target,
    ) -> Result<Resumed, Error> {
        let seen = Self::observe(host, config, target)?;
        Ok(if seen.is_where_it_leads(operation.action) {
            Resumed::Done
        } else {
            Resumed::Unknown
        })
    }
}

/// Works in a session, and ends it however that goes.
fn within<T>(
    host: &dyn Host,
    manner: &Manner,
    work: impl FnOnce(&mut Session<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut session = Session::begin(host, manner)?;
    let done = work(&mut session);
    session.close();
    done
}

fn manner(config: &Config, target: &Target) -> Result<(Manner, Params), Error> {
    let params: Params = target.read_params()?;
    let user = params.user.clone().or_else(|| config.user.clone());
    let user = user.ok_or_else(|| {
        let message = "neither the target's params nor the configuration name a user";
        Error::invalid("target.params", message)
    })?;
    check_user(&user).map_err(|why| Error::invalid("target.params", format!("user {why}")))?;
    let suite = params.cipher_suite.unwrap_or(config.cipher_suite);
    let suite = Suite::of(suite)
        .ok_or_else(|| Error::invalid("target.params", "cipher_suite must be 3 or 17"))?;
    let privilege = match params.privilege.unwrap_or(config.privilege) {
        Privilege::Operator => 3,
        Privilege::Administrator => 4,
    };
    let manner = Manner {
        endpoint: endpoint::read(&target.address)?,
        route: target.route.clone(),
        user,
        suite,
        privilege,
        answer_ms: config.answer_ms.clamp(100, 5_000),
        tries: config.tries.clamp(1, 10),
    };
    Ok((manner, params))
}

fn check_user(user: &str) -> Result<(), String> {
    let good = !user.is_empty() && user.len() <= USER_BYTES && !user.contains('\0');
    good.then_some(())
        .ok_or_else(|| format!("must have 1 to {USER_BYTES} bytes"))
}

loopback_plugin_sdk::export_power_provider!(Ipmi);

#[cfg(test)]
mod tests;
