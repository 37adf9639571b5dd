//! JSON texts, piece by piece: numbers keep their digits, strings without escapes are not copied.

use std::borrow::Cow;

/// It is not JSON.
#[derive(Debug)]
pub(super) struct Malformed;

/// A value that begins here.
#[derive(Debug, PartialEq)]
pub(super) enum Token<'j> {
    Null,
    Bool(bool),
    /// As it is written.
    Number(&'j str),
    Text(Cow<'j, str>),
    /// Its items follow: [`Json::more`].
    Array,
    /// Its members follow: [`Json::more`], then [`Json::name`].
    Object,
}

pub(super) struct Json<'j> {
    text: &'j str,
    at: usize,
}

impl<'j> Json<'j> {
    pub(super) fn new(text: &'j str) -> Self {
        Self { text, at: 0 }
    }

    /// The place reached, to go [back](Self::back_to) to.
    pub(super) fn place(&self) -> usize {
        self.at
    }

    pub(super) fn back_to(&mut self, place: usize) {
        self.at = place;
    }

    /// First byte of what comes.
    pub(super) fn upcoming(&mut self) -> Option<u8> {
        self.peek()
    }

    /// Whether nothing is left.
    pub(super) fn is_finished(&mut self) -> bool {
        self.peek().is_none()
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    fn take(&mut self, word: &str) -> Result<(), Malformed> {
        if !self.text[self.at..].starts_with(word) {
            return Err(Malformed);
        }
        self.at += word.len();
        Ok(())
    }

    pub(super) fn value(&mut self) -> Result<Token<'j>, Malformed> {
        Ok(match self.peek().ok_or(Malformed)? {
            b'n' => self.take("null").map(|()| Token::Null)?,
            b't' => self.take("true").map(|()| Token::Bool(true))?,
            b'f' => self.take("false").map(|()| Token::Bool(false))?,
            b'"' => Token::Text(self.string()?),
            b'[' => self.take("[").map(|()| Token::Array)?,
            b'{' => self.take("{").map(|()| Token::Object)?,
            _ => Token::Number(self.number()?),
        })
    }

    /// Whether an array or object, which ends with `end`, has another item or member.
    pub(super) fn more(&mut self, first: bool, end: u8) -> Result<bool, Malformed> {
        match self.peek() {
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.at += 1;
                Ok(true)
            }
            Some(_) if first => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// Name of a member, up to its value.
    pub(super) fn name(&mut self) -> Result<Cow<'j, str>, Malformed> {
        self.peek();
        let name = self.string()?;
        self.peek();
        self.take(":")?;
        Ok(name)
    }

    /// Passes over a value; its text.
    pub(super) fn skip(&mut self) -> Result<&'j str, Malformed> {
        self.peek();
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.peek().ok_or(Malformed)? {
                b'[' | b'{' => {
                    depth += 1;
                    self.at += 1;
                }
                b']' | b'}' => {
                    depth = depth.checked_sub(1).ok_or(Malformed)?;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => self.at += 1,
                _ => drop(self.value()?),
            }
            if depth == 0 {
                return Ok(&self.text[start..self.at]);
            }
        }
    }

    fn number(&mut self) -> Result<&'j str, Malformed> {
        let start = self.at;
        self.at += usize::from(self.byte() == Some(b'-'));
        let whole = self.digits()?;
        if whole.len() > 1 && whole.starts_with('0') {
            return Err(Malformed);
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Result<&'j str, Malformed> {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > start { Ok(&self.text[start..self.at]) } else { Err(Malformed) }
    }

    fn string(&mut self) -> Result<Cow<'j, str>, Malformed> {
        self.take("\"")?;
        let start = self.at;
        loop {
            match self.byte().ok_or(Malformed)? {
                b'"' => {
                    self.at += 1;
                    return Ok(Cow::Borrowed(&self.text[start..self.at - 1]));
                }
                b'\\' => return self.escaped(start).map(Cow::Owned),
                0..=0x1f => return Err(Malformed),
                _ => self.at += 1,
            }
        }
    }

    /// The rest of a string in which an escape was met.
    fn escaped(&mut self, start: usize) -> Result<String, Malformed> {
        let mut out = self.text[start..self.at].to_owned();
        loop {
            let plain = self.at;
            while !matches!(self.byte().ok_or(Malformed)?, b'"' | b'\\' | 0..=0x1f) {
                self.at += 1;
            }
            out.push_str(&self.text[plain..self.at]);
            self.at += 1;
            match self.text.as_bytes()[self.at - 1] {
                b'"' => return Ok(out),
                b'\\' => out.push(self.escape()?),
                _ => return Err(Malformed),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Malformed> {
        let byte = self.byte().ok_or(Malformed)?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.unit()?;
                let code = match first {
                    0xd800..=0xdbff => {
                        self.take("\\u")?;
                        let second = self.unit()?;
                        if !(0xdc00..=0xdfff).contains(&second) {
                            return Err(Malformed);
                        }
                        0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                    }
                    code => code,
                };
                char::from_u32(code).ok_or(Malformed)?
            }
            _ => return Err(Malformed),
        })
    }

    fn unit(&mut self) -> Result<u32, Malformed> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(Malformed)?;
        self.at += 4;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(Malformed);
        }
        u32::from_str_radix(digits, 16).map_err(|_| Malformed)
    }
}
