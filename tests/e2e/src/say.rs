//! Progress and verdicts for people: on standard output, unless that is needed for a result.

use std::{
    fmt::Arguments,
    sync::atomic::{AtomicBool, Ordering},
};

static TO_STDERR: AtomicBool = AtomicBool::new(false);

/// From here on progress goes to standard error: standard output belongs to a program's reader.
pub fn to_stderr() {
    TO_STDERR.store(true, Ordering::Relaxed);
}

/// Says a line.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is where progress is printed"
)]
pub fn line(text: Arguments<'_>) {
    if TO_STDERR.load(Ordering::Relaxed) {
        eprintln!("{text}");
    } else {
        println!("{text}");
    }
}
