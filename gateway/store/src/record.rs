//! Values with types and versions.
//!
//! A record lies under `KIND/part/part...` as a version (2 bytes, big endian)
//! and MessagePack with named fields: a field may be added with a serde default
//! without a new version, and a dump can be read by people. When a shape changes
//! so that old bytes no longer read, the version goes up and
//! [`Record::upgrade`] reads the old shape; the new one is written the next time
//! the record is. Bytes of a version this build does not know are an error, never
//! a guess.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Batch, Item, Key, KeyError, Prefix, Read, ReadError, Rev, Store, UpdateError, update};

/// A type that is stored.
pub trait Record: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The first part of its keys.
    const KIND: &'static str;
    /// The version that is written.
    const VERSION: u16;

    /// Reads what an older build wrote. `bytes` are the MessagePack of version
    /// `from`, which is less than [`VERSION`](Self::VERSION).
    fn upgrade(from: u16, bytes: &[u8]) -> Result<Self, DecodeError> {
        let _ = bytes;
        Err(DecodeError::NoUpgrade { from })
    }

    /// The key of the record that these parts name.
    fn key(parts: &[&str]) -> Result<Key, KeyError> {
        check_parts(parts)?;
        Key::new(
            [Self::KIND]
                .iter()
                .chain(parts)
                .copied()
                .collect::<Vec<_>>()
                .join("/"),
        )
    }

    /// All records whose keys begin with these parts.
    fn prefix(parts: &[&str]) -> Result<Prefix, KeyError> {
        check_parts(parts)?;
        let mut text = [Self::KIND]
            .iter()
            .chain(parts)
            .copied()
            .collect::<Vec<_>>()
            .join("/");
        text.push('/');
        Prefix::new(text)
    }

    /// The record's bytes.
    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = Self::VERSION.to_be_bytes().to_vec();
        let body = rmp_serde::to_vec_named(self);
        bytes.extend(body.map_err(|source| EncodeError {
            kind: Self::KIND,
            source,
        })?);
        Ok(bytes)
    }

    /// The record in `bytes`, of this version or an older one.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (version, body) = bytes.split_first_chunk().ok_or(DecodeError::NoVersion)?;
        let found = u16::from_be_bytes(*version);
        if found > Self::VERSION {
            return Err(DecodeError::Newer {
                found,
                supported: Self::VERSION,
            });
        }
        if found < Self::VERSION {
            return Self::upgrade(found, body);
        }
        Ok(rmp_serde::from_slice(body)?)
    }
}

/// A record and when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<R> {
    /// The record.
    pub record: R,
    /// The revision of the commit that wrote it.
    pub rev: Rev,
}

/// One page of records, in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPage<R> {
    /// The records.
    pub records: Vec<(Key, Stored<R>)>,
    /// The state this page was read from.
    pub rev: Rev,
    /// Whether there are more: ask again with `after` the last key.
    pub more: bool,
}

/// The record under `key`.
pub async fn fetch<R: Record>(
    store: &dyn Store,
    key: &Key,
    read: Read,
) -> Result<Option<Stored<R>>, RecordError> {
    let item = store.get(key, read).await?;
    item.map(|item| Stored::from_item(key, &item)).transpose()
}

/// Records under `prefix`; see [`Store::list`].
pub async fn list<R: Record>(
    store: &dyn Store,
    prefix: &Prefix,
    after: Option<&Key>,
    limit: usize,
    read: Read,
) -> Result<RecordPage<R>, RecordError> {
    let page = store.list(prefix, after, limit, read).await?;
    let decode = |(key, item): (Key, Item)| Stored::from_item(&key, &item).map(|it| (key, it));
    Ok(RecordPage {
        records: page
            .items
            .into_iter()
            .map(decode)
            .collect::<Result<_, _>>()?,
        rev: page.rev,
        more: page.more,
    })
}

