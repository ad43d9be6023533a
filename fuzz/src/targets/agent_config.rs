//! The agent's configuration file, and the environment's proxy.
//!
//! Input: the file, then after a NUL byte the value of `HTTPS_PROXY`, and after
//! another `NO_PROXY`.

use agent::config::Config;

use super::{text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "agent_config",
    about: "the agent's configuration: read or refused; paths absolute, secrets hidden",
    run,
    seeds,
    longest: 1024,
};

fn run(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let (proxy, spared) = (parts.next(), parts.next());
    let env = |name: &str| match name {
        "HTTPS_PROXY" => proxy.map(str::to_owned),
        "NO_PROXY" => spared.map(str::to_owned),
        _ => None,
    };
    let Ok(config) = Config::parse(file, env) else {
        return;
    };
    assert!(config.state_dir.is_absolute());
    assert!(
        config
            .runtime_dirs
            .iter()
            .all(|folder| folder.is_absolute())
    );
    for target in [&config.gateway, &config.link] {
        assert_eq!(
            &target.to_string().parse::<link::dial::Target>().unwrap(),
            target
        );
        assert_ne!(target.port(), 0);
    }
    if let Some(proxy) = config.proxy.for_target(&config.gateway) {
        let shown = format!("{proxy:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let full = "gateway = 'https://gateway.example.com:8443'\nlink = 'edge.example.com:4433'\n\
        state_dir = '/var/lib/a'\nruntime_dir = '/run/a'\ntoken_file = '/etc/a/token'\n\
        ca_file = '/etc/a/ca.pem'\nchannel = 'unstable'\nverbose = true\n\
        proxy = 'http://me:hunter2@proxy.example.com:3128'\nlog_file = '/var/log/a'\n\
        log_max_bytes = 65536\n";
    texts(&[
        full,
        "gateway = 'https://gw'",
        "gateway = 'https://gw'\0http://me:hunter2@outer:1\0gw,.example.com,10.0.0.0/8,*",
        "gateway = 'https://[2001:db8::1]:8443'\0https://outer\0[::1]:443",
        "gateway = 'http://gw'",
        "gateway = 'https://gw'\nstate_dir = 'state'",
        "gateway = 'https://gw'\nhttps_pin = 'sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='",
        "gateway = 'https://gw:0'",
    ])
}
