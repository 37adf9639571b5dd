//! The compiled form of an operation: which members of which documents go where in the response.
//!
//! A plan is made for one set of values of the variables that `@skip` and `@include` look at, so it has no conditions
//! left: what is in it is written, in this order.

use std::sync::Arc;

use apollo_compiler::ast::Value;
use apollo_compiler::collections::IndexMap;
use apollo_compiler::executable::{self, ExecutableDocument, Operation, Selection, SelectionSet};
use apollo_compiler::parser::SourceSpan;
use apollo_compiler::response::JsonMap;
use apollo_compiler::{Name, Node};
use headwater_schemas::write_json_string;

use super::catalog::{Catalog, MemberKind, ObjectType, RootKind, Scalar};
use super::error::Problem;

/// A compiled operation.
pub(super) struct Plan {
    /// Fields of the response's `data`, in order.
    pub(super) roots: Vec<Root>,
    /// Whether `__schema` or `__type` is among them.
    pub(super) introspects: bool,
    /// The `first` of every nested array that has one, as written; [`Content::Array`] names them by number.
    pub(super) firsts: Vec<Node<executable::Argument>>,
    /// Bytes that it takes, about.
    pub(super) bytes: usize,
}

/// One field of `data`.
pub(super) struct Root {
    /// `"key":`, with a comma before it when it is not the first.
    pub(super) key: Box<[u8]>,
    /// The response key.
    pub(super) name: Name,
    /// Where the field stands in the query.
    pub(super) at: Option<SourceSpan>,
    /// Its arguments as written.
    pub(super) arguments: Vec<Node<executable::Argument>>,
    /// What it asks for.
    pub(super) kind: Wanted,
}

/// What a field of `data` asks for.
pub(super) enum Wanted {
    /// `__typename`.
    TypeName,
    /// `__schema` or `__type`.
    Introspection,
    /// One document of the model of that number.
    Point(usize, Object),
    /// Several.
    ByIds(usize, Object),
    /// A page.
    Connection(usize, Connection),
}

/// The fields of an object, in the order of the response.
pub(super) struct Object {
    /// What is written.
    pub(super) slots: Vec<Slot>,
    /// `"name":` of each member of the bytes.
    pub(super) members: Arc<[Box<[u8]>]>,
}

/// One field of an object in the response.
pub(super) struct Slot {
    /// `"key":`, with a comma before it when it is not the first.
    pub(super) key: Box<[u8]>,
    /// The response key.
    pub(super) name: Name,
    /// What follows the key.
    pub(super) content: Content,
}

/// What stands behind a key.
pub(super) enum Content {
    /// Always the same bytes: `__typename`.
    Constant(Box<[u8]>),
    /// The bytes of a member.
    Leaf(usize),
    /// A member that is a float, which may be stored as a string when it is not finite.
    Float(usize),
    /// A nested object or null.
    Object(usize, Object),
    /// A nested array, with the number of its `first`.
    Array(usize, Object, Option<usize>),
}

/// The fields of a connection, in the order of the response.
pub(super) struct Connection {
    /// What is written.
    pub(super) slots: Vec<(Box<[u8]>, Part)>,
}

impl Connection {
    /// Whether `totalCount` is wanted.
    pub(super) fn is_counted(&self) -> bool {
        self.slots.iter().any(|(_, part)| matches!(part, Part::TotalCount))
    }
}

/// One field of a connection, its edges or its page info.
pub(super) enum Part {
    /// Always the same bytes.
    Constant(Box<[u8]>),
    /// `nodes`, with its response key.
    Nodes(Name, Object),
    /// `edges`, with its response key and the fields of an edge.
    Edges(Name, Vec<(Box<[u8]>, EdgePart)>),
    /// `pageInfo`, with its fields.
    PageInfo(Vec<(Box<[u8]>, PagePart)>),
    /// `totalCount`.
    TotalCount,
}

/// One field of an edge.
pub(super) enum EdgePart {
    Constant(Box<[u8]>),
    Cursor,
    /// `node`, with its response key.
    Node(Name, Object),
}

/// One field of `pageInfo`.
pub(super) enum PagePart {
    Constant(Box<[u8]>),
    HasNextPage,
    EndCursor,
}

/// Bytes of a field in a plan beside its key: what it is, and the room that lists have left.
const FIELD_BYTES: usize = 2 * size_of::<Slot>();

