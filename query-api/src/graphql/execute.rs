//! From a request to its response.

use std::sync::Arc;

use apollo_compiler::request::coerce_variable_values;
use apollo_compiler::response::{JsonMap, JsonValue};
use bytes::Bytes;
use futures_util::future::join_all;
use headwater_store::{Document, DocumentReader};

use super::error::{Problem, Step, write_errors};
use super::plan::{Connection, EdgePart, Object, PagePart, Part, Root, Wanted};
use super::prepare::Prepared;
use super::request::{Asked, Asker, Paged};
use super::write::Writer;
use super::{GraphQl, GraphQlRequest, GraphQlResponse};
use crate::context::{ReadContext, RequestId};
use crate::observe::current;
use crate::problem::Problem as ApiProblem;
use crate::query::{Count, ListPage};

/// What the store answered for one field of `data`.
enum Answer {
    Nothing,
    Point(Option<Document>),
    ByIds(Vec<Option<Document>>),
    Page(ListPage, Option<u64>),
    Failed(Problem),
}

/// Largest buffer that is reserved before a response is written.
const RESERVED_MAX: usize = 64 * 1024;

impl GraphQl {
    /// Executes a request.
    pub(crate) async fn execute(
        &self,
        request: GraphQlRequest,
        reader: &dyn DocumentReader,
        context: &ReadContext,
    ) -> GraphQlResponse {
        match self.run(request, reader, context).await {
            Ok(response) => response,
            Err(problems) => {
                let status = problems.iter().map(|problem| problem.status).max().unwrap_or(400);
                let mut body = Vec::with_capacity(256);
                body.push(b'{');
                write_errors(&mut body, &problems, context.request_id.as_str());
                body.push(b'}');
                GraphQlResponse { status, body: body.into() }
            }
        }
    }

