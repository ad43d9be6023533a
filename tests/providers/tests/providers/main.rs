//! Power providers against the real thing that each speaks with: the component in the real host,
//! the real client for what it sends, and on the other side an emulator that others wrote, or a
//! packet on a wire.
//!
//! What the gateway makes of their answers is shown elsewhere; here it is that a provider says and
//! does what `wit/power` promises.

mod support;

mod ec2;
mod hetzner;
mod ipmi;
mod proxmox;
mod redfish;
mod webhook;
mod wol;
