//! One way to print an error with everything that caused it.

use std::error::Error;
use std::fmt::Write;

/// `open ledger: read header: unexpected end of file`: an error and all its
/// sources, outermost first.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
