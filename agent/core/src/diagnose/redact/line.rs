//! Secrets in one line, and what one line says of the next.

use super::MASK;
use super::names::{is_place, is_secret, is_secret_key, takes_line};

/// Lines of a private key: more than any has. A beginning without end must not hide
/// everything after it.
const KEY_LINES: u16 = 400;
/// Beginnings of tokens, and the fewest letters of the whole that make one.
const TOKENS: [(&str, usize); 24] = [
    ("lbt_", 20),
    ("lbk_", 20),
    ("eyJ", 20),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 20),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("xoxa-", 20),
    ("xapp-", 20),
    ("sk-", 20),
    ("sk_live_", 20),
    ("rk_live_", 20),
    ("npm_", 30),
    ("hf_", 30),
    ("pypi-", 30),
    ("AIza", 30),
    ("ya29.", 30),
    ("AKIA", 20),
    ("ASIA", 20),
];
/// Beginnings of password hashes.
const HASHES: [&str; 10] = [
    "$1$", "$2a$", "$2b$", "$2y$", "$5$", "$6$", "$7$", "$y$", "$argon2", "$scrypt$",
];

/// What the lines before say of this one.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// Lines that may yet belong to a private key.
    key: u16,
    /// The line before ended where a value should begin.
    value: bool,
}

/// The line, safe to show.
pub(super) fn redact(line: &str, carried: &mut Carried) -> String {
    let line = plain(line);
    let mut hidden = Hidden::default();
    private_key(&line, carried, &mut hidden);
    if std::mem::take(&mut carried.value) {
        hidden.push(last_word(&line));
    }
    named(&line, carried, &mut hidden);
    bearer(&line, &mut hidden);
    urls(&line, &mut hidden);
    tokens(&line, &mut hidden);
    hidden.apply(&line)
}

/// Without what colours a terminal: it would stand between a name and its value.
fn plain(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' && letters.peek() == Some(&'[') {
            letters.next();
            // Parameters, then one letter that ends the sequence.
            while letters
                .next_if(|it| ('\u{20}'..='\u{3f}').contains(it))
                .is_some()
            {}
            letters.next_if(|it| ('\u{40}'..='\u{7e}').contains(it));
        } else if letter == '\t' || !letter.is_control() {
            shown.push(letter);
        }
    }
    shown
}

/// Places in a line that are not shown.
#[derive(Default)]
struct Hidden(Vec<(usize, usize)>);

impl Hidden {
    fn push(&mut self, (from, to): (usize, usize)) {
        if from < to {
            self.0.push((from, to));
        }
    }

    fn apply(mut self, line: &str) -> String {
        self.0.sort_unstable();
        let mut shown = String::with_capacity(line.len());
        let mut at = 0;
        let mut masked_to = None;
        for (from, to) in self.0 {
            if to <= at {
                continue;
            }
            if from > at {
                shown.push_str(&line[at..from]);
            }
            // What touches is one secret.
            if from > at || masked_to != Some(at) {
                shown.push_str(MASK);
            }
            at = to;
            masked_to = Some(to);
        }
        shown.push_str(&line[at..]);
        shown
    }
}

fn private_key(line: &str, carried: &mut Carried, hidden: &mut Hidden) {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "-----END ";
    let mut from = 0;
    if carried.key > 0 {
        carried.key -= 1;
        match line.find(END) {
            Some(end) => {
                // The prefix of a journal's line stays; what stands at its end does not.
                hidden.push(last_word(&line[..end]));
                carried.key = 0;
                from = end + END.len();
            }
            None => hidden.push(last_word(line)),
        }
    }
    while let Some(begin) = line[from..].find(BEGIN).map(|at| from + at) {
        let label = &line[begin + BEGIN.len()..];
        let label = &label[..label.find("-----").unwrap_or(label.len())];
        let body = (begin + BEGIN.len() + label.len() + 5).min(line.len());
        from = body;
        if !label.contains("PRIVATE KEY") {
            continue;
        }
        match line[body..].find(END).map(|at| body + at) {
            Some(end) => {
                hidden.push((body, end));
                from = end + END.len();
            }
            None => {
                hidden.push((body, line.len()));
                carried.key = KEY_LINES;
                return;
            }
        }
    }
}

