//! Reading rows: one query for many keys, answers in the order of the request.

use std::collections::HashMap;

use headwater_schemas::SourcePosition;
use mongodb::ClientSession;
use mongodb::bson::{RawBsonRef, RawDocument, RawDocumentBuf};

use super::writes::push_join;
use crate::mongodb::bson::{DOCUMENT, STRING, Writer};
use crate::mongodb::server::{Fault, Server};
use crate::mongodb::text;
use crate::{ByteList, READ_BYTES, RowArena, SchemaId};

/// Keys in one query, in bytes and number: far below what a command may hold.
const ASKED_BYTES: usize = 4 << 20;
const ASKED_KEYS: usize = 10_000;

/// As much in one answer as the server gives, in documents.
const BATCH_MAX: i64 = 1_000_000;

const BROKEN: Fault = Fault::Damaged("a row cannot be read");

/// A row as it is stored.
struct Stored<'d> {
    id: &'d str,
    row: Option<&'d [u8]>,
    schema: SchemaId,
    position: SourcePosition,
}

impl<'d> Stored<'d> {
    fn read(document: &'d RawDocument) -> Result<Self, Fault> {
        let id = document.get_str("_id").map_err(|_| BROKEN)?;
        let row = match document.get("r").map_err(|_| BROKEN)? {
            Some(RawBsonRef::Binary(row)) => Some(row.bytes),
            Some(RawBsonRef::Null) => None,
            _ => return Err(BROKEN),
        };
        let schema = document.get_i64("s").ok().and_then(|n| u32::try_from(n).ok()).ok_or(BROKEN)?;
        let position = document.get_binary("p").map_err(|_| BROKEN)?.bytes;
        let position = SourcePosition::from_bytes(position).ok_or(BROKEN)?;
        Ok(Self { id, row, schema: SchemaId(schema), position })
    }

    /// Appends the row's key.
    fn push_key(&self, out: &mut Vec<u8>) -> Result<(), Fault> {
        if text::decode(out, self.id) { Ok(()) } else { Err(BROKEN) }
    }
}

/// Rows as they came, to be put in order.
#[derive(Clone)]
struct Found {
    bytes: Vec<u8>,
    rows: Vec<FoundRow>,
    /// How many bytes there is room for, where they are given.
    room: usize,
    bytes_max: usize,
}

#[derive(Clone)]
struct FoundRow {
    request: u32,
    key: (usize, usize),
    row: Option<(usize, usize)>,
    schema: SchemaId,
    position: SourcePosition,
}

impl Found {
    /// None as yet, to be given to this arena.
    fn of(out: &RowArena) -> Self {
        let bytes_max = out.bytes_max();
        Self { bytes: Vec::new(), rows: Vec::new(), room: bytes_max.saturating_sub(out.byte_len()), bytes_max }
    }

    fn copy(&mut self, bytes: &[u8]) -> (usize, usize) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        (start, self.bytes.len())
    }

    /// Keeps a row for each of the requests it answers; tells its own key.
    fn push(&mut self, document: &RawDocument, requests: impl Iterator<Item = u32>) -> Result<(), Fault> {
        let stored = Stored::read(document)?;
        let start = self.bytes.len();
        stored.push_key(&mut self.bytes)?;
        let key = (start, self.bytes.len());
        let row = stored.row.map(|row| self.copy(row));
        for request in requests {
            self.rows.push(FoundRow { request, key, row, schema: stored.schema, position: stored.position });
        }
        if self.bytes.len() > self.room { Err(Fault::TooManyRows(self.bytes_max)) } else { Ok(()) }
    }

    /// By request, then by key; without the positions unless they are asked for.
    fn give(mut self, out: &mut RowArena, with_positions: bool) {
        let Self { bytes, rows, .. } = &mut self;
        rows.sort_by(|a, b| (a.request, &bytes[a.key.0..a.key.1]).cmp(&(b.request, &bytes[b.key.0..b.key.1])));
        for found in rows {
            let position = if with_positions { found.position } else { SourcePosition::default() };
            let row = found.row.map(|(start, end)| &bytes[start..end]);
            out.push(found.request as usize, &bytes[found.key.0..found.key.1], position, found.schema, row);
        }
    }
}

