//! A gateway in this process, and callers as objects.
//!
//! The router is the real one on a real store in a temporary folder; requests go
//! to it without a socket, so that a test of a hundred operations takes a second.
//! What needs sockets uses [`TestGateway::address`]; agents are in [`agent`].

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use api::Endpoint;
use api::v1::agent_token::CreatedAgentToken;
use api::v1::people::CreatedApiKey;
use api::v1::system::{Claimed, FirstRun};
use api::v1::tenancy::{CreateProject, CreateWorkspace, Project, Workspace};
use axum::body::Body;
use axum::http::{Request, StatusCode};
use gateway::app::App;
use gateway::config::Config;
use gateway::plugins::engine::Engine;
use gateway::serve::{self, Running};
use model::tenancy::Environment;
use serde_json::Value;
use tower::ServiceExt as _;

pub mod agent;
pub mod golden;
pub mod twin;

/// For whatever a test waits for: only a fault reaches it.
pub const LIMIT: Duration = Duration::from_secs(40);

/// Waits for `future`.
pub async fn soon<F: Future>(future: F) -> anyhow::Result<F::Output> {
    tokio::time::timeout(LIMIT, future)
        .await
        .context("it never came")
}

/// Waits for `condition`; `what` it is, for the error.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait)
        .await
        .with_context(|| format!("never: {what}"))
}

/// A gateway with an owner.
pub struct TestGateway {
    /// Its parts.
    pub app: Arc<App>,
    /// Where it listens.
    pub address: std::net::SocketAddr,
    router: axum::Router,
    running: Option<Running>,
    state: tempfile::TempDir,
    /// The owner's key.
    pub owner: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// The body, if it is JSON.
    pub body: Value,
}

impl Answer {
    /// The problem's code, or nothing.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// The problem's text, or nothing.
    pub fn detail(&self) -> &str {
        self.body["detail"].as_str().unwrap_or_default()
    }
}