    async fn run(
        &self,
        request: GraphQlRequest,
        reader: &dyn DocumentReader,
        context: &ReadContext,
    ) -> Result<GraphQlResponse, Vec<Problem>> {
        let prepared = self.prepared(&request.query, request.operation_name.as_deref())?;
        context.reads.note_operation(&prepared.normal);
        let given: JsonMap = request.variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let sources = &prepared.document.sources;
        let variables = coerce_variable_values(&self.schema, &prepared.operation, &given).map_err(|wrong| {
            vec![Problem::new(Problem::VARIABLES, wrong.message().to_string()).at(wrong.location(), sources)]
        })?;
        let plan = prepared.plan(&self.catalog, &self.limits, &variables).map_err(|problem| vec![problem])?;
        let asker =
            Asker { catalog: &self.catalog, limits: &self.limits, reader, context, variables: &variables, sources };
        let firsts = asker.firsts(&plan).map_err(|problem| vec![problem])?;
        let asked = asker.all(&plan, &firsts).await?;
        let (introspection, mut problems) = match plan.introspects {
            true => self.introspect(&prepared, &variables)?,
            false => Default::default(),
        };

        let answers = match asked.as_slice() {
            [one] => vec![self.ask(one, reader, context).await],
            all => join_all(all.iter().map(|one| self.ask(one, reader, context))).await,
        };

        let bytes: usize = answers.iter().map(Answer::bytes).sum();
        let mut writer = Writer::new(&firsts, (bytes + 256).min(RESERVED_MAX));
        writer.put(b"{\"data\":{");
        for ((root, asked), answer) in plan.roots.iter().zip(&asked).zip(&answers) {
            writer.put(&root.key);
            writer.path.push(Step::Key(root.name.clone()));
            let length = writer.out.len();
            if let Err(problem) = self.field(&mut writer, root, asked, answer, &introspection, context) {
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
        problems.append(&mut writer.problems);
        if !problems.is_empty() {
            writer.put(b",");
            write_errors(&mut writer.out, &problems, context.request_id.as_str());
        }
        writer.put(b"}");
        Ok(GraphQlResponse { status: 200, body: Bytes::from(writer.out) })
    }

    fn prepared(&self, query: &str, operation_name: Option<&str>) -> Result<Arc<Prepared>, Vec<Problem>> {
        if query.len() > self.limits.query_bytes_max {
            let message =
                format!("the query is {} bytes, over the limit of {}", query.len(), self.limits.query_bytes_max);
            return Err(vec![Problem::limit(message, "query bytes")]);
        }
        if let Some(known) = self.cache.get(query, operation_name) {
            return Ok(known);
        }
        let prepared = Arc::new(Prepared::new(&self.schema, &self.limits, query, operation_name)?);
        self.cache.put(query, operation_name, prepared.clone());
        Ok(prepared)
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

    async fn ask(&self, asked: &Asked, reader: &dyn DocumentReader, context: &ReadContext) -> Answer {
        let answer: Result<Answer, ApiProblem> = match asked {
            Asked::Nothing | Asked::Point(_, None) => Ok(Answer::Nothing),
            Asked::Point(seen, Some(id)) => seen.get(reader, id, context).await.map(Answer::Point),
            Asked::ByIds(seen, ids) => {
                let known: Vec<Vec<u8>> = ids.iter().flatten().cloned().collect();
                seen.get_many(reader, &known, context).await.map(|found| {
                    let mut found = found.into_iter();
                    Answer::ByIds(ids.iter().map(|id| id.as_ref().and_then(|_| found.next().flatten())).collect())
                })
            }
            Asked::Page(paged) => self.page(paged, reader, context).await,
        };
        answer.unwrap_or_else(|problem| Answer::Failed(problem.into()))
    }

    async fn page(
        &self,
        paged: &Paged,
        reader: &dyn DocumentReader,
        context: &ReadContext,
    ) -> Result<Answer, ApiProblem> {
        let total = match paged.count {
            true => match paged.query.count(reader, self.limits.count_max + 1, context).await? {
                Some(Count::Exact(total)) => Some(total),
                Some(Count::AtLeast(_)) | None => None,
            },
            false => None,
        };
        let page = match paged.limit {
            0 => ListPage { documents: Vec::new(), places: Vec::new(), next: None },
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
                serde_json::to_writer(&mut writer.out, value).expect("JSON can be written into a buffer");
            }
            (Wanted::Point(_, plan), _, Answer::Point(Some(found))) => document(writer, plan, found)?,
            (Wanted::ByIds(_, plan), _, Answer::ByIds(found)) => {
                writer.put(b"[");
                for (at, found) in found.iter().enumerate() {
                    if at > 0 {
                        writer.put(b",");
                    }
                    match found {
                        Some(found) => {
                            writer.path.push(Step::Item(at));
                            document(writer, plan, found)?;
                            writer.path.pop();
                        }
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
                Part::Nodes(object) => {
                    writer.put(b"[");
                    for (at, (_, found)) in page.documents.iter().enumerate() {
                        if at > 0 {
                            writer.put(b",");
                        }
                        document(writer, object, found)?;
                    }
                    writer.put(b"]");
                }
                Part::Edges(edge) => {
                    writer.put(b"[");
                    for (at, (_, found)) in page.documents.iter().enumerate() {
                        writer.put(if at > 0 { b",{" } else { b"{" });
                        for (key, part) in edge {
                            writer.put(key);
                            match part {
                                EdgePart::Constant(bytes) => writer.put(bytes),
                                EdgePart::Node(object) => document(writer, object, found)?,
                                EdgePart::Cursor => {
                                    let place = page.places.get(at).and_then(Option::as_ref).ok_or_else(placeless)?;
                                    text(writer, &paged.query.cursor(place, context));
                                }
                            }
                        }
                        writer.put(b"}");
                    }
                    writer.put(b"]");
                }
                Part::PageInfo(info) => {
                    writer.put(b"{");
                    for (key, part) in info {
                        writer.put(key);
                        match (part, &page.next) {
                            (PagePart::Constant(bytes), _) => writer.put(bytes),
                            (PagePart::HasNextPage, next) => {
                                writer.put(if next.is_some() { b"true" } else { b"false" });
                            }
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

fn placeless() -> Problem {
    Problem::new(Problem::DATA, "an edge's cursor cannot be made of its document; page by `pageInfo.endCursor`")
}

fn document(writer: &mut Writer<'_>, plan: &Object, found: &Document) -> Result<(), Problem> {
    writer.document(plan, &found.body).map_err(|_| {
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
    /// Bytes of the documents in it.
    fn bytes(&self) -> usize {
        match self {
            Self::Point(found) => found.iter().map(|document| document.body.len()).sum(),
            Self::ByIds(found) => found.iter().flatten().map(|document| document.body.len()).sum(),
            Self::Page(page, _) => page.documents.iter().map(|(_, document)| document.body.len()).sum(),
            Self::Nothing | Self::Failed(_) => 0,
        }
    }
}
