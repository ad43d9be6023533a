//! The agents' port, met by agents and by those who only look like them: every test has a
//! gateway of its own in this process, with real QUIC on loopback.
//!
//! What must come out is asserted by answers, states and counts. Nothing here measures
//! time; limits only end a test that hangs.

mod commands;
mod diagnose;
mod files;
mod floods;
mod identities;
mod monitoring;
mod packets;
mod routes;

use model::tenancy::Environment;
use tests::TestGateway;
use tests::agent::{Agent, Caller, Member};

use api::v1::tenancy::Workspace;

/// A gateway, a workspace, and a socket to call from.
pub(crate) struct World {
    pub(crate) gateway: TestGateway,
    pub(crate) workspace: Workspace,
    pub(crate) caller: Caller,
}

impl World {
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let gateway = TestGateway::start().await?;
        Ok(Self {
            workspace: gateway.workspace("fleet", Environment::Production).await?,
            caller: Caller::of(&gateway)?,
            gateway,
        })
    }

    pub(crate) async fn token(&self, use_limit: Option<u32>) -> anyhow::Result<String> {
        self.gateway.agent_token(&self.workspace, use_limit).await
    }

    pub(crate) async fn member(&self, hostname: &str) -> anyhow::Result<Member> {
        let token = self.token(Some(1)).await?;
        self.caller.join(&token, hostname).await
    }

    /// A host that is linked, from a socket of its own.
    pub(crate) async fn bystander(&self) -> anyhow::Result<(Caller, Agent)> {
        let caller = Caller::of(&self.gateway)?;
        let member = self.member("bystander").await?;
        let (agent, _) = caller.welcome(&member).await?;
        Ok((caller, agent))
    }

    pub(crate) fn refused(&self, reason: &str) -> u64 {
        let series = format!("loopback_refused_handshakes_total{{reason=\"{reason}\"}}");
        self.gateway.metric(&series)
    }

    pub(crate) fn dismissed(&self, reason: &str) -> u64 {
        let series = format!("loopback_dismissed_links_total{{reason=\"{reason}\"}}");
        self.gateway.metric(&series)
    }

    /// Tasks that serve connections of agents.
    pub(crate) fn tasks(&self) -> usize {
        self.gateway.app.tasks.running("link")
    }

    /// What an operator is shown of a host.
    pub(crate) async fn host(&self, id: &str) -> anyhow::Result<serde_json::Value> {
        let path = format!("/v1/workspaces/{}/hosts/{id}", self.workspace.id);
        let owner = &self.gateway.owner;
        self.gateway.expect(owner, "GET", &path, None, 200).await
    }
}
