//! From flags, environment and contexts to one connection.
//!
//! The environment wins over the context, field by field, with one exception: a
//! `LOOPBACK_URL` that names another gateway than the context takes nothing from
//! it. Otherwise a variable left over in a shell would send the key of one
//! gateway to another.

use std::path::{Path, PathBuf};

use model::ids::ApiKeyId;
use model::token::Secret;

use crate::client::{BaseUrl, Trust};
use crate::contexts::{Context, Contexts};
use crate::failure::Failure;

/// What the environment says.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `LOOPBACK_URL`.
    pub url: Option<String>,
    /// `LOOPBACK_API_KEY`.
    pub api_key: Option<SecretText>,
    /// `LOOPBACK_CA_FILE`.
    pub ca_file: Option<PathBuf>,
    /// `LOOPBACK_PIN`.
    pub pin: Option<String>,
    /// `LOOPBACK_WORKSPACE`.
    pub workspace: Option<String>,
}

/// Text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(pub String);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText(hidden)")
    }
}

impl Environment {
    /// Reads the variables; an empty one is an unset one.
    pub fn read(var: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| var(name).filter(|value| !value.is_empty());
        Self {
            url: set("LOOPBACK_URL"),
            api_key: set("LOOPBACK_API_KEY").map(SecretText),
            ca_file: set("LOOPBACK_CA_FILE").map(PathBuf::from),
            pin: set("LOOPBACK_PIN"),
            workspace: set("LOOPBACK_WORKSPACE"),
        }
    }
}

/// Where to call, whom to believe, as whom.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Name of the context it comes from, if from one.
    pub context: Option<String>,
    /// Where the URL comes from, for people.
    pub url_from: &'static str,
    /// The gateway.
    pub url: BaseUrl,
    /// How to know it.
    pub trust: Trust,
    /// The API key.
    pub api_key: Option<Secret<ApiKeyId>>,
    /// The workspace meant when none is named.
    pub workspace: Option<String>,
}

/// Chooses the context (`wanted`, else the current one) and lays the environment
/// over it.
pub fn resolve(
    contexts: &Contexts,
    wanted: Option<&str>,
    environment: &Environment,
) -> Result<Connection, Failure> {
    let (name, context) = choose(contexts, wanted, environment)?;
    let same_gateway = match (&environment.url, context) {
        (Some(url), Some(context)) => {
            url.trim_end_matches('/') == context.url.trim_end_matches('/')
        }
        (None, _) | (_, None) => true,
    };
    let context = context.filter(|_| same_gateway);
    let url = environment
        .url
        .as_deref()
        .or(context.map(|context| context.url.as_str()));
    let url = url.ok_or_else(|| {
        Failure::Usage("no gateway is known: run `loopback init` on a new deployment, `loopback login --url URL` on another, or set LOOPBACK_URL".to_owned())
    })?;
    let own = Context::default();
    let context_or_nothing = context.unwrap_or(&own);
    let key = environment
        .api_key
        .as_ref()
        .map(|key| key.0.as_str())
        .or(context_or_nothing.api_key.as_deref());
    Ok(Connection {
        context: context.and(name.map(str::to_owned)),
        url_from: if environment.url.is_some() {
            "LOOPBACK_URL"
        } else {
            "context"
        },
        url: parse_url(url)?,
        trust: trust(environment, context_or_nothing)?,
        api_key: key.map(parse_key).transpose()?,
        workspace: environment
            .workspace
            .clone()
            .or(context_or_nothing.workspace.clone()),
    })
}

fn choose<'a>(
    contexts: &'a Contexts,
    wanted: Option<&'a str>,
    environment: &Environment,
) -> Result<(Option<&'a str>, Option<&'a Context>), Failure> {
    match wanted.or(contexts.current.as_ref().map(|name| name.as_str())) {
        None => Ok((None, None)),
        Some(name) => match contexts.contexts.get(name) {
            Some(context) => Ok((Some(name), Some(context))),
            None if wanted.is_none() && environment.url.is_some() => Ok((None, None)),
            None => Err(Failure::NotFound {
                what: "context",
                name: name.to_owned(),
            }),
        },
    }
}

fn trust(environment: &Environment, context: &Context) -> Result<Trust, Failure> {
    if environment.ca_file.is_some() || environment.pin.is_some() {
        return trust_of(
            environment.pin.as_deref(),
            environment.ca_file.as_deref(),
            None,
        );
    }
    trust_of(
        context.pin.as_deref(),
        context.ca_file.as_deref(),
        context.ca_pem.as_deref(),
    )
}

