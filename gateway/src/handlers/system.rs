//! The gateway itself, and what an installer fetches.

use std::sync::{Arc, LazyLock};

use api::ProblemCode;
use api::v1::system::*;
use axum::body::{Body, Bytes};
use axum::http::Response;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;
use gateway_core::install::{Binary, InstallParams, RELEASES_PATH, SCRIPT_PATH, render};
use gateway_store::{Batch, Condition, Record as _};
use model::ids::{RoleBindingId, UserId, WorkspaceId};
use model::tenancy::Scope;

use super::people::{api_key_view, new_key, user_view};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::call::{Call, PublicCall};
use crate::installer;
use crate::state::catalog::built_in_role_id;
use crate::state::names::{self, Namespace};
use crate::state::records::{
    ApiKeyRecordV1, BindingRecordV1, ClaimedRecordV1, UserRecordV1, key_of,
};

/// Whether the process is alive.
pub async fn get_health(app: Arc<App>, _: PublicCall<GetHealth>) -> Result<Health> {
    Ok(health(&app, HealthStatus::Ok))
}

/// Whether the gateway serves.
pub async fn get_ready(app: Arc<App>, _: PublicCall<GetReady>) -> Result<Health> {
    if app.tasks.stopping() {
        return Err(Error::unavailable(
            "the gateway is stopping",
            std::time::Duration::from_secs(5),
        ));
    }
    Ok(health(&app, HealthStatus::Ok))
}

fn health(app: &App, status: HealthStatus) -> Health {
    Health {
        status,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now: app.now(),
    }
}

/// The document.
pub async fn get_openapi(
    _: Arc<App>,
    _: PublicCall<GetOpenapi>,
    _: Parts,
) -> Result<Response<Body>> {
    // Made once: it costs more than anything else that a stranger may ask for.
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
        let document = api::openapi::document(&api::v1::operations(), "1");
        document.to_string().into()
    });
    let mut response = Response::new(Body::from(DOCUMENT.clone()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Metrics.
pub async fn get_metrics(app: Arc<App>, _: Call<GetMetrics>, _: Parts) -> Result<Response<Body>> {
    crate::reconcile::gauges::refresh(&app);
    let mut response = Response::new(Body::from(app.metrics.encode()));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
    );
    Ok(response)
}

/// Makes the owner. Absent for ever once done: the record is the lock, the
/// secret's file only the key.
pub async fn claim_first_run(app: Arc<App>, call: PublicCall<ClaimFirstRun>) -> Result<Claimed> {
    let absent = || Error::not_found("operation");
    if app.catalog.read().claimed {
        return Err(absent());
    }
    if let Some(source) = call.meta.source
        && let Err(wait) = app.rates.failed_auth.take(&source, app.uptime())
    {
        return Err(Error::rate_limited(wait));
    }
    if !app.owner_secret.matches(&call.body.secret) {
        let detail =
            "the secret is wrong; it stands in `owner.secret` in the gateway's state directory";
        return Err(Error::new(ProblemCode::Unauthenticated, detail));
    }
    let now = call.meta.now;
    let user = UserRecordV1 {
        id: app.new_id(UserId::new),
        name: call.body.name.clone(),
        service_account: false,
        display_name: Default::default(),
        disabled: false,
        created_at: now,
    };
    let (key, secret) = new_key(&app, user.id, now);
    let binding = BindingRecordV1 {
        id: app.new_id(RoleBindingId::new),
        user: user.id,
        role: built_in_role_id(0),
        scope: Scope::Deployment,
        created_at: now,
    };
    let claimed = ClaimedRecordV1::key(&["claimed"])?;
    let mut batch = Batch::new();
    batch.require(&claimed, Condition::Absent);
    batch.put_record(
        &claimed,
        &ClaimedRecordV1 {
            owner: user.id,
            at: now,
        },
    )?;
    names::take(&mut batch, Namespace::User, &user.name, user.id)?;
    batch.put_record(&key_of::<UserRecordV1>(user.id), &user)?;
    batch.put_record(&key_of::<ApiKeyRecordV1>(key.id), &key)?;
    batch.put_record(&key_of::<BindingRecordV1>(binding.id), &binding)?;
    call.origin()
        .entry(now, "deployment.claim")
        .on(user.id)
        .with("name", &user.name)
        .in_deployment(&mut batch);
    match app.try_commit(batch).await? {
        Ok(_) => {}
        // Somebody else was faster.
        Err(gateway_store::CommitError::Conflict { .. }) => return Err(absent()),
        Err(error) => return Err(error.into()),
    }
    app.owner_secret.consume();
    let key = api::v1::people::CreatedApiKey {
        api_key: api_key_view(&app, &key),
        secret: secret.reveal(),
    };
    Ok(Claimed {
        user: user_view(&user),
        key,
    })
}

/// The installer.
pub async fn get_install_script(
    app: Arc<App>,
    call: PublicCall<GetInstallScript>,
    _: Parts,
) -> Result<Response<Body>> {
    install_script(&app, None, SCRIPT_PATH.to_owned(), &call.query).await
}

/// The installer for hosts of a workspace. Everybody may ask, so which workspaces there are must not
/// show: what is not one with an installer of its own gets the installer of all.
pub async fn get_workspace_install_script(
    app: Arc<App>,
    call: PublicCall<GetWorkspaceInstallScript>,
    _: Parts,
) -> Result<Response<Body>> {
    let id = call.path.workspace;
    let found = app.catalog.read().workspaces.get(&id).cloned();
    match found.filter(|_| app.installers.is_special(id)) {
        Some(record) => {
            let workspace = Some((id, record.name.to_string()));
            install_script(&app, workspace, workspace_script_path(id), &call.query).await
        }
        None => install_script(&app, None, SCRIPT_PATH.to_owned(), &call.query).await,
    }
}

/// Where the installer for hosts of a workspace is.
pub fn workspace_script_path(workspace: WorkspaceId) -> String {
    format!("/v1/workspaces/{workspace}/agent/install.sh")
}

async fn install_script(
    app: &Arc<App>,
    workspace: Option<(WorkspaceId, String)>,
    script_path: String,
    options: &InstallOptions,
) -> Result<Response<Body>> {
    let channel = options.channel.unwrap_or_default();
    let release = app
        .releases
        .channel(channel)
        .map_err(|error| no_release(channel, &error))?;
    let files = &release.manifest().files;
    let input = installer::Input {
        base_url: app.public_url.clone(),
        channel: channel.as_str().to_owned(),
        verbose: options.verbose.unwrap_or(false),
        production: app.config.production,
        workspace,
        version: release.manifest().version.clone(),
        binaries: files
            .iter()
            .map(|file| installer::Binary {
                arch: file.arch.clone(),
                name: file.name.clone(),
                sha256: file.sha256.clone(),
                size: file.size,
            })
            .collect(),
        ca_pem: app.ca.trust_bundle().to_pem(),
        https_pin: Some(app.ca.https_pin()),
        release_keys: app.releases.public_keys(),
        releases_path: RELEASES_PATH.to_owned(),
        script_path,
    };
    // What plugins are given holds, too: the gateway's own installer refuses what does not.
    let own = own_script(&input)?;
    let script = installer::script(app, input, || Ok(own)).await?;
    let mut response = Response::new(Body::from(script));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/x-shellscript; charset=utf-8"),
    );
    Ok(response)
}

