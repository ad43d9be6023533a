//! As much of XML as the EC2 API writes: elements with text, one within another.
//!
//! Attributes are skipped (the API's only one is its name space), and so are comments and
//! processing instructions. A document type is refused: nothing that answers here has one, and
//! what they are abused for is then not to be thought about. The reader is written by hand because
//! those for all of XML are larger than the rest of this plugin.

use std::borrow::Cow;

/// Deeper than the API goes (9) and shallower than a stack.
const DEPTH: usize = 32;

/// An element.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    pub(crate) name: &'a str,
    text: Cow<'a, str>,
    children: Vec<Element<'a>>,
}

impl<'a> Element<'a> {
    /// The outermost element of a document.
    pub(crate) fn read(document: &'a str) -> Result<Self, &'static str> {
        let mut rest = document.trim_start_matches('\u{feff}');
        let mut open: Vec<Element<'a>> = Vec::new();
        loop {
            let (text, after) = rest.split_once('<').ok_or("the document ends early")?;
            match open.last_mut() {
                Some(element) => element.push(unescaped(text)?),
                None if text.trim().is_empty() => {}
                None => return Err("text outside of the outermost element"),
            }
            if let Some(after) = after.strip_prefix("!--") {
                rest = after.split_once("-->").ok_or("a comment without end")?.1;
                continue;
            }
            if let Some(after) = after.strip_prefix("![CDATA[") {
                let (text, after) = after.split_once("]]>").ok_or("CDATA without end")?;
                open.last_mut().ok_or("CDATA outside")?.push(text.into());
                rest = after;
                continue;
            }
            let (tag, after) = after.split_once('>').ok_or("a tag without end")?;
            rest = after;
            if tag.starts_with('!') {
                return Err("a document type");
            }
            if tag.starts_with('?') {
                continue;
            }
            let finished = if let Some(name) = tag.strip_prefix('/') {
                let element = open.pop().ok_or("an end without a start")?;
                if element.name != name.trim_end() {
                    return Err("an end of another element");
                }
                element
            } else {
                let (inner, empty) = match tag.strip_suffix('/') {
                    Some(inner) => (inner, true),
                    None => (tag, false),
                };
                let name = inner.split_ascii_whitespace().next().unwrap_or_default();
                if name.is_empty() || !inner.starts_with(name) {
                    return Err("an element without a name");
                }
                let element = Element {
                    name,
                    ..Element::default()
                };
                if !empty {
                    if open.len() == DEPTH {
                        return Err("elements too deep within each other");
                    }
                    open.push(element);
                    continue;
                }
                element
            };
            match open.last_mut() {
                Some(parent) => parent.children.push(finished),
                None => return Ok(finished),
            }
        }
    }

    /// The first child of this name.
    pub(crate) fn child(&self, name: &str) -> Option<&Element<'a>> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The entries of the list of this name: the API calls each `item`.
    pub(crate) fn items(&self, list: &str) -> impl Iterator<Item = &Element<'a>> {
        let children = self.child(list).map_or(&[][..], |list| &list.children[..]);
        children.iter().filter(|child| child.name == "item")
    }

    /// The text of what lies at this path, if it is there and not empty.
    pub(crate) fn text(&self, path: &[&str]) -> Option<&str> {
        let mut element = self;
        for name in path {
            element = element.child(name)?;
        }
        Some(element.text.trim()).filter(|text| !text.is_empty())
    }

    fn push(&mut self, text: Cow<'a, str>) {
        if self.text.is_empty() {
            self.text = text;
        } else if !text.is_empty() {
            self.text.to_mut().push_str(&text);
        }
    }
}

fn unescaped(text: &str) -> Result<Cow<'_, str>, &'static str> {
    if !text.contains('&') {
        return Ok(text.into());
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        let (entity, after) = after.split_once(';').ok_or("an entity without end")?;
        out.push_str(before);
        out.push(match entity {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = entity.strip_prefix('#').ok_or("an entity of its own")?;
                let code = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => number.parse(),
                };
                let char = code.ok().and_then(char::from_u32);
                char.ok_or("a character that there is not")?
            }
        });
        rest = after;
    }
    out.push_str(rest);
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_writes_is_read() {
        let root = Element::read(
            "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- <x> -->\n\
             <R xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\n <a>\n  <item><b>1 &lt;&#38;&#x263a;</b></item>\
             <other/><item><b><![CDATA[<2>]]></b></item></a><empty/><c >  </c ></R>\n",
        )
        .unwrap();
        assert_eq!(root.name, "R");
        let texts: Vec<_> = root.items("a").map(|item| item.text(&["b"])).collect();
        assert_eq!(texts, [Some("1 <&\u{263a}"), Some("<2>")]);
        assert_eq!(root.text(&["a", "item", "b"]), Some("1 <&\u{263a}"));
        assert_eq!((root.text(&["empty"]), root.text(&["c"])), (None, None));
        assert_eq!(root.items("nothing").count(), 0);
    }

    #[test]
    fn what_is_not_whole_or_not_plain_is_refused() {
        let deep = "<a>".repeat(100_000);
        for text in [
            "",
            "x",
            "<",
            "<a",
            "<a>",
            "<a><b></a>",
            "</a>",
            "<>",
            "< a></a>",
            "</>",
            "<a>&b;</a>",
            "<a>&lt</a>",
            "<a>&#xd800;</a>",
            "<a>&#x110000;</a>",
            "<!DOCTYPE a><a/>",
            "x<a/>",
            "<a><!-- </a>",
            "<a><![CDATA[ </a>",
            &deep,
        ] {
            assert!(
                Element::read(text).is_err(),
                "{}",
                &text[..text.len().min(40)]
            );
        }
    }
}
