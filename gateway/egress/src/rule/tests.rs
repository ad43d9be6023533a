use super::*;

/// A grant with three rules, written as operators write them.
fn grant() -> Grant {
    serde_json::from_str(
        r#"{"http": [
            {"need": "web", "hosts": ["api.example.com", "*.hooks.example.com"], "secrets": ["key"]},
            {"need": "plain", "hosts": ["lan.example.com"], "plain": true, "networks": ["10.0.0.0/8"]},
            {"need": "bmc", "hosts": ["bmc.example.com"], "ports": [8443], "tls_profiles": ["pinned"]},
            {"need": "other", "hosts": ["bmc.example.com"], "ports": [443], "secrets": ["pass"]},
            {"need": "lost", "hosts": ["lost.example.com"], "tls_profiles": ["gone"]}
        ], "tls_profiles": {"pinned": {"keys": ["00"]}}}"#,
    )
    .expect("a grant")
}

fn check(url: &str, profile: Option<&str>, secrets: &[&str]) -> Result<Vec<String>, String> {
    let grant = grant();
    let target = Target::parse(url).expect(url);
    let names: Vec<Name> = secrets
        .iter()
        .map(|name| name.parse().expect("a name"))
        .collect();
    covering(
        &grant,
        &target,
        profile,
        &names.iter().collect::<Vec<_>>(),
        None,
    )
    .map(|found| {
        found
            .rules
            .iter()
            .map(|rule| rule.need.to_string())
            .collect()
    })
    .map_err(|error| error.code)
}

#[test]
fn one_rule_covers_all_of_a_request_or_none_does() {
    for (url, profile, secrets, expected) in [
        ("https://api.example.com/", None, &["key"][..], Ok("web")),
        ("https://a.b.hooks.example.com/", None, &[], Ok("web")),
        (
            "https://hooks.example.com/",
            None,
            &[],
            Err(code::HOST_NOT_GRANTED),
        ),
        (
            "https://evil.example/",
            None,
            &[],
            Err(code::HOST_NOT_GRANTED),
        ),
        (
            "https://api.example.com.evil.example/",
            None,
            &[],
            Err(code::HOST_NOT_GRANTED),
        ),
        ("https://127.0.0.1/", None, &[], Err(code::HOST_NOT_GRANTED)),
        (
            "http://api.example.com/",
            None,
            &[],
            Err(code::SCHEME_NOT_GRANTED),
        ),
        (
            "https://api.example.com:8443/",
            None,
            &[],
            Err(code::PORT_NOT_GRANTED),
        ),
        (
            "https://api.example.com/",
            Some("pinned"),
            &[],
            Err(code::TLS_PROFILE_NOT_GRANTED),
        ),
        (
            "https://api.example.com/",
            None,
            &["pass"],
            Err(code::SECRET_NOT_GRANTED),
        ),
        (
            "https://api.example.com/",
            None,
            &["key", "pass"],
            Err(code::SECRET_NOT_GRANTED),
        ),
        ("http://lan.example.com/", None, &[], Ok("plain")),
        ("https://lan.example.com/", None, &[], Ok("plain")),
        // The usual port is that of the scheme.
        (
            "http://lan.example.com:443/",
            None,
            &[],
            Err(code::PORT_NOT_GRANTED),
        ),
        (
            "http://lan.example.com/",
            Some("pinned"),
            &[],
            Err(code::TLS_PROFILE_NOT_GRANTED),
        ),
        (
            "https://bmc.example.com:8443/",
            Some("pinned"),
            &[],
            Ok("bmc"),
        ),
        // Whoever pinned a server does not mean the system's authorities as well.
        (
            "https://bmc.example.com:8443/",
            None,
            &[],
            Err(code::TLS_PROFILE_NOT_GRANTED),
        ),
        // Half by one rule and half by another.
        (
            "https://bmc.example.com:8443/",
            Some("pinned"),
            &["pass"],
            Err(code::SECRET_NOT_GRANTED),
        ),
        (
            "https://bmc.example.com/",
            Some("pinned"),
            &["pass"],
            Err(code::TLS_PROFILE_NOT_GRANTED),
        ),
        ("https://bmc.example.com/", None, &["pass"], Ok("other")),
        (
            "https://lost.example.com/",
            Some("gone"),
            &[],
            Err(code::TLS_PROFILE_NOT_GRANTED),
        ),
    ] {
        let found = check(url, profile, secrets);
        let expected = expected
            .map(|need| vec![need.to_owned()])
            .map_err(str::to_owned);
        assert_eq!(found, expected, "{url} {profile:?} {secrets:?}");
    }
}

#[test]
fn nothing_is_granted_by_an_empty_grant() {
    let target = Target::parse("https://api.example.com/").expect("an URL");
    let error = covering(&Grant::default(), &target, None, &[], None).expect_err("nothing");
    assert_eq!(error.code, code::HOST_NOT_GRANTED);
}
