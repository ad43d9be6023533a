//! The stories, one file each. A story reads top to bottom as what a person would do and see; what
//! several need lives in `support` and [`crate::product`].

mod aarch64;
mod audit_tamper;
mod backup_restore;
mod ca_rotation;
mod clone;
mod commands;
mod diagnose;
mod gateway_restart;
mod hostile_plugins;
mod install;
mod lab;
mod lossy_link;
mod monitoring;
mod plugins;
mod power;
mod power_loss;
mod process;
mod reboot;
mod registry;
mod secrets;
mod slow_peers;
mod support;
mod token_revoked;
mod udp_blocked;
mod uninstall;

use anyhow::Result;

use crate::{
    product::Programs,
    scenario::{Needs, Scenario},
};

/// All scenarios, in the order they are shown.
pub const ALL: &[Scenario] = &[
    scenario(
        "lab",
        "booted hosts with power, plug and packet loss; nothing left behind",
        Needs::HOSTS,
        lab::run,
    ),
    scenario(
        "process",
        "an unprivileged agent joins, restarts, and is alone on its state",
        Needs::PROCESSES,
        process::run,
    ),
    scenario(
        "audit-tamper",
        "a flipped byte, a deleted entry and a cut tail of an export are found",
        Needs::PROCESSES,
        audit_tamper::run,
    ),
    scenario(
        "plugins",
        "a notifier, a policy, installers, an upgrade under load: all by plugins, one in JavaScript",
        Needs::PLUGINS,
        plugins::run,
    ),
    scenario(
        "hostile-plugins",
        "ten policies do harm at every request for a minute; hosts, memory and others stay as they are",
        Needs::PROCESSES,
        hostile_plugins::run,
    )
    .covering(&[31, 32, 33]),
    scenario(
        "registry",
        "a signed policy comes from a real registry; exchanged, foreign and moved ones are refused",
        Needs::REGISTRY,
        registry::run,
    ),
    scenario(
        "secrets",
        "no secret is in a process list, log, file, metric or answer where it does not belong",
        Needs::PROCESSES,
        secrets::run,
    )
    .covering(&[30]),
    scenario(
        "slow-peers",
        "ten thousand silent connections; who has a key is served, and hosts stay linked",
        Needs::PROCESSES,
        slow_peers::run,
    )
    .covering(&[17, 19]),
    scenario(
        "install",
        "three hosts install by one pasted command; a second run changes nothing",
        Needs::INSTALLED_HOSTS,
        install::run,
    ),
    scenario(
        "reboot",
        "the history shows the reboot and the new boot id",
        Needs::INSTALLED_HOSTS,
        reboot::run,
    ),
    scenario(
        "power-loss",
        "unreachable within three beats, and back",
        Needs::INSTALLED_HOSTS,
        power_loss::run,
    ),
    scenario(
        "clone",
        "a copied state is quarantined; split, replace and merge repair it",
        Needs::INSTALLED_HOSTS,
        clone::run,
    )
    .covering(&[9]),
    scenario(
        "token-revoked",
        "joins nobody a second later; joined hosts stay",
        Needs::INSTALLED_HOSTS,
        token_revoked::run,
    ),
    scenario(
        "udp-blocked",
        "linked again over WebSocket within 10 s, and back on UDP",
        Needs::INSTALLED_HOSTS,
        udp_blocked::run,
    ),
    scenario(
        "lossy-link",
        "30 % of the packets are lost, then all for a while; the host comes back as who it was",
        Needs::INSTALLED_HOSTS,
        lossy_link::run,
    ),
    scenario(
        "commands",
        "ten hosts, one off: nine run at once, it once it is back, and what expired never",
        Needs::INSTALLED_HOSTS,
        commands::run,
    ),
    scenario(
        "gateway-restart",
        "hosts are unconfirmed, then connected; no false alarm",
        Needs::INSTALLED_HOSTS,
        gateway_restart::run,
    ),
    scenario(
        "backup-restore",
        "a backup taken under load restores elsewhere; hosts stay, revoked tokens stay revoked",
        Needs::INSTALLED_HOSTS,
        backup_restore::run,
    ),
    scenario(
        "ca-rotation",
        "a new authority is trusted, signs, and the old one goes once nobody needs it",
        Needs::INSTALLED_HOSTS,
        ca_rotation::run,
    ),
    scenario(
        "power",
        "a controller stops, boots and resets a host; agents prove it, and each thing is told once",
        Needs::POWERED_HOSTS,
        power::run,
    ),
    scenario(
        "power-wake",
        "a packet wakes a host, and nothing is claimed before its agent proves it",
        Needs::POWERED_HOSTS,
        power::wake::run,
    ),
    scenario(
        "power-providers",
        "EC2, Hetzner, IPMI, signed requests, Proxmox: each from the command line to the other side",
        Needs::PLUGINS,
        power::providers::run,
    ),
    scenario(
        "power-hostile",
        "providers and controllers that hang, lie and flood; others are turned on and off as before",
        Needs::PLUGINS,
        power::hostile::run,
    ),
    scenario(
        "power-route",
        "a controller that only one host reaches is operated through its agent, and not otherwise",
        Needs::POWERED_HOSTS,
        power::route::run,
    ),
    scenario(
        "monitoring",
        "a real Prometheus scrapes three hosts through the gateway; one disk fills, one alert fires",
        Needs::MONITORED_HOSTS,
        monitoring::run,
    ),
    scenario(
        "diagnose",
        "a broken host shows what is broken, and no secret that lies around in it",
        Needs::INSTALLED_HOSTS,
        diagnose::run,
    ),
    scenario(
        "uninstall",
        "no file, unit or user is left, and the host is retired",
        Needs::INSTALLED_HOSTS,
        uninstall::run,
    ),
    scenario(
        "aarch64",
        "the other architecture's agent joins from an emulator",
        Needs::EMULATED,
        aarch64::run,
    ),
];

const fn scenario(
    name: &'static str,
    shows: &'static str,
    needs: Needs,
    run: fn(&Programs) -> Result<()>,
) -> Scenario {
    Scenario {
        name,
        shows,
        needs,
        cases: &[],
        run,
    }
}
