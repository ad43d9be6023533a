//! The audit chain: entries nobody can change, drop or reorder unnoticed.
//!
//! Every chain (one per workspace, say) is a row of entries numbered 1, 2, 3...
//! Each carries a MAC over its own content and over the MAC before it, so the
//! last MAC, the *head*, stands for the whole history:
//!
//! ```text
//! chain key = HMAC-SHA256(master, "loopback audit chain key v1" || 0 || chain)
//! mac(n)    = HMAC-SHA256(chain key,
//!                 "loopback audit entry v1" || len(chain) || chain || n || mac(n-1) || body)
//! ```
//!
//! Lengths and numbers are 8 bytes big endian; `mac(0)` is 32 zero bytes. The
//! chain's name is length-prefixed and the rest before the body has a fixed
//! size, so two different entries never feed the MAC the same bytes.
//!
//! A MAC rather than a plain hash: whoever can write the file but lacks the key
//! cannot build a consistent forgery. A key of its own for each chain: an
//! auditor of one workspace gets that workspace's [`ChainKey`] and learns
//! nothing about the others. Signatures would let the auditor verify without
//! being able to forge; the price is a key pair to keep and rotate, and the
//! exported head already fixes what the gateway admitted at that moment.
//!
//! What the chain cannot tell alone is that its *tail* was cut: every prefix of
//! a chain is a chain. That is what an exported [`Head`] is for.

use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

const KEY_DOMAIN: &[u8] = b"loopback audit chain key v1\0";
const ENTRY_DOMAIN: &[u8] = b"loopback audit entry v1";
const FINGERPRINT_DOMAIN: &[u8] = b"loopback audit key fingerprint v1";

/// The master key of all chains of one deployment.
#[derive(Clone, PartialEq, Eq)]
pub struct AuditChainKey([u8; 32]);

impl AuditChainKey {
    /// Takes 32 bytes of real randomness.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key of one chain.
    pub fn chain_key(&self, chain: &str) -> ChainKey {
        ChainKey(hmac(&self.0, &[KEY_DOMAIN, chain.as_bytes()]))
    }

    /// A public name of this key: tells two keys apart, reveals neither.
    pub fn fingerprint(&self) -> [u8; 32] {
        hmac(&self.0, &[FINGERPRINT_DOMAIN])
    }
}

impl fmt::Debug for AuditChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditChainKey(hidden)")
    }
}

/// The key of one chain: seals and verifies that chain and no other.
#[derive(Clone, PartialEq, Eq)]
pub struct ChainKey([u8; 32]);

impl ChainKey {
    /// A key received from [`to_bytes`](Self::to_bytes).
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret itself, to be handed to the chain's auditor.
    pub const fn to_bytes(&self) -> [u8; 32] {
        self.0
    }

    /// The entry that follows `head` in `chain`.
    pub fn seal(&self, chain: &str, head: &Head, body: Vec<u8>) -> SealedEntry {
        let seq = head.seq.saturating_add(1);
        let mac = hmac(
            &self.0,
            &entry_parts(chain, &entry_numbers(chain, seq), &head.mac, &body),
        );
        SealedEntry {
            chain: chain.to_owned(),
            seq,
            prev_mac: head.mac,
            body,
            mac,
        }
    }

    fn admits(&self, entry: &SealedEntry) -> bool {
        let numbers = entry_numbers(&entry.chain, entry.seq);
        let parts = entry_parts(&entry.chain, &numbers, &entry.prev_mac, &entry.body);
        absorb(&self.0, &parts).verify_slice(&entry.mac).is_ok()
    }
}

impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChainKey(hidden)")
    }
}

/// How far a chain goes: the number and MAC of its last entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last entry's number; 0 for a chain without entries.
    pub seq: u64,
    /// The last entry's MAC; zeros for a chain without entries.
    #[serde(with = "hex32")]
    pub mac: [u8; 32],
}

impl Head {
    /// The head of a chain before its first entry.
    pub const EMPTY: Self = Self {
        seq: 0,
        mac: [0; 32],
    };
}

/// One entry in its place in its chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedEntry {
    /// The chain it belongs to.
    pub chain: String,
    /// Its number, counted from 1 without gaps.
    pub seq: u64,
    /// The MAC of the entry before it.
    #[serde(with = "hex32")]
    pub prev_mac: [u8; 32],
    /// What is recorded, as bytes: the chain does not look inside.
    #[serde(with = "base64")]
    pub body: Vec<u8>,
    /// The MAC over all of the above.
    #[serde(with = "hex32")]
    pub mac: [u8; 32],
}

impl SealedEntry {
    /// The head of a chain that ends with this entry.
    pub const fn head(&self) -> Head {
        Head {
            seq: self.seq,
            mac: self.mac,
        }
    }
}

