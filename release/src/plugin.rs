//! Signatures of plugins: with the same keys and in the same text as those of releases, and
//! never to be mistaken for one.
//!
//! What is signed is not the component but the text `loopback-plugin`, a line feed and
//! `sha256:DIGEST`. A release's signature covers a manifest's own bytes, which begin with `{`. So
//! whoever has a key sign a plugin cannot pass the signature off as that of an agent, which hosts
//! would run as root, nor the reverse. The digest, and not the bytes, because the digest is what a
//! deployment pins and shows.

use data_encoding::{BASE64, HEXLOWER};
use ring::digest::{SHA256, digest};

use crate::key::{KeyId, PublicKey, SigningKey};
use crate::verify::{VerifyError, parse_signature};

/// Before the digest in what is signed.
const CONTEXT: &str = "loopback-plugin\n";

/// Longer than any signature's text; checked before it is read.
const MAX_SIGNATURE: usize = 1024;

/// Signs a component; the result is the content of `FILE.sig`.
pub fn sign_component(component: &[u8], key: &SigningKey) -> String {
    let signature = key.sign(message(component).as_bytes());
    format!(
        "key: {}\nsig: {}\n",
        key.public().id(),
        BASE64.encode(&signature)
    )
}

/// Checks a component against the content of its `FILE.sig`. Answers who signed.
pub fn verify_component(
    component: &[u8],
    signature: &str,
    trusted: &[PublicKey],
) -> Result<KeyId, PluginSignatureError> {
    if signature.len() > MAX_SIGNATURE {
        return Err(PluginSignatureError::Format("it is too long"));
    }
    let (signer, signature) = parse_signature(signature).map_err(|error| match error {
        VerifyError::SignatureFormat(what) => PluginSignatureError::Format(what),
        _ => PluginSignatureError::Format("it cannot be read"),
    })?;
    let key = trusted
        .iter()
        .find(|key| key.id() == signer)
        .ok_or_else(|| PluginSignatureError::UnknownSigner {
            signer,
            trusted: trusted.iter().map(PublicKey::id).collect(),
        })?;
    if key.verify(message(component).as_bytes(), &signature) {
        Ok(signer)
    } else {
        Err(PluginSignatureError::BadSignature { signer })
    }
}

/// Why a component is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum PluginSignatureError {
    /// Not a signature.
    #[error("not a signature of a plugin: {0}")]
    Format(&'static str),
    /// Signed by somebody else.
    #[error("signed by key {signer}, which is not among the trusted keys ({})", crate::verify::list(.trusted))]
    UnknownSigner {
        /// Who claims to have signed.
        signer: KeyId,
        /// Whom the reader trusts.
        trusted: Vec<KeyId>,
    },
    /// The right signer's name on wrong bytes.
    #[error(
        "the signature of key {signer} does not belong to this component: one of the two was changed"
    )]
    BadSignature {
        /// Who claims to have signed.
        signer: KeyId,
    },
}

fn message(component: &[u8]) -> String {
    let digest = HEXLOWER.encode(digest(&SHA256, component).as_ref());
    format!("{CONTEXT}sha256:{digest}")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{Expect, sign_manifest, verify_manifest};

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0 and so on";

    fn verify(
        component: &[u8],
        signature: &str,
        trusted: &[&SigningKey],
    ) -> Result<KeyId, PluginSignatureError> {
        let trusted: Vec<_> = trusted.iter().map(|key| key.public().clone()).collect();
        verify_component(component, signature, &trusted)
    }

    #[test]
    fn a_signature_holds_for_its_component_and_its_key_alone() {
        let (key, other) = (
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
        );
        let signature = sign_component(COMPONENT, &key);
        let signer = verify(COMPONENT, &signature, &[&other, &key]).unwrap();
        assert_eq!(signer, key.public().id());
        for at in 0..COMPONENT.len() {
            let mut changed = COMPONENT.to_vec();
            changed[at] ^= 1;
            let error = verify(&changed, &signature, &[&key]).unwrap_err();
            assert!(
                matches!(error, PluginSignatureError::BadSignature { .. }),
                "{at}"
            );
        }
        let error = verify(COMPONENT, &signature, &[&other]).unwrap_err();
        assert!(matches!(error, PluginSignatureError::UnknownSigner { .. }));
        // The name of a trusted key on another's signature.
        let forged = signature.replace(&signer.to_string(), &other.public().id().to_string());
        let error = verify(COMPONENT, &forged, &[&key, &other]).unwrap_err();
        assert!(matches!(error, PluginSignatureError::BadSignature { .. }));
    }

    #[test]
    fn abuse_37_neither_signature_passes_for_the_other() {
        let key = SigningKey::generate().unwrap();
        let of_release = sign_manifest(COMPONENT, &key);
        let error = verify(COMPONENT, &of_release, &[&key]).unwrap_err();
        assert!(matches!(error, PluginSignatureError::BadSignature { .. }));

        let expect = Expect {
            now: Timestamp::UNIX_EPOCH,
            min_number: 0,
            channel: None,
        };
        let trusted = [key.public().clone()];
        // The component's signature beside what it covers: whatever those bytes are, no manifest.
        let covered = message(COMPONENT);
        let of_plugin = sign_component(COMPONENT, &key);
        assert_eq!(of_plugin, sign_manifest(covered.as_bytes(), &key));
        let error = verify_manifest(covered.as_bytes(), &of_plugin, &trusted, expect).unwrap_err();
        assert!(matches!(error, VerifyError::Malformed(_)));
        // Beside a real manifest it does not hold.
        let error = verify_manifest(b"{}", &sign_component(b"{}", &key), &trusted, expect);
        assert!(matches!(error, Err(VerifyError::BadSignature { .. })));
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        let key = SigningKey::generate().unwrap();
        let good = sign_component(COMPONENT, &key);
        for bad in [
            String::new(),
            "key: 00\nsig: 00\n".into(),
            good.replace("sig: ", "sig "),
            format!("{good}more\n"),
            "x".repeat(100_000),
        ] {
            let error = verify(COMPONENT, &bad, &[&key]).unwrap_err();
            assert!(
                matches!(error, PluginSignatureError::Format(_)),
                "{bad:.40}"
            );
        }
    }
}
