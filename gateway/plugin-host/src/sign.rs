//! Signatures: HMAC, and AWS Signature Version 4 from its public description. Pure.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;
use ring::{digest, hmac};

use crate::ports::{ErrorKind, GuestError};

/// Hash functions for HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

/// The HMAC (RFC 2104) of some data.
pub(crate) fn hmac(hash: Hash, key: &[u8], data: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha256 => hmac::HMAC_SHA256,
        Hash::Sha384 => hmac::HMAC_SHA384,
        Hash::Sha512 => hmac::HMAC_SHA512,
    };
    hmac::sign(&hmac::Key::new(algorithm, key), data)
        .as_ref()
        .to_vec()
}

/// What an AWS signature covers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AwsRequest<'a> {
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
    pub(crate) method: &'a str,
    pub(crate) url: &'a str,
    pub(crate) headers: &'a [(String, String)],
    pub(crate) body_sha256: &'a str,
}

/// With what it is made.
#[derive(Clone, Copy)]
pub(crate) struct AwsKeys<'a> {
    pub(crate) id: &'a str,
    pub(crate) key: &'a [u8],
    pub(crate) session_token: Option<&'a str>,
}

/// Headers to add. `time` is as in `20150830T123600Z`.
pub(crate) fn aws_sigv4(
    keys: AwsKeys<'_>,
    request: &AwsRequest<'_>,
    time: &str,
) -> Result<Vec<(String, String)>, GuestError> {
    let invalid = |what: &str| GuestError::new(ErrorKind::Invalid, "sign.invalid", what);
    let url = Url::of(request.url).ok_or_else(|| invalid("the URL is not absolute"))?;
    let date = time.get(..8).ok_or_else(|| invalid("not a time"))?;

    let mut headers: Vec<(String, String)> = request
        .headers
        .iter()
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), one_space(value)))
        .filter(|(name, _)| !matches!(name.as_str(), "host" | "x-amz-date" | "authorization"))
        .collect();
    headers.push(("host".into(), url.authority.to_owned()));
    headers.push(("x-amz-date".into(), time.to_owned()));
    if let Some(token) = keys.session_token {
        headers.retain(|(name, _)| name != "x-amz-security-token");
        headers.push(("x-amz-security-token".into(), token.to_owned()));
    }
    // Stable: values of a name that comes twice keep their order.
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    let mut lines: Vec<(String, String)> = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        match lines.last_mut() {
            Some(last) if last.0 == name => {
                last.1.push(',');
                last.1.push_str(&value);
            }
            Some(_) | None => lines.push((name, value)),
        }
    }
    let signed: Vec<&str> = lines.iter().map(|(name, _)| name.as_str()).collect();
    let signed = signed.join(";");

    let mut canonical = format!(
        "{}\n{}\n{}\n",
        request.method,
        canonical_path(url.path, request.service),
        canonical_query(url.query)
    );
    for (name, value) in &lines {
        let _ = writeln!(canonical, "{name}:{value}");
    }
    let _ = write!(canonical, "\n{signed}\n{}", request.body_sha256);

    let scope = format!("{date}/{}/{}/aws4_request", request.region, request.service);
    let digest = digest::digest(&digest::SHA256, canonical.as_bytes());
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
        HEXLOWER.encode(digest.as_ref())
    );
    let mut key = zeroize::Zeroizing::new([b"AWS4", keys.key].concat());
    for part in [date, request.region, request.service, "aws4_request"] {
        key = zeroize::Zeroizing::new(hmac(Hash::Sha256, &key, part.as_bytes()));
    }
    let signature = HEXLOWER.encode(&hmac(Hash::Sha256, &key, to_sign.as_bytes()));

    let mut added = vec![
        (
            "authorization".to_owned(),
            format!(
                "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}",
                keys.id
            ),
        ),
        ("x-amz-date".to_owned(), time.to_owned()),
    ];
    if let Some(token) = keys.session_token {
        added.push(("x-amz-security-token".to_owned(), token.to_owned()));
    }
    Ok(added)
}

/// A time as it stands in `x-amz-date`.
pub(crate) fn aws_time(now_ms: u64) -> String {
    let millis = i64::try_from(now_ms).unwrap_or(i64::MAX);
    // `2015-08-30T12:36:00.000Z`
    let text = model::Timestamp::from_millis(millis).to_string();
    let whole = text.split('.').next().unwrap_or_default();
    let mut time: String = whole
        .chars()
        .filter(|letter| !matches!(letter, '-' | ':'))
        .collect();
    if !time.ends_with('Z') {
        time.push('Z');
    }
    time
}

