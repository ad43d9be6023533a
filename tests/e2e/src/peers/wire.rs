//! Whoever listens to frames on a wire: what Wake-on-LAN is sent to.

use std::{io, os::fd::OwnedFd, time::Duration};

use anyhow::{Result, bail};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, sockopt};

use crate::{
    lab::Place,
    wait::{self, Look},
};

/// Hears every frame of a place.
#[derive(Debug)]
pub struct Frames(OwnedFd);

impl Frames {
    /// Begins to listen. Only root hears frames.
    pub fn listen(place: &Place) -> io::Result<Self> {
        place.inside(|| {
            let socket = rustix::net::socket_with(
                AddressFamily::PACKET,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                Some(rustix::net::eth::ALL),
            )?;
            let look = Some(Duration::from_millis(200));
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, look)?;
            Ok(Self(socket))
        })
    }

    /// The destination of the next frame that wakes this machine.
    pub fn waking(&self, mac: [u8; 6], limit: Duration) -> Result<[u8; 6]> {
        let magic = [vec![0xff; 6], mac.repeat(16)].concat();
        wait::until("a packet that wakes it", limit, || {
            // Others on the wire speak too: neighbours are looked for.
            for _ in 0..100 {
                let mut frame = [0; 2048];
                let length = match rustix::net::recv(&self.0, &mut frame[..], RecvFlags::empty()) {
                    Ok((_, length)) => length.min(frame.len()),
                    Err(rustix::io::Errno::AGAIN) => return Ok(Look::NotYet("silence".into())),
                    Err(error) => bail!("listen: {error}"),
                };
                let frame = &frame[..length];
                if let Some(to) = frame.first_chunk().filter(|_| frame.ends_with(&magic)) {
                    return Ok(Look::Ready(*to));
                }
            }
            Ok(Look::NotYet("others speak".into()))
        })
    }
}
