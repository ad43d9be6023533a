//! Whether a shell accepts a script, asked of a shell: `sh -n` reads all and runs nothing.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// A quarter of a megabyte takes milliseconds.
const WITHIN: Duration = Duration::from_secs(5);

/// Says what is wrong.
pub(super) async fn accepts(script: &str) -> Result<(), String> {
    let asked = async {
        let mut child = Command::new("/bin/sh")
            .arg("-n")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = child.stdin.take().expect("it is piped");
        let text = script.as_bytes().to_vec();
        let feed = async move {
            // A shell that stops reading has found something, which it says.
            let _ = stdin.write_all(&text).await;
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), feed);
        output
    };
    let output = match tokio::time::timeout(WITHIN, asked).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("cannot ask /bin/sh: {error}")),
        Err(_) => return Err("/bin/sh -n did not come to an end".to_owned()),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(model::names::clean(said.trim(), 256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shell_accepts_what_it_can_read() {
        assert_eq!(
            accepts("#!/bin/sh\nmain() { echo hi; }\nmain\n").await,
            Ok(())
        );
        let found = accepts("#!/bin/sh\nif true; then\n").await;
        assert!(found.is_err_and(|why| why.contains("yntax")));
        // Larger than a pipe, and nothing of it runs.
        let large = format!("#!/bin/sh\nexit 3\n{}", "# filler\n".repeat(20_000));
        assert_eq!(accepts(&large).await, Ok(()));
    }
}
