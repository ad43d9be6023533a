//! placeholder
use std::sync::Arc;
use gateway_store::Store;
use crate::config::Config;
use crate::keys::ServerKeys;
use super::engine::Engine;

/// Where an engine works.
pub struct Place<'a> {
    /// As read at start.
    pub config: &'a Config,
    /// The durable state.
    pub store: Arc<dyn Store>,
    /// Server secrets.
    pub keys: &'a Arc<ServerKeys>,
}

/// The real one.
pub fn engine(_place: &Place<'_>) -> anyhow::Result<Arc<dyn Engine>> {
    anyhow::bail!("not yet")
}