/// A pin is stricter than an authority, and both at once would only hide which
/// of them decides.
pub(crate) fn trust_of(
    pin: Option<&str>,
    ca_file: Option<&Path>,
    ca_pem: Option<&str>,
) -> Result<Trust, Failure> {
    match (pin, ca_file, ca_pem) {
        (None, None, None) => Ok(Trust::System),
        (Some(pin), None, None) => pin
            .parse()
            .map(Trust::Pin)
            .map_err(|error| Failure::Usage(format!("{error}"))),
        (None, Some(path), None) => read_text(path, "read the authority").map(Trust::Authorities),
        (None, None, Some(pem)) => Ok(Trust::Authorities(pem.to_owned())),
        _ => Err(Failure::Usage(
            "say either which authority to trust or which pin, not both".to_owned(),
        )),
    }
}

pub(crate) fn parse_url(text: &str) -> Result<BaseUrl, Failure> {
    text.parse()
        .map_err(|error| Failure::Usage(format!("{error}")))
}

pub(crate) fn parse_key(text: &str) -> Result<Secret<ApiKeyId>, Failure> {
    text.trim().parse().map_err(|_| {
        Failure::Usage("this is not a well-formed API key; those begin with lbk_".to_owned())
    })
}

pub(crate) fn read_text(path: &Path, verb: &'static str) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|source| Failure::File {
        verb,
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "lbk_00000000000000000000000001_0000000000000000000000000000000000000000000000000000";
    const OTHER_KEY: &str =
        "lbk_00000000000000000000000002_0000000000000000000000000000000000000000000000000000";

    fn contexts() -> Contexts {
        let mut contexts = Contexts {
            current: Some("home".parse().unwrap()),
            ..Contexts::default()
        };
        for (name, url) in [("home", "https://home"), ("away", "https://away")] {
            let context = Context {
                url: url.to_owned(),
                ca_pem: Some("pem".to_owned()),
                api_key: Some(KEY.to_owned()),
                workspace: Some("web".to_owned()),
                ..Context::default()
            };
            contexts.contexts.insert(name.to_owned(), context);
        }
        contexts
    }

    fn env(pairs: &[(&str, &str)]) -> Environment {
        Environment::read(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    fn key_id(connection: &Connection) -> Option<String> {
        connection.api_key.as_ref().map(|key| key.id().to_string())
    }

    #[test]
    fn the_current_context_is_used_unless_another_is_named() {
        let found = resolve(&contexts(), None, &env(&[])).unwrap();
        assert_eq!(
            (found.url.as_str(), found.context.as_deref()),
            ("https://home", Some("home"))
        );
        assert_eq!(
            resolve(&contexts(), Some("away"), &env(&[]))
                .unwrap()
                .url
                .as_str(),
            "https://away"
        );
        let error = resolve(&contexts(), Some("gone"), &env(&[])).unwrap_err();
        assert_eq!(
            (error.exit_code(), error.to_string().as_str()),
            (3, "there is no context `gone`")
        );
    }

    #[test]
    fn the_environment_wins_field_by_field() {
        let found = resolve(
            &contexts(),
            None,
            &env(&[
                ("LOOPBACK_API_KEY", OTHER_KEY),
                ("LOOPBACK_WORKSPACE", "db"),
            ]),
        )
        .unwrap();
        assert_eq!(key_id(&found).unwrap(), "key_00000000000000000000000002");
        assert_eq!(
            (found.workspace.as_deref(), found.trust),
            (Some("db"), Trust::Authorities("pem".to_owned()))
        );
    }

    #[test]
    fn the_key_of_one_gateway_never_goes_to_another() {
        let found = resolve(
            &contexts(),
            None,
            &env(&[("LOOPBACK_URL", "https://elsewhere")]),
        )
        .unwrap();
        assert_eq!(
            (key_id(&found), found.trust, found.workspace),
            (None, Trust::System, None)
        );
        let same = resolve(
            &contexts(),
            None,
            &env(&[("LOOPBACK_URL", "https://home/")]),
        )
        .unwrap();
        assert!(same.api_key.is_some());
    }

    #[test]
    fn without_any_context_the_environment_is_enough() {
        let found = resolve(
            &Contexts::default(),
            None,
            &env(&[("LOOPBACK_URL", "https://gw"), ("LOOPBACK_API_KEY", KEY)]),
        );
        assert!(found.unwrap().api_key.is_some());
        let error = resolve(&Contexts::default(), None, &env(&[("LOOPBACK_URL", "")])).unwrap_err();
        assert!(error.to_string().contains("loopback init"), "{error}");
    }

    #[test]
    fn a_malformed_key_is_refused_without_being_repeated() {
        let error = resolve(&contexts(), None, &env(&[("LOOPBACK_API_KEY", "lbk_oops")]))
            .unwrap_err()
            .to_string();
        assert!(!error.contains("oops"), "{error}");
    }
}