/// Makes plans.
pub(super) struct Compiler<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) document: &'a ExecutableDocument,
    /// Coerced variables; only those that `@skip` and `@include` look at are read.
    pub(super) variables: &'a JsonMap,
    /// Fields the plan may still get: fragments that spread one another make a short query a large plan.
    pub(super) fields_left: usize,
    pub(super) fields_max: usize,
    /// See [`Plan::firsts`].
    pub(super) firsts: Vec<Node<executable::Argument>>,
    /// See [`Plan::bytes`].
    pub(super) bytes: usize,
}

/// The fields of merged selection sets by response key, each with every selection that asks for it.
type Collected<'a> = IndexMap<&'a Name, Vec<&'a Node<executable::Field>>>;

impl<'a> Compiler<'a> {
    /// The plan of an operation.
    pub(super) fn plan(&mut self, operation: &'a Operation) -> Result<Plan, Problem> {
        let mut plan = Plan { roots: Vec::new(), introspects: false, firsts: Vec::new(), bytes: 0 };
        let Catalog { roots, changes, .. } = self.catalog;
        let named = if operation.is_subscription() { changes } else { roots };
        for (name, fields) in self.collect(&[&operation.selection_set])? {
            let field = fields[0];
            let kind = match field.name.as_str() {
                "__typename" => Wanted::TypeName,
                "__schema" | "__type" => {
                    plan.introspects = true;
                    Wanted::Introspection
                }
                of => match named.get(of) {
                    Some((model, RootKind::Point)) => Wanted::Point(*model, self.object(*model, &fields)?),
                    Some((model, RootKind::ByIds)) => Wanted::ByIds(*model, self.object(*model, &fields)?),
                    Some((model, RootKind::Connection)) => {
                        let connection = self.connection(*model, &fields)?;
                        if operation.is_subscription() && connection.is_counted() {
                            // What is counted changes with documents that are on no page.
                            let message = "`totalCount` cannot stand here: what is followed is the first page of a list, \
                                           uncounted; ask for it in a query";
                            let problem = Problem::new(Problem::INVALID, message);
                            return Err(problem.at(field.location(), &self.document.sources));
                        }
                        Wanted::Connection(*model, connection)
                    }
                    // The one field of the schema without models.
                    None => Wanted::Introspection,
                },
            };
            plan.roots.push(Root {
                key: quoted(name, !plan.roots.is_empty()),
                name: name.clone(),
                at: field.location(),
                arguments: field.arguments.clone(),
                kind,
            });
        }
        plan.firsts = std::mem::take(&mut self.firsts);
        plan.bytes = size_of::<Plan>() + self.bytes;
        Ok(plan)
    }

    fn object(&mut self, model: usize, fields: &[&'a Node<executable::Field>]) -> Result<Object, Problem> {
        let catalog = self.catalog;
        self.nested(&catalog.models[model].object, fields)
    }

    fn nested(&mut self, object: &'a ObjectType, fields: &[&'a Node<executable::Field>]) -> Result<Object, Problem> {
        let mut slots = Vec::new();
        for (name, fields) in self.collect_below(fields)? {
            let field = fields[0];
            let content = match object.position(&field.name) {
                None => type_name(&object.name),
                Some(at) => match &object.members[at].kind {
                    MemberKind::Leaf(Scalar::Float) => Content::Float(at),
                    MemberKind::Leaf(_) => Content::Leaf(at),
                    MemberKind::Object(of) => Content::Object(at, self.nested(of, &fields)?),
                    MemberKind::Array(of) => {
                        let first = field.arguments.iter().find(|argument| argument.name == "first");
                        let first = first.map(|argument| {
                            self.firsts.push(argument.clone());
                            self.firsts.len() - 1
                        });
                        Content::Array(at, self.nested(of, &fields)?, first)
                    }
                },
            };
            slots.push(Slot { key: quoted(name, !slots.is_empty()), name: name.clone(), content });
        }
        Ok(Object { slots, members: object.keys.clone() })
    }

