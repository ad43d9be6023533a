//! Hosts put straight into a gateway's state, as if they had joined.
//!
//! Joining 50,000 hosts one by one would measure enrolment. So records are written into the
//! store of a gateway that does not run, with the gateway's own types, and certificates are
//! signed by its own authority: what it finds at its next start is what enrolment would have
//! left behind.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use gateway::{
    ca::{CertificateAuthority, https::HttpsSource},
    config::PublicUrl,
    keys::{ServerKeys, random},
    state::records::{HostFactsRecordV1, HostRecordV1, HostSeenRecordV1, IdentityV1, key_of},
};
use gateway_store::{Batch, OpenOptions, RedbStore, Store};
use link::identity::CertIdentity;
use model::{
    Timestamp,
    facts::{Disk, Facts},
    host::Membership,
    ids::{DeploymentId, HostId, WorkspaceId},
};
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};

use crate::gateway::block_on;

/// What agents say the digest of their facts is, so that nobody asks for the facts again.
pub(crate) const FACTS_DIGEST: [u8; 32] = [7; 32];
/// Three records a host, well within a batch.
const HOSTS_A_BATCH: usize = 20;
const BATCHES_AT_ONCE: usize = 64;

/// Whether hosts can be simulated, or only lie in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certificates {
    /// With keys and certificates; a tenth of a millisecond each.
    Real,
    /// Hosts that are never seen.
    None,
}

/// What a swarm needs to be these hosts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Fleet {
    /// The deployment, in text form.
    pub(crate) deployment: String,
    /// Version of the trust bundle.
    pub(crate) trust_version: u64,
    /// The authorities, DER.
    pub(crate) authorities: Vec<Vec<u8>>,
    /// The hosts.
    pub(crate) members: Vec<Member>,
}

/// One host.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Its certificate, DER.
    pub(crate) certificate: Vec<u8>,
    /// Its key, PKCS#8.
    pub(crate) key: Vec<u8>,
}

impl Fleet {
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        rmp_serde::from_slice(&bytes).context("read the fleet")
    }
}

/// The authority of a gateway that does not run.
pub(crate) fn authority(state: &Path) -> Result<(DeploymentId, CertificateAuthority)> {
    let deployment: DeploymentId = fs::read_to_string(state.join("deployment"))
        .context("read the deployment's id")?
        .trim()
        .parse()?;
    let https = HttpsSource::Internal(PublicUrl::localhost(443));
    let now = gateway::app::wall_clock();
    let authority = CertificateAuthority::load(&state.join("ca"), deployment, https, now)
        .context("read the authority")?;
    Ok((deployment, authority))
}

/// Writes `count` hosts into the store in `state`, and the fleet's certificates into `file`.
pub(crate) fn prepare(
    state: &Path,
    workspace: WorkspaceId,
    count: usize,
    certificates: Certificates,
    file: &Path,
) -> Result<()> {
    let (deployment, authority) = authority(state)?;
    let keys = ServerKeys::load(&state.join("keys")).context("read the server's keys")?;
    let options = OpenOptions::new(keys.audit_key()).deployment(deployment.to_bytes());
    let store = RedbStore::open(state.join("loopback.redb"), options).context("open the store")?;
    let now = gateway::app::wall_clock();
    let mut fleet = Fleet {
        deployment: deployment.to_string(),
        trust_version: authority.trust_bundle().version(),
        authorities: authority
            .trust_bundle()
            .authorities()
            .iter()
            .map(|der| der.to_vec())
            .collect(),
        members: Vec::with_capacity(count),
    };
    let mut hosts = Vec::with_capacity(count);
    for number in 0..count {
        let host = HostId::new(now, random());
        let identity = match certificates {
            Certificates::Real => {
                let identity = CertIdentity::Agent {
                    deployment,
                    workspace,
                    host,
                    generation: 1,
                };
                let (member, identity) = certify(&authority, identity, now)?;
                fleet.members.push(member);
                identity
            }
            Certificates::None => IdentityV1 {
                generation: 1,
                spki_sha256: random(),
                not_after: now.saturating_add(std::time::Duration::from_secs(30 * 86_400)),
                issuer: authority.active_fingerprint(),
                previous: None,
            },
        };
        hosts.push((number, host, identity));
    }
    block_on(async {
        let batches = hosts.chunks(HOSTS_A_BATCH).map(|some| {
            let mut batch = Batch::new();
            for (number, host, identity) in some {
                put(&mut batch, workspace, *host, *number, identity.clone(), now)?;
            }
            Ok(batch)
        });
        stream::iter(batches)
            .map(|batch: Result<Batch>| async { Ok(store.commit(batch?).await?) })
            .buffer_unordered(BATCHES_AT_ONCE)
            .try_for_each(|_| async { Ok(()) })
            .await
    })?;
    block_on(async {
        store.close().await;
        Ok(())
    })?;
    fs::write(file, rmp_serde::to_vec(&fleet)?).context("write the fleet")
}

