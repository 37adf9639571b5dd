//! A query of a list: which index is walked, what is looked at besides, and where it goes on. What a caller may see is
//! part of it: conditions that no request names and none can leave out.

use std::sync::Arc;

use headwater_store::{Counted, Cursor, Document, DocumentReader, Filter, IndexQuery, KeyRange, Page};
use sha2::{Digest, Sha256};

use super::condition::{Condition, Rank, Wanted};
use super::containing::Containing;
use super::cursor::{CursorKey, FINGERPRINT_LEN, Fingerprint};
use super::ranges::Ranges;
use super::small::{Few, matches};
use super::unknown_index;
use crate::access::{Bound, Visibility};
use crate::context::ReadContext;
use crate::problem::Problem;
use crate::projection::walked_key;

/// Entries counted to find out which of several conditions leaves fewest documents.
const PROBE_MAX: u64 = 256;
/// Entries counted for an estimate.
const ESTIMATE_MAX: u64 = 1_000;
/// Reads of the store for one page whose documents are looked into.
const READS_MAX: usize = 64;
/// Walk number of a walk along ids.
pub(super) const IDS: u16 = u16::MAX;

/// The order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sort {
    index: u16,
    descending: bool,
}

impl Sort {
    /// By the index named `path`; `parameter` is what the reader calls it.
    pub(crate) fn new(visibility: &Visibility, path: &str, descending: bool, parameter: &str) -> Result<Self, Problem> {
        match visibility.index(path) {
            Some((index, declared)) if !declared.many => Ok(Self { index, descending }),
            Some(_) => Err(Problem::parameter(
                parameter,
                format!("{} cannot be sorted by `{path}`: a document has any number of them", visibility.shape.model),
            )),
            None => Err(unknown_index(visibility, path, parameter, "sorted")),
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
#[derive(Clone, Debug)]
pub(crate) struct ListRequest<'a> {
    /// Whose documents, and what is seen of them.
    pub(crate) visibility: &'a Arc<Visibility>,
    /// Which of them the caller may see.
    pub(crate) bound: Bound,
    /// What every document on the list meets.
    pub(crate) conditions: &'a [Condition],
    /// The order.
    pub(crate) sort: Option<Sort>,
    /// A cursor of an earlier page.
    pub(crate) after: Option<&'a str>,
    /// Documents on the page, at most.
    pub(crate) limit: usize,
}

/// A page of a list, as the caller sees it.
#[derive(Debug)]
pub(crate) struct ListPage {
    /// Ids and documents in order.
    pub(crate) documents: Vec<(Vec<u8>, Document)>,
    /// Where each of them stands, when that was asked for; `None` where it cannot be told.
    pub(crate) places: Vec<Option<Cursor>>,
    /// Where the next page starts; `None` when this is the last, or where that cannot be told.
    pub(crate) next: Option<Cursor>,
    /// Whether there is a next page.
    pub(crate) has_more: bool,
}

/// A list that was asked for, ready to be read.
#[derive(Debug)]
pub(crate) struct ListQuery {
    visibility: Arc<Visibility>,
    index_query: IndexQuery,
    walk: u16,
    fingerprint: Fingerprint,
    /// What no index tells of.
    contains: Vec<Containing>,
    /// The documents it can be about, when they are so few that they are all read.
    few: Option<Few>,
}

impl ListQuery {
    /// Chooses the walk: along the sorted index, or else along the one whose condition leaves fewest documents, or else
    /// along ids. A page that goes on behind another keeps the walk chosen then.
    pub(crate) async fn new(
        reader: &dyn DocumentReader,
        wanted: ListRequest<'_>,
        context: &ReadContext,
    ) -> Result<Self, Problem> {
        let ListRequest { visibility, bound, conditions, sort, after, limit } = wanted;
        let fingerprint = fingerprint(visibility, conditions, sort, context);
        let after = match after {
            Some(text) => Some(open(context, &fingerprint, text)?),
            None => None,
        };
        let mut filters = filters(conditions);
        let contains = Containing::of(visibility, conditions, &filters);
        let containing = conditions.iter().find(|condition| matches!(condition.wanted, Wanted::Containing(_)));
        if let Some(alone) = containing.filter(|_| conditions.iter().all(|condition| condition.rank == Rank::Most)) {
            return Err(Problem::parameter(
                &alone.parameter,
                "`contains` looks into documents one by one: add a condition with eq, in, startsWith, gt, gte, lt or lte",
            ));
        }
        let restrictions: Vec<Filter> = bound.filters.into_iter().map(|of| of.filter).collect();
        let few = Few::new(reader, visibility.version, bound.ids, &restrictions, sort.is_some(), context).await?;
        let walk = match (&after, sort, &few, restrictions.first()) {
            (Some((walk, _)), ..) => *walk,
            (None, Some(sort), ..) => sort.index,
            (None, None, Some(_), _) => IDS,
            // What is the caller's is seldom much.
            (None, None, None, Some(own)) => own.index,
            (None, None, None, None) => {
                most_selective(reader, visibility.version, conditions, &filters, context).await?
            }
        };
        // In front, and apart from what the request asks of the same index: one value may be the caller's and another
        // the one that is asked for.
        filters.splice(0..0, restrictions);
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
            bytes_max: context.documents_bytes_max,
        };
        Ok(Self { visibility: visibility.clone(), index_query, walk, fingerprint, contains, few })
    }

    /// The next page. It can be short although there is a next one, when conditions pass few documents, or when more of
    /// them have too many bytes. With `places` it also tells where each document stands.
    pub(crate) async fn page(
        &self,
        reader: &dyn DocumentReader,
        places: bool,
        context: &ReadContext,
    ) -> Result<ListPage, Problem> {
        let stored = self.stored(reader, context).await?;
        let place = |(id, document): &(Vec<u8>, Document)| self.place(id, &document.body);
        let places = if places { stored.documents.iter().map(place).collect() } else { Vec::new() };
        let show = |(id, document)| Ok((id, self.visibility.show(document)?));
        let documents = stored.documents.into_iter().map(show).collect::<Result<_, Problem>>()?;
        Ok(ListPage { documents, places, has_more: stored.next.is_some(), next: stored.next })
    }

    /// Where a stored document stands in the walk.
    fn place(&self, id: &[u8], body: &[u8]) -> Option<Cursor> {
        let value = match &self.index_query.walk {
            None => Vec::new(),
            Some(walk) => match (self.visibility.numbered(walk.index), walk.ranges.as_slice()) {
                // An index that is not shown is walked for one value of the caller's own.
                (None, [one]) => one.low.clone(),
                (None, _) => return None,
                (Some(index), _) => {
                    walked_key(body, &index.name, &index.kind, walk, self.index_query.descending).ok()?
                }
            },
        };
        Some(Cursor { value, id: id.to_vec() })
    }

    /// The documents of the next page, as they are stored.
    async fn stored(&self, reader: &dyn DocumentReader, context: &ReadContext) -> Result<Page, Problem> {
        if let Some(few) = &self.few {
            match (self.all_of(few, reader, context).await?, few) {
                (Some(found), _) => return few.page(found, &self.index_query, self.walked_index()),
                // The walk has the condition that finds them: it only passes over others.
                (None, Few::Own(_)) => {}
                (None, Few::Ids(ids)) => return Err(Problem::too_large(ids.len(), context.documents_bytes_max)),
            }
        }
        let version = self.visibility.version;
        if self.contains.is_empty() {
            return read(reader, version, &self.index_query, context).await;
        }
        let mut query = self.index_query.clone();
        let mut page = Page { documents: Vec::new(), next: None };
        let mut bytes = 0;
        // All reads together look at no more entries than one may.
        query.entries_max = (query.entries_max / READS_MAX).max(1);
        for _ in 0..READS_MAX {
            query.limit = self.index_query.limit - page.documents.len();
            query.bytes_max = self.index_query.bytes_max.saturating_sub(bytes);
            let read = read(reader, version, &query, context).await?;
            for (id, document) in read.documents {
                if self.is_contained(&document.body)? {
                    bytes += document.body.len();
                    // It is the only one of this read, which so large a document is; the next page reads it again.
                    if bytes > self.index_query.bytes_max && !page.documents.is_empty() {
                        return Ok(page);
                    }
                    page.documents.push((id, document));
                }
            }
            page.next = read.next;
            let is_full = page.documents.len() == self.index_query.limit || bytes >= self.index_query.bytes_max;
            if page.next.is_none() || is_full {
                break;
            }
            query.after.clone_from(&page.next);
        }
        Ok(page)
    }

    /// Every document of the list, where they are few; `None`: they have more bytes than may be read for one list.
    async fn all_of(
        &self,
        few: &Few,
        reader: &dyn DocumentReader,
        context: &ReadContext,
    ) -> Result<Option<Vec<(Vec<u8>, Document)>>, Problem> {
        let begun = context.reads.begin();
        let found = few.read(reader, &self.visibility, &self.index_query).await?;
        context.reads.end(begun, found.as_ref().map_or(0, Vec::len));
        let Some(mut found) = found else { return Ok(None) };
        let mut problem = None;
        found.retain(|(_, document)| {
            self.is_contained(&document.body).unwrap_or_else(|torn| {
                problem = Some(torn);
                false
            })
        });
        problem.map_or(Ok(Some(found)), Err)
    }

    /// The index that is walked, when the caller sees it.
    fn walked_index(&self) -> Option<&headwater_schemas::model::IndexShape> {
        self.index_query.walk.as_ref().and_then(|walk| self.visibility.numbered(walk.index))
    }

    fn is_contained(&self, document: &[u8]) -> Result<bool, Problem> {
        for containing in &self.contains {
            if !containing.is_met(document)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How many documents the whole list has, counted up to `limit`; `None` when they cannot be counted within the
    /// work a query may do.
    pub(crate) async fn count(
        &self,
        reader: &dyn DocumentReader,
        limit: u64,
        context: &ReadContext,
    ) -> Result<Option<Count>, Problem> {
        if let Some(few) = &self.few
            && let Some(all) = self.all_of(few, reader, context).await?
        {
            return Ok(Some(Count::Exact(all.len() as u64)));
        }
        if !self.contains.is_empty() || matches!(self.few, Some(Few::Ids(_))) {
            return Ok(None);
        }
        let begun = context.reads.begin();
        let counted = self.counted(reader, limit).await?;
        context.reads.end(begun, 0);
        Ok(Some(counted))
    }

    /// How many documents the index tells of, counted up to `limit`.
    async fn counted(&self, reader: &dyn DocumentReader, limit: u64) -> Result<Count, Problem> {
        let everything = |filter: &Filter| filter.ranges == [KeyRange::default()];
        if self.index_query.filters.is_empty() && self.index_query.walk.as_ref().is_none_or(everything) {
            return Ok(Count::Exact(reader.document_count(self.visibility.version).await?));
        }
        let counted = IndexQuery { after: None, descending: false, ..self.index_query.clone() };
        let Counted { seen, is_all } = reader.count(self.visibility.version, &counted, limit).await?;
        Ok(if is_all { Count::Exact(seen) } else { Count::AtLeast(seen) })
    }

    /// About how many documents the whole list has.
    pub(crate) async fn estimate(
        &self,
        reader: &dyn DocumentReader,
        context: &ReadContext,
    ) -> Result<Option<Count>, Problem> {
        self.count(reader, ESTIMATE_MAX, context).await
    }

    /// Whether the first page may hold a stored document. `last`: how far was looked for it, when more may follow.
    pub(crate) fn may_hold(&self, id: &[u8], body: &[u8], last: Option<&Cursor>) -> bool {
        if let Some(Few::Ids(ids)) = &self.few
            && !ids.iter().any(|own| own == id)
        {
            return false;
        }
        // What cannot be read is not left out: whoever reads it again will say so.
        if !matches(&self.visibility, &self.index_query, body).unwrap_or(true)
            || !self.is_contained(body).unwrap_or(true)
        {
            return false;
        }
        let Some(last) = last else { return true };
        self.place(id, body).is_none_or(|place| {
            let order = (&place.value, &place.id).cmp(&(&last.value, &last.id));
            if self.index_query.descending { order.is_ge() } else { order.is_le() }
        })
    }

    /// Documents that one page may look into to find those on it, at most.
    pub(crate) fn looked_into_max(&self) -> usize {
        let IndexQuery { limit, entries_max, .. } = self.index_query;
        if self.contains.is_empty() { 0 } else { limit.saturating_mul(READS_MAX).min(entries_max) }
    }

    /// Whether it is about so few documents that they are all read. How many there are may change.
    pub(crate) fn is_of_few(&self) -> bool {
        self.few.is_some()
    }

    /// What a document is called on this list: the same each time, and nothing that tells its id.
    pub(crate) fn key_of_member(&self, id: &[u8], context: &ReadContext) -> String {
        context.cursors.name(&self.fingerprint, id)
    }

    /// What a state of the list is called to this caller: the same on every server, and nothing that tells what is in it.
    /// Ids and stamps are few enough to be guessed and tried, so a plain hash of them would.
    pub(crate) fn key_of_state(&self, state: &[u8], context: &ReadContext) -> String {
        context.cursors.name(&self.fingerprint, &[b"state", state].concat())
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

/// One read of a page.
async fn read(
    reader: &dyn DocumentReader,
    version: headwater_store::VersionId,
    query: &IndexQuery,
    context: &ReadContext,
) -> Result<Page, Problem> {
    let begun = context.reads.begin();
    let page = reader.query(version, query).await?;
    context.reads.end(begun, page.documents.len());
    Ok(page)
}

fn open(context: &ReadContext, fingerprint: &Fingerprint, text: &str) -> Result<(u16, Cursor), Problem> {
    if text.len() > CursorKey::TEXT_LEN_MAX {
        let detail = format!(
            "this `after` has {} characters, over the limit of {}: a cursor holds the value that the list is in the order \
             of. Where such values are so long, sort by another field, or leave them out with a condition",
            text.len(),
            CursorKey::TEXT_LEN_MAX
        );
        return Err(Problem { code: "cursor_too_long", ..Problem::parameter("after", detail) });
    }
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

/// What the store checks: of each index one filter for all that one value must meet, and one for all that no value may
/// meet. However many conditions there are, a document is looked into no more than twice for each index.
pub(super) fn filters(conditions: &[Condition]) -> Vec<Filter> {
    let mut within: Vec<(u16, Ranges)> = Vec::new();
    let mut without: Vec<(u16, Ranges)> = Vec::new();
    for condition in conditions {
        let (all, ranges, join): (_, _, fn(&Ranges, &Ranges) -> Ranges) = match &condition.wanted {
            Wanted::Within(ranges) => (&mut within, ranges, Ranges::and),
            // None in these and none in those is none in either.
            Wanted::Without(ranges) => (&mut without, ranges, Ranges::or),
            Wanted::Containing(_) => continue,
        };
        match all.iter_mut().find(|(index, _)| *index == condition.index) {
            Some((_, joined)) => *joined = join(joined, ranges),
            None => all.push((condition.index, ranges.clone())),
        }
    }
    let filter = |negated| move |(index, ranges): (u16, Ranges)| Filter { index, ranges: ranges.into_inner(), negated };
    without.into_iter().map(filter(true)).chain(within.into_iter().map(filter(false))).collect()
}

/// The index to walk: where several conditions could leave few documents, a glance at each tells.
async fn most_selective(
    reader: &dyn DocumentReader,
    version: headwater_store::VersionId,
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
            bytes_max: context.documents_bytes_max,
        };
        let limit = PROBE_MAX.min(best.0);
        let Counted { seen, is_all } = reader.count(version, &probe, limit).await?;
        // Of what is not known there may be many.
        let count = if is_all { seen } else { limit };
        if count < best.0 {
            best = (count, candidate.index);
        }
    }
    Ok(best.1)
}

fn fingerprint(
    visibility: &Visibility,
    conditions: &[Condition],
    sort: Option<Sort>,
    context: &ReadContext,
) -> Fingerprint {
    let mut hash = Sha256::new();
    // Every part behind its length, so that no two queries read the same.
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(visibility.shape.model.as_bytes());
    part(&visibility.version.0.to_be_bytes());
    part(&context.principal.tag);
    part(visibility.channel.as_deref().unwrap_or_default().as_bytes());
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

#[cfg(test)]
mod tests {
    use headwater_schemas::ColumnType;
    use headwater_schemas::model::{IndexShape, ModelShape, Operator};
    use headwater_store::VersionId;

    use super::super::condition::CONDITIONS_MAX;
    use super::*;

    #[test]
    fn a_document_is_looked_into_once_however_many_values_it_must_not_have() {
        let index = |name: &str| IndexShape { name: name.into(), kind: ColumnType::Text, many: true };
        let shape = ModelShape {
            model: "invoice".into(),
            version: 1,
            doc: None,
            key: vec![ColumnType::Int64],
            fields: Vec::new(),
            indexes: vec![index("lines.code"), index("notes.text")],
        };
        let visibility = Visibility::everything(VersionId(1), shape);
        let condition = |path: &str, operator, value: &str| {
            Condition::new(&visibility, path, operator, vec![value.into()], "filter").expect("valid")
        };
        let mut conditions: Vec<Condition> =
            (2..CONDITIONS_MAX).map(|n| condition("lines.code", Operator::Ne, &format!("C{n}"))).collect();
        conditions.push(condition("notes.text", Operator::Ne, "C5"));
        conditions.push(condition("lines.code", Operator::StartsWith, "C"));
        let filters = filters(&conditions);
        let shapes: Vec<(u16, usize, bool)> =
            filters.iter().map(|filter| (filter.index, filter.ranges.len(), filter.negated)).collect();
        assert_eq!(shapes, [(0, CONDITIONS_MAX - 2, true), (1, 1, true), (0, 1, false)]);

        let query =
            IndexQuery { walk: None, descending: false, filters, after: None, limit: 1, entries_max: 1, bytes_max: 1 };
        let is_met = |codes: &[&str], note: &str| {
            let lines: Vec<String> = codes.iter().map(|code| format!(r#"{{"code":"{code}"}}"#)).collect();
            let document = format!(r#"{{"lines":[{}],"notes":[{{"text":"{note}"}}]}}"#, lines.join(","));
            matches(&visibility, &query, document.as_bytes()).expect("whole")
        };
        assert!(is_met(&["C1", "D"], "C6") && is_met(&["C32"], "C6"));
        assert!(!is_met(&["C1", "C2"], "C6") && !is_met(&["C31", "C1"], "C6"), "one of them is there");
        assert!(!is_met(&["C1"], "C5") && !is_met(&["D"], "C6") && !is_met(&[], "C6"));
    }
}
