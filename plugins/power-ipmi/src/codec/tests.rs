//! Against what ipmitool 1.8.19 and the simulator of OpenIPMI 2.0.33 said to each other, with the
//! keys that ipmitool made, and against anything at all. That simulator has no suite 17: what
//! ipmitool said there it said to a script, whose proofs it took.

use proptest::prelude::*;

use super::crypt::{Keys, Suite};
use super::message::{self, Command};
use super::packet;
use super::rakp::{self, Console, Controller};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|digit| u8::try_from(digit.to_digit(16)?).ok())
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] * 16 + pair[1])
        .collect()
}

fn chunk<const N: usize>(hex: &str) -> [u8; N] {
    bytes(hex).try_into().unwrap()
}

const CONSOLE_RANDOM: &str = "c6 11 66 71 8b 37 82 6a 39 7a 49 34 c3 07 50 86";
const CONTROLLER_RANDOM: &str = "7b db c7 aa 76 8e 95 2c f0 42 ff 41 b8 41 34 e9";
const GUID: &str = "a1 23 45 67 89 ab cd ef a1 23 45 67 89 ab cd ef";
const OPENED: &str = "06 00 ff 07 06 11 00 00 00 00 00 00 00 00 24 00
    00 00 03 00 a4 a3 a2 a0 02 00 00 00 00 00 00 08
    01 00 00 00 01 00 00 08 01 00 00 00 02 00 00 08 01 00 00 00";
const SECOND: &str = "06 00 ff 07 06 13 00 00 00 00 00 00 00 00 3c 00
    00 00 00 00 a4 a3 a2 a0 7b db c7 aa 76 8e 95 2c
    f0 42 ff 41 b8 41 34 e9 a1 23 45 67 89 ab cd ef
    a1 23 45 67 89 ab cd ef a2 c7 d5 40 5a 58 e7 f3
    89 49 69 37 6c dc 92 ab 10 ff 78 c3";
const FOURTH: &str = "06 00 ff 07 06 15 00 00 00 00 00 00 00 00 14 00
    00 00 00 00 a4 a3 a2 a0 42 ab c3 c9 f2 5d f2 e2 3a b7 fa 63";
const SEALED: &str = "06 00 ff 07 06 c0 02 00 00 00 03 00 00 00 20 00
    64 e8 67 7d e2 7d 8a 4a 4b d9 e9 e1 2d 26 a4 33
    1e ba 1c ca 51 09 b0 bf dd 80 77 c6 92 fc 0c 50
    ff ff 02 07 01 31 da e2 3c 25 51 7f 28 13 6a 5c";
const ANSWERED: &str = "06 00 ff 07 06 c0 a4 a3 a2 a0 03 00 00 00 30 00
    4d 71 41 6c fc 7c b2 4d 97 bb f9 ac 89 1f 41 ff
    12 c3 54 ec 96 76 d0 c0 49 01 6d fb 70 25 19 f1
    e1 16 92 ec d9 3a 6d 91 42 ad 20 f2 dc 31 8e 88
    ff ff 02 07 6e e2 89 91 a9 0c 5e a0 ad ed fa 00";

fn console() -> Console {
    Console {
        suite: Suite::Three,
        session: 0xa0a2_a3a4,
        random: chunk(CONSOLE_RANDOM),
        privilege: 3,
        user: b"admin".to_vec(),
    }
}

fn controller() -> Controller {
    Controller {
        session: 2,
        random: chunk(CONTROLLER_RANDOM),
        guid: chunk(GUID),
    }
}

fn keys() -> Keys {
    let made = Suite::Three.mac(b"pw", &console().session_key(&controller()));
    Keys::new(Suite::Three, made)
}

const SET_PRIVILEGE: Command = Command {
    function: 6,
    command: 0x3b,
    name: "",
};
const DEVICE_ID: Command = Command {
    function: 6,
    command: 1,
    name: "",
};

#[test]
fn a_question_outside_of_sessions_is_as_ipmitool_asks_it() {
    let command = Command {
        function: 6,
        command: 0x38,
        name: "",
    };
    let asked = packet::plain(&message::request(command, 0, &[0x8e, 3]));
    let known = "06 00 ff 07 00 00 00 00 00 00 00 00 00 09 20 18 c8 81 00 38 8e 03 b6";
    assert_eq!(asked, bytes(known));
    let came = bytes(
        "06 00 ff 07 00 00 00 00 00 00 00 00 00 10 81 1c
         63 20 00 38 00 01 97 06 03 00 00 00 00 07",
    );
    let answer = message::answer(command, 0, packet::plain_message(&came).unwrap()).unwrap();
    assert_eq!(answer.completion, 0);
    assert_eq!(answer.data[..4], [1, 0x97, 6, 3]);
}

