use super::*;
use proptest::prelude::*;

/// Looks like nothing in particular: only its surroundings tell what it is.
const CANARY: &str = "Xk7vQ2mPz9RtWb4L";

fn pieces(text: &str, cuts: &[usize]) -> String {
    let bytes = text.as_bytes();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let mut redactor = Redactor::default();
    let mut shown = Vec::new();
    for pair in cuts.windows(2) {
        redactor.feed(&bytes[pair[0]..pair[1]], &mut shown);
    }
    redactor.finish(&mut shown);
    String::from_utf8(shown).unwrap()
}

/// Every shape in which a value may stand, `@` for the value.
const SHAPES: &[&str] = &[
    "API_TOKEN=@",
    "export DB_PASSWORD=@ && run",
    "Nov 27 09:00:00 web app[12]: connecting with password=@ to db",
    "--password @",
    "--password=@",
    "-password '@'",
    "--auth-token \"@\" --verbose",
    "\"password\": \"@\"",
    "{\"user\":\"a\",\"api_key\":\"@\",\"n\":1}",
    "{\\\"secret\\\":\\\"@\\\"}",
    "'token' => '@'",
    "config[\"secret_key\"] = \"@\"",
    "password: @",
    "password: one two @ three",
    "passphrase:@",
    "API key: @",
    "client_secret : `@`",
    "Authorization: Basic @",
    "authorization: Digest a, response=\"@\"",
    "Cookie: a=b; session=@; c=d",
    "curl -H 'Authorization: Bearer @' https://x",
    "sent Bearer @ to it",
    "postgres://app:@@db.example/shop",
    "https://user:pa/ss@@host/x",
    "https://@@github.com/x/y.git",
    "GET /callback?access_token=@&state=1 HTTP/1.1",
    "Environment=\"SECRET=a @\" \"B=c\"",
    "\u{1b}[32mtoken\u{1b}[0m=@",
    "tok\u{0}en=@",
    "token @",
    "aws_secret_access_key = @",
    "-----BEGIN PRIVATE KEY-----\n@\nAAAA\n-----END PRIVATE KEY-----",
    "a[1]: -----BEGIN RSA PRIVATE KEY-----\nb[2]: not of it\na[1]: @\na[1]: -----END RSA PRIVATE KEY-----",
    "key=-----BEGIN EC PRIVATE KEY-----\\n@\\n-----END EC PRIVATE KEY-----",
    "password:\n  @",
    "eyJhbGciOiJIUzI1NiJ9.@.@",
    "lbt_0123456789abcdefghjkmnpqrs_@",
    "root:$6$salt$@:19000:0",
    "credentials: [\"@\", \"@\"]",
];

#[test]
fn values_of_secret_names_are_masked_and_the_rest_stays() {
    for (written, expected) in [
        (
            "PATH=/bin API_TOKEN=abc HOME=/root",
            "PATH=/bin API_TOKEN=*** HOME=/root",
        ),
        (
            "run --password hunter2 --user me",
            "run --password *** --user me",
        ),
        (
            "{\"password\": \"a\\\"b\", \"n\": 1}",
            "{\"password\": \"***\", \"n\": 1}",
        ),
        ("{\"tokens\": 5, \"n\": 1}", "{\"tokens\": ***, \"n\": 1}"),
        ("password: correct horse", "password: ***"),
        (
            "http://u:p@h/x and ssh://git@h/y",
            "http://u:***@h/x and ssh://git@h/y",
        ),
        (
            "Failed password for root from 10.0.0.1",
            "Failed password for root from 10.0.0.1",
        ),
        (
            "auth-rpcgss.service: Failed with result",
            "auth-rpcgss.service: Failed with result",
        ),
        ("TOKEN_FILE=/etc/x/token", "TOKEN_FILE=/etc/x/token"),
        ("--password --verbose", "--password --verbose"),
        (
            "author: somebody, monkey=banana",
            "author: somebody, monkey=banana",
        ),
        ("disk full at 99%\r", "disk full at 99%"),
        (
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        ),
        (
            "a: -----BEGIN PRIVATE KEY-----\na: MIIB\nb: fine\na: -----END PRIVATE KEY-----\na: next",
            "a: -----BEGIN PRIVATE KEY-----\na: ***\nb: ***\n*** -----END PRIVATE KEY-----\na: next",
        ),
    ] {
        assert_eq!(text(written), expected, "{written}");
        assert_eq!(text(&text(written)), expected, "again: {written}");
    }
}

