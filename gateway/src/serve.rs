//! Start and stop, in order.
//!
//! Start: secrets, store, authority, catalog, then reconcilers, then the doors:
//! nothing answers before the state is loaded.
//!
//! Stop: no new connections; HTTP drains; sessions tell their agents to come
//! back; reconcilers write down what they hold; QUIC closes; the store closes
//! last.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ::link::accept::Acceptor;
use ::link::carrier::Hub;
use ::link::socket::{GATEWAY_BUFFER, bind_udp};
use ::link::tls::Verifier;
use ::link::transport::{IDLE_TIMEOUT, gateway_endpoint_config, server_config};
use ::link::verify::system_clock;
use anyhow::Context as _;
use gateway_store::{Mirror, OpenOptions, Read, RedbStore, Store, fetch};
use model::Timestamp;
use model::ids::DeploymentId;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::app::{App, Rates, wall_clock};
use crate::backup;
use crate::ca::CertificateAuthority;
use crate::ca::https::HttpsSource;
use crate::command::{self, Commands};
use crate::config::Config;
use crate::events::EventHub;
use crate::files;
use crate::http::{admin, routes, server};
use crate::installer::Installers;
use crate::keys::{OwnerSecret, ServerKeys};
use crate::link::listener;
use crate::link::registry::Links;
use crate::link::strangers::Strangers;
use crate::metrics::Metrics;
use crate::plugins::engine::Engine;
use crate::plugins::roles::{self, Requests};
use crate::plugins::routes::LinkRoutes;
use crate::plugins::{self, Plugins, host};
use crate::policy::Policies;
use crate::power::{self, Power};
use crate::reconcile;
use crate::releases::Releases;
use crate::scrape::Scrapes;
use crate::signal;
use crate::signal::outbox::Outbox;
use crate::state::catalog::Catalog;
use crate::state::records::RestoredRecordV1;
use crate::tasks::{Failure, Tasks};
use crate::usage::KeyUses;

/// The store, in the state directory.
pub(crate) const STORE_FILE: &str = "loopback.redb";
/// Certificates are looked at this often: ours are renewed at half their life, an
/// operator's files may have been replaced. The look costs two stats.
const RENEWAL_LOOK: Duration = Duration::from_secs(60);

/// A gateway that serves. Tests hold one in their own process.
pub struct Running {
    /// What it shares.
    pub app: Arc<App>,
    /// Where it listens, for HTTPS and QUIC alike.
    pub address: std::net::SocketAddr,
    endpoints: Vec<quinn::Endpoint>,
    store: Arc<RedbStore>,
}

/// Serves until a signal comes or a critical task fails.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let running = start(config).await?;
    // Before anybody hears that it is ready: they may send one at once.
    let signals = Signals::new()?;
    announce(&running);
    signals.wait(&running.app.tasks).await;
    running.stop().await
}

/// Starts everything.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    let (requests, waiting) = Requests::channel();
    let routes = Arc::new(LinkRoutes::default());
    let egress = Arc::new(egress::Client::new(
        egress::Options::default(),
        Arc::new(egress::SystemResolver::default()),
        requests,
        Arc::clone(&routes) as Arc<dyn egress::Routes>,
    ));
    let running = start_with(config, |place| host::engine(place, egress)).await?;
    routes.attach(&running.app);
    let writing = roles::write_requests(Arc::clone(&running.app), waiting);
    running.app.tasks.spawn("plugins.requests", writing);
    Ok(running)
}

