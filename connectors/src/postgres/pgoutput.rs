//! The messages of PostgreSQL's output plugin `pgoutput`, protocol version 1, read in place.
//!
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

/// A message about rows. Begin, commit and logical messages are taken out by the transport.
#[derive(Debug)]
pub(crate) enum Message<'a> {
    /// What the rows of a relation look like from here on.
    Relation(Relation<'a>),
    /// The tuple is in `Tuples::new`.
    Insert { relation: u32 },
    /// The new tuple is in `Tuples::new`; the old one, if there is one, in `Tuples::old`.
    Update { relation: u32, old: Option<Old> },
    /// The tuple is in `Tuples::old`.
    Delete { relation: u32, old: Old },
    /// All rows of the relations are gone.
    Truncate { relations: Vec<u32> },
    /// Names of types, and origins: nothing we need.
    Ignored,
}

/// What an old tuple holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Old {
    /// The columns of the replica identity; the others are sent as null and say nothing.
    Key,
    /// All columns.
    Full,
}

/// A relation message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relation<'a> {
    pub(crate) oid: u32,
    /// Empty for `pg_catalog`.
    pub(crate) schema: &'a str,
    pub(crate) table: &'a str,
    /// `d`, `n`, `f` or `i`, as in `pg_class.relreplident`.
    pub(crate) identity: u8,
    pub(crate) columns: Vec<RelationColumn<'a>>,
}

/// One column of a relation message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RelationColumn<'a> {
    /// Part of the replica identity.
    pub(crate) identity: bool,
    pub(crate) name: &'a str,
    pub(crate) type_oid: u32,
    pub(crate) type_modifier: i32,
}

/// One column of a tuple: where its text stands in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Null,
    /// Stored out of line and not changed: not sent.
    Unchanged,
    Text {
        start: u32,
        len: u32,
    },
}

impl Cell {
    /// The text, if there is one.
    pub(crate) fn text<'a>(&self, message: &'a [u8]) -> Option<&'a [u8]> {
        match *self {
            Self::Text { start, len } => message.get(start as usize..start as usize + len as usize),
            _ => None,
        }
    }
}

/// Room for the tuples of one message, used again for the next.
#[derive(Debug, Default)]
pub(crate) struct Tuples {
    pub(crate) old: Vec<Cell>,
    pub(crate) new: Vec<Cell>,
}

/// Bytes that are not a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads one message. Cells go into `tuples`.
pub(crate) fn read<'a>(message: &'a [u8], tuples: &mut Tuples) -> Result<Message<'a>, Malformed> {
    let mut reader = Reader { message, at: 0 };
    Ok(match reader.byte()? {
        b'I' => {
            let relation = reader.u32()?;
            reader.expect(b'N')?;
            reader.tuple(&mut tuples.new)?;
            Message::Insert { relation }
        }
        b'U' => {
            let relation = reader.u32()?;
            let old = match reader.byte()? {
                b'N' => None,
                kind => {
                    let old = old_kind(kind)?;
                    reader.tuple(&mut tuples.old)?;
                    reader.expect(b'N')?;
                    Some(old)
                }
            };
            reader.tuple(&mut tuples.new)?;
            Message::Update { relation, old }
        }
        b'D' => {
            let relation = reader.u32()?;
            let old = old_kind(reader.byte()?)?;
            reader.tuple(&mut tuples.old)?;
            Message::Delete { relation, old }
        }
        b'T' => {
            let count = reader.u32()?;
            reader.byte()?;
            let relations = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
            Message::Truncate { relations }
        }
        b'R' => Message::Relation(reader.relation()?),
        b'Y' | b'O' => Message::Ignored,
        _ => return Err(Malformed),
    })
}

fn old_kind(byte: u8) -> Result<Old, Malformed> {
    match byte {
        b'K' => Ok(Old::Key),
        b'O' => Ok(Old::Full),
        _ => Err(Malformed),
    }
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let taken = self.message.get(self.at..self.at.checked_add(len).ok_or(Malformed)?).ok_or(Malformed)?;
        self.at += len;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.byte()? == byte { Ok(()) } else { Err(Malformed) }
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        let rest = self.message.get(self.at..).ok_or(Malformed)?;
        let len = memchr::memchr(0, rest).ok_or(Malformed)?;
        self.at += len + 1;
        std::str::from_utf8(&rest[..len]).map_err(|_| Malformed)
    }

    fn tuple(&mut self, cells: &mut Vec<Cell>) -> Result<(), Malformed> {
        let count = self.u16()?;
        cells.clear();
        cells.reserve(usize::from(count));
        for _ in 0..count {
            cells.push(match self.byte()? {
                b't' => {
                    let len = self.u32()?;
                    // Messages are below 1 GiB, so places in them fit.
                    let start = self.at as u32;
                    self.take(len as usize)?;
                    Cell::Text { start, len }
                }
                b'n' => Cell::Null,
                b'u' => Cell::Unchanged,
                _ => return Err(Malformed),
            });
        }
        Ok(())
    }

    fn relation(&mut self) -> Result<Relation<'a>, Malformed> {
        let (oid, schema, table, identity) = (self.u32()?, self.text()?, self.text()?, self.byte()?);
        let count = self.u16()?;
        let column = |reader: &mut Self| {
            let identity = reader.byte()? & 1 == 1;
            let (name, type_oid, modifier) = (reader.text()?, reader.u32()?, reader.u32()?);
            Ok(RelationColumn { identity, name, type_oid, type_modifier: modifier as i32 })
        };
        let columns = (0..count).map(|_| column(self)).collect::<Result<_, _>>()?;
        Ok(Relation { oid, schema, table, identity, columns })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_update_with_a_full_old_row() {
        let mut message = vec![b'U', 0, 0, 0, 9, b'O', 0, 2, b't', 0, 0, 0, 1, b'7', b'n'];
        message.extend_from_slice(&[b'N', 0, 2, b't', 0, 0, 0, 2, b'4', b'2', b'u']);
        let mut tuples = Tuples::default();
        let read = read(&message, &mut tuples).expect("well-formed");
        assert!(matches!(read, Message::Update { relation: 9, old: Some(Old::Full) }));
        assert_eq!(tuples.old[0].text(&message), Some(&b"7"[..]));
        assert_eq!(tuples.new[0].text(&message), Some(&b"42"[..]));
        assert_eq!(tuples.new[1], Cell::Unchanged);
    }

    #[test]
    fn a_relation() {
        let mut message = vec![b'R', 0, 0, 0, 9];
        message.extend_from_slice(
            b"public\0bills\0d\0\x02\x01id\0\0\0\0\x14\xff\xff\xff\xff\x00note\0\0\0\0\x19\0\0\0\x01",
        );
        let mut tuples = Tuples::default();
        let Ok(Message::Relation(relation)) = read(&message, &mut tuples) else { panic!("a relation") };
        assert_eq!((relation.schema, relation.table, relation.identity), ("public", "bills", b'd'));
        assert_eq!(relation.columns[0], RelationColumn { identity: true, name: "id", type_oid: 20, type_modifier: -1 });
        assert_eq!(relation.columns[1].name, "note");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(message in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut tuples = Tuples::default();
            let _ = read(&message, &mut tuples);
            for cell in tuples.old.iter().chain(&tuples.new) {
                let _ = cell.text(&message);
            }
        }
    }
}
