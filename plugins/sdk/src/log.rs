//! Lines for the operator, in the plugin's log. In native tests they are kept for
//! `testing::log_lines`.

pub use crate::bindings::log::Level;

/// Writes a line with fields for programs.
pub fn write(level: Level, message: &str, fields: &[(&str, &str)]) {
    let fields: Vec<_> = fields
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    #[cfg(target_family = "wasm")]
    crate::bindings::log::write(level, message, &fields);
    #[cfg(not(target_family = "wasm"))]
    crate::testing::keep(level, message, &fields);
}

/// A decision, for whoever searches a cause.
pub fn debug(message: &str) {
    write(Level::Debug, message, &[]);
}

/// Something that an operator would call an event.
pub fn info(message: &str) {
    write(Level::Info, message, &[]);
}

/// Odd, and handled.
pub fn warn(message: &str) {
    write(Level::Warn, message, &[]);
}

/// Somebody must act.
pub fn error(message: &str) {
    write(Level::Error, message, &[]);
}
