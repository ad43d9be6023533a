use plugin_host::ports::{Secret, SecretValue};

use super::*;

fn credential(secret: &str, placement: Placement) -> Credential {
    Credential {
        secret: Secret {
            name: "key".parse().expect("a name"),
            version: 1,
            value: SecretValue::new(secret.as_bytes().to_vec()),
        },
        placement,
    }
}

fn placed(
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
    credentials: &[Credential],
) -> Result<Placed, String> {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let target = Target::parse(url).expect(url);
    let headers = head::headers(&headers).expect("headers");
    place(&target, headers, body.into(), credentials).map_err(|error| {
        assert_eq!(error.code, code::PLACEMENT_INVALID);
        error.message
    })
}

/// One credential, and what the request looks like: address, headers, body.
fn check(url: &str, headers: &[(&str, &str)], body: &str, one: Credential) -> String {
    match placed(url, headers, body, &[one]) {
        Err(_) => "refused".to_owned(),
        Ok(placed) => {
            let headers: Vec<_> = placed
                .headers
                .iter()
                .map(|(name, value)| {
                    format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
                })
                .collect();
            let body = String::from_utf8_lossy(&placed.body).into_owned();
            [placed.path_and_query.to_string(), headers.join(" | "), body]
                .join(" ")
                .trim()
                .to_owned()
        }
    }
}

#[test]
fn a_secret_goes_where_it_is_wanted() {
    let header = |name: &str, prefix: &str| Placement::Header {
        name: name.into(),
        prefix: prefix.into(),
    };
    let cookie = |name: &str| Placement::Cookie(name.into());
    let query = |name: &str| Placement::Query(name.into());
    let path = |marker: &str| Placement::Path(marker.into());
    let basic = |user: &str| Placement::BasicUser(user.into());
    let auth = &[("Authorization", "mine")][..];
    let cookies = &[("Cookie", "a=b")][..];
    for (url, headers, secret, placement, expected) in [
        (
            "https://a/x",
            &[][..],
            "S",
            Placement::Bearer,
            "/x authorization: Bearer S",
        ),
        ("https://a/x", auth, "S", Placement::Bearer, "refused"),
        ("https://a/x", &[], "S\n", Placement::Bearer, "refused"),
        (
            "https://a/x",
            &[],
            "S\r\nHost: b",
            Placement::Bearer,
            "refused",
        ),
        (
            "https://a/",
            &[],
            "S",
            basic("u"),
            "/ authorization: Basic dTpT",
        ),
        ("https://a/", &[], "S", basic("u:v"), "refused"),
        (
            "https://a/",
            &[],
            "S",
            header("X-Key", "T="),
            "/ x-key: T=S",
        ),
        (
            "https://a/",
            cookies,
            "S",
            cookie("c"),
            "/ cookie: a=b; c=S",
        ),
        ("https://a/", &[], "S;x=y", cookie("c"), "refused"),
        ("https://a/", &[], "S", cookie("c=d;e"), "refused"),
        (
            "https://a/x?y=1",
            &[],
            "S&=/ ",
            query("k"),
            "/x?y=1&k=S%26%3D%2F%20",
        ),
        ("https://a/x", &[], "S", query("k"), "/x?k=S"),
        ("https://a/x?k=1", &[], "S", query("k"), "refused"),
        (
            "https://a/x/MARK/y",
            &[],
            "T0/B0?#%",
            path("MARK"),
            "/x/T0/B0%3F%23%25/y",
        ),
        ("https://a/x", &[], "S", path("MARK"), "refused"),
        ("https://a/MARK/MARK", &[], "S", path("MARK"), "refused"),
        ("https://a/x?MARK", &[], "S", path("MARK"), "refused"),
        ("https://a/x", &[], "S", path(""), "refused"),
        ("https://a/x", &[], "@evil/", path("/x"), "/@evil/"),
    ] {
        let found = check(url, headers, "", credential(secret, placement.clone()));
        assert_eq!(found, expected, "{url} {placement:?}");
    }
    let pointer = Placement::JsonPointer("/a/0".into());
    assert_eq!(
        check(
            "https://a/",
            &[],
            r#"{"a":["x"]}"#,
            credential("S\"", pointer)
        ),
        r#"/  {"a":["S\""]}"#
    );
}

#[test]
fn no_secret_is_taken_for_a_marker() {
    let both = [
        credential("TWO", Placement::Path("ONE".into())),
        credential("S", Placement::Path("TWO".into())),
    ];
    let found = placed("https://a/ONE/TWO", &[], "", &both).map(|it| it.path_and_query.to_string());
    assert_eq!(found, Ok("/TWO/S".to_owned()));
    let overlapping = [
        credential("S", Placement::Path("AB".into())),
        credential("S", Placement::Path("BC".into())),
    ];
    assert!(placed("https://a/ABC", &[], "", &overlapping).is_err());
}

#[test]
fn an_error_does_not_say_the_secret() {
    let message = placed(
        "https://a/",
        &[],
        "",
        &[credential("geheim\n", Placement::Bearer)],
    )
    .err()
    .expect("refused");
    assert!(
        message.contains("the secret key") && !message.contains("geheim"),
        "{message}"
    );
}

#[test]
fn headers_with_secrets_are_marked() {
    let placed = placed("https://a/", &[], "", &[credential("S", Placement::Bearer)]).ok();
    let headers = placed.expect("placed").headers;
    assert!(
        headers
            .values()
            .all(hyper::header::HeaderValue::is_sensitive)
    );
}
