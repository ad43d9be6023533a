//! The HTTP API as types: one declaration per operation, used by the gateway
//! that answers it, the CLI that calls it, the OpenAPI document and the tests.
//!
//! An operation is a type that implements [`Endpoint`]: its path, its
//! permission, what goes in and what comes out. The permission is named there
//! and nowhere else. The gateway cannot mount a handler without one, the
//! document cannot disagree with it, and the permission matrix is computed from
//! [`v1::operations`]. The usual way, attributes on handlers, would name the
//! permission in the handler, in the document and in the test.
//!
//! Types grow only by adding. Requests refuse unknown fields, replies are read
//! with unknown fields ignored.

pub mod endpoint;
pub mod openapi;
pub mod page;
pub mod problem;
pub mod tar;
pub mod v1;

pub use endpoint::{Access, Endpoint, Method, Operation};
pub use page::{Page, Paging};
pub use problem::{Problem, ProblemCode};
