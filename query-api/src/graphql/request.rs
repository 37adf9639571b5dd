//! What the fields of a query ask the store for, checked before anything is read.

use std::sync::Arc;

use apollo_compiler::parser::SourceMap;
use apollo_compiler::response::JsonMap;
use headwater_schemas::model::Operator;
use headwater_store::DocumentReader;
use tokio::task::yield_now;

use super::GraphQlLimits;
use super::arguments::{Input, argument, count, length, size, sizes};
use super::catalog::{Catalog, Model};
use super::error::Problem;
use super::operation::Budget;
use super::plan::{Connection, Content, EdgePart, Object, Part, Plan, Root, Wanted};
use crate::access::Visibility;
use crate::context::ReadContext;
use crate::query::{CONDITIONS_MAX, Condition, FirstPage, ListQuery, ListRequest, Sort};

/// Elements a nested array without `first` is taken to have when the cost is computed.
const ELEMENTS_ASSUMED: usize = 10;

/// Entries of an index that may be looked at for what one field costs to write.
const ENTRIES_PER_FIELD: usize = 5;

/// What one field of `data` asks of the store.
pub(super) enum Asked {
    /// Nothing.
    Nothing,
    /// One document; `None` when the id cannot be one of this model.
    Point(Arc<Visibility>, Option<Vec<u8>>),
    /// Several, in order.
    ByIds(Arc<Visibility>, Vec<Option<Vec<u8>>>),
    /// A page.
    Page(Box<Paged>),
}

/// A page to be read.
pub(super) struct Paged {
    pub(super) query: Arc<ListQuery>,
    /// Documents on it, at most.
    pub(super) limit: usize,
    /// Whether `totalCount` is wanted.
    pub(super) count: bool,
    /// Whether cursors of single documents are wanted.
    pub(super) places: bool,
}

/// Makes requests of the fields of one operation.
pub(super) struct Asker<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) limits: &'a GraphQlLimits,
    pub(super) reader: &'a dyn DocumentReader,
    pub(super) context: &'a ReadContext,
    pub(super) variables: &'a JsonMap,
    pub(super) sources: &'a SourceMap,
    /// What is on the page that a subscription follows.
    pub(super) followed: Option<&'a FirstPage>,
}

