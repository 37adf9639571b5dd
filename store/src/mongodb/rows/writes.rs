//! Rows that are to be written or removed: gathered per collection, sent many at a time.

use std::collections::HashMap;

use mongodb::ClientSession;
use mongodb::bson::{Bson, RawDocumentBuf};

use crate::mongodb::bson::{ARRAY, BOOLEAN, DOCUMENT, NULL, STRING, Writer};
use crate::mongodb::server::{Fault, Server};
use crate::mongodb::text;
use crate::{Error, RowWrite};

/// Bytes of rows that are sent at once, and kept before they are.
const SENT_BYTES: usize = 4 << 20;

/// Rows that are sent at once.
const SENT_ROWS: usize = 2_000;

/// Greatest size of a row with its keys: the server's 16 MiB of a document, less what a command has around it, and less
/// room for the join keys of indexes that are made later, which are added to the rows that are there.
const ROW_BYTES_MAX: usize = (16 << 20) - (128 << 10);

/// Whether a row of so many bytes of cells and keys can be written.
pub(super) fn check_size(cells: usize, keys: usize) -> Result<(), Error> {
    // A key may stand twice in a command, and each of its bytes may take two.
    let bytes = cells + 4 * keys;
    if bytes > ROW_BYTES_MAX { Err(Error::RowTooLarge { bytes, limit: ROW_BYTES_MAX }) } else { Ok(()) }
}

/// Rows of one collection. The last write of a key counts.
#[derive(Default)]
pub(super) struct Writes {
    documents: Writer,
    /// Where each document lies; those that were written over are gone from here.
    spans: Vec<Option<Span>>,
    by_key: HashMap<Vec<u8>, usize>,
}

/// Where the document of a row lies, or, of one that is removed, a document of its `_id` alone.
struct Span {
    start: usize,
    end: usize,
    removes: bool,
}

impl Writes {
    /// `joins` are numbers of the join indexes by their place in the caller's list.
    pub(super) fn put(&mut self, write: &RowWrite<'_>, joins: &[u32]) {
        self.gather(write.key, false, |document| {
            document.int("s", i64::from(write.schema.0));
            document.binary("p", &write.position.to_bytes());
            match write.row {
                Some(row) => document.binary("r", row.0),
                None => document.element(NULL, "r"),
            }
            if write.row.is_some() && !write.added.is_empty() {
                document.within(ARRAY, "j", |array| {
                    for (at, (index, key)) in write.added.iter().enumerate() {
                        array.item(STRING, at);
                        array.text_with(|bytes| push_join(bytes, joins[*index], key));
                    }
                });
            }
        });
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        self.gather(key, true, |_| {});
    }

    fn gather(&mut self, key: &[u8], removes: bool, write: impl FnOnce(&mut Writer)) {
        let document = &mut self.documents;
        let start = document.bytes.len();
        let begun = document.begin();
        document.element(STRING, "_id");
        document.text_with(|bytes| text::push(bytes, key));
        write(document);
        document.end(begun);
        let span = Span { start, end: document.bytes.len(), removes };
        let at = self.spans.len();
        self.spans.push(Some(span));
        if let Some(before) = self.by_key.insert(key.to_vec(), at) {
            self.spans[before] = None;
        }
    }

    /// The documents that were gathered to be removed, or those to be written.
    fn gathered(&self, removes: bool) -> impl Iterator<Item = &[u8]> {
        let spans = self.spans.iter().flatten().filter(move |span| span.removes == removes);
        spans.map(move |span| &self.documents.bytes[span.start..span.end])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Whether it is time to send.
    pub(super) fn is_full(&self) -> bool {
        self.documents.bytes.len() > SENT_BYTES || self.spans.len() >= SENT_ROWS
    }

    pub(super) fn byte_len(&self) -> usize {
        self.documents.bytes.len()
    }

    /// Sends them; answers by how many rows there are more.
    pub(super) async fn send(
        &mut self,
        server: &Server,
        session: &mut ClientSession,
        collection: &str,
    ) -> Result<i64, Fault> {
        let mut added = 0;
        for command in replacements(server, collection, self.gathered(false)) {
            let answer = server.write(command, session).await?;
            if let Some(Bson::Array(upserted)) = answer.get("upserted") {
                added += upserted.len() as i64;
            }
        }
        for command in removals(server, collection, self.gathered(true)) {
            let answer = server.write(command, session).await?;
            let removed =
                answer.get_i32("n").map_err(|_| Fault::Damaged("the number of removed rows cannot be read"))?;
            added -= i64::from(removed);
        }
        *self = Self::default();
        Ok(added)
    }
}

/// Commands that replace or insert whole documents, each of which begins with its `_id`.
pub(super) fn replacements<'d>(
    server: &Server,
    collection: &str,
    documents: impl Iterator<Item = &'d [u8]>,
) -> Vec<RawDocumentBuf> {
    commands(server, collection, ["update", "updates"], documents, |update, document| {
        update.element(DOCUMENT, "u");
        update.bytes.extend_from_slice(document);
        update.bool("upsert", true);
    })
}

/// Commands that remove the documents with the `_id`s that these begin with.
fn removals<'d>(server: &Server, collection: &str, documents: impl Iterator<Item = &'d [u8]>) -> Vec<RawDocumentBuf> {
    commands(server, collection, ["delete", "deletes"], documents, |delete, _| delete.int("limit", 1))
}

/// Commands of this name with a list of statements: each names a document by its `_id`, and what `write` adds.
fn commands<'d>(
    server: &Server,
    collection: &str,
    [name, list]: [&str; 2],
    documents: impl Iterator<Item = &'d [u8]>,
    write: impl Fn(&mut Writer, &[u8]),
) -> Vec<RawDocumentBuf> {
    let mut commands = Vec::new();
    let mut documents = documents.peekable();
    while documents.peek().is_some() {
        commands.push(server.bounded_command(name, collection, |command| {
            command.element(BOOLEAN, "ordered");
            command.bytes.push(0);
            command.within(ARRAY, list, |statements| {
                let (start, mut at) = (statements.bytes.len(), 0);
                while let Some(document) =
                    documents.next_if(|next| at == 0 || statements.bytes.len() - start + next.len() < SENT_BYTES)
                {
                    statements.item(DOCUMENT, at);
                    at += 1;
                    let statement = statements.begin();
                    statements.within(DOCUMENT, "q", |query| query.bytes.extend_from_slice(id_element(document)));
                    write(statements, document);
                    statements.end(statement);
                }
            });
        }));
    }
    commands
}

/// The first element, a string, of a document of ours.
fn id_element(document: &[u8]) -> &[u8] {
    let length = &document[4 + 1 + 4..][..4];
    let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
    &document[4..4 + 1 + 4 + 4 + length]
}

/// Appends a join key as it is stored: number of the index, key.
pub(super) fn push_join(out: &mut Vec<u8>, number: u32, key: &[u8]) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(digits.format(number).as_bytes());
    // Ends the number: no digit sorts or reads as part of the key.
    out.push(b'|');
    text::push(out, key);
}
