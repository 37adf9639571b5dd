//! The schema as text.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::catalog::{Catalog, MemberKind, Model, ObjectType, Scalar};
use headwater_schemas::model::Operator;

/// Writes the schema of a catalog.
pub(super) fn write(catalog: &Catalog) -> String {
    let mut sdl = Sdl { out: String::with_capacity(4096), scalars: BTreeSet::new(), filters: BTreeSet::new() };
    sdl.query(catalog);
    sdl.subscription(catalog);
    for model in &catalog.models {
        sdl.model(model);
    }
    if !catalog.models.is_empty() {
        sdl.out.push_str(PAGE_INFO);
    }
    sdl.shared();
    sdl.out
}

const PAGE_INFO: &str = r#"
"Where a page ends."
type PageInfo {
  "Whether more documents follow."
  hasNextPage: Boolean!
  "What `after` takes to go on behind this page; null when nothing follows."
  endCursor: String
}
"#;

struct Sdl {
    out: String,
    scalars: BTreeSet<Scalar>,
    filters: BTreeSet<Scalar>,
}

impl Sdl {
    fn line(&mut self, indent: usize, text: std::fmt::Arguments<'_>) {
        self.out.extend(std::iter::repeat_n(' ', indent));
        self.out.write_fmt(text).expect("a String takes everything");
        self.out.push('\n');
    }

    fn doc(&mut self, indent: usize, doc: &str) {
        // What a source's author wrote may hold anything; what a block string may not hold becomes a blank.
        let text = doc.replace("\"\"\"", "\\\"\"\"");
        self.line(indent, format_args!("\"\"\""));
        for line in text.lines() {
            let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            self.line(indent, format_args!("{}", line.trim_end()));
        }
        self.line(indent, format_args!("\"\"\""));
    }

    fn short_doc(&mut self, indent: usize, doc: std::fmt::Arguments<'_>) {
        let text = doc.to_string().replace('\\', "\\\\").replace('"', "\\\"");
        self.line(indent, format_args!("\"{text}\""));
    }

    fn query(&mut self, catalog: &Catalog) {
        self.line(0, format_args!("type Query {{"));
        if catalog.models.is_empty() {
            self.short_doc(2, format_args!("Nothing is served yet: the first read model is still being built."));
            self.line(2, format_args!("_: Boolean"));
        }
        for model in &catalog.models {
            let name = &model.object.name;
            let shown = &model.shape().model;
            self.short_doc(2, format_args!("One {shown} by its id; null when there is none."));
            self.line(2, format_args!("{}(id: ID!): {name}", model.point));
            self.short_doc(2, format_args!("Several by id, in the order of `ids`; null where there is none."));
            self.line(2, format_args!("{}(ids: [ID!]!): [{name}]", model.by_ids));
            self.short_doc(2, format_args!("A page of {shown} documents in the order of {}.", order(model)));
            let (arguments, of) = (page_arguments(model), &model.connection_type);
            self.line(2, format_args!("{}({arguments}, after: String): {of}", model.connection));
        }
        self.line(0, format_args!("}}"));
    }

    fn subscription(&mut self, catalog: &Catalog) {
        if catalog.changes.is_empty() {
            return;
        }
        self.out.push('\n');
        self.line(0, format_args!("type Subscription {{"));
        for model in catalog.models.iter().filter(|model| catalog.changes.contains_key(&model.changed)) {
            let (name, shown) = (&model.object.name, &model.shape().model);
            self.short_doc(
                2,
                format_args!("One {shown} as it is, and again whenever that changes; null once it is gone."),
            );
            self.line(2, format_args!("{}(id: ID!): {name}", model.changed));
            self.short_doc(
                2,
                format_args!(
                    "The first page of {shown} documents in the order of {}, and again whenever what is selected of it \
                     changes. It is not counted: ask for `totalCount` in a query.",
                    order(model)
                ),
            );
            let (arguments, of) = (page_arguments(model), &model.connection_type);
            self.line(2, format_args!("{}({arguments}): {of}", model.list_changed));
        }
        self.line(0, format_args!("}}"));
    }

