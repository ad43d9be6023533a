use loopback_plugin_sdk::installer::Binary as Wire;
use loopback_plugin_sdk::{ErrorKind, Kv};

use super::*;

/// What the golden file of `install-script` was rendered from.
fn input() -> Input {
    let binary = |arch: &str, size| Wire {
        arch: arch.into(),
        name: format!("loopback-agent-linux-{arch}"),
        sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".into(),
        size,
    };
    let path = |key: &str, value: &str| Kv {
        key: key.into(),
        value: value.into(),
    };
    Input {
        base_url: "https://gateway.example:8443".into(),
        channel: "stable".into(),
        verbose: false,
        production: true,
        workspace: Some("web".into()),
        version: "1.2.3".into(),
        binaries: vec![binary("x86_64", 3_141_592), binary("aarch64", 2_718_281)],
        ca_pem: "-----BEGIN CERTIFICATE-----\n\
            MIIBszCCAVmgAwIBAgIUZm9yIHRoZSBpbnN0YWxsZXIncyB0ZXN0czAKBggqhkjO\n\
            PQQDAjAVMRMwEQYDVQQDDApsb29wYmFjayBjYTAgFw0=\n\
            -----END CERTIFICATE-----\n"
            .into(),
        https_pin: Some("sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".into()),
        release_keys: vec![
            "loopback-release-1:0f1e2d3c4b5a6978:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
                .into(),
        ],
        paths: vec![
            path("releases", "/v1/agent/releases"),
            path("script", "/v1/agent/install.sh"),
        ],
        extra: vec![],
    }
}

#[test]
fn the_reviewed_script_comes_out_byte_for_byte() {
    let golden = include_str!("../../../install-script/src/golden/install.sh");
    let rendered = Default::render(&NoConfig {}, input()).unwrap();
    assert!(
        rendered.script == golden,
        "differs from the golden file of install-script"
    );
    assert!(rendered.script.lines().any(|line| line == input().marker()));
}

#[test]
fn what_the_script_refuses_is_refused_by_the_field_s_name() {
    let refused = |change: fn(&mut Input)| {
        let mut input = input();
        change(&mut input);
        let error = Default::render(&NoConfig {}, input).unwrap_err();
        assert!(!error.is_transient());
        (error.kind, error.code, error.message)
    };
    let (kind, code, message) = refused(|input| input.base_url = "https://a'$(reboot)".into());
    assert_eq!(
        (kind, code.as_str()),
        (ErrorKind::Invalid, "installer.field")
    );
    assert!(
        message.contains("base_url") && !message.contains("reboot"),
        "{message}"
    );
    let (_, code, _) = refused(|input| input.verbose = true);
    assert_eq!(code, "installer.verbose_in_production");
    let (_, code, _) = refused(|input| input.binaries[1].arch = "x86_64".into());
    assert_eq!(code, "installer.arch_twice");
    let (kind, code, _) = refused(|input| input.paths[0].value = "/v2/releases".into());
    assert_eq!(
        (kind, code.as_str()),
        (ErrorKind::Unsupported, "installer.path")
    );
}