fn last_word(line: &str) -> (usize, usize) {
    let end = line.trim_end().len();
    let begin = line[..end].rfind(blank).map_or(0, |at| at + 1);
    (begin, end)
}

fn blank(letter: char) -> bool {
    letter.is_whitespace()
}

fn in_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.')
}

/// Values of secret names.
fn named(line: &str, carried: &mut Carried, hidden: &mut Hidden) {
    let mut at = 0;
    let mut word_before = "";
    while let Some(begin) = line[at..].find(in_name).map(|it| at + it) {
        let length = line[begin..]
            .find(|letter| !in_name(letter))
            .unwrap_or(line.len() - begin);
        let end = begin + length;
        let name = &line[begin..end];
        let secret = is_secret(name) || is_secret_key(word_before, name);
        at = end;
        word_before = name;
        if !secret {
            continue;
        }
        let quote = line[..begin].chars().next_back();
        match value_of(line, name, quote, end) {
            Value::At(from, to) => {
                hidden.push((from, to));
                // A value may hold what looks like a name; the next name is after it.
                at = to.max(end);
            }
            Value::NextLine => carried.value = true,
            Value::None => {}
        }
    }
}

enum Value {
    At(usize, usize),
    NextLine,
    None,
}

/// The value of the name that ends at `end`, before which stands `quote`.
fn value_of(line: &str, name: &str, quote: Option<char>, end: usize) -> Value {
    // `"name": `, `\"name\":`, `["name"] =`.
    let closing = skip(line, end, |it| matches!(it, '\\' | '"' | '\'' | ']'));
    let separator = skip(line, closing, |it| it == ' ' || it == '\t');
    let after = skip(line, separator, |it| matches!(it, '=' | ':' | '>'));
    if after == separator {
        return beside(line, name, end);
    }
    let begin = skip(line, after, |it| it == ' ' || it == '\t');
    if begin == line.len() {
        return Value::NextLine;
    }
    if is_place(name, &line[begin..]) {
        return Value::None;
    }
    if let Some((from, to)) = quoted(line, begin) {
        return Value::At(from, to);
    }
    let rest = &line[begin..];
    let whole_line = takes_line(name) || rest.starts_with(['{', '[', '(']);
    let until = |stop: &dyn Fn(char) -> bool| begin + rest.find(stop).unwrap_or(rest.len());
    let colon = line[separator..after].contains(':');
    let to = if whole_line {
        line.len()
    } else if let Some(quote) = quote.filter(|it| matches!(it, '"' | '\'') && closing == end) {
        // The quotes are around name and value: `"TOKEN=a b"`.
        until(&|it| it == quote)
    } else if colon && closing > end {
        // A number or the like in JSON.
        until(&|it| blank(it) || matches!(it, ',' | '}' | ']'))
    } else if colon && begin > after {
        // `password: correct horse battery staple`
        line.len()
    } else {
        until(&blank)
    };
    Value::At(begin, to)
}

/// A value that follows without a sign: after an option, or if it looks random.
fn beside(line: &str, name: &str, end: usize) -> Value {
    let begin = skip(line, end, |it| it == ' ' || it == '\t');
    if begin == end {
        return Value::None;
    }
    let option = name.starts_with('-');
    if option && let Some((from, to)) = quoted(line, begin) {
        return Value::At(from, to);
    }
    let rest = &line[begin..];
    let word = &rest[..rest.find(blank).unwrap_or(rest.len())];
    let another = word.starts_with("--") && word[2..].starts_with(char::is_alphabetic);
    let random = word.len() >= 8
        && word.contains(|it: char| it.is_ascii_digit())
        && word.contains(|it: char| it.is_ascii_alphabetic());
    if (option && !another) || random {
        Value::At(begin, begin + word.len())
    } else {
        Value::None
    }
}

