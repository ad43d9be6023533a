//! Values: hostile ones are refused by name, accepted ones reach the shell unchanged.

use std::collections::BTreeMap;
use std::process::Command;

use proptest::prelude::*;

use super::super::*;
use super::{BINARIES, CA_PEM, KEY, PARAMS, PIN, SHA256};

const HOSTILE: &[&str] = &[
    "",
    " ",
    "'",
    "''",
    "\"",
    "'; reboot; '",
    "$(reboot)",
    "${IFS}",
    "$HOME",
    "`reboot`",
    "a\nb",
    "a\r\nb",
    "\0",
    "a\0b",
    "\x1b[2J",
    "\\",
    "a b",
    "a\tb",
    "*",
    "~root",
    "-rf",
    "--help",
    "../../etc/passwd",
    "/etc/passwd",
    "\u{2018}quoted\u{2019}", // typographic quotes
    "\u{ff07}",               // full-width apostrophe
    "gаteway.example",        // Cyrillic а
    "gateway.example\u{202e}",
    "gateway\u{3002}example", // ideographic full stop
    "\u{feff}stable",
    "1.2.3\u{661}", // Arabic digit one
    "#",
    "x;y",
    "x&y",
    "x|y",
    "x>y",
    "UNIT",
    "}",
];

/// Puts a text into each of the settings in turn.
fn each_field(value: &str, mut check: impl FnMut(&str, Result<String, InstallRefused>)) {
    let binary = BINARIES[0];
    let with_binary = |name, binary: Binary<'_>| {
        (
            name,
            render(&InstallParams {
                binaries: &[binary],
                ..PARAMS
            }),
        )
    };
    let results = [
        (
            "base_url",
            render(&InstallParams {
                base_url: value,
                ..PARAMS
            }),
        ),
        (
            "script_path",
            render(&InstallParams {
                script_path: value,
                ..PARAMS
            }),
        ),
        (
            "channel",
            render(&InstallParams {
                channel: value,
                ..PARAMS
            }),
        ),
        (
            "version",
            render(&InstallParams {
                version: value,
                ..PARAMS
            }),
        ),
        (
            "ca_pem",
            render(&InstallParams {
                ca_pem: value,
                ..PARAMS
            }),
        ),
        (
            "https_pin",
            render(&InstallParams {
                https_pin: Some(value),
                ..PARAMS
            }),
        ),
        (
            "release_keys",
            render(&InstallParams {
                release_keys: &[value],
                ..PARAMS
            }),
        ),
        with_binary(
            "binaries.arch",
            Binary {
                arch: value,
                ..binary
            },
        ),
        with_binary(
            "binaries.name",
            Binary {
                name: value,
                ..binary
            },
        ),
        with_binary(
            "binaries.sha256",
            Binary {
                sha256: value,
                ..binary
            },
        ),
    ];
    for (field, result) in results {
        check(field, result);
    }
}

#[test]
fn abuse_29_hostile_values_are_refused_in_every_setting_by_name() {
    let long = "a".repeat(100_000);
    // As they are, and hidden inside what would otherwise be fine.
    let corpus = HOSTILE.iter().copied().chain([long.as_str()]);
    for value in corpus {
        each_field(value, |field, result| match result {
            Err(InstallRefused::Field { field: named, .. }) => {
                assert_eq!(named, field, "{value:?}")
            }
            // The few words of the corpus that are harmless in one place.
            Ok(_) if field == "binaries.name" && value == "x" => {}
            other => panic!("{field} took {value:?}: {:?}", other.map(|_| "script")),
        });
    }
    let good = [
        ("base_url", PARAMS.base_url),
        ("channel", PARAMS.channel),
        ("version", PARAMS.version),
        ("ca_pem", CA_PEM),
        ("https_pin", PIN),
        ("release_keys", KEY),
        ("binaries.arch", "x86_64"),
        ("binaries.name", BINARIES[0].name),
        ("binaries.sha256", SHA256),
    ];
    for evil in [
        "'",
        "$(reboot)",
        "`",
        "\n",
        "\0",
        "\u{2019}",
        " ",
        "\\",
        ";",
        "\"",
    ] {
        for (target, value) in good {
            for hidden in [
                format!("{evil}{value}"),
                format!("{value}{evil}"),
                value.replacen('a', evil, 1),
            ] {
                // PEM has lines, and where they break is its own affair.
                if hidden == value || (target == "ca_pem" && evil == "\n") {
                    continue;
                }
                each_field(&hidden, |field, result| {
                    assert!(result.is_err(), "{field} took {hidden:?}");
                });
            }
        }
    }
}

