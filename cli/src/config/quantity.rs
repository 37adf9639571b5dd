//! Durations and sizes as people write them: `7d`, `64GiB`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// A length of time, written as a whole number and one of `ms s m h d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// A number of bytes, written as a whole number and one of `KiB MiB GiB TiB` (powers of 1024), or as the bytes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteSize(pub(crate) u64);

impl ByteSize {
    /// So many GiB.
    pub(crate) const fn gib(n: u64) -> Self {
        Self(n << 30)
    }
}

/// The number in front and the unit behind; `None` when there is no whole number in front.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..digits].parse().ok()?, text[digits..].trim()))
}

impl Span {
    /// Reads a length of time.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split(text)?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        number.checked_mul(millis).map(|millis| Self(Duration::from_millis(millis)))
    }
}

impl ByteSize {
    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split(text)?;
        let shift = match unit {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return None,
        };
        number.checked_mul(1 << shift).map(Self)
    }
}

struct Text<T>(fn(&str) -> Option<T>, &'static str);

impl<T> de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Text(Self::parse, "a duration like 500ms, 30s, 5m, 12h or 7d"))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Text(Self::parse, "a size like 512MiB or 64GiB"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_or_refused_but_never_guessed() {
        assert_eq!(Span::parse("7d"), Some(Span(Duration::from_secs(7 * 86_400))));
        assert_eq!(Span::parse("500 ms"), Some(Span(Duration::from_millis(500))));
        assert_eq!(ByteSize::parse("64GiB"), Some(ByteSize::gib(64)));
        assert_eq!(ByteSize::parse("4096"), Some(ByteSize(4096)));
        for wrong in ["7", "d", "-1s", "1.5h", "7 days", "99999999999999999999d", "999999999999999d"] {
            assert_eq!(Span::parse(wrong), None, "{wrong}");
        }
        for wrong in ["64GB", "GiB", "-1", "18446744073709551615KiB"] {
            assert_eq!(ByteSize::parse(wrong), None, "{wrong}");
        }
    }
}
