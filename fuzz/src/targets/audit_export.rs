//! Exports of an audit trail, as `loopback audit verify` reads them. A file that was
//! changed anywhere must not verify.

use cli::audit::verify;
use cli::audit::{KeyFile, parse_head};
use model::audit_chain::{AuditChainKey, ChainKey};

use super::{text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "audit_export",
    about: "audit exports and their keys: only what was sealed verifies",
    run,
    seeds,
    longest: 2048,
};

const CHAIN: &str = "deployment";

fn run(input: &[u8]) {
    // Nobody but this test has the key, and an export of nothing is all it ever sealed.
    if let Ok(verified) = verify(input, &key(), None, &[]) {
        assert_eq!(verified.head.seq, 0, "verified, and sealed by nobody");
    }
    if let Some(text) = text(input) {
        let _ = parse_head(text);
        if let Ok(file) = KeyFile::parse(text) {
            let shown = format!("{file:?}");
            assert!(text.len() < 64 || !shown.contains(text.trim()));
        }
    }
}

fn key() -> ChainKey {
    AuditChainKey::new([7; 32]).chain_key(CHAIN)
}

fn seeds() -> Vec<Vec<u8>> {
    let zeros = "0".repeat(64);
    let header = |seq: u64| {
        format!(
            r#"{{"kind":"loopback-audit-export","format":1,"chain":"{CHAIN}","head_seq":{seq},"head_mac":"{zeros}","exported_at":"2027-01-01T00:00:00Z"}}"#
        )
    };
    let entry =
        format!(r#"{{"seq":1,"previous":"{zeros}","mac":"{zeros}","entry":{{"action":"a"}}}}"#);
    texts(&[
        &format!("{}\n", header(0)),
        &format!("{}\n{entry}\n", header(1)),
        &format!("{}\n", header(0)).replace("\"format\":1", "\"format\":2"),
        &format!(r#"{{"chain":"{CHAIN}","key":"{zeros}","head_seq":0,"head_mac":"{zeros}"}}"#),
        &zeros,
        &format!("42:{zeros}"),
        "",
        "{}\n",
    ])
}
