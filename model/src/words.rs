//! Closed lists of words: an enum, its texts for people and programs, and the way back.

/// Makes such an enum.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize, schemars::JsonSchema,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All of them, in the order of this file.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word for people and programs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::words::NoSuchWord;

            fn from_str(text: &str) -> Result<Self, $crate::words::NoSuchWord> {
                let found = Self::ALL.iter().copied().find(|it| it.as_str() == text);
                found.ok_or_else(|| $crate::words::NoSuchWord::new(text))
            }
        }
    };
}

/// The word means nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of the words that can stand here")]
pub struct NoSuchWord(String);

impl NoSuchWord {
    pub(crate) fn new(text: &str) -> Self {
        Self(crate::names::clean(text, 64))
    }
}
