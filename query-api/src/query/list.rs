//! A query of a list: which index is walked, what is looked at besides, and where it goes on.

use headwater_schemas::model::ModelShape;
use headwater_store::{Cursor, DocumentReader, Filter, IndexQuery, KeyRange, Page, VersionId};
use sha2::{Digest, Sha256};

use super::condition::{Condition, Rank, Wanted};
use super::cursor::{FINGERPRINT_LEN, Fingerprint};
use super::ranges::Ranges;
use super::unknown_index;
use crate::context::ReadContext;
use crate::problem::Problem;
use crate::projection::contains_text;

/// Entries counted to find out which of several conditions leaves fewest documents.
const PROBE_MAX: u64 = 256;
/// Entries counted for an estimate.
const ESTIMATE_MAX: u64 = 1_000;
/// Reads of the store for one page whose documents are looked into.
const READS_MAX: usize = 64;
/// Walk number of a walk along ids.
const IDS: u16 = u16::MAX;

/// The order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sort {
    index: u16,
    descending: bool,
}

impl Sort {
    /// By the index named `path`; `parameter` is what the reader calls it.
    pub(crate) fn new(shape: &ModelShape, path: &str, descending: bool, parameter: &str) -> Result<Self, Problem> {
        match shape.index(path) {
            Some((index, declared)) if !declared.many => Ok(Self { index, descending }),
            Some(_) => Err(Problem::parameter(
                parameter,
                format!("{} cannot be sorted by `{path}`: a document has any number of them", shape.model),
            )),
            None => Err(unknown_index(shape, path, parameter, "sorted")),
        }
    }
}

/// How many documents there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// So many.
    Exact(u64),
    /// So many or more.
    AtLeast(u64),
}

/// What is asked of a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListRequest<'a> {
    /// Whose documents.
    pub(crate) version: VersionId,
    /// What they look like.
    pub(crate) shape: &'a ModelShape,
    /// What every document on the list meets.
    pub(crate) conditions: &'a [Condition],
    /// The order.
    pub(crate) sort: Option<Sort>,
    /// A cursor of an earlier page.
    pub(crate) after: Option<&'a str>,
    /// Documents on the page, at most.
    pub(crate) limit: usize,
}

/// A list that was asked for, ready to be read.
#[derive(Debug)]
pub(crate) struct ListQuery {
    version: VersionId,
    index_query: IndexQuery,
    walk: u16,
    fingerprint: Fingerprint,
    /// Path and text of each `contains`.
    contains: Vec<(Vec<Vec<u8>>, String)>,
}

impl ListQuery {
    /// Chooses the walk: along the sorted index, or else along the one whose condition leaves fewest documents, or else
    /// along ids. A page that goes on behind another keeps the walk chosen then.
    pub(crate) async fn new(
        reader: &dyn DocumentReader,
        wanted: ListRequest<'_>,
        context: &ReadContext,
    ) -> Result<Self, Problem> {
        let ListRequest { version, shape, conditions, sort, after, limit } = wanted;
        let fingerprint = fingerprint(shape, version, conditions, sort);
        let after = match after {
            Some(text) => Some(open(context, &fingerprint, text)?),
            None => None,
        };
        let contains: Vec<_> = conditions.iter().filter_map(|condition| containing(shape, condition)).collect();
        if !contains.is_empty() && conditions.iter().all(|condition| condition.rank == Rank::Most) {
            let path = conditions.iter().find(|condition| matches!(condition.wanted, Wanted::Containing(_)));
            let path = path.map_or("", |condition| &shape.indexes[usize::from(condition.index)].name);
            return Err(Problem::parameter(
                format!("filter[{path}][contains]"),
                "`contains` looks into documents one by one: add a condition with eq, in, startsWith, gt, gte, lt or lte",
            ));
        }
        let mut filters = filters(conditions);
        let walk = match (&after, sort) {
            (Some((walk, _)), _) => *walk,
            (None, Some(sort)) => sort.index,
            (None, None) => most_selective(reader, version, conditions, &filters, context).await?,
        };
        let walked = (walk != IDS).then(|| {
            let at = filters.iter().position(|filter| filter.index == walk && !filter.negated);
            let everything = || Filter { index: walk, ranges: vec![KeyRange::default()], negated: false };
            at.map_or_else(everything, |at| filters.swap_remove(at))
        });
        let index_query = IndexQuery {
            walk: walked,
            descending: sort.is_some_and(|sort| sort.descending),
            filters,
            after: after.map(|(_, place)| place),
            limit,
            entries_max: context.entries_max,
        };
        Ok(Self { version, index_query, walk, fingerprint, contains })
    }

