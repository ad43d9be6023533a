//! The internal certificate authority.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;

use api::v1::certificate_authority::*;
use gateway_store::Batch;
use model::host::Membership;

use crate::app::App;
use crate::ca::{CaError, RotateError};
use crate::error::{Error, Result};
use crate::files::FileError;
use crate::http::call::Call;

/// Shows the authorities.
pub async fn get_certificate_authority(
    app: Arc<App>,
    _: Call<GetCertificateAuthority>,
) -> Result<CertificateAuthority> {
    Ok(view(&app))
}

/// Does the next step of a rotation. The audit entry comes first: a step that
/// then fails is on record as tried.
pub async fn rotate_certificate_authority(
    app: Arc<App>,
    call: Call<RotateCertificateAuthority>,
) -> Result<CertificateAuthority> {
    let step = call.body.step;
    if step == RotationStep::Retire && !call.body.force {
        let left: u64 = view(&app)
            .authorities
            .iter()
            .filter(|authority| authority.state == AuthorityState::Previous)
            .map(|authority| authority.hosts)
            .sum();
        if left > 0 {
            return Err(Error::conflict(format!(
                "{left} hosts still have certificates of the old authority; wait for them to renew, or force and have them join again"
            )));
        }
    }
    let mut batch = Batch::new();
    call.entry("certificate_authority.rotate")
        .with("step", format!("{step:?}").to_lowercase())
        .in_deployment(&mut batch);
    app.commit(batch).await?;
    app.ca
        .rotate(step, call.meta.now)
        .map_err(|error| match error {
            RotateError::Refused(refused) => Error::conflict(refused.to_string()),
            RotateError::Failed(cause) => not_rotated(&cause),
        })?;
    app.links.trust_changed();
    Ok(view(&app))
}

/// The file of the authorities is not in the store, but the disk is the same.
fn not_rotated(cause: &CaError) -> Error {
    let full = match cause {
        CaError::File(FileError::Io { source, .. }) => {
            matches!(
                source.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            )
        }
        _ => false,
    };
    match full {
        true => gateway_store::Unavailable::StorageFull.into(),
        false => Error::internal(cause),
    }
}

fn view(app: &App) -> CertificateAuthority {
    let mut hosts: HashMap<[u8; 32], u64> = HashMap::new();
    for host in app.catalog.read().hosts.values() {
        if let Some(identity) = host
            .identity
            .as_ref()
            .filter(|_| host.membership != Membership::Retired)
        {
            *hosts.entry(identity.issuer).or_default() += 1;
        }
    }
    app.ca
        .view(|issuer| hosts.get(issuer).copied().unwrap_or(0))
}
