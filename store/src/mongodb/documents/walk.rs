//! Queries: a walk over the entries of an index, or over ids, by ranges of one index of the server.
//!
//! Entries lie in an array of their document, under a multikey index `(entry, id)` and one in the other direction. A scan of
//! a range of it meets the documents in the order of their first entries there, each once. The server promises no order
//! without a sort, and would sort an array by its least element overall, not in the range: so the index is named in the
//! query, which scans it as it lies, and the order of what comes is checked.
//!
//! All steps of a query read one snapshot: that of the session, which each of them must also ask for by name, or the driver
//! keeps to the concern it was set up with. A step fetches a bounded number of documents; conditions are checked here, on
//! their entries, so that the work is bounded whatever they pass.

use std::collections::{HashMap, VecDeque};

use mongodb::ClientSession;
use mongodb::bson::{RawDocument, RawDocumentBuf, doc};
use mongodb::options::{Hint, ReadConcern};

use super::flush::{ENTRIES_DOWN, ENTRIES_UP};
use super::stored::{self, entry, entry_value};
use super::window::{TextFilter, Window, windows};
use crate::mongodb::server::{Fault, Server};
use crate::mongodb::text;
use crate::{Counted, Cursor, Document, IndexQuery, Page};

/// Documents fetched in one step.
const STEP_MAX: usize = 1_000;

/// At first where conditions may pass few.
const STEP_FILTERED: usize = 64;

/// How a walk ended.
enum End {
    /// There is nothing more.
    Finished,
    /// The visitor has enough.
    Stopped,
    /// The budget is used up; the place reached.
    Budget(Cursor),
}

/// What a walk has found. Entry and id as they are stored.
struct Found<'f> {
    entry: &'f str,
    id: &'f str,
    document: &'f RawDocument,
}

/// Documents that were fetched in one step.
struct Fetched {
    documents: Vec<RawDocumentBuf>,
    /// Whether there may be more of them.
    more: bool,
}

struct Walk<'w> {
    server: &'w Server,
    collection: &'w str,
    query: &'w IndexQuery,
    session: ClientSession,
    filter: Option<TextFilter>,
    conditions: Vec<TextFilter>,
    /// What is still to be walked, in the walk's direction.
    windows: VecDeque<Window>,
}

impl<'w> Walk<'w> {
    async fn new(server: &'w Server, collection: &'w str, query: &'w IndexQuery) -> Result<Self, Fault> {
        let session = server.client().start_session().snapshot(true).await?;
        let filter = query.walk.as_ref().map(TextFilter::new);
        let mut windows = match &filter {
            None => vec![Window::Ids { after: None }],
            Some(filter) => windows(filter),
        };
        if query.descending {
            windows.reverse();
        }
        if let Some(Cursor { value, id }) = &query.after {
            let entry = query.walk.as_ref().map_or_else(String::new, |walk| entry(walk.index, value));
            let id = text::of(id);
            windows = windows.iter().flat_map(|window| window.behind(&entry, &id, query.descending)).collect();
        }
        let conditions = query.filters.iter().map(TextFilter::new).collect();
        Ok(Self { server, collection, query, session, filter, conditions, windows: windows.into() })
    }

    /// Fetches some documents of a window: with what a reader gets, or with their entries only. Fewer than `limit`
    /// where they have more bytes than a page.
    async fn fetch(&mut self, window: &Window, limit: usize, bodies: bool) -> Result<Fetched, Fault> {
        let descending = self.query.descending;
        let collection = self.server.database.collection::<RawDocumentBuf>(self.collection);
        let mut find = collection.find(window.filter(descending));
        find = find.projection(if bodies {
            doc! { "_hw.e": 1, "_hw.json": 1, "_hw.stamp": 1, "_hw.as_of": 1 }
        } else {
            doc! { "_hw.e": 1 }
        });
        find = match window {
            Window::Ids { .. } => {
                find.hint(Hint::Name("_id_".into())).sort(doc! { "_id": if descending { -1 } else { 1 } })
            }
            _ => find.hint(Hint::Name(if descending { ENTRIES_DOWN } else { ENTRIES_UP }.into())),
        };
        find = find.read_concern(ReadConcern::snapshot());
        find = find.limit(i64::try_from(limit).unwrap_or(i64::MAX));
        find = find.batch_size(u32::try_from(limit).unwrap_or(u32::MAX).max(2));
        let mut cursor = find.max_time(self.server.operation_max()).session(&mut self.session).await?;
        let (mut documents, mut bytes) = (Vec::new(), 0);
        while cursor.advance(&mut self.session).await? {
            let document = cursor.current().to_owned();
            bytes += document.as_bytes().len();
            documents.push(document);
            if bytes > self.query.bytes_max {
                return Ok(Fetched { documents, more: true });
            }
        }
        let more = documents.len() == limit;
        Ok(Fetched { documents, more })
    }