#[test]
fn each_setting_has_its_own_rule() {
    let url = |base_url| render(&InstallParams { base_url, ..PARAMS }).is_ok();
    for good in [
        "https://g",
        "https://gateway.example",
        "https://gateway.example:1",
        "https://10.0.0.1:65535",
        "https://[2001:db8::1]:8443",
        "https://[::ffff:10.0.0.1]",
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "http://localhost",
    ] {
        assert!(url(good), "{good}");
    }
    for bad in [
        "http://gateway.example",
        "http://127.0.0.1.example",
        "ftp://gateway.example",
        "https://",
        "https:///",
        "https://gateway.example/",
        "https://gateway.example/path",
        "https://gateway.example?x",
        "https://user@gateway.example",
        "https://gateway.example:",
        "https://gateway.example:0",
        "https://gateway.example:080",
        "https://gateway.example:65536",
        "https://GATEWAY.example",
        "https://-gateway.example",
        "https://gateway..example",
        "https://gateway_1.example",
        "https://999.0.0.1",
        "https://[2001:db8::1",
        "https://[2001:db8::1]8443",
        "https://[gateway]",
        "https://[fe80::1%eth0]",
        "https://2001:db8::1",
    ] {
        assert!(!url(bad), "{bad}");
    }

    let two = format!("{PIN};{PIN}");
    assert!(
        render(&InstallParams {
            https_pin: Some(&two),
            ..PARAMS
        })
        .is_err()
    );
    assert!(
        render(&InstallParams {
            https_pin: None,
            ..PARAMS
        })
        .is_ok()
    );
    assert!(
        render(&InstallParams {
            release_keys: &[KEY, KEY],
            ..PARAMS
        })
        .is_ok()
    );
    assert!(
        render(&InstallParams {
            release_keys: &[],
            ..PARAMS
        })
        .is_err()
    );
    assert!(
        render(&InstallParams {
            binaries: &[],
            ..PARAMS
        })
        .is_err()
    );
    assert!(
        render(&InstallParams {
            binaries: &[Binary {
                size: 0,
                ..BINARIES[0]
            }],
            ..PARAMS
        })
        .is_err()
    );

    let twice = format!("{CA_PEM}{CA_PEM}");
    assert!(
        render(&InstallParams {
            ca_pem: &twice,
            ..PARAMS
        })
        .is_ok()
    );
    for bad in [
        CA_PEM.replace("CERTIFICATE", "PRIVATE KEY"),
        CA_PEM.replace('\n', "\r\n"),
        CA_PEM.replace("-----END CERTIFICATE-----\n", ""),
        format!("{CA_PEM}\n"),
        format!("subject: x\n{CA_PEM}"),
        CA_PEM.repeat(9),
    ] {
        assert!(
            render(&InstallParams {
                ca_pem: &bad,
                ..PARAMS
            })
            .is_err(),
            "{bad}"
        );
    }
}

#[test]
fn verbose_agents_are_refused_in_production_only() {
    let verbose = InstallParams {
        verbose: true,
        ..PARAMS
    };
    assert_eq!(render(&verbose), Err(InstallRefused::VerboseInProduction));
    let script = render(&InstallParams {
        production: false,
        ..verbose
    })
    .unwrap();
    assert!(script.contains("\n  LB_VERBOSE='true'\n"));
}

#[test]
fn one_platform_cannot_have_two_binaries() {
    let result = render(&InstallParams {
        binaries: &[BINARIES[0], BINARIES[0]],
        ..PARAMS
    });
    assert_eq!(
        result,
        Err(InstallRefused::ArchTwice {
            arch: "x86_64".to_owned()
        })
    );
}

