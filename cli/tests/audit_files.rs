//! `loopback audit verify` on files, with nothing else there.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use api::v1::audit::{AuditKey, AuditRecord, ExportHeader};
use data_encoding::HEXLOWER;
use model::Timestamp;
use model::audit_chain::{AuditChainKey, Head};

const CHAIN: &str = "wsp_0000000000000000000000000a";

struct Files {
    folder: tempfile::TempDir,
    lines: Vec<String>,
    heads: Vec<Head>,
}

impl Files {
    /// An export of `count` entries and its key.
    fn new(count: usize) -> Self {
        let key = AuditChainKey::new([7; 32]).chain_key(CHAIN);
        let (mut lines, mut heads) = (vec![String::new()], vec![Head::EMPTY]);
        for number in 1..=count {
            let body = format!(r#"{{"action":"host.retire","target":"host {number}"}}"#);
            let sealed = key.seal(CHAIN, &heads[number - 1], body.clone().into_bytes());
            let (prev_mac, mac) = (
                HEXLOWER.encode(&sealed.prev_mac),
                HEXLOWER.encode(&sealed.mac),
            );
            lines.push(
                serde_json::to_string(&AuditRecord {
                    seq: sealed.seq,
                    prev_mac,
                    mac,
                    body,
                })
                .unwrap(),
            );
            heads.push(sealed.head());
        }
        let files = Self {
            folder: tempfile::tempdir().unwrap(),
            lines,
            heads,
        };
        files.write_key("key", &key.to_bytes(), files.heads[count]);
        files
    }

    fn write_key(&self, name: &str, key: &[u8], head: Head) {
        let key = AuditKey {
            chain: CHAIN.to_owned(),
            key: HEXLOWER.encode(key),
            head_seq: head.seq,
            head_mac: HEXLOWER.encode(&head.mac),
        };
        fs::write(self.path(name), serde_json::to_string(&key).unwrap()).unwrap();
    }

    /// The export with the header for the entries up to `head`.
    fn text(&self, head: usize) -> Vec<String> {
        let head = self.heads[head];
        let header = ExportHeader {
            kind: "loopback-audit-export".to_owned(),
            format: 1,
            chain: CHAIN.to_owned(),
            head_seq: head.seq,
            head_mac: HEXLOWER.encode(&head.mac),
            exported_at: Timestamp::from_millis(0),
        };
        let mut lines = self.lines[..=usize::try_from(head.seq).unwrap()].to_vec();
        lines[0] = serde_json::to_string(&header).unwrap();
        lines
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn verify(&self, lines: &[String], more: &[&str]) -> (i32, String, String) {
        fs::write(self.path("export"), lines.join("\n") + "\n").unwrap();
        self.verify_file(&self.path("export"), "key", more)
    }

    fn verify_file(&self, export: &Path, key: &str, more: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_loopback"))
            .args(["audit", "verify"])
            .arg(export)
            .arg("--key-file")
            .arg(self.path(key))
            .args(more)
            .env_clear()
            .env("HOME", self.folder.path())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }
}

fn head_text(head: Head) -> String {
    format!("{}:{}", head.seq, HEXLOWER.encode(&head.mac))
}

#[test]
fn a_good_export_passes_and_tells_its_head() {
    let files = Files::new(5);
    let (code, out, err) = files.verify(&files.text(5), &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        format!(
            "verified: all 5 entries of chain {CHAIN}\nhead: {}\n",
            head_text(files.heads[5])
        )
    );
    let (code, out, _) = files.verify(
        &files.text(5),
        &["--output", "json", "--head", &head_text(files.heads[2])],
    );
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &answer["verified"], &answer["entries"]),
        (0, &true.into(), &5.into())
    );
}

#[test]
fn whatever_was_done_to_an_export_is_named_with_exit_code_7() {
    let files = Files::new(5);
    let good = files.text(5);
    let mut flipped = good.clone();
    flipped[3] = flipped[3].replace("host 3", "host 2");
    let mut deleted = good.clone();
    deleted.remove(2);
    let mut swapped = good.clone();
    swapped.swap(4, 5);
    for (what, lines, bad) in [
        ("flipped", flipped, 3),
        ("deleted", deleted, 2),
        ("cut", good[..5].to_vec(), 5),
        ("swapped", swapped, 4),
        ("headless", good[1..].to_vec(), 0),
    ] {
        let (code, out, err) = files.verify(&lines, &["--output", "json"]);
        assert_eq!(code, 7, "{what}: {err}");
        assert!(
            err.starts_with("error: ") && err.contains("export: "),
            "{what}: {err}"
        );
        let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
        let expected = if bad == 0 {
            serde_json::Value::Null
        } else {
            bad.into()
        };
        assert_eq!(
            (&answer["verified"], &answer["first_bad_entry"]),
            (&false.into(), &expected),
            "{what}"
        );
    }
}

#[test]
fn an_end_cut_off_with_the_header_shows_against_a_noted_head_alone() {
    let files = Files::new(5);
    let cut = files.text(4);
    let (code, _, err) = files.verify(&cut, &[]);
    assert!(
        code == 0 && err.contains("it is older, or its end was cut off"),
        "{err}"
    );
    let (code, _, err) = files.verify(&cut, &["--head", &head_text(files.heads[5])]);
    assert!(
        code == 7 && err.contains("ends at entry 4, but entry 5 must follow"),
        "{err}"
    );
}

#[test]
fn another_key_fails_and_a_key_of_another_chain_is_no_verdict() {
    let files = Files::new(2);
    files.write_key("wrong", &[9; 32], Head::EMPTY);
    fs::write(files.path("good"), files.text(2).join("\n")).unwrap();
    let (code, _, err) = files.verify_file(&files.path("good"), "wrong", &[]);
    assert!(code == 7 && err.contains("entry 1"), "{err}");
    let other = fs::read_to_string(files.path("key"))
        .unwrap()
        .replace(CHAIN, "deployment");
    fs::write(files.path("other"), other).unwrap();
    assert_eq!(files.verify_file(&files.path("good"), "other", &[]).0, 1);
    fs::write(files.path("none"), "not a key").unwrap();
    assert_eq!(files.verify_file(&files.path("good"), "none", &[]).0, 2);
    assert_eq!(files.verify_file(&files.path("absent"), "key", &[]).0, 1);
}
