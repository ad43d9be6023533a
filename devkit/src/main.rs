//! `loopback-plugin`: what an author of plugins works with.

fn main() {}
