//! What the gateway knows: [`records`] as they lie in the store, the
//! [`catalog`] that mirrors them in memory ([`facts`] as bytes), [`decided`], which hands them to the
//! core, and [`change`], the one way to write them together with their audit entries.

mod authorities;
pub mod catalog;
pub mod change;
pub mod command_records;
pub mod decided;
pub mod edit;
pub mod facts;
pub mod names;
pub mod plugin_records;
pub mod records;