    /// Walks on until `found` says that it is enough, which it does by `false`. `wanted` is how many it wants at least.
    async fn walk(
        &mut self,
        wanted: usize,
        bodies: bool,
        mut found: impl FnMut(Found<'_>) -> Result<bool, Fault>,
    ) -> Result<End, Fault> {
        let descending = self.query.descending;
        let mut budget = self.query.entries_max.max(1);
        let mut reached: Option<(String, String)> = None;
        let mut step = if self.conditions.is_empty() { wanted } else { wanted.max(STEP_FILTERED) }.clamp(1, STEP_MAX);
        while let Some(window) = self.windows.pop_front() {
            // One more than may be looked at shows whether there is more.
            let limit = step.min(budget.saturating_add(1));
            let Fetched { documents, more } = self.fetch(&window, limit, bodies).await?;
            step = (step * 2).min(STEP_MAX);
            for document in &documents {
                if let Some((entry, id)) = reached.as_ref().filter(|_| budget == 0) {
                    return Ok(End::Budget(self.cursor(entry, id)?));
                }
                budget -= 1;
                let id = document.get_str("_id").map_err(|_| stored::BROKEN)?;
                let entries = stored::entries(document)?;
                let entry = match &self.filter {
                    None => "",
                    Some(_) => window.met(&entries, descending).ok_or_else(out_of_order)?,
                };
                let forward = reached.as_ref().is_none_or(|(before, before_id)| {
                    let (before, now) = ((before.as_str(), before_id.as_str()), (entry, id));
                    if descending { now < before } else { now > before }
                });
                if !forward {
                    return Err(out_of_order());
                }
                reached = Some((entry.to_owned(), id.to_owned()));
                let passes = self.is_first(entry, &entries)
                    && self.conditions.iter().all(|condition| condition.matches(&entries));
                if passes && !found(Found { entry, id, document })? {
                    return Ok(End::Stopped);
                }
            }
            if let Some((entry, id)) = reached.as_ref().filter(|_| more) {
                for rest in window.behind(entry, id, descending).into_iter().rev() {
                    self.windows.push_front(rest);
                }
            }
        }
        Ok(End::Finished)
    }

    /// Whether the walk meets a document at `entry` before it meets it at any other of its entries.
    fn is_first(&self, entry: &str, entries: &[&str]) -> bool {
        let Some(filter) = &self.filter else { return true };
        let mut others = entries.iter().filter(|other| filter.within(other));
        let first = if self.query.descending { others.next_back() } else { others.next() };
        first.is_some_and(|first| *first == entry)
    }

    fn cursor(&self, entry: &str, id: &str) -> Result<Cursor, Fault> {
        let value = if self.filter.is_some() { entry_value(entry)? } else { Vec::new() };
        Ok(Cursor { value, id: decoded(id)? })
    }

    /// Documents by id, as of the same moment: of as many of the first ids as one page has room for, and how many that
    /// is.
    async fn documents(&mut self, ids: &[String]) -> Result<(HashMap<String, Document>, usize), Fault> {
        let mut documents = HashMap::with_capacity(ids.len());
        let (mut taken, mut bytes, mut step) = (0, 0, STEP_MAX);
        while taken < ids.len() {
            let some = &ids[taken..ids.len().min(taken + step)];
            // The first has room whatever its size.
            let is_first = taken == 0 && some.len() == 1;
            let room = if is_first { usize::MAX } else { self.query.bytes_max.saturating_sub(bytes) };
            match self.documents_within(some, room).await? {
                Some(found) => {
                    bytes += found.values().map(|document| document.body.len()).sum::<usize>();
                    taken += some.len();
                    documents.extend(found);
                }
                None if some.len() == 1 => break,
                // They do not come in the order of the page: nobody knows which of them there is room for.
                None => step = some.len() / 2,
            }
        }
        Ok((documents, taken))
    }

    /// Documents by id, as of the same moment; `None`: they have more bytes than there is room for.
    async fn documents_within(
        &mut self,
        ids: &[String],
        room: usize,
    ) -> Result<Option<HashMap<String, Document>>, Fault> {
        let (mut documents, mut bytes) = (HashMap::with_capacity(ids.len()), 0);
        let collection = self.server.database.collection::<RawDocumentBuf>(self.collection);
        let find = collection.find(doc! { "_id": { "$in": ids } });
        let find = find.projection(doc! { "_hw.json": 1, "_hw.stamp": 1, "_hw.as_of": 1 });
        let find = find.read_concern(ReadConcern::snapshot());
        let find = find.max_time(self.server.operation_max()).session(&mut self.session);
        let mut cursor = find.await?;
        while cursor.advance(&mut self.session).await? {
            let id = cursor.current().get_str("_id").map_err(|_| stored::BROKEN)?;
            let document = stored::read(cursor.current())?;
            bytes += document.body.len();
            if bytes > room {
                return Ok(None);
            }
            documents.insert(id.to_owned(), document);
        }
        Ok(Some(documents))
    }
}

fn out_of_order() -> Fault {
    Fault::Refused(
        "the server gave index entries out of their order; collections of documents must not be sharded".into(),
    )
}

fn decoded(id: &str) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::with_capacity(id.len());
    if text::decode(&mut bytes, id) { Ok(bytes) } else { Err(stored::BROKEN) }
}

