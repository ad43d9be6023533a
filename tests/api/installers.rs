//! The installer that hosts fetch: written by plugins, and never one that is not fit for hosts.
//!
//! The renderers are played here; that plugins are asked the same way is shown with real ones.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use gateway::installer::{Closeness, Input, NoScript, Renderer, Renderers};
use model::ids::WorkspaceId;
use model::tenancy::Environment;
use serde_json::{Value, json};
use tests::TestGateway;

const PATH: &str = "/v1/agent/install.sh";

/// What a renderer does.
#[derive(Clone)]
enum Does {
    /// The built-in script with a banner.
    Banner(&'static str),
    /// Another answer each time.
    Differs,
    /// Something a shell does not accept.
    Broken,
    /// It says nothing at all.
    Fails,
    /// It leaves it to others.
    NotMine,
}

struct Played {
    only: Option<WorkspaceId>,
    does: Mutex<Does>,
    asked: Mutex<u32>,
}

impl Played {
    fn new(only: Option<WorkspaceId>, does: Does) -> Arc<Self> {
        Arc::new(Self {
            only,
            does: Mutex::new(does),
            asked: Mutex::new(0),
        })
    }
}

#[async_trait]
impl Renderer for Played {
    fn covers(&self, workspace: Option<WorkspaceId>) -> Option<Closeness> {
        match self.only {
            Some(only) => (workspace == Some(only)).then_some(Closeness::Named),
            None => Some(Closeness::Everywhere),
        }
    }

    async fn render(&self, input: &Input) -> Result<String, NoScript> {
        let asked = {
            let mut asked = self.asked.lock().expect("nobody panics");
            *asked += 1;
            *asked
        };
        let script = |line: &str| {
            format!(
                "#!/bin/sh\n# loopback-installer: {} {}\n{line}\nmain() {{ echo {}; }}\nmain\n",
                input.version, input.channel, input.base_url
            )
        };
        let does = self.does.lock().expect("nobody panics").clone();
        match does {
            Does::Banner(text) => Ok(script(&format!("# {text}"))),
            Does::Differs => Ok(script(&format!("# {asked}"))),
            Does::Broken => Ok(script("if true; then")),
            Does::Fails => Err(NoScript::Failed {
                code: "wall_time".into(),
                detail: "no answer within 10000 ms".into(),
            }),
            Does::NotMine => Err(NoScript::NotMine),
        }
    }
}

struct Story {
    gateway: TestGateway,
    _release: tempfile::TempDir,
    own: String,
}

impl Story {
    async fn begin() -> Self {
        let folder = tempfile::tempdir().expect("nothing in the way");
        let binary = folder.path().join("agent");
        std::fs::write(&binary, b"not a real agent").expect("nothing in the way");
        let key = release::SigningKey::generate().expect("nothing in the way");
        let file = |arch: &str| release::DraftFile {
            os: "linux".into(),
            arch: arch.into(),
            source: binary.clone(),
        };
        let now = model_now();
        let draft = release::Draft {
            channel: release::Channel::Stable,
            version: "1.2.3".into(),
            number: 1,
            created: now,
            expires: now + jiff::SignedDuration::from_hours(24),
            files: vec![file("x86_64"), file("aarch64")],
        };
        let releases: PathBuf = folder.path().join("releases");
        std::fs::create_dir(&releases).expect("nothing in the way");
        release::write_release(&releases.join("stable"), &draft, &key).expect("nothing in the way");
        let public = key.public().to_string();
        let gateway = TestGateway::start_with(|config| {
            // The same after a restart, which takes another port.
            config.public_url = Some("https://gateway.example".parse().expect("a URL"));
            config.releases_dir = Some(releases);
            config.release_keys = vec![public];
        })
        .await
        .expect("nothing in the way");
        let mut story = Self {
            gateway,
            _release: folder,
            own: String::new(),
        };
        story.own = story.fetch(PATH).await;
        assert!(story.own.starts_with("#!/bin/sh\n"));
        story
    }

    fn enable(&self, renderers: &[(&str, &Arc<Played>)]) {
        let renderers: Renderers = renderers
            .iter()
            .map(|(name, played)| {
                let renderer: Arc<dyn Renderer> = Arc::clone(played) as _;
                (name.parse().expect("a name"), renderer)
            })
            .collect::<BTreeMap<_, _>>();
        self.gateway.app.installers.set(renderers);
    }

    async fn fetch(&self, path: &str) -> String {
        let response = self
            .gateway
            .respond("", "GET", path, None, &[])
            .await
            .expect("nothing in the way");
        assert_eq!(response.status(), 200, "{path}");
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .expect("nothing in the way");
        String::from_utf8(bytes.to_vec()).expect("nothing in the way")
    }

