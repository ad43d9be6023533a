//! Signed agent releases: the manifest, its signature, the keys.
//!
//! Input: text of a signature, a NUL byte, the manifest. The manifest is also signed
//! for real, so that what lies behind the signature is reached.

use std::sync::OnceLock;

use jiff::Timestamp;
use release::{
    Expect, Manifest, PublicKey, SigningKey, sign_manifest, verify_file, verify_manifest,
};

use super::{reads_as_it_writes, text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "release",
    about: "release manifests: believed only when signed, names never paths, written as read",
    run,
    seeds,
    longest: 4096,
};

fn run(input: &[u8]) {
    let (signature, bytes) = match input.iter().position(|byte| *byte == 0) {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (&[][..], input),
    };
    let key = key();
    let trusted = [key.public().clone()];
    let expect = Expect {
        now: Timestamp::from_second(1_800_000_000).unwrap(),
        min_number: 3,
        channel: None,
    };
    let genuine = sign_manifest(bytes, key);
    if let Ok(manifest) = verify_manifest(bytes, &genuine, &trusted, expect) {
        assert!(manifest.number >= 3 && manifest.expires > expect.now);
        for file in &manifest.files {
            let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            assert!(file.name.bytes().all(safe) && file.name.starts_with(char::is_alphabetic));
            let _ = verify_file(&manifest, &file.os, &file.arch, bytes);
        }
        let again: Manifest = serde_json::from_slice(&manifest.to_bytes()).unwrap();
        assert_eq!(again, manifest);
        assert!(again.validate().is_ok());
    }
    if let Some(signature) = text(signature) {
        assert!(
            verify_manifest(bytes, signature, &trusted, expect).is_err(),
            "believed, and signed by nobody"
        );
    }
    if let Some(text) = text(bytes) {
        let _ = PublicKey::parse_list(text);
        reads_as_it_writes::<PublicKey>(text);
    }
}

fn key() -> &'static SigningKey {
    static KEY: OnceLock<SigningKey> = OnceLock::new();
    KEY.get_or_init(|| SigningKey::generate().unwrap())
}

fn seeds() -> Vec<Vec<u8>> {
    let digest = "ab".repeat(32);
    let manifest = format!(
        r#"{{"format":"loopback-agent-release/1","channel":"stable","version":"1.2.3","number":7,"created":"2027-01-01T00:00:00Z","expires":"2028-01-01T00:00:00Z","files":[{{"os":"linux","arch":"x86_64","name":"loopback-agent-x86_64","size":7,"sha256":"{digest}"}}]}}"#
    );
    let signature = sign_manifest(b"something else", key());
    texts(&[
        &format!("\0{manifest}"),
        &format!("{signature}\0{manifest}"),
        &format!("\0{}", manifest.replace("loopback-agent-x86_64", "../x")),
        &format!("\0{}", manifest.replace("release/1", "release/2")),
        &format!("\0{}", manifest.replace("1.2.3", "1.2.3-rc.1")),
        &format!("\0{}", "[".repeat(200)),
        &format!("\0{}", key().public()),
        "key: 0123456789abcdef\nsig: AAAA\n\0{}",
        "\0{}",
    ])
}
