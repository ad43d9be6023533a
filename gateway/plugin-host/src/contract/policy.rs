//! `loopback:policy`: plugins that judge.

wasmtime::component::bindgen!({
    path: ["../../wit/base/0.1.0", "../../wit/policy/0.1.0"],
    world: "loopback:policy/policy",
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

use self::exports::loopback::policy::authorizer::{Request, Verdict};
use super::base::json;
use super::{AnotherKind, Exports, KindExports};
use crate::host::line;
use crate::reason::Reason;
use crate::scrub::Scrubber;
use crate::store::{CallState, Operation};

impl loopback::policy::types::Host for CallState {}

/// What is kept of a reason.
const MESSAGE_BYTES: usize = 1_024;
const CODE_BYTES: usize = 64;

/// `authorizer.decide`.
pub(crate) struct Decide(pub(crate) Request);

impl Operation for Decide {
    type Raw = Verdict;
    type Output = Verdict;
    const FUNCTION: &'static str = "authorizer.decide";
    const PURE: bool = false;
    const KIND: Option<PluginKind> = Some(PluginKind::Policy);

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
    ) -> wasmtime::Result<Verdict> {
        let KindExports::Policy(indices) = &code.kind else {
            return Err(AnotherKind.into());
        };
        let policy = indices.load(&mut *store, instance)?;
        let authorizer = policy.loopback_policy_authorizer();
        authorizer.call_decide(store, &self.0).await
    }

    fn weight(raw: &Verdict) -> usize {
        match raw {
            Verdict::Abstain | Verdict::PermitUntil(_) => 8,
            Verdict::RequireApproval(approval) => {
                approval.reason.code.len() + approval.reason.message.len()
            }
            Verdict::Deny(reason) => reason.code.len() + reason.message.len(),
            Verdict::Other(text) => text.len(),
        }
    }

    fn finish(mut raw: Verdict, _: &Scrubber) -> Result<Verdict, Reason> {
        match &mut raw {
            Verdict::Abstain | Verdict::PermitUntil(_) => {}
            Verdict::RequireApproval(approval) => harmless(&mut approval.reason),
            Verdict::Deny(reason) => harmless(reason),
            Verdict::Other(text) => *text = line(&*text, MESSAGE_BYTES),
        }
        Ok(raw)
    }
}

fn harmless(reason: &mut loopback::policy::types::Reason) {
    reason.code = line(&reason.code, CODE_BYTES);
    reason.message = line(&reason.message, MESSAGE_BYTES);
}
