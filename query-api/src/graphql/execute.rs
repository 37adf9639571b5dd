//! From a request to its response.

use std::collections::HashSet;

use apollo_compiler::response::{JsonMap, JsonValue};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use headwater_store::{Document, DocumentReader};
use tokio::task::yield_now;

#[cfg(test)]
use super::GraphQlRequest;
use super::error::{Problem, Step, write_errors};
use super::introspection::Counter;
use super::operation::{Budget, Operation, Refused, too_long, too_many_bytes};
use super::plan::{Connection, EdgePart, Object, PagePart, Part, Root, Wanted};
use super::prepare::Prepared;
use super::request::{Asked, Asker, Paged};
use super::write::{Unwritten, Writer};
use super::{GraphQl, GraphQlResponse};
use crate::context::{ReadContext, RequestId};
use crate::observe::current;
use crate::problem::Problem as ApiProblem;
use crate::query::{Count, FirstPage, ListPage};

/// What the store answered for one field of `data`.
enum Answer {
    Nothing,
    Point(Option<Document>),
    ByIds(Vec<Option<Document>>),
    Page(ListPage, Option<u64>),
    Failed(Problem),
}

/// Fields of one operation that are read at the same time: others' reads wait behind no more, and no more can have been
/// read when there is no room for them.
const READ_AT_ONCE: usize = 8;

/// Largest buffer that is reserved before a response is written.
const RESERVED_MAX: usize = 64 * 1024;

impl GraphQl {
    /// Answers a request.
    #[cfg(test)]
    pub(crate) async fn execute(
        &self,
        request: GraphQlRequest,
        reader: &dyn DocumentReader,
        context: &ReadContext,
    ) -> GraphQlResponse {
        match self.operation(&request) {
            Ok(operation) => self.answer(&operation, &mut self.budget(), reader, context).await,
            Err(refused) => refused.response(context),
        }
    }

    /// Answers an operation. What it costs is taken from `budget`; what would cost more is refused.
    pub(crate) async fn answer(
        &self,
        operation: &Operation,
        budget: &mut Budget,
        reader: &dyn DocumentReader,
        context: &ReadContext,
    ) -> GraphQlResponse {
        let answered = self.try_answer(operation, budget, reader, context).await;
        answered.unwrap_or_else(|refused| refused.response(context))
    }

    /// The same, where what is refused as a whole is told in another way.
    pub(crate) async fn try_answer(
        &self,
        operation: &Operation,
        budget: &mut Budget,
        reader: &dyn DocumentReader,
        context: &ReadContext,
    ) -> Result<GraphQlResponse, Refused> {
        self.run(operation, None, budget, reader, context).await.map_err(Refused)
    }

    /// The same of a subscription to a page, which `followed` takes note of.
    pub(crate) async fn try_follow(
        &self,
        operation: &Operation,
        followed: &FirstPage,
        budget: &mut Budget,
        reader: &dyn DocumentReader,
        context: &ReadContext,
    ) -> Result<GraphQlResponse, Refused> {
        self.run(operation, Some(followed), budget, reader, context).await.map_err(Refused)
    }

