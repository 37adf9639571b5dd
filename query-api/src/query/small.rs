//! Lists of few documents: what belongs to one caller. They are all read and put in order here, because a walk along
//! another index would pass over everybody else's.

use headwater_schemas::model::IndexShape;
use headwater_store::{Cursor, Document, DocumentReader, Filter, IndexQuery, Page, VersionId};

use crate::access::Visibility;
use crate::context::ReadContext;
use crate::problem::Problem;
use crate::projection::{Torn, index_keys, walked_key};

/// Documents that are few, at most.
const FEW_MAX: u64 = 500;

/// A list that is about few documents.
#[derive(Debug)]
pub(super) enum Few {
    /// Those with these ids.
    Ids(Vec<Vec<u8>>),
    /// Those found by this.
    Own(Filter),
}

type Found = Vec<(Vec<u8>, Document)>;

impl Few {
    /// Whether what is left by `ids` and `restrictions` is few, and is not found in its order anyway.
    pub(super) async fn new(
        reader: &dyn DocumentReader,
        version: VersionId,
        ids: Option<Vec<Vec<u8>>>,
        restrictions: &[Filter],
        sorted: bool,
        context: &ReadContext,
    ) -> Result<Option<Self>, Problem> {
        if let Some(ids) = ids {
            return Ok(Some(Self::Ids(ids)));
        }
        let (Some(own), true) = (restrictions.first(), sorted) else { return Ok(None) };
        let probe = IndexQuery {
            walk: Some(own.clone()),
            descending: false,
            filters: Vec::new(),
            after: None,
            limit: 0,
            entries_max: context.entries_max,
            bytes_max: context.documents_bytes_max,
        };
        let counted = reader.count(version, &probe, FEW_MAX + 1).await?;
        Ok(counted.is_all.then(|| Self::Own(own.clone())))
    }

    /// Every one of them that the query's conditions leave; `None`: there is no room for all of them.
    pub(super) async fn read(
        &self,
        reader: &dyn DocumentReader,
        visibility: &Visibility,
        query: &IndexQuery,
    ) -> Result<Option<Found>, Problem> {
        let version = visibility.version;
        match self {
            Self::Ids(ids) => {
                let Some(found) = reader.get_many(version, ids, query.bytes_max).await? else { return Ok(None) };
                let mut left = Vec::with_capacity(ids.len());
                for (id, document) in ids.iter().zip(found) {
                    if let Some(document) = document
                        && matches(visibility, query, &document.body)?
                    {
                        left.push((id.clone(), document));
                    }
                }
                Ok(Some(left))
            }
            Self::Own(own) => {
                let all = IndexQuery {
                    walk: Some(own.clone()),
                    descending: false,
                    filters: query.filters.iter().chain(&query.walk).cloned().collect(),
                    after: None,
                    limit: FEW_MAX as usize,
                    entries_max: query.entries_max,
                    bytes_max: query.bytes_max,
                };
                let Page { documents, next } = reader.query(version, &all).await?;
                Ok(next.is_none().then_some(documents))
            }
        }
    }

    /// The page of these documents that the query asks for; `walked` is the index it is in the order of.
    pub(super) fn page(&self, found: Found, query: &IndexQuery, walked: Option<&IndexShape>) -> Result<Page, Problem> {
        let mut placed = Vec::with_capacity(found.len());
        for (id, document) in found {
            let value = match (&query.walk, walked) {
                (Some(walk), Some(index)) => {
                    walked_key(&document.body, &index.name, &index.kind, walk, query.descending)?
                }
                _ => Vec::new(),
            };
            placed.push((value, id, document));
        }
        placed.sort_unstable_by(|(value, id, _), (other_value, other_id, _)| (value, id).cmp(&(other_value, other_id)));
        if query.descending {
            placed.reverse();
        }
        if let Some(after) = &query.after {
            let is_behind = |value: &Vec<u8>, id: &Vec<u8>| {
                let order = (value, id).cmp(&(&after.value, &after.id));
                if query.descending { order.is_lt() } else { order.is_gt() }
            };
            placed.retain(|(value, id, _)| is_behind(value, id));
        }
        let more = placed.len() > query.limit;
        placed.truncate(query.limit);
        let last = placed.last().filter(|_| more);
        let next = last.map(|(value, id, _)| Cursor { value: value.clone(), id: id.clone() });
        Ok(Page { documents: placed.into_iter().map(|(_, id, document)| (id, document)).collect(), next })
    }
}

/// Whether a document meets the conditions of a query, by its own bytes. They are looked through once for each index.
pub(super) fn matches(visibility: &Visibility, query: &IndexQuery, body: &[u8]) -> Result<bool, Torn> {
    let mut found: Vec<(u16, Vec<Vec<u8>>)> = Vec::new();
    for filter in query.filters.iter().chain(&query.walk) {
        let at = match found.iter().position(|(index, _)| *index == filter.index) {
            Some(at) => at,
            None => {
                found.push((filter.index, visibility.keys(filter.index, body)?));
                found.len() - 1
            }
        };
        if !filter.matches(found[at].1.iter().map(|key| (filter.index, key.as_slice()))) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Visibility {
    /// The values a stored document has in an index, shown or not.
    fn keys(&self, number: u16, body: &[u8]) -> Result<Vec<Vec<u8>>, Torn> {
        let (path, kind) = self.stored_index(number).ok_or(Torn)?;
        index_keys(body, path, kind)
    }
}