struct Url<'a> {
    authority: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Url<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let default = match scheme {
            "https" => ":443",
            "http" => ":80",
            _ => return None,
        };
        let rest = rest.split('#').next().unwrap_or(rest);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = authority.strip_suffix(default).unwrap_or(authority);
        (!authority.is_empty() && !authority.contains('@')).then_some(Self {
            authority,
            path: if path.is_empty() { "/" } else { path },
            query,
        })
    }
}

/// The path as it is sent, and for every service but S3 encoded once more.
fn canonical_path(path: &str, service: &str) -> String {
    if service == "s3" {
        return path.to_owned();
    }
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        encode(&mut text, byte, b"/");
    }
    text
}

fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (again(name), again(value))
        })
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

/// Decoded and encoded, so that each byte has its one form.
fn again(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| {
        bytes
            .get(at)
            .and_then(|byte| char::from(*byte).to_digit(16))
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                encode(&mut out, high << 4 | low, b"");
                at += 3;
            }
            _ => {
                encode(&mut out, byte, b"");
                at += 1;
            }
        }
    }
    out
}

fn encode(text: &mut String, byte: u8, also: &[u8]) {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.contains(&byte) {
        text.push(char::from(byte));
    } else {
        let _ = write!(text, "%{byte:02X}");
    }
}

fn one_space(value: &str) -> String {
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const KEY: &[u8] = b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    fn authorization(service: &str, url: &str, headers: &[(&str, &str)]) -> String {
        let headers: Vec<(String, String)> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let keys = AwsKeys {
            id: "AKIDEXAMPLE",
            key: KEY,
            session_token: None,
        };
        let request = AwsRequest {
            region: "us-east-1",
            service,
            method: "GET",
            url,
            headers: &headers,
            body_sha256: EMPTY,
        };
        let added = aws_sigv4(keys, &request, "20150830T123600Z").expect("signs");
        assert_eq!(added[1].1, "20150830T123600Z");
        added[0].1.clone()
    }

    /// The worked example of the public description: IAM, ListUsers.
    #[test]
    fn the_documented_example_comes_out() {
        assert_eq!(
            authorization(
                "iam",
                "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08",
                &[(
                    "Content-Type",
                    "application/x-www-form-urlencoded; charset=utf-8"
                )],
            ),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    /// Cases of the published test suite for GET, by their known signatures.
    #[test]
    fn the_published_cases_come_out() {
        let signature = |url: &str, headers: &[(&str, &str)]| {
            let text = authorization("service", url, headers);
            text.rsplit('=').next().unwrap_or_default().to_owned()
        };
        assert_eq!(
            signature("https://example.amazonaws.com/", &[]),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            "get-vanilla"
        );
        assert_eq!(
            signature(
                "https://example.amazonaws.com/?Param2=value2&Param1=value1",
                &[]
            ),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            "get-vanilla-query-order-key-case"
        );
        assert_eq!(
            signature(
                "https://example.amazonaws.com/",
                &[("My-Header1", " value1"), ("My-Header2", " \"a   b   c\""),]
            ),
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            "get-header-value-trim"
        );
    }

    /// RFC 4231, case 2, and RFC 2202, case 2.
    #[test]
    fn hmac_of_the_documented_cases() {
        let of = |hash| HEXLOWER.encode(&hmac(hash, b"Jefe", b"what do ya want for nothing?"));
        assert_eq!(of(Hash::Sha1), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
        assert_eq!(
            of(Hash::Sha256),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            of(Hash::Sha384),
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"
        );
        assert_eq!(
            of(Hash::Sha512),
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
        );
    }

    #[test]
    fn the_time_has_its_form() {
        assert_eq!(aws_time(1_440_938_160_000), "20150830T123600Z");
    }

    #[test]
    fn a_url_that_is_none_is_refused() {
        for url in [
            "",
            "iam.amazonaws.com",
            "ftp://x/",
            "https:///x",
            "https://u@h/",
        ] {
            assert!(Url::of(url).is_none(), "{url}");
        }
        assert_eq!(
            Url::of("https://h:443?a").map(|url| url.authority),
            Some("h")
        );
    }
}
