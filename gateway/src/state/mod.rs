//! What the gateway knows: [`records`] as they lie in the store, the
//! [`catalog`] that mirrors them in memory, and [`change`], the one way to
//! write them together with their audit entries.

pub mod catalog;
pub mod change;
pub mod edit;
pub mod names;
pub mod records;
