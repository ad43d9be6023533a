//! `loopback plugin grant`: a file says all of it, options add to what there is.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use api::v1::plugin::{GetPlugin, GrantPlugin};
use clap::Args;
use model::names::Name;
use model::plugin::{Cidr, HostPattern, HttpRule, SecretBinding, Workspaces};

use super::{of, read_whole, show};
use crate::app::App;
use crate::client::Client;
use crate::failure::Failure;
use crate::lookup;
use crate::output::note;

#[derive(Debug, Args)]
pub(crate) struct Grant {
    /// Name of the plugin
    name: Name,
    /// All of the grant, TOML or JSON; - for standard input
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["workspace", "http", "network", "plain", "secret", "send"])]
    file: Option<PathBuf>,
    /// Workspace that it serves, or all; repeatable. Replaces those of before
    #[arg(long, short, value_name = "WORKSPACE|all")]
    workspace: Vec<String>,
    /// Server for one of its needs; repeatable
    #[arg(long, value_name = "NEED=HOST[:PORT]")]
    http: Vec<HttpArg>,
    /// Network that the servers named here may be in, besides public addresses' own; repeatable
    #[arg(long, value_name = "CIDR", requires = "http")]
    network: Vec<Cidr>,
    /// Lets requests to the servers named here go without TLS
    #[arg(long, requires = "http")]
    plain: bool,
    /// Secret for one of its needs; repeatable
    #[arg(long, value_name = "NEED=WORKSPACE/NAME")]
    secret: Vec<SecretArg>,
    /// Lets a secret be sent to the servers of a need, by the plugin's names for both; repeatable
    #[arg(long, value_name = "HTTP-NEED=SECRET-NEED")]
    send: Vec<SendArg>,
}

/// `NEED=HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq)]
struct HttpArg {
    need: Name,
    host: HostPattern,
    port: Option<u16>,
}

impl FromStr for HttpArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (need, server) = need_of(text)?;
        let (host, port) = match server.rsplit_once(':') {
            // A bare IPv6 address has colons of its own.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                let port = port
                    .parse()
                    .map_err(|_| format!("`{port}` is not a port"))?;
                (host, Some(port))
            }
            _ => (server, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = host.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { need, host, port })
    }
}

/// `NEED=WORKSPACE/NAME`.
#[derive(Clone, Debug, PartialEq)]
struct SecretArg {
    need: Name,
    workspace: String,
    secret: Name,
}

impl FromStr for SecretArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (need, place) = need_of(text)?;
        // A workspace may be named project/name.
        let (workspace, secret) = place
            .rsplit_once('/')
            .ok_or("say which workspace has it: NEED=WORKSPACE/NAME")?;
        Ok(Self {
            need,
            workspace: workspace.to_owned(),
            secret: secret.parse().map_err(|error| format!("{error}"))?,
        })
    }
}

/// `HTTP-NEED=SECRET-NEED`.
#[derive(Clone, Debug, PartialEq)]
struct SendArg {
    need: Name,
    secret: Name,
}

impl FromStr for SendArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (need, secret) = need_of(text)?;
        let secret = secret.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { need, secret })
    }
}

fn need_of(text: &str) -> Result<(Name, &str), String> {
    let (need, rest) = text
        .split_once('=')
        .ok_or("say for which need of the plugin: NEED=…")?;
    Ok((need.parse().map_err(|error| format!("{error}"))?, rest))
}

pub(super) fn run(app: &mut App, command: Grant) -> Result<(), Failure> {
    let client = app.client()?;
    let path = of(command.name.clone());
    let grant = match &command.file {
        Some(file) => read(file)?,
        None => {
            let present = client.fetch::<GetPlugin>(&path)?.grant;
            added(&client, present, &command)?
        }
    };
    let plugin = client.send::<GrantPlugin>(&path, &grant)?;
    app.out.write(&plugin, show::one)?;
    if !plugin.ungranted.is_empty() {
        note("it cannot be enabled: see what is not granted above");
    }
    Ok(())
}