fn certify(
    authority: &CertificateAuthority,
    identity: CertIdentity,
    now: Timestamp,
) -> Result<(Member, IdentityV1)> {
    let key = KeyPair::generate().context("make a key")?;
    let request = CertificateParams::default().serialize_request(&key)?;
    let lifetime = std::time::Duration::from_secs(30 * 86_400);
    let issued = authority.issue_agent(request.der(), identity, now, lifetime)?;
    let member = Member {
        certificate: issued.certificate.to_vec(),
        key: key.serialize_der(),
    };
    let identity = IdentityV1 {
        generation: 1,
        spki_sha256: issued.spki_sha256.0,
        not_after: issued.not_after,
        issuer: issued.issuer_fingerprint,
        previous: None,
    };
    Ok((member, identity))
}

fn put(
    batch: &mut Batch,
    workspace: WorkspaceId,
    host: HostId,
    number: usize,
    identity: IdentityV1,
    now: Timestamp,
) -> Result<()> {
    let record = HostRecordV1 {
        id: host,
        workspace,
        membership: Membership::Managed,
        display_name: None,
        labels: serde_json::from_value(serde_json::json!({
            "role": "web", "rack": format!("r{}", number / 40),
        }))?,
        maintenance: None,
        ephemeral: false,
        clone_of: None,
        awaited_hostname: None,
        identity: Some(identity),
        token: None,
        created_at: now,
        enrolled_at: Some(now),
        retired_at: None,
        pending_adoption: None,
        adopting_generation: None,
    };
    let facts = HostFactsRecordV1 {
        digest: FACTS_DIGEST.to_vec(),
        facts: facts(number),
        at: now,
    };
    batch.put_record(&key_of::<HostRecordV1>(host), &record)?;
    let seen = HostSeenRecordV1::never(now);
    batch.put_record(&key_of::<HostSeenRecordV1>(host), &seen)?;
    batch.put_record(&key_of::<HostFactsRecordV1>(host), &facts)?;
    Ok(())
}

/// Facts of a usual size.
fn facts(number: usize) -> Facts {
    let disk = |mount: &str, size_bytes| Disk {
        mount: mount.into(),
        kind: "ext4".into(),
        size_bytes,
        free_bytes: size_bytes / 2,
    };
    Facts {
        hostname: format!("web-{number:05}.example.net"),
        os: "linux".into(),
        os_version: "Debian GNU/Linux 12 (bookworm)".into(),
        kernel: "6.1.0-28-amd64".into(),
        arch: "x86_64".into(),
        addresses: vec![
            format!(
                "10.{}.{}.{}",
                number >> 16,
                (number >> 8) & 255,
                number & 255
            ),
            format!("fd00::{number:x}"),
        ],
        cpus: 16,
        cpu_model: "AMD EPYC 7443P 24-Core Processor".into(),
        memory_bytes: 64 << 30,
        disks: vec![disk("/", 100 << 30), disk("/srv", 2 << 40)],
        virtualization: "kvm".into(),
        machine_id: format!("{number:032x}"),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        booted_at_secs: 1_700_000_000,
        exporters: Vec::new(),
        macs: vec![format!(
            "02:00:00:{:02x}:{:02x}:{:02x}",
            number >> 16,
            (number >> 8) & 255,
            number & 255
        )],
        serial: format!("S{number:08}"),
        system_uuid: format!("4c4c4544-0000-2010-8020-{number:012x}"),
        asset_tag: String::new(),
    }
}
