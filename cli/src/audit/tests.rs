use super::*;
use model::audit_chain::AuditChainKey;
use proptest::prelude::*;

const CHAIN: &str = "wsp_0000000000000000000000000a";

fn key() -> ChainKey {
    AuditChainKey::new([7; 32]).chain_key(CHAIN)
}

/// An export of these bodies, as lines, sealed with `key`.
fn export_with(key: &ChainKey, bodies: &[&str]) -> Vec<String> {
    let mut head = Head::EMPTY;
    let mut lines = Vec::new();
    for body in bodies {
        let sealed = key.seal(CHAIN, &head, body.as_bytes().to_vec());
        head = sealed.head();
        let record = AuditRecord {
            seq: sealed.seq,
            prev_mac: HEXLOWER.encode(&sealed.prev_mac),
            mac: HEXLOWER.encode(&sealed.mac),
            body: (*body).to_owned(),
        };
        lines.push(serde_json::to_string(&record).unwrap());
    }
    lines.insert(0, header(&head));
    lines
}

fn header(head: &Head) -> String {
    let header = ExportHeader {
        kind: EXPORT_KIND.to_owned(),
        format: EXPORT_FORMAT,
        chain: CHAIN.to_owned(),
        head_seq: head.seq,
        head_mac: HEXLOWER.encode(&head.mac),
        exported_at: Timestamp::from_millis(1_800_000_000_123),
    };
    serde_json::to_string(&header).unwrap()
}

