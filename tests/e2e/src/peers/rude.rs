//! Servers that nobody should have to speak with.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::Result;

/// How one of them is rude.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Takes connections, and says nothing.
    Silent,
    /// Answers, and never comes to an end.
    Endless,
    /// Answers with something else.
    Nonsense,
}

/// A server on the loopback interface, until this process ends.
#[derive(Debug)]
pub struct Rude {
    /// Where.
    pub address: SocketAddr,
}

impl Rude {
    /// Starts one.
    pub fn start(manner: Manner) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whoever goes away ends the talk, and nobody else's.
                thread::spawn(move || drop(talk(stream, manner)));
            }
        });
        Ok(Self { address })
    }
}

fn talk(mut stream: TcpStream, manner: Manner) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    let mut heard = [0; 64 << 10];
    let _ = stream.read(&mut heard)?;
    let head =
        |length: &str| format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{length}\r\n");
    match manner {
        // Until the other side has had enough.
        Manner::Silent => while stream.read(&mut heard)? > 0 {},
        Manner::Endless => {
            stream.write_all(head("content-length: 99999999999\r\n").as_bytes())?;
            loop {
                stream.write_all(&[b'['; 16 << 10])?;
            }
        }
        Manner::Nonsense => {
            let body = r#"{"data":{"status":{"status":[[[["running"]]]]},"uptime":-1}}"#;
            let length = format!("content-length: {}\r\n", body.len());
            stream.write_all((head(&length) + body).as_bytes())?;
        }
    }
    Ok(())
}