#[test]
fn platforms_the_script_does_not_know_are_left_out() {
    let other = Binary {
        arch: "riscv64",
        name: "loopback-agent-linux-riscv64",
        ..BINARIES[0]
    };
    let script = render(&InstallParams {
        binaries: &[other, BINARIES[0]],
        ..PARAMS
    })
    .unwrap();
    assert!(!script.contains("riscv64"));
    let alone = render(&InstallParams {
        binaries: &[other],
        ..PARAMS
    });
    assert!(matches!(
        alone,
        Err(InstallRefused::Field {
            field: "binaries",
            ..
        })
    ));
}

#[test]
fn abuse_29_refusals_do_not_repeat_the_value() {
    let evil = "https://evil\u{1b}[31m";
    let error = render(&InstallParams {
        base_url: evil,
        ..PARAMS
    })
    .unwrap_err();
    assert!(!format!("{error} {error:?}").contains("evil"));
}

/// Lets a shell run the settings block and tell what it then holds. PATH is
/// empty: a block that ran any command would fail.
fn settings_as_the_shell_sees_them(block: &str) -> BTreeMap<String, String> {
    let names: Vec<_> = block
        .lines()
        .filter_map(|line| line.strip_prefix("  LB_")?.split_once('='))
        .map(|(name, _)| format!("LB_{name}"))
        .collect();
    let mut program = format!("set -eu\n{block}settings\n");
    for name in &names {
        program.push_str(&format!("printf '%s\\0' \"${name}\"\n"));
    }
    let output = Command::new("/bin/sh")
        .args(["-c", &program])
        .env_clear()
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let values = String::from_utf8(output.stdout).unwrap();
    names
        .into_iter()
        .zip(values.split('\0').map(str::to_owned))
        .collect()
}

fn nasty() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(
        HOSTILE
            .iter()
            .copied()
            .chain(["https://", "a", "0", ".", ":", "-", "/", "=", "stable"])
            .collect::<Vec<_>>(),
    );
    prop_oneof![
        "\\PC{0,40}",
        "[ -~]{0,40}",
        "https?://[a-z0-9.:\\[\\]-]{1,30}",
        "[0-9][0-9a-zA-Z.'$ -]{0,20}",
        prop::collection::vec(pieces, 0..6).prop_map(|parts| parts.concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn abuse_29_whatever_is_accepted_reaches_the_shell_unchanged(
        base_url in prop_oneof![Just(PARAMS.base_url.to_owned()), nasty()],
        version in prop_oneof![Just("1.2.3-rc.1".to_owned()), nasty()],
        name in prop_oneof![Just(BINARIES[0].name.to_owned()), nasty()],
        pin in prop_oneof![Just(PIN.to_owned()), nasty()],
        key in prop_oneof![9 => Just(KEY.to_owned()), 1 => nasty()],
        size in 1u64..1 << 30,
    ) {
        let binary = Binary { name: &name, size, ..BINARIES[0] };
        let params = InstallParams {
            base_url: &base_url,
            version: &version,
            https_pin: Some(&pin),
            release_keys: &[&key],
            binaries: &[binary],
            ..PARAMS
        };
        let Ok(block) = settings(&params) else { return Ok(()) };
        let seen = settings_as_the_shell_sees_them(&block);
        let size = size.to_string();
        for (setting, value) in [
            ("LB_URL", base_url.as_str()),
            ("LB_CHANNEL", "stable"),
            ("LB_VERSION", &version),
            ("LB_VERBOSE", "false"),
            ("LB_PIN", &pin),
            ("LB_X86_64_NAME", &name),
            ("LB_X86_64_SIZE", &size),
            ("LB_AARCH64_NAME", ""),
            ("LB_AARCH64_SIZE", "0"),
            ("LB_RELEASE_KEYS", &key),
            ("LB_CA_PEM", CA_PEM.trim_end()),
        ] {
            prop_assert_eq!(seen.get(setting).map(String::as_str), Some(value), "{}", setting);
        }
    }
}
