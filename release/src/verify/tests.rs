use super::*;
use proptest::prelude::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-03-01T00:00:00Z")
}

fn expect() -> Expect {
    Expect {
        now: now(),
        min_number: 0,
        channel: None,
    }
}

fn manifest() -> Manifest {
    Manifest {
        format: MANIFEST_FORMAT.to_owned(),
        channel: Channel::Stable,
        version: "1.2.3".to_owned(),
        number: 7,
        created: at("2026-02-01T00:00:00Z"),
        expires: at("2027-02-01T00:00:00Z"),
        files: vec![FileEntry {
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            name: "loopback-agent-linux-x86_64".to_owned(),
            size: 5,
            sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".to_owned(),
        }],
    }
}

fn key() -> SigningKey {
    SigningKey::generate().unwrap()
}

/// Signs what is given, good or not, and verifies it with the signer trusted.
fn verdict(bytes: &[u8], expect: Expect) -> Result<Manifest, VerifyError> {
    let key = key();
    verify_manifest(
        bytes,
        &sign_manifest(bytes, &key),
        &[key.public().clone()],
        expect,
    )
}

fn verdict_on(change: impl FnOnce(&mut Manifest)) -> Result<Manifest, VerifyError> {
    let mut manifest = manifest();
    change(&mut manifest);
    verdict(&manifest.to_bytes(), expect())
}

#[test]
fn a_signed_manifest_is_accepted_and_read_back_whole() {
    assert_eq!(
        verdict(&manifest().to_bytes(), expect()).unwrap(),
        manifest()
    );
}

#[test]
fn any_of_several_trusted_keys_may_sign() {
    let (old, new) = (key(), key());
    let bytes = manifest().to_bytes();
    let trusted = [old.public().clone(), new.public().clone()];
    for signer in [&old, &new] {
        verify_manifest(&bytes, &sign_manifest(&bytes, signer), &trusted, expect()).unwrap();
    }
}

#[test]
fn a_foreign_signer_is_named() {
    let (ours, theirs) = (key(), key());
    let bytes = manifest().to_bytes();
    let signature = sign_manifest(&bytes, &theirs);
    let error = verify_manifest(&bytes, &signature, &[ours.public().clone()], expect());
    assert!(
        matches!(error, Err(VerifyError::UnknownSigner { signer, .. })
        if signer == theirs.public().id())
    );
    // Claiming to be a trusted key does not help.
    let claimed = signature.replace(
        &theirs.public().id().to_string(),
        &ours.public().id().to_string(),
    );
    let error = verify_manifest(&bytes, &claimed, &[ours.public().clone()], expect());
    assert!(matches!(error, Err(VerifyError::BadSignature { .. })));
    let error = verify_manifest(&bytes, &signature, &[], expect()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("not among the trusted keys (none)"),
        "{error}"
    );
}

#[test]
fn signature_files_have_one_form() {
    let key = key();
    let bytes = manifest().to_bytes();
    let good = sign_manifest(&bytes, &key);
    let trusted = [key.public().clone()];
    for bad in [
        String::new(),
        good.lines().next().unwrap().to_owned(),
        good.replace("key: ", "key:"),
        good.replace("sig: ", "sig: !"),
        format!("{good}more\n"),
        format!("\n{good}"),
        good.replace("sig: ", "sig: AAAA"),
        "key: 00\nsig: AAAA\n".to_owned(),
        "key: é\nsig: \u{202e}\n".to_owned(),
    ] {
        let error = verify_manifest(&bytes, &bad, &trusted, expect());
        assert!(
            matches!(error, Err(VerifyError::SignatureFormat(_))),
            "accepted {bad:?}"
        );
    }
}

#[test]
fn an_expired_release_is_refused_from_the_very_second() {
    let expires = manifest().expires;
    let second = jiff::SignedDuration::from_secs(1);
    let before = Expect {
        now: expires - second,
        ..expect()
    };
    let on = Expect {
        now: expires,
        ..expect()
    };
    verdict(&manifest().to_bytes(), before).unwrap();
    assert!(matches!(
        verdict(&manifest().to_bytes(), on),
        Err(VerifyError::Expired { .. })
    ));
}

#[test]
fn a_lower_number_is_a_rollback_and_the_same_number_is_not() {
    let with = |min_number| {
        verdict(
            &manifest().to_bytes(),
            Expect {
                min_number,
                ..expect()
            },
        )
    };
    with(7).unwrap();
    assert!(matches!(
        with(8),
        Err(VerifyError::Rollback {
            number: 7,
            min_number: 8,
            ..
        })
    ));
}

#[test]
fn another_channel_is_refused() {
    let with = |channel| {
        verdict(
            &manifest().to_bytes(),
            Expect {
                channel,
                ..expect()
            },
        )
    };
    with(Some(Channel::Stable)).unwrap();
    assert!(matches!(
        with(Some(Channel::Unstable)),
        Err(VerifyError::WrongChannel { .. })
    ));
}

#[test]
fn an_unknown_format_is_refused_by_name_even_when_nothing_else_fits() {
    let error = verdict(
        br#"{"format":"loopback-agent-release/2","files":7}"#,
        expect(),
    );
    assert!(matches!(error, Err(VerifyError::UnknownFormat { found })
        if found == "loopback-agent-release/2"));
}

#[test]
fn unknown_fields_are_ignored_and_repeated_ones_are_not() {
    let text = String::from_utf8(manifest().to_bytes()).unwrap();
    let more = text.replacen('{', "{\"later\": [1, 2],", 1);
    assert_eq!(verdict(more.as_bytes(), expect()).unwrap(), manifest());
    let twice = text.replacen('{', "{\"number\": 1,", 1);
    assert!(matches!(
        verdict(twice.as_bytes(), expect()),
        Err(VerifyError::Malformed(_))
    ));
}

