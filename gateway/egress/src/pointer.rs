//! Replaces one string in a JSON text, and leaves every other byte as it was.
//!
//! Reading the text into a tree and writing it again would be simpler, and would change what was
//! not to be changed: large numbers, the order of keys, keys that come twice. Here a validated
//! text is walked along the pointer, and only the bytes of the string change. A key that comes
//! twice in an object on the way is refused, since receivers differ in which of the two they take.

use std::ops::Range;

use serde::de::IgnoredAny;

/// Why the string cannot be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidPointer {
    #[error("the body is not JSON")]
    NotJson,
    #[error("the JSON Pointer does not begin with `/` or contains `~` without 0 or 1")]
    Syntax,
    #[error("the JSON Pointer leads to nothing in the body")]
    Nothing,
    #[error("the JSON Pointer does not lead to a string")]
    NotAString,
    #[error("an object on the JSON Pointer's way has a key twice")]
    Ambiguous,
}

/// `json` with the string at `pointer` (RFC 6901) replaced.
pub(crate) fn replace(
    json: &[u8],
    pointer: &str,
    replacement: &str,
) -> Result<Vec<u8>, InvalidPointer> {
    let span = find(json, pointer)?;
    // Quoting a string cannot fail.
    let quoted = serde_json::to_string(replacement).map_err(|_| InvalidPointer::NotAString)?;
    let mut changed = Vec::with_capacity(json.len() + quoted.len());
    changed.extend_from_slice(&json[..span.start]);
    changed.extend_from_slice(quoted.as_bytes());
    changed.extend_from_slice(&json[span.end..]);
    Ok(changed)
}

fn find(json: &[u8], pointer: &str) -> Result<Range<usize>, InvalidPointer> {
    // From here on the text is known to be JSON: the walk needs to find ends, not faults.
    serde_json::from_slice::<IgnoredAny>(json).map_err(|_| InvalidPointer::NotJson)?;
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err(InvalidPointer::Syntax);
    }
    let mut walk = Walk { json, at: 0 };
    for token in pointer.split('/').skip(1) {
        let token = unescaped(token).ok_or(InvalidPointer::Syntax)?;
        walk.descend(&token)?;
    }
    walk.blanks();
    if walk.peek() != Some(b'"') {
        return Err(InvalidPointer::NotAString);
    }
    let start = walk.at;
    walk.string();
    Ok(start..walk.at)
}

fn unescaped(token: &str) -> Option<String> {
    let mut text = String::new();
    let mut chars = token.chars();
    while let Some(char) = chars.next() {
        match char {
            '~' => text.push(match chars.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            }),
            other => text.push(other),
        }
    }
    Some(text)
}

