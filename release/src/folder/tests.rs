use super::*;

struct Place {
    root: tempfile::TempDir,
    key: SigningKey,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("built-x86"), b"x86 agent").unwrap();
        fs::write(root.path().join("built-arm"), b"arm agent").unwrap();
        Self {
            root,
            key: SigningKey::generate().unwrap(),
        }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("1.2.3")
    }

    fn draft(&self) -> Draft {
        let file = |arch: &str, source: &str| DraftFile {
            os: "linux".to_owned(),
            arch: arch.to_owned(),
            source: self.root.path().join(source),
        };
        Draft {
            channel: Channel::Stable,
            version: "1.2.3".to_owned(),
            number: 7,
            created: "2026-02-01T00:00:00Z".parse().unwrap(),
            expires: "2027-02-01T00:00:00Z".parse().unwrap(),
            files: vec![file("x86_64", "built-x86"), file("aarch64", "built-arm")],
        }
    }

    fn write(&self) -> Release {
        write_release(&self.dir(), &self.draft(), &self.key).unwrap()
    }

    fn load(&self) -> Result<Release, ReleaseError> {
        load_release(
            &self.dir(),
            &[self.key.public().clone()],
            expect_of(&self.draft()),
        )
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn a_written_release_loads_and_gives_its_binaries() {
    let place = Place::new();
    place.write();
    let release = place.load().unwrap();
    assert_eq!(release.read("linux", "aarch64").unwrap(), b"arm agent");
    let entry = release.manifest().file("linux", "x86_64").unwrap();
    assert_eq!(entry.name, "loopback-agent-linux-x86_64");
    assert_eq!(
        fs::metadata(release.path(entry))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o755
    );
    assert_eq!(place.names(), ["1.2.3", "built-arm", "built-x86"]);
}

#[test]
fn a_release_is_never_overwritten_and_a_failed_one_leaves_nothing() {
    let place = Place::new();
    place.write();
    let again = write_release(&place.dir(), &place.draft(), &place.key);
    assert!(matches!(again, Err(ReleaseError::Exists { .. })));

    let before = place.names();
    let other = place.root.path().join("other");
    let mut draft = place.draft();
    draft.files[1].source = place.root.path().join("missing");
    assert!(matches!(
        write_release(&other, &draft, &place.key),
        Err(ReleaseError::Io { verb: "read", .. })
    ));
    let mut draft = place.draft();
    draft.files[1].arch = "../../x".to_owned();
    assert!(matches!(
        write_release(&other, &draft, &place.key),
        Err(ReleaseError::Draft(_))
    ));
    assert_eq!(place.names(), before);
}

#[test]
fn one_damaged_or_missing_file_spoils_the_release() {
    let place = Place::new();
    place.write();
    for name in [
        "loopback-agent-linux-aarch64",
        MANIFEST_NAME,
        SIGNATURE_NAME,
    ] {
        let path = place.dir().join(name);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[6] ^= 1;
        fs::write(&path, bad).unwrap();
        assert!(place.load().is_err(), "{name} was changed");
        fs::remove_file(&path).unwrap();
        assert!(matches!(
            place.load(),
            Err(ReleaseError::Io { .. }
                | ReleaseError::File {
                    source: FileError::Io { .. },
                    ..
                })
        ));
        fs::write(&path, good).unwrap();
    }
    place.load().unwrap();
}

#[test]
fn a_binary_changed_after_loading_is_not_handed_out() {
    let place = Place::new();
    let release = place.write();
    let entry = release.manifest().file("linux", "x86_64").unwrap();
    fs::write(release.path(entry), b"evil agnt").unwrap();
    assert!(matches!(
        release.read("linux", "x86_64"),
        Err(ReleaseError::File {
            source: FileError::Digest { .. },
            ..
        })
    ));
    assert!(matches!(
        release.read("linux", "sparc"),
        Err(ReleaseError::File {
            source: FileError::NotListed { .. },
            ..
        })
    ));
}
