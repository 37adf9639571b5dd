//! A read model as declared, after parsing and validation: names are checked against one another, columns not yet
//! against the source (that happens when table schemas are known).

use serde::{Deserialize, Serialize};

use super::predicate::{Literal, Predicate};
use crate::TableId;

/// Behind the hash of a definition that the first arithmetic made other documents of.
const ARITHMETIC: &str = ".2";

/// With more dead letters than this in a hundred documents a new version does not take over, unless its model says otherwise.
pub const DEAD_LETTERS_PERCENT: u32 = 10;

/// One read model: a tree of nodes over tables, and the indexes readers may query by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadModel {
    /// Name, `[a-z][a-z0-9_]*`; the path under which it is served.
    pub name: String,
    /// The number its author gave it, shown to readers. The identity of a version is [`ReadModel::hash`].
    pub version: u32,
    /// For people: shown in OpenAPI and GraphQL.
    pub doc: Option<String>,
    /// The table whose rows give the documents their identity.
    pub root: Root,
    /// What the document holds.
    pub node: Node,
    /// What readers may filter and sort by.
    pub indexes: Vec<Index>,
    /// How many documents in a hundred may be missing from a new version that takes over, because they cannot be built; see
    /// [`DEAD_LETTERS_PERCENT`]. No part of what documents are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters_percent_max: Option<u32>,
}

/// The root table of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Root {
    /// The table.
    pub table: TableId,
    /// Columns of its primary key, in the order in which they make up the document's id.
    pub key: Vec<String>,
    /// Rows that do not match have no document.
    pub filter: Option<Predicate>,
}

/// One level of a document. In JSON, fields come first, then nested nodes, then computed fields, each in declared order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Fields from the level's own row.
    pub fields: Vec<Field>,
    /// Nested levels.
    pub relations: Vec<Relation>,
    /// Fields computed over nested levels.
    pub computes: Vec<Compute>,
}

/// One scalar field of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Name in the document.
    pub name: String,
    /// Where its value comes from.
    pub expression: Expression,
    /// For people.
    pub doc: Option<String>,
}

/// How a field gets its value from a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expression {
    /// The value of a column of the node's table.
    Column(String),
    /// Always the same.
    Constant(Literal),
    /// Texts of the parts one after another with the separator between; null parts are left out, and all null is null.
    Concat {
        /// What is joined.
        parts: Vec<Expression>,
        /// What stands between two parts.
        separator: String,
    },
    /// The first part that is not null. Parts of several types get one: integers of any width are integers, other numbers
    /// are decimals, and everything else is a text.
    Coalesce(Vec<Expression>),
    /// The value in another type. A value that has no form in that type makes the root's document undecodable: it goes
    /// to the dead letters, never silently to null.
    Cast {
        /// What is cast.
        of: Box<Expression>,
        /// The wanted type.
        to: CastType,
    },
}

/// Types a field can be cast to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CastType {
    /// JSON string: the value's plain text.
    Text,
    /// 64-bit integer; a decimal must be integral, a text must be an integer.
    Integer,
    /// Exact decimal.
    Decimal,
    /// JSON number of double precision: for readers that want numbers and accept rounding.
    Float,
    /// Boolean; from integers and decimals 0 and 1, texts `t f true false y n yes no 0 1`.
    Boolean,
    /// Calendar date; from timestamps their date, from texts ISO 8601.
    Date,
    /// Timestamp with zone; from a timestamp without zone as UTC, from texts ISO 8601.
    Timestamp,
    /// The text of a JSON document embedded as JSON.
    Json,
}

/// An edge from a row to nested rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Relation {
    /// Name in the document.
    pub name: String,
    /// For people.
    pub doc: Option<String>,
    /// `Many`: an array. `One`: an object, or null where there is none.
    pub cardinality: Cardinality,
    /// The nested table.
    pub table: TableId,
    /// Pairs (column of the nested table, column of the parent table, or of the join table where there is one) that
    /// must be equal. Null matches nothing.
    pub on: Vec<JoinColumn>,
    /// Join table of an M:N relation.
    pub through: Option<Through>,
    /// Nested rows that do not match are left out.
    pub filter: Option<Predicate>,
    /// Order of the array, on columns of the nested table; the nested row's primary key is always the last criterion.
    pub order: Vec<OrderBy>,
    /// Keep only this many, after filter and order. Computed fields count all rows, before the limit.
    pub limit: Option<u32>,
    /// What each nested object holds.
    pub node: Node,
}

/// How many nested rows a relation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cardinality {
    /// Any number.
    Many,
    /// At most one; if the data has several, the first in order.
    One,
}

/// The join table between parent and nested table. A nested row that is joined several times appears once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Through {
    /// The join table.
    pub table: TableId,
    /// Pairs (column of the join table, column of the parent table).
    pub on: Vec<JoinColumn>,
    /// Join rows that do not match are left out.
    pub filter: Option<Predicate>,
}

/// `child = parent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinColumn {
    /// Column of the table further from the root.
    pub child: String,
    /// Column of the table nearer to the root.
    pub parent: String,
}

