#[path = "../../tests/common/authority.rs"]
#[allow(dead_code, reason = "shared with the tests that run a gateway")]
mod authority;

use std::os::unix::fs::PermissionsExt;

use authority::Authority;
use tempfile::TempDir;

use super::*;

struct Fixture {
    dir: TempDir,
    authority: Authority,
}

impl Fixture {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            authority: Authority::new(),
        }
    }

    fn open(&self) -> State {
        State::open(self.dir.path()).unwrap()
    }

    fn enrolled(&self) -> State {
        let mut state = self.open();
        let csr = state.key().unwrap().request().unwrap();
        state
            .store_grant(&self.authority.grant(&csr, 3, 1, 7), None)
            .unwrap();
        state
    }

    fn damage(&self, name: &str, bytes: &[u8]) {
        fs::write(self.dir.path().join(name), bytes).unwrap();
    }

    fn files(&self) -> Vec<String> {
        names(self.dir.path())
            .unwrap()
            .into_iter()
            .filter(|name| name != PID)
            .collect()
    }
}

#[test]
fn an_identity_survives_a_restart() {
    let fixture = Fixture::new();
    let spki = fixture.enrolled().key().unwrap().spki();
    let mut state = fixture.open();
    let identity = state.identity().unwrap().clone();
    assert_eq!(
        (identity.host, identity.counter),
        (authority::host_id(3), 7)
    );
    assert_eq!(state.key().unwrap().spki(), spki);
    assert_eq!(
        peek(fixture.dir.path()).unwrap().unwrap().host,
        identity.host
    );
}

#[test]
fn the_key_to_enrol_with_is_the_same_until_it_is_certified() {
    let fixture = Fixture::new();
    let first = fixture.open().key().unwrap().spki();
    assert_eq!(fixture.open().key().unwrap().spki(), first);
}

#[test]
fn everything_is_private() {
    let fixture = Fixture::new();
    fs::set_permissions(fixture.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let _state = fixture.enrolled();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(fixture.dir.path()), 0o700);
    for name in fixture.files() {
        assert_eq!(mode(&fixture.dir.path().join(&name)), 0o600, "{name}");
    }
}

#[test]
fn a_second_agent_is_refused_with_the_first_ones_pid() {
    let fixture = Fixture::new();
    let _state = fixture.open();
    let said = State::open(fixture.dir.path()).unwrap_err().to_string();
    assert!(
        said.ends_with(&format!(
            "is in use by another agent (pid {})",
            std::process::id()
        )),
        "{said}"
    );
    assert!(matches!(
        reset(fixture.dir.path()),
        Err(StateError::Locked { .. })
    ));
}

#[test]
fn damaged_files_are_errors_for_a_person_and_never_a_new_identity() {
    for damage in [
        &b""[..],
        b"{",
        b"{\"format\":\"loopback-identity/2\"}",
        b"\xff\xfe",
    ] {
        let fixture = Fixture::new();
        drop(fixture.enrolled());
        fixture.damage(IDENTITY, damage);
        let said = State::open(fixture.dir.path()).unwrap_err().to_string();
        assert!(
            said.contains("identity.json is damaged") && said.contains("reset"),
            "{said}"
        );
    }
    for damage in [&b""[..], b"-----BEGIN PRIVATE KEY-----\n"] {
        let fixture = Fixture::new();
        let name = fixture.enrolled().key().unwrap().file_name();
        fixture.damage(&name, damage);
        let said = State::open(fixture.dir.path()).unwrap_err().to_string();
        assert!(said.contains(&format!("{name} is damaged")), "{said}");
        fs::remove_file(fixture.dir.path().join(&name)).unwrap();
        let said = State::open(fixture.dir.path()).unwrap_err().to_string();
        assert!(said.contains("it is missing"), "{said}");
    }
    let fixture = Fixture::new();
    let name = fixture.open().key().unwrap().file_name();
    fixture.damage(&name, b"junk");
    assert!(matches!(
        State::open(fixture.dir.path()),
        Err(StateError::Corrupt { .. })
    ));
}

#[test]
fn a_new_key_takes_over_only_with_its_certificate() {
    let fixture = Fixture::new();
    let mut state = fixture.enrolled();
    let old = state.key().unwrap().spki();
    let pending = state.pending_key().unwrap();
    let (new, csr) = (pending.spki(), pending.request().unwrap());
    drop(state);
    let mut state = fixture.open();
    assert_eq!(state.key().unwrap().spki(), old);
    assert_eq!(
        state.pending_key().unwrap().spki(),
        new,
        "the same one is offered again"
    );
    state
        .store_grant(&fixture.authority.grant(&csr, 4, 1, 1), None)
        .unwrap();
    assert_eq!(state.key().unwrap().spki(), new);
    drop(state);
    let mut state = fixture.open();
    assert_eq!(state.key().unwrap().spki(), new);
    let identity = state.identity().unwrap();
    assert_eq!(
        (identity.host, identity.counter),
        (authority::host_id(4), 1)
    );
    assert_eq!(
        fixture.files().len(),
        2,
        "the old key is gone: {:?}",
        fixture.files()
    );
}

