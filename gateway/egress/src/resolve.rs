//! From a name to addresses.
//!
//! Asked once per request: the answer is judged, and what was judged is connected to. Asking again
//! would give whoever runs the zone a second chance to answer.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;

/// Most addresses of a name that are looked at.
pub(crate) const MAX_ADDRESSES: usize = 16;

/// Who knows the addresses of names.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// The addresses of a name, with the port.
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The machine's own resolver.
///
/// A look-up occupies a thread until the system answers, however early the caller gives up. So
/// their number is bounded here: otherwise a plugin with a name whose server never answers would
/// take all threads that the gateway's store needs as well.
#[derive(Clone, Debug)]
pub struct SystemResolver {
    threads: Arc<Semaphore>,
}

impl SystemResolver {
    /// With at most this many look-ups at a time.
    pub fn new(threads: usize) -> Self {
        Self {
            threads: Arc::new(Semaphore::new(threads)),
        }
    }
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::new(16)
    }
}

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let permit = Arc::clone(&self.threads)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let name = name.to_owned();
        tokio::task::spawn_blocking(move || {
            let _held = permit;
            Ok((name.as_str(), port).to_socket_addrs()?.collect())
        })
        .await
        .map_err(io::Error::other)?
    }
}