/// One criterion of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderBy {
    /// Column of the nested table.
    pub column: String,
    /// Largest first. Null sorts before everything, so descending puts it last.
    pub descending: bool,
}

/// A field computed over the rows nested below its node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compute {
    /// Name in the document.
    pub name: String,
    /// For people.
    pub doc: Option<String>,
    /// What is computed.
    pub function: Aggregate,
    /// Names of relations from the node down, at least one: `[invoices, lines]`.
    pub relations: Vec<String>,
    /// Field of the last relation's node; `None` only for count and exists.
    pub field: Option<String>,
    /// Only rows along the path that match count. Names are paths from the node: `invoices.status`; each must be on the
    /// path of `relations`.
    pub filter: Option<Predicate>,
}

/// What is computed. Null values are passed over. Over nothing, count is 0, exists false, sum `"0"`, and the others null.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    /// Exact sum, as decimal.
    Sum,
    /// Number of rows; with a field, of rows where it is not null.
    Count,
    /// Smallest value.
    Min,
    /// Largest value.
    Max,
    /// Mean of the exact sum, with the digits and the rounding of PostgreSQL's `avg` of `numeric`.
    Avg,
    /// Whether there is a row.
    Exists,
}

/// A path of the document that readers may filter and sort by. A path through arrays indexes every element: it can be
/// filtered by, but not sorted by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Names from the document's top: `["invoices", "status"]`.
    pub path: Vec<String>,
}

impl Index {
    /// The path with points between.
    pub fn name(&self) -> String {
        self.path.join(".")
    }
}

impl Node {
    /// The node below the relation named `name`.
    pub fn relation(&self, name: &str) -> Option<&Node> {
        self.relations.iter().find(|relation| relation.name == name).map(|relation| &relation.node)
    }
}

impl ReadModel {
    /// A hash over everything that shapes the documents: two definitions with the same hash make the same documents. Docs do
    /// not count, nor when a version takes over. It is the [hash of the definition](Self::definition_hash), and behind a point
    /// the number of the arithmetic where that is not the first: a release that makes other documents of the same rows builds
    /// such models anew.
    pub fn hash(&self) -> String {
        let mut hash = self.definition_hash();
        if self.has_new_arithmetic() {
            hash.push_str(ARITHMETIC);
        }
        hash
    }

    /// Whether a version with this [`hash`](Self::hash) is of this definition, by whatever arithmetic.
    pub fn is_definition_of(&self, hash: &str) -> bool {
        hash.split('.').next() == Some(self.definition_hash().as_str())
    }

    /// First 8 bytes of a hash over the definition without what shapes no document, in hexadecimal.
    fn definition_hash(&self) -> String {
        fn strip(node: &mut Node) {
            node.fields.iter_mut().for_each(|field| field.doc = None);
            node.computes.iter_mut().for_each(|compute| compute.doc = None);
            for relation in &mut node.relations {
                relation.doc = None;
                strip(&mut relation.node);
            }
        }
        let mut model = self.clone();
        model.doc = None;
        model.dead_letters_percent_max = None;
        strip(&mut model.node);
        let json = serde_json::to_vec(&model).expect("a model has only string keys");
        blake3::hash(&json).to_hex()[..16].to_string()
    }

    /// Averages once had six digits, and `not` held of what is unknown.
    fn has_new_arithmetic(&self) -> bool {
        fn has(node: &Node) -> bool {
            let negates = |filter: &Option<Predicate>| filter.as_ref().is_some_and(Predicate::negates);
            node.computes.iter().any(|compute| compute.function == Aggregate::Avg || negates(&compute.filter))
                || node.relations.iter().any(|relation| {
                    let through = relation.through.as_ref().is_some_and(|through| negates(&through.filter));
                    through || negates(&relation.filter) || has(&relation.node)
                })
        }
        self.root.filter.as_ref().is_some_and(Predicate::negates) || has(&self.node)
    }

    /// Whether documents have a member at this path (names with points between).
    pub fn has_field(&self, path: &str) -> bool {
        let mut node = &self.node;
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            match node.relation(name) {
                Some(nested) => node = nested,
                None if names.peek().is_some() => return false,
                None => {
                    let fields = node.fields.iter().map(|field| &field.name);
                    return fields.chain(node.computes.iter().map(|compute| &compute.name)).any(|of| of == name);
                }
            }
        }
        true
    }

    /// Every table the model reads, each once, root first.
    pub fn tables(&self) -> Vec<&TableId> {
        fn visit<'a>(node: &'a Node, out: &mut Vec<&'a TableId>) {
            for relation in &node.relations {
                let tables = relation.through.iter().map(|through| &through.table).chain([&relation.table]);
                for table in tables {
                    if !out.contains(&table) {
                        out.push(table);
                    }
                }
                visit(&relation.node, out);
            }
        }
        let mut out = vec![&self.root.table];
        visit(&self.node, &mut out);
        out
    }

    /// Every source of whose tables the model reads any, each once, by name.
    pub fn sources(&self) -> Vec<String> {
        let mut sources: Vec<String> = self.tables().iter().map(|table| table.source.to_string()).collect();
        sources.sort();
        sources.dedup();
        sources
    }
}