    /// What the store is asked.
    pub(crate) fn index_query(&self) -> &IndexQuery {
        &self.index_query
    }

    /// The next page. It can be short although there is a next one, when conditions pass few documents.
    pub(crate) async fn page(&self, reader: &dyn DocumentReader) -> Result<Page, Problem> {
        if self.contains.is_empty() {
            return Ok(reader.query(self.version, &self.index_query).await?);
        }
        let mut query = self.index_query.clone();
        let mut page = Page { documents: Vec::new(), next: None };
        // All reads together look at no more entries than one may.
        query.entries_max = (query.entries_max / READS_MAX).max(1);
        for _ in 0..READS_MAX {
            query.limit = self.index_query.limit - page.documents.len();
            let read = reader.query(self.version, &query).await?;
            for (id, document) in read.documents {
                if self.is_contained(&document.body)? {
                    page.documents.push((id, document));
                }
            }
            page.next = read.next;
            if page.next.is_none() || page.documents.len() == self.index_query.limit {
                break;
            }
            query.after.clone_from(&page.next);
        }
        Ok(page)
    }

    fn is_contained(&self, document: &[u8]) -> Result<bool, Problem> {
        for (path, text) in &self.contains {
            if !contains_text(document, path, text)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How many documents the whole list has, counted up to `limit`; `None` when they cannot be counted within the
    /// work a query may do.
    pub(crate) async fn count(&self, reader: &dyn DocumentReader, limit: u64) -> Result<Option<Count>, Problem> {
        if !self.contains.is_empty() {
            return Ok(None);
        }
        let everything = |filter: &Filter| filter.ranges == [KeyRange::default()];
        if self.index_query.filters.is_empty() && self.index_query.walk.as_ref().is_none_or(everything) {
            return Ok(Some(Count::Exact(reader.document_count(self.version).await?)));
        }
        let counted = IndexQuery { after: None, descending: false, ..self.index_query.clone() };
        let count = reader.count(self.version, &counted, limit).await?;
        Ok(Some(if count < limit { Count::Exact(count) } else { Count::AtLeast(count) }))
    }

    /// About how many documents the whole list has.
    pub(crate) async fn estimate(&self, reader: &dyn DocumentReader) -> Result<Option<Count>, Problem> {
        self.count(reader, ESTIMATE_MAX).await
    }

    /// The cursor that goes on behind `place`.
    pub(crate) fn cursor(&self, place: &Cursor, context: &ReadContext) -> String {
        let mut bytes = Vec::with_capacity(6 + place.value.len() + place.id.len());
        bytes.extend_from_slice(&self.walk.to_be_bytes());
        bytes.extend_from_slice(&(place.value.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&place.value);
        bytes.extend_from_slice(&place.id);
        context.cursors.seal(&self.fingerprint, &bytes)
    }
}

fn open(context: &ReadContext, fingerprint: &Fingerprint, text: &str) -> Result<(u16, Cursor), Problem> {
    let opened = context.cursors.open(fingerprint, text);
    opened.as_deref().and_then(split).ok_or_else(|| {
        let detail = "this `after` is not a cursor of this query, or the model has a new version since; start again \
                      without it, and change nothing but `after`, `limit`, `fields` and `count` between pages";
        Problem { code: "invalid_cursor", ..Problem::parameter("after", detail) }
    })
}

fn split(bytes: &[u8]) -> Option<(u16, Cursor)> {
    let (walk, rest) = bytes.split_first_chunk()?;
    let (value_len, rest) = rest.split_first_chunk()?;
    let (value, id) = rest.split_at_checked(u32::from_be_bytes(*value_len) as usize)?;
    Some((u16::from_be_bytes(*walk), Cursor { value: value.to_vec(), id: id.to_vec() }))
}

/// What the store checks: of each index one filter for all that one value must meet, and one for each of what no value
/// may meet.
fn filters(conditions: &[Condition]) -> Vec<Filter> {
    let mut within: Vec<(u16, Ranges)> = Vec::new();
    let mut filters = Vec::new();
    for condition in conditions {
        match &condition.wanted {
            Wanted::Within(ranges) => match within.iter_mut().find(|(index, _)| *index == condition.index) {
                Some((_, all)) => *all = all.and(ranges),
                None => within.push((condition.index, ranges.clone())),
            },
            Wanted::Without(ranges) => {
                filters.push(Filter { index: condition.index, ranges: ranges.clone().into_inner(), negated: true });
            }
            Wanted::Containing(_) => {}
        }
    }
    let positive = |(index, ranges): (u16, Ranges)| Filter { index, ranges: ranges.into_inner(), negated: false };
    filters.extend(within.into_iter().map(positive));
    filters
}

/// The index to walk: where several conditions could leave few documents, a glance at each tells.
async fn most_selective(
    reader: &dyn DocumentReader,
    version: VersionId,
    conditions: &[Condition],
    filters: &[Filter],
    context: &ReadContext,
) -> Result<u16, Problem> {
    let rank = |filter: &Filter| {
        conditions.iter().filter(|condition| condition.index == filter.index).map(|condition| condition.rank).min()
    };
    let mut candidates: Vec<&Filter> = filters.iter().filter(|filter| !filter.negated).collect();
    candidates.sort_by_key(|filter| rank(filter));
    let [first, others @ ..] = candidates.as_slice() else { return Ok(IDS) };
    if others.is_empty() {
        return Ok(first.index);
    }
    let mut best = (u64::MAX, first.index);
    for candidate in candidates {
        let probe = IndexQuery {
            walk: Some(candidate.clone()),
            descending: false,
            filters: Vec::new(),
            after: None,
            limit: 0,
            entries_max: context.entries_max.min(PROBE_MAX as usize),
        };
        let count = reader.count(version, &probe, PROBE_MAX.min(best.0)).await?;
        if count < best.0 {
            best = (count, candidate.index);
        }
    }
    Ok(best.1)
}

fn containing(shape: &ModelShape, condition: &Condition) -> Option<(Vec<Vec<u8>>, String)> {
    match &condition.wanted {
        Wanted::Containing(text) => {
            let name = &shape.indexes[usize::from(condition.index)].name;
            Some((name.split('.').map(|part| part.as_bytes().to_vec()).collect(), text.clone()))
        }
        _ => None,
    }
}

fn fingerprint(shape: &ModelShape, version: VersionId, conditions: &[Condition], sort: Option<Sort>) -> Fingerprint {
    let mut hash = Sha256::new();
    // Every part behind its length, so that no two queries read the same.
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(shape.model.as_bytes());
    part(&version.0.to_be_bytes());
    for condition in conditions {
        part(&condition.index.to_be_bytes());
        part(condition.asked.0.as_bytes());
        part(&(condition.asked.1.len() as u64).to_be_bytes());
        condition.asked.1.iter().for_each(|value| part(value.as_bytes()));
    }
    if let Some(sort) = sort {
        part(b"sort");
        part(&sort.index.to_be_bytes());
        part(&[u8::from(sort.descending)]);
    }
    let digest = hash.finalize();
    let mut fingerprint = [0; FINGERPRINT_LEN];
    fingerprint.copy_from_slice(&digest[..FINGERPRINT_LEN]);
    fingerprint
}
