//! `loopback context`: choose among gateways. Keys are never shown, only which
//! key it is.

use clap::Subcommand;
use model::names::Name;
use serde::Serialize;
use std::path::PathBuf;

use super::session::{TrustArg, keep_trust};
use crate::app::{App, read_secret};
use crate::client::Trust;
use crate::connection::{parse_key, parse_url};
use crate::contexts::{Context, Contexts};
use crate::failure::Failure;
use crate::output::Table;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List contexts
    #[command(visible_alias = "ls")]
    List,
    /// Show the connection in use, environment included, or a context as it is kept
    Show {
        /// Name of a context
        name: Option<String>,
    },
    /// Use a context from now on
    Use {
        /// Name of the context
        name: String,
        /// Workspace meant when none is named
        #[arg(long, short)]
        workspace: Option<String>,
    },
    /// Add a context
    Add {
        /// Its name
        name: Name,
        /// URL of the gateway
        #[arg(long)]
        url: String,
        #[command(flatten)]
        trust: TrustArg,
        /// File that holds an API key; - is standard input
        #[arg(long, value_name = "FILE")]
        api_key_file: Option<PathBuf>,
        /// Workspace meant when none is named
        #[arg(long, short)]
        workspace: Option<String>,
        /// Replace a context of this name
        #[arg(long)]
        replace: bool,
    },
    /// Forget a context and the key in it
    #[command(visible_alias = "rm")]
    Remove {
        /// Name of the context
        name: String,
    },
}

/// A context without its secret.
#[derive(Serialize)]
struct View {
    name: String,
    current: bool,
    url: String,
    trust: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<String>,
}

#[derive(Serialize)]
struct Views {
    items: Vec<View>,
}

pub(super) fn run(app: &mut App, command: Command) -> Result<(), Failure> {
    match command {
        Command::List => {
            let contexts = app.contexts.load()?;
            let items = contexts
                .contexts
                .iter()
                .map(|(name, context)| view(&contexts, name, context))
                .collect();
            app.out
                .write(&Views { items }, |views, _| table(&views.items))
        }
        Command::Show { name: Some(name) } => {
            let contexts = app.contexts.load()?;
            let view = view(&contexts, &name, find(&contexts, &name)?);
            app.out.write(&view, |view, _| properties(view, "context"))
        }
        Command::Show { name: None } => show_connection(app),
        Command::Use { name, workspace } => {
            app.contexts.update(|contexts| {
                let context = contexts.contexts.get_mut(&name);
                let context = context.ok_or_else(|| Failure::NotFound {
                    what: "context",
                    name: name.clone(),
                })?;
                if let Some(workspace) = workspace {
                    context.workspace = Some(workspace).filter(|workspace| !workspace.is_empty());
                }
                contexts.current = Some(
                    name.parse()
                        .map_err(|error| Failure::Usage(format!("{error}")))?,
                );
                Ok::<_, Failure>(())
            })?;
            app.out.say(&serde_json::json!({ "current": name }), |_| {
                format!("using context {name}")
            })
        }
        Command::Add {
            name,
            url,
            trust,
            api_key_file,
            workspace,
            replace,
        } => {
            let api_key = match api_key_file {
                Some(file) => Some(parse_key(&read_secret(Some(&file), "API key")?.0)?.reveal()),
                None => None,
            };
            let mut context = Context {
                url: parse_url(&url)?.to_string(),
                api_key,
                workspace,
                ..Context::default()
            };
            keep_trust(&mut context, &trust.resolve(app)?);
            let view = app.contexts.update(|contexts| {
                if contexts.contexts.contains_key(name.as_str()) && !replace {
                    return Err(Failure::Usage(format!(
                        "there is a context {name} already; say --replace"
                    )));
                }
                contexts.contexts.insert(name.to_string(), context.clone());
                contexts.current.get_or_insert_with(|| name.clone());
                Ok(view(contexts, name.as_str(), &context))
            })?;
            app.out
                .say(&view, |view| format!("added context {}", view.name))
        }
        Command::Remove { name } => {
            app.contexts.update(|contexts| {
                let gone = contexts.contexts.remove(&name);
                gone.ok_or_else(|| Failure::NotFound {
                    what: "context",
                    name: name.clone(),
                })?;
                contexts.current.take_if(|current| current.as_str() == name);
                Ok::<_, Failure>(())
            })?;
            app.out.say(&serde_json::json!({}), |_| {
                format!("removed context {name}")
            })
        }
    }
}

fn show_connection(app: &mut App) -> Result<(), Failure> {
    let connection = app.connection()?;
    let view = View {
        name: connection.context.clone().unwrap_or_default(),
        current: true,
        url: connection.url.to_string(),
        trust: trust_word(&connection.trust),
        api_key: connection.api_key.as_ref().map(|key| key.id().to_string()),
        workspace: connection.workspace.clone(),
    };
    app.out
        .write(&view, |view, _| properties(view, connection.url_from))
}

fn find<'a>(contexts: &'a Contexts, name: &str) -> Result<&'a Context, Failure> {
    contexts
        .contexts
        .get(name)
        .ok_or_else(|| Failure::NotFound {
            what: "context",
            name: name.to_owned(),
        })
}

fn view(contexts: &Contexts, name: &str, context: &Context) -> View {
    let trust = match (
        &context.pin,
        context.ca_pem.is_some() || context.ca_file.is_some(),
    ) {
        (Some(_), _) => "pin",
        (None, true) => "authority",
        (None, false) => "system",
    };
    let key = context.api_key.as_deref();
    View {
        name: name.to_owned(),
        current: contexts
            .current
            .as_ref()
            .is_some_and(|current| current.as_str() == name),
        url: context.url.clone(),
        trust,
        api_key: key.map(|key| {
            parse_key(key).map_or_else(|_| "malformed".to_owned(), |key| key.id().to_string())
        }),
        workspace: context.workspace.clone(),
    }
}

fn trust_word(trust: &Trust) -> &'static str {
    match trust {
        Trust::System => "system",
        Trust::Authorities(_) => "authority",
        Trust::Pin(_) => "pin",
    }
}

fn table(views: &[View]) -> Table {
    let mut table = Table::new(&["CURRENT", "NAME", "URL", "TRUST", "API KEY", "WORKSPACE"]);
    for view in views {
        table.row([
            if view.current { "*" } else { "" }.into(),
            view.name.as_str().into(),
            view.url.as_str().into(),
            view.trust.into(),
            view.api_key.as_deref().unwrap_or_default().into(),
            view.workspace.as_deref().unwrap_or_default().into(),
        ]);
    }
    table
}

fn properties(view: &View, url_from: &str) -> Table {
    let mut table = Table::of_one();
    table.property("context", view.name.as_str());
    table.property("url", format!("{} (from {url_from})", view.url));
    table.property("trust", view.trust);
    table.property("API key", view.api_key.as_deref().unwrap_or("none"));
    table.property("workspace", view.workspace.as_deref().unwrap_or_default());
    table
}