    fn connection(&mut self, model: usize, fields: &[&'a Node<executable::Field>]) -> Result<Connection, Problem> {
        let names = &self.catalog.models[model];
        let mut slots = Vec::new();
        for (name, fields) in self.collect_below(fields)? {
            let part = match fields[0].name.as_str() {
                "nodes" => Part::Nodes(name.clone(), self.object(model, &fields)?),
                "totalCount" => Part::TotalCount,
                "edges" => {
                    let mut edge = Vec::new();
                    for (name, fields) in self.collect_below(&fields)? {
                        let part = match fields[0].name.as_str() {
                            "cursor" => EdgePart::Cursor,
                            "node" => EdgePart::Node(name.clone(), self.object(model, &fields)?),
                            _ => EdgePart::Constant(json_text(&names.edge_type)),
                        };
                        edge.push((quoted(name, !edge.is_empty()), part));
                    }
                    Part::Edges(name.clone(), edge)
                }
                "pageInfo" => {
                    let mut info = Vec::new();
                    for (name, fields) in self.collect_below(&fields)? {
                        let part = match fields[0].name.as_str() {
                            "hasNextPage" => PagePart::HasNextPage,
                            "endCursor" => PagePart::EndCursor,
                            _ => PagePart::Constant(json_text("PageInfo")),
                        };
                        info.push((quoted(name, !info.is_empty()), part));
                    }
                    Part::PageInfo(info)
                }
                _ => Part::Constant(json_text(&names.connection_type)),
            };
            slots.push((quoted(name, !slots.is_empty()), part));
        }
        Ok(Connection { slots })
    }

    fn collect_below(&mut self, fields: &[&'a Node<executable::Field>]) -> Result<Collected<'a>, Problem> {
        let sets: Vec<&'a SelectionSet> = fields.iter().map(|field| &field.selection_set).collect();
        self.collect(&sets)
    }

    /// The specification's CollectFields over all `sets`: every object type is concrete here, so type conditions that
    /// passed validation always hold.
    fn collect(&mut self, sets: &[&'a SelectionSet]) -> Result<Collected<'a>, Problem> {
        let mut out = Collected::default();
        let mut spread = Vec::new();
        for set in sets {
            self.gather(set, &mut spread, &mut out)?;
        }
        self.fields_left = match self.fields_left.checked_sub(out.len()) {
            Some(left) => left,
            None => {
                let max = self.fields_max;
                return Err(Problem::limit(
                    format!("the operation selects more than {max} fields once its fragments are spread"),
                    "fields",
                ));
            }
        };
        self.bytes += out.keys().map(|name| FIELD_BYTES + name.len()).sum::<usize>();
        Ok(out)
    }

    fn gather(
        &mut self,
        set: &'a SelectionSet,
        spread: &mut Vec<&'a Name>,
        out: &mut Collected<'a>,
    ) -> Result<(), Problem> {
        for selection in &set.selections {
            if !is_included(selection.directives(), self.variables) {
                continue;
            }
            match selection {
                Selection::Field(field) => out.entry(field.response_key()).or_default().push(field),
                Selection::InlineFragment(fragment) => self.gather(&fragment.selection_set, spread, out)?,
                Selection::FragmentSpread(of) if spread.contains(&&of.fragment_name) => {}
                Selection::FragmentSpread(of) => {
                    spread.push(&of.fragment_name);
                    if let Some(fragment) = self.document.fragments.get(&of.fragment_name) {
                        self.gather(&fragment.selection_set, spread, out)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether `@skip` and `@include` leave a selection where it is.
pub(super) fn is_included(directives: &executable::DirectiveList, variables: &JsonMap) -> bool {
    let holds = |name: &str| {
        let argument = directives.get(name)?.specified_argument_by_name("if")?;
        match &**argument {
            Value::Boolean(value) => Some(*value),
            Value::Variable(name) => variables.get(name.as_str())?.as_bool(),
            _ => None,
        }
    };
    holds("skip") != Some(true) && holds("include") != Some(false)
}

/// The variables that `@skip` and `@include` look at, anywhere in a document.
pub(super) fn condition_variables(document: &ExecutableDocument) -> Vec<Name> {
    fn visit(set: &SelectionSet, out: &mut Vec<Name>) {
        for selection in &set.selections {
            for directive in selection.directives().iter() {
                for argument in &directive.arguments {
                    if let Value::Variable(name) = &*argument.value
                        && !out.contains(name)
                    {
                        out.push(name.clone());
                    }
                }
            }
            match selection {
                Selection::Field(field) => visit(&field.selection_set, out),
                Selection::InlineFragment(fragment) => visit(&fragment.selection_set, out),
                Selection::FragmentSpread(_) => {}
            }
        }
    }
    let mut out = Vec::new();
    document.operations.iter().for_each(|operation| visit(&operation.selection_set, &mut out));
    document.fragments.values().for_each(|fragment| visit(&fragment.selection_set, &mut out));
    out
}

fn type_name(name: &str) -> Content {
    Content::Constant(json_text(name))
}

fn json_text(text: &str) -> Box<[u8]> {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_json_string(&mut out, text);
    out.into()
}

/// `"name":`, with a comma before it when it is not the first.
pub(super) fn quoted(name: &str, comma: bool) -> Box<[u8]> {
    let mut out = Vec::with_capacity(name.len() + 4);
    if comma {
        out.push(b',');
    }
    write_json_string(&mut out, name);
    out.push(b':');
    out.into()
}