    async fn run(
        &self,
        operation: &Operation,
        followed: Option<&FirstPage>,
        budget: &mut Budget,
        reader: &dyn DocumentReader,
        context: &ReadContext,
    ) -> Result<GraphQlResponse, Vec<Problem>> {
        let Operation { prepared, plan, variables, firsts } = operation;
        context.reads.note_operation(&prepared.normal);
        let sources = &prepared.document.sources;
        if plan.introspects {
            self.count_introspection(operation, budget).map_err(|problem| vec![problem])?;
        }
        let (catalog, limits) = (&self.catalog, &self.limits);
        let asker = Asker { catalog, limits, reader, context, variables, sources, followed };
        let asked = asker.all(plan, firsts, budget).await?;
        let (introspection, mut problems) = match plan.introspects {
            true => self.introspect(prepared, variables)?,
            false => Default::default(),
        };

        let shared = &*budget;
        let answers = match asked.as_slice() {
            [one] => self.ask(one, followed, reader, shared, context).await.map(|answer| vec![answer]),
            all => in_turns(all.iter().map(|one| self.ask(one, followed, reader, shared, context))).await,
        };
        let answers = answers.map_err(|problem| vec![problem])?;
        let is_broken = answers.iter().any(|answer| matches!(answer, Answer::Failed(_)));

        let bytes: usize = answers.iter().map(Answer::bytes).sum();
        let mut writer = Writer::new(firsts, (bytes + 256).min(RESERVED_MAX), budget.response_left());
        writer.put(b"{\"data\":{");
        for ((root, asked), answer) in plan.roots.iter().zip(&asked).zip(answers) {
            writer.put(&root.key);
            writer.path.push(Step::Key(root.name.clone()));
            let length = writer.out.len();
            if let Err(problem) = self.field(&mut writer, root, asked, &answer, &introspection, context) {
                // What is over a limit is refused as a whole.
                if problem.limit.is_some() {
                    return Err(vec![problem]);
                }
                writer.out.truncate(length);
                writer.put(b"null");
                let mut problem = problem.at(root.at, sources);
                problem.path.clone_from(&writer.path);
                problem.path.truncate(1);
                writer.problems.push(problem);
            }
            writer.path.clear();
        }
        writer.put(b"}");
        writer.check().map_err(|problem| vec![problem])?;
        budget.take_response(writer.out.len());
        problems.append(&mut writer.problems);
        let is_clean = problems.is_empty();
        if !is_clean {
            writer.put(b",");
            write_errors(&mut writer.out, &problems, context.request_id.as_str());
        }
        writer.put(b"}");
        Ok(GraphQlResponse { status: 200, body: Bytes::from(writer.out), is_clean, is_broken })
    }

    /// Refuses what asks more about the schema than one request may.
    fn count_introspection(&self, operation: &Operation, budget: &mut Budget) -> Result<(), Problem> {
        let Operation { prepared, variables, .. } = operation;
        budget.spend_introspection(|left| {
            let (schema, implementers, document) = (&self.schema, &self.implementers, &prepared.document);
            Counter { schema, implementers, document, variables, left }.count(&prepared.operation)
        })
    }

    /// The part of `data` that asks about the schema, by response key.
    fn introspect(
        &self,
        prepared: &Prepared,
        variables: &apollo_compiler::validation::Valid<JsonMap>,
    ) -> Result<(JsonMap, Vec<Problem>), Vec<Problem>> {
        let (document, operation) = (&prepared.document, &prepared.operation);
        let response = apollo_compiler::introspection::partial_execute(
            &self.schema,
            &self.implementers,
            document,
            operation,
            variables,
        );
        let response = response.map_err(|wrong| {
            vec![Problem::new(Problem::INVALID, wrong.message().to_string()).at(wrong.location(), &document.sources)]
        })?;
        let problem = |error: apollo_compiler::response::GraphQLError| {
            let mut problem = Problem::new(Problem::INVALID, error.message);
            problem.locations = error.locations;
            problem
        };
        Ok((response.data.unwrap_or_default(), response.errors.into_iter().map(problem).collect()))
    }

    /// Reads what a field asks for.
    ///
    /// # Errors
    ///
    /// There is no room for it within `budget`; the whole request is refused then.
    async fn ask(
        &self,
        asked: &Asked,
        followed: Option<&FirstPage>,
        reader: &dyn DocumentReader,
        budget: &Budget,
        context: &ReadContext,
    ) -> Result<Answer, Problem> {
        let answer: Result<Answer, ApiProblem> = match asked {
            Asked::Nothing | Asked::Point(_, None) => Ok(Answer::Nothing),
            Asked::Point(seen, Some(id)) => seen.get(reader, id, context).await.map(Answer::Point),
            Asked::ByIds(seen, ids) => {
                let known: Vec<Vec<u8>> = ids.iter().flatten().cloned().collect();
                match seen.get_many(reader, &known, context).await {
                    Ok(Some(found)) => {
                        let mut found = found.into_iter();
                        let one = |id: &Option<Vec<u8>>| id.as_ref().and_then(|_| found.next().flatten());
                        Ok(Answer::ByIds(ids.iter().map(one).collect()))
                    }
                    Ok(None) => return Err(too_many_bytes(context.documents_bytes_max)),
                    Err(problem) => Err(problem),
                }
            }
            Asked::Page(paged) => self.page(paged, followed, reader, context).await,
        };
        let answer = answer.unwrap_or_else(|problem| Answer::Failed(problem.into()));
        budget.take_documents(answer.bytes())?;
        Ok(answer)
    }

