//! From bytes to a component that may be installed, and from a record to one that may run.

use api::ProblemCode;
use api::v1::plugin::{FindingSeverity, MAX_COMPONENT_BYTES, PluginFinding};
use bytes::Bytes;
use gateway_core::plugin::Accepts;
use model::Timestamp;
use model::plugin::PluginDigest;
use release::verify_plugin;
use serde_json::Value;

use super::Plugins;
use super::engine::{Component, Fault, LOAD_WITHIN};
use super::schema::Schema;
use crate::app::App;
use crate::error::{Error, Result};
use crate::state::plugin_records::{ComponentV1, ConfigurationV1};

/// What an operator says of a component that comes.
pub struct Coming {
    /// The signature's text.
    pub signature: Option<String>,
    /// Where it comes from.
    pub source: String,
    /// Who brings it.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

impl Plugins {
    /// Whether the policy lets a component in, and who vouches for it.
    pub fn vouched(&self, bytes: &[u8], signature: Option<&str>) -> Result<Option<String>, Fault> {
        let Some(signature) = signature else {
            return if self.signed_only {
                Err(Fault::new(
                    "not_signed",
                    "the plugin is not signed, and this deployment takes signed plugins only: sign it \
                     with a key that plugins.trusted_keys names in the gateway's configuration",
                ))
            } else {
                Ok(None)
            };
        };
        match verify_plugin(bytes, signature, &self.keys) {
            Ok(signer) => Ok(Some(signer.to_string())),
            Err(error) => {
                let said = model::names::clean(&error.to_string(), 512);
                Err(Fault::new("bad_signature", said))
            }
        }
    }
}

/// Takes a component in: looks at it, at who vouches for it, keeps its bytes, and tries whether
/// it starts. Nothing refers to it yet.
pub async fn admit(app: &App, bytes: Bytes, coming: Coming) -> Result<(ComponentV1, Component)> {
    let plugins = &app.plugins;
    let signed_by = plugins
        .vouched(&bytes, coming.signature.as_deref())
        .map_err(|fault| Error::new(ProblemCode::BadSignature, fault.message))?;
    let size_bytes = bytes.len() as u64;
    let engine = std::sync::Arc::clone(plugins.engine());
    let to_inspect = bytes.clone();
    let inspected = tokio::task::spawn_blocking(move || engine.inspect(&to_inspect)).await;
    let inspected = inspected
        .map_err(|error| Error::internal(&error))?
        .map_err(|fault| refused(&fault))?;
    // The engine's word for it is not enough: everything later goes by this digest.
    if inspected.digest != PluginDigest::of(&bytes) {
        return Err(Error::new(
            ProblemCode::Invalid,
            "the component is not what was looked at",
        ));
    }
    let kept = app.commands.objects.put(bytes.clone()).await;
    kept.map_err(|error| Error::internal(&error))?;
    let component = load(app, bytes).await.map_err(|fault| refused(&fault))?;
    Schema::read(&component.schema).map_err(|fault| Error::invalid("body", fault.to_string()))?;
    let record = ComponentV1 {
        digest: inspected.digest,
        size_bytes,
        kind: inspected.kind,
        manifest: inspected.manifest,
        signature: coming.signature,
        signed_by,
        source: coming.source,
        installed_at: coming.at,
        installed_by: coming.by,
    };
    Ok((record, component))
}

/// Loads the component of a record: these bytes and no others, vouched for as the policy wants
/// it now.
pub async fn load_recorded(app: &App, record: &ComponentV1) -> Result<Component, Fault> {
    let bytes = app
        .commands
        .objects
        .get(&record.object(), MAX_COMPONENT_BYTES)
        .await;
    let bytes = bytes.map_err(|error| {
        let why = model::error_chain(&error).to_string();
        Fault::new(
            "no_component",
            format!("the component cannot be read: {why}"),
        )
    })?;
    app.plugins.vouched(&bytes, record.signature.as_deref())?;
    let component = load(app, bytes).await?;
    if component.digest != record.digest {
        return Err(Fault::new(
            "swapped",
            "another component was loaded than was installed",
        ));
    }
    Ok(component)
}

async fn load(app: &App, bytes: Bytes) -> Result<Component, Fault> {
    let loaded = tokio::time::timeout(LOAD_WITHIN, app.plugins.engine().load(bytes)).await;
    loaded.unwrap_or_else(|_| {
        Err(Fault::new(
            "too_slow",
            "the component takes too long to be compiled",
        ))
    })
}

fn refused(fault: &Fault) -> Error {
    let detail = format!("[{}] {}", fault.code, fault.message);
    Error::invalid("body", model::names::clean(&detail, 1024))
}

/// What a component, and its schema, say of a configuration.
pub async fn findings(
    app: &App,
    component: &Component,
    configuration: &str,
) -> Result<Vec<PluginFinding>, Fault> {
    let value: Value = serde_json::from_str(configuration)
        .map_err(|error| Fault::new("not_json", error.to_string()))?;
    let schema = component.schema.clone();
    let by_schema = tokio::task::spawn_blocking(move || {
        Schema::read(&schema).map(|schema| schema.findings(&value))
    });
    let by_schema = by_schema
        .await
        .map_err(|error| Fault::new("internal", error.to_string()))?
        .map_err(|fault| Fault::new("bad_schema", fault.to_string()))?;
    // A plugin may rely on what its schema says.
    if !by_schema.is_empty() {
        return Ok(by_schema);
    }
    app.plugins
        .engine()
        .check_config(component, configuration)
        .await
}

/// Whether findings stand in the way.
pub fn accepts(findings: &[PluginFinding]) -> Accepts {
    let bad = |finding: &PluginFinding| finding.severity == FindingSeverity::Error;
    if findings.iter().any(bad) {
        Accepts::No
    } else {
        Accepts::Yes
    }
}

/// A configuration for a component, if it accepts one: `{}` where there was none, else that of
/// the version before, as it wants it.
pub async fn carried_over(
    app: &App,
    component: &Component,
    before: Option<(&str, ConfigurationV1)>,
) -> Result<Option<String>> {
    let tried = async {
        let configuration = match before {
            None => "{}".to_owned(),
            Some((version, configuration)) => {
                let text = read_configuration(app, &configuration).await?;
                app.plugins
                    .engine()
                    .migrate_config(component, version, &text)
                    .await?
            }
        };
        let findings = findings(app, component, &configuration).await?;
        Ok::<_, Fault>((accepts(&findings) == Accepts::Yes).then_some(configuration))
    };
    Ok(tried.await.unwrap_or_else(|fault| {
        tracing::info!(digest = %component.digest, reason = %fault, "a configuration is not carried over");
        None
    }))
}

/// Keeps a configuration.
pub async fn keep_configuration(app: &App, text: String, at: Timestamp) -> Result<ConfigurationV1> {
    let kept = app.commands.objects.put(text.into()).await;
    let kept = kept.map_err(|error| Error::internal(&error))?;
    Ok(ConfigurationV1 {
        digest: *kept.digest.as_bytes(),
        at,
    })
}

/// Reads a configuration.
pub async fn read_configuration(app: &App, kept: &ConfigurationV1) -> Result<String, Fault> {
    let most = api::v1::plugin::MAX_CONFIGURATION_BYTES as u64;
    let bytes = app.commands.objects.get(&kept.object(), most).await;
    let bytes = bytes.map_err(|error| {
        let why = model::error_chain(&error).to_string();
        Fault::new(
            "no_configuration",
            format!("the configuration cannot be read: {why}"),
        )
    })?;
    String::from_utf8(bytes.to_vec())
        .map_err(|_| Fault::new("no_configuration", "the configuration is not text"))
}