/// Starts everything, with another engine for plugins than the real one.
pub async fn start_with(
    config: Config,
    engine: impl FnOnce(&host::Place<'_>) -> anyhow::Result<Arc<dyn Engine>>,
) -> anyhow::Result<Running> {
    let started = Instant::now();
    let state = config.state_dir.clone();
    files::ensure_private_dir(&state)?;
    backup::restore::refuse_unfinished(&state)?;
    // Secrets are made with the state and never again: new ones beside old state
    // would cut off every host and void every token without a word.
    let fresh = !state.join(STORE_FILE).exists();
    let keys_dir = state.join("keys");
    let keys = if fresh {
        ServerKeys::load_or_create(&keys_dir)?
    } else {
        ServerKeys::load(&keys_dir)?
    };
    let keys = Arc::new(keys);
    let deployment = deployment_id(&state, fresh)?;
    let (ca_dir, now) = (state.join("ca"), wall_clock());
    if fresh {
        // The store's file is what says that there is state, so it comes last: a first
        // start that a crash or a full disk cut short begins again where it was.
        CertificateAuthority::create_missing(&ca_dir, deployment, now)?;
    }
    let options = OpenOptions::new(keys.audit_key()).deployment(deployment.to_bytes());
    let store = open_store(&state, options).await?;
    let key = RestoredRecordV1::the_key();
    let restored = fetch::<RestoredRecordV1>(&*store, &key, Read::Linearizable).await;
    let restored = restored.context("read whether the state was restored")?;
    let restored = restored.map(|stored| stored.record);

    let metrics = Metrics::new();
    let tasks = Tasks::new(metrics.clone());
    let catalog = Arc::new(Catalog::default());
    let tracker = tokio_util::task::TaskTracker::new();
    let mirror = Mirror::start(
        Arc::clone(&store) as Arc<dyn Store>,
        Catalog::prefixes(),
        Arc::clone(&catalog) as Arc<dyn gateway_store::Index>,
        &tracker,
        // The mirror outlives everything that commits: it ends with the store.
        &tokio_util::sync::CancellationToken::new(),
    )
    .await
    .context("load the state")?;

    let listener = bind_tcp(config.listen).await?;
    let address = listener.local_addr()?;
    let public_url = config.public_url_or_local(address);
    let https = match (&config.https_certificate, &config.https_key) {
        (Some(certificate), Some(key)) => HttpsSource::Operator {
            certificate: certificate.clone(),
            key: key.clone(),
        },
        _ => HttpsSource::Internal(public_url.clone()),
    };
    let ca = CertificateAuthority::load(&ca_dir, deployment, https, now)?;
    publish_authorities(&state, &ca)?;

    let owner_secret = OwnerSecret::at(&state);
    if catalog.read().claimed {
        owner_secret.consume()
    } else {
        owner_secret.ensure()?
    }

    let engine = engine(&host::Place {
        config: &config,
        store: Arc::clone(&store) as Arc<dyn Store>,
        keys: &keys,
    });
    let plugins = Plugins::new(&config, engine.context("prepare to run plugins")?)?;
    let app = Arc::new(App {
        plugins,
        deployment,
        restored,
        store: Arc::clone(&store) as Arc<dyn Store>,
        catalog,
        mirror,
        keys,
        owner_secret,
        ca: Arc::new(ca),
        links: Links::new(started, config.agents.grace_after_start),
        commands: Commands::open(&state).await?,
        scrapes: Scrapes::default(),
        diagnoses: Arc::default(),
        transfers: Arc::default(),
        events: EventHub::new(u64::from_be_bytes(crate::keys::random())),
        installers: Installers::default(),
        policies: Policies::default(),
        outbox: Outbox::default(),
        power: Power::default(),
        notifiers: watch::Sender::new(None),
        key_uses: KeyUses::default(),
        rates: Rates::new(&config),
        handshakes: Arc::default(),
        strangers: Strangers::default(),
        metrics,
        releases: Releases::new(&config)?,
        tasks,
        started,
        public_url: public_url.origin(),
        hub: OnceLock::new(),
        frozen: AtomicBool::new(false),
        config,
    });
    let (endpoints, renewal) = listen_quic(&app, address)?;
    reconcile::spawn(&app);
    signal::spawn(&app);
    power::spawn(&app);
    app.tasks
        .spawn_critical("commands", command::run(Arc::clone(&app)));
    app.tasks
        .spawn_critical("plugins", plugins::reconcile::run(Arc::clone(&app)));
    // Before anything is served: what a policy must be asked about is asked from the first request on.
    roles::spawn(&app);
    app.tasks
        .spawn("store", watch_store(Arc::clone(&app), Arc::clone(&store)));
    app.tasks.spawn_critical(
        "certificates",
        renew_certificates(Arc::clone(&app), endpoints.clone(), renewal),
    );
    app.tasks
        .spawn_critical("releases", app.releases.clone().follow(app.tasks.clone()));
    let (router, _) = routes(Arc::clone(&app));
    let local = admin::routes(Arc::clone(&app), Arc::clone(&store));
    server::spawn(&app, listener, router, local)
        .await
        .context("serve HTTP")?;
    tracing::info!(
        address = %address,
        url = %app.public_url,
        deployment = %deployment,
        incarnation = app.incarnation(),
        hosts = app.catalog.read().hosts.len(),
        took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "gateway serves"
    );
    Ok(Running {
        app,
        address,
        endpoints,
        store,
    })
}

impl Running {
    /// Stops in order.
    pub async fn stop(self) -> anyhow::Result<()> {
        let tasks = &self.app.tasks;
        tasks.stop().cancel();
        let left = tasks.finish(self.app.config.shutdown_drain).await;
        if !left.is_empty() {
            tracing::warn!(tasks = ?left, "these did not finish in time");
        }
        for endpoint in &self.endpoints {
            endpoint.close(0u32.into(), b"the gateway stops");
        }
        self.store.close().await;
        match tasks.failure() {
            Some(failure) => {
                Err(failure).context("a part without which the gateway cannot work has failed")
            }
            None => Ok(()),
        }
    }
}

/// Stops the gateway when its store has stopped for good. Its supervisor starts it
/// again, and a process that remembers nothing reads what the disk really holds.
async fn watch_store(app: Arc<App>, store: Arc<RedbStore>) {
    if let Some(why) = app.tasks.stop().run_until_cancelled(store.failed()).await {
        app.tasks.fail(Failure::Reported {
            task: "store",
            why: why.to_string(),
        });
    }
}

/// Every address, or every IPv4 address on a machine that has no IPv6.
async fn bind_tcp(wanted: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    let error = match TcpListener::bind(wanted).await {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    let no_ipv6 = error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    if wanted.is_ipv6() && wanted.ip().is_unspecified() && no_ipv6 {
        let fallback = (std::net::Ipv4Addr::UNSPECIFIED, wanted.port());
        return TcpListener::bind(fallback).await.context("listen on TCP");
    }
    Err(error).with_context(|| format!("listen on {wanted} (TCP)"))
}

async fn open_store(state: &Path, options: OpenOptions) -> anyhow::Result<Arc<RedbStore>> {
    let path = state.join(STORE_FILE);
    let opened = tokio::task::spawn_blocking(move || RedbStore::open(path, options)).await?;
    Ok(Arc::new(opened?))
}

/// Made at the first start; also stamped into the store and every certificate.
fn deployment_id(state: &Path, fresh: bool) -> anyhow::Result<DeploymentId> {
    let path = state.join("deployment");
    if let Some(bytes) = files::read_private(&path, 256)? {
        let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
        return text.parse().with_context(|| {
            format!(
                "read the deployment's id in {}; restore it from a backup",
                path.display()
            )
        });
    }
    anyhow::ensure!(
        fresh,
        "{} is missing although there is state; restore it from a backup",
        path.display()
    );
    let id = DeploymentId::new(wall_clock(), crate::keys::random());
    files::write_private(&path, format!("{id}\n").as_bytes())?;
    Ok(id)
}

fn listen_quic(
    app: &Arc<App>,
    address: std::net::SocketAddr,
) -> anyhow::Result<(Vec<quinn::Endpoint>, Renewal)> {
    let verifier = Verifier::of_agents(app.ca.trust_store(), app.deployment, system_clock());
    let issued = app.now();
    let (credentials, at) = app.ca.issue_gateway(issued)?;
    let renewal = Renewal { issued, at };
    let config = server_config(Arc::clone(&verifier), credentials, IDLE_TIMEOUT)?;
    let bound =
        bind_udp(address, GATEWAY_BUFFER).with_context(|| format!("listen on {address} (UDP)"))?;
    if let Some(advice) = bound.advice() {
        tracing::warn!("{advice}");
    }
    let udp = quinn::Endpoint::new(
        gateway_endpoint_config(app.keys.reset_key()),
        Some(config.clone()),
        bound.socket,
        Arc::new(quinn::TokioRuntime),
    )
    .context("start QUIC over UDP")?;
    let hub = Hub::new();
    let carried = hub
        .endpoint(Some(config))
        .context("start QUIC over WebSockets")?;
    let _ = app.hub.set(Arc::clone(&hub));
    let acceptor =
        Acceptor::new(udp.clone(), listener::admission()).counting_in(Arc::clone(&app.handshakes));
    let carrier = acceptor.for_endpoint(carried.clone());
    let udp_loop = listener::accept(Arc::clone(app), acceptor, Arc::clone(&verifier), None);
    let carrier_loop = listener::accept(Arc::clone(app), carrier, verifier, Some(hub));
    for (name, accepting) in [
        ("accept.udp", boxed(udp_loop)),
        ("accept.carrier", boxed(carrier_loop)),
    ] {
        let stop = app.tasks.stop().clone();
        app.tasks.spawn_critical(name, async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = accepting => {}
            }
        });
    }
    Ok((vec![udp, carried], renewal))
}

