//! `power-webhook`.
