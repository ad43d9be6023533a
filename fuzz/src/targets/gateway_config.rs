//! The gateway's configuration file.

use gateway::config::{AddressRange, Config, duration};

use super::{reads_as_it_writes, text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "gateway_config",
    about: "the gateway's configuration: read or refused, and written as it was read",
    run,
    seeds,
    longest: 2048,
};

fn run(input: &[u8]) {
    let Some(text) = text(input) else { return };
    if let Ok(config) = toml::from_str::<Config>(text) {
        let written = toml::to_string(&config).unwrap();
        let again: Config = toml::from_str(&written).unwrap();
        // A fraction that is no number does not equal itself.
        assert!(
            again == config || config.mass_loss.fraction.is_nan(),
            "{written}"
        );
    }
    if let Ok(length) = duration::parse(text) {
        assert_eq!(duration::parse(&duration::format(length)).unwrap(), length);
    }
    reads_as_it_writes::<AddressRange>(text);
}

fn seeds() -> Vec<Vec<u8>> {
    let default = toml::to_string(&Config::default()).unwrap();
    texts(&[
        &default,
        "",
        "listen = '127.0.0.1:0'\ntrusted_proxies = ['10.0.0.0/8', '2001:db8::/32']\n",
        "public_url = 'https://gateway.example.com:8443'\n[agents]\nheartbeat = '10s'\n",
        "[mass_loss]\nfraction = nan\nwindow = '1h30m'\n",
        "[limits]\nbody_bytes = -1\n",
        "release_keys = ['loopback-release-1:x']\n[log]\nformat = 'json'\n",
        "1h30m",
        "90s",
        "18446744073709551615d",
        "10.0.0.0/8",
        "::/0",
        "a = [[[[[[[[[[[[[[[[",
    ])
}
