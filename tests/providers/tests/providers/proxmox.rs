//! `power-proxmox`.
