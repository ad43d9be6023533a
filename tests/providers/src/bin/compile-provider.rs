//! Compiles one plugin: a process that bounds itself, reads a component and writes code.

use std::process::ExitCode;

fn main() -> ExitCode {
    plugin_host::compile_main(std::env::args_os().skip(1))
}
