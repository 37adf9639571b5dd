//! What an operation asks about the schema, counted before it is answered.
//!
//! The types that describe a schema refer to one another in circles, and every list in a list multiplies: a text of a
//! kilobyte can ask for more than any memory holds. So the lists are walked here first, as they will be when they are
//! answered, but nothing is written, and the walk ends where the budget does.

use apollo_compiler::ast::{DirectiveDefinition, FieldDefinition, InputValueDefinition, Type};
use apollo_compiler::collections::HashMap;
use apollo_compiler::executable::{ExecutableDocument, Field, Operation, Selection, SelectionSet};
use apollo_compiler::response::JsonMap;
use apollo_compiler::schema::{ExtendedType, Implementers};
use apollo_compiler::{Name, Schema};

use super::arguments::{Input, argument};
use super::plan::is_included;

/// Values that may be told for each thing the schema declares. What tools send asks for fewer than thirty.
const VALUES_PER_ELEMENT: usize = 50;

/// Types, fields, arguments, values and directives of a schema.
fn elements(schema: &Schema) -> usize {
    let fields = |fields: &mut dyn Iterator<Item = usize>| fields.map(|arguments| 1 + arguments).sum::<usize>();
    let of_type = |of: &ExtendedType| match of {
        ExtendedType::Object(of) => fields(&mut of.fields.values().map(|field| field.arguments.len())),
        ExtendedType::Interface(of) => fields(&mut of.fields.values().map(|field| field.arguments.len())),
        ExtendedType::InputObject(of) => of.fields.len(),
        ExtendedType::Enum(of) => of.values.len(),
        ExtendedType::Union(of) => of.members.len(),
        ExtendedType::Scalar(_) => 0,
    };
    let types: usize = schema.types.values().map(|of| 1 + of_type(of)).sum();
    let directives: usize = schema.directive_definitions.values().map(|of| 1 + of.arguments.len()).sum();
    types + directives
}

/// Values of a schema that one request may ask for: of a small one `least`, of a large one in proportion to it, so that
/// tools can read it whole.
pub(super) fn values_max(schema: &Schema, least: usize) -> usize {
    elements(schema).saturating_mul(VALUES_PER_ELEMENT).max(least)
}

