//! `loopback:base/datagram`.

use std::time::Duration;

use wasmtime::component::Resource;

use super::{Answer, denied, invalid};
use crate::contract::base::loopback::base::datagram::{Host, HostChannel};
use crate::ports::{Datagrams, ErrorKind, GuestError};
use crate::store::{CallState, Stop};

/// What fits into an Ethernet frame beside its headers.
const MAX_BYTES: usize = 1_472;

/// A socket that speaks with one address.
#[expect(unreachable_pub, reason = "the generated code exports it again")]
pub struct Channel(Box<dyn Datagrams>);

impl CallState {
    fn take_datagram(&mut self) -> Result<(), GuestError> {
        let left = self.budget.datagrams.checked_sub(1);
        self.budget.datagrams =
            left.ok_or_else(|| denied("limit.datagrams", "no datagrams are left for this call"))?;
        Ok(())
    }
}

impl Host for CallState {
    async fn open(&mut self, endpoint: String, route: Option<String>) -> Answer<Resource<Channel>> {
        self.enter()?;
        let opened = match self.surroundings() {
            Ok(around) => {
                let egress = &around.services.egress;
                egress
                    .datagrams(&around.context, &endpoint, route.as_deref())
                    .await
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok(datagrams) => {
                let channel = Channel(datagrams);
                let handle = self.table.push(channel).map_err(|_| Stop::Handles)?;
                Ok(Ok(handle))
            }
            Err(error) => self.tell(Err(error)),
        }
    }

    async fn wake_on_lan(&mut self, mac: String, route: Option<String>) -> Answer<()> {
        self.enter()?;
        let this = &mut *self;
        let answer = async move {
            this.surroundings()?;
            this.take_datagram()?;
            let around = this.surroundings()?;
            let egress = &around.services.egress;
            egress
                .wake_on_lan(&around.context, &mac, route.as_deref())
                .await
        };
        let answer = answer.await;
        self.tell(answer)
    }
}

impl HostChannel for CallState {
    async fn send(&mut self, channel: Resource<Channel>, data: Vec<u8>) -> Answer<()> {
        self.enter()?;
        if data.len() > MAX_BYTES {
            let what = "a datagram has at most 1,472 bytes";
            return self.tell(Err(invalid("datagram.size", what)));
        }
        if let Err(error) = self.take_datagram() {
            return self.tell(Err(error));
        }
        let sent = self.table.get_mut(&channel)?.0.send(&data).await;
        self.tell(sent)
    }

    async fn recv(&mut self, channel: Resource<Channel>, timeout_ms: u32) -> Answer<Vec<u8>> {
        self.enter()?;
        if let Err(error) = self.take_datagram() {
            return self.tell(Err(error));
        }
        let timeout = Duration::from_millis(timeout_ms.into()).min(self.remaining());
        let channel = self.table.get_mut(&channel)?;
        let received = match tokio::time::timeout(timeout, channel.0.recv(timeout)).await {
            Ok(received) => received,
            Err(_) => Err(GuestError::new(
                ErrorKind::Timeout,
                "datagram.timeout",
                "nothing came",
            )),
        };
        let received = received.map(|data| self.scrubber.bytes(data));
        self.tell(received)
    }

    async fn drop(&mut self, channel: Resource<Channel>) -> wasmtime::Result<()> {
        self.table.delete(channel)?;
        Ok(())
    }
}
