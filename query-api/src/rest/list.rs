//! Lists: a page by index, or several documents by id.

use headwater_store::Document;
use hyper::Response;
use hyper::header::LINK;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::asked::{Asked, Counting, PageRequest, Request, What};
use super::format::Format;
use super::page::{self, Told};
use super::respond;
use crate::access::Bound;
use crate::api::Api;
use crate::context::ReadContext;
use crate::http::Body;
use crate::problem::Problem;
use crate::projection::Selection;
use crate::query::{Condition, Count, ListQuery, ListRequest, Sort};
use crate::serving::Model;

/// Documents counted for `count=exact`, at most.
pub(super) const COUNT_MAX: u64 = 10_000;
/// Characters that cannot stand in a query string inside `<…>`.
const LINK_ESCAPES: &AsciiSet = &CONTROLS.add(b' ').add(b'<').add(b'>').add(b'"');

/// Answers with a page, or with the documents named. The second part tells which. `query` is the query string, where one
/// can lead to the next page.
pub(super) async fn list(
    api: &Api,
    model: &Model,
    (asked, query): (Asked<'_>, Option<&str>),
    format: Format,
    context: &ReadContext,
) -> (bool, Result<Response<Body>, Problem>) {
    match asked.of_list(model) {
        Err(problem) => (false, Err(problem)),
        Ok(Request { selection, what: What::Ids(ids) }) => {
            (true, batch(api, model, &ids, (selection.as_ref(), format), context).await)
        }
        Ok(Request { selection, what: What::Page(page) }) => {
            let (path, bound) = (format!("/v1/{}", model.name()), model.visibility.bound(&context.principal));
            let link = query.map(|query| (path.as_str(), query));
            (false, paged(api, model, link, &page, (selection.as_ref(), format), bound, context).await)
        }
    }
}

/// What a list is made of that is followed.
pub(crate) struct FollowedList {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) sort: Option<Sort>,
    pub(crate) limit: usize,
    selection: Option<Selection>,
}

impl FollowedList {
    /// Tells the fields that are wanted from others; `None`: all are.
    pub(crate) fn fields(&self) -> Option<u64> {
        self.selection.as_ref().map(Selection::fingerprint)
    }

    /// Appends what is wanted of a document.
    pub(crate) fn write(&self, out: &mut Vec<u8>, document: &Document) -> Result<(), Problem> {
        match &self.selection {
            None => out.extend_from_slice(&document.body),
            Some(selection) => selection.write(out, &document.body)?,
        }
        Ok(())
    }
}

/// Reads a query string as that of a list that is followed: its first page.
pub(crate) fn followed_list(query: &str, model: &Model) -> Result<FollowedList, Problem> {
    let refuse = |name: &str| {
        let detail = format!("`{name}` cannot stand here: what is followed is the first page of a list, uncounted");
        Problem::parameter(name, detail)
    };
    let Request { selection, what } = Asked::of_query(query)?.of_list(model)?;
    let What::Page(PageRequest { conditions, sort, limit, after, count }) = what else { return Err(refuse("ids")) };
    match (after, count) {
        (Some(_), _) => Err(refuse("after")),
        (None, Counting::Estimated | Counting::Exact) => Err(refuse("count")),
        (None, Counting::None) => Ok(FollowedList { conditions, sort, limit, selection }),
    }
}

/// Answers with a page of what is the caller's own.
pub(super) async fn own(
    api: &Api,
    model: &Model,
    bound: Bound,
    (asked, query): (Asked<'_>, Option<&str>),
    format: Format,
    context: &ReadContext,
) -> Result<Response<Body>, Problem> {
    let Request { selection, what } = asked.of_list(model)?;
    let What::Page(page) = what else {
        return Err(Problem::parameter("ids", "`ids` cannot stand here, where the documents are the caller's own"));
    };
    let path = format!("/v1/me/{}", model.name());
    let link = query.map(|query| (path.as_str(), query));
    paged(api, model, link, &page, (selection.as_ref(), format), bound, context).await
}

async fn paged(
    api: &Api,
    model: &Model,
    link: Option<(&str, &str)>,
    request: &PageRequest,
    (selection, format): (Option<&Selection>, Format),
    bound: Bound,
    context: &ReadContext,
) -> Result<Response<Body>, Problem> {
    let moment = api.freshness.now();
    let reader = &*api.reader;
    let wanted = ListRequest {
        visibility: &model.visibility,
        bound,
        conditions: &request.conditions,
        sort: request.sort,
        after: request.after.as_deref(),
        limit: request.limit,
    };
    let list = ListQuery::new(reader, wanted, context).await?;
    let count = match request.count {
        Counting::None => None,
        Counting::Estimated => list.estimate(reader, context).await?,
        Counting::Exact => Some(exact(list.count(reader, COUNT_MAX + 1, context).await?)?),
    };
    let page = list.page(reader, false, context).await?;
    let next = page.next.as_ref().map(|place| list.cursor(place, context));

    let documents = page.documents.iter().map(|(_, document)| Some(document));
    let told = Told { next, count };
    // A page ends before it has too many bytes.
    let body = page::write(format, documents, selection, &told, usize::MAX)?;
    let mut response = respond::documents(body, format, model, moment, None, context);
    if format == Format::Lines {
        told.tell(response.headers_mut());
    }
    if let (Some(next), Some((path, query))) = (&told.next, link) {
        let link = format!("<{}>; rel=\"next\"", next_link(path, query, next));
        response.headers_mut().insert(LINK, respond::header(&LINK, link.as_bytes())?);
    }
    Ok(response)
}

fn exact(count: Option<Count>) -> Result<Count, Problem> {
    match count {
        Some(count @ Count::Exact(_)) => Ok(count),
        _ => {
            let detail = format!(
                "to count what these conditions leave takes more work than one request may do (which counts up to \
                 {COUNT_MAX} documents); use count=estimated"
            );
            Err(Problem { code: "count_too_large", ..Problem::parameter("count", detail) })
        }
    }
}

async fn batch(
    api: &Api,
    model: &Model,
    ids: &[String],
    (selection, format): (Option<&Selection>, Format),
    context: &ReadContext,
) -> Result<Response<Body>, Problem> {
    let moment = api.freshness.now();
    let keys: Vec<Option<Vec<u8>>> = ids.iter().map(|id| model.visibility.shape.parse_id(id)).collect();
    let wanted: Vec<Vec<u8>> = keys.iter().flatten().cloned().collect();
    let found = model.visibility.get_many(&*api.reader, &wanted, context).await?;
    let mut found = found.ok_or_else(|| Problem::too_large(wanted.len(), context.documents_bytes_max))?.into_iter();
    let documents: Vec<Option<Document>> =
        keys.iter().map(|key| key.as_ref().and_then(|_| found.next().flatten())).collect();
    let documents = documents.iter().map(Option::as_ref);
    let body = page::write(format, documents, selection, &Told::default(), context.documents_bytes_max)?;
    Ok(respond::documents(body, format, model, moment, None, context))
}

/// The same request with another `after`.
fn next_link(path: &str, query: &str, next: &str) -> String {
    let mut link = format!("{path}?");
    for part in query.split('&').filter(|part| !part.is_empty() && !part.starts_with("after=")) {
        link.extend(utf8_percent_encode(part, LINK_ESCAPES));
        link.push('&');
    }
    link + "after=" + next
}
