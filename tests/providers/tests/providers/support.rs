//! A provider's component in the real host, with the real client.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use egress::{Client, NoAudit, NoRoutes, SystemResolver};
use model::ids::WorkspaceId;
use model::names::Name;
use model::plugin::{
    Grant, HttpRule, MANIFEST_SECTION, Manifest, SecretBinding, StateGrant, Workspaces,
};
use plugin_host::ports::{
    CallContext, ErrorKind, GuestError, Secret, SecretValue, Secrets, Services, State, StateEntry,
};
use plugin_host::power::{Action, BootOnce, Operation, Target};
use plugin_host::{CallError, Invocation, Options, Platform, Plugin, Reason, Settings};
use tokio::sync::Mutex;

/// A provider, ready to be called.
pub(crate) struct Provider {
    pub(crate) plugin: Arc<Plugin>,
    secrets: Arc<Held>,
    _cache: tempfile::TempDir,
}

impl Provider {
    /// Builds the component `plugins/NAME` and loads it. `grant` needs neither workspaces nor
    /// secrets: it is for all, and `secrets` are bound by their names.
    pub(crate) async fn load(
        name: &str,
        mut grant: Grant,
        config: serde_json::Value,
        secrets: &[(&str, &str)],
    ) -> Self {
        let cache = tempfile::tempdir().expect("a folder");
        let compiler = vec![env!("CARGO_BIN_EXE_compile-provider").into()];
        let options = Options::new(cache.path().to_owned(), [7; 32], compiler);
        let platform = Platform::new(options).expect("a platform");
        let loaded = platform.load(component(name)).await.expect("loads");
        grant.workspaces = Workspaces::All;
        grant.state = Some(StateGrant { keys: 100 });
        for (secret, _) in secrets {
            let secret: Name = secret.parse().expect("a name");
            let binding = SecretBinding {
                workspace: workspace(),
                secret: secret.clone(),
                reveal: false,
            };
            grant.secrets.insert(secret, binding);
        }
        let held = Arc::new(Held::default());
        for (secret, value) in secrets {
            held.set(secret, value).await;
        }
        let audit = Arc::new(NoAudit);
        let client = Client::new(
            egress::Options::default(),
            Arc::new(SystemResolver::new(2)),
            audit,
            Arc::new(NoRoutes),
        );
        let services = Services {
            secrets: held.clone(),
            egress: Arc::new(client),
            state: Arc::new(Values::default()),
        };
        let settings = Settings {
            grant,
            config: config.to_string(),
            config_revision: 1,
        };
        let name = name.parse().expect("a name");
        Self {
            plugin: Plugin::new(platform, name, loaded, settings, services),
            secrets: held,
            _cache: cache,
        }
    }

    /// Replaces a secret: its version grows.
    pub(crate) async fn replace_secret(&self, name: &str, value: &str) {
        self.secrets.set(name, value).await;
    }
}

/// For whom calls are made.
pub(crate) fn of() -> Invocation {
    Invocation::of(Some(workspace()))
}

fn workspace() -> WorkspaceId {
    WorkspaceId::new(model::Timestamp::from_millis(1), [0; 10])
}

/// A target at this address.
pub(crate) fn target(address: &str, params: serde_json::Value) -> Target {
    Target {
        host: "hst_1".into(),
        address: address.into(),
        params: params.to_string(),
        tls_profile: None,
        route: None,
    }
}

/// An operation that is to be submitted for the first time.
pub(crate) fn operation(action: Action, boot: Option<BootOnce>) -> Operation {
    Operation {
        id: "pop_1".into(),
        attempt: 1,
        action,
        boot,
        deadline_ms: u64::MAX,
        before: None,
    }
}

/// Says loudly that a part was not tested, and why.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub(crate) fn skipped(what: &str, why: &dyn std::fmt::Display) {
    eprintln!("SKIPPED: {what}, because {why}");
}

/// A peer that was started; none, loudly, where this machine cannot have it.
pub(crate) fn peer<T>(what: &str, started: anyhow::Result<T>) -> Option<T> {
    match e2e::peers::had(started).expect("the peer starts") {
        Ok(peer) => Some(peer),
        Err(why) => {
            skipped(what, &why);
            None
        }
    }
}

