use super::*;

fn pattern(text: &str) -> HostPattern {
    text.parse().expect(text)
}

#[test]
fn a_pattern_covers_names_below_a_domain_and_nothing_else() {
    let cases = [
        ("api.example.com", "api.example.com", true),
        ("api.example.com", "b.api.example.com", false),
        ("*.example.com", "a.example.com", true),
        ("*.example.com", "a.b.example.com", true),
        ("*.example.com", "example.com", false),
        ("*.example.com", ".example.com", false),
        ("*.example.com", "badexample.com", false),
        ("192.0.2.7", "192.0.2.7", true),
        ("2001:db8::7", "2001:db8:0::7", true),
    ];
    for (text, host, covers) in cases {
        assert_eq!(pattern(text).covers(host), covers, "{text} {host}");
    }
}

#[test]
fn what_some_read_as_an_address_is_no_name() {
    for text in [
        "127.1",
        "2130706433",
        "0x7f.0x1",
        "a..b",
        "A.com",
        "*",
        "*.",
        "-a.com",
        "a.com.",
        "user@a.com",
    ] {
        assert!(text.parse::<HostPattern>().is_err(), "{text}");
    }
}

#[test]
fn a_network_contains_mapped_addresses_too() {
    let ten: Cidr = "10.0.0.0/8".parse().expect("a network");
    for (address, inside) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("11.0.0.1", false),
        ("fd00::1", false),
    ] {
        assert_eq!(
            ten.contains(address.parse().expect(address)),
            inside,
            "{address}"
        );
    }
    let all: Cidr = "::/0".parse().expect("a network");
    assert!(all.contains("2001:db8::1".parse().expect("an address")));
    for text in [
        "10.0.0.1/8",
        "10.0.0.0/33",
        "::ffff:10.0.0.0/104",
        "10.0.0.0",
        "x/8",
    ] {
        assert!(text.parse::<Cidr>().is_err(), "{text}");
    }
}

#[test]
fn a_network_is_within_another() {
    let cidr = |text: &str| -> Cidr { text.parse().expect(text) };
    for (inner, outer, within) in [
        ("127.0.0.0/8", "127.0.0.0/8", true),
        ("127.0.0.1/32", "127.0.0.0/8", true),
        ("0.0.0.0/0", "127.0.0.0/8", false),
        ("::/0", "0.0.0.0/0", false),
        ("fd00::/8", "fc00::/7", true),
        ("fc00::/7", "fd00::/8", false),
    ] {
        assert_eq!(
            cidr(inner).is_within(&cidr(outer)),
            within,
            "{inner} {outer}"
        );
    }
}

fn needs(json: &str) -> Needs {
    serde_json::from_str(json).expect("needs")
}

#[test]
fn an_upgrade_shows_what_it_needs_more() {
    let old = needs(
        r#"{"http":[{"name":"hook","purpose":"p","hosts":["a.example.com"]}],
        "secrets":[{"name":"key","purpose":"signs"}],"state":{"keys":5}}"#,
    );
    assert_eq!(widening(&old, &old), []);
    let new = needs(
        r#"{"http":[{"name":"hook","purpose":"p","hosts":["a.example.com","*.b.example.com"],"plain":true}],
        "secrets":[{"name":"key","purpose":"signs","reveal":true},{"name":"pass","purpose":"logs in"}],
        "state":{"keys":9},"limits":{"cpu_ms":2000}}"#,
    );
    let found: Vec<_> = widening(&old, &new)
        .into_iter()
        .map(|more| format!("{}: {}", more.need, more.what))
        .collect();
    assert_eq!(
        found,
        [
            "needs.http.hook: may do without TLS",
            "needs.http.hook: speaks HTTP with *.b.example.com",
            "needs.secrets.key: reads the secret, and does not only use it",
            "needs.secrets.pass: uses a secret: logs in",
            "needs.state: keeps 9 values, before 5",
            "needs.limits.cpu_ms: wants 2000, before the usual",
        ]
    );
    assert_eq!(widening(&new, &old), []);
}

#[test]
fn what_is_not_granted_is_named() {
    let needs = needs(
        r#"{"http":[{"name":"hook","purpose":"p"}],
        "secrets":[{"name":"key","purpose":"signs","optional":true},{"name":"pass","purpose":"logs in"}]}"#,
    );
    let found: Vec<_> = ungranted(&needs, &Grant::default())
        .into_iter()
        .map(|missing| missing.need)
        .collect();
    assert_eq!(
        found,
        ["needs.http.hook", "needs.secrets.pass", "workspaces"]
    );
}

#[test]
fn a_manifest_is_held_against_its_rules() {
    let manifest = |version: &str, needs: &str| -> Manifest {
        serde_json::from_str(&format!(
            r#"{{"format":1,"name":"a","version":"{version}","description":"d","needs":{needs}}}"#
        ))
        .expect("a manifest")
    };
    for version in ["1.0.0", "0.0.0", "1.2.3-rc.1"] {
        assert_eq!(manifest(version, "{}").check(), Ok(()), "{version}");
    }
    for version in ["1.0", "1.0.0+x", "01.0.0", "1.0.0-", "a.b.c", ""] {
        assert_eq!(
            manifest(version, "{}").check(),
            Err(InvalidManifest::Version),
            "{version}"
        );
    }
    let twice = r#"{"secrets":[{"name":"a","purpose":"x"},{"name":"a","purpose":"y"}]}"#;
    assert!(matches!(
        manifest("1.0.0", twice).check(),
        Err(InvalidManifest::Twice { .. })
    ));
}