/// [`update()`] for a record: `change` gets it decoded.
pub async fn update_record<R: Record, E: Send>(
    store: &dyn Store,
    key: &Key,
    mut change: impl FnMut(Option<Stored<R>>) -> Result<Batch, E> + Send,
) -> Result<Rev, UpdateRecordError<E>> {
    let outcome = update(store, key, |item| {
        let found = item.map(|item| Stored::from_item(key, item)).transpose();
        change(found.map_err(Why::Record)?).map_err(Why::Caller)
    });
    outcome.await.map_err(|error| match error {
        UpdateError::Refused(Why::Caller(error)) => UpdateError::Refused(error).into(),
        UpdateError::Refused(Why::Record(error)) => error.into(),
        UpdateError::Read(error) => UpdateError::Read(error).into(),
        UpdateError::Commit(error) => UpdateError::Commit(error).into(),
        UpdateError::Contended { key } => UpdateError::Contended { key }.into(),
    })
}

enum Why<E> {
    Record(RecordError),
    Caller(E),
}

impl<R: Record> Stored<R> {
    /// The record in an item read under `key`.
    pub fn from_item(key: &Key, item: &Item) -> Result<Self, RecordError> {
        let decoded = R::decode(&item.value);
        let record = decoded.map_err(|source| RecordError::Decode {
            key: key.clone(),
            kind: R::KIND,
            source,
        })?;
        Ok(Self {
            record,
            rev: item.rev,
        })
    }
}

impl Batch {
    /// Writes a record.
    pub fn put_record<R: Record>(
        &mut self,
        key: &Key,
        record: &R,
    ) -> Result<&mut Self, EncodeError> {
        Ok(self.put(key, record.encode()?))
    }
}

/// Why a record was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The store did not answer.
    #[error("read the store")]
    Read(#[from] ReadError),
    /// What is stored is not what the type expects.
    #[error("decode the {kind} `{key}`")]
    Decode {
        /// Its key.
        key: Key,
        /// Its kind.
        kind: &'static str,
        /// Why not.
        source: DecodeError,
    },
}