#[test]
fn signed_garbage_and_giants_are_errors() {
    for garbage in [
        &b""[..],
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{\"format\":1}",
    ] {
        assert!(matches!(
            verdict(garbage, expect()),
            Err(VerifyError::Malformed(_))
        ));
    }
    let giant = vec![b' '; MAX_MANIFEST + 1];
    assert!(matches!(
        verdict(&giant, expect()),
        Err(VerifyError::TooLarge { .. })
    ));
}

#[test]
fn every_field_keeps_its_rule_although_it_is_signed() {
    type Change = fn(&mut Manifest);
    let cases: &[(&str, Change)] = &[
        ("version", |m| m.version = "1.2".into()),
        ("version", |m| m.version = "1.2.3-".into()),
        ("version", |m| m.version = "1.2.3'; reboot".into()),
        ("version", |m| {
            m.version = format!("1.2.3-{}", "a".repeat(64))
        }),
        ("number", |m| m.number = 0),
        ("expires", |m| m.expires = m.created),
        ("files", |m| m.files.clear()),
        ("files", |m| m.files = vec![m.files[0].clone(); 65]),
        ("os", |m| m.files[0].os = "li/nux".into()),
        ("arch", |m| m.files[0].arch = "".into()),
        ("name", |m| m.files[0].name = "../agent".into()),
        ("name", |m| m.files[0].name = "/bin/sh".into()),
        ("name", |m| m.files[0].name = ".hidden".into()),
        ("name", |m| m.files[0].name = "agent\0".into()),
        ("name", |m| m.files[0].name = "manifest.json".into()),
        ("name", |m| m.files[0].name = "аgent".into()), // Cyrillic а
        ("size", |m| m.files[0].size = 0),
        ("size", |m| m.files[0].size = u64::MAX),
        ("sha256", |m| m.files[0].sha256 = "00".into()),
        ("sha256", |m| {
            m.files[0].sha256 = m.files[0].sha256.to_uppercase()
        }),
        ("name", |m| {
            let twin = FileEntry {
                arch: "aarch64".into(),
                ..m.files[0].clone()
            };
            m.files.push(twin);
        }),
        ("files", |m| {
            let twin = FileEntry {
                name: "other".into(),
                ..m.files[0].clone()
            };
            m.files.push(twin);
        }),
    ];
    for (field, change) in cases {
        match verdict_on(change) {
            Err(VerifyError::Invalid(error)) => assert_eq!(error.field, *field, "{error}"),
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[test]
fn files_are_checked_by_platform_length_and_digest() {
    let m = manifest();
    assert_eq!(
        verify_file(&m, "linux", "x86_64", b"hello").unwrap().size,
        5
    );
    let refused = |arch, bytes| verify_file(&m, "linux", arch, bytes).unwrap_err();
    assert!(matches!(
        refused("riscv64", b"hello"),
        FileError::NotListed { .. }
    ));
    assert!(matches!(
        refused("x86_64", b"hell"),
        FileError::Size { found: 4, .. }
    ));
    assert!(matches!(
        refused("x86_64", b"hello, world"),
        FileError::Size { .. }
    ));
    assert!(matches!(
        refused("x86_64", b"hallo"),
        FileError::Digest { .. }
    ));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent");
    let read = || verify_file_at(&m, "linux", "x86_64", &path);
    assert!(matches!(read(), Err(FileError::Io { .. })));
    std::fs::write(&path, b"hello").unwrap();
    read().unwrap();
}

proptest! {
    #[test]
    fn one_flipped_bit_anywhere_is_refused(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let key = key();
        let trusted = [key.public().clone()];
        let bytes = manifest().to_bytes();
        let signature = sign_manifest(&bytes, &key);

        let mut changed = bytes.clone();
        changed[at.index(bytes.len())] ^= 1 << bit;
        let error = verify_manifest(&changed, &signature, &trusted, expect());
        prop_assert!(matches!(error, Err(VerifyError::BadSignature { .. })), "unexpected verdict");

        let mut changed = signature.into_bytes();
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        if let Ok(changed) = String::from_utf8(changed) {
            prop_assert!(verify_manifest(&bytes, &changed, &trusted, expect()).is_err());
        }
    }

    #[test]
    fn signed_noise_never_panics_and_never_passes(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(verdict(&bytes, expect()).is_err());
    }

    #[test]
    fn signature_noise_never_panics_and_never_passes(text in "\\PC{0,64}\n?\\PC{0,100}") {
        let key = key();
        prop_assert!(verify_manifest(&manifest().to_bytes(), &text, &[key.public().clone()], expect()).is_err());
    }
}

#[test]
fn a_plugin_is_signed_in_a_context_of_its_own() {
    let key = key();
    let trusted = [key.public().clone()];
    let component = b"\0asm\x0d\0\x01\0 and more";
    let signature = sign_plugin(component, &key);
    assert_eq!(
        verify_plugin(component, &signature, &trusted).unwrap(),
        key.public().id()
    );
    assert!(matches!(
        verify_plugin(b"another", &signature, &trusted),
        Err(VerifyError::BadPluginSignature { .. })
    ));
    assert!(matches!(
        verify_plugin(component, &signature, &[]),
        Err(VerifyError::UnknownSigner { .. })
    ));
    // Neither signature passes for the other, over the same bytes.
    let manifest = manifest().to_bytes();
    assert!(matches!(
        verify_plugin(&manifest, &sign_manifest(&manifest, &key), &trusted),
        Err(VerifyError::BadPluginSignature { .. })
    ));
    assert!(matches!(
        verify_manifest(&manifest, &sign_plugin(&manifest, &key), &trusted, expect()),
        Err(VerifyError::BadSignature { .. })
    ));
}
