//! Installer plugins write scripts for hosts.

use async_trait::async_trait;
use model::ids::WorkspaceId;
use model::plugin::Workspaces;
use plugin_host::ports::ErrorKind;
use plugin_host::{Invocation, Kv, Reason, installer};

use super::Role;
use crate::installer::{Closeness, Input, NoScript, Renderer};

#[async_trait]
impl Renderer for Role {
    fn covers(&self, workspace: Option<WorkspaceId>) -> Option<Closeness> {
        match (&self.grant.workspaces, workspace) {
            (Workspaces::Only(these), Some(workspace)) if these.contains(&workspace) => {
                Some(Closeness::Named)
            }
            (Workspaces::All, _) => Some(Closeness::Everywhere),
            (Workspaces::Only(_) | Workspaces::None, _) => None,
        }
    }

    async fn render(&self, input: &Input) -> Result<String, NoScript> {
        let failed = |code: &str, detail: String| NoScript::Failed {
            code: code.to_owned(),
            detail,
        };
        let (app, plugin) = self
            .plugin()
            .map_err(|code| failed(code, "the plugin is not loaded".to_owned()))?;
        let workspace = input.workspace.as_ref().map(|(id, _)| *id);
        match plugin.render(Invocation::of(workspace), asked(input)).await {
            Ok(rendered) => {
                for note in rendered.notes.iter().take(16) {
                    let note = model::names::clean(note, 256);
                    tracing::info!(plugin = %self.name, note, "a note about the installer");
                }
                Ok(rendered.script)
            }
            Err(error) => {
                if let Reason::Guest(said) = &error.reason
                    && said.kind == ErrorKind::Unsupported
                {
                    return Err(NoScript::NotMine);
                }
                let fault = self.failed(&app, &error).await;
                Err(failed(fault.code, fault.message))
            }
        }
    }
}

fn asked(input: &Input) -> installer::Input {
    let path = |key: &str, value: &str| Kv {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    installer::Input {
        base_url: input.base_url.clone(),
        channel: input.channel.clone(),
        verbose: input.verbose,
        production: input.production,
        workspace: input.workspace.as_ref().map(|(_, name)| name.clone()),
        version: input.version.clone(),
        binaries: input
            .binaries
            .iter()
            .map(|binary| installer::Binary {
                arch: binary.arch.clone(),
                name: binary.name.clone(),
                sha256: binary.sha256.clone(),
                size: binary.size,
            })
            .collect(),
        ca_pem: input.ca_pem.clone(),
        https_pin: input.https_pin.clone(),
        release_keys: input.release_keys.clone(),
        paths: vec![
            path("releases", &input.releases_path),
            path("script", &input.script_path),
        ],
        extra: Vec::new(),
    }
}
