//! PostgreSQL's text form of arrays: `{1,NULL,"a b"}`, `{{1,2},{3,4}}`, `[2:3]={1,2}`.

use headwater_schemas::{ArrayValue, ColumnType, Value};

use super::cell::{self, Unrepresentable};

const MALFORMED: Unrepresentable = Unrepresentable("an array in an unknown form");
/// PostgreSQL's own limit.
const DIMENSIONS_MAX: usize = 6;

/// Parses an array. Bounds other than 1 are dropped, since values are found by place.
pub(super) fn parse(text: &str, element: &ColumnType, scratch: &mut Vec<u8>) -> Result<Value, Unrepresentable> {
    let body = if text.starts_with('[') { text.split_once('=').ok_or(MALFORMED)?.1 } else { text };
    let mut parser = Parser { rest: body.as_bytes(), array: ArrayValue::default(), element, scratch };
    parser.level(0)?;
    if !parser.rest.is_empty() {
        return Err(MALFORMED);
    }
    let mut array = parser.array;
    if array.cells.is_empty() {
        array.dimensions.clear();
    }
    Ok(Value::Array(array))
}

struct Parser<'a> {
    rest: &'a [u8],
    array: ArrayValue,
    element: &'a ColumnType,
    scratch: &'a mut Vec<u8>,
}

impl Parser<'_> {
    fn take(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn level(&mut self, depth: usize) -> Result<(), Unrepresentable> {
        if depth >= DIMENSIONS_MAX || !self.take(b'{') {
            return Err(MALFORMED);
        }
        let mut length = 0;
        if !self.take(b'}') {
            loop {
                if self.rest.first() == Some(&b'{') {
                    self.level(depth + 1)?
                } else {
                    self.cell()?
                }
                length += 1;
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return Err(MALFORMED);
                }
            }
        }
        // Inner levels end first: the list of lengths grows from the outside in as they are first met.
        if self.array.dimensions.len() <= depth {
            self.array.dimensions.resize(depth + 1, length);
        }
        self.array.dimensions[depth] = length;
        Ok(())
    }

    fn cell(&mut self) -> Result<(), Unrepresentable> {
        let value = if self.take(b'"') {
            let mut text = Vec::new();
            loop {
                let (&byte, rest) = self.rest.split_first().ok_or(MALFORMED)?;
                self.rest = rest;
                match byte {
                    b'"' => break,
                    b'\\' => {
                        let (&escaped, rest) = self.rest.split_first().ok_or(MALFORMED)?;
                        self.rest = rest;
                        text.push(escaped);
                    }
                    plain => text.push(plain),
                }
            }
            cell::scalar(self.element, &text, self.scratch)?.to_value()
        } else {
            let end = self.rest.iter().position(|b| matches!(b, b',' | b'}')).ok_or(MALFORMED)?;
            let (text, rest) = self.rest.split_at(end);
            self.rest = rest;
            match text {
                b"NULL" => Value::Null,
                b"" => return Err(MALFORMED),
                text => cell::scalar(self.element, text, self.scratch)?.to_value(),
            }
        };
        self.array.cells.push(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, element: ColumnType, dimensions: &[u32], cells: &[Value]) {
        let expected = Value::Array(ArrayValue { dimensions: dimensions.to_vec(), cells: cells.to_vec() });
        assert_eq!(parse(text, &element, &mut Vec::new()), Ok(expected), "{text}");
    }

    #[test]
    fn arrays_of_any_shape() {
        let int = |n| Value::Int(n);
        let word = |t: &str| Value::Text(t.into());
        check("{}", ColumnType::Int32, &[], &[]);
        check("{1,NULL,-3}", ColumnType::Int32, &[3], &[int(1), Value::Null, int(-3)]);
        check("{{1,2},{3,4},{5,6}}", ColumnType::Int64, &[3, 2], &[int(1), int(2), int(3), int(4), int(5), int(6)]);
        check("[0:1][5:5]={{7},{8}}", ColumnType::Int32, &[2, 1], &[int(7), int(8)]);
        check(
            r#"{"a,b","NULL","q\"\\","",plain}"#,
            ColumnType::Text,
            &[5],
            &[word("a,b"), word("NULL"), word("q\"\\"), word(""), word("plain")],
        );
        check(r#"{"\\x00ff"}"#, ColumnType::Bytes, &[1], &[Value::Bytes(vec![0, 255])]);
    }

    #[test]
    fn malformed_arrays_are_refused() {
        for text in ["", "{", "{1", "{1,}", "1", "{1}x", "{{{{{{{1}}}}}}}", "[1:1]"] {
            assert!(parse(text, &ColumnType::Int32, &mut Vec::new()).is_err(), "{text}");
        }
    }
}
