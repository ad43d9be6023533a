//! Runs of commands: what an agent makes of a request, and what it hides of an output.
//!
//! * [`journal`]: what the journal of a run says, and what follows from it: the one
//!   place that decides whether a process may be started;
//! * [`accounts`]: as whom;
//! * [`processes`]: which processes belong to a run, so that all of them can be ended;
//! * [`mask`]: secrets in output, wherever the pieces are cut.

pub mod accounts;
pub mod journal;
pub mod mask;
pub mod processes;
