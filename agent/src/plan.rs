//! What a dial needs: where to, with whose credentials, trusting whom.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use agent_core::{KEEP_ALIVE, Purpose, Rung};
use link::dial::{DialError, DialLimits, Link, dial_udp, dial_websocket};
use link::tls::{Credentials, Verifier};
use link::transport::{Client, ConfigError};
use link::trust::{TrustBundle, TrustError, TrustStore};
use model::ids::HostId;

use crate::clock::Clock;
use crate::config::Config;
use crate::files;
use crate::forward::Forwarder;
use crate::scrape::Scraper;
use crate::state::{State, StateError};

/// The transport gives a connection up after three keepalives without an answer.
const IDLE_TIMEOUT: std::time::Duration = KEEP_ALIVE.saturating_mul(3);
/// No bundle of system authorities is larger.
const MAX_CA_FILE: u64 = 1 << 20;

/// One dial, ready to run.
pub struct Plan {
    config: Config,
    files: Option<Arc<files::Settings>>,
    client: Client,
    rung: Rung,
    identity: Option<(HostId, u64)>,
}

/// Why nothing can be dialled from here.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No authority to begin with.
    #[error("this host has not joined and no ca_file is configured: whom to trust is not known")]
    NoTrust,
    /// The file of authorities cannot be read.
    #[error("read the authorities in {path}")]
    ReadTrust {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file of authorities makes no sense.
    #[error("use the authorities in {path}")]
    BadTrust {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: TrustError,
    },
    /// The state is not usable.
    #[error("use this host's key")]
    State(#[source] StateError),
    /// TLS does not take key or certificate.
    #[error("set up the connection")]
    Transport(#[source] ConfigError),
}

/// The authorities that the configuration names for a host that has not joined.
pub fn first_trust(config: &Config) -> Result<TrustBundle, PlanError> {
    let path = config.ca_file.clone().ok_or(PlanError::NoTrust)?;
    let read = |source| PlanError::ReadTrust {
        path: path.clone(),
        source,
    };
    if fs::metadata(&path).map_err(read)?.len() > MAX_CA_FILE {
        return Err(read(io::ErrorKind::FileTooLarge.into()));
    }
    let pem = fs::read_to_string(&path).map_err(read)?;
    TrustBundle::from_pem(0, &pem).map_err(|source| PlanError::BadTrust { path, source })
}

impl Plan {
    /// Dials with this host's identity, or for `Enrol` as nobody.
    pub fn new(
        config: &Config,
        state: &mut State,
        clock: &Clock,
        rung: Rung,
        purpose: Purpose,
    ) -> Result<Self, PlanError> {
        let Some(identity) = state
            .identity()
            .filter(|_| purpose == Purpose::Link)
            .cloned()
        else {
            let trust = match state.identity() {
                Some(identity) => identity.trust.clone(),
                None => first_trust(config)?,
            };
            return Self::stranger(config, trust, clock, rung);
        };
        let who = (identity.host, identity.generation);
        let key = state.key().map_err(PlanError::State)?.to_der();
        let credentials = Credentials {
            certificate: identity.certificate,
            key,
        };
        let trust = TrustStore::new(identity.trust);
        let verifier =
            Verifier::of_gateways(trust, Some(identity.deployment), clock.for_verifier());
        let files = files::Settings {
            host: identity.host.to_string(),
            generation: identity.generation,
            roots: config.file_roots.clone(),
            state_dir: config.state_dir.clone(),
            paused: false,
            resolver: files::Resolver::Best,
        };
        let plan = Self::with(config, verifier, Some(credentials), rung)?;
        Ok(Self {
            identity: Some(who),
            files: Some(Arc::new(files)),
            ..plan
        })
    }

    /// Dials without credentials.
    pub fn stranger(
        config: &Config,
        trust: TrustBundle,
        clock: &Clock,
        rung: Rung,
    ) -> Result<Self, PlanError> {
        let verifier = Verifier::of_gateways(TrustStore::new(trust), None, clock.for_verifier());
        Self::with(config, verifier, None, rung)
    }

    fn with(
        config: &Config,
        verifier: Arc<Verifier>,
        credentials: Option<Credentials>,
        rung: Rung,
    ) -> Result<Self, PlanError> {
        let client =
            Client::new(verifier, credentials, IDLE_TIMEOUT).map_err(PlanError::Transport)?;
        Ok(Self {
            config: config.clone(),
            files: None,
            client,
            rung,
            identity: None,
        })
    }

    /// Who answers scrapes on the link, with the exporters that are configured as it is
    /// dialled.
    pub fn scraper(&self) -> Option<Arc<Scraper>> {
        let (host, generation) = self.identity?;
        let exporters = self.config.exporters.clone();
        Some(Arc::new(Scraper::new(host, generation, exporters)))
    }

    /// Who opens ways through this host, to what is allowed as the link is dialled.
    pub fn forwarder(&self) -> Option<Arc<Forwarder>> {
        let (host, generation) = self.identity?;
        let allow = self.config.forward.clone();
        Some(Arc::new(Forwarder::new(host, generation, allow)))
    }

    /// What files are answered by; nothing for a host that has not joined.
    pub fn files(&self) -> Option<Arc<files::Settings>> {
        self.files.clone()
    }

    /// Dials.
    pub async fn dial(&self) -> Result<Link, DialError> {
        let limits = DialLimits::default();
        match self.rung {
            Rung::Udp => dial_udp(&self.config.link, &self.client, &limits).await,
            Rung::WebSocket => {
                let target = &self.config.gateway;
                let proxy = self.config.proxy.for_target(target);
                dial_websocket(target, &self.client, proxy, &limits).await
            }
        }
    }
}