fn read(file: &Path) -> Result<model::plugin::Grant, Failure> {
    let bytes = read_whole(file, 1 << 20)?;
    let wrong = |error: String| Failure::Usage(format!("{}: {error}", file.display()));
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is not text".to_owned()))?;
    if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
    } else {
        toml::from_str(&text).map_err(|error| wrong(error.to_string()))
    }
}

fn added(
    client: &Client,
    mut grant: model::plugin::Grant,
    command: &Grant,
) -> Result<model::plugin::Grant, Failure> {
    if command.workspace.iter().any(|name| name == "all") {
        grant.workspaces = Workspaces::All;
    } else if !command.workspace.is_empty() {
        let these = command
            .workspace
            .iter()
            .map(|name| lookup::workspace(client, name));
        grant.workspaces = Workspaces::Only(these.collect::<Result<_, _>>()?);
    }
    for server in &command.http {
        let rule = rule_of(&mut grant, &server.need);
        if !rule.hosts.contains(&server.host) {
            rule.hosts.push(server.host.clone());
        }
        let ports = server.port.iter().filter(|port| !rule.ports.contains(port));
        rule.ports.extend(ports.collect::<Vec<_>>());
        rule.plain |= command.plain;
        for network in &command.network {
            if !rule.networks.contains(network) {
                rule.networks.push(*network);
            }
        }
    }
    for named in &command.secret {
        let reveal = grant
            .secrets
            .get(&named.need)
            .is_some_and(|before| before.reveal);
        let binding = SecretBinding {
            workspace: lookup::workspace(client, &named.workspace)?,
            secret: named.secret.clone(),
            reveal,
        };
        grant.secrets.insert(named.need.clone(), binding);
    }
    for send in &command.send {
        let rule = rule_of(&mut grant, &send.need);
        if !rule.secrets.contains(&send.secret) {
            rule.secrets.push(send.secret.clone());
        }
    }
    Ok(grant)
}

fn rule_of<'a>(grant: &'a mut model::plugin::Grant, need: &Name) -> &'a mut HttpRule {
    let place = match grant.http.iter().position(|rule| rule.need == *need) {
        Some(place) => place,
        None => {
            grant.http.push(HttpRule {
                need: need.clone(),
                hosts: Vec::new(),
                ports: Vec::new(),
                networks: Vec::new(),
                plain: false,
                tls_profiles: Vec::new(),
                secrets: Vec::new(),
                routes: Vec::new(),
            });
            grant.http.len() - 1
        }
    };
    &mut grant.http[place]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_with_and_without_port() {
        let parsed = |text: &str| {
            let arg: HttpArg = text.parse().expect(text);
            (arg.host.to_string(), arg.port)
        };
        assert_eq!(parsed("hook=a.example.com"), ("a.example.com".into(), None));
        assert_eq!(
            parsed("hook=*.example.com:8443"),
            ("*.example.com".into(), Some(8443))
        );
        assert_eq!(parsed("hook=192.0.2.1:80"), ("192.0.2.1".into(), Some(80)));
        assert_eq!(parsed("hook=2001:db8::1"), ("2001:db8::1".into(), None));
        assert_eq!(
            parsed("hook=[2001:db8::1]:80"),
            ("2001:db8::1".into(), Some(80))
        );
        for text in [
            "a.example.com",
            "hook=",
            "hook=A.com",
            "hook=a.com:x",
            "h k=a.com",
        ] {
            assert!(text.parse::<HttpArg>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_is_named_with_its_workspace() {
        let arg: SecretArg = "key=shop/main/smtp".parse().expect("a secret");
        assert_eq!(
            (arg.workspace.as_str(), arg.secret.as_str()),
            ("shop/main", "smtp")
        );
        assert!("key=smtp".parse::<SecretArg>().is_err());
    }
}
