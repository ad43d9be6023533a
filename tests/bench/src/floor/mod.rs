//! The bare libraries under ours, doing as little as can be done with them: what no amount of
//! work on our side could go below.

pub(crate) mod http;
pub(crate) mod quic;
pub(crate) mod redb;
