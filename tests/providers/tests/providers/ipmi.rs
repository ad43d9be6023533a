//! `power-ipmi`.