    fn model(&mut self, model: &Model) {
        let name = &model.object.name;
        self.object(&model.object, model.shape().doc.as_deref());

        self.out.push('\n');
        self.short_doc(0, format_args!("A page of {} documents.", model.shape().model));
        self.line(0, format_args!("type {} {{", model.connection_type));
        self.short_doc(2, format_args!("The documents with their cursors."));
        self.line(2, format_args!("edges: [{}!]!", model.edge_type));
        self.short_doc(2, format_args!("The documents."));
        self.line(2, format_args!("nodes: [{name}!]!"));
        self.short_doc(2, format_args!("Where the page ends."));
        self.line(2, format_args!("pageInfo: PageInfo!"));
        self.short_doc(
            2,
            format_args!(
                "How many documents match, exactly; null when there are too many to count, or when `contains` is asked."
            ),
        );
        self.line(2, format_args!("totalCount: BigInt"));
        self.line(0, format_args!("}}"));
        self.scalars.insert(Scalar::BigInt);

        self.out.push('\n');
        self.short_doc(0, format_args!("A document on a page."));
        self.line(0, format_args!("type {} {{", model.edge_type));
        self.short_doc(2, format_args!("What `after` takes to go on behind this document."));
        self.line(2, format_args!("cursor: String!"));
        self.line(2, format_args!("node: {name}!"));
        self.line(0, format_args!("}}"));

        if let Some(of) = &model.where_type {
            self.out.push('\n');
            self.short_doc(0, format_args!("Conditions on {} documents; all must hold.", model.shape().model));
            self.line(0, format_args!("input {of} {{"));
            for (field, index) in model.where_fields.iter().zip(&model.shape().indexes) {
                let scalar = Scalar::of(&index.kind);
                self.filters.insert(scalar);
                if index.many {
                    let none = if scalar.operators().contains(&Operator::Ne) {
                        "; `ne` and `nin`, when no element is so"
                    } else {
                        ""
                    };
                    self.short_doc(2, format_args!("{}: holds when one element meets it all{none}.", index.name));
                } else if *field != index.name {
                    self.short_doc(2, format_args!("{}", index.name));
                }
                self.line(2, format_args!("{field}: {}Filter", scalar.name()));
            }
            self.line(0, format_args!("}}"));
        }
        if let Some(of) = &model.order_type {
            self.out.push('\n');
            self.short_doc(0, format_args!("Orders of {} documents.", model.shape().model));
            self.line(0, format_args!("enum {of} {{"));
            for (field, index) in model.where_fields.iter().zip(&model.shape().indexes) {
                if !index.many {
                    self.line(2, format_args!("{field}_ASC"));
                    self.line(2, format_args!("{field}_DESC"));
                }
            }
            self.line(0, format_args!("}}"));
        }
    }

    fn object(&mut self, object: &ObjectType, doc: Option<&str>) {
        self.out.push('\n');
        if let Some(doc) = doc {
            self.doc(0, doc);
        }
        self.line(0, format_args!("type {} {{", object.name));
        for member in &object.members {
            if let Some(doc) = &member.doc {
                self.doc(2, doc);
            }
            let bang = if member.required { "!" } else { "" };
            match &member.kind {
                MemberKind::Leaf(scalar) => {
                    self.scalars.insert(*scalar);
                    self.line(2, format_args!("{}: {}{bang}", member.name, scalar.name()));
                }
                MemberKind::Object(of) => self.line(2, format_args!("{}: {}{bang}", member.name, of.name)),
                MemberKind::Array(of) => self.line(2, format_args!("{}(first: Int): [{}!]!", member.name, of.name)),
            }
        }
        self.line(0, format_args!("}}"));
        for member in &object.members {
            if let MemberKind::Object(of) | MemberKind::Array(of) = &member.kind {
                self.object(of, None);
            }
        }
    }

    fn shared(&mut self) {
        for scalar in std::mem::take(&mut self.filters) {
            if scalar != Scalar::Json {
                self.scalars.insert(scalar);
            }
            let name = scalar.name();
            self.out.push('\n');
            self.short_doc(0, format_args!("Conditions on a {name}; all must hold."));
            self.line(0, format_args!("input {name}Filter {{"));
            for operator in scalar.operators() {
                match operator {
                    Operator::In | Operator::Nin => self.line(2, format_args!("{}: [{name}!]", operator.word())),
                    Operator::Exists => self.line(2, format_args!("exists: Boolean")),
                    Operator::Contains => {
                        self.short_doc(2, format_args!("Only beside a condition that leaves few documents."));
                        self.line(2, format_args!("contains: {name}"));
                    }
                    _ => self.line(2, format_args!("{}: {name}", operator.word())),
                }
            }
            self.line(0, format_args!("}}"));
        }
        for scalar in std::mem::take(&mut self.scalars) {
            if let Some(doc) = scalar.doc() {
                self.out.push('\n');
                self.short_doc(0, format_args!("{doc}"));
                self.line(0, format_args!("scalar {}", scalar.name()));
            }
        }
    }
}

/// What a page is in the order of.
fn order(model: &Model) -> &'static str {
    if model.order_type.is_some() { "`orderBy`, then of ids" } else { "ids" }
}

/// The arguments that choose a first page.
fn page_arguments(model: &Model) -> String {
    let of = |name: &str, of: &Option<String>| of.as_ref().map(|of| format!("{name}: {of}, ")).unwrap_or_default();
    let (filter, order) = (of("where", &model.where_type), of("orderBy", &model.order_type));
    format!("{filter}{order}first: Int = {}", model.visibility.page.default)
}