    async fn page(
        &self,
        paged: &Paged,
        followed: Option<&FirstPage>,
        reader: &dyn DocumentReader,
        context: &ReadContext,
    ) -> Result<Answer, ApiProblem> {
        if let Some(followed) = followed {
            let read = followed.read(&paged.query, paged.limit, reader, context).await?;
            followed.show(&paged.query, &read);
            return Ok(Answer::Page(read.page, None));
        }
        let total = match paged.count {
            true => match paged.query.count(reader, self.limits.count_max + 1, context).await? {
                Some(Count::Exact(total)) => Some(total),
                Some(Count::AtLeast(_)) | None => None,
            },
            false => None,
        };
        let page = match paged.limit {
            0 => ListPage { documents: Vec::new(), places: Vec::new(), next: None, has_more: false },
            _ => paged.query.page(reader, paged.places, context).await?,
        };
        Ok(Answer::Page(page, total))
    }

    fn field(
        &self,
        writer: &mut Writer<'_>,
        root: &Root,
        asked: &Asked,
        answer: &Answer,
        introspection: &JsonMap,
        context: &ReadContext,
    ) -> Result<(), Problem> {
        match (&root.kind, asked, answer) {
            (_, _, Answer::Failed(problem)) => return Err(problem.clone()),
            (Wanted::TypeName, ..) => writer.put(b"\"Query\""),
            (Wanted::Introspection, ..) => {
                let value = introspection.get(root.name.as_str()).unwrap_or(&JsonValue::Null);
                // JSON can be written wherever there is room.
                serde_json::to_writer(&mut *writer, value).map_err(|_| too_long(writer.bytes_max))?;
            }
            (Wanted::Point(_, plan), _, Answer::Point(Some(found))) => document(writer, plan, found)?,
            (Wanted::ByIds(_, plan), _, Answer::ByIds(found)) => {
                writer.put(b"[");
                for (at, found) in found.iter().enumerate() {
                    if at > 0 {
                        writer.put(b",");
                    }
                    match found {
                        Some(found) => document_at(writer, Step::Item(at), plan, found)?,
                        None => writer.put(b"null"),
                    }
                }
                writer.put(b"]");
            }
            (Wanted::Connection(_, plan), Asked::Page(paged), Answer::Page(page, total)) => {
                self.connection(writer, plan, paged, page, *total, context)?;
            }
            _ => writer.put(b"null"),
        }
        Ok(())
    }

