//! Real guests against a real host: what a plugin may do, what it may not, and what it costs others.

mod calls;
mod components;
mod figures;
mod health;
mod hostile;
mod loading;
mod secrets;
mod support;
