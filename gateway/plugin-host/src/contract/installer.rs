//! `loopback:install`: plugins that write the installer.

wasmtime::component::bindgen!({
    path: ["../../wit/base/0.1.0", "../../wit/install/0.1.0"],
    world: "loopback:install/installer",
    imports: { default: async | trappable },
    exports: { default: async },
    additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    with: {
        "loopback:base/types": crate::contract::base::words::loopback::base::types,
        "loopback:base/log": crate::contract::base::loopback::base::log,
        "loopback:base/config": crate::contract::base::loopback::base::config,
    },
});

use model::plugin::PluginKind;
use serde_json::Value;
use wasmtime::Store;
use wasmtime::component::Instance;

use self::exports::loopback::install::renderer::{Input, Rendered};
use super::base::words::loopback::base::types::Error;
use super::base::{error_weight, guest, json};
use super::{AnotherKind, Exports, KindExports};
use crate::host::line;
use crate::reason::Reason;
use crate::scrub::Scrubber;
use crate::store::{CallState, Operation};

impl loopback::install::types::Host for CallState {}

/// What the contract allows.
const SCRIPT_BYTES: usize = 256 << 10;
/// Notes that are kept, and of each.
const NOTES: usize = 50;
const NOTE_BYTES: usize = 1_024;

/// `renderer.render`.
pub(crate) struct Render(pub(crate) Input);

impl Operation for Render {
    type Raw = Result<Rendered, Error>;
    type Output = Rendered;
    const FUNCTION: &'static str = "renderer.render";
    const PURE: bool = false;
    const KIND: Option<PluginKind> = Some(PluginKind::Installer);

    fn input(&self) -> Value {
        json(&self.0)
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
        let KindExports::Installer(indices) = &code.kind else {
            return Err(AnotherKind.into());
        };
        let installer = indices.load(&mut *store, instance)?;
        let renderer = installer.loopback_install_renderer();
        renderer.call_render(store, &self.0).await
    }

    fn weight(raw: &Self::Raw) -> usize {
        let size = |rendered: &Rendered| {
            rendered.script.len() + rendered.notes.iter().map(String::len).sum::<usize>()
        };
        raw.as_ref().map_or_else(error_weight, size)
    }

    fn finish(raw: Self::Raw, scrubber: &Scrubber) -> Result<Rendered, Reason> {
        let mut rendered = raw.map_err(|error| guest(error, scrubber))?;
        if rendered.script.len() > SCRIPT_BYTES {
            let limit = SCRIPT_BYTES as u64;
            return Err(Reason::ReturnSize { limit });
        }
        rendered.notes.truncate(NOTES);
        for note in &mut rendered.notes {
            *note = line(&*note, NOTE_BYTES);
        }
        Ok(rendered)
    }
}