    fn connection(
        &self,
        writer: &mut Writer<'_>,
        plan: &Connection,
        paged: &Paged,
        page: &ListPage,
        total: Option<u64>,
        context: &ReadContext,
    ) -> Result<(), Problem> {
        writer.put(b"{");
        for (key, part) in &plan.slots {
            writer.put(key);
            match part {
                Part::Constant(bytes) => writer.put(bytes),
                Part::Nodes(name, object) => {
                    writer.put(b"[");
                    writer.path.push(Step::Key(name.clone()));
                    for (at, (_, found)) in page.documents.iter().enumerate() {
                        if at > 0 {
                            writer.put(b",");
                        }
                        document_at(writer, Step::Item(at), object, found)?;
                    }
                    writer.path.pop();
                    writer.put(b"]");
                }
                Part::Edges(name, edge) => {
                    writer.put(b"[");
                    writer.path.push(Step::Key(name.clone()));
                    for (at, (_, found)) in page.documents.iter().enumerate() {
                        writer.put(if at > 0 { b",{" } else { b"{" });
                        writer.path.push(Step::Item(at));
                        for (key, part) in edge {
                            writer.put(key);
                            match part {
                                EdgePart::Constant(bytes) => writer.put(bytes),
                                EdgePart::Node(name, object) => {
                                    document_at(writer, Step::Key(name.clone()), object, found)?;
                                }
                                EdgePart::Cursor => {
                                    let place = page.places.get(at).and_then(Option::as_ref).ok_or_else(placeless)?;
                                    text(writer, &paged.query.cursor(place, context));
                                }
                            }
                        }
                        writer.path.pop();
                        writer.put(b"}");
                        // Cursors alone are long, too.
                        writer.check()?;
                    }
                    writer.path.pop();
                    writer.put(b"]");
                }
                Part::PageInfo(info) => {
                    writer.put(b"{");
                    for (key, part) in info {
                        writer.put(key);
                        match (part, &page.next) {
                            (PagePart::Constant(bytes), _) => writer.put(bytes),
                            (PagePart::HasNextPage, _) => writer.put(if page.has_more { b"true" } else { b"false" }),
                            (PagePart::EndCursor, Some(next)) => {
                                text(writer, &paged.query.cursor(next, context));
                            }
                            (PagePart::EndCursor, None) => writer.put(b"null"),
                        }
                    }
                    writer.put(b"}");
                }
                Part::TotalCount => match total {
                    Some(total) => writer.put(total.to_string().as_bytes()),
                    None => writer.put(b"null"),
                },
            }
        }
        writer.put(b"}");
        Ok(())
    }
}

/// Waits for all of these in order, a few at a time side by side, or until one fails. A store at hand answers at once and
/// never waits, so the runtime gets its turn between answers: else no deadline could end what takes too long.
async fn in_turns<T, E>(all: impl Iterator<Item = impl Future<Output = Result<T, E>>>) -> Result<Vec<T>, E> {
    let all: Vec<_> = all.collect();
    let count = all.len();
    let mut done = Vec::with_capacity(count);
    let mut waiting = std::pin::pin!(stream::iter(all).buffered(READ_AT_ONCE));
    while let Some(one) = waiting.next().await {
        done.push(one?);
        if done.len() < count {
            yield_now().await;
        }
    }
    Ok(done)
}

fn placeless() -> Problem {
    Problem::new(Problem::DATA, "an edge's cursor cannot be made of its document; page by `pageInfo.endCursor`")
}

/// Writes a document that stands one step further.
fn document_at(writer: &mut Writer<'_>, step: Step, plan: &Object, found: &Document) -> Result<(), Problem> {
    writer.path.push(step);
    document(writer, plan, found)?;
    writer.path.pop();
    Ok(())
}

fn document(writer: &mut Writer<'_>, plan: &Object, found: &Document) -> Result<(), Problem> {
    writer.document(plan, &found.body).map_err(|unwritten| {
        if unwritten == Unwritten::TooLong {
            return too_long(writer.bytes_max);
        }
        current(|id| {
            tracing::error!(
                request_id = id.map(RequestId::as_str),
                trace_id = id.and_then(RequestId::trace_id),
                stamp = found.stamp,
                "a stored document does not have the shape of its version"
            );
        });
        let message = "a stored document does not have the shape of its version; rebuild it with `headwater replay`";
        Problem::new(Problem::SHAPE, message)
    })
}

fn text(writer: &mut Writer<'_>, text: &str) {
    headwater_schemas::write_json_string(&mut writer.out, text);
}

impl Answer {
    /// Bytes of the documents in it. Those of one that was named again are held once.
    fn bytes(&self) -> usize {
        match self {
            Self::Point(found) => found.iter().map(|document| document.body.len()).sum(),
            Self::ByIds(found) => {
                let mut seen = HashSet::with_capacity(found.len());
                let bodies = found.iter().flatten().map(|document| &document.body);
                bodies.filter(|body| seen.insert(body.as_ptr())).map(|body| body.len()).sum()
            }
            Self::Page(page, _) => page.documents.iter().map(|(_, document)| document.body.len()).sum(),
            Self::Nothing | Self::Failed(_) => 0,
        }
    }
}
