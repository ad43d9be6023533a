//! Guests, built once, and surroundings for them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use model::names::Name;
use model::plugin::{Grant, Limits, SecretBinding, StateGrant, Workspaces};
use plugin_host::ports::{
    CallContext, Credential, Datagrams, Egress, ErrorKind, GuestError, HttpRequest, HttpResponse,
    Secret, SecretValue, Secrets, Services, State, StateEntry,
};
use plugin_host::{Invocation, Loaded, Options, Platform, Plugin, Settings, installer, notifier};

/// What all secrets of the tests are.
pub(crate) const SECRET: &str = "hunter22/s3cret+value";

/// A guest with a manifest in it.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(build);
    let file = folder.join(format!("guest_{name}.wasm"));
    let bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    with_manifest(&bytes, name)
}

fn build() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-guests");
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args([
            "build",
            "--locked",
            "--release",
            "--target",
            "wasm32-wasip2",
        ])
        .current_dir(source)
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "guests were not built; if the target is missing: rustup target add wasm32-wasip2\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    target.join("wasm32-wasip2/release")
}

/// Adds a manifest to a component.
pub(crate) fn with_manifest(component: &[u8], name: &str) -> Vec<u8> {
    let manifest = serde_json::json!({
        "format": 1, "name": name, "version": "1.0.0", "description": "A guest of tests",
    });
    with_custom(
        component,
        "loopback-manifest",
        manifest.to_string().as_bytes(),
    )
}

/// Adds a custom section.
pub(crate) fn with_custom(component: &[u8], name: &str, data: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    leb(&mut content, name.len());
    content.extend_from_slice(name.as_bytes());
    content.extend_from_slice(data);
    with_section(component, 0, &content)
}

/// Adds any section.
pub(crate) fn with_section(component: &[u8], id: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = component.to_vec();
    bytes.push(id);
    leb(&mut bytes, content.len());
    bytes.extend_from_slice(content);
    bytes
}

pub(crate) fn leb(bytes: &mut Vec<u8>, mut number: usize) {
    loop {
        let byte = u8::try_from(number & 0x7f).expect("seven bits");
        number >>= 7;
        if number == 0 {
            bytes.push(byte);
            return;
        }
        bytes.push(byte | 0x80);
    }
}

/// A platform in a folder of its own.
pub(crate) struct Bench {
    pub(crate) platform: Arc<Platform>,
    pub(crate) folder: Arc<tempfile::TempDir>,
}

pub(crate) fn options(folder: &Path) -> Options {
    let compiler = vec![env!("CARGO_BIN_EXE_compile-plugin").into()];
    let mut options = Options::new(folder.to_owned(), [7; 32], compiler);
    options.describe_cpu_ms = 200;
    options.concurrency = 6;
    options.concurrency_per_plugin = 4;
    options
}

/// Compiled guests are kept between tests: it is what the cache is for.
pub(crate) fn bench() -> Bench {
    static FOLDER: OnceLock<Arc<tempfile::TempDir>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| Arc::new(tempfile::tempdir().expect("a folder")));
    Bench {
        platform: Platform::new(options(folder.path())).expect("a platform"),
        folder: Arc::clone(folder),
    }
}

impl Bench {
    pub(crate) async fn load(&self, name: &str) -> Loaded {
        self.platform.load(guest(name)).await.expect("loads")
    }

    pub(crate) async fn plugin(&self, name: &str, limits: Limits) -> (Arc<Plugin>, Arc<World>) {
        let world = Arc::new(World::default());
        let loaded = self.load(name).await;
        let plugin = Plugin::new(
            Arc::clone(&self.platform),
            name.parse().expect("a name"),
            loaded,
            settings(limits),
            world.services(),
        );
        (plugin, world)
    }
}

