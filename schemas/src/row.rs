//! One row as bytes: its cells in the order of its schema, each a tag and a payload. The bytes the connector writes are
//! the bytes the log keeps and the store keeps; nobody in between takes them apart.

use crate::value::{ARRAY_DIMENSIONS_MAX, ArrayRef, ArrayValue, Interval, Value, ValueRef};
use crate::varint;

mod tag {
    pub(super) const MISSING: u8 = 0;
    pub(super) const NULL: u8 = 1;
    pub(super) const FALSE: u8 = 2;
    pub(super) const TRUE: u8 = 3;
    pub(super) const INT: u8 = 4;
    pub(super) const UINT: u8 = 5;
    pub(super) const DECIMAL: u8 = 6;
    pub(super) const FLOAT64: u8 = 7;
    pub(super) const FLOAT32: u8 = 8;
    pub(super) const TEXT: u8 = 9;
    pub(super) const BYTES: u8 = 10;
    pub(super) const DATE: u8 = 11;
    pub(super) const TIME: u8 = 12;
    pub(super) const TIME_TZ: u8 = 13;
    pub(super) const TIMESTAMP: u8 = 14;
    pub(super) const TIMESTAMP_TZ: u8 = 15;
    pub(super) const INTERVAL: u8 = 16;
    pub(super) const UUID: u8 = 17;
    pub(super) const JSON: u8 = 18;
    pub(super) const ENUM: u8 = 19;
    pub(super) const ARRAY: u8 = 20;
    pub(super) const LOST: u8 = 21;
}

/// A row borrowed from bytes. Columns past the end are [`ValueRef::Missing`], and so are a cell that cannot be read and,
/// if its end cannot be found, everything behind it: bytes from outside are checked once with
/// [`RowRef::is_well_formed`] where they come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowRef<'a>(pub &'a [u8]);

impl<'a> RowRef<'a> {
    /// The cells in column order.
    pub fn cells(self) -> impl Iterator<Item = ValueRef<'a>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let start = rest;
            if let Some(value) = read_cell(&mut rest) {
                return Some(value);
            }
            // Its content cannot be read; where it ends is known all the same, or nothing behind it is.
            rest = start;
            if skip_cell(&mut rest).is_none() {
                rest = &[];
                return None;
            }
            Some(ValueRef::Missing)
        })
    }

    /// The cell of column `at`; costs a walk over the cells before it.
    pub fn cell(self, at: usize) -> ValueRef<'a> {
        let mut rest = self.0;
        for _ in 0..at {
            if skip_cell(&mut rest).is_none() {
                return ValueRef::Missing;
            }
        }
        read_cell(&mut rest).unwrap_or(ValueRef::Missing)
    }

    /// The bytes of each cell, tag included, in column order: enough to see whether a column changed.
    pub fn raw_cells(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let start = rest;
            if skip_cell(&mut rest).is_none() {
                rest = &[];
                return None;
            }
            Some(&start[..start.len() - rest.len()])
        })
    }

    /// Whether the bytes are exactly `columns` readable cells, decimals are such and arrays have the cells that their
    /// dimensions promise.
    pub fn is_well_formed(self, columns: usize) -> bool {
        let mut rest = self.0;
        for _ in 0..columns {
            let sound = match read_cell(&mut rest) {
                Some(ValueRef::Decimal(text)) => crate::is_decimal(text),
                Some(ValueRef::Array(array)) => array.is_well_formed(),
                Some(_) => true,
                None => false,
            };
            if !sound {
                return false;
            }
        }
        rest.is_empty()
    }

    /// Whether any column was not sent; lost ones do not count.
    pub fn has_missing(self) -> bool {
        self.raw_cells().any(|cell| cell == [tag::MISSING])
    }

    /// Whether every cell is known: none was not sent, and none is lost.
    pub fn is_whole(self) -> bool {
        !self.raw_cells().any(|cell| cell == [tag::MISSING] || cell == [tag::LOST])
    }

    /// The columns that were not sent, in order; lost ones are not among them.
    pub fn missing(self) -> impl Iterator<Item = usize> {
        self.columns_of(tag::MISSING)
    }

    /// The columns that are lost, in order: see [`RowBuilder::push_lost`].
    pub fn lost(self) -> impl Iterator<Item = usize> {
        self.columns_of(tag::LOST)
    }

    /// Whether a column is lost.
    pub fn is_lost(self, column: usize) -> bool {
        self.raw_cells().nth(column) == Some(&[tag::LOST])
    }

    fn columns_of(self, tag: u8) -> impl Iterator<Item = usize> {
        self.raw_cells().enumerate().filter(move |(_, cell)| *cell == [tag]).map(|(at, _)| at)
    }

    /// Writes this row with its missing cells taken from `old`, an earlier image of the same row whose column `i` is
    /// found at `old_column(i)`. What `old` does not know stays missing, and lost cells stay lost.
    pub fn fill_missing(self, old: RowRef<'_>, old_column: impl Fn(usize) -> Option<usize>, out: &mut Vec<u8>) {
        let known: Vec<&[u8]> = old.raw_cells().collect();
        for (at, cell) in self.raw_cells().enumerate() {
            let filled = if cell == [tag::MISSING] { old_column(at).and_then(|at| known.get(at)) } else { None };
            out.extend_from_slice(filled.copied().unwrap_or(cell));
        }
    }
}

