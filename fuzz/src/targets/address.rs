//! Where a gateway is: what agents dial, what the CLI calls, what a proxy is.

use cli::client::{BaseUrl, Pin};
use gateway::config::PublicUrl;
use link::dial::{Proxy, Target as Place};

use super::{is_harmless, reads_as_it_writes, text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "address",
    about: "addresses of gateways and proxies: read as they are written, safe in scripts",
    run,
    seeds,
    longest: 512,
};

fn run(input: &[u8]) {
    let Some(text) = text(input) else { return };
    reads_as_it_writes::<Place>(text);
    reads_as_it_writes::<PublicUrl>(text);
    if let Ok(url) = text.parse::<PublicUrl>() {
        // The installer's script carries it.
        let safe = |letter: char| letter.is_ascii_alphanumeric() || "-._:/[]".contains(letter);
        assert!(url.to_string().chars().all(safe), "{url}");
    }
    if let Ok(url) = text.parse::<BaseUrl>() {
        assert!(is_harmless(url.as_str()), "{:?}", url.as_str());
        assert_eq!(
            url.as_str().parse::<BaseUrl>().unwrap().as_str(),
            url.as_str()
        );
    }
    if let Ok(proxy) = Proxy::parse(text) {
        assert!(is_harmless(&proxy.target().to_string()));
        // Where it stands as a password and nowhere else.
        if text.contains(":hunter2@") && text.matches("hunter2").count() == 1 {
            assert!(!format!("{proxy:?}").contains("hunter2"));
        }
    }
    let _ = text.parse::<Pin>();
}

fn seeds() -> Vec<Vec<u8>> {
    texts(&[
        "gateway.example.com",
        "https://gateway.example.com:8443/",
        "https://[2001:db8::1]:8443",
        "2001:db8::1",
        "http://localhost:8080",
        "unix:///run/loopback/admin.sock",
        "http://me:hunter2@proxy.example.com:3128",
        "https://user@gateway",
        "gateway\r\nX-Header: 1",
        "https://gateway$(id)",
        "a:b:1",
        "gateway:65536",
        "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ])
}
