//! Whether a script that a plugin wrote may go to hosts, which run it as root.
//!
//! What can be seen in the text is checked here; that a shell accepts it is checked where there is
//! one. The point is not to tell good from evil (an operator's own plugin writes what it likes) but
//! to keep accidents from every new host: an empty script, half of one, the script of another
//! gateway or release, one with a secret in it.

use model::ids::{AgentTokenId, ApiKeyId};
use model::token::Secret;

/// The largest script, in bytes, as the contract says.
pub const MAX_SCRIPT: usize = 256 << 10;

/// What is wrong with a script. Nothing of it is repeated: it may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadScript {
    /// Larger than hosts should have to fetch.
    #[error("the script has {0} bytes, and may have {MAX_SCRIPT}")]
    TooLarge(usize),
    /// Not for a POSIX shell.
    #[error("the script does not begin with `#!/bin/sh`")]
    NoShebang,
    /// Would end early in some shells, and shows as nothing in editors.
    #[error("the script contains a control character (line {0})")]
    Control(usize),
    /// Of another gateway, or of none.
    #[error("the script does not name this gateway's URL")]
    OtherGateway,
    /// Of another release.
    #[error(
        "the script has no line `# loopback-installer: VERSION CHANNEL` of the present release"
    )]
    OtherRelease,
    /// A script is public.
    #[error("the script contains an agent token or an API key (line {0})")]
    Secret(usize),
    /// A cut download must run nothing.
    #[error("the script does not end with a line break: a cut download could not be told")]
    NoEnd,
}

impl BadScript {
    /// A stable word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "script.too_large",
            Self::NoShebang => "script.no_shebang",
            Self::Control(_) => "script.control_character",
            Self::OtherGateway => "script.other_gateway",
            Self::OtherRelease => "script.other_release",
            Self::Secret(_) => "script.secret",
            Self::NoEnd => "script.no_end",
        }
    }
}

/// Checks a script against the gateway and release that it is for.
pub fn check(script: &str, base_url: &str, version: &str, channel: &str) -> Result<(), BadScript> {
    if script.len() > MAX_SCRIPT {
        return Err(BadScript::TooLarge(script.len()));
    }
    if !script.starts_with("#!/bin/sh\n") {
        return Err(BadScript::NoShebang);
    }
    if !script.ends_with('\n') {
        return Err(BadScript::NoEnd);
    }
    let marker = format!("# loopback-installer: {version} {channel}");
    let mut marked = false;
    for (number, line) in script.lines().enumerate() {
        let control = |letter: char| letter.is_control() && letter != '\t';
        if line.chars().any(control) {
            return Err(BadScript::Control(number + 1));
        }
        if has_secret(line) {
            return Err(BadScript::Secret(number + 1));
        }
        marked |= line == marker;
    }
    if !script.contains(base_url) {
        return Err(BadScript::OtherGateway);
    }
    if !marked {
        return Err(BadScript::OtherRelease);
    }
    Ok(())
}

fn has_secret(line: &str) -> bool {
    let in_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    line.split(|letter| !in_word(letter)).any(|word| {
        word.parse::<Secret<AgentTokenId>>().is_ok() || word.parse::<Secret<ApiKeyId>>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use model::Timestamp;

    use super::*;

    const URL: &str = "https://gateway.example.com";

    fn check_it(script: &str) -> Result<(), BadScript> {
        check(script, URL, "1.2.3", "stable")
    }

    fn good() -> String {
        format!("#!/bin/sh\n# loopback-installer: 1.2.3 stable\nmain() {{ echo {URL}; }}\nmain\n")
    }

    #[test]
    fn accidents_are_noticed() {
        assert_eq!(check_it(&good()), Ok(()));
        let secret = Secret::<AgentTokenId>::new(
            AgentTokenId::new(Timestamp::from_millis(1), [1; 10]),
            [7; 32],
        );
        let cases = [
            (String::new(), "script.no_shebang"),
            (good().trim_end().to_owned(), "script.no_end"),
            (good().replace("1.2.3", "1.2.2"), "script.other_release"),
            (good().replace("stable", "unstable"), "script.other_release"),
            (good().replace(URL, "https://other"), "script.other_gateway"),
            (good() + "printf '\u{1b}[2J'\n", "script.control_character"),
            (
                good() + &format!("T='{}'\n", secret.reveal()),
                "script.secret",
            ),
            (good() + &"#\n".repeat(MAX_SCRIPT), "script.too_large"),
        ];
        for (script, code) in cases {
            let found = check_it(&script).map_err(|why| why.code());
            assert_eq!(found, Err(code));
        }
    }

    #[test]
    fn what_comes_with_the_product_passes() {
        let golden = include_str!("../../../install-script/src/golden/install.sh");
        let url = golden
            .lines()
            .find_map(|line| line.trim().strip_prefix("LB_URL='")?.strip_suffix('\''))
            .expect("the script names its gateway");
        let found = check(golden, url, "1.2.3", "stable");
        assert!(
            matches!(found, Ok(()) | Err(BadScript::OtherRelease)),
            "{found:?}"
        );
    }
}