#[test]
fn a_renewal_never_takes_the_counter_back() {
    let fixture = Fixture::new();
    let mut state = fixture.enrolled();
    state.store_counter(9, Timestamp::from_millis(5)).unwrap();
    let csr = state.key().unwrap().request().unwrap();
    let identity = state
        .store_grant(&fixture.authority.grant(&csr, 3, 1, 0), None)
        .unwrap();
    assert_eq!(identity.counter, 9);
}

#[test]
fn grants_that_do_not_fit_change_nothing() {
    let fixture = Fixture::new();
    let mut state = fixture.enrolled();
    let csr = state.key().unwrap().request().unwrap();
    let foreign = HostKey::generate().unwrap().request().unwrap();
    let good = fixture.authority.grant(&csr, 3, 1, 8);
    let cases = [
        (
            fixture.authority.grant(&foreign, 3, 1, 8),
            "a key that is not ours",
        ),
        (Authority::new().grant(&csr, 3, 1, 8), "does not hold"),
        (
            Grant {
                certificate: b"junk".to_vec(),
                ..good.clone()
            },
            "does not hold",
        ),
        (
            Grant {
                host: authority::host_id(9).to_string(),
                ..good.clone()
            },
            "ids are not those",
        ),
        (
            Grant {
                generation: 2,
                ..good.clone()
            },
            "ids are not those",
        ),
        (
            Grant {
                trust: Some(Trust {
                    version: 9,
                    authorities: vec![],
                }),
                ..good
            },
            "authorities are not usable",
        ),
    ];
    let before = fs::read(fixture.dir.path().join(IDENTITY)).unwrap();
    for (mut grant, expected) in cases {
        if expected == "does not hold" {
            grant.trust = None;
        }
        let said = model::error_chain(&state.store_grant(&grant, None).unwrap_err());
        assert!(said.contains(expected), "{expected}: {said}");
        assert_eq!(fs::read(fixture.dir.path().join(IDENTITY)).unwrap(), before);
    }
}

#[test]
fn a_crash_at_any_step_leaves_the_old_identity_or_the_new_one() {
    for steps in 0.. {
        let fixture = Fixture::new();
        let mut state = fixture.enrolled();
        let old = state.key().unwrap().spki();
        state.disk.fail_after(steps);
        let done = (|| {
            let csr = state.pending_key()?.request().unwrap();
            let offered = state.pending_key()?.spki();
            state.store_grant(&fixture.authority.grant(&csr, 4, 1, 1), None)?;
            Ok::<_, StateError>(offered)
        })();
        drop(state);
        let mut after = fixture.open();
        let key = after.key().unwrap().spki();
        let host = after.identity().unwrap().host;
        match done {
            Ok(offered) => {
                assert_eq!((key, host), (offered, authority::host_id(4)));
                return;
            }
            // Renamed and not yet synced is the new one; before that it is the old.
            Err(_) if host == authority::host_id(4) => assert_ne!(key, old),
            Err(_) => assert_eq!((key, host), (old, authority::host_id(3))),
        }
    }
}

#[test]
fn a_full_disk_changes_nothing_and_works_again_when_it_has_room() {
    let fixture = Fixture::new();
    let mut state = fixture.enrolled();
    state.disk.fail_after(1);
    assert!(state.store_counter(8, Timestamp::from_millis(1)).is_err());
    assert_eq!(state.identity().unwrap().counter, 7);
    state.disk.repair();
    state.store_counter(8, Timestamp::from_millis(1)).unwrap();
    drop(state);
    assert_eq!(fixture.open().identity().unwrap().counter, 8);
}

#[test]
fn authorities_are_replaced_and_bad_ones_refused() {
    let fixture = Fixture::new();
    let mut state = fixture.enrolled();
    let other = Authority::new();
    state.store_trust(&other.trust(2)).unwrap();
    assert!(
        state
            .store_trust(&Trust {
                version: 3,
                authorities: vec![b"junk".to_vec()]
            })
            .is_err()
    );
    drop(state);
    assert_eq!(
        fixture.open().identity().unwrap().trust.to_pem(),
        other.bundle(2).to_pem()
    );
}

#[test]
fn reset_forgets_the_host_and_touches_nothing_else() {
    let fixture = Fixture::new();
    drop(fixture.enrolled());
    fixture.damage(IDENTITY, b"damaged");
    fixture.damage("somebody-elses.txt", b"keep");
    reset(fixture.dir.path()).unwrap();
    assert_eq!(fixture.files(), ["somebody-elses.txt"]);
    assert!(fixture.open().identity().is_none());
}
