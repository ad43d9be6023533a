//! `power-hetzner`.
