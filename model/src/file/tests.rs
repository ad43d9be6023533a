use super::*;

/// Each is refused, or is the very path that it says.
#[test]
fn abuse_23_a_path_means_what_it_says_or_is_refused() {
    for (text, expected) in [
        ("", Err(NotAPath::NotAbsolute)),
        ("etc/passwd", Err(NotAPath::NotAbsolute)),
        ("../etc/passwd", Err(NotAPath::NotAbsolute)),
        ("~root/x", Err(NotAPath::NotAbsolute)),
        ("C:\\Windows\\win.ini", Err(NotAPath::NotAbsolute)),
        ("C:/Windows/win.ini", Err(NotAPath::NotAbsolute)),
        ("\\\\server\\share", Err(NotAPath::NotAbsolute)),
        ("\\etc\\passwd", Err(NotAPath::NotAbsolute)),
        ("file:///etc/passwd", Err(NotAPath::NotAbsolute)),
        ("//server/share", Err(NotAPath::EmptyName)),
        ("/a//b", Err(NotAPath::EmptyName)),
        ("/a/", Err(NotAPath::EmptyName)),
        ("//", Err(NotAPath::EmptyName)),
        ("/..", Err(NotAPath::Dots)),
        ("/.", Err(NotAPath::Dots)),
        ("/a/../b", Err(NotAPath::Dots)),
        ("/a/./b", Err(NotAPath::Dots)),
        ("/a/..", Err(NotAPath::Dots)),
        ("/a\0b", Err(NotAPath::Control)),
        ("/a\nb", Err(NotAPath::Control)),
        ("/a\u{1b}[31m", Err(NotAPath::Control)),
        ("/a\u{9b}31m", Err(NotAPath::Control)),
        // Names like any other, and never decoded again.
        ("/%2e%2e/%2fetc", Ok(())),
        ("/%00", Ok(())),
        ("/...", Ok(())),
        ("/..a/b..", Ok(())),
        ("/a\\..\\b", Ok(())),
        ("/etc/systemd/system/dev-disk-by\\x2duuid.swap", Ok(())),
        ("/C:/x", Ok(())),
        ("/a b/ü", Ok(())),
        ("/", Ok(())),
    ] {
        let path = text.parse::<HostPath>();
        assert_eq!(
            path.as_ref().map(|_| ()),
            expected.as_ref().copied(),
            "{text:?}"
        );
        if let Ok(path) = path {
            assert_eq!(path.as_str(), text);
        }
    }
    assert_eq!(
        format!("/{}", "a".repeat(256)).parse::<HostPath>(),
        Err(NotAPath::TooLong)
    );
    assert_eq!(
        "/a".repeat(2048).parse::<HostPath>(),
        Err(NotAPath::TooLong)
    );
}

#[test]
fn a_path_has_names() {
    let path: HostPath = "/etc/app/x.conf".parse().unwrap();
    assert_eq!(path.names().collect::<Vec<_>>(), ["etc", "app", "x.conf"]);
    assert_eq!(path.name(), Some("x.conf"));
    assert_eq!(HostPath::default().name(), None);
}

#[test]
fn digests_modes_and_owners_read_back_as_written() {
    let digest = "0123456789abcdef".repeat(4);
    assert_eq!(digest.parse::<Sha256>().unwrap().to_string(), digest);
    for bad in ["", "0123", &digest.to_uppercase(), &"é".repeat(32)] {
        assert!(bad.parse::<Sha256>().is_err(), "{bad}");
    }
    assert_eq!("644".parse::<FileMode>().unwrap().to_string(), "0644");
    assert!("4755".parse::<FileMode>().unwrap().is_special());
    for bad in ["", "64", "0o644", "888", "00644", "+644", "-644"] {
        assert!(bad.parse::<FileMode>().is_err(), "{bad}");
    }
    for good in ["app", "app:adm", ":adm", "1000:1000"] {
        assert_eq!(good.parse::<FileOwner>().unwrap().to_string(), good);
    }
    for bad in ["", ":", "a:b:c", "a b", "a/b", "a\n"] {
        assert!(bad.parse::<FileOwner>().is_err(), "{bad}");
    }
}