    async fn failures(&self) -> Vec<String> {
        let owner = &self.gateway.owner;
        let path = "/v1/audit?limit=1000";
        let page: Value = self
            .gateway
            .expect(owner, "GET", path, None, 200)
            .await
            .expect("nothing in the way");
        let entries = page["items"]
            .as_array()
            .expect("nothing in the way")
            .iter()
            .map(|item| {
                serde_json::from_str::<Value>(item["body"].as_str().expect("nothing in the way"))
                    .expect("nothing in the way")
            });
        entries
            .filter(|entry| entry["action"] == "plugin.render_failed")
            .map(|entry| {
                entry["details"]["code"]
                    .as_str()
                    .expect("nothing in the way")
                    .to_owned()
            })
            .collect()
    }
}

fn model_now() -> jiff::Timestamp {
    jiff::Timestamp::now() - jiff::SignedDuration::from_secs(60)
}

#[tokio::test]
async fn a_plugin_writes_the_installer_and_is_asked_once() {
    let story = Story::begin().await;
    let played = Played::new(None, Does::Banner("of the shop"));
    story.enable(&[("own", &played)]);
    for _ in 0..5 {
        assert!(story.fetch(PATH).await.contains("# of the shop\n"));
    }
    assert_eq!(
        *played.asked.lock().expect("nothing in the way"),
        2,
        "twice, to compare, and never again"
    );
    assert!(story.failures().await.is_empty());
}

#[tokio::test]
async fn what_is_not_fit_for_hosts_never_reaches_one() {
    let story = Story::begin().await;
    for (does, code) in [
        (Does::Differs, "script.not_pure"),
        (Does::Broken, "script.syntax"),
        (Does::Fails, "wall_time"),
    ] {
        let played = Played::new(None, does);
        story.enable(&[("bad", &played)]);
        assert_eq!(story.fetch(PATH).await, story.own, "{code}");
        assert_eq!(
            story.failures().await.first().map(String::as_str),
            Some(code)
        );
    }
}

#[tokio::test]
async fn a_plugin_that_begins_to_fail_leaves_its_last_good_script() {
    let mut story = Story::begin().await;
    let played = Played::new(None, Does::Banner("good"));
    story.enable(&[("own", &played)]);
    let good = story.fetch(PATH).await;
    *played.does.lock().expect("nothing in the way") = Does::Fails;
    story.enable(&[("own", &played)]);
    assert_eq!(story.fetch(PATH).await, good);
    // Also after the gateway was started again.
    story.gateway.restart().await.expect("nothing in the way");
    story.enable(&[("own", &played)]);
    assert_eq!(story.fetch(PATH).await, good);
}

#[tokio::test]
async fn the_closest_plugin_writes_for_its_workspace_alone() {
    let story = Story::begin().await;
    let gateway = &story.gateway;
    let special = gateway
        .workspace("one", Environment::Production)
        .await
        .expect("nothing in the way")
        .id;
    let other = gateway
        .workspace("two", Environment::Production)
        .await
        .expect("nothing in the way")
        .id;
    let path = |id: WorkspaceId| format!("/v1/workspaces/{id}/agent/install.sh");
    let all = Played::new(None, Does::Banner("for all"));
    let one = Played::new(Some(special), Does::Banner("for one"));
    story.enable(&[("all", &all), ("one", &one)]);
    assert!(story.fetch(&path(special)).await.contains("# for one\n"));
    assert!(story.fetch(&path(other)).await.contains("# for all\n"));
    assert!(story.fetch(PATH).await.contains("# for all\n"));
    *one.does.lock().expect("nothing in the way") = Does::NotMine;
    story.enable(&[("all", &all), ("one", &one)]);
    assert!(story.fetch(&path(special)).await.contains("# for all\n"));

    // The line that joins a host says where its workspace's installer is.
    for (id, expected) in [(special, path(special)), (other, PATH.to_owned())] {
        let tokens = format!("/v1/workspaces/{id}/agent-tokens");
        let made: Value = gateway
            .expect(&gateway.owner, "POST", &tokens, Some(json!({})), 201)
            .await
            .expect("nothing in the way");
        let url = made["install"]["url"].as_str().expect("nothing in the way");
        assert!(url.ends_with(&expected), "{url}");
    }
    let nobody = WorkspaceId::new(model::Timestamp::from_millis(1), [9; 10]);
    // Whether there is such a workspace does not show.
    assert_eq!(story.fetch(&path(nobody)).await, story.fetch(PATH).await);
}