/// Some keys of a request as they are stored, each with the places it was asked for at.
struct Asked {
    keys: Vec<String>,
    requests: HashMap<String, Vec<u32>>,
    /// Place behind the last of them.
    end: usize,
}

impl Asked {
    /// The keys from number `from` on: up to so many, and as many as a query holds.
    fn new(keys: &ByteList, from: usize, most: usize, stored: impl Fn(&[u8]) -> String) -> Self {
        let mut asked = Self { keys: Vec::new(), requests: HashMap::new(), end: from };
        let mut bytes = 0;
        for at in from..keys.len() {
            let key = stored(keys.get(at));
            bytes += key.len();
            if at > from && (at - from >= most || bytes > ASKED_BYTES) {
                break;
            }
            let places = asked.requests.entry(key).or_insert_with_key(|key| {
                asked.keys.push(key.clone());
                Vec::with_capacity(1)
            });
            places.push(u32::try_from(at).expect("far fewer keys are read at once"));
            asked.end = at + 1;
        }
        asked
    }

    fn requests(&self, key: &str) -> impl Iterator<Item = u32> {
        self.requests.get(key).into_iter().flatten().copied()
    }

    /// Writes the condition of a query that finds `field` among the keys.
    fn filter(&self, command: &mut Writer, field: &str) {
        command.within(DOCUMENT, "filter", |filter| {
            filter.within(DOCUMENT, field, |condition| {
                condition.array("$in", STRING, &self.keys, |writer, key| writer.text_value(key));
            });
        });
    }
}

fn find(server: &Server, collection: &str, write: impl FnOnce(&mut Writer)) -> RawDocumentBuf {
    server.bounded_command("find", collection, |command| {
        write(command);
        command.int("batchSize", BATCH_MAX);
    })
}

pub(super) async fn by_key(
    server: &Server,
    session: &mut ClientSession,
    collection: &str,
    keys: &ByteList,
    from: usize,
    out: &mut RowArena,
) -> Result<usize, Fault> {
    let (mut next, mut most) = (from, ASKED_KEYS);
    // Who reads on into an arena that is full gets the next key nevertheless.
    while next < keys.len() && (next == from || !out.is_full()) {
        let none = Found::of(out);
        let (asked, found) =
            ask(server, session, collection, "_id", keys, next, &mut most, text::of, none, |asked, found, document| {
                let id = document.get_str("_id").map_err(|_| BROKEN)?;
                found.push(document, asked.requests(id))
            })
            .await?;
        found.give(out, true);
        next = asked.end;
    }
    Ok(next)
}

pub(super) async fn by_join(
    server: &Server,
    session: &mut ClientSession,
    collection: &str,
    number: u32,
    join_keys: &ByteList,
    from: usize,
    out: &mut RowArena,
) -> Result<usize, Fault> {
    let stored = |key: &[u8]| stored_join(number, key);
    let (mut next, mut most) = (from, ASKED_KEYS);
    while next < join_keys.len() && (next == from || !out.is_full()) {
        let none = Found::of(out);
        // A row with several of the keys is found for each of them, and with each query that asks for one.
        let (asked, found) = ask(
            server,
            session,
            collection,
            "j",
            join_keys,
            next,
            &mut most,
            &stored,
            none,
            |asked, found, document| {
                let own = document.get_array("j").map_err(|_| BROKEN)?.into_iter();
                let requests = own.flatten().filter_map(|key| key.as_str()).flat_map(|key| asked.requests(key));
                found.push(document, requests)
            },
        )
        .await?;
        found.give(out, false);
        next = asked.end;
    }
    Ok(next)
}

