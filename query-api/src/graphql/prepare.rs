//! From the text of a query to a plan: parse, limits, validate, compile; the outcome is kept for the next time.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use apollo_compiler::ast;
use apollo_compiler::diagnostic::Diagnostic;
use apollo_compiler::executable::{ExecutableDocument, Operation, Selection, SelectionSet};
use apollo_compiler::parser::Parser;
use apollo_compiler::response::JsonMap;
use apollo_compiler::validation::{DiagnosticData, DiagnosticList, Valid};
use apollo_compiler::{Name, Node, Schema};
use parking_lot::Mutex;

use super::GraphQlLimits;
use super::catalog::Catalog;
use super::error::Problem;
use super::plan::{Compiler, Plan, condition_variables};
use super::suggest;
use crate::observe::slow::normal_operation;

/// Errors shown of one query.
const PROBLEMS_MAX: usize = 20;
/// Nesting the parser follows. What is deeper than this never reaches the depth limit.
const RECURSION_MAX: usize = 200;
/// Bytes of an alias, which is written again with every value that is asked for under it.
const ALIAS_BYTES_MAX: usize = 256;
/// Plans kept of one operation, one for each set of values of its `@skip` and `@include` variables.
const PLANS_MAX: usize = 8;
/// Bytes that are kept of a text for each of its own, about: the most of it is what was parsed.
const PARSED_PER_BYTE: usize = 16;

/// A parsed and validated operation with its plans.
pub(super) struct Prepared {
    pub(super) document: Valid<ExecutableDocument>,
    pub(super) operation: Node<Operation>,
    /// The text without its values, for logs.
    pub(super) normal: Arc<str>,
    /// Bytes that it takes without its plans, about.
    parsed_bytes: usize,
    /// Variables that `@skip` and `@include` look at.
    conditions: Vec<Name>,
    plans: Mutex<Vec<(u64, Arc<Plan>)>>,
}

impl Prepared {
    /// Parses and validates; does not look at variables.
    pub(super) fn new(
        schema: &Valid<Schema>,
        limits: &GraphQlLimits,
        query: &str,
        operation_name: Option<&str>,
    ) -> Result<Self, Vec<Problem>> {
        let document = validated(schema, limits, query)?;
        let operation = document
            .operations
            .get(operation_name)
            .map_err(|wrong| vec![Problem::new(Problem::INVALID, wrong.message().to_string())])?
            .clone();
        let depth = depth(&document, &operation.selection_set, &mut HashMap::new());
        if depth > limits.depth_max {
            let max = limits.depth_max;
            let message = format!("the operation is {depth} levels deep, over the limit of {max}");
            return Err(vec![Problem::limit(message, "depth")]);
        }
        apollo_compiler::introspection::check_max_depth(&document, &operation).map_err(|wrong| {
            let problem = Problem::limit(wrong.message().to_string(), "introspection depth");
            vec![problem.at(wrong.location(), &document.sources)]
        })?;
        let conditions = condition_variables(&document);
        if conditions.len() > 64 {
            let message = "the query has more than 64 variables that `@skip` and `@include` look at";
            return Err(vec![Problem::limit(message, "conditions")]);
        }
        let normal = normal_operation(query).into();
        let parsed_bytes = query.len() * PARSED_PER_BYTE;
        Ok(Self { document, operation, normal, parsed_bytes, conditions, plans: Mutex::new(Vec::new()) })
    }

    /// Whether a text fits the schema, whichever of its operations is asked for.
    pub(super) fn check(schema: &Valid<Schema>, limits: &GraphQlLimits, text: &str) -> Result<(), Vec<Problem>> {
        validated(schema, limits, text).map(drop)
    }

    /// Bytes that it takes, about. Each plan it is asked for may add to them.
    pub(super) fn bytes(&self) -> usize {
        self.parsed_bytes + self.plans.lock().iter().map(|(_, plan)| plan.bytes).sum::<usize>()
    }

