//! BSON written straight into bytes (<https://bsonspec.org>): documents are built by the thousand, and most of what is in
//! them is copied once, from where it lies.

use mongodb::bson::RawDocumentBuf;

pub(super) const DOUBLE: u8 = 0x01;
pub(super) const STRING: u8 = 0x02;
pub(super) const DOCUMENT: u8 = 0x03;
pub(super) const ARRAY: u8 = 0x04;
pub(super) const BINARY: u8 = 0x05;
pub(super) const BOOLEAN: u8 = 0x08;
pub(super) const DATE: u8 = 0x09;
pub(super) const NULL: u8 = 0x0a;
pub(super) const INT32: u8 = 0x10;
pub(super) const INT64: u8 = 0x12;
pub(super) const DECIMAL: u8 = 0x13;

/// A document, or array, that has been begun and not ended: where it starts.
#[derive(Clone, Copy)]
pub(super) struct Begun(usize);

/// Bytes of BSON documents, one after another or within one another.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    /// One document that is the whole of it.
    pub(super) fn document(write: impl FnOnce(&mut Self)) -> RawDocumentBuf {
        let mut writer = Self::default();
        let begun = writer.begin();
        write(&mut writer);
        writer.end(begun);
        writer.finish()
    }

    /// The bytes as the document they are.
    pub(super) fn finish(self) -> RawDocumentBuf {
        RawDocumentBuf::from_bytes(self.bytes).expect("begin and end make a document")
    }

    pub(super) fn begin(&mut self) -> Begun {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        Begun(at)
    }

    pub(super) fn end(&mut self, Begun(at): Begun) {
        self.bytes.push(0);
        let length = length(self.bytes.len() - at);
        self.bytes[at..at + 4].copy_from_slice(&length);
    }

    /// Type and name of an element; its value follows. A zero byte ends a name, so it has none.
    pub(super) fn element(&mut self, kind: u8, name: &str) {
        self.bytes.push(kind);
        debug_assert!(!name.contains('\0'));
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
    }

    /// Type and name of an array's element.
    pub(super) fn item(&mut self, kind: u8, at: usize) {
        let mut digits = itoa::Buffer::new();
        self.element(kind, digits.format(at));
    }

    pub(super) fn within(&mut self, kind: u8, name: &str, write: impl FnOnce(&mut Self)) {
        self.element(kind, name);
        let begun = self.begin();
        write(self);
        self.end(begun);
    }

    pub(super) fn int(&mut self, name: &str, n: i64) {
        self.element(INT64, name);
        self.bytes.extend_from_slice(&n.to_le_bytes());
    }

    /// Appends a time, in milliseconds since 1970.
    pub(super) fn date(&mut self, name: &str, milliseconds: i64) {
        self.element(DATE, name);
        self.bytes.extend_from_slice(&milliseconds.to_le_bytes());
    }

    pub(super) fn bool(&mut self, name: &str, yes: bool) {
        self.element(BOOLEAN, name);
        self.bytes.push(u8::from(yes));
    }

    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.element(STRING, name);
        self.text_value(text);
    }

    pub(super) fn text_value(&mut self, text: &str) {
        self.text_with(|bytes| bytes.extend_from_slice(text.as_bytes()));
    }

    /// A string's value, UTF-8 that `write` appends.
    pub(super) fn text_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        write(&mut self.bytes);
        self.bytes.push(0);
        let length = length(self.bytes.len() - at - 4);
        self.bytes[at..at + 4].copy_from_slice(&length);
    }

    pub(super) fn binary(&mut self, name: &str, value: &[u8]) {
        self.element(BINARY, name);
        self.binary_value(value);
    }

    pub(super) fn binary_value(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(&length(value.len()));
        self.bytes.push(0);
        self.bytes.extend_from_slice(value);
    }

    /// Elements of an array, each by `write` behind its type and number.
    pub(super) fn array<T>(
        &mut self,
        name: &str,
        kind: u8,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.within(ARRAY, name, |writer| {
            for (at, item) in items.into_iter().enumerate() {
                writer.item(kind, at);
                write(writer, item);
            }
        });
    }
}

fn length(n: usize) -> [u8; 4] {
    // What is larger than a document may be is refused long before.
    i32::try_from(n).expect("a command is far below 2 GiB").to_le_bytes()
}