fn own_script(input: &installer::Input) -> Result<String> {
    let binaries: Vec<_> = input
        .binaries
        .iter()
        .map(|binary| Binary {
            arch: &binary.arch,
            name: &binary.name,
            sha256: &binary.sha256,
            size: binary.size,
        })
        .collect();
    let release_keys: Vec<_> = input.release_keys.iter().map(String::as_str).collect();
    let params = InstallParams {
        base_url: &input.base_url,
        channel: &input.channel,
        verbose: input.verbose,
        production: input.production,
        script_path: &input.script_path,
        version: &input.version,
        binaries: &binaries,
        ca_pem: &input.ca_pem,
        https_pin: input.https_pin.as_deref(),
        release_keys: &release_keys,
    };
    render(&params).map_err(|refused| Error::new(ProblemCode::Invalid, refused.to_string()))
}

/// One file of a release. The name is looked up in the verified manifest; it is
/// never a path.
pub async fn get_agent_release_file(
    app: Arc<App>,
    call: PublicCall<GetAgentReleaseFile>,
    _: Parts,
) -> Result<Response<Body>> {
    let channel = call.path.channel;
    let release = app
        .releases
        .channel(channel)
        .map_err(|error| no_release(channel, &error))?;
    if release.manifest().version != call.path.version {
        return Err(Error::new(
            ProblemCode::NotFound,
            format!(
                "this gateway serves version {} on this channel",
                release.manifest().version
            ),
        ));
    }
    let bytes = release
        .file(&call.path.file)
        .ok_or_else(|| Error::not_found("file in this release"))?;
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

fn no_release(channel: Channel, error: &(dyn std::error::Error + 'static)) -> Error {
    tracing::warn!(channel = channel.as_str(), error = %model::error_chain(error), "no agent release can be served");
    let detail = format!(
        "this gateway has no valid agent release on the channel `{}`; its log says why",
        channel.as_str()
    );
    Error::new(ProblemCode::NotFound, detail)
}
