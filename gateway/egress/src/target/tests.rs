use proptest::prelude::*;

use super::*;

fn read(url: &str) -> Result<String, InvalidUrl> {
    Target::parse(url).map(|target| {
        let query = target
            .query
            .map_or_else(String::new, |query| format!("?{query}"));
        format!(
            "{} {} {} {}{query}",
            target.scheme.as_str(),
            target.host,
            target.port,
            target.path
        )
    })
}

#[test]
fn what_is_clear_is_read() {
    for (url, expected) in [
        ("https://a.example.com", "https a.example.com 443 /"),
        ("HTTPS://A.Example.COM/B", "https a.example.com 443 /B"),
        ("http://a:8080/x?y=%20&z[]=1", "http a 8080 /x?y=%20&z[]=1"),
        ("https://a?b", "https a 443 /?b"),
        ("https://a?b://c@d/e", "https a 443 /?b://c@d/e"),
        ("https://a/@b:c", "https a 443 /@b:c"),
        (
            "https://xn--bcher-kva.example/",
            "https xn--bcher-kva.example 443 /",
        ),
        ("https://[2001:DB8::7]:8443/", "https 2001:db8::7 8443 /"),
        (
            "https://[::ffff:127.0.0.1]/",
            "https ::ffff:127.0.0.1 443 /",
        ),
        ("https://127.0.0.1/", "https 127.0.0.1 443 /"),
        // What others read as addresses is an address.
        ("https://127.1/", "https 127.0.0.1 443 /"),
        ("https://2130706433/", "https 127.0.0.1 443 /"),
        ("https://0x7f000001/", "https 127.0.0.1 443 /"),
        ("https://0X7F.1/", "https 127.0.0.1 443 /"),
        ("https://0177.0.0.01/", "https 127.0.0.1 443 /"),
        ("https://017700000001/", "https 127.0.0.1 443 /"),
        (
            "https://0xa9.0xfe.0xa9.0xfe/",
            "https 169.254.169.254 443 /",
        ),
        ("https://2852039166/", "https 169.254.169.254 443 /"),
        ("https://0/", "https 0.0.0.0 443 /"),
        ("https://10.1.258/", "https 10.1.1.2 443 /"),
    ] {
        assert_eq!(read(url), Ok(expected.to_owned()), "{url}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    use InvalidUrl::{Character, Fragment, Host, Port, Scheme, TooLong, TrailingDot, UserInfo};
    for (url, why) in [
        ("", Scheme),
        ("a.example.com", Scheme),
        ("//a.example.com", Scheme),
        ("/path", Scheme),
        ("https:a.example.com", Scheme),
        ("https:/a.example.com", Scheme),
        ("ftp://a/", Scheme),
        ("file:///etc/passwd", Scheme),
        ("gopher://a/", Scheme),
        ("javascript://a", Scheme),
        ("x?https://a", Scheme),
        ("https://", Host),
        ("https:///a", Host),
        ("https://?", Host),
        ("https://user@a/", UserInfo),
        ("https://user:pass@a/", UserInfo),
        ("https://good.example@127.0.0.1/", UserInfo),
        ("https://good.example:443@127.0.0.1/", UserInfo),
        ("https://a/#f", Fragment),
        ("https://good.example#@evil.example/", Fragment),
        ("https://good.example\\@evil.example/", Character),
        ("https:\\\\a", Character),
        ("https://a\\b", Character),
        ("https://a\tb/", Character),
        ("https://a/\r\nHost: b", Character),
        (" https://a/", Character),
        ("https://a /", Character),
        ("https://a/%zz", Character),
        ("https://a/%2", Character),
        ("https://b\u{fc}cher.example/", Character),
        ("https://\u{ff11}27.0.0.1/", Character),
        ("https://a\u{3002}b/", Character),
        ("https://\u{2460}\u{2461}/", Character),
        ("https://a/\u{0}", Character),
        ("https://a.example.com./", TrailingDot),
        ("https://127.0.0.1./", TrailingDot),
        ("https://./", TrailingDot),
        ("https://a..b/", Host),
        ("https://.a/", Host),
        ("https://-a/", Host),
        ("https://a%2eb/", Host),
        ("https://%61/", Host),
        ("https://a,b/", Host),
        ("https://*.example.com/", Host),
        ("https://256.0.0.1/", Host),
        ("https://1.2.3.4.5/", Host),
        ("https://4294967296/", Host),
        ("https://0x/", Host),
        ("https://08.0.0.1/", Host),
        ("https://a.1/", Host),
        ("https://[::1/", Host),
        ("https://[::1]x/", Host),
        ("https://[fe80::1%25eth0]/", Host),
        ("https://[fe80::1%eth0]/", Character),
        ("https://[1.2.3.4]/", Host),
        ("https://::1/", Port),
        ("https://a:/", Port),
        ("https://a:0/", Port),
        ("https://a:65536/", Port),
        ("https://a:443443/", Port),
        ("https://a:+443/", Port),
        ("https://a:80:80/", Port),
        ("https://a: 80/", Character),
    ] {
        assert_eq!(read(url), Err(why), "{url:?}");
    }
    let long = format!("https://a/{}", "b".repeat(MAX_URL));
    assert_eq!(read(&long), Err(TooLong));
    assert_eq!(
        read(&format!("https://{}.example/", "a".repeat(64))),
        Err(Host)
    );
}

#[test]
fn the_host_header_names_what_was_checked() {
    for (url, authority) in [
        ("https://A.example:443/", "a.example"),
        ("https://a.example:8443/", "a.example:8443"),
        ("http://a.example:443/", "a.example:443"),
        ("https://[::1]:444/", "[::1]:444"),
        ("http://0x7f.1/", "127.0.0.1"),
    ] {
        assert_eq!(
            Target::parse(url).expect(url).authority(),
            authority,
            "{url}"
        );
    }
}

#[test]
fn an_endpoint_has_a_port() {
    assert_eq!(
        endpoint("bmc.example:623"),
        Ok((Host::Name("bmc.example".into()), 623))
    );
    assert!(endpoint("[fd00::1]:623").is_ok());
    for text in ["a", "a:", ":1", "a:0", "::1:1", "u@a:1", "a:1/x", "a b:1"] {
        assert!(endpoint(text).is_err(), "{text}");
    }
}

/// Texts that look like URLs, with what makes readers differ strewn in.
fn almost_url() -> impl Strategy<Value = String> {
    let piece = proptest::sample::select(vec![
        "a",
        "example",
        "com",
        "xn--a",
        "0x7f",
        "0177",
        "127",
        "1",
        "256",
        "4294967295",
        ".",
        ".",
        ".",
        "..",
        ":",
        ":443",
        ":80",
        "@",
        "/",
        "//",
        "\\",
        "?",
        "#",
        "[",
        "]",
        "::1",
        "::ffff:",
        "%2e",
        "%",
        "\t",
        "\n",
        " ",
        "-",
        "_",
        "\u{3002}",
        "\u{ad}",
        "\u{df}",
        "A",
        ";",
        "&",
        "|",
    ]);
    let pieces = proptest::collection::vec(piece, 0..10);
    let scheme = proptest::sample::select(vec!["https://", "http://", "https:", "HTTP://", "//"]);
    (scheme, pieces).prop_map(|(scheme, pieces)| format!("{scheme}{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    /// What is accepted here means the same to the reader that browsers use.
    #[test]
    fn who_accepts_agrees(text in almost_url()) {
        let Ok(ours) = Target::parse(&text) else { return Ok(()) };
        let theirs = match url::Url::parse(&text) {
            Ok(theirs) => theirs,
            // Punycode is not decoded here; a name that decodes to nothing resolves to nothing.
            Err(_) if text.contains("xn--") => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(format!("{text}: {error}"))),
        };
        let host = match theirs.host() {
            Some(url::Host::Domain(name)) => Host::Name(name.to_owned()),
            Some(url::Host::Ipv4(address)) => Host::Address(address.into()),
            Some(url::Host::Ipv6(address)) => Host::Address(address.into()),
            None => return Err(TestCaseError::fail(text)),
        };
        prop_assert_eq!(&ours.host, &host, "{}", text);
        prop_assert_eq!(Some(ours.port), theirs.port_or_known_default());
        prop_assert_eq!(ours.scheme.as_str(), theirs.scheme());
        prop_assert_eq!(theirs.username(), "");
    }

    #[test]
    fn no_text_ends_it(text in ".*") {
        let _ = Target::parse(&text);
        let _ = endpoint(&text);
    }
}