/// The documents of a page.
pub(super) async fn page(server: &Server, collection: &str, query: &IndexQuery) -> Result<Page, Fault> {
    let mut walk = Walk::new(server, collection, query).await?;
    // Where conditions may refuse most, bodies are fetched only of those that pass.
    let bodies = query.filters.is_empty();
    // Entry, id and document.
    let mut found: Vec<(String, String, Option<Document>)> = Vec::with_capacity(query.limit.min(STEP_MAX));
    let mut size = 0;
    let end = walk.walk(query.limit.saturating_add(1), bodies, |it| {
        // One more than the page holds shows that there is a next one.
        if found.len() == query.limit {
            return Ok(false);
        }
        let document = if bodies { Some(stored::read(it.document)?) } else { None };
        size += document.as_ref().map_or(0, |document| document.body.len());
        if size > query.bytes_max && !found.is_empty() {
            return Ok(false);
        }
        found.push((it.entry.to_owned(), it.id.to_owned(), document));
        Ok(true)
    });
    let mut end = end.await?;
    let mut fetched = HashMap::new();
    if !bodies {
        let ids: Vec<String> = found.iter().map(|(_, id, _)| id.clone()).collect();
        let (documents, taken) = walk.documents(&ids).await?;
        if taken < found.len() {
            found.truncate(taken);
            end = End::Stopped;
        }
        fetched = documents;
    }
    let next = match (end, found.last()) {
        (End::Finished, _) => None,
        (End::Budget(reached), _) => Some(reached),
        (End::Stopped, Some((entry, id, _))) => Some(walk.cursor(entry, id)?),
        (End::Stopped, None) => query.after.clone(),
    };
    let mut documents = Vec::with_capacity(found.len());
    for (_, id, document) in found {
        let document = document.or_else(|| fetched.remove(&id)).ok_or(stored::BROKEN)?;
        documents.push((decoded(&id)?, document));
    }
    Ok(Page { documents, next })
}

/// How many documents match, up to `limit` and as far as the budget goes.
pub(super) async fn count(server: &Server, collection: &str, query: &IndexQuery, limit: u64) -> Result<Counted, Fault> {
    let mut seen = 0;
    if limit == 0 {
        return Ok(Counted { seen, is_all: false });
    }
    let mut walk = Walk::new(server, collection, query).await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let end = walk.walk(wanted, false, |_| {
        seen += 1;
        Ok(seen < limit)
    });
    let is_all = matches!(end.await?, End::Finished);
    Ok(Counted { seen, is_all })
}
