use proptest::prelude::*;

use super::*;

const OLD: [u8; 32] = [1; 32];
const NEW: [u8; 32] = [2; 32];

fn identity() -> Identity {
    Identity {
        generation: 3,
        spki_sha256: OLD,
        not_after: Timestamp::from_millis(1000),
        issuer: [9; 32],
        previous: None,
    }
}

fn proven(generation: u64, spki_sha256: [u8; 32]) -> Proven {
    let at = Timestamp::from_millis(1);
    Proven {
        workspace: WorkspaceId::new(at, [1; 10]),
        host: HostId::new(at, [2; 10]),
        generation,
        spki_sha256,
        expired: false,
    }
}

fn with(current: Identity, place: Place, key: [u8; 32]) -> Identity {
    Identity {
        generation: place.generation,
        previous: place.previous,
        spki_sha256: key,
        ..current
    }
}

fn placed(current: &Identity, key: [u8; 32], asking: Asking) -> Place {
    place(Some(current), &key, asking, Fence::NONE).unwrap()
}

#[test]
fn a_new_key_opens_a_generation_and_the_old_one_lasts_until_it_is_used() {
    let next = placed(&identity(), NEW, Asking::Holder { generation: 3 });
    assert_eq!((next.generation, next.previous), (4, Some(3)));
    let current = with(identity(), next, NEW);
    assert!(current.in_force(3) && current.in_force(4) && !current.in_force(2));
    let used = current.used(&proven(4, NEW)).unwrap();
    assert!(!used.in_force(3) && used.in_force(4));
    assert_eq!(used.used(&proven(4, NEW)), None);
}

#[test]
fn an_answer_that_is_lost_twice_leaves_the_old_identity_in_force() {
    let mut current = identity();
    for _ in 0..3 {
        let next = placed(&current, NEW, Asking::Holder { generation: 3 });
        current = with(current, next, NEW);
        assert!(current.in_force(3), "the host could not come back");
        assert_eq!(current.generation, 4);
    }
}

#[test]
fn an_heir_that_asks_twice_may_use_either_answer() {
    let first = placed(&identity(), NEW, Asking::Heir);
    let current = with(identity(), first, NEW);
    assert!(!current.in_force(3), "the one before has ended");
    let second = placed(&current, NEW, Asking::Heir);
    assert_eq!(first.generation, second.generation);
    assert!(second.again && !first.again);
}

#[test]
fn a_holder_whose_identity_was_ended_gets_no_other() {
    let ended = identity().ended(Fence::NONE);
    for key in [OLD, NEW] {
        let asking = Asking::Holder { generation: 3 };
        assert_eq!(place(Some(&ended), &key, asking, Fence::NONE), None);
    }
    let heir = placed(&ended, NEW, Asking::Heir);
    assert!(heir.generation > ended.generation && heir.previous.is_none());
}

#[test]
fn a_generation_from_a_forgotten_life_belongs_to_the_key_that_proved_it() {
    let used = identity().used(&proven(7, NEW)).unwrap();
    assert_eq!((used.generation, used.spki_sha256), (7, NEW));
    let holder = Asking::Holder { generation: 7 };
    assert_eq!(placed(&used, NEW, holder).generation, 7);
    assert_eq!(placed(&used, OLD, holder).generation, 8);
    assert_eq!(placed(&used, OLD, Asking::Heir).generation, 8);
}

#[test]
fn an_identity_that_is_ended_after_a_restore_ends_what_the_lost_life_gave_out() {
    // In the lost life the host got the generations 4 and 5.
    let ended = identity().ended(Fence::after(1_000));
    for generation in [3, 4, 5] {
        assert!(!ended.in_force(generation));
    }
}

/// What happens to one host's identity.
#[derive(Clone, Debug)]
enum Event {
    /// Another machine is given it, with a new key.
    Inherit,
    /// Its holder asks with a new key.
    Rekey,
    /// Its holder asks again with the key it has.
    Renew,
    /// It is ended.
    End,
    /// A backup is made.
    Backup,
    /// The newest backup is restored.
    Restore,
    /// A certificate that was given out, in whichever life, is used.
    Use(prop::sample::Index),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => Just(Event::Inherit),
        2 => Just(Event::Rekey),
        2 => Just(Event::Renew),
        1 => Just(Event::End),
        2 => Just(Event::Backup),
        2 => Just(Event::Restore),
        3 => any::<prop::sample::Index>().prop_map(Event::Use),
    ];
    prop::collection::vec(event, 1..80)
}

proptest! {
    /// Over any number of lives of the gateway: a generation belongs to one key, and a
    /// new one is above every one that was given out before.
    #[test]
    fn generations_never_go_back_whatever_is_restored(events in events()) {
        let mut revision = 0_u64;
        let mut fence = Fence::NONE;
        let mut current: Option<Identity> = None;
        let mut backup = (revision, current);
        let mut keys = 0_u8;
        let mut given = Vec::<(u64, [u8; 32])>::new();
        for event in events {
            let newest = given.iter().map(|it| it.0).max().unwrap_or(0);
            let holder = current.filter(|it| it.spki_sha256 != UNKNOWN_KEY);
            let (key, asking) = match event {
                Event::Inherit => {
                    keys += 1;
                    ([keys; 32], Asking::Heir)
                }
                Event::Rekey | Event::Renew => {
                    let Some(holder) = holder else { continue };
                    let new = matches!(event, Event::Rekey);
                    keys += u8::from(new);
                    let key = if new { [keys; 32] } else { holder.spki_sha256 };
                    (key, Asking::Holder { generation: holder.generation })
                }
                Event::End => {
                    revision += 1;
                    current = current.map(|it| it.ended(fence));
                    if let Some(ended) = current {
                        prop_assert!(given.iter().all(|it| !ended.in_force(it.0)));
                    }
                    continue;
                }
                Event::Backup => {
                    backup = (revision, current);
                    continue;
                }
                Event::Restore => {
                    // As the store does it: above every revision of any earlier life.
                    revision = revision.max(backup.0) + 1;
                    (fence, current) = (Fence::after(revision), backup.1);
                    continue;
                }
                Event::Use(index) => {
                    if let (Some(identity), false) = (current, given.is_empty()) {
                        let (generation, key) = *index.get(&given);
                        let used = identity.used(&proven(generation, key));
                        if identity.in_force(generation) {
                            revision += 1;
                            current = used.or(current);
                        }
                    }
                    continue;
                }
            };
            revision += 1;
            let Some(place) = place(current.as_ref(), &key, asking, fence) else { continue };
            let known = given.iter().find(|it| it.0 == place.generation);
            match known {
                Some(it) => prop_assert_eq!(it.1, key, "two keys in one generation"),
                None => prop_assert!(place.generation > newest, "{} after {newest}", place.generation),
            }
            given.push((place.generation, key));
            let base = current.unwrap_or_else(identity);
            current = Some(with(base, place, key));
        }
    }
}