/// Appends cells to a buffer, in column order.
///
/// ```
/// # use headwater_schemas::{RowBuilder, RowRef, ValueRef};
/// let mut bytes = Vec::new();
/// let mut row = RowBuilder::new(&mut bytes);
/// row.push(ValueRef::Int(7));
/// row.push(ValueRef::Null);
/// assert_eq!(RowRef(&bytes).cell(0), ValueRef::Int(7));
/// ```
#[derive(Debug)]
pub struct RowBuilder<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> RowBuilder<'a> {
    /// Appends to `out`, which may already hold other things.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Appends one cell.
    pub fn push(&mut self, value: ValueRef<'_>) {
        write_cell(self.out, value);
    }

    /// Appends a cell whose value is not known and is not what it was before either: the source has one there that cannot
    /// be represented. It reads as [`ValueRef::Missing`], but no earlier image of the row fills it in.
    pub fn push_lost(&mut self) {
        self.out.push(tag::LOST);
    }

    /// Appends one owned cell.
    pub fn push_value(&mut self, value: &Value) {
        match value {
            Value::Array(array) => {
                let mut body = Vec::new();
                write_array(&mut body, array);
                self.out.push(tag::ARRAY);
                varint::write_prefixed(self.out, &body);
            }
            other => self.push(other.scalar().expect("only arrays are not scalars")),
        }
    }
}

pub(crate) fn write_cell(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Missing => out.push(tag::MISSING),
        ValueRef::Null => out.push(tag::NULL),
        ValueRef::Bool(b) => out.push(if b { tag::TRUE } else { tag::FALSE }),
        ValueRef::Int(n) => {
            out.push(tag::INT);
            varint::write_signed(out, n);
        }
        ValueRef::UInt(n) => {
            out.push(tag::UINT);
            varint::write(out, n);
        }
        ValueRef::Decimal(text) => write_text(out, tag::DECIMAL, text.as_bytes()),
        ValueRef::Float64(n) => {
            out.push(tag::FLOAT64);
            out.extend_from_slice(&n.to_le_bytes());
        }
        ValueRef::Float32(n) => {
            out.push(tag::FLOAT32);
            out.extend_from_slice(&n.to_le_bytes());
        }
        ValueRef::Text(text) => write_text(out, tag::TEXT, text.as_bytes()),
        ValueRef::Bytes(bytes) => write_text(out, tag::BYTES, bytes),
        ValueRef::Date(days) => {
            out.push(tag::DATE);
            varint::write_signed(out, i64::from(days));
        }
        ValueRef::Time(micros) => {
            out.push(tag::TIME);
            varint::write_signed(out, micros);
        }
        ValueRef::TimeTz(micros, zone) => {
            out.push(tag::TIME_TZ);
            varint::write_signed(out, micros);
            varint::write_signed(out, i64::from(zone));
        }
        ValueRef::Timestamp(micros) => {
            out.push(tag::TIMESTAMP);
            out.extend_from_slice(&micros.to_le_bytes());
        }
        ValueRef::TimestampTz(micros) => {
            out.push(tag::TIMESTAMP_TZ);
            out.extend_from_slice(&micros.to_le_bytes());
        }
        ValueRef::Interval(Interval { months, days, micros }) => {
            out.push(tag::INTERVAL);
            varint::write_signed(out, i64::from(months));
            varint::write_signed(out, i64::from(days));
            varint::write_signed(out, micros);
        }
        ValueRef::Uuid(bytes) => {
            out.push(tag::UUID);
            out.extend_from_slice(&bytes);
        }
        ValueRef::Json(text) => write_text(out, tag::JSON, text.as_bytes()),
        ValueRef::Enum(label) => write_text(out, tag::ENUM, label.as_bytes()),
        ValueRef::Array(array) => write_text(out, tag::ARRAY, array.bytes),
    }
}

fn write_text(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    varint::write_prefixed(out, bytes);
}

pub(crate) fn write_array(out: &mut Vec<u8>, array: &ArrayValue) {
    varint::write(out, array.dimensions.len() as u64);
    for length in &array.dimensions {
        varint::write(out, u64::from(*length));
    }
    let mut row = RowBuilder::new(out);
    for cell in &array.cells {
        row.push_value(cell);
    }
}

