//! Facts of hosts, decoded when somebody looks.
//!
//! Facts are by far the largest record of a host, a few dozen small texts, and of a large
//! fleet hardly any are looked at. Decoding all of them cost every start time, and a sixth
//! of the memory. So a host's facts stay the bytes they are stored as, but for the
//! hostname and the exporters, which lists are made of, until somebody wants to see them.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use gateway_store::{Item, Key, Record};
use model::ids::HostId;
use serde::{Deserialize, Serialize};

use super::records::{HostFactsRecordV1, key_of};

/// What a host says of itself, as it is kept.
#[derive(Clone, Debug)]
pub struct KeptFacts {
    host: HostId,
    bytes: Bytes,
    hostname: Box<str>,
    exporters: Box<[Box<str>]>,
    decoded: OnceLock<Option<Arc<HostFactsRecordV1>>>,
}

impl KeptFacts {
    /// Its own name for itself; empty if it does not say.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// Exporters that can be scraped through it: asked of the whole fleet every minute.
    pub fn exporters(&self) -> &[Box<str>] {
        &self.exporters
    }

    /// All of it. Nothing if it cannot be read, which is logged once.
    pub fn record(&self) -> Option<&Arc<HostFactsRecordV1>> {
        let decode = || match HostFactsRecordV1::decode(&self.bytes) {
            Ok(record) => Some(Arc::new(record)),
            Err(error) => {
                unreadable(&key_of::<HostFactsRecordV1>(self.host), &error);
                None
            }
        };
        self.decoded.get_or_init(decode).as_ref()
    }
}

/// Puts one item in, or takes it out.
pub(super) fn keep_facts(
    table: &mut HashMap<HostId, KeptFacts>,
    key: &Key,
    id: &str,
    item: Option<&Item>,
) {
    let Ok(host) = id.parse::<HostId>() else {
        tracing::error!(key = %key, "a record lies under a key that is not its id; it is ignored");
        return;
    };
    let Some(item) = item else {
        table.remove(&host);
        return;
    };
    match Named::decode(&item.value) {
        Ok(named) => {
            let kept = KeptFacts {
                host,
                bytes: item.value.clone(),
                hostname: named.facts.hostname,
                exporters: named.facts.exporters,
                decoded: OnceLock::new(),
            };
            table.insert(host, kept);
        }
        // Keeping the old value would be wrong in silence; absence refuses.
        Err(error) => {
            unreadable(key, &error);
            table.remove(&host);
        }
    }
}

fn unreadable(key: &Key, error: &gateway_store::DecodeError) {
    tracing::error!(key = %key, error = %model::error_chain(error), "a record cannot be read; it is treated as absent");
}

/// [`HostFactsRecordV1`], reading what lists need only.
#[derive(Serialize, Deserialize)]
struct Named {
    facts: Hostname,
}

#[derive(Serialize, Deserialize)]
struct Hostname {
    #[serde(default)]
    hostname: Box<str>,
    #[serde(default)]
    exporters: Box<[Box<str>]>,
}

impl Record for Named {
    const KIND: &'static str = HostFactsRecordV1::KIND;
    const VERSION: u16 = HostFactsRecordV1::VERSION;
}

#[cfg(test)]
mod tests {
    use gateway_store::Rev;
    use model::Timestamp;
    use model::facts::{Disk, Facts};

    use super::*;

    fn table(value: Vec<u8>) -> (HostId, HashMap<HostId, KeptFacts>) {
        let host = HostId::new(Timestamp::from_millis(0), [1; 10]);
        let key = key_of::<HostFactsRecordV1>(host);
        let item = Item {
            value: value.into(),
            rev: Rev::ZERO,
        };
        let mut table = HashMap::new();
        keep_facts(&mut table, &key, &host.to_string(), Some(&item));
        (host, table)
    }

    #[test]
    fn the_hostname_is_at_hand_and_the_rest_when_asked() {
        let record = HostFactsRecordV1 {
            digest: vec![7; 32],
            facts: Facts {
                hostname: "web-1".to_owned(),
                disks: vec![Disk::default()],
                exporters: vec!["node".to_owned()],
                booted_at_secs: -1,
                ..Facts::default()
            },
            at: Timestamp::from_millis(5),
        };
        let (host, table) = table(record.encode().unwrap());
        assert_eq!(table[&host].hostname(), "web-1");
        assert_eq!(table[&host].exporters(), ["node".into()]);
        assert_eq!(table[&host].record().map(|kept| &**kept), Some(&record));
    }

    #[test]
    fn facts_of_a_later_release_and_damaged_ones_are_absent() {
        let facts = Facts::default();
        let (digest, at) = (Vec::new(), Timestamp::from_millis(5));
        let record = HostFactsRecordV1 { digest, facts, at };
        let mut later = record.encode().unwrap();
        later[1] += 1;
        let mut short = record.encode().unwrap();
        short.truncate(short.len() - 1);
        for bytes in [later, short, vec![]] {
            let (_, table) = table(bytes);
            assert!(table.values().all(|kept| kept.record().is_none()));
        }
    }
}