struct Walk<'a> {
    json: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    fn peek(&self) -> Option<u8> {
        self.json.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// From a string's first quote to behind its last.
    fn string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                return;
            }
        }
    }

    /// Over one value.
    fn value(&mut self) {
        self.blanks();
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.string();
                    if depth == 0 {
                        return;
                    }
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 0 => return,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        self.at += 1;
                        return;
                    }
                }
                b',' if depth == 0 => return,
                _ => {}
            }
            self.at += 1;
        }
    }

    /// To the beginning of the value that `token` names in the value here.
    fn descend(&mut self, token: &str) -> Result<(), InvalidPointer> {
        self.blanks();
        match self.peek() {
            Some(b'{') => self.member(token),
            Some(b'[') => self.element(token),
            _ => Err(InvalidPointer::Nothing),
        }
    }

    fn member(&mut self, token: &str) -> Result<(), InvalidPointer> {
        let mut found = None;
        self.at += 1;
        loop {
            self.blanks();
            match self.peek() {
                Some(b'"') => {}
                Some(b',') => {
                    self.at += 1;
                    continue;
                }
                _ => break,
            }
            let start = self.at;
            self.string();
            let key: String = serde_json::from_slice(&self.json[start..self.at])
                .map_err(|_| InvalidPointer::NotJson)?;
            self.blanks();
            // The colon.
            self.at += 1;
            if key == token && found.replace(self.at).is_some() {
                return Err(InvalidPointer::Ambiguous);
            }
            self.value();
        }
        self.at = found.ok_or(InvalidPointer::Nothing)?;
        Ok(())
    }

    fn element(&mut self, token: &str) -> Result<(), InvalidPointer> {
        let canonical = token == "0" || !token.starts_with(['0', '+']);
        let index: usize = token.parse().map_err(|_| InvalidPointer::Nothing)?;
        if !canonical {
            return Err(InvalidPointer::Nothing);
        }
        self.at += 1;
        for _ in 0..index {
            self.value();
            self.blanks();
            if self.peek() != Some(b',') {
                return Err(InvalidPointer::Nothing);
            }
            self.at += 1;
        }
        self.blanks();
        if self.peek() == Some(b']') {
            return Err(InvalidPointer::Nothing);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(json: &str, pointer: &str) -> Result<String, InvalidPointer> {
        replace(json.as_bytes(), pointer, "S\"x")
            .map(|bytes| String::from_utf8(bytes).expect("JSON is UTF-8"))
    }

    #[test]
    fn only_the_string_changes() {
        let json = r#"{ "n": 123456789012345678901234567890, "a": [ {"b/c": "old"}, [], "x" ],
            "~": "t", "\u0061\"": "esc\"}]," }"#;
        let replaced = |old: &str, new: &str| Ok(json.replacen(old, new, 1));
        assert_eq!(check(json, "/a/0/b~1c"), replaced(r#""old""#, r#""S\"x""#));
        assert_eq!(check(json, "/a/2"), replaced(r#""x""#, r#""S\"x""#));
        assert_eq!(check(json, "/~0"), replaced(r#""t""#, r#""S\"x""#));
        assert_eq!(check(json, "/a\""), replaced(r#""esc\"}],""#, r#""S\"x""#));
        assert_eq!(check(r#" "whole" "#, ""), Ok(r#" "S\"x" "#.into()));
    }

    #[test]
    fn what_is_not_there_is_told_apart() {
        use InvalidPointer::{Ambiguous, NotAString, NotJson, Nothing, Syntax};
        for (json, pointer, why) in [
            ("{", "/a", NotJson),
            ("", "", NotJson),
            (r#"{"a":1}"#, "a", Syntax),
            (r#"{"a":1}"#, "/~2", Syntax),
            (r#"{"a":1}"#, "/a", NotAString),
            (r#"{"a":1}"#, "/b", Nothing),
            (r#"{}"#, "/b", Nothing),
            (r#"[]"#, "/0", Nothing),
            (r#"["a"]"#, "/1", Nothing),
            (r#"["a"]"#, "/00", Nothing),
            (r#"["a"]"#, "/-", Nothing),
            (r#""a""#, "/0", Nothing),
            (r#"{"a":"x","\u0061":"y"}"#, "/a", Ambiguous),
        ] {
            assert_eq!(check(json, pointer), Err(why), "{json} {pointer}");
        }
    }

    proptest! {
        #[test]
        fn it_finds_what_a_parser_finds(keys in proptest::collection::vec("[a-z\"\\\\/~\u{e9}]{0,4}", 1..4), value in ".*") {
            let mut tree = serde_json::Value::String(value);
            let mut pointer = String::new();
            for key in keys.iter().rev() {
                tree = serde_json::json!([1, {"zz9": [{}], key: tree}]);
            }
            for key in &keys {
                pointer.push_str("/1/");
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            let json = serde_json::to_vec_pretty(&tree).expect("a tree is written");
            let changed = replace(&json, &pointer, "new").expect("it is there");
            *tree.pointer_mut(&pointer).expect("it is there") = "new".into();
            let read: serde_json::Value = serde_json::from_slice(&changed).expect("JSON");
            prop_assert_eq!(read, tree);
        }
    }
}