#[test]
fn a_handshake_is_as_ipmitool_makes_it() {
    let console = console();
    let known = "06 00 ff 07 06 10 00 00 00 00 00 00 00 00 20 00
        00 03 00 00 a4 a3 a2 a0 00 00 00 08 01 00 00 00
        01 00 00 08 01 00 00 00 02 00 00 08 01 00 00 00";
    assert_eq!(packet::setup(rakp::OPEN, &console.open(0)), bytes(known));
    let opened = bytes(OPENED);
    let opened = packet::setup_payload(rakp::OPENED, &opened).unwrap();
    assert_eq!(console.opened(0, opened), Some(Ok(2)));

    let known = "06 00 ff 07 06 12 00 00 00 00 00 00 00 00 21 00
        00 00 00 00 02 00 00 00 c6 11 66 71 8b 37 82 6a
        39 7a 49 34 c3 07 50 86 13 00 00 05 61 64 6d 69 6e";
    assert_eq!(
        packet::setup(rakp::FIRST, &console.first(0, 2)),
        bytes(known)
    );
    let second = bytes(SECOND);
    let second = packet::setup_payload(rakp::SECOND, &second).unwrap();
    let (chosen, proof) = console.second(0, 2, second).unwrap().unwrap();
    assert_eq!(chosen, controller());
    let mac = |data: &[u8]| Suite::Three.mac(b"pw", data);
    assert_eq!(mac(&console.controller_proof(&chosen)), proof);

    let third = Console::third(0, &chosen, &mac(&console.console_proof(&chosen)));
    let known = "06 00 ff 07 06 14 00 00 00 00 00 00 00 00 1c 00
        00 00 00 00 02 00 00 00 cc bb a0 a1 e4 7b 45 e4
        e3 f2 b7 31 9c aa 6e dc 13 33 19 18";
    assert_eq!(packet::setup(rakp::THIRD, &third), bytes(known));
    let fourth = bytes(FOURTH);
    let fourth = packet::setup_payload(rakp::FOURTH, &fourth).unwrap();
    assert_eq!(console.fourth(0, &chosen, &keys(), fourth), Some(Ok(true)));
    let other = Keys::new(Suite::Three, vec![0; 20]);
    assert_eq!(console.fourth(0, &chosen, &other, fourth), Some(Ok(false)));
}

#[test]
fn a_sealed_message_is_as_ipmitool_seals_it() {
    let keys = keys();
    let known = "6b 5d f5 41 b0 09 dc 0c 98 d1 7a 42 45 b2 ce 2e aa 7c d7 e4";
    assert_eq!(keys.session, bytes(known));
    let vector = chunk("64 e8 67 7d e2 7d 8a 4a 4b d9 e9 e1 2d 26 a4 33");
    let message = message::request(SET_PRIVILEGE, 1, &[3]);
    let sealed = packet::seal_with(&keys, 2, 3, &vector, &message);
    assert_eq!(sealed, bytes(SEALED));

    let (sequence, message) = packet::open(&keys, 0xa0a2_a3a4, &bytes(ANSWERED)).unwrap();
    assert_eq!(sequence, 3);
    let answer = message::answer(DEVICE_ID, 3, &message).unwrap();
    assert_eq!(answer.completion, 0);
    let known = "00 03 09 08 02 9f 91 12 00 02 0f 00 00 00 00";
    assert_eq!(answer.data, bytes(known));
    assert_eq!(message::answer(DEVICE_ID, 4, &message), None);
    assert_eq!(message::answer(SET_PRIVILEGE, 3, &message), None);
}

