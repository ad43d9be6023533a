//! Packages from registries.
