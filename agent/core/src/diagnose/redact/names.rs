//! Names that sound as if their value were secret.

/// Wherever they stand in a name, separators and case aside.
const WITHIN: [&str; 19] = [
    "PASSWORD",
    "PASSWORT",
    "PASSWD",
    "PASSPHRASE",
    "PASSCODE",
    "SECRET",
    "TOKEN",
    "APIKEY",
    "ACCESSKEY",
    "PRIVATE",
    "CREDENTIAL",
    "SIGNINGKEY",
    "ENCRYPTIONKEY",
    "SESSIONID",
    "SESSIONKEY",
    "COOKIE",
    "CONNECTIONSTRING",
    "BEARER",
    "REQUIREPASS",
];
/// A word of a name; `FOO_KEY` but not `KEY`, which is what half of all tables have.
const WORDS: [&str; 6] = ["PASS", "CREDS", "PSK", "DSN", "PAT", "OTP"];
const WORDS_OF_MORE: [&str; 3] = ["KEY", "PWD", "PW"];
/// Words that turn `KEY` after a blank into a name: `API key: ...`.
const BEFORE_KEY: [&str; 8] = [
    "API",
    "ACCESS",
    "SECRET",
    "PRIVATE",
    "ENCRYPTION",
    "SIGNING",
    "AUTH",
    "LICENSE",
];
/// Units are named after what they care for and hold nothing.
const UNITS: [&str; 11] = [
    ".service",
    ".socket",
    ".timer",
    ".mount",
    ".target",
    ".slice",
    ".scope",
    ".path",
    ".device",
    ".swap",
    ".automount",
];

/// Whether the value of something called `name` is to be masked.
pub fn is_secret(name: &str) -> bool {
    if UNITS.iter().any(|unit| name.ends_with(unit)) {
        return false;
    }
    let squashed: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_uppercase())
        .collect();
    if WITHIN.iter().any(|word| squashed.contains(word)) || sounds_like_auth(&squashed) {
        return true;
    }
    let words = words(name);
    words.iter().any(|word| {
        WORDS.contains(&word.as_str())
            || (words.len() > 1 && WORDS_OF_MORE.contains(&word.as_str()))
    })
}

/// Whether `word key` names a secret.
pub(super) fn is_secret_key(word: &str, name: &str) -> bool {
    name.eq_ignore_ascii_case("key") && BEFORE_KEY.iter().any(|it| word.eq_ignore_ascii_case(it))
}

/// Whether all that follows in a line belongs to the value.
pub(super) fn takes_line(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with("authorization") || name.ends_with("cookie")
}

/// Whether `name` is that of a file that holds the secret, and `value` its path.
pub(super) fn is_place(name: &str, value: &str) -> bool {
    let last = words(name).pop().unwrap_or_default();
    matches!(last.as_str(), "FILE" | "PATH" | "DIR") && value.starts_with('/')
}

/// `AUTH`, `OAUTH2`, `AUTHORIZATION`; not authors, authorities and the unauthorized.
fn sounds_like_auth(squashed: &str) -> bool {
    squashed.match_indices("AUTH").any(|(at, auth)| {
        let after = &squashed[at + auth.len()..];
        let author = after.starts_with("OR") && !after.starts_with("ORIZ");
        !author && !squashed[..at].ends_with("UN")
    })
}

/// The words of `snake_case`, `kebab-case`, `dotted.names` and `camelCase`, upper case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower = false;
    for letter in name.chars() {
        if !letter.is_ascii_alphanumeric() {
            words.push(String::new());
            lower = false;
            continue;
        }
        if lower && letter.is_ascii_uppercase() {
            words.push(String::new());
        }
        lower = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        if let Some(word) = words.last_mut() {
            word.push(letter.to_ascii_uppercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Programs with an option of one letter, or of an innocent name, that takes a secret.
const OPTIONS: [(&str, &str); 16] = [
    ("curl", "-u"),
    ("curl", "--user"),
    ("curl", "-U"),
    ("curl", "--proxy-user"),
    ("sshpass", "-p"),
    ("redis-cli", "-a"),
    ("mosquitto_pub", "-P"),
    ("mosquitto_sub", "-P"),
    ("smbclient", "-U"),
    ("ldapsearch", "-w"),
    ("ldapadd", "-w"),
    ("ldapmodify", "-w"),
    ("docker", "-p"),
    ("podman", "-p"),
    ("vncserver", "-passwd"),
    ("openssl", "-K"),
];
/// Programs with an option of one letter that a secret follows in the same word.
const GLUED: [(&str, &str); 6] = [
    ("mysql", "-p"),
    ("mariadb", "-p"),
    ("sshpass", "-p"),
    ("7z", "-p"),
    ("curl", "-u"),
    ("rar", "-hp"),
];

/// Whether the argument after `option` of `program` is a secret.
pub(super) fn takes_secret(program: &str, option: &str) -> bool {
    let by_name = option.starts_with('-') && !option.contains('=') && is_secret(option);
    by_name
        || OPTIONS
            .iter()
            .any(|(known, its)| known == &program && its == &option)
}

/// What of `arg` may be shown, if the rest of it is a secret: `--token=`, `-p`.
pub(super) fn holds_secret<'a>(program: &str, arg: &'a str) -> Option<&'a str> {
    if let Some((name, value)) = arg.split_once('=') {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
        if name.chars().all(plain) && is_secret(name) && !is_place(name, value) {
            return arg.get(..name.len() + 1);
        }
    }
    let known = GLUED
        .iter()
        .find(|(known, its)| program.starts_with(known) && arg.starts_with(its))?;
    (arg.len() > known.1.len()).then_some(known.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_sound_secret_are_told_from_those_that_do_not() {
        for secret in [
            "DB_PASSWORD",
            "token",
            "apiKey",
            "X-Api-Key",
            "aws.secretAccessKey",
            "AUTH",
            "oauth2",
            "Authorization",
            "unauthorized_token",
            "MYSQL_PWD",
            "db.pass",
            "PGPASSWORD",
            "ENCRYPTION_KEY",
            "Set-Cookie",
            "creds",
        ] {
            assert!(is_secret(secret), "{secret}");
        }
        for plain in [
            "PWD",
            "key",
            "author",
            "authority",
            "unauthorized",
            "compass",
            "monkey",
            "user",
            "passed",
            "auth-rpcgss-module.service",
            "systemd-creds.socket",
        ] {
            assert!(!is_secret(plain), "{plain}");
        }
    }
}