#[test]
fn suite_17_is_as_ipmitool_has_it() {
    let console = Console {
        suite: Suite::Seventeen,
        random: chunk("79 49 60 d3 42 6d 67 62 29 ed ed 87 74 44 c0 cc"),
        ..console()
    };
    let controller = Controller {
        session: 0x5566_7788,
        random: chunk("00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f"),
        guid: chunk("40 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f"),
    };
    let mac = |data: &[u8]| Suite::Seventeen.mac(b"pw", data);
    let known = "a7 71 4c 95 a8 27 a2 9a 6c cf a1 61 b1 7d 31 e3
        79 be aa 01 25 4b 34 1b 66 55 47 b8 43 8e 49 ec";
    assert_eq!(mac(&console.console_proof(&controller)), bytes(known));
    let keys = Keys::new(Suite::Seventeen, mac(&console.session_key(&controller)));
    let known = "54 ef f1 5d b5 71 03 94 75 bc 83 55 6e 2f 3b c4
        92 a5 a7 9f f7 52 51 1e db c9 7a ca 50 56 48 94";
    assert_eq!(keys.session, bytes(known));
    let vector = chunk("9b 14 8d 2a 49 34 20 56 2a 73 d9 5c be bc e4 ee");
    let message = message::request(SET_PRIVILEGE, 1, &[3]);
    let sealed = packet::seal_with(&keys, controller.session, 3, &vector, &message);
    let known = "0600ff07 06c0 88776655 03000000 2000
        9b148d2a493420562a73d95cbebce4ee 543fa0ffcb0bf4f5771784d15894223d
        ffff0207 fac4453e5fbca9a1210c2e7b313369bd";
    assert_eq!(sealed, bytes(known));
}

#[test]
fn what_was_changed_on_the_way_is_no_answer() {
    let keys = keys();
    let good = bytes(ANSWERED);
    for at in 4..good.len() {
        for bit in 0..8 {
            let mut changed = good.clone();
            changed[at] ^= 1 << bit;
            assert_eq!(packet::open(&keys, 0xa0a2_a3a4, &changed), None, "{at}");
        }
    }
    assert_eq!(packet::open(&keys, 0xa0a2_a3a5, &good), None);
    for length in 0..good.len() {
        assert_eq!(packet::open(&keys, 0xa0a2_a3a4, &good[..length]), None);
    }
}

#[test]
fn refusals_are_read_whether_they_are_long_or_short() {
    let console = console();
    assert_eq!(console.opened(1, &[1, 0x11]), Some(Err(0x11)));
    assert_eq!(console.opened(1, &[1, 1, 0, 0, 4, 3, 2, 1]), Some(Err(1)));
    assert_eq!(console.opened(1, &[2, 0x11]), None);
    assert_eq!(console.opened(1, &[1]), None);
    assert_eq!(console.second(1, 2, &[1, 0x0d]), Some(Err(0x0d)));
}

#[test]
fn weaker_algorithms_than_were_offered_are_not_taken() {
    let mut opened = bytes(OPENED);
    // No encryption.
    *opened.last_chunk_mut::<4>().unwrap() = [0; 4];
    let opened = packet::setup_payload(rakp::OPENED, &opened).unwrap();
    assert_eq!(console().opened(0, opened), None);
}

#[test]
fn vectors_do_not_come_again_in_a_session() {
    let keys = keys();
    let mut vectors: Vec<_> = (0..1000).map(|number| keys.vector(number)).collect();
    vectors.sort_unstable();
    vectors.dedup();
    assert_eq!(vectors.len(), 1000);
}

proptest! {
    #[test]
    fn what_is_sealed_opens(
        seventeen: bool,
        key in prop::collection::vec(any::<u8>(), 0..64),
        session: u32,
        sequence: u32,
        message in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let suite = if seventeen { Suite::Seventeen } else { Suite::Three };
        let keys = Keys::new(suite, key);
        let sealed = packet::seal(&keys, session, sequence, &message);
        prop_assert_eq!(packet::open(&keys, session, &sealed), Some((sequence, message)));
    }

    #[test]
    fn anything_that_comes_is_understood_or_not(
        data in prop::collection::vec(any::<u8>(), 0..160),
        kind in 0x10_u8..0x16,
        headed: bool,
    ) {
        let packet = if headed { packet::setup(kind, &data) } else { data.clone() };
        let (console, keys) = (console(), keys());
        let _ = packet::plain_message(&packet);
        let _ = packet::open(&keys, console.session, &packet);
        let _ = keys.decrypt(&data);
        let _ = message::answer(DEVICE_ID, 1, &data);
        if let Some(payload) = packet::setup_payload(kind, &packet) {
            let _ = console.opened(1, payload);
            let _ = console.second(1, 2, payload);
            let _ = console.fourth(1, &controller(), &keys, payload);
        }
    }

    /// From somebody who has the keys, and means no good or is broken.
    #[test]
    fn anything_that_is_sealed_is_understood_or_not(
        data in prop::collection::vec(any::<u8>(), 0..64),
        function: u8,
        completion: u8,
    ) {
        let keys = keys();
        let sealed = packet::seal(&keys, 1, 1, &data);
        let (_, message) = packet::open(&keys, 1, &sealed).unwrap();
        let _ = message::answer(DEVICE_ID, 1, &message);
        let _ = crate::refusal::is_unclear(completion);
        let _ = crate::refusal::status(function);
    }
}
