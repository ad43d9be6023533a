//! Large bytes, named by their digest.
//!
//! Recordings, artifacts, plugin components, the output of commands: what is too
//! large for a value lies in an object store, a local folder by default, and a
//! record refers to it by SHA-256. A name that is the content's digest needs no
//! coordination: putting twice is harmless, nothing is ever overwritten with
//! something else, and whoever reads can tell whether it is what was put.
//!
//! Bytes of unknown length are staged under `incoming/` and moved to their name
//! when it is known; a process that dies leaves them there, and the next one to
//! open the folder sweeps it.
//!
//! Put the object first and commit the record that names it second: an object
//! nobody names is garbage, a name without its object is a loss.

use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, pin_mut, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetResult, MultipartUpload, ObjectStore, ObjectStoreExt as _};
use sha2::{Digest as _, Sha256};

/// Parts of a staged object. Object stores in the cloud want at least 5 MiB.
const PART_BYTES: usize = 8 * 1024 * 1024;

const FOLDER: &str = "sha256";
const INCOMING: &str = "incoming";

/// The SHA-256 of some bytes. Its text is `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest that was made elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn path(&self) -> Path {
        let hex = HEXLOWER.encode(&self.0);
        // Two digits of folder keep a million objects at some thousands a folder.
        Path::from_iter([FOLDER, &hex[..2], &hex])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` and 64 lower-case hex digits")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text.strip_prefix("sha256:").ok_or(DigestError)?;
        let bytes = HEXLOWER.decode(hex.as_bytes()).map_err(|_| DigestError)?;
        bytes.try_into().map(Self).map_err(|_| DigestError)
    }
}

/// What is known of an object without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A store of objects.
#[derive(Clone, Debug)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
}

impl Objects {
    /// Objects in a local folder, which is made if it is missing, closed to
    /// others, and swept of what a dead process left half-written.
    pub async fn local(folder: impl AsRef<std::path::Path>) -> Result<Self, ObjectError> {
        let folder = folder.as_ref();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| ObjectError::Folder { source })?;
        let files =
            LocalFileSystem::new_with_prefix(folder).map_err(unavailable("open the folder"))?;
        let objects = Self::new(Arc::new(files.with_fsync(true)));
        objects.sweep().await?;
        Ok(objects)
    }

    /// Objects in any store.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    /// Keeps `bytes` and names them.
    pub async fn put(&self, bytes: Bytes) -> Result<ObjectInfo, ObjectError> {
        let info = ObjectInfo {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
        };
        let put = self.store.put(&info.digest.path(), bytes.into()).await;
        put.map_err(unavailable("write an object"))?;
        Ok(info)
    }

    /// Keeps what `source` yields, at most `most` bytes of it, and names it.
    pub async fn put_stream<S, E>(&self, source: S, most: u64) -> Result<ObjectInfo, ObjectError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let staged = incoming_path();
        let upload = self.store.put_multipart(&staged).await;
        let mut upload = upload.map_err(unavailable("stage an object"))?;
        match stage(&mut *upload, source, most).await {
            Ok(info) => {
                let completed = upload.complete().await;
                completed.map_err(unavailable("finish a staged object"))?;
                let moved = self.store.rename(&staged, &info.digest.path()).await;
                moved.map_err(unavailable("name a staged object"))?;
                Ok(info)
            }
            Err(error) => {
                // The error that ended the upload says more than the clean-up's.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    /// All of an object, if it has at most `most` bytes. What is returned is what
    /// was put.
    pub async fn get(&self, digest: &Digest, most: u64) -> Result<Bytes, ObjectError> {
        let found = self.find(digest).await?;
        if found.meta.size > most {
            return Err(ObjectError::TooLarge { most });
        }
        let bytes = found.bytes().await.map_err(unavailable("read an object"))?;
        if Digest::of(&bytes) != *digest {
            return Err(ObjectError::Damaged { digest: *digest });
        }
        Ok(bytes)
    }

    /// An object piece by piece. If it is not what was put, the last item is an
    /// error: act on the whole only after the stream has ended well.
    pub async fn get_stream(
        &self,
        digest: &Digest,
    ) -> Result<BoxStream<'static, Result<Bytes, ObjectError>>, ObjectError> {
        let source = self.find(digest).await?.into_stream();
        let state = Some((source, Sha256::new(), *digest));
        let verified = stream::try_unfold(state, |state| async move {
            let Some((mut source, mut sum, digest)) = state else {
                return Ok(None);
            };
            match source
                .try_next()
                .await
                .map_err(unavailable("read an object"))?
            {
                Some(piece) => {
                    sum.update(&piece);
                    Ok(Some((piece, Some((source, sum, digest)))))
                }
                None if Digest(sum.finalize().into()) == digest => Ok(None),
                None => Err(ObjectError::Damaged { digest }),
            }
        });
        Ok(verified.boxed())
    }

    /// What is known of an object, or `None` if there is none of this name.
    pub async fn info(&self, digest: &Digest) -> Result<Option<ObjectInfo>, ObjectError> {
        match self.store.head(&digest.path()).await {
            Ok(meta) => Ok(Some(ObjectInfo {
                digest: *digest,
                size: meta.size,
            })),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unavailable("look for an object")(error)),
        }
    }

    /// All objects, in no order.
    pub fn list(&self) -> BoxStream<'static, Result<ObjectInfo, ObjectError>> {
        let named = |meta: object_store::ObjectMeta| {
            let digest = format!("sha256:{}", meta.location.filename()?)
                .parse()
                .ok()?;
            Some(ObjectInfo {
                digest,
                size: meta.size,
            })
        };
        let all = self
            .store
            .list(Some(&Path::from(FOLDER)))
            .map_err(unavailable("list objects"));
        all.try_filter_map(move |meta| std::future::ready(Ok(named(meta))))
            .boxed()
    }

    /// Removes an object. One that is not there is no error.
    pub async fn delete(&self, digest: &Digest) -> Result<(), ObjectError> {
        match self.store.delete(&digest.path()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(unavailable("delete an object")(error)),
        }
    }

    async fn find(&self, digest: &Digest) -> Result<GetResult, ObjectError> {
        self.store
            .get(&digest.path())
            .await
            .map_err(|error| match error {
                object_store::Error::NotFound { .. } => ObjectError::NotFound { digest: *digest },
                error => unavailable("open an object")(error),
            })
    }

    async fn sweep(&self) -> Result<(), ObjectError> {
        let staged = self.store.list(Some(&Path::from(INCOMING)));
        let staged: Vec<_> = staged
            .try_collect()
            .await
            .map_err(unavailable("list staged objects"))?;
        for left in staged {
            let deleted = self.store.delete(&left.location).await;
            deleted.map_err(unavailable("delete a staged object"))?;
        }
        Ok(())
    }
}

/// Why an object was not put or got.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// There is no such object.
    #[error("there is no object {digest}")]
    NotFound {
        /// The name asked for.
        digest: Digest,
    },
    /// The bytes are not those that were put.
    #[error("the object {digest} is damaged")]
    Damaged {
        /// Its name.
        digest: Digest,
    },
    /// There are more bytes than the caller takes.
    #[error("the object has more than {most} bytes")]
    TooLarge {
        /// How many the caller takes.
        most: u64,
    },
    /// The disk or quota is full.
    #[error("{action}: the disk is full")]
    StorageFull {
        /// What was tried.
        action: &'static str,
    },
    /// The caller's own stream broke off.
    #[error("read what is to be stored")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The folder cannot be made.
    #[error("make the folder of objects")]
    Folder {
        /// Why.
        source: std::io::Error,
    },
    /// The object store refused.
    #[error("{action}")]
    Store {
        /// What was tried.
        action: &'static str,
        /// What it said.
        source: object_store::Error,
    },
}

fn unavailable(action: &'static str) -> impl Fn(object_store::Error) -> ObjectError {
    move |source| {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&source);
        while let Some(error) = cause {
            let io = error
                .downcast_ref::<std::io::Error>()
                .map(std::io::Error::kind);
            if let Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) = io {
                return ObjectError::StorageFull { action };
            }
            cause = error.source();
        }
        ObjectError::Store { action, source }
    }
}

async fn stage<S, E>(
    upload: &mut dyn MultipartUpload,
    source: S,
    most: u64,
) -> Result<ObjectInfo, ObjectError>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pin_mut!(source);
    let mut sum = Sha256::new();
    let mut size = 0;
    let mut part = BytesMut::new();
    while let Some(piece) = source.next().await {
        let piece = piece.map_err(|error| ObjectError::Source(error.into()))?;
        size += piece.len() as u64;
        if size > most {
            return Err(ObjectError::TooLarge { most });
        }
        sum.update(&piece);
        part.extend_from_slice(&piece);
        if part.len() >= PART_BYTES {
            let full = part.split().freeze();
            upload
                .put_part(full.into())
                .await
                .map_err(unavailable("stage an object"))?;
        }
    }
    let rest = part.freeze();
    upload
        .put_part(rest.into())
        .await
        .map_err(unavailable("stage an object"))?;
    Ok(ObjectInfo {
        digest: Digest(sum.finalize().into()),
        size,
    })
}

/// A name nobody else uses: other processes differ in id or in time, other calls
/// in the counter.
fn incoming_path() -> Path {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}-{}-{next}", since.as_nanos(), std::process::id());
    Path::from_iter([INCOMING, &name])
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    async fn folder() -> (tempfile::TempDir, Objects) {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::local(folder.path().join("objects")).await.unwrap();
        (folder, objects)
    }

    fn pieces(of: &[&'static [u8]]) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
        stream::iter(
            of.iter()
                .map(|piece| Ok(Bytes::from_static(piece)))
                .collect::<Vec<_>>(),
        )
    }

    async fn names(objects: &Objects) -> Vec<ObjectInfo> {
        let mut all: Vec<_> = objects.list().try_collect().await.unwrap();
        all.sort_by_key(|info| info.digest);
        all
    }

    #[test]
    fn a_digest_is_read_back_from_its_text() {
        let digest = Digest::of(b"abc");
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        for bad in [
            "",
            "sha256:",
            "sha256:00",
            &text[7..],
            &text.to_uppercase(),
            "md5:00",
        ] {
            assert_eq!(bad.parse::<Digest>(), Err(DigestError), "{bad}");
        }
    }

    #[tokio::test]
    async fn what_is_put_whole_or_in_pieces_has_one_name() {
        let (_folder, objects) = folder().await;
        let whole = objects
            .put(Bytes::from_static(b"hello world"))
            .await
            .unwrap();
        let parts = objects
            .put_stream(pieces(&[b"hello ", b"", b"world"]), 11)
            .await
            .unwrap();
        assert_eq!(whole, parts);
        assert_eq!(objects.get(&whole.digest, 11).await.unwrap(), "hello world");
        assert_eq!(names(&objects).await, [whole]);
        assert_eq!(objects.info(&whole.digest).await.unwrap(), Some(whole));
    }

    #[tokio::test]
    async fn many_parts_come_back_in_order() {
        let (_folder, objects) = folder().await;
        static PIECE: [u8; 3 * 1024 * 1024] = [7; 3 * 1024 * 1024];
        let source: &[&[u8]] = &[&PIECE, b"1", &PIECE, b"2", &PIECE, b"3", &PIECE];
        let info = objects.put_stream(pieces(source), u64::MAX).await.unwrap();
        let read: Vec<Bytes> = objects
            .get_stream(&info.digest)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        assert_eq!(read.concat(), source.concat());
    }

    #[tokio::test]
    async fn an_empty_object_is_an_object() {
        let (_folder, objects) = folder().await;
        let info = objects.put_stream(pieces(&[]), 0).await.unwrap();
        assert_eq!(info, objects.put(Bytes::new()).await.unwrap());
        assert_eq!(objects.get(&info.digest, 0).await.unwrap(), "");
    }

    #[tokio::test]
    async fn too_much_is_refused_and_leaves_nothing() {
        let (folder, objects) = folder().await;
        let error = objects
            .put_stream(pieces(&[b"hello ", b"world"]), 10)
            .await
            .unwrap_err();
        assert!(matches!(error, ObjectError::TooLarge { most: 10 }));
        let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err("gone")]);
        let error = objects.put_stream(broken, 10).await.unwrap_err();
        assert!(matches!(error, ObjectError::Source(_)));
        assert_eq!(names(&objects).await, []);
        let incoming = folder.path().join("objects").join(INCOMING);
        let left = std::fs::read_dir(incoming).map_or(0, Iterator::count);
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn a_damaged_object_is_never_returned_as_good() {
        let (folder, objects) = folder().await;
        let Digest(bytes) = objects
            .put(Bytes::from_static(b"precious"))
            .await
            .unwrap()
            .digest;
        let digest = Digest(bytes);
        let file = folder.path().join("objects").join(digest.path().as_ref());
        std::fs::write(file, b"previous").unwrap();
        let error = objects.get(&digest, 100).await.unwrap_err();
        assert!(matches!(error, ObjectError::Damaged { digest: found } if found == digest));
        let read = objects
            .get_stream(&digest)
            .await
            .unwrap()
            .collect::<Vec<_>>()
            .await;
        assert!(matches!(
            read.last(),
            Some(Err(ObjectError::Damaged { .. }))
        ));
        assert_eq!(
            objects
                .put(Bytes::from_static(b"precious"))
                .await
                .unwrap()
                .digest,
            digest
        );
        assert_eq!(objects.get(&digest, 100).await.unwrap(), "precious");
    }

    #[tokio::test]
    async fn deleting_twice_is_fine_and_getting_after_is_not_found() {
        let (_folder, objects) = folder().await;
        let digest = objects.put(Bytes::from_static(b"x")).await.unwrap().digest;
        objects.delete(&digest).await.unwrap();
        objects.delete(&digest).await.unwrap();
        let error = objects.get(&digest, 1).await.unwrap_err();
        assert!(matches!(error, ObjectError::NotFound { .. }));
        assert_eq!(objects.info(&digest).await.unwrap(), None);
    }

    #[tokio::test]
    async fn opening_sweeps_what_a_dead_process_left_and_keeps_the_rest() {
        let (folder, objects) = folder().await;
        let kept = objects.put(Bytes::from_static(b"kept")).await.unwrap();
        let root = folder.path().join("objects");
        std::fs::create_dir_all(root.join(INCOMING)).unwrap();
        std::fs::write(root.join(INCOMING).join("1-2-3"), b"half").unwrap();
        let objects = Objects::local(&root).await.unwrap();
        assert!(!root.join(INCOMING).join("1-2-3").exists());
        assert_eq!(names(&objects).await, [kept]);
    }
}