/// What a selection is about.
#[derive(Clone, Copy)]
enum Element<'a> {
    /// `Query`, where the questions about the schema begin.
    Root,
    Schema,
    Type(&'a ExtendedType),
    /// A type that is never null.
    NonNull(&'a Type),
    /// A list of these.
    List(&'a Type),
    Field(&'a FieldDefinition),
    Input(&'a InputValueDefinition),
    EnumValue,
    Directive(&'a DirectiveDefinition),
}

/// There are more values than there may be.
#[derive(Debug)]
pub(super) struct TooMany;

/// Counts what an operation asks about a schema.
pub(super) struct Counter<'a> {
    pub(super) schema: &'a Schema,
    pub(super) implementers: &'a HashMap<Name, Implementers>,
    pub(super) document: &'a ExecutableDocument,
    pub(super) variables: &'a JsonMap,
    /// Values that may still be asked for.
    pub(super) left: usize,
}

impl<'a> Counter<'a> {
    /// Takes all that an operation asks from [`Counter::left`], and tells what is left then.
    ///
    /// Selections that are merged when they are answered are counted each by itself: that is never less than the work
    /// they make.
    ///
    /// # Errors
    ///
    /// There is not so much left.
    pub(super) fn count(mut self, operation: &'a Operation) -> Result<usize, TooMany> {
        self.selected(Element::Root, &operation.selection_set)?;
        Ok(self.left)
    }

    fn take(&mut self, values: usize) -> Result<(), TooMany> {
        self.left = self.left.checked_sub(values).ok_or(TooMany)?;
        Ok(())
    }

    fn selected(&mut self, on: Element<'a>, set: &'a SelectionSet) -> Result<(), TooMany> {
        for selection in &set.selections {
            // Looking at a selection is work, too, whatever comes of it.
            self.take(1)?;
            if !is_included(selection.directives(), self.variables) {
                continue;
            }
            match selection {
                Selection::Field(field) => self.field(on, field)?,
                Selection::InlineFragment(fragment) => self.selected(on, &fragment.selection_set)?,
                Selection::FragmentSpread(of) => {
                    if let Some(fragment) = self.document.fragments.get(&of.fragment_name) {
                        self.selected(on, &fragment.selection_set)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn field(&mut self, on: Element<'a>, field: &'a Field) -> Result<(), TooMany> {
        let (schema, set) = (self.schema, &field.selection_set);
        let named = |name: &str| schema.types.get(name).map(Element::Type);
        match (on, field.name.as_str()) {
            (Element::Root, "__schema") => self.each([Element::Schema], set),
            (Element::Root, "__type") => {
                let name = argument(&field.arguments, "name", self.variables).and_then(Input::text);
                self.each(name.and_then(|name| named(&name)), set)
            }
            (Element::Schema, "types") => self.each(schema.types.values().map(Element::Type), set),
            (Element::Schema, "directives") => {
                self.each(schema.directive_definitions.values().map(|of| Element::Directive(of)), set)
            }
            (Element::Schema, "queryType") => {
                let query = schema.schema_definition.query.as_ref();
                self.each(query.and_then(|name| named(name)), set)
            }
            (Element::Schema, "subscriptionType") => {
                let subscription = schema.schema_definition.subscription.as_ref();
                self.each(subscription.and_then(|name| named(name)), set)
            }
            (Element::Type(ExtendedType::Object(of)), "fields") => {
                self.each(of.fields.values().map(|field| Element::Field(field)), set)
            }
            (Element::Type(ExtendedType::Interface(of)), "fields") => {
                self.each(of.fields.values().map(|field| Element::Field(field)), set)
            }
            (Element::Type(ExtendedType::InputObject(of)), "inputFields") => {
                self.each(of.fields.values().map(|field| Element::Input(field)), set)
            }
            (Element::Type(ExtendedType::Enum(of)), "enumValues") => {
                self.each(of.values.values().map(|_| Element::EnumValue), set)
            }
            (Element::Type(ExtendedType::Object(of)), "interfaces") => {
                self.each(of.implements_interfaces.iter().filter_map(|name| named(name)), set)
            }
            (Element::Type(ExtendedType::Interface(of)), "interfaces") => {
                self.each(of.implements_interfaces.iter().filter_map(|name| named(name)), set)
            }
            (Element::Type(ExtendedType::Union(of)), "possibleTypes") => {
                self.each(of.members.iter().filter_map(|name| named(name)), set)
            }
            (Element::Type(ExtendedType::Interface(of)), "possibleTypes") => {
                let objects = self.implementers.get(&of.name).into_iter().flat_map(|of| &of.objects);
                self.each(objects.filter_map(|name| named(name)), set)
            }
            (Element::NonNull(Type::NonNullNamed(name)), "ofType") => self.each(named(name), set),
            (Element::NonNull(Type::NonNullList(of)), "ofType") => self.each([Element::List(of)], set),
            (Element::List(of), "ofType") => self.each(self.of_type(of), set),
            (Element::Field(of), "type") => self.each(self.of_type(&of.ty), set),
            (Element::Input(of), "type") => self.each(self.of_type(&of.ty), set),
            (Element::Field(of), "args") => self.each(of.arguments.iter().map(|of| Element::Input(of)), set),
            (Element::Directive(of), "args") => self.each(of.arguments.iter().map(|of| Element::Input(of)), set),
            (Element::Directive(of), "locations") => self.take(of.locations.len()),
            // Single values, null, and what is not about the schema.
            _ => Ok(()),
        }
    }

    fn each(&mut self, elements: impl IntoIterator<Item = Element<'a>>, set: &'a SelectionSet) -> Result<(), TooMany> {
        for element in elements {
            self.take(1)?;
            self.selected(element, set)?;
        }
        Ok(())
    }

    fn of_type(&self, of: &'a Type) -> Option<Element<'a>> {
        match of {
            Type::Named(name) => self.schema.types.get(name).map(Element::Type),
            Type::List(of) => Some(Element::List(of)),
            Type::NonNullNamed(_) | Type::NonNullList(_) => Some(Element::NonNull(of)),
        }
    }
}