/// Why [`update_record`] did nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateRecordError<E> {
    /// The update itself.
    #[error(transparent)]
    Update(#[from] UpdateError<E>),
    /// The record could not be read.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Too short for a version.
    #[error("the value is too short to have a version")]
    NoVersion,
    /// A later release wrote it.
    #[error("version {found} was written by a later release, this one knows up to {supported}")]
    Newer {
        /// The version found.
        found: u16,
        /// The newest version this build knows.
        supported: u16,
    },
    /// Nobody wrote down how to read this old version.
    #[error("version {from} can no longer be read")]
    NoUpgrade {
        /// The version found.
        from: u16,
    },
    /// Not the MessagePack of this type.
    #[error("not the fields of this version")]
    Body(#[from] rmp_serde::decode::Error),
}

/// Why a record has no bytes.
#[derive(Debug, thiserror::Error)]
#[error("encode a {kind}")]
pub struct EncodeError {
    kind: &'static str,
    source: rmp_serde::encode::Error,
}

fn check_parts(parts: &[&str]) -> Result<(), KeyError> {
    match parts
        .iter()
        .find(|part| part.is_empty() || part.contains('/'))
    {
        Some(part) => Err(KeyError::Part {
            part: part.chars().take(64).collect(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use model::audit_chain::AuditChainKey;
    use serde::Deserialize;

    use super::*;
    use crate::testing::MemoryStore;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct DoorV1 {
        open: bool,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct DoorV2 {
        angle: u16,
        #[serde(default)]
        label: String,
    }

    impl Record for DoorV1 {
        const KIND: &'static str = "door";
        const VERSION: u16 = 1;
    }

    impl Record for DoorV2 {
        const KIND: &'static str = "door";
        const VERSION: u16 = 2;

        fn upgrade(from: u16, bytes: &[u8]) -> Result<Self, DecodeError> {
            match from {
                1 => {
                    let DoorV1 { open } = rmp_serde::from_slice(bytes)?;
                    Ok(Self {
                        angle: if open { 90 } else { 0 },
                        label: String::new(),
                    })
                }
                _ => Err(DecodeError::NoUpgrade { from }),
            }
        }
    }

    fn store() -> MemoryStore {
        MemoryStore::new(AuditChainKey::new([1; 32]))
    }

    #[test]
    fn keys_are_the_kind_and_its_parts() {
        assert_eq!(DoorV2::key(&["a", "1"]).unwrap().as_bytes(), b"door/a/1");
        assert_eq!(DoorV2::prefix(&["a"]).unwrap().as_bytes(), b"door/a/");
        assert_eq!(DoorV2::prefix(&[]).unwrap().as_bytes(), b"door/");
        for bad in ["", "a/b"] {
            assert_eq!(
                DoorV2::key(&["a", bad]),
                Err(KeyError::Part {
                    part: bad.to_owned()
                })
            );
        }
    }

    #[test]
    fn the_bytes_are_a_version_and_named_fields() {
        let bytes = DoorV1 { open: true }.encode().unwrap();
        assert_eq!(bytes, b"\x00\x01\x81\xa4open\xc3");
    }

    #[tokio::test]
    async fn an_older_version_is_upgraded_when_read() {
        let store = store();
        let key = DoorV1::key(&["front"]).unwrap();
        let mut batch = Batch::new();
        batch.put_record(&key, &DoorV1 { open: true }).unwrap();
        let rev = store.commit(batch).await.unwrap();
        let found = fetch::<DoorV2>(&store, &key, Read::Linearizable)
            .await
            .unwrap()
            .unwrap();
        let record = DoorV2 {
            angle: 90,
            label: String::new(),
        };
        assert_eq!(found, Stored { record, rev });
    }

    #[tokio::test]
    async fn a_newer_version_is_refused_by_name() {
        let store = store();
        let key = DoorV2::key(&["front"]).unwrap();
        let mut batch = Batch::new();
        batch
            .put_record(
                &key,
                &DoorV2 {
                    angle: 3,
                    label: String::new(),
                },
            )
            .unwrap();
        store.commit(batch).await.unwrap();
        let error = fetch::<DoorV1>(&store, &key, Read::Linearizable)
            .await
            .unwrap_err();
        let chain = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert_eq!(
            chain,
            "decode the door `door/front`: version 2 was written by a later release, \
             this one knows up to 1"
        );
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        for bytes in [
            &b""[..],
            b"\x00",
            b"\x00\x02",
            b"\x00\x02\xff",
            b"\x00\x02\x81\xa4open\xc3",
        ] {
            DoorV2::decode(bytes).unwrap_err();
        }
    }

    #[tokio::test]
    async fn a_listing_of_one_kind_shows_no_other() {
        let store = store();
        let mut batch = Batch::new();
        for name in ["a", "b"] {
            let key = DoorV1::key(&[name]).unwrap();
            batch.put_record(&key, &DoorV1 { open: false }).unwrap();
        }
        batch.put(&Key::new("doormat/a").unwrap(), "not a door");
        store.commit(batch).await.unwrap();
        let prefix = DoorV1::prefix(&[]).unwrap();
        let page = list::<DoorV1>(&store, &prefix, None, 10, Read::Linearizable)
            .await
            .unwrap();
        let keys: Vec<_> = page
            .records
            .iter()
            .map(|(key, _)| key.to_string())
            .collect();
        assert_eq!(keys, ["door/a", "door/b"]);
        assert!(!page.more);
    }

    #[tokio::test]
    async fn an_update_sees_what_another_wrote_in_between() {
        let store = store();
        let key = DoorV2::key(&["front"]).unwrap();
        let mut raced = false;
        let turn = |found: Option<Stored<DoorV2>>| {
            if !std::mem::replace(&mut raced, true) {
                let mut other = Batch::new();
                other
                    .put_record(
                        &key,
                        &DoorV2 {
                            angle: 40,
                            label: String::new(),
                        },
                    )
                    .unwrap();
                futures_util::FutureExt::now_or_never(store.commit(other))
                    .unwrap()
                    .unwrap();
            }
            let angle = found.map_or(0, |found| found.record.angle) + 1;
            let mut batch = Batch::new();
            batch
                .put_record(
                    &key,
                    &DoorV2 {
                        angle,
                        label: String::new(),
                    },
                )
                .unwrap();
            Ok::<_, String>(batch)
        };
        update_record(&store, &key, turn).await.unwrap();
        let found = fetch::<DoorV2>(&store, &key, Read::Linearizable)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(found.record.angle, 41);
    }
}