/// Gives the rows found by the join keys to `visit`, whenever so many are there as are read at a time, and at the end.
/// They belong to no key, so that however many come, the query goes on.
pub(super) async fn visit_by_join(
    server: &Server,
    session: &mut ClientSession,
    collection: &str,
    number: u32,
    join_keys: &ByteList,
    visit: &mut dyn FnMut(&RowArena),
) -> Result<(), Fault> {
    let (mut found, mut key, mut next) = (RowArena::default(), Vec::new(), 0);
    while next < join_keys.len() {
        let asked = Asked::new(join_keys, next, ASKED_KEYS, |join_key| stored_join(number, join_key));
        let each = |document: &RawDocument| {
            let stored = Stored::read(document)?;
            key.clear();
            stored.push_key(&mut key)?;
            found.push(0, &key, SourcePosition::default(), stored.schema, stored.row);
            if found.is_full() {
                visit(&found);
                found.clear();
            }
            Ok(())
        };
        // The server's limit would be for all that the query takes. A transaction that takes too long it ends anyway.
        let query = Writer::document(|command| {
            command.text("find", collection);
            asked.filter(command, "j");
            command.int("batchSize", BATCH_MAX);
        });
        server.read_in_steps(query, session, each).await?;
        next = asked.end;
    }
    if !found.slots().is_empty() {
        visit(&found);
    }
    Ok(())
}

/// A join key as rows hold it.
fn stored_join(number: u32, key: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(key.len() + 8);
    push_join(&mut bytes, number, key);
    String::from_utf8(bytes).expect("the string form of a key is UTF-8")
}

/// Asks for as many keys from number `from` on as one query holds and as bring no more rows than an arena takes at a
/// time: rows come in any order, so that where they are too many, none of them counts and fewer keys are asked for, now
/// and later (`most`).
#[allow(clippy::too_many_arguments, reason = "what a query is made of")]
async fn ask(
    server: &Server,
    session: &mut ClientSession,
    collection: &str,
    field: &str,
    keys: &ByteList,
    from: usize,
    most: &mut usize,
    stored: impl Fn(&[u8]) -> String,
    none: Found,
    push: impl Fn(&Asked, &mut Found, &RawDocument) -> Result<(), Fault>,
) -> Result<(Asked, Found), Fault> {
    loop {
        let asked = Asked::new(keys, from, *most, &stored);
        let mut found = none.clone();
        let query = find(server, collection, |command| asked.filter(command, field));
        let whole = server.read_while(query, Some(&mut *session), |document| {
            push(&asked, &mut found, document)?;
            Ok(asked.keys.len() == 1 || found.bytes.len() < READ_BYTES)
        });
        if whole.await? {
            return Ok((asked, found));
        }
        *most = (asked.end - from) / 2;
    }
}

pub(super) async fn scan(
    server: &Server,
    session: &mut ClientSession,
    collection: &str,
    after: Option<&[u8]>,
    limit: usize,
    out: &mut RowArena,
) -> Result<(), Fault> {
    let query = find(server, collection, |command| {
        command.within(DOCUMENT, "filter", |filter| {
            if let Some(after) = after {
                filter.within(DOCUMENT, "_id", |condition| condition.text("$gt", &text::of(after)));
            }
        });
        command.within(DOCUMENT, "sort", |sort| sort.int("_id", 1));
        command.int("limit", i64::try_from(limit).unwrap_or(i64::MAX));
    });
    let mut found = Found::of(out);
    let each = |document: &RawDocument| {
        found.push(document, std::iter::once(0))?;
        Ok(found.bytes.len() < READ_BYTES)
    };
    server.read_while(query, Some(session), each).await?;
    found.give(out, true);
    Ok(())
}

/// About how many rows a collection has, from what the server knows without looking.
pub(super) async fn about(server: &Server, collection: &str) -> Result<u64, Fault> {
    let counted = server.database.run_raw_command(server.bounded_command("count", collection, |_| {})).await?;
    let number = counted.get_i32("n").map(i64::from).or_else(|_| counted.get_i64("n"));
    number.ok().and_then(|n| u64::try_from(n).ok()).ok_or(Fault::Damaged("the number of rows cannot be read"))
}
