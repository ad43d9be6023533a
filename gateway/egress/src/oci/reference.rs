//! `registry.example/team/plugin:1.4.0`, and the same with a digest.
//!
//! Unlike elsewhere nothing is filled in: a reference names its registry, and a tag or a digest.
//! What goes without saying is where one person's `latest` is another's surprise.

use std::fmt;
use std::str::FromStr;

use model::plugin::PluginDigest;

use crate::target::Host;

/// The text is not a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a package is REGISTRY[:PORT]/REPOSITORY:TAG or REGISTRY[:PORT]/REPOSITORY@sha256:DIGEST, as \
     in registry.example/team/plugin:1.4.0"
)]
pub struct InvalidReference;

/// A package in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// As in URLs.
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<PluginDigest>,
}

impl Reference {
    /// `host[:port]` of the registry.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path within the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The manifest's digest, if it is pinned.
    pub fn digest(&self) -> Option<PluginDigest> {
        self.digest
    }

    /// The same package, whatever becomes of the tag.
    pub fn pinned(&self, digest: PluginDigest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// What to ask the registry for.
    pub(crate) fn wanted(&self) -> String {
        match (self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            // No constructor makes one without either.
            (None, None) => String::new(),
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| InvalidReference)?)),
            None => (text, None),
        };
        let (registry, path) = rest.split_once('/').ok_or(InvalidReference)?;
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        let named = tag.is_some() || digest.is_some();
        if !named
            || !registry_holds(registry)
            || !repository_holds(repository)
            || !tag.is_none_or(tag_holds)
        {
            return Err(InvalidReference);
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn registry_holds(text: &str) -> bool {
    // `team/plugin:1` names no registry, though it looks like one.
    let looks_like_a_host = text.contains(['.', ':']) || text == "localhost";
    let with_port = crate::target::endpoint(text).is_ok();
    looks_like_a_host && (with_port || Host::parse(text).is_ok())
}

fn repository_holds(text: &str) -> bool {
    let part = |part: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let inner =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        edge(part.as_bytes().first())
            && edge(part.as_bytes().last())
            && part.bytes().all(inner)
            && !part.contains("..")
    };
    text.len() <= 255 && text.split('/').all(part)
}

fn tag_holds(text: &str) -> bool {
    let first = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    text.len() <= 128
        && text.as_bytes().first().is_some_and(first)
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    #[test]
    fn references_are_read_and_written() {
        for text in [
            "registry.example/plugin:1.4.0",
            "registry.example:5000/team/plug-in_x.y:v1_RC.2",
            "localhost/a:b",
            "127.0.0.1:5000/a:b",
            "[::1]:5000/a:b",
            &format!("registry.example/a@{DIGEST}"),
            &format!("registry.example/a:tag@{DIGEST}"),
        ] {
            let read: Reference = text.parse().expect(text);
            assert_eq!(read.to_string(), text);
        }
        let both: Reference = format!("r.example/a:b@{DIGEST}").parse().expect("both");
        assert_eq!(both.wanted(), DIGEST);
    }

    #[test]
    fn what_leaves_something_open_is_refused() {
        for text in [
            "",
            "plugin:1",
            "team/plugin:1",
            "registry.example/plugin",
            "registry.example/:1",
            "registry.example/a:",
            "registry.example/A:1",
            "registry.example/a/../b:1",
            "registry.example/a//b:1",
            "registry.example/a%2fb:1",
            "registry.example/a?b:1",
            "registry.example/a:1/2",
            "registry.example/a:-1",
            "registry.example/a:1@sha256:00",
            "registry.example/a:1@sha512:00",
            "registry.example./a:1",
            "user@registry.example/a:1",
            "https://registry.example/a:1",
            "registry.example:0/a:1",
            "registry.example:x/a:1",
        ] {
            assert_eq!(text.parse::<Reference>(), Err(InvalidReference), "{text}");
        }
    }
}
