//! `power-wol`.
