//! Message brokers that hold many idle connections with mutual TLS: mosquitto and nats-server.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use e2e::{
    product::Daemon,
    scratch::Scratch,
    tools::Missing,
    wait::{self, Look},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

use super::{apt, missing};
use crate::{gateway::free_address, load::Clients};

const START: Duration = Duration::from_secs(20);

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Mosquitto,
    Nats,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mosquitto => "mosquitto",
            Self::Nats => "nats-server",
        }
    }

    fn clients(self) -> &'static str {
        match self {
            Self::Mosquitto => "--mqtt",
            Self::Nats => "--nats",
        }
    }
}

/// A broker that runs.
#[derive(Debug)]
pub(crate) struct Broker {
    kind: Kind,
    daemon: Daemon,
    address: SocketAddr,
    folder: Scratch,
}

impl Broker {
    pub(crate) fn start(kind: Kind) -> Result<Self, Missing> {
        Self::begin(kind).map_err(missing(kind.name()))
    }

    fn begin(kind: Kind) -> Result<Self> {
        let folder = Scratch::new()?;
        certificates(folder.path())?;
        let address = free_address()?;
        let file = |name: &str| folder.join(name).display().to_string();
        let config = folder.join("config");
        let (program, text) = match kind {
            Kind::Mosquitto => (
                apt::program(
                    "usr/sbin/mosquitto",
                    &[
                        "mosquitto",
                        "libmosquitto1",
                        "libcjson1",
                        "libdlt2",
                        "libwrap0",
                    ],
                )?,
                format!(
                    "listener {} 127.0.0.1\nallow_anonymous true\nrequire_certificate true\n\
                     cafile {}\ncertfile {}\nkeyfile {}\ntls_version tlsv1.3\nuser root\n",
                    address.port(),
                    file("ca.pem"),
                    file("server.pem"),
                    file("server.key"),
                ),
            ),
            Kind::Nats => (
                apt::program("usr/sbin/nats-server", &["nats-server"])?,
                format!(
                    "listen: \"{address}\"\nmax_connections: 100000\ntls {{ ca_file: \"{}\", \
                     cert_file: \"{}\", key_file: \"{}\", verify: true, timeout: 10 }}\n",
                    file("ca.pem"),
                    file("server.pem"),
                    file("server.key"),
                ),
            ),
        };
        fs::write(&config, text)?;
        let mut command = program.command();
        command.arg("-c").arg(&config);
        let mut daemon = Daemon::start(kind.name(), command, &folder.join("log"))?;
        wait::until(&format!("{} to listen", kind.name()), START, || {
            anyhow::ensure!(daemon.is_running(), "it ended: {}", daemon.tail(10));
            let open = TcpStream::connect(address).is_ok();
            Ok(Look::when(open, || "closed".into()))
        })?;
        Ok(Self {
            kind,
            daemon,
            address,
            folder,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Clients of its own language that begin to connect.
    pub(crate) fn clients(&self, count: usize) -> Result<Clients> {
        Clients::start(&[
            "tls-clients",
            self.kind.clients(),
            "--certificates",
            &self.folder.path().display().to_string(),
            "--server",
            &self.address.to_string(),
            "--count",
            &count.to_string(),
        ])
    }
}

/// An authority, a server and a client, P-256 like ours.
fn certificates(folder: &Path) -> Result<()> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Names that differ: OpenSSL takes a leaf that is named like its issuer for self-signed.
    params.distinguished_name.push(DnType::CommonName, "bench");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(folder.join("ca.pem"), authority.pem())?;
    for (name, usage) in [
        ("server", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()])?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority).context("sign")?;
        fs::write(folder.join(format!("{name}.pem")), certificate.pem())?;
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}
