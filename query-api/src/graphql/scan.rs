//! Walks stored JSON without parsing it: where a value ends, which member comes next. Bytes that are not what the
//! projector writes are an error, never a panic.

/// The bytes are not a document of this shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Torn;

/// What a byte means while a value is skipped.
const PLAIN: u8 = 0;
const QUOTE: u8 = 1;
const OPEN: u8 = 2;
const CLOSE: u8 = 3;

const CLASS: [u8; 256] = {
    let mut class = [PLAIN; 256];
    class[b'"' as usize] = QUOTE;
    class[b'{' as usize] = OPEN;
    class[b'[' as usize] = OPEN;
    class[b'}' as usize] = CLOSE;
    class[b']' as usize] = CLOSE;
    class
};

/// The first place at or behind `at` that is not white space: columns of JSON are embedded as their author wrote them.
#[inline]
pub(super) fn blank(json: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = json.get(at) {
        at += 1;
    }
    at
}

/// The place behind the string whose opening quote is at `at`.
#[inline]
fn string(json: &[u8], at: usize) -> Result<usize, Torn> {
    let mut at = at + 1;
    loop {
        let rest = json.get(at..).ok_or(Torn)?;
        let step = memchr::memchr2(b'"', b'\\', rest).ok_or(Torn)?;
        if rest[step] == b'"' {
            return Ok(at + step + 1);
        }
        at += step + 2;
    }
}

/// The place behind the value that begins at `at`.
#[inline]
pub(super) fn value(json: &[u8], at: usize) -> Result<usize, Torn> {
    match json.get(at) {
        Some(b'"') => string(json, at),
        Some(b'{' | b'[') => closing(json, at + 1),
        Some(b',' | b'}' | b']' | b':') | None => Err(Torn),
        Some(_) => {
            let end = |b: &u8| matches!(b, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
            Ok(json[at..].iter().position(end).map_or(json.len(), |length| at + length))
        }
    }
}

/// The place behind the bracket that closes what is open at `at`.
pub(super) fn closing(json: &[u8], mut at: usize) -> Result<usize, Torn> {
    let mut depth = 1usize;
    loop {
        let byte = *json.get(at).ok_or(Torn)?;
        match CLASS[usize::from(byte)] {
            PLAIN => at += 1,
            QUOTE => at = string(json, at)?,
            OPEN => {
                depth += 1;
                at += 1;
            }
            _ => {
                depth -= 1;
                at += 1;
                if depth == 0 {
                    return Ok(at);
                }
            }
        }
    }
}

/// What comes after a value at `at`, within an object or array.
#[inline]
pub(super) fn separator(json: &[u8], at: usize) -> Result<(bool, usize), Torn> {
    let at = blank(json, at);
    match json.get(at) {
        Some(b',') => Ok((true, blank(json, at + 1))),
        Some(b'}' | b']') => Ok((false, at + 1)),
        _ => Err(Torn),
    }
}

/// The place of the value of the member at `at`, when it has this name. `quoted` is the name as `"name":`.
#[inline]
pub(super) fn member(json: &[u8], at: usize, quoted: &[u8]) -> Result<usize, Torn> {
    match json.get(at..) {
        Some(rest) if rest.starts_with(quoted) => Ok(blank(json, at + quoted.len())),
        _ => Err(Torn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_where_a_value_ends() {
        for (json, end) in [
            (r#"12,"#, 2),
            (r#"-1.5e3}"#, 6),
            ("null", 4),
            ("true\n}", 4),
            (r#""a\"b\\","#, 8),
            (r#"{"a":[1,{"b":"}]"}]},"#, 20),
            ("[]", 2),
            (r#"["[",{}]x"#, 8),
        ] {
            assert_eq!(value(json.as_bytes(), 0), Ok(end), "{json}");
        }
    }

    #[test]
    fn torn_bytes_are_an_error() {
        for json in ["", "{", r#"{"a"#, r#"{"a":"#, r#"""#, r#""\"#, "[1,2", "]", ","] {
            assert_eq!(value(json.as_bytes(), 0), Err(Torn), "{json}");
        }
        assert_eq!(separator(b"x", 0), Err(Torn));
        assert_eq!(separator(b"", 7), Err(Torn));
    }
}