#[test]
fn arguments_are_looked_at_one_by_one() {
    let shown = |argv: &[&str]| args(argv.iter().map(|it| it.as_bytes()));
    for (argv, expected) in [
        (
            &["app", "--password", "a b c", "--user", "me"][..],
            &["app", "--password", "***", "--user", "me"][..],
        ),
        (&["app", "--token=x y"], &["app", "--token=***"]),
        (
            &["/usr/bin/mysql", "-uroot", "-phunter2", "-p"],
            &["/usr/bin/mysql", "-uroot", "-p***", "-p"],
        ),
        (
            &["curl", "-u", "me:pw", "https://h"],
            &["curl", "-u", "***", "https://h"],
        ),
        (
            &["sh", "-c", "X_SECRET=1 run; echo"],
            &["sh", "-c", "X_SECRET=*** run; echo"],
        ),
        (
            &["app", "--auth", "--verbose"],
            &["app", "--auth", "--verbose"],
        ),
    ] {
        assert_eq!(shown(argv), expected);
    }
    let many = vec!["x".repeat(100); 1000];
    let shown: Vec<String> = args(many.iter().map(|it| it.as_bytes()));
    assert_eq!(shown.last().unwrap(), "[more]");
    assert!(shown.iter().map(String::len).sum::<usize>() <= MAX_ARGS_BYTES + 6);
}

#[test]
fn a_line_that_is_too_long_loses_its_end_at_a_blank() {
    let long = format!(
        "{} https://user:{CANARY}{}",
        "a".repeat(MAX_LINE - 30),
        "b".repeat(99)
    );
    let shown = text(&long);
    assert!(
        !shown.contains(&CANARY[..4]),
        "{}",
        &shown[shown.len() - 80..]
    );
    assert!(shown.ends_with(CUT));
    assert_eq!(text(&"x".repeat(2 * MAX_LINE)), CUT);
}

#[test]
fn a_key_without_end_hides_what_may_be_of_it_and_not_the_rest_of_the_day() {
    let mut lines = "-----BEGIN PRIVATE KEY-----\n".to_owned();
    for number in 0..1000 {
        lines.push_str(&format!("app[1]: line {number}\n"));
    }
    let shown = text(&lines);
    assert!(shown.contains("app[1]: line ***\n"));
    assert!(shown.ends_with("app[1]: line 999\n"));
}

proptest! {
    #[test]
    fn no_canary_survives_wherever_the_text_is_cut(
        shapes in proptest::collection::vec(0..SHAPES.len(), 1..5),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
        noise in "[ a-z\n:=\"{}]{0,30}",
    ) {
        let written: Vec<String> = shapes
            .iter()
            .map(|shape| SHAPES[*shape].replace("@@", &format!("{CANARY}\u{1}")).replace('@', CANARY).replace('\u{1}', "@"))
            .collect();
        let written = format!("{noise}\n{}\n{noise}", written.join("\n"));
        let shown = pieces(&written, &cuts);
        prop_assert!(!shown.contains(CANARY), "{}\n---\n{}", written, shown);
        prop_assert_eq!(shown, text(&written));
    }

    #[test]
    fn any_text_is_survived_and_nothing_is_left_that_drives_a_terminal(bytes: Vec<u8>, cuts in proptest::collection::vec(any::<usize>(), 0..6)) {
        let written = String::from_utf8_lossy(&bytes).into_owned();
        let shown = pieces(&written, &cuts);
        prop_assert_eq!(&shown, &text(&written));
        prop_assert!(shown.chars().all(|it| !it.is_control() || it == '\n' || it == '\t'));
        prop_assert_eq!(shown.matches('\n').count(), written.matches('\n').count());
    }
}
