//! What other programs on a host wrote, on its way into a diagnosis.
//!
//! Input: one byte for the size of the pieces, then the text.

use agent_core::diagnose::{mounts, net, processes, redact, system};

use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "diagnose",
    about: "text of a diagnosis: the pieces make no difference, lines stay lines, nothing drives a terminal",
    run,
    seeds,
    longest: 2048,
};

fn run(input: &[u8]) {
    let Some((&piece, said)) = input.split_first() else {
        return;
    };
    let whole = redacted(said, said.len().max(1));
    assert_eq!(redacted(said, usize::from(piece).max(1)), whole);
    assert_eq!(lines(&whole), lines(said));
    let shown = String::from_utf8(whole).unwrap();
    let plain = |letter: char| !letter.is_control() || letter == '\n' || letter == '\t';
    assert!(shown.chars().all(plain));
    let _ = processes::arguments(said);
    let text = String::from_utf8_lossy(said);
    let _ = processes::process(&text, &text, 1);
    let _ = (processes::control_group(&text), mounts::mounts(&text));
    let _ = (net::inet_sockets(&text, "tcp"), net::unix_sockets(&text));
    let _ = (
        net::routes_v4(&text),
        net::routes_v6(&text),
        net::interfaces(&text),
    );
    let _ = (
        system::units(&text),
        system::kernel_line(&text),
        system::memory(&text),
    );
}

fn redacted(said: &[u8], piece: usize) -> Vec<u8> {
    let mut redactor = redact::Redactor::default();
    let mut shown = Vec::new();
    for part in said.chunks(piece) {
        redactor.feed(part, &mut shown);
    }
    redactor.finish(&mut shown);
    shown
}

fn lines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

fn seeds() -> Vec<Vec<u8>> {
    [
        "a: -----BEGIN PRIVATE KEY-----\na: MIIB\na: -----END PRIVATE KEY-----\n",
        "PASSWORD='a \\' b' --token x \"key\": {\"secret\": [1]} https://u:p@h/ Bearer abcdefgh\n",
        "  sl  local\n   0: 0100007F:1F90 00000000:0000 0A 0:0 00:0 0 33 0 42 1\n",
        "42 (a b) D 1 42 42 0 -1 0 0 0 0 0 7 3 0 0 20 0 5 0 1000 1 2\n",
        "36 35 98:0 / /mnt rw - ext4 /dev/vda1 rw\n",
        "\u{1b}[31mtoken\u{1b}[0m=x $6$salt$0123456789abcdef eyJhbGciOiJIUzI1NiJ9.e30.x\n",
    ]
    .map(|text| [&[3], text.as_bytes()].concat())
    .into()
}