/// A rule for requests to this port of the loopback interface, with these secrets.
pub(crate) fn http_rule(need: &str, port: u16, secrets: &[&str]) -> HttpRule {
    HttpRule {
        routes: Vec::new(),
        need: need.parse().expect("a name"),
        hosts: vec!["127.0.0.1".parse().expect("a host")],
        ports: vec![port],
        networks: vec!["127.0.0.0/8".parse().expect("a network")],
        plain: true,
        tls_profiles: Vec::new(),
        secrets: secrets
            .iter()
            .map(|name| name.parse().expect("a name"))
            .collect(),
    }
}

/// The plugin's own error, of whatever call.
pub(crate) fn own_error(error: CallError) -> GuestError {
    match error.reason {
        Reason::Guest(error) => error,
        other => panic!("no error of the plugin's own: {other}"),
    }
}

/// The component of `plugins/NAME`, with its manifest in it.
fn component(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests");
    e2e::tools::ensure_target("wasm32-wasip2").expect("the target for plugins");
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["build", "--locked", "--release"])
        .args(["--target", "wasm32-wasip2", "--package", name])
        .current_dir(&root)
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{name} was not built\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let file = target
        .join("wasm32-wasip2/release")
        .join(name.replace('-', "_"))
        .with_extension("wasm");
    let mut bytes = std::fs::read(file).expect("a component");
    let manifest = std::fs::read_to_string(root.join(name).join("plugin.toml"));
    let manifest: Manifest = toml::from_str(&manifest.expect("a manifest")).expect("a manifest");
    manifest.check().expect("a manifest");
    let manifest = serde_json::to_vec(&manifest).expect("JSON");
    let section = wasm_encoder::CustomSection {
        name: MANIFEST_SECTION.into(),
        data: manifest.into(),
    };
    wasm_encoder::ComponentSection::append_to_component(&section, &mut bytes);
    bytes
}

#[derive(Default)]
struct Held(Mutex<BTreeMap<Name, (u64, String)>>);

impl Held {
    async fn set(&self, name: &str, value: &str) {
        let mut held = self.0.lock().await;
        let entry = held.entry(name.parse().expect("a name")).or_default();
        *entry = (entry.0 + 1, value.to_owned());
    }
}

#[async_trait]
impl Secrets for Held {
    async fn open(&self, _: &CallContext, name: &Name) -> Result<Secret, GuestError> {
        let held = self.0.lock().await;
        let (version, value) = held.get(name).ok_or_else(|| {
            GuestError::new(ErrorKind::NotFound, "secret.not_found", "no such secret")
        })?;
        Ok(Secret {
            name: name.clone(),
            version: *version,
            value: SecretValue::new(value.clone().into_bytes()),
        })
    }
}

#[derive(Default)]
struct Values(Mutex<BTreeMap<String, StateEntry>>);

#[async_trait]
impl State for Values {
    async fn get(&self, _: &CallContext, key: &str) -> Result<Option<StateEntry>, GuestError> {
        Ok(self.0.lock().await.get(key).cloned())
    }

    async fn put(
        &self,
        _: &CallContext,
        key: &str,
        value: Vec<u8>,
        if_revision: Option<u64>,
    ) -> Result<u64, GuestError> {
        let mut values = self.0.lock().await;
        let present = values.get(key).map_or(0, |entry| entry.revision);
        if if_revision.is_some_and(|wanted| wanted != present) {
            let what = "changed meanwhile";
            return Err(GuestError::new(ErrorKind::Conflict, "state.revision", what));
        }
        let revision = present + 1;
        values.insert(key.to_owned(), StateEntry { value, revision });
        Ok(revision)
    }

    async fn delete(&self, _: &CallContext, key: &str) -> Result<(), GuestError> {
        self.0.lock().await.remove(key);
        Ok(())
    }

    async fn keys(
        &self,
        _: &CallContext,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, GuestError> {
        let values = self.0.lock().await;
        let keys = values.keys().filter(|key| key.starts_with(prefix));
        let keys = keys.filter(|key| after.is_none_or(|after| key.as_str() > after));
        Ok(keys
            .take(usize::try_from(limit).unwrap_or(0))
            .cloned()
            .collect())
    }
}
