//! `bench tls-clients`: idle clients of MQTT and NATS servers, with mutual TLS.
//!
//! The least that makes a server count a client as connected, and its ping every ten seconds:
//! what a heartbeat is to ours. TLS 1.3 without resumption, so that every connection costs a
//! full handshake with a client certificate, as ours do.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use lexopt::{Arg, Parser, ValueExt};
use rustls::{
    RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::task::TaskTracker;

use super::Counters;

const STEP: Duration = Duration::from_secs(10);
const PING: Duration = Duration::from_secs(10);

#[derive(Clone, Copy)]
enum Language {
    Mqtt,
    Nats,
}

pub(crate) fn main(mut args: Parser) -> Result<ExitCode> {
    let (mut folder, mut remote, mut count, mut at_once) = (PathBuf::new(), None, 0, 64);
    let mut language = Language::Mqtt;
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("mqtt") => language = Language::Mqtt,
            Arg::Long("nats") => language = Language::Nats,
            Arg::Long("certificates") => folder = args.value()?.into(),
            Arg::Long("server") => remote = Some(args.value()?.parse::<SocketAddr>()?),
            Arg::Long("count") => count = args.value()?.parse()?,
            Arg::Long("at-once") => at_once = args.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    crate::process::raise_file_limit();
    let remote = remote.context("--server ADDRESS")?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem"))?)?;
    let certificate = CertificateDer::from_pem_file(folder.join("client.pem"))?;
    let key = PrivateKeyDer::from_pem_file(folder.join("client.key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    config.resumption = Resumption::disabled();
    let connector = TlsConnector::from(Arc::new(config));

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let counters = Arc::new(Counters::new());
    {
        let _within = runtime.enter();
        let gate = Arc::new(Semaphore::new(at_once));
        let clients = TaskTracker::new();
        for number in 0..count {
            let (counters, gate) = (Arc::clone(&counters), Arc::clone(&gate));
            let connector = connector.clone();
            clients.spawn(async move {
                live(number, language, remote, &connector, &counters, &gate).await;
            });
        }
    }
    counters.answer()?;
    std::process::exit(0);
}

async fn live(
    number: usize,
    language: Language,
    remote: SocketAddr,
    connector: &TlsConnector,
    counters: &Counters,
    gate: &Semaphore,
) {
    use std::sync::atomic::Ordering;
    let mut mark = 0;
    loop {
        let permit = gate.acquire().await;
        counters.attempts.fetch_add(1, Ordering::Relaxed);
        let connected = timeout(STEP, connect(number, language, remote, connector)).await;
        drop(permit);
        match connected {
            Ok(Ok(stream)) => {
                counters.came(&mut mark);
                let end = talk(stream, language).await;
                counters.went(format!(
                    "{:#}",
                    end.err().unwrap_or(anyhow::anyhow!("closed"))
                ));
            }
            Ok(Err(error)) => counters.failed(format!("{error:#}")),
            Err(_) => counters.failed("not connected in time".to_owned()),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn connect(
    number: usize,
    language: Language,
    remote: SocketAddr,
    connector: &TlsConnector,
) -> Result<TlsStream<TcpStream>> {
    let mut stream = TcpStream::connect(remote).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    match language {
        Language::Mqtt => {
            let mut stream = connector.connect(name, stream).await?;
            stream.write_all(&mqtt_connect(number)).await?;
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).await?;
            ensure!(answer == [0x20, 2, 0, 0], "CONNACK {answer:?}");
            Ok(stream)
        }
        Language::Nats => {
            // The greeting comes in plain text and asks for TLS.
            until(&mut stream, b"\r\n").await.context("greeting")?;
            let mut stream = connector.connect(name, stream).await?;
            stream
                .write_all(
                    b"CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":true,\
                      \"lang\":\"bench\",\"version\":\"1\",\"protocol\":1}\r\nPING\r\n",
                )
                .await?;
            until(&mut stream, b"PONG\r\n").await?;
            Ok(stream)
        }
    }
}

/// Pings until the connection ends.
async fn talk(mut stream: TlsStream<TcpStream>, language: Language) -> Result<()> {
    let mut buffer = [0; 512];
    let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => {
                let read = read?;
                ensure!(read > 0, "the server closed the connection");
                if matches!(language, Language::Nats) && buffer[..read].starts_with(b"PING") {
                    stream.write_all(b"PONG\r\n").await?;
                }
            }
            _ = ping.tick() => match language {
                Language::Mqtt => stream.write_all(&[0xc0, 0]).await?,
                Language::Nats => stream.write_all(b"PING\r\n").await?,
            },
        }
    }
}

/// MQTT 3.1.1 CONNECT: clean session, keepalive of a minute.
fn mqtt_connect(number: usize) -> Vec<u8> {
    let id = format!("bench-{number}");
    let mut body = b"\x00\x04MQTT\x04\x02\x00\x3c\x00".to_vec();
    // Both lengths are far below 128: one byte each.
    body.push(u8::try_from(id.len()).unwrap_or_default());
    body.extend(id.as_bytes());
    let mut packet = vec![0x10, u8::try_from(body.len()).unwrap_or_default()];
    packet.extend(body);
    packet
}

async fn until<S: AsyncReadExt + Unpin>(stream: &mut S, end: &[u8]) -> Result<()> {
    let mut seen = Vec::new();
    while !seen.ends_with(end) {
        ensure!(seen.len() < 64 << 10, "too long a line");
        seen.push(stream.read_u8().await?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_mqtt_connect_has_the_length_it_says() {
        let packet = super::mqtt_connect(12345);
        assert_eq!(usize::from(packet[1]), packet.len() - 2);
        assert!(packet.ends_with(b"\x00\x0bbench-12345"));
    }
}
