//! The HTTP API as its callers meet it.

mod access;
mod audit;
mod events;
mod hostile;
mod installers;
mod matrix;
mod monitoring_files;
mod paths;
mod plugin_registries;
mod plugins;
mod policy;
mod power;
mod requests;
mod secrets;
mod signals;
mod successor;