fn boxed(
    accepting: impl Future<Output = ()> + Send + 'static,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(accepting)
}

/// When a certificate of ours needs a successor.
#[derive(Clone, Copy, Debug)]
struct Renewal {
    issued: Timestamp,
    at: Timestamp,
}

impl Renewal {
    /// In time, and when the clock has been set back: a certificate that was issued in
    /// what is now the future is valid for nobody, perhaps for years.
    fn due(self, now: Timestamp) -> bool {
        now >= self.at || now < self.issued
    }
}

/// New certificates for both doors, in time and after a rotation.
async fn renew_certificates(app: Arc<App>, endpoints: Vec<quinn::Endpoint>, mut renewal: Renewal) {
    let mut trust = app.links.trust_epoch();
    let mut look = tokio::time::interval(RENEWAL_LOOK);
    look.tick().await;
    loop {
        tokio::select! {
            biased;
            () = app.tasks.stop().cancelled() => return,
            _ = look.tick() => {}
            Ok(()) = trust.changed() => renewal.at = app.now(),
        }
        match renew(&app, &endpoints, renewal) {
            Ok(next) => renewal = next,
            Err(error) => tracing::error!(
                error = format!("{error:#}"),
                "the gateway's certificates could not be renewed"
            ),
        }
    }
}

