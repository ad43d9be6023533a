//! Values of any type, out of bytes: what a type's `Deserialize` asks for is taken from the input.
//!
//! So a search needs no grammar of what it makes, and a mutated byte changes one thing. Where the
//! input ends, everything is the first variant, nought or nothing. A few bytes stand for what a
//! stranger would try: texts of many kilobytes, controls and overrides, a text that is secret.

use serde::de::value::{Error, U32Deserializer};
use serde::de::{
    DeserializeSeed, EnumAccess, IntoDeserializer as _, SeqAccess, VariantAccess, Visitor,
};
use serde::{Deserializer, forward_to_deserialize_any};

/// What all values of one input may hold together, bytes of texts and items of lists: more than any
/// limit under test.
const TEXT: usize = 2 << 20;
const ITEMS: usize = 1 << 16;

/// Letters of long texts: plain, of two and four bytes, and those that drive a terminal.
const LETTERS: [char; 8] = ['x', '"', 'é', '\u{1f600}', '\u{1b}', '\n', '\u{202e}', '\0'];

/// Bytes that values are taken from.
#[derive(Debug)]
pub(crate) struct Values<'a> {
    rest: &'a [u8],
    text: usize,
    items: usize,
    secret: &'a str,
}

impl<'a> Values<'a> {
    pub(crate) fn new(input: &'a [u8], secret: &'a str) -> Self {
        Self {
            rest: input,
            text: TEXT,
            items: ITEMS,
            secret,
        }
    }

    fn byte(&mut self) -> u8 {
        let (byte, rest) = self.rest.split_first().unwrap_or((&0, &[]));
        self.rest = rest;
        *byte
    }

    fn number(&mut self) -> u64 {
        match self.byte() {
            0xff => u64::MAX,
            0xfe => {
                let bytes: [u8; 8] = std::array::from_fn(|_| self.byte());
                u64::from_le_bytes(bytes)
            }
            small => small.into(),
        }
    }

    /// How many there are: some, or a power of two.
    fn length(&mut self) -> usize {
        let wanted = match self.byte() {
            many @ 0xf0.. => 1 << (many & 0x0f),
            some => usize::from(some % 16),
        };
        let wanted = wanted.min(self.items);
        self.items -= wanted;
        wanted
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        // Pieces, until one says that it is the last.
        loop {
            let kind = self.byte();
            match kind {
                0xe0.. => {
                    let letter = LETTERS[usize::from(self.byte()) % LETTERS.len()];
                    let count = (1usize << (kind & 0x0f)).min(self.text);
                    self.text -= count;
                    text.extend(std::iter::repeat_n(letter, count));
                }
                0xd0..0xe0 => text.push_str(self.secret),
                length => {
                    let at = usize::from(length % 64).min(self.rest.len());
                    let (piece, rest) = self.rest.split_at(at);
                    self.rest = rest;
                    text.push_str(&String::from_utf8_lossy(piece));
                }
            }
            if kind & 1 == 0 || self.rest.is_empty() {
                return text;
            }
        }
    }
}

macro_rules! numbers {
    ($($deserialize:ident $visit:ident $type:ty)*) => {$(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            // Any value will do: what is cut off was made up, too.
            let number = self.number() as $type;
            visitor.$visit(number)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Values<'_> {
    type Error = Error;

    numbers! {
        deserialize_u8 visit_u8 u8
        deserialize_u16 visit_u16 u16
        deserialize_u32 visit_u32 u32
        deserialize_u64 visit_u64 u64
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.byte() & 1 == 1)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.text())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.byte() & 1 == 1 {
            visitor.visit_some(self)
        } else {
            visitor.visit_none()
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.length();
        visitor.visit_seq(Items { values: self, left })
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { values: self, left })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let chosen = usize::from(self.byte()) % variants.len().max(1);
        let chosen = u32::try_from(chosen).unwrap_or(0);
        visitor.visit_enum(Chosen {
            values: self,
            chosen,
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple_struct map
        identifier ignored_any
    }
}

struct Items<'a, 'b> {
    values: &'a mut Values<'b>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.values).map(Some)
    }
}

struct Chosen<'a, 'b> {
    values: &'a mut Values<'b>,
    chosen: u32,
}

impl<'de> EnumAccess<'de> for Chosen<'_, '_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let chosen: U32Deserializer<Error> = self.chosen.into_deserializer();
        Ok((seed.deserialize(chosen)?, self))
    }
}

impl<'de> VariantAccess<'de> for Chosen<'_, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.values)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        self.values.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.values.deserialize_tuple(fields.len(), visitor)
    }
}
