//! Bearer secrets, ids and permissions, as text.

use model::ids::{AgentTokenId, ApiKeyId, HostId, WorkspaceId};
use model::names::Name;
use model::permission::{Pattern, Permission};
use model::token::{Secret, SecretKind};

use super::{reads_as_it_writes, text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "token",
    about: "secrets, ids, names and permissions: one spelling each, and secrets stay hidden",
    run,
    seeds,
    longest: 256,
};

fn run(input: &[u8]) {
    let Some(text) = text(input) else { return };
    check::<AgentTokenId>(text);
    check::<ApiKeyId>(text);
    assert!(
        text.parse::<Secret<AgentTokenId>>().is_err() || text.parse::<Secret<ApiKeyId>>().is_err(),
        "one text is two kinds of secret"
    );
    reads_as_it_writes::<HostId>(text);
    reads_as_it_writes::<WorkspaceId>(text);
    reads_as_it_writes::<Name>(text);
    reads_as_it_writes::<Permission>(text);
    reads_as_it_writes::<Pattern>(text);
}

fn check<I: SecretKind + std::fmt::Debug>(text: &str) {
    match text.parse::<Secret<I>>() {
        Ok(secret) => {
            assert_eq!(secret.reveal(), text, "a secret has two spellings");
            let key = text.rsplit('_').next().unwrap_or_default();
            assert!(!format!("{secret:?}").contains(key));
        }
        Err(error) => {
            let nothing = "".parse::<Secret<I>>().err().map(|error| error.to_string());
            assert_eq!(Some(error.to_string()), nothing, "the text is in the error");
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let at = model::Timestamp::from_millis(1_700_000_000_000);
    let token = Secret::new(AgentTokenId::new(at, [5; 10]), [0xab; 32]).reveal();
    let key = Secret::new(ApiKeyId::new(at, [0xff; 10]), [0; 32]).reveal();
    let host = HostId::new(at, [7; 10]).to_string();
    texts(&[
        &token,
        &key,
        &token.to_uppercase(),
        &format!("{token}="),
        &host,
        &host.to_uppercase(),
        "web-1",
        "project.workspace.host.shell_session.open",
        "project.*",
        "*",
        "lbt__",
        "lbt_\u{0}_\u{0}",
    ])
}
