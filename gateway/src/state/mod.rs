//! What the gateway knows: [`records`] as they lie in the store, the
//! [`catalog`] that mirrors them in memory, [`decided`], which hands them to the
//! core, and [`change`], the one way to write them together with their audit entries.

pub mod catalog;
pub mod change;
pub mod decided;
pub mod edit;
pub mod names;
pub mod records;
