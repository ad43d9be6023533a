//! `loopback:base`: what every kind shares.

/// Words alone: they hold no handles, so they can be compared and written down.
pub(crate) mod words {
    wasmtime::component::bindgen!({
        path: "../../wit/base/0.1.0",
        inline: "
            package loopback:words;
            world words {
                import loopback:base/types@0.1.0;
            }
        ",
        world: "loopback:words/words",
        imports: { default: async | trappable },
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}

wasmtime::component::bindgen!({
    path: "../../wit/base/0.1.0",
    inline: "
        package loopback:shared;
        world shared {
            import loopback:base/log@0.1.0;
            import loopback:base/config@0.1.0;
            import loopback:base/secrets@0.1.0;
            import loopback:base/reveal@0.1.0;
            import loopback:base/http@0.1.0;
            import loopback:base/sign@0.1.0;
            import loopback:base/datagram@0.1.0;
            import loopback:base/state@0.1.0;
            import loopback:base/task@0.1.0;
            export loopback:base/plugin@0.1.0;
        }
    ",
    world: "loopback:shared/shared",
    imports: { default: async | trappable },
    exports: { default: async },
    with: {
        "loopback:base/types": self::words::loopback::base::types,
        "loopback:base/secrets.secret": crate::ports::Secret,
        "loopback:base/datagram.channel": crate::host::Channel,
    },
});

/// What a plugin may export besides: how it is.
pub(crate) mod health {
    wasmtime::component::bindgen!({
        path: "../../wit/base/0.1.0",
        inline: "
            package loopback:well;
            world well {
                export loopback:base/health@0.1.0;
            }
        ",
        world: "loopback:well/well",
        exports: { default: async },
        with: {
            "loopback:base/types": crate::contract::base::words::loopback::base::types,
        },
    });
}

use model::plugin::PluginKind;
use serde_json::Value;
use wasmtime::Store;
use wasmtime::component::Instance;

use self::words::loopback::base::types;
use crate::breaker::Went;
use crate::contract::Exports;
use crate::host::{from_words, line, words_scrubbed};
use crate::ports::{ErrorKind, GuestError};
use crate::reason::Reason;
use crate::scrub::Scrubber;
use crate::store::{CallScope, CallState, Operation};

/// A JSON text that crosses the contract.
const JSON_BYTES: usize = 1 << 20;
/// What the contract keeps of one finding.
const MESSAGE_BYTES: usize = 1_024;
/// Findings that are kept.
const FINDINGS: usize = 100;

/// An error as callers see it.
pub(crate) fn guest(error: types::Error, scrubber: &Scrubber) -> Reason {
    Reason::Guest(guest_error(error, scrubber))
}

/// An error as callers see it. Secrets first: a text that was cut or cleaned may end within one,
/// which nothing would find any more.
pub(crate) fn guest_error(error: types::Error, scrubber: &Scrubber) -> GuestError {
    from_words(words_scrubbed(error, scrubber))
}

/// Findings as callers see them.
pub(crate) fn findings(
    found: Vec<types::Diagnostic>,
    scrubber: &Scrubber,
) -> Vec<types::Diagnostic> {
    let kept = found
        .into_iter()
        .take(FINDINGS)
        .map(|found| types::Diagnostic {
            severity: found.severity,
            path: line(scrubber.text(found.path), MESSAGE_BYTES),
            message: line(scrubber.text(found.message), MESSAGE_BYTES),
        });
    kept.collect()
}

/// How many bytes findings hold.
fn findings_weight(found: &[types::Diagnostic]) -> usize {
    let sizes = found
        .iter()
        .map(|found| 32 + found.path.len() + found.message.len());
    sizes.sum()
}

/// What errors say of the credentials that were shown.
pub(crate) fn refused<'a>(mut errors: impl Iterator<Item = &'a GuestError>) -> bool {
    errors.any(|error| error.kind == ErrorKind::Auth)
}

/// As it is written down.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// How many bytes a value has, written down, without writing it: one that is too large is not to
/// be made again in a larger form first.
pub(crate) fn written<T: serde::Serialize>(value: &T) -> usize {
    struct Count(usize);

    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}

/// How many bytes an error holds.
pub(crate) fn error_weight(error: &types::Error) -> usize {
    let details = error.details.iter().map(|kv| kv.key.len() + kv.value.len());
    error.code.len() + error.message.len() + details.sum::<usize>()
}

/// `plugin.describe`.
pub(crate) struct Describe;

impl Operation for Describe {
    type Raw = types::Descriptor;
    type Output = types::Descriptor;
    const FUNCTION: &'static str = "plugin.describe";
    const PURE: bool = true;
    const KIND: Option<PluginKind> = None;

    fn input(&self) -> Value {
        Value::Null
    }

    fn output(output: &Self::Output) -> Value {
        json(output)
    }

    async fn run(
        self,
        code: &Exports,
        store: &mut Store<CallState>,
        instance: &Instance,
    ) -> wasmtime::Result<types::Descriptor> {
        // Here and not when the function is wanted: that would be in the middle of something.
        code.compare(store, instance)?;
        let shared = code.plugin.load(&mut *store, instance)?;
        shared.loopback_base_plugin().call_describe(store).await
    }

