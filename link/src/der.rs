//! The two facts of a certificate that webpki checks but does not show: its
//! validity period and the whole list of alternative names.
//!
//! Only certificates that webpki has already parsed come here, and both read the
//! same bytes; this reader is strict anyway and knows no form that DER forbids. A
//! full X.509 parser would be a dependency larger than the rest of the verifier.

use model::Timestamp;
use rustls_pki_types::CertificateDer;

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// `[6] uniformResourceIdentifier` in a list of general names.
const URI_NAME: u8 = 0x86;
/// 2.5.29.17, subjectAltName.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// What the certificate says beside what webpki shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// The URI when it is the only alternative name.
    pub(crate) sole_uri: Option<String>,
}

/// The bytes are not the DER expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed DER")]
pub(crate) struct Malformed;

/// Reads `certificate`.
pub(crate) fn contents(certificate: &CertificateDer<'_>) -> Result<Contents, Malformed> {
    let mut outer = Reader(certificate.as_ref());
    let mut tbs = Reader(Reader(outer.expect(SEQUENCE)?).expect(SEQUENCE)?);
    outer.end()?;
    tbs.expect(VERSION)?;
    tbs.expect(INTEGER)?; // serial number
    tbs.expect(SEQUENCE)?; // signature algorithm
    tbs.expect(SEQUENCE)?; // issuer
    let mut validity = Reader(tbs.expect(SEQUENCE)?);
    let not_before = validity.time()?;
    let not_after = validity.time()?;
    validity.end()?;
    tbs.expect(SEQUENCE)?; // subject
    tbs.expect(SEQUENCE)?; // public key

    let mut sole_uri = None;
    if !tbs.0.is_empty() {
        let mut extensions = Reader(Reader(tbs.expect(EXTENSIONS)?).expect(SEQUENCE)?);
        tbs.end()?;
        while !extensions.0.is_empty() {
            let mut extension = Reader(extensions.expect(SEQUENCE)?);
            if extension.expect(OID)? == SUBJECT_ALT_NAME {
                sole_uri = only_uri(extension.last(OCTET_STRING)?)?;
            }
        }
    }
    Ok(Contents {
        not_before,
        not_after,
        sole_uri,
    })
}

fn only_uri(alternative_names: &[u8]) -> Result<Option<String>, Malformed> {
    let mut list = Reader(alternative_names);
    let mut names = Reader(list.expect(SEQUENCE)?);
    list.end()?;
    let (tag, value) = names.any()?;
    if tag != URI_NAME || !names.0.is_empty() {
        return Ok(None);
    }
    Ok(std::str::from_utf8(value).ok().map(str::to_owned))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn expect(&mut self, wanted: u8) -> Result<&'a [u8], Malformed> {
        let (tag, value) = self.any()?;
        if tag == wanted {
            Ok(value)
        } else {
            Err(Malformed)
        }
    }

    /// The last element, over any that stand before it.
    fn last(&mut self, wanted: u8) -> Result<&'a [u8], Malformed> {
        loop {
            let (tag, value) = self.any()?;
            if self.0.is_empty() {
                return if tag == wanted {
                    Ok(value)
                } else {
                    Err(Malformed)
                };
            }
        }
    }

    fn any(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        let (&[tag, first], rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81 | 0x82 => {
                let (digits, rest) = rest
                    .split_at_checked(usize::from(first - 0x80))
                    .ok_or(Malformed)?;
                let length = digits
                    .iter()
                    .fold(0, |sum, &digit| sum << 8 | usize::from(digit));
                // DER wants the shortest form.
                if length < 0x80 || (first == 0x82 && length < 0x100) {
                    return Err(Malformed);
                }
                (length, rest)
            }
            // A certificate of 64 KiB or more, or the indefinite form.
            _ => return Err(Malformed),
        };
        let (value, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok((tag, value))
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    /// RFC 5280 section 4.1.2.5: whole seconds, `Z`, and two-digit years from 1950
    /// to 2049.
    fn time(&mut self) -> Result<Timestamp, Malformed> {
        let (tag, value) = self.any()?;
        let digits = value.strip_suffix(b"Z").ok_or(Malformed)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(Malformed);
        }
        let text = std::str::from_utf8(digits).map_err(|_| Malformed)?;
        let (year, rest) = match (tag, text.len()) {
            (UTC_TIME, 12) => {
                let (year, rest) = text.split_at(2);
                (
                    format!("{}{year}", if year < "50" { "20" } else { "19" }),
                    rest,
                )
            }
            (GENERALIZED_TIME, 14) => {
                let (year, rest) = text.split_at(4);
                (year.to_owned(), rest)
            }
            _ => return Err(Malformed),
        };
        let field = |at: usize| &rest[at..at + 2];
        format!(
            "{year}-{}-{}T{}:{}:{}Z",
            field(0),
            field(2),
            field(4),
            field(6),
            field(8)
        )
        .parse()
        .map_err(|_| Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_in_both_forms() {
        let read = |tag: u8, text: &str| {
            let mut bytes = vec![tag, u8::try_from(text.len()).unwrap()];
            bytes.extend_from_slice(text.as_bytes());
            Reader(&bytes).time().map(|at| at.to_string())
        };
        assert_eq!(
            read(UTC_TIME, "491231235959Z").unwrap(),
            "2049-12-31T23:59:59.000Z"
        );
        assert_eq!(
            read(UTC_TIME, "500101000000Z").unwrap(),
            "1950-01-01T00:00:00.000Z"
        );
        assert_eq!(
            read(GENERALIZED_TIME, "20500101000000Z").unwrap(),
            "2050-01-01T00:00:00.000Z"
        );
        for (tag, text) in [
            (UTC_TIME, "4912312359Z"),
            (UTC_TIME, "491231235959+0000"),
            (UTC_TIME, "491331235959Z"),
            (GENERALIZED_TIME, "20500101000000.5Z"),
            (GENERALIZED_TIME, "20500101000000"),
            (INTEGER, "491231235959Z"),
        ] {
            assert_eq!(read(tag, text), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn lengths_must_be_shortest() {
        for bad in [
            &[4, 0x81, 1, 0][..],
            &[4, 0x82, 0, 0x80],
            &[4, 0x80, 0, 0],
            &[4, 5, 0],
            &[4],
        ] {
            assert!(Reader(bad).any().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = contents(&CertificateDer::from(bytes));
        }
    }
}
