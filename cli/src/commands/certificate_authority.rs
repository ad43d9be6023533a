//! `loopback ca`.

use api::endpoint::Nothing;
use api::v1::certificate_authority::{
    AuthorityState, CertificateAuthority, GetCertificateAuthority, Rotate,
    RotateCertificateAuthority, RotationStep,
};
use clap::Subcommand;
use model::Timestamp;

use super::{age_cell, api_word};
use crate::app::App;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone, age};
use crate::parse::word;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the authorities and how far a rotation has come
    Show {
        /// Print their certificates in PEM instead
        #[arg(long)]
        pem: bool,
    },
    /// Do the next step of a rotation: stage, promote, retire
    Rotate {
        /// stage: trust a new authority; promote: sign with it; retire: drop the old one
        #[arg(long, value_parser = word::<RotationStep>)]
        step: RotationStep,
        /// Retire even though hosts still depend on the old authority; they must join again
        #[arg(long)]
        force: bool,
    },
    /// Keep the gateway's authorities in the context, so that it trusts the next one in time
    Trust,
}

pub(super) fn run(app: &mut App, command: Command) -> Result<(), Failure> {
    match command {
        Command::Show { pem } => {
            let found = app
                .client()?
                .fetch::<GetCertificateAuthority>(&Nothing {})?;
            if pem {
                app.out.raw(bundle(&found).as_bytes())
            } else {
                app.out.write(&found, table)
            }
        }
        Command::Rotate { step, force } => {
            let client = app.client()?;
            if step == RotationStep::Retire {
                app.confirm(
                    "Retire the old authority? Hosts and contexts that trust only it are cut off.",
                )?;
            }
            let after =
                client.send::<RotateCertificateAuthority>(&Nothing {}, &Rotate { step, force })?;
            app.out.write(&after, table)
        }
        Command::Trust => trust(app),
    }
}

fn bundle(found: &CertificateAuthority) -> String {
    found
        .authorities
        .iter()
        .map(|authority| format!("{}\n", authority.pem.trim_end()))
        .collect()
}

/// What the gateway says is believed because it is asked over a connection that
/// the context trusts already.
fn trust(app: &mut App) -> Result<(), Failure> {
    let connection = app.connection()?;
    let Some(name) = connection.context.clone() else {
        return Err(Failure::Usage(
            "there is no context in use whose authorities could be kept".to_owned(),
        ));
    };
    let found = app
        .client_for(&connection)?
        .fetch::<GetCertificateAuthority>(&Nothing {})?;
    let pem = bundle(&found);
    crate::client::parse_pem(&pem).map_err(crate::client::ClientError::Trust)?;
    app.contexts.update(|contexts| {
        let context = contexts.contexts.get_mut(&name);
        let context = context.ok_or_else(|| Failure::NotFound {
            what: "context",
            name: name.clone(),
        })?;
        if context.pin.is_some() {
            return Err(Failure::Usage(format!(
                "context {name} trusts a pin, not an authority"
            )));
        }
        context.ca_file = None;
        context.ca_pem = Some(pem);
        Ok(())
    })?;
    let plural = if found.authorities.len() == 1 {
        "authority"
    } else {
        "authorities"
    };
    app.out.say(&found, |found| {
        format!(
            "context {name} trusts {} {plural} from now on",
            found.authorities.len()
        )
    })
}

fn table(found: &CertificateAuthority, now: Timestamp) -> Table {
    let mut table = Table::new(&["STATE", "FINGERPRINT", "HOSTS", "AGE", "EXPIRES", "TRUST"]);
    for authority in &found.authorities {
        let tone = match authority.state {
            AuthorityState::Active => Tone::Good,
            AuthorityState::Next => Tone::Plain,
            AuthorityState::Previous => Tone::Faint,
        };
        table.row([
            Cell::new(api_word(&authority.state)).tone(tone),
            authority.fingerprint.as_str().into(),
            authority.hosts.to_string().into(),
            age_cell(now, authority.not_before),
            age(now, authority.not_after).into(),
            found.trust_version.to_string().into(),
        ]);
    }
    table
}