/// Renews what is due. Answers when to do so again.
fn renew(app: &App, endpoints: &[quinn::Endpoint], renewal: Renewal) -> anyhow::Result<Renewal> {
    let now = app.now();
    // Bad files of an operator must not keep our own certificate from being renewed.
    if let Err(error) = app.ca.refresh_https(now) {
        tracing::error!(error = %model::error_chain(&error), "the HTTPS certificate stays as it is");
    }
    if !renewal.due(now) {
        return Ok(renewal);
    }
    let verifier = Verifier::of_agents(app.ca.trust_store(), app.deployment, system_clock());
    let (credentials, at) = app.ca.issue_gateway(now)?;
    let config = server_config(verifier, credentials, IDLE_TIMEOUT)?;
    for endpoint in endpoints {
        endpoint.set_server_config(Some(config.clone()));
    }
    // Last: a full disk must not keep the links' certificate from being renewed.
    publish_authorities(&app.config.state_dir, &app.ca)?;
    Ok(Renewal { issued: now, at })
}

/// The authorities' certificates in a file of their own, to be copied to wherever
/// the CLI or a hand-made agent configuration needs them. Nothing in it is secret.
fn publish_authorities(state: &Path, ca: &CertificateAuthority) -> anyhow::Result<()> {
    let path = state.join("ca.pem");
    let pem = ca.trust_bundle().to_pem();
    // Usually it is there, and a gateway must start on a full disk.
    if std::fs::read(&path).is_ok_and(|found| found == pem.as_bytes()) {
        return Ok(());
    }
    files::write_private(&path, pem.as_bytes())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))
        .with_context(|| format!("open {} to readers", path.display()))
}

#[expect(
    clippy::print_stdout,
    reason = "whoever started the gateway waits for this line"
)]
fn announce(running: &Running) {
    println!("ready {}", running.app.public_url);
    if !running.app.catalog.read().claimed {
        println!(
            "claim this deployment with the secret in {}",
            running.app.owner_secret.path().display()
        );
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

/// By which somebody asks for an end.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Until somebody wants an end, or a critical task has come to one.
    async fn wait(mut self, tasks: &Tasks) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT: stopping"),
            () = tasks.stop().cancelled() => {}
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abuse_44_a_certificate_from_what_became_the_future_is_due() {
        let at = Timestamp::from_millis;
        let renewal = Renewal {
            issued: at(1_000),
            at: at(2_000),
        };
        assert!(!renewal.due(at(1_000)) && !renewal.due(at(1_999)));
        assert!(renewal.due(at(2_000)), "in time");
        assert!(renewal.due(at(999)), "the clock was set back");
    }
}