impl Asker<'_> {
    /// What every field asks for, and what that costs.
    ///
    /// # Errors
    ///
    /// Arguments that cannot be answered, or a cost over the limit.
    pub(super) async fn all(
        &self,
        plan: &Plan,
        firsts: &[Option<usize>],
        budget: &mut Budget,
    ) -> Result<Vec<Asked>, Vec<Problem>> {
        let (mut asked, mut problems) = (Vec::with_capacity(plan.roots.len()), Vec::new());
        let mut cost = plan.roots.iter().fold(0, |sum: usize, root| sum.saturating_add(self.looks_cost(root)));
        // To choose how a page is read looks at an index already.
        budget.check(cost).map_err(|problem| vec![problem])?;
        self.check_arguments(plan).map_err(|problem| vec![problem])?;
        for (at, root) in plan.roots.iter().enumerate() {
            if at > 0 {
                // So that a deadline can end it: a store at hand never waits, and arguments may be long.
                yield_now().await;
            }
            match self.one(root).await {
                Ok(one) => {
                    cost = cost.saturating_add(cost_of(root, &one, firsts));
                    asked.push(one);
                }
                Err(problem) => problems.push(problem.at(root.at, self.sources)),
            }
        }
        if let Err(problem) = budget.spend(cost) {
            problems.push(problem);
        }
        if problems.is_empty() { Ok(asked) } else { Err(problems) }
    }

    /// Refuses what would put long variables into many fields: each has its own copy, and none is read before all are made.
    fn check_arguments(&self, plan: &Plan) -> Result<(), Problem> {
        let (sizes, max) = (sizes(self.variables), self.limits.arguments_bytes_max);
        let bytes = plan.roots.iter().fold(0, |sum: usize, root| sum.saturating_add(size(&root.arguments, &sizes)));
        if bytes <= max {
            return Ok(());
        }
        let message = format!(
            "the variables in arguments take {bytes} bytes, over the limit of {max}, each as often as a field of the \
             operation names it: send shorter values, or ask for fewer fields at once"
        );
        Err(Problem::limit(message, "arguments"))
    }

    async fn one(&self, root: &Root) -> Result<Asked, Problem> {
        Ok(match &root.kind {
            Wanted::TypeName | Wanted::Introspection => Asked::Nothing,
            Wanted::Point(model, _) => {
                let (visibility, id) = point(&self.catalog.models[*model], root, self.variables)?;
                Asked::Point(visibility, id)
            }
            Wanted::ByIds(model, _) => {
                let model = &self.catalog.models[*model];
                let (length, page_max) = (length(&root.arguments, "ids", self.variables), self.page_max(model));
                if length > page_max {
                    let message = format!("`ids` has {length}, over the limit of {page_max}");
                    return Err(Problem::limit(message, "page"));
                }
                let ids = argument(&root.arguments, "ids", self.variables).unwrap_or(Input::Null).into_list();
                let parse = |id: Input| {
                    let id = id.text().ok_or_else(|| Problem::new(Problem::ARGUMENT, "`ids` must not hold null"))?;
                    Ok(model.shape().parse_id(&id))
                };
                Asked::ByIds(model.visibility.clone(), ids.into_iter().map(parse).collect::<Result<_, Problem>>()?)
            }
            Wanted::Connection(model, connection) => self.page(*model, root, connection).await?,
        })
    }

    /// What the index entries cost that a field may look at, however few documents it finds: those of a page, and the
    /// same again where it counts.
    fn looks_cost(&self, root: &Root) -> usize {
        let Wanted::Connection(_, connection) = &root.kind else { return 0 };
        let looks = 1 + usize::from(connection.is_counted());
        (self.context.entries_max / ENTRIES_PER_FIELD).saturating_mul(looks)
    }

    /// Documents of one page of a model, at most.
    fn page_max(&self, model: &Model) -> usize {
        self.limits.page_max.min(model.visibility.page.max)
    }

    async fn page(&self, number: usize, root: &Root, connection: &Connection) -> Result<Asked, Problem> {
        let model = &self.catalog.models[number];
        let given = |name| argument(&root.arguments, name, self.variables);
        let page_max = self.page_max(model);
        let first = count(&root.arguments, "first", self.variables)?;
        let limit = first.unwrap_or(model.visibility.page.default.min(page_max));
        if limit > page_max {
            let message = format!("`first` is {limit}, over the limit of {page_max}");
            return Err(Problem::limit(message, "page"));
        }
        let has_cursor = |edge: &[(Box<[u8]>, EdgePart)]| edge.iter().any(|(_, part)| matches!(part, EdgePart::Cursor));
        let places = connection.slots.iter().any(|(_, part)| matches!(part, Part::Edges(_, edge) if has_cursor(edge)));
        let paged = |query| Asked::Page(Box::new(Paged { query, limit, count: connection.is_counted(), places }));
        if self.followed.is_some() && limit == 0 {
            return Err(bad("`first` is 0: what is followed is a page of one document or more".into()));
        }
        if let Some(list) = self.followed.and_then(FirstPage::list) {
            return Ok(paged(list));
        }
        let conditions = conditions(model, given("where"))?;
        let sort = match given("orderBy") {
            Some(Input::Text(item)) => {
                let order = model.order(&item);
                let (path, descending) = order.ok_or_else(|| bad(format!("`orderBy` has no item `{item}`")))?;
                Some(Sort::new(&model.visibility, path, descending, "orderBy")?)
            }
            _ => None,
        };
        let after = given("after").and_then(Input::text);
        // A page of nothing is not read, only counted; for what is followed see [`FirstPage::read`].
        let wanted = ListRequest {
            visibility: &model.visibility,
            bound: model.visibility.bound(&self.context.principal),
            conditions: &conditions,
            sort,
            after: after.as_deref(),
            limit: limit.max(1) + usize::from(self.followed.is_some()),
        };
        Ok(paged(Arc::new(ListQuery::new(self.reader, wanted, self.context).await?)))
    }
}

/// Whose document a field asks for; no id when it cannot be one of this model.
pub(super) fn point(
    model: &Model,
    root: &Root,
    variables: &JsonMap,
) -> Result<(Arc<Visibility>, Option<Vec<u8>>), Problem> {
    let id = argument(&root.arguments, "id", variables).and_then(Input::text);
    let id = id.ok_or_else(|| Problem::new(Problem::ARGUMENT, "`id` must not be null"))?;
    Ok((model.visibility.clone(), model.shape().parse_id(&id)))
}

