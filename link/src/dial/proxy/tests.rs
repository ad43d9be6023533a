use super::*;

use proptest::prelude::*;

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn rules(no_proxy: &str) -> ProxyRules {
    ProxyRules::new(Proxy::parse("http://proxy:3128").unwrap(), no_proxy)
}

fn from_env(variables: &[(&str, &str)]) -> Result<ProxyRules, ProxyError> {
    ProxyRules::from_env(|wanted| {
        variables
            .iter()
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| (*value).to_owned())
    })
}

fn chosen(variables: &[(&str, &str)]) -> Option<String> {
    let rules = from_env(variables).unwrap();
    rules
        .for_target(&target("gateway.example.com"))
        .map(|proxy| proxy.target().to_string())
}

#[test]
fn urls_are_read() {
    for (url, place, credentials) in [
        (
            "http://proxy.example.com:3128",
            "proxy.example.com:3128",
            None,
        ),
        ("proxy.example.com:3128/", "proxy.example.com:3128", None),
        ("HTTP://proxy", "proxy:1080", None),
        ("http://[2001:db8::1]:8080", "[2001:db8::1]:8080", None),
        ("http://me:p%40ss@proxy:1", "proxy:1", Some("me:p@ss")),
        ("http://me:p@ss@proxy:1", "proxy:1", Some("me:p@ss")),
    ] {
        let proxy = Proxy::parse(url).unwrap();
        assert_eq!(proxy.target().to_string(), place, "{url}");
        assert_eq!(
            proxy.credentials.as_ref().map(|text| text.as_str()),
            credentials,
            "{url}"
        );
    }
    assert_eq!(
        Proxy::parse("socks5://proxy:1080"),
        Err(ProxyError::Scheme("socks5".to_owned()))
    );
    for bad in [
        "",
        "http://",
        "http://proxy:x",
        "http://a b:1",
        "http://me:%4@proxy",
        "http://%ff@p",
    ] {
        assert_eq!(Proxy::parse(bad), Err(ProxyError::Url), "{bad}");
    }
}

#[test]
fn a_password_is_in_no_debug_output() {
    let proxy = Proxy::parse("http://me:hunter2@proxy:3128").unwrap();
    assert!(!format!("{proxy:?}").contains("hunter2"));
    let error = from_env(&[("HTTPS_PROXY", "http://me:hunter2@pro xy")]).unwrap_err();
    assert!(!format!("{error:?} {error}").contains("hunter2"));
}

#[test]
fn variables_are_asked_in_order() {
    assert_eq!(chosen(&[]), None);
    assert_eq!(chosen(&[("HTTPS_PROXY", " ")]), None);
    let all = [
        ("http_proxy", "three:3"),
        ("ALL_PROXY", "two:2"),
        ("https_proxy", "one:1"),
    ];
    assert_eq!(chosen(&all).unwrap(), "one:1");
    assert_eq!(chosen(&all[..2]).unwrap(), "two:2");
    assert_eq!(chosen(&all[..1]).unwrap(), "three:3");
    assert_eq!(chosen(&[all[0], ("no_proxy", "example.com")]), None);
}

#[test]
fn exceptions_cover_what_they_name() {
    for (no_proxy, who, spared) in [
        ("*", "gateway.example.com", true),
        ("example.com", "gateway.example.com", true),
        (".example.com", "gateway.example.com", true),
        ("*.example.com", "gateway.example.com", true),
        ("example.com", "example.com", true),
        ("Example.COM", "example.com", true),
        ("example.com", "notexample.com", false),
        ("gateway.example.com:443", "gateway.example.com", true),
        ("gateway.example.com:8443", "gateway.example.com", false),
        ("other, ,example.com", "gateway.example.com", true),
        ("10.0.0.0/8", "10.1.2.3", true),
        ("10.0.0.0/8", "11.1.2.3", false),
        ("10.1.2.3", "10.1.2.3", true),
        ("0.0.0.0/0", "10.1.2.3", true),
        ("::/0", "2001:db8::1", true),
        ("::/0", "10.1.2.3", false),
        ("2001:db8::/32", "[2001:db8::1]:8443", true),
        ("[2001:db8::1]", "2001:db8::1", true),
        ("10.0.0.0/8", "ten.example.com", false),
        (".", "gateway.example.com", false),
        ("", "gateway.example.com", false),
    ] {
        let used = rules(no_proxy).for_target(&target(who)).is_some();
        assert_eq!(!used, spared, "{no_proxy} for {who}");
    }
}

async fn answer(url: &str, answer: &str) -> (String, Result<(), Reason>) {
    let (mut here, mut there) = tokio::io::duplex(64 << 10);
    there.write_all(answer.as_bytes()).await.unwrap();
    let proxy = Proxy::parse(url).unwrap();
    let result = connect(&mut here, &proxy, &target("gateway.example.com")).await;
    drop(here);
    let mut request = String::new();
    there.read_to_string(&mut request).await.unwrap();
    (request, result)
}

#[tokio::test]
async fn a_connect_asks_for_the_target_and_offers_the_password() {
    let (request, result) = answer("http://me:pw@proxy", "HTTP/1.1 200 OK\r\nVia: x\r\n\r\n").await;
    result.unwrap();
    assert_eq!(
        request,
        "CONNECT gateway.example.com:443 HTTP/1.1\r\nHost: gateway.example.com:443\r\n\
         User-Agent: loopback-agent\r\nProxy-Authorization: Basic bWU6cHc=\r\n\r\n"
    );
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let refusal = |url, text| async move { answer(url, text).await.1.unwrap_err() };
    let denied = "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
    assert!(matches!(
        refusal("proxy", denied).await,
        Reason::ProxyAuthMissing
    ));
    assert!(matches!(
        refusal("me:pw@proxy", denied).await,
        Reason::ProxyAuthRefused
    ));
    let refused = refusal("proxy", "HTTP/1.0 502 Bad \u{1b}[2JGateway\r\n\r\n<html>").await;
    assert!(
        matches!(&refused, Reason::ProxyRefused(line) if line == "502 Bad [2JGateway"),
        "{refused}"
    );
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_ANSWER));
    for garbage in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        &endless,
    ] {
        let reason = refusal("proxy", garbage).await;
        assert!(matches!(reason, Reason::NotHttp), "{reason}");
    }
}

proptest! {
    #[test]
    fn any_url_and_exception_is_read_or_refused(url: String, no_proxy: String) {
        if let Ok(proxy) = Proxy::parse(&url) {
            let _ = ProxyRules::new(proxy, &no_proxy).for_target(&target("10.0.0.1"));
        }
    }
}
