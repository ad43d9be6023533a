//! What each operation does, a file per area. A handler reads the catalog,
//! builds one batch (the change, its audit entry, its history) and finishes the
//! call with it; whatever must happen afterwards, a reconciler notices.

pub mod access;
pub mod agent_token;
pub mod approval;
pub mod audit;
pub mod certificate_authority;
pub mod command;
pub mod command_follow;
pub mod dead_letter;
pub mod diagnose;
pub mod event;
pub mod file;
pub mod host;
pub mod monitoring;
pub mod page;
pub mod people;
pub mod plugin;
pub mod plugin_registry;
pub mod power;
pub mod secret;
pub mod system;
pub mod tenancy;