pub(crate) fn settings(limits: Limits) -> Settings {
    let binding = SecretBinding {
        workspace: model::ids::WorkspaceId::new(model::Timestamp::from_millis(1), [0; 10]),
        secret: name("stored"),
        reveal: false,
    };
    Settings {
        grant: Grant {
            workspaces: Workspaces::All,
            secrets: BTreeMap::from([(name("token"), binding)]),
            state: Some(StateGrant { keys: 10 }),
            limits,
            ..Grant::default()
        },
        config: r#"{"a":1}"#.into(),
        config_revision: 3,
    }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

pub(crate) fn input(channel: &str) -> installer::Input {
    installer::Input {
        base_url: "https://gateway.example".into(),
        channel: channel.into(),
        verbose: false,
        production: true,
        workspace: None,
        version: "1.0.0".into(),
        binaries: Vec::new(),
        ca_pem: String::new(),
        https_pin: None,
        release_keys: Vec::new(),
        paths: Vec::new(),
        extra: Vec::new(),
    }
}

pub(crate) fn event(kind: &str, summary: &str) -> notifier::Event {
    notifier::Event {
        id: "1".into(),
        sequence: 1,
        time_ms: 0,
        kind: kind.into(),
        severity: "info".into(),
        workspace: None,
        host: None,
        summary: summary.into(),
        dedup_key: String::new(),
        body: "{}".into(),
        extra: Vec::new(),
    }
}

/// Gives one event to a notifier and answers how it went for it.
pub(crate) async fn deliver(
    plugin: &Plugin,
    event: notifier::Event,
) -> Result<Result<(), GuestError>, plugin_host::CallError> {
    plugin
        .deliver(Invocation::default(), vec![event])
        .await
        .map(|mut answers| answers.remove(0))
}

/// What the last line of a plugin's log says.
pub(crate) fn last_line(plugin: &Plugin) -> String {
    let page = plugin.logs(0, usize::MAX);
    page.lines.last().expect("a line").message.clone()
}

/// Everything around plugins, in memory.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) requests: AtomicU32,
    values: Mutex<HashMap<(Name, String), StateEntry>>,
}

impl World {
    pub(crate) fn services(self: &Arc<Self>) -> Services {
        Services {
            secrets: self.clone(),
            egress: self.clone(),
            state: self.clone(),
        }
    }

    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Secrets for World {
    async fn open(&self, _: &CallContext, name: &Name) -> Result<Secret, GuestError> {
        Ok(Secret {
            name: name.clone(),
            version: 1,
            value: SecretValue::new(SECRET.into()),
        })
    }
}

#[async_trait]
impl Egress for World {
    async fn send(
        &self,
        _: &CallContext,
        request: HttpRequest,
        credentials: Vec<Credential>,
    ) -> Result<HttpResponse, GuestError> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let value = String::from_utf8_lossy(credentials[0].secret.value.expose()).into_owned();
        if request.url.contains("down.example") {
            let what = format!("no answer to {value}");
            return Err(GuestError::new(ErrorKind::Unreachable, "net.refused", what));
        }
        if request.url.contains("slow.example") {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        let encoded = data_encoding::BASE64.encode(format!("user:{value}").as_bytes());
        Ok(HttpResponse {
            status: 200,
            headers: vec![("x-echo".into(), value.clone())],
            body: format!("you sent {value} or {encoded}").into_bytes(),
        })
    }

    async fn datagrams(
        &self,
        _: &CallContext,
        _: &str,
        _: Option<&str>,
    ) -> Result<Box<dyn Datagrams>, GuestError> {
        Err(GuestError::new(
            ErrorKind::Denied,
            "denied.datagram",
            "none",
        ))
    }

    async fn wake_on_lan(
        &self,
        _: &CallContext,
        _: &str,
        _: Option<&str>,
    ) -> Result<(), GuestError> {
        Err(GuestError::new(
            ErrorKind::Denied,
            "denied.datagram",
            "none",
        ))
    }
}

#[async_trait]
impl State for World {
    async fn get(&self, call: &CallContext, key: &str) -> Result<Option<StateEntry>, GuestError> {
        let values = self.values.lock().expect("values");
        Ok(values.get(&(call.plugin.clone(), key.to_owned())).cloned())
    }

    async fn put(
        &self,
        call: &CallContext,
        key: &str,
        value: Vec<u8>,
        _: Option<u64>,
    ) -> Result<u64, GuestError> {
        let mut values = self.values.lock().expect("values");
        let entry = values
            .entry((call.plugin.clone(), key.to_owned()))
            .or_insert(StateEntry {
                value: Vec::new(),
                revision: 0,
            });
        entry.value = value;
        entry.revision += 1;
        Ok(entry.revision)
    }

    async fn delete(&self, _: &CallContext, _: &str) -> Result<(), GuestError> {
        Ok(())
    }

    async fn keys(
        &self,
        _: &CallContext,
        _: &str,
        _: Option<&str>,
        _: u32,
    ) -> Result<Vec<String>, GuestError> {
        Ok(Vec::new())
    }
}