fn read_cell<'a>(rest: &mut &'a [u8]) -> Option<ValueRef<'a>> {
    fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(varint::take_prefixed(rest)?).ok()
    }
    fn eight(rest: &mut &[u8]) -> Option<[u8; 8]> {
        varint::take(rest, 8)?.try_into().ok()
    }
    Some(match varint::take(rest, 1)?[0] {
        tag::MISSING | tag::LOST => ValueRef::Missing,
        tag::NULL => ValueRef::Null,
        tag::FALSE => ValueRef::Bool(false),
        tag::TRUE => ValueRef::Bool(true),
        tag::INT => ValueRef::Int(varint::read_signed(rest)?),
        tag::UINT => ValueRef::UInt(varint::read(rest)?),
        tag::DECIMAL => ValueRef::Decimal(text(rest)?),
        tag::FLOAT64 => ValueRef::Float64(f64::from_le_bytes(eight(rest)?)),
        tag::FLOAT32 => ValueRef::Float32(f32::from_le_bytes(varint::take(rest, 4)?.try_into().ok()?)),
        tag::TEXT => ValueRef::Text(text(rest)?),
        tag::BYTES => ValueRef::Bytes(varint::take_prefixed(rest)?),
        tag::DATE => ValueRef::Date(i32::try_from(varint::read_signed(rest)?).ok()?),
        tag::TIME => ValueRef::Time(varint::read_signed(rest)?),
        tag::TIME_TZ => ValueRef::TimeTz(varint::read_signed(rest)?, i32::try_from(varint::read_signed(rest)?).ok()?),
        tag::TIMESTAMP => ValueRef::Timestamp(i64::from_le_bytes(eight(rest)?)),
        tag::TIMESTAMP_TZ => ValueRef::TimestampTz(i64::from_le_bytes(eight(rest)?)),
        tag::INTERVAL => ValueRef::Interval(Interval {
            months: i32::try_from(varint::read_signed(rest)?).ok()?,
            days: i32::try_from(varint::read_signed(rest)?).ok()?,
            micros: varint::read_signed(rest)?,
        }),
        tag::UUID => ValueRef::Uuid(varint::take(rest, 16)?.try_into().ok()?),
        tag::JSON => ValueRef::Json(text(rest)?),
        tag::ENUM => ValueRef::Enum(text(rest)?),
        tag::ARRAY => ValueRef::Array(ArrayRef { bytes: varint::take_prefixed(rest)? }),
        _ => return None,
    })
}

/// Moves past one cell without looking inside texts.
fn skip_cell(rest: &mut &[u8]) -> Option<()> {
    match varint::take(rest, 1)?[0] {
        tag::MISSING | tag::LOST | tag::NULL | tag::FALSE | tag::TRUE => {}
        tag::INT | tag::UINT | tag::DATE | tag::TIME => {
            varint::read(rest)?;
        }
        tag::TIME_TZ => {
            varint::read(rest)?;
            varint::read(rest)?;
        }
        tag::INTERVAL => {
            varint::read(rest)?;
            varint::read(rest)?;
            varint::read(rest)?;
        }
        tag::FLOAT64 | tag::TIMESTAMP | tag::TIMESTAMP_TZ => {
            varint::take(rest, 8)?;
        }
        tag::FLOAT32 => {
            varint::take(rest, 4)?;
        }
        tag::UUID => {
            varint::take(rest, 16)?;
        }
        tag::DECIMAL | tag::TEXT | tag::BYTES | tag::JSON | tag::ENUM | tag::ARRAY => {
            varint::take_prefixed(rest)?;
        }
        _ => return None,
    }
    Some(())
}

/// Takes the dimensions off the front of an array's bytes.
fn read_dimensions(rest: &mut &[u8]) -> Option<Vec<u32>> {
    let count = usize::try_from(varint::read(rest)?).ok().filter(|count| *count <= ARRAY_DIMENSIONS_MAX)?;
    (0..count).map(|_| u32::try_from(varint::read(rest)?).ok()).collect()
}

impl<'a> ArrayRef<'a> {
    /// Length of each level, outermost first; empty for an empty array.
    pub fn dimensions(self) -> Vec<u32> {
        self.split().0
    }

    /// The cells in row-major order. An array is never a cell of an array: where bytes say so, they are not read.
    pub fn cells(self) -> impl Iterator<Item = ValueRef<'a>> {
        let (_, cells) = self.split();
        RowRef(cells).cells().take_while(|cell| !matches!(cell, ValueRef::Array(_)))
    }

    fn split(self) -> (Vec<u32>, &'a [u8]) {
        let mut rest = self.bytes;
        read_dimensions(&mut rest).map_or((Vec::new(), &[]), |dimensions| (dimensions, rest))
    }

    fn is_well_formed(self) -> bool {
        let mut rest = self.bytes;
        let Some(dimensions) = read_dimensions(&mut rest) else { return false };
        let empty = u64::from(!dimensions.is_empty());
        let promised = dimensions.iter().try_fold(empty, |n, len| n.checked_mul(u64::from(*len)));
        let mut count = 0;
        while !rest.is_empty() {
            match read_cell(&mut rest) {
                None | Some(ValueRef::Array(_)) => return false,
                Some(ValueRef::Decimal(text)) if !crate::is_decimal(text) => return false,
                Some(_) => count += 1,
            }
        }
        promised == Some(count)
    }
}
