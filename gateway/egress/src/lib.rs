//! Requests on behalf of plugins.
