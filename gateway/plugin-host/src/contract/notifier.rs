//! `loopback:signal`: plugins that tell others.

wasmtime::component::bindgen!({
    path: ["../../wit/base/0.1.0", "../../wit/signal/0.1.0"],
    world: "loopback:signal/notifier",
    imports: { default: async | trappable },
    exports: { default: async },
    additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    with: {
        "loopback:base/types": crate::contract::base::words::loopback::base::types,
        "loopback:base/log": crate::contract::base::loopback::base::log,
        "loopback:base/config": crate::contract::base::loopback::base::config,
        "loopback:base/secrets": crate::contract::base::loopback::base::secrets,
        "loopback:base/http": crate::contract::base::loopback::base::http,
        "loopback:base/sign": crate::contract::base::loopback::base::sign,
        "loopback:base/state": crate::contract::base::loopback::base::state,
        "loopback:base/task": crate::contract::base::loopback::base::task,
    },
});

use model::plugin::PluginKind;
use serde_json::Value;
use wasmtime::Store;
use wasmtime::component::Instance;

use self::exports::loopback::signal::sink::Event;
use super::base::words::loopback::base::types::Error;
use super::base::{error_weight, guest_error, json, refused};
use super::{AnotherKind, Exports, KindExports};
use crate::breaker::Went;
use crate::host::to_words;
use crate::ports::GuestError;
use crate::reason::Reason;
use crate::scrub::Scrubber;
use crate::store::{CallState, Operation};

impl loopback::signal::types::Host for CallState {}

/// `sink.deliver`.
pub(crate) struct Deliver(pub(crate) Vec<Event>);

impl Operation for Deliver {
    type Raw = (usize, Vec<Result<(), Error>>);
    type Output = Vec<Result<(), GuestError>>;
    const FUNCTION: &'static str = "sink.deliver";
    const PURE: bool = false;
    const KIND: Option<PluginKind> = Some(PluginKind::Notifier);

    fn input(&self) -> Value {
        json(&self.0)
    }

    fn output(output: &Self::Output) -> Value {
        let output = output.iter().map(|went| went.clone().map_err(to_words));
        json(&output.collect::<Vec<_>>())
    }

    async fn run(
        self,
        code: &Exports,
        store: &mut Store<CallState>,
        instance: &Instance,
    ) -> wasmtime::Result<Self::Raw> {
        let KindExports::Notifier(indices) = &code.kind else {
            return Err(AnotherKind.into());
        };
        let notifier = indices.load(&mut *store, instance)?;
        let sink = notifier.loopback_signal_sink();
        let answers = sink.call_deliver(store, &self.0).await?;
        Ok((self.0.len(), answers))
    }

    fn weight(raw: &Self::Raw) -> usize {
        let sizes = raw.1.iter().map(|went| match went {
            Ok(()) => 1,
            Err(error) => error_weight(error),
        });
        sizes.sum()
    }

    fn finish((asked, answers): Self::Raw, scrubber: &Scrubber) -> Result<Self::Output, Reason> {
        if answers.len() != asked {
            let what = format!("{} answers for {asked} events", answers.len());
            return Err(Reason::WrongContract(what));
        }
        let answers = answers
            .into_iter()
            .map(|went| went.map_err(|error| guest_error(error, scrubber)));
        Ok(answers.collect())
    }

    fn credentials(output: &Self::Output) -> Went {
        if refused(output.iter().filter_map(|went| went.as_ref().err())) {
            Went::Badly
        } else if output.iter().any(Result::is_ok) {
            Went::Well
        } else {
            Went::Unclear
        }
    }
}