/// Checks `entries` of `chain`, which must follow `start` without a gap and, if
/// an `expected` head is given, must contain it. Entries after the expected head
/// are fine: a chain grows after its head was noted.
///
/// Returns the head that the entries reach, or names the first bad entry.
pub fn verify<I>(
    key: &ChainKey,
    chain: &str,
    entries: I,
    start: Head,
    expected: Option<Head>,
) -> Result<Head, ChainError>
where
    I: IntoIterator,
    I::Item: core::borrow::Borrow<SealedEntry>,
{
    use core::borrow::Borrow as _;

    let matches_expected = |head: &Head| match expected {
        Some(expected) => expected.seq != head.seq || expected.mac == head.mac,
        None => true,
    };
    let mut head = start;
    if !matches_expected(&head) {
        return Err(ChainError::NotTheExpectedHead { seq: head.seq });
    }
    for entry in entries {
        let entry = entry.borrow();
        if entry.chain != chain {
            return Err(ChainError::OtherChain {
                seq: entry.seq,
                found: entry.chain.clone(),
            });
        }
        if head.seq.checked_add(1) != Some(entry.seq) {
            return Err(ChainError::Gap {
                after: head.seq,
                found: entry.seq,
            });
        }
        if entry.prev_mac != head.mac {
            return Err(ChainError::NotLinked { seq: entry.seq });
        }
        if !key.admits(entry) {
            return Err(ChainError::BadMac { seq: entry.seq });
        }
        head = entry.head();
        if !matches_expected(&head) {
            return Err(ChainError::NotTheExpectedHead { seq: head.seq });
        }
    }
    match expected {
        Some(expected) if expected.seq > head.seq => Err(ChainError::CutTail {
            last: head.seq,
            expected: expected.seq,
        }),
        Some(_) | None => Ok(head),
    }
}

/// Why entries are not the chain they claim to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// An entry of another chain.
    #[error("entry {seq} belongs to another chain, `{found}`")]
    OtherChain {
        /// The entry's number.
        seq: u64,
        /// The chain it names.
        found: String,
    },
    /// Entries are missing, doubled or out of order.
    #[error("entry {found} follows entry {after}: entries are missing or out of order")]
    Gap {
        /// The last good entry.
        after: u64,
        /// The number found after it.
        found: u64,
    },
    /// The entry does not continue the one before it.
    #[error("entry {seq} does not continue the entry before it")]
    NotLinked {
        /// The entry's number.
        seq: u64,
    },
    /// The entry was altered, or sealed with another key.
    #[error("entry {seq} was altered or sealed with another key")]
    BadMac {
        /// The entry's number.
        seq: u64,
    },
    /// The chain is consistent but is not the one whose head was noted.
    #[error("entry {seq} is not the one the expected head names: history was rewritten")]
    NotTheExpectedHead {
        /// The entry's number.
        seq: u64,
    },
    /// The chain ends before the head that was noted.
    #[error("the chain ends at entry {last}, the expected head is entry {expected}")]
    CutTail {
        /// The last entry found.
        last: u64,
        /// The number of the expected head.
        expected: u64,
    },
}

/// `len(chain)` and `seq`, both 8 bytes big endian.
fn entry_numbers(chain: &str, seq: u64) -> ([u8; 8], [u8; 8]) {
    ((chain.len() as u64).to_be_bytes(), seq.to_be_bytes())
}

fn entry_parts<'a>(
    chain: &'a str,
    (len, seq): &'a ([u8; 8], [u8; 8]),
    prev_mac: &'a [u8; 32],
    body: &'a [u8],
) -> [&'a [u8]; 6] {
    [ENTRY_DOMAIN, len, chain.as_bytes(), seq, prev_mac, body]
}

fn absorb(key: &[u8; 32], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    absorb(key, parts).finalize().into_bytes().into()
}

mod hex32 {
    use data_encoding::HEXLOWER_PERMISSIVE;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&data_encoding::HEXLOWER.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let bytes = HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .map_err(D::Error::custom)?;
        bytes
            .try_into()
            .map_err(|_| D::Error::custom("a MAC has 64 hex digits"))
    }
}

mod base64 {
    use data_encoding::BASE64;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        BASE64.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: &str = "wsp_1";

    fn master() -> AuditChainKey {
        AuditChainKey::new([7; 32])
    }

    fn chain_of(bodies: &[&str]) -> Vec<SealedEntry> {
        let key = master().chain_key(CHAIN);
        let mut head = Head::EMPTY;
        let seal = |body: &&str| {
            let entry = key.seal(CHAIN, &head, body.as_bytes().to_vec());
            head = entry.head();
            entry
        };
        bodies.iter().map(seal).collect()
    }

    fn check(entries: &[SealedEntry], expected: Option<Head>) -> Result<Head, ChainError> {
        verify(
            &master().chain_key(CHAIN),
            CHAIN,
            entries,
            Head::EMPTY,
            expected,
        )
    }

