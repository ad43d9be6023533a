//! Plugins without a way out of the machine: every request is refused as not granted.

use async_trait::async_trait;
use plugin_host::ports::{
    CallContext, Credential, Datagrams, Egress, ErrorKind, GuestError, HttpRequest, HttpResponse,
};

/// Refuses everything.
pub struct NoWayOut;

fn refused() -> GuestError {
    let message = "plugins of this gateway have no way out of the machine";
    GuestError::new(ErrorKind::Denied, "no-way-out", message)
}

#[async_trait]
impl Egress for NoWayOut {
    async fn send(
        &self,
        _: &CallContext,
        _: HttpRequest,
        _: Vec<Credential>,
    ) -> Result<HttpResponse, GuestError> {
        Err(refused())
    }

    async fn datagrams(
        &self,
        _: &CallContext,
        _: &str,
        _: Option<&str>,
    ) -> Result<Box<dyn Datagrams>, GuestError> {
        Err(refused())
    }

    async fn wake_on_lan(
        &self,
        _: &CallContext,
        _: &str,
        _: Option<&str>,
    ) -> Result<(), GuestError> {
        Err(refused())
    }
}