    fn weight(raw: &types::Descriptor) -> usize {
        let features = raw.features.iter().map(String::len).sum::<usize>();
        let extra = raw.extra.iter().map(|kv| kv.key.len() + kv.value.len());
        raw.config_schema.len() + features + extra.sum::<usize>()
    }

    fn finish(raw: types::Descriptor, _: &Scrubber) -> Result<types::Descriptor, Reason> {
        Ok(raw)
    }
}

/// `plugin.check-config`.
#[derive(serde::Deserialize)]
pub(crate) struct CheckConfig {
    pub(crate) json: String,
}

impl Operation for CheckConfig {
    type Raw = Vec<types::Diagnostic>;
    type Output = Vec<types::Diagnostic>;
    const FUNCTION: &'static str = "plugin.check-config";
    const PURE: bool = true;
    const KIND: Option<PluginKind> = None;

    fn input(&self) -> Value {
        serde_json::json!({ "json": self.json })
    }

    fn output(output: &Self::Output) -> Value {
        json(output)
    }

    async fn run(
        self,
        code: &Exports,
        store: &mut Store<CallState>,
        instance: &Instance,
    ) -> wasmtime::Result<Vec<types::Diagnostic>> {
        let shared = code.plugin.load(&mut *store, instance)?;
        let plugin = shared.loopback_base_plugin();
        plugin.call_check_config(store, &self.json).await
    }

    fn weight(raw: &Vec<types::Diagnostic>) -> usize {
        findings_weight(raw)
    }

    fn finish(raw: Vec<types::Diagnostic>, scrubber: &Scrubber) -> Result<Self::Output, Reason> {
        Ok(findings(raw, scrubber))
    }
}

/// `health.probe`, of those that export it.
pub(crate) struct Probe;

impl Operation for Probe {
    type Raw = Result<Vec<types::Diagnostic>, types::Error>;
    type Output = Vec<types::Diagnostic>;
    const FUNCTION: &'static str = "health.probe";
    const PURE: bool = false;
    const SCOPE: CallScope = CallScope::Deployment;
    const KIND: Option<PluginKind> = None;

    fn input(&self) -> Value {
        Value::Null
    }

    fn output(output: &Self::Output) -> Value {
        json(output)
    }

    async fn run(
        self,
        code: &Exports,
        store: &mut Store<CallState>,
        instance: &Instance,
    ) -> wasmtime::Result<Self::Raw> {
        let Some(indices) = &code.health else {
            return Err(NoHealth.into());
        };
        let well = indices.load(&mut *store, instance)?;
        well.loopback_base_health().call_probe(store).await
    }

    fn weight(raw: &Self::Raw) -> usize {
        raw.as_ref()
            .map_or_else(error_weight, |found| findings_weight(found))
    }

    fn finish(raw: Self::Raw, scrubber: &Scrubber) -> Result<Self::Output, Reason> {
        let found = raw.map_err(|error| guest(error, scrubber))?;
        Ok(findings(found, scrubber))
    }

    /// Findings may be about refused credentials, or about something else.
    fn credentials(_: &Self::Output) -> Went {
        Went::Unclear
    }
}

#[derive(Debug, thiserror::Error)]
#[error("asked how it is, and it does not export that")]
struct NoHealth;

/// `plugin.migrate-config`.
#[derive(serde::Deserialize)]
pub(crate) struct MigrateConfig {
    pub(crate) from: String,
    pub(crate) json: String,
}

impl Operation for MigrateConfig {
    type Raw = Result<String, types::Error>;
    type Output = String;
    const FUNCTION: &'static str = "plugin.migrate-config";
    const PURE: bool = true;
    const KIND: Option<PluginKind> = None;

    fn input(&self) -> Value {
        serde_json::json!({ "from": self.from, "json": self.json })
    }

    fn output(output: &Self::Output) -> Value {
        json(output)
    }

    async fn run(
        self,
        code: &Exports,
        store: &mut Store<CallState>,
        instance: &Instance,
    ) -> wasmtime::Result<Self::Raw> {
        let shared = code.plugin.load(&mut *store, instance)?;
        let plugin = shared.loopback_base_plugin();
        plugin
            .call_migrate_config(store, &self.from, &self.json)
            .await
    }

    fn weight(raw: &Self::Raw) -> usize {
        raw.as_ref().map_or_else(error_weight, String::len)
    }

    fn finish(raw: Self::Raw, scrubber: &Scrubber) -> Result<String, Reason> {
        let json = raw.map_err(|error| guest(error, scrubber))?;
        let object = json.len() <= JSON_BYTES
            && serde_json::from_str::<serde_json::Map<_, _>>(&json).is_ok();
        if object {
            Ok(json)
        } else {
            let what = "migrate-config answered with what is no JSON object of at most 1 MiB";
            Err(Reason::WrongContract(what.to_owned()))
        }
    }
}
