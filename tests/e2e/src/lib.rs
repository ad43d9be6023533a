//! End-to-end tests: the product as its users meet it, on real systemd hosts.
//!
//! Everything here drives *built programs from the outside*: no crate of ours is linked, so what
//! passes here passes for somebody with a shell. The layers, bottom up:
//!
//! * [`interrupt`], [`wait`], [`sh`], [`say`]: Ctrl-C, waiting for conditions, running
//!   programs, telling progress. Every wait in this crate goes through one of them, has a limit,
//!   and ends when the person gives up.
//! * [`scratch`]: temporary folders that go when their process goes.
//! * [`tools`], [`rootfs`]: what the machine lacks is installed, or its absence is said loudly.
//! * [`lab`]: booted systemd hosts on a switch of their own; plug, power and packet loss included.
//! * [`product`]: a gateway, the CLI and agents as processes.
//! * [`peers`]: what others wrote, or what stands for it, that the product speaks with.
//! * [`scenario`], [`scenarios`]: the stories, and what runs and reports them.
//!
//! Threads and child processes are enough for that, so there is no async runtime here.

pub mod interrupt;
pub mod lab;
pub mod peers;
pub mod product;
pub mod rootfs;
pub mod say;
pub mod scenario;
pub mod scenarios;
pub mod scratch;
pub mod sh;
pub mod tools;
pub mod wait;