    /// The plan for these variables, and whether it is one more that is kept.
    pub(super) fn plan(
        &self,
        catalog: &Catalog,
        limits: &GraphQlLimits,
        variables: &JsonMap,
    ) -> Result<(Arc<Plan>, bool), Problem> {
        let bit = |(at, name): (usize, &Name)| {
            let set = variables.get(name.as_str()).and_then(|value| value.as_bool()) == Some(true);
            u64::from(set) << at
        };
        let conditions: u64 = self.conditions.iter().enumerate().map(bit).sum();
        if let Some((_, plan)) = self.plans.lock().iter().find(|(of, _)| *of == conditions) {
            return Ok((plan.clone(), false));
        }
        let mut compiler = Compiler {
            catalog,
            document: &self.document,
            variables,
            fields_left: limits.fields_max,
            fields_max: limits.fields_max,
            firsts: Vec::new(),
            bytes: 0,
        };
        let plan = Arc::new(compiler.plan(&self.operation)?);
        let mut plans = self.plans.lock();
        let is_kept = plans.len() < PLANS_MAX;
        if is_kept {
            plans.push((conditions, plan.clone()));
        }
        Ok((plan, is_kept))
    }
}

/// Parses a text within the limits and validates it.
fn validated(
    schema: &Valid<Schema>,
    limits: &GraphQlLimits,
    query: &str,
) -> Result<Valid<ExecutableDocument>, Vec<Problem>> {
    let mut parser = Parser::new().token_limit(limits.tokens_max).recursion_limit(RECURSION_MAX);
    let parsed = parser.parse_ast(query, "query");
    if parser.tokens_reached() > limits.tokens_max {
        let max = limits.tokens_max;
        return Err(vec![Problem::limit(format!("the query has more than {max} tokens"), "tokens")]);
    }
    if parser.recursion_reached() > RECURSION_MAX {
        return Err(vec![Problem::limit(format!("the query nests more than {RECURSION_MAX} levels"), "depth")]);
    }
    let parsed = parsed.map_err(|broken| problems(Problem::SYNTAX, &broken.errors, schema))?;
    let aliases = aliases(&parsed);
    if aliases.len() > limits.aliases_max {
        let (count, max) = (aliases.len(), limits.aliases_max);
        let message = format!("the query has {count} aliases, over the limit of {max}");
        return Err(vec![Problem::limit(message, "aliases")]);
    }
    if let Some(bytes) = aliases.iter().find(|bytes| **bytes > ALIAS_BYTES_MAX) {
        let message = format!("the query has an alias of {bytes} bytes, over the limit of {ALIAS_BYTES_MAX}");
        return Err(vec![Problem::limit(message, "alias bytes")]);
    }
    let writes = |definition: &ast::Definition| matches!(definition, ast::Definition::OperationDefinition(of) if of.operation_type == ast::OperationType::Mutation);
    if parsed.definitions.iter().any(writes) {
        let message = "there is no mutation here: documents change when their sources do";
        return Err(vec![Problem::new(Problem::MUTATION, message)]);
    }
    parsed.to_executable_validate(schema).map_err(|invalid| problems(Problem::INVALID, &invalid.errors, schema))
}

fn problems(code: &'static str, diagnostics: &DiagnosticList, schema: &Schema) -> Vec<Problem> {
    let of = |diagnostic: Diagnostic<'_, DiagnosticData>| {
        let message = diagnostic.error.to_string();
        let message = match suggest::nearest(&message, schema) {
            Some(name) => format!("{message}; did you mean `{name}`?"),
            None => message,
        };
        let mut problem = Problem::new(code, message);
        problem.locations.extend(diagnostic.line_column_range().map(|range| range.start));
        problem
    };
    let mut problems: Vec<Problem> = diagnostics.iter().map(of).collect();
    // A selection of unknown fields only is empty to the compiler, which says so first and misleads.
    if problems.iter().any(|problem| problem.message.contains("does not have a field")) {
        problems.retain(|problem| !problem.message.contains("must have a subselection set"));
    }
    problems.truncate(PROBLEMS_MAX);
    problems
}

/// The bytes of each alias anywhere in a document.
fn aliases(document: &ast::Document) -> Vec<usize> {
    fn visit(selections: &[ast::Selection], out: &mut Vec<usize>) {
        for selection in selections {
            match selection {
                ast::Selection::Field(field) => {
                    out.extend(field.alias.as_ref().map(|alias| alias.len()));
                    visit(&field.selection_set, out);
                }
                ast::Selection::InlineFragment(fragment) => visit(&fragment.selection_set, out),
                ast::Selection::FragmentSpread(_) => {}
            }
        }
    }
    let mut out = Vec::new();
    for definition in &document.definitions {
        match definition {
            ast::Definition::OperationDefinition(operation) => visit(&operation.selection_set, &mut out),
            ast::Definition::FragmentDefinition(fragment) => visit(&fragment.selection_set, &mut out),
            _ => {}
        }
    }
    out
}

