//! `loopback-agent`: see the library for everything.

use std::io::Write;
use std::process::ExitCode;

use agent::{commands, token};

fn main() -> ExitCode {
    let token = take_token();
    let output = commands::dispatch(std::env::args_os().skip(1), token);
    // Whoever closed the pipe does not want to know.
    let _ = std::io::stdout().write_all(output.said.as_bytes());
    let _ = std::io::stderr().write_all(output.complained.as_bytes());
    ExitCode::from(output.code)
}

/// The token in the environment, taken out of it at once: nothing that this process
/// starts or prints can pass it on. (The kernel's copy in `/proc/PID/environ` stays
/// readable for this user; a file that is deleted after use is the better way.)
fn take_token() -> Option<String> {
    let token = std::env::var(token::VARIABLE).ok();
    #[expect(
        unsafe_code,
        reason = "the only thread there is changes the environment"
    )]
    // SAFETY: this is the first line of main; no other thread exists that could read
    // the environment meanwhile.
    unsafe {
        std::env::remove_var(token::VARIABLE);
    }
    token
}
