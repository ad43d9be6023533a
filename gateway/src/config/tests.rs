use super::*;
use std::collections::BTreeSet;

const REFERENCE: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../docs/configuration.md"
));

/// The reference's block as it stands, and with the keys that have no default set.
fn reference_block() -> (String, String) {
    let start = REFERENCE.find("```toml\n").expect("a toml block") + "```toml\n".len();
    let length = REFERENCE[start..].find("```").expect("its end");
    let block = &REFERENCE[start..start + length];
    let all = block.lines().map(|line| match line.strip_prefix("#: ") {
        Some(example) => format!("{example}\n"),
        None => format!("{line}\n"),
    });
    (block.to_owned(), all.collect())
}

fn keys(table: &toml::Table, under: &str, into: &mut BTreeSet<String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => keys(inner, &format!("{under}{key}."), into),
            _ => {
                into.insert(format!("{under}{key}"));
            }
        }
    }
}

fn load(text: &str) -> Result<Config, ConfigError> {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("gateway.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(Some(&path), Overrides::default())
}

#[test]
fn the_reference_shows_the_defaults() {
    let (block, _) = reference_block();
    assert_eq!(toml::from_str::<Config>(&block).unwrap(), Config::default());
    Config::default().check().unwrap();
}

#[test]
fn the_reference_shows_every_key() {
    let (_, all) = reference_block();
    let config: Config = toml::from_str(&all).unwrap();
    config.check().unwrap();
    let (mut written, mut known) = (BTreeSet::new(), BTreeSet::new());
    keys(&toml::from_str(&all).unwrap(), "", &mut written);
    // Every optional key is set, or it would be missing here too.
    let Config {
        public_url,
        https_certificate,
        https_key,
        insecure_http_listen,
        releases_dir,
        ..
    } = &config;
    assert!(public_url.is_some() && https_certificate.is_some() && https_key.is_some());
    assert!(insecure_http_listen.is_some() && releases_dir.is_some());
    let mut registries = config.plugins.registries.values();
    assert!(registries.all(|it| it.ca_file.is_some() && it.user.is_some()));
    keys(&toml::Table::try_from(&config).unwrap(), "", &mut known);
    assert_eq!(written, known);
}

#[test]
fn an_empty_file_and_none_are_the_same() {
    assert_eq!(
        load("").unwrap(),
        Config::load(None, Overrides::default()).unwrap()
    );
}

#[test]
fn flags_win_over_the_file() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("gateway.toml");
    std::fs::write(
        &path,
        "listen = '127.0.0.1:1'\nstate_dir = '/a'\n[log]\nfilter = 'debug'",
    )
    .unwrap();
    let overrides = Overrides {
        state_dir: Some("/b".into()),
        ..Overrides::default()
    };
    let config = Config::load(Some(&path), overrides).unwrap();
    assert_eq!(config.state_dir, Path::new("/b"));
    assert_eq!(config.listen, "127.0.0.1:1".parse().unwrap());
    assert_eq!(config.log.filter, "debug");
}

#[test]
fn slips_are_refused_with_their_key() {
    for (text, says) in [
        ("liste = '[::]:1'", "unknown field `liste`"),
        ("[limits]\nbody = 1", "unknown field `body`"),
        ("shutdown_drain = 10", "a duration in quotes"),
        ("shutdown_drain = '10'", "is not a duration"),
        ("shutdown_drain = '2h'", "key shutdown_drain"),
        (
            "insecure_http_listen = '0.0.0.0:80'",
            "key insecure_http_listen",
        ),
        ("insecure_http_listen = '192.0.2.1:80'", "in the clear"),
        ("https_certificate = '/c'", "needs https_key"),
        ("https_key = '/k'", "needs https_key"),
        ("public_url = 'http://x'", "is not a public URL"),
        ("trusted_proxies = ['10.0.0.1/8']", "bits beyond the prefix"),
        (
            "[agents]\nheartbeat = '30s'",
            "key agents.grace_after_start",
        ),
        ("[agents]\nheartbeat = '1ms'", "key agents.heartbeat"),
        (
            "[agent_tokens]\nlong_validity = '1h'",
            "key agent_tokens.long_validity",
        ),
        ("[mass_loss]\nfraction = 0.0", "key mass_loss.fraction"),
        ("[mass_loss]\nfraction = nan", "key mass_loss.fraction"),
        (
            "[mass_loss]\nminimum_hosts = 0",
            "key mass_loss.minimum_hosts",
        ),
        ("[limits]\nconnections = 0", "key limits.connections"),
        (
            "[limits]\nrequests_per_key_burst = 0",
            "key limits.requests_per_key_burst",
        ),
        (
            "[plugins.registries.'registry.example/team']",
            "is no registry",
        ),
        (
            "[plugins.registries.'registry.example']\nuser = 'a'",
            "user needs password_file",
        ),
        (
            "[plugins.registries.'127.0.0.1:5000']\nplain_http = true\nca_file = '/c'",
            "key plugins.registries: \"127.0.0.1:5000\"",
        ),
        ("[log]\nformat = 'xml'", "unknown variant `xml`"),
        ("state_dir = ''", "key state_dir"),
        ("x", "gateway.toml"),
    ] {
        let error = load(text).expect_err(text).to_string();
        assert!(error.contains(says), "{text} said: {error}");
    }
}

#[test]
fn loopback_http_is_accepted() {
    for address in ["127.0.0.1:8080", "[::1]:0", "[::ffff:127.0.0.1]:80"] {
        load(&format!("insecure_http_listen = '{address}'")).unwrap();
    }
}

#[test]
fn a_file_that_others_can_change_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("gateway.toml");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(
        Config::load(Some(&path), Overrides::default()),
        Err(ConfigError::Read(FileError::TooOpen { .. }))
    ));
}

#[test]
fn release_keys_are_read_inline_and_from_files() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("keys");
    let key = || release::SigningKey::generate().unwrap().public().clone();
    let (inline, first, second) = (key(), key(), key());
    std::fs::write(&path, format!("# ours\n{first}\n{second}\n")).unwrap();
    let mut config = Config {
        release_keys: vec![inline.to_string(), path.to_str().unwrap().to_owned()],
        ..Config::default()
    };
    assert_eq!(
        config.trusted_release_keys().unwrap(),
        [inline, first, second]
    );
    config.release_keys = vec!["loopback-release-1:damaged".to_owned()];
    let error = config.trusted_release_keys().unwrap_err().to_string();
    assert!(
        error.starts_with("configuration key release_keys: "),
        "{error}"
    );
}