    #[test]
    fn an_untouched_chain_verifies_up_to_its_head() {
        let entries = chain_of(&["a", "b", "c"]);
        let head = entries[2].head();
        assert_eq!(check(&entries, Some(head)), Ok(head));
        assert_eq!(
            check(&entries, Some(entries[1].head())),
            Ok(head),
            "it grew since"
        );
        assert_eq!(check(&[], Some(Head::EMPTY)), Ok(Head::EMPTY));
    }

    #[test]
    fn a_part_verifies_from_the_head_before_it() {
        let entries = chain_of(&["a", "b", "c"]);
        let key = master().chain_key(CHAIN);
        let end = verify(&key, CHAIN, &entries[1..], entries[0].head(), None);
        assert_eq!(end, Ok(entries[2].head()));
    }

    #[test]
    fn every_flipped_bit_is_found_at_its_entry() {
        let good = chain_of(&["first", "second", "third"]);
        for at in 0..good[1].body.len() {
            let mut entries = good.clone();
            entries[1].body[at] ^= 1;
            assert_eq!(check(&entries, None), Err(ChainError::BadMac { seq: 2 }));
        }
        for at in 0..32 {
            let mut entries = good.clone();
            entries[1].mac[at] ^= 0x80;
            assert_eq!(check(&entries, None), Err(ChainError::BadMac { seq: 2 }));
            let mut entries = good.clone();
            entries[1].prev_mac[at] ^= 0x80;
            assert_eq!(check(&entries, None), Err(ChainError::NotLinked { seq: 2 }));
        }
    }

    #[test]
    fn a_deleted_or_moved_entry_is_a_gap() {
        let mut entries = chain_of(&["a", "b", "c"]);
        entries.remove(1);
        assert_eq!(
            check(&entries, None),
            Err(ChainError::Gap { after: 1, found: 3 })
        );
        let mut entries = chain_of(&["a", "b", "c"]);
        entries.swap(0, 1);
        assert_eq!(
            check(&entries, None),
            Err(ChainError::Gap { after: 0, found: 2 })
        );
    }

    #[test]
    fn a_deleted_entry_with_renumbered_followers_is_not_linked() {
        let mut entries = chain_of(&["a", "b", "c"]);
        entries.remove(1);
        entries[1].seq = 2;
        assert_eq!(check(&entries, None), Err(ChainError::NotLinked { seq: 2 }));
    }

    #[test]
    fn a_cut_tail_shows_against_the_noted_head() {
        let entries = chain_of(&["a", "b", "c"]);
        let head = entries[2].head();
        let cut = check(&entries[..2], Some(head));
        assert_eq!(
            cut,
            Err(ChainError::CutTail {
                last: 2,
                expected: 3
            })
        );
    }

    #[test]
    fn history_rewritten_with_the_key_shows_against_the_noted_head() {
        let head = chain_of(&["a", "b", "c"])[2].head();
        let forged = chain_of(&["a", "B", "c"]);
        let found = check(&forged, Some(head));
        assert_eq!(found, Err(ChainError::NotTheExpectedHead { seq: 3 }));
    }

    #[test]
    fn the_key_of_one_chain_opens_no_other() {
        let entries = chain_of(&["a"]);
        let other = verify(
            &master().chain_key("wsp_2"),
            CHAIN,
            &entries,
            Head::EMPTY,
            None,
        );
        assert_eq!(other, Err(ChainError::BadMac { seq: 1 }));
        let found = verify(
            &master().chain_key("wsp_2"),
            "wsp_2",
            &entries,
            Head::EMPTY,
            None,
        );
        let expected = ChainError::OtherChain {
            seq: 1,
            found: CHAIN.to_owned(),
        };
        assert_eq!(found, Err(expected));
    }

    #[test]
    fn the_format_is_frozen() {
        let entry = &chain_of(&["hello"])[0];
        assert_eq!(
            serde_json::to_string(entry).unwrap(),
            concat!(
                r#"{"chain":"wsp_1","seq":1,"prev_mac":""#,
                "0000000000000000000000000000000000000000000000000000000000000000",
                r#"","body":"aGVsbG8=","mac":""#,
                "9ffc9045075b7a1e5e6eec131d6a261972d66166e5b2fd2d2e1e407190714ccd",
                r#""}"#
            )
        );
        let text = serde_json::to_string(entry).unwrap();
        assert_eq!(&serde_json::from_str::<SealedEntry>(&text).unwrap(), entry);
    }

    #[test]
    fn keys_do_not_show_in_debug() {
        let text = format!("{:?} {:?}", master(), master().chain_key(CHAIN));
        assert_eq!(text, "AuditChainKey(hidden) ChainKey(hidden)");
    }
}