fn export() -> Vec<String> {
    export_with(&key(), &[r#"{"action":"a"}"#, "b \"quoted\" é\u{1b}", "c"])
}

fn head_of(lines: &[String], seq: usize) -> Head {
    let record: AuditRecord = serde_json::from_str(&lines[seq]).unwrap();
    Head {
        seq: record.seq,
        mac: hex32(&record.mac).unwrap(),
    }
}

fn check(lines: &[String], noted: &[Head]) -> Result<Verified, VerifyError> {
    verify(
        (lines.join("\n") + "\n").as_bytes(),
        &key(),
        Some(CHAIN),
        noted,
    )
}

fn refusal(lines: &[String], noted: &[Head]) -> (Option<u64>, String) {
    let error = check(lines, noted).unwrap_err();
    assert!(error.is_verdict(), "{error}");
    (error.first_bad_entry(), model::error_chain(&error))
}

#[test]
fn an_untouched_export_verifies_with_and_without_noted_heads() {
    let lines = export();
    let head = head_of(&lines, 3);
    for noted in [vec![], vec![Head::EMPTY], vec![head_of(&lines, 1), head]] {
        let verified = check(&lines, &noted).unwrap();
        assert_eq!((verified.chain.as_str(), verified.head), (CHAIN, head));
    }
}

#[test]
fn an_empty_chain_verifies() {
    assert_eq!(
        check(&export_with(&key(), &[]), &[]).unwrap().head,
        Head::EMPTY
    );
}

#[test]
fn every_flipped_bit_of_every_entry_is_found_and_its_entry_named() {
    let text = export().join("\n") + "\n";
    let entries_begin = text.find('\n').unwrap() + 1;
    for at in entries_begin..text.len() - 1 {
        for bit in 0..8 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let Err(error) = verify(bytes.as_slice(), &key(), None, &[]) else {
                panic!("bit {bit} of byte {at} went unnoticed");
            };
            let entry = text.as_bytes()[..at]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count() as u64;
            let named = error.first_bad_entry().unwrap();
            // A seal is repeated in the entry after it, a line feed belongs to both.
            assert!(
                named == entry || named == entry + 1,
                "byte {at} of entry {entry}: {error}"
            );
        }
    }
}

#[test]
fn every_flipped_bit_of_the_header_but_its_date_is_found() {
    let lines = export();
    let date = lines[0].find("2027-").unwrap()..lines[0].len() - 2;
    for at in (0..lines[0].len()).filter(|at| !date.contains(at)) {
        for bit in 0..8 {
            let mut bytes = (lines.join("\n") + "\n").into_bytes();
            bytes[at] ^= 1 << bit;
            assert!(
                verify(bytes.as_slice(), &key(), None, &[]).is_err(),
                "bit {bit} of byte {at}"
            );
        }
    }
}

#[test]
fn a_deleted_entry_is_named() {
    let mut lines = export();
    lines.remove(2);
    let (bad, text) = refusal(&lines, &[]);
    assert_eq!(bad, Some(2));
    assert!(text.contains("entry 3 follows entry 1"), "{text}");
}

#[test]
fn swapped_and_doubled_entries_are_named() {
    let mut swapped = export();
    swapped.swap(1, 2);
    assert_eq!(refusal(&swapped, &[]).0, Some(1));
    let mut doubled = export();
    doubled.insert(2, doubled[1].clone());
    assert_eq!(refusal(&doubled, &[]).0, Some(2));
}

#[test]
fn a_cut_tail_is_found_by_lines_and_by_bytes() {
    let lines = export();
    let (bad, text) = refusal(&lines[..3], &[]);
    assert_eq!(
        (bad, text.as_str()),
        (
            Some(3),
            "the export ends at entry 2, but entry 3 must follow"
        )
    );
    let whole = lines.join("\n");
    for end in lines[0].len() + 1..whole.len() {
        assert!(
            verify(&whole.as_bytes()[..end], &key(), None, &[]).is_err(),
            "cut after byte {end}"
        );
    }
}

#[test]
fn a_cut_tail_with_an_adjusted_header_shows_against_a_noted_head() {
    let whole = export();
    let mut lines = whole[..3].to_vec();
    lines[0] = header(&head_of(&whole, 2));
    assert!(check(&lines, &[]).is_ok(), "alone it cannot show");
    let (bad, text) = refusal(&lines, &[head_of(&whole, 3)]);
    assert_eq!(bad, Some(3));
    assert!(text.contains("noted"), "{text}");
}

#[test]
fn history_rewritten_with_the_key_shows_against_a_noted_head() {
    let honest = export();
    let forged = export_with(&key(), &[r#"{"action":"a"}"#, "B", "c"]);
    assert!(check(&forged, &[]).is_ok());
    assert_eq!(refusal(&forged, &[head_of(&honest, 2)]).0, Some(2));
}

#[test]
fn another_key_fails_at_the_first_entry_and_another_chain_is_told_apart() {
    let lines = export();
    let other = AuditChainKey::new([8; 32]).chain_key(CHAIN);
    let text = lines.join("\n");
    let error = verify(text.as_bytes(), &other, None, &[]).unwrap_err();
    assert_eq!(
        (error.is_verdict(), error.first_bad_entry()),
        (true, Some(1))
    );
    let error = verify(text.as_bytes(), &key(), Some("deployment"), &[]).unwrap_err();
    assert!(
        !error.is_verdict() && error.to_string().contains("`deployment`"),
        "{error}"
    );
}

#[test]
fn appended_entries_and_other_files_are_refused() {
    let mut lines = export();
    lines.push(String::new());
    assert_eq!(refusal(&lines, &[]).0, Some(4));
    for text in ["", "hello\n", "{}\n", "\u{0}"] {
        assert!(
            matches!(
                verify(text.as_bytes(), &key(), None, &[]),
                Err(VerifyError::NoHeader(_))
            ),
            "{text:?}"
        );
    }
}

#[test]
fn a_newer_format_asks_for_a_newer_program() {
    let mut lines = export();
    lines[0] = lines[0].replace(r#""format":1"#, r#""format":2"#);
    let error = check(&lines, &[]).unwrap_err();
    assert!(matches!(error, VerifyError::NewerFormat(2)) && !error.is_verdict());
}

#[test]
fn the_same_entry_written_differently_is_refused() {
    let mut lines = export();
    lines[1] = lines[1].replace(r#""seq":1"#, r#""seq": 1"#);
    let (bad, text) = refusal(&lines, &[]);
    assert_eq!(bad, Some(1));
    assert!(text.contains("exact form"), "{text}");
}

#[test]
fn key_files_are_the_gateways_answer_or_bare_hex() {
    let hex = HEXLOWER.encode(&key().to_bytes());
    let bare = KeyFile::parse(&format!("{hex}\n")).unwrap();
    assert_eq!((bare.key, bare.chain), (key(), None));
    let zeros = "0".repeat(64);
    let json = format!(r#"{{"chain":"{CHAIN}","key":"{hex}","head_seq":0,"head_mac":"{zeros}"}}"#);
    let file = KeyFile::parse(&json).unwrap();
    assert_eq!(
        (file.key.clone(), file.chain.as_deref(), file.head),
        (key(), Some(CHAIN), Some(Head::EMPTY))
    );
    assert!(!format!("{file:?}").contains(&hex));
    for bad in ["", "abc", "{}", &hex[1..]] {
        assert!(KeyFile::parse(bad).is_err());
    }
}

#[test]
fn heads_read_as_they_are_printed() {
    let head = head_of(&export(), 3);
    assert_eq!(parse_head(&head_text(&head)), Ok(head));
    for bad in ["", "3", "3:", ":00", "x:00", "3:zz"] {
        assert!(parse_head(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), good_header: bool) {
        let mut text = if good_header { (export()[0].clone() + "\n").into_bytes() } else { Vec::new() };
        text.extend(bytes);
        prop_assert!(verify(text.as_slice(), &key(), None, &[]).is_err());
    }
}
