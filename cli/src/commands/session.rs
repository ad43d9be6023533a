//! `loopback init`, `login` and `whoami`.

use std::path::PathBuf;

use api::endpoint::Nothing;
use api::v1::people::{Caller, GetSelf};
use api::v1::system::{ClaimFirstRun, FirstRun};
use clap::Args;
use model::Timestamp;
use model::names::Name;

use super::{access::scope_text, api_key, user};
use crate::app::{App, read_secret};
use crate::client::Trust;
use crate::connection::{Connection, parse_key, parse_url, trust_of};
use crate::contexts::Context;
use crate::failure::Failure;
use crate::output::{Table, note};
use crate::parse::rule_text;

/// How to know a gateway.
#[derive(Clone, Debug, Args)]
pub(super) struct TrustArg {
    /// PEM file of the authority of the gateway's certificate [default: LOOPBACK_CA_FILE, else what this machine trusts]
    #[arg(long, value_name = "FILE", conflicts_with = "pin")]
    ca_file: Option<PathBuf>,
    /// Pin of the gateway's key instead: sha256//...
    #[arg(long)]
    pin: Option<String>,
}

impl TrustArg {
    pub(super) fn is_given(&self) -> bool {
        self.ca_file.is_some() || self.pin.is_some()
    }

    /// What is said here, else in the environment.
    pub(super) fn resolve(&self, app: &App) -> Result<Trust, Failure> {
        if self.is_given() {
            return trust_of(self.pin.as_deref(), self.ca_file.as_deref(), None);
        }
        trust_of(
            app.environment.pin.as_deref(),
            app.environment.ca_file.as_deref(),
            None,
        )
    }
}

/// Puts `trust` into `context`, authorities as they are.
pub(super) fn keep_trust(context: &mut Context, trust: &Trust) {
    context.ca_file = None;
    (context.ca_pem, context.pin) = match trust {
        Trust::System => (None, None),
        Trust::Authorities(pem) => (Some(pem.clone()), None),
        Trust::Pin(pin) => (None, Some(pin.to_string())),
    };
}

#[derive(Debug, Args)]
pub(super) struct Init {
    /// URL of the gateway [default: LOOPBACK_URL]
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    trust: TrustArg,
    /// The gateway's `owner.secret`; - is standard input
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    /// Name of the owner's user
    #[arg(long, default_value = "owner")]
    name: Name,
}

pub(super) fn init(app: &mut App, command: Init) -> Result<(), Failure> {
    let name = context_name(app)?;
    let url = command.url.as_deref().or(app.environment.url.as_deref());
    let url = parse_url(url.ok_or_else(|| Failure::Usage("which gateway? say --url".to_owned()))?)?;
    let trust = command.trust.resolve(app)?;
    let secret = read_secret(Some(&command.secret_file), "owner's secret")?;
    // The secret works once, and its answer is shown once: whether the answer
    // can be kept is found out before.
    app.contexts.update(
        |contexts| match contexts.contexts.contains_key(name.as_str()) {
            true => Err(Failure::Usage(format!(
                "there is a context {name} already; choose another name with --context"
            ))),
            false => Ok(()),
        },
    )?;
    let connection = Connection {
        context: None,
        url_from: "--url",
        url: url.clone(),
        trust: trust.clone(),
        api_key: None,
        workspace: None,
    };
    // Never twice: the second attempt would be told that there is nothing to claim.
    let client = app.client_for(&connection)?.once();
    let body = FirstRun {
        secret: secret.0,
        name: command.name,
    };
    let claimed = client.send::<ClaimFirstRun>(&Nothing {}, &body)?;
    let kept = app.contexts.update(|contexts| {
        let mut context = Context {
            url: url.to_string(),
            api_key: Some(claimed.key.secret.clone()),
            ..Context::default()
        };
        keep_trust(&mut context, &trust);
        contexts.contexts.insert(name.to_string(), context);
        contexts.current = Some(name.clone());
        Ok::<_, Failure>(())
    });
    if let Err(error) = kept {
        note("the context cannot be kept; this is the owner's API key, shown this once:");
        app.out.line(&claimed.key.secret)?;
        return Err(error);
    }
    app.out.say(&claimed.user, |user| {
        format!(
            "you are {} of {url}, kept as context {name}; next: loopback project create NAME",
            user.name
        )
    })
}