/// What stands in the quotes that begin at `begin`, escaped ones too.
fn quoted(line: &str, begin: usize) -> Option<(usize, usize)> {
    let quote = skip(line, begin, |it| it == '\\');
    let mark = line[quote..].chars().next()?;
    if !matches!(mark, '"' | '\'' | '`') {
        return None;
    }
    let opener = &line[begin..quote + 1];
    let from = quote + 1;
    let mut at = from;
    loop {
        let Some(found) = line[at..].find(opener).map(|it| at + it) else {
            return Some((from, line.len()));
        };
        let escapes = line[from..found]
            .chars()
            .rev()
            .take_while(|it| *it == '\\')
            .count();
        if escapes % 2 == 0 {
            return Some((from, found));
        }
        at = found + opener.len();
    }
}

fn skip(line: &str, at: usize, over: impl Fn(char) -> bool) -> usize {
    line[at..]
        .find(|letter| !over(letter))
        .map_or(line.len(), |it| at + it)
}

/// `Bearer x`, wherever it stands.
fn bearer(line: &str, hidden: &mut Hidden) {
    const WORD: &str = "bearer";
    let lower = line.to_ascii_lowercase();
    let mut at = 0;
    while let Some(found) = lower[at..].find(WORD).map(|it| at + it) {
        at = found + WORD.len();
        let begin = skip(line, at, |it| it == ' ' || it == '\t');
        let length = line[begin..].find(blank).unwrap_or(line.len() - begin);
        if begin > at && length >= 8 {
            hidden.push((begin, begin + length));
        }
    }
}

fn urls(line: &str, hidden: &mut Hidden) {
    let mut at = 0;
    while let Some(begin) = line[at..].find("://").map(|it| at + it + 3) {
        let rest = &line[begin..];
        let run = rest
            .find(|it| blank(it) || matches!(it, '"' | '\'' | '`' | '<' | '>'))
            .unwrap_or(rest.len());
        let run = &rest[..run];
        at = begin;
        let authority = &run[..run.find(['/', '?', '#']).unwrap_or(run.len())];
        let user = match authority.rfind('@') {
            Some(end) => &run[..end],
            // A password with a slash in it, which a port has not.
            None => match (authority.rsplit_once(':'), run.rfind('@')) {
                (Some((_, port)), Some(end)) if port.parse::<u16>().is_err() => &run[..end],
                _ => continue,
            },
        };
        match user.find(':') {
            Some(colon) => hidden.push((begin + colon + 1, begin + user.len())),
            None if user.len() >= 16 => hidden.push((begin, begin + user.len())),
            None => {}
        }
    }
}

fn tokens(line: &str, hidden: &mut Hidden) {
    for (beginning, fewest) in TOKENS {
        let mut at = 0;
        while let Some(begin) = line[at..].find(beginning).map(|it| at + it) {
            let end = skip(line, begin, |it| {
                in_name(it) || matches!(it, '/' | '+' | '=')
            });
            at = begin + beginning.len();
            let inside = line[..begin]
                .chars()
                .next_back()
                .is_some_and(|it| it.is_ascii_alphanumeric());
            // Our own are like nothing else, wherever they stand.
            let ours = beginning.starts_with("lb");
            if end - begin >= fewest && (ours || !inside) {
                hidden.push((begin, end));
                at = end;
            }
        }
    }
    for beginning in HASHES {
        let mut at = 0;
        while let Some(begin) = line[at..].find(beginning).map(|it| at + it) {
            let from = begin + beginning.len();
            let end = skip(line, from, |it| {
                in_name(it) || matches!(it, '/' | '+' | '=' | '$' | ',')
            });
            if end - from >= 12 {
                hidden.push((begin, end));
            }
            at = end;
        }
    }
}