impl TestGateway {
    /// Starts one with defaults.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(|_| {}).await
    }

    /// Starts one with a changed configuration.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> anyhow::Result<Self> {
        let state = tempfile::tempdir()?;
        let running = serve::start(Self::config(&state, change)?).await?;
        Self::claimed(state, running).await
    }

    /// Starts one with a changed configuration, and another engine for plugins.
    pub async fn start_with_engine(
        engine: Arc<dyn Engine>,
        change: impl FnOnce(&mut Config),
    ) -> anyhow::Result<Self> {
        let state = tempfile::tempdir()?;
        let config = Self::config(&state, change)?;
        let running = serve::start_with(config, |_| Ok(engine)).await?;
        Self::claimed(state, running).await
    }

    fn config(
        state: &tempfile::TempDir,
        change: impl FnOnce(&mut Config),
    ) -> anyhow::Result<Config> {
        let mut config = Config {
            state_dir: state.path().join("state"),
            listen: "127.0.0.1:0".parse()?,
            ..Config::default()
        };
        change(&mut config);
        Ok(config)
    }

    async fn claimed(state: tempfile::TempDir, running: Running) -> anyhow::Result<Self> {
        let app = Arc::clone(&running.app);
        let (router, _) = gateway::http::routes(Arc::clone(&app));
        let address = running.address;
        let mut gateway = Self {
            app,
            address,
            router,
            running: Some(running),
            state,
            owner: String::new(),
        };
        let secret = std::fs::read_to_string(gateway.state.path().join("state/owner.secret"))
            .context("read the owner's secret")?;
        let body = FirstRun {
            secret: secret.trim().to_owned(),
            name: "owner".parse()?,
        };
        let claimed: Claimed = gateway
            .expect(
                "",
                "POST",
                "/v1/first-run",
                Some(serde_json::to_value(body)?),
                201,
            )
            .await?;
        gateway.owner = claimed.key.secret;
        Ok(gateway)
    }

    /// Its state folder.
    pub fn state(&self) -> std::path::PathBuf {
        self.state.path().join("state")
    }

    /// Stops it and starts it again on its state, at another port: callers of before
    /// do not reach it.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let config = self.app.config.clone();
        if let Some(running) = self.running.take() {
            running.stop().await?;
        }
        let running = serve::start(config).await?;
        self.app = Arc::clone(&running.app);
        self.address = running.address;
        (self.router, _) = gateway::http::routes(Arc::clone(&self.app));
        self.running = Some(running);
        Ok(())
    }

    /// Stops it in order.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(running) = self.running.take() {
            running.stop().await?;
        }
        Ok(())
    }

    /// Sends a request and reads the answer as JSON.
    pub async fn call(
        &self,
        key: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Answer> {
        self.call_with(key, method, path, body, &[]).await
    }

    /// The same with more header fields.
    pub async fn call_with(
        &self,
        key: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        let response = self.respond(key, method, path, body, headers).await?;
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 16 << 20).await?;
        Ok(Answer {
            status,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        })
    }

    /// Sends a request and hands over the raw response, for streams.
    pub async fn respond(
        &self,
        key: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<axum::http::Response<Body>> {
        let mut request = Request::builder().method(method).uri(path);
        if !key.is_empty() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Body::from(serde_json::to_vec(&body)?)
            }
            None => Body::empty(),
        };
        self.send_raw(request.body(body)?).await
    }

    /// Sends a request as it is.
    pub async fn send_raw(
        &self,
        request: Request<Body>,
    ) -> anyhow::Result<axum::http::Response<Body>> {
        Ok(self.router.clone().oneshot(request).await?)
    }

    /// Sends a request that must succeed with `status`.
    pub async fn expect<T: serde::de::DeserializeOwned>(
        &self,
        key: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
        status: u16,
    ) -> anyhow::Result<T> {
        let answer = self.call(key, method, path, body).await?;
        ensure!(
            answer.status.as_u16() == status,
            "{method} {path}: {} {}",
            answer.status,
            answer.body
        );
        Ok(serde_json::from_value(answer.body)?)
    }

    /// A project with one workspace.
    pub async fn workspace(
        &self,
        name: &str,
        environment: Environment,
    ) -> anyhow::Result<Workspace> {
        let project = CreateProject {
            name: name.parse()?,
            description: Default::default(),
        };
        let project: Project = self
            .expect(
                &self.owner,
                "POST",
                "/v1/projects",
                Some(serde_json::to_value(project)?),
                201,
            )
            .await?;
        let workspace = CreateWorkspace {
            name: "main".parse()?,
            environment,
            description: Default::default(),
            thresholds: None,
        };
        let path = format!("/v1/projects/{}/workspaces", project.id);
        self.expect(
            &self.owner,
            "POST",
            &path,
            Some(serde_json::to_value(workspace)?),
            201,
        )
        .await
    }

    /// The secret of a new agent token, which lets `use_limit` hosts in.
    pub async fn agent_token(
        &self,
        workspace: &Workspace,
        use_limit: Option<u32>,
    ) -> anyhow::Result<String> {
        let path = format!("/v1/workspaces/{}/agent-tokens", workspace.id);
        let body = serde_json::json!({ "use_limit": use_limit });
        let created: CreatedAgentToken = self
            .expect(&self.owner, "POST", &path, Some(body), 201)
            .await?;
        Ok(created.secret)
    }

    /// The value of a metric, by its name and labels as they are shown; zero when it is
    /// not there.
    pub fn metric(&self, series: &str) -> u64 {
        let text = self.app.metrics.encode();
        let mut values = text.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            (name == series).then_some(value)
        });
        values.next().and_then(|it| it.parse().ok()).unwrap_or(0)
    }

    /// A new user who has a role of exactly `rules` at deployment scope, and its key.
    pub async fn user_with(&self, name: &str, rules: Value) -> anyhow::Result<String> {
        let owner = &self.owner;
        let user: Value = self
            .expect(
                owner,
                "POST",
                "/v1/users",
                Some(serde_json::json!({ "name": name, "kind": "person" })),
                201,
            )
            .await?;
        let role = serde_json::json!({ "name": name, "rules": rules });
        let role: Value = self
            .expect(owner, "POST", "/v1/roles", Some(role), 201)
            .await?;
        let binding = serde_json::json!({ "user": user["id"], "role": role["id"] });
        let _: Value = self
            .expect(owner, "POST", "/v1/role-bindings", Some(binding), 201)
            .await?;
        let path = format!(
            "/v1/users/{}/api-keys",
            user["id"].as_str().unwrap_or_default()
        );
        let key: CreatedApiKey = self
            .expect(owner, "POST", &path, Some(serde_json::json!({})), 201)
            .await?;
        Ok(key.secret)
    }
}

/// The path of `E` with its parameters filled in.
pub fn path_of<E: Endpoint>(parameters: &E::Path) -> anyhow::Result<String> {
    let mut path = E::PATH.to_owned();
    if let Value::Object(fields) = serde_json::to_value(parameters)? {
        for (name, value) in fields {
            path = path.replace(&format!("{{{name}}}"), value.as_str().unwrap_or_default());
        }
    }
    Ok(path)
}