#[derive(Debug, Args)]
pub(super) struct Login {
    /// URL of the gateway; needed for a new context [default: LOOPBACK_URL]
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    trust: TrustArg,
    /// File that holds the API key; without it the key is read from standard input
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Keep the key without asking the gateway whether it is valid
    #[arg(long)]
    no_check: bool,
}

pub(super) fn login(app: &mut App, command: Login) -> Result<(), Failure> {
    let name = match &app.globals.context {
        Some(_) => context_name(app)?,
        None => app
            .contexts
            .load()?
            .current
            .map_or_else(|| context_name(app), Ok)?,
    };
    let mut context = app
        .contexts
        .load()?
        .contexts
        .get(name.as_str())
        .cloned()
        .unwrap_or_default();
    if let Some(url) = command.url.as_deref().or(app.environment.url.as_deref()) {
        let url = parse_url(url)?;
        if context.url.trim_end_matches('/') != url.as_str() {
            // Another gateway: nothing of the old one applies.
            context = Context {
                url: url.to_string(),
                ..Context::default()
            };
            keep_trust(&mut context, &command.trust.resolve(app)?);
        }
    }
    if context.url.is_empty() {
        return Err(Failure::Usage(format!(
            "there is no context {name} yet: say --url"
        )));
    }
    if command.trust.is_given() {
        keep_trust(&mut context, &command.trust.resolve(app)?);
    }
    let key = parse_key(&read_secret(command.api_key_file.as_deref(), "API key")?.0)?;
    context.api_key = Some(key.reveal());
    let who = if command.no_check {
        None
    } else {
        Some(check(app, &context)?)
    };
    let url = context.url.clone();
    app.contexts.update(|contexts| {
        contexts.contexts.insert(name.to_string(), context);
        contexts.current = Some(name.clone());
        Ok::<_, Failure>(())
    })?;
    let words = who.as_ref().map_or_else(
        || "the key is kept".to_owned(),
        |who| format!("you are {}", who.user.name),
    );
    app.out
        .say(&who, |_| format!("{words} at {url}, context {name}"))
}

fn check(app: &App, context: &Context) -> Result<Caller, Failure> {
    let connection = Connection {
        context: None,
        url_from: "context",
        url: parse_url(&context.url)?,
        trust: trust_of(
            context.pin.as_deref(),
            context.ca_file.as_deref(),
            context.ca_pem.as_deref(),
        )?,
        api_key: context.api_key.as_deref().map(parse_key).transpose()?,
        workspace: None,
    };
    Ok(app.client_for(&connection)?.fetch::<GetSelf>(&Nothing {})?)
}

pub(super) fn context_name(app: &App) -> Result<Name, Failure> {
    let text = app.globals.context.as_deref().unwrap_or("default");
    text.parse()
        .map_err(|error| Failure::Usage(format!("context {text}: {error}")))
}

pub(super) fn whoami(app: &mut App) -> Result<(), Failure> {
    let caller = app.client()?.fetch::<GetSelf>(&Nothing {})?;
    app.out.write(&caller, properties)
}

fn properties(caller: &Caller, now: Timestamp) -> Table {
    let mut table = user::properties(&caller.user, now);
    table.property("API key", caller.api_key.id.to_string());
    table.property(
        "key expires",
        super::time_or(now, caller.api_key.expires_at, "never"),
    );
    let limits = api_key::limits_text(&caller.api_key);
    if !limits.is_empty() {
        table.property("key limited to", limits);
    }
    for held in &caller.holdings {
        for rule in &held.rules {
            table.property(
                "may",
                format!("{} in {}", rule_text(rule), scope_text(&held.scope)),
            );
        }
    }
    table
}