/// Levels of fields. Introspection is not counted: it has a limit of its own.
fn depth<'d>(document: &'d ExecutableDocument, set: &'d SelectionSet, known: &mut HashMap<&'d Name, usize>) -> usize {
    let mut deepest = 0;
    for selection in &set.selections {
        let levels = match selection {
            Selection::Field(field) if field.name.starts_with("__") => 1,
            Selection::Field(field) => 1 + depth(document, &field.selection_set, known),
            Selection::InlineFragment(fragment) => depth(document, &fragment.selection_set, known),
            Selection::FragmentSpread(spread) => match known.get(&spread.fragment_name) {
                Some(levels) => *levels,
                None => {
                    let fragment = document.fragments.get(&spread.fragment_name);
                    let levels = fragment.map_or(0, |fragment| depth(document, &fragment.selection_set, known));
                    known.insert(&spread.fragment_name, levels);
                    levels
                }
            },
        };
        deepest = deepest.max(levels);
    }
    deepest
}

/// Prepared operations by text and name: the ones used most recently, up to a number of them, and of the bytes that
/// they take with their plans: those of a short text can be large. A text that is not valid is not kept, so a flood of
/// such texts throws nothing useful out; nor is one that is too large by itself.
pub(super) struct Cache {
    hasher: RandomState,
    state: Mutex<State>,
    capacity: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    clock: u64,
    /// By hash of text and name; the text is compared too.
    entries: HashMap<u64, Entry>,
    /// The sum of their bytes.
    bytes: usize,
}

struct Entry {
    used: u64,
    /// Bytes that the operation took when it was put here.
    bytes: usize,
    query: Box<str>,
    operation_name: Option<Box<str>>,
    prepared: Arc<Prepared>,
}

impl Cache {
    pub(super) fn new(capacity: usize, bytes_max: usize) -> Self {
        Self { hasher: RandomState::new(), state: Mutex::default(), capacity, bytes_max }
    }

    fn hash(&self, query: &str, operation_name: Option<&str>) -> u64 {
        self.hasher.hash_one((query, operation_name))
    }

    pub(super) fn get(&self, query: &str, operation_name: Option<&str>) -> Option<Arc<Prepared>> {
        let hash = self.hash(query, operation_name);
        let mut state = self.state.lock();
        state.clock += 1;
        let clock = state.clock;
        let entry = state.entries.get_mut(&hash)?;
        if *entry.query != *query || entry.operation_name.as_deref() != operation_name {
            return None;
        }
        entry.used = clock;
        Some(entry.prepared.clone())
    }

    /// How many there are, and the bytes they take now.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let state = self.state.lock();
        let bytes: usize = state.entries.values().map(|entry| entry.prepared.bytes()).sum();
        assert_eq!(bytes, state.bytes, "every plan is counted");
        (state.entries.len(), bytes)
    }

    /// Keeps an operation, or counts again what it takes: to be called whenever it has one more plan.
    pub(super) fn put(&self, query: &str, operation_name: Option<&str>, prepared: Arc<Prepared>) {
        let hash = self.hash(query, operation_name);
        let mut state = self.state.lock();
        // Within the lock: of two that put it, the later one counts the plans of both.
        let bytes = prepared.bytes();
        let before = state.entries.remove(&hash);
        state.bytes -= before.map_or(0, |entry| entry.bytes);
        if bytes > self.bytes_max {
            return;
        }
        while !state.entries.is_empty()
            && (state.entries.len() >= self.capacity || state.bytes + bytes > self.bytes_max)
        {
            // Half goes at once, so that the search for the oldest is paid once in many insertions.
            let mut used: Vec<u64> = state.entries.values().map(|entry| entry.used).collect();
            let middle = used.len() / 2;
            let (_, middle, _) = used.select_nth_unstable(middle);
            let middle = *middle;
            state.entries.retain(|_, entry| entry.used > middle);
            state.bytes = state.entries.values().map(|entry| entry.bytes).sum();
        }
        state.clock += 1;
        let (used, operation_name) = (state.clock, operation_name.map(Into::into));
        state.entries.insert(hash, Entry { used, bytes, query: query.into(), operation_name, prepared });
        state.bytes += bytes;
    }
}