fn bad(message: String) -> Problem {
    Problem::new(Problem::ARGUMENT, message)
}

fn conditions(model: &Model, given: Option<Input>) -> Result<Vec<Condition>, Problem> {
    let mut out = Vec::new();
    let fields = match given {
        None | Some(Input::Null) => return Ok(out),
        Some(Input::Object(fields)) => fields,
        Some(other) => return Err(bad(format!("`where` must be an object, not {}", other.kind()))),
    };
    for (field, filter) in fields {
        let path = model.path(&field).ok_or_else(|| bad(format!("`where` has no field `{field}`")))?;
        let Input::Object(operators) = filter else {
            // Passing over it would answer with everything.
            let message = format!("`where.{field}` is {}: write `{{eq: null}}` to ask for null", filter.kind());
            return Err(bad(message));
        };
        if operators.is_empty() {
            return Err(bad(format!("`where.{field}` says nothing: a variable of it may not have been given")));
        }
        for (word, value) in operators {
            let operator =
                Operator::from_word(&word).ok_or_else(|| bad(format!("`where.{field}` has no operator `{word}`")))?;
            let parameter = format!("where.{field}.{word}");
            let (operator, values) = texts(operator, value).map_err(|wrong| bad(format!("`{parameter}` {wrong}")))?;
            out.push(Condition::new(&model.visibility, path, operator, values, &parameter)?);
        }
    }
    if out.len() > CONDITIONS_MAX {
        let message = format!("`where` has {} conditions, over the limit of {CONDITIONS_MAX}", out.len());
        return Err(Problem::limit(message, "conditions"));
    }
    Ok(out)
}

/// An operator with its values as text.
fn texts(operator: Operator, value: Input) -> Result<(Operator, Vec<String>), String> {
    Ok(match (operator, value) {
        (Operator::Eq, Input::Null) => (Operator::Exists, vec!["false".to_owned()]),
        (Operator::Ne, Input::Null) => (Operator::Exists, vec!["true".to_owned()]),
        (_, Input::Null) => return Err("must not be null; ask for null with `exists`".into()),
        (operator @ (Operator::In | Operator::Nin), list) => {
            let text = |item: Input| {
                let kind = item.kind();
                item.text().ok_or_else(|| format!("must not hold {kind}"))
            };
            (operator, list.into_list().into_iter().map(text).collect::<Result<_, _>>()?)
        }
        (operator, value) => {
            let kind = value.kind();
            (operator, vec![value.text().ok_or_else(|| format!("must not be {kind}"))?])
        }
    })
}

fn cost_of(root: &Root, asked: &Asked, firsts: &[Option<usize>]) -> usize {
    match (&root.kind, asked) {
        (Wanted::Point(_, object), _) => object_cost(object, firsts),
        (Wanted::ByIds(_, object), Asked::ByIds(_, ids)) => ids.len().saturating_mul(object_cost(object, firsts)),
        (Wanted::Connection(_, connection), Asked::Page(paged)) => {
            let part = |part: &Part| match part {
                Part::Nodes(_, object) => object_cost(object, firsts),
                Part::Edges(_, edge) => edge.iter().fold(0, |sum: usize, (_, part)| {
                    sum.saturating_add(match part {
                        EdgePart::Node(_, object) => object_cost(object, firsts),
                        _ => 1,
                    })
                }),
                _ => 0,
            };
            let one = connection.slots.iter().fold(1usize, |sum, (_, of)| sum.saturating_add(part(of)));
            // What is written, and what is looked into to find it.
            one.saturating_mul(paged.limit.max(1)).saturating_add(paged.query.looked_into_max())
        }
        _ => 1,
    }
}

/// Fields written for one object, with those below.
fn object_cost(object: &Object, firsts: &[Option<usize>]) -> usize {
    object.slots.iter().fold(1usize, |sum, slot| {
        sum.saturating_add(match &slot.content {
            Content::Object(_, nested) => object_cost(nested, firsts),
            Content::Array(_, nested, first) => {
                let first = first.and_then(|number| firsts.get(number).copied().flatten());
                object_cost(nested, firsts).saturating_mul(first.unwrap_or(ELEMENTS_ASSUMED).max(1))
            }
            _ => 1,
        })
    })
}
