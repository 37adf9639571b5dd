//! What the names of the schema stand for: the served models, with the GraphQL names of their types, fields, filters
//! and orders, and the members of their documents in the order of the bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_schemas::ColumnType;
use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, ModelShape, Operator, ShapeField};

use super::names::{self, Taken};
use super::plan::quoted;
use crate::access::Visibility;

/// Every served model and how it is reached.
pub(super) struct Catalog {
    /// The models, in the order of their names.
    pub(super) models: Vec<Model>,
    /// What each field of `Query` does: (number of the model, what is asked of it).
    pub(super) roots: BTreeMap<String, (usize, RootKind)>,
    /// What each field of `Subscription` follows: (number of the model, one document or a page).
    pub(super) changes: BTreeMap<String, (usize, RootKind)>,
}

/// The three ways to ask for documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RootKind {
    /// One by id.
    Point,
    /// Several by id.
    ByIds,
    /// A page by declared index.
    Connection,
}

/// One served model.
pub(super) struct Model {
    /// What is seen of it.
    pub(super) visibility: Arc<Visibility>,
    /// The type of its documents.
    pub(super) object: ObjectType,
    /// `customerAccount`.
    pub(super) point: String,
    /// `customerAccountChanged`.
    pub(super) changed: String,
    /// `customerAccountsChanged`.
    pub(super) list_changed: String,
    /// `customerAccountsByIds`.
    pub(super) by_ids: String,
    /// `customerAccounts`.
    pub(super) connection: String,
    /// `CustomerAccountConnection`.
    pub(super) connection_type: String,
    /// `CustomerAccountEdge`.
    pub(super) edge_type: String,
    /// Type of `where`; `None` when nothing is indexed.
    pub(super) where_type: Option<String>,
    /// Type of `orderBy`; `None` when nothing can be sorted by.
    pub(super) order_type: Option<String>,
    /// Field of `where` for each index of the shape, in its order.
    pub(super) where_fields: Vec<String>,
}

/// The type of a document or nested object.
pub(super) struct ObjectType {
    /// Name of the GraphQL type.
    pub(super) name: String,
    /// Members in the order of the bytes.
    pub(super) members: Vec<Member>,
    /// `"name":` of each of them.
    pub(super) keys: Arc<[Box<[u8]>]>,
}

/// One member of an object.
pub(super) struct Member {
    /// Name, in the document and in GraphQL.
    pub(super) name: String,
    /// For people.
    pub(super) doc: Option<String>,
    /// Whether it is never null.
    pub(super) required: bool,
    /// What it holds.
    pub(super) kind: MemberKind,
}

/// What a member holds.
pub(super) enum MemberKind {
    /// A value.
    Leaf(Scalar),
    /// A nested object, or null.
    Object(ObjectType),
    /// An array of nested objects.
    Array(ObjectType),
}

/// The scalars of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scalar {
    Boolean,
    Int,
    Float,
    String,
    BigInt,
    Decimal,
    Bytes,
    Date,
    Time,
    TimeTz,
    LocalDateTime,
    DateTime,
    Duration,
    Uuid,
    Json,
}

impl Scalar {
    /// The scalar a column type is served as.
    pub(super) fn of(kind: &ColumnType) -> Self {
        match kind {
            ColumnType::Bool => Self::Boolean,
            ColumnType::Int32 => Self::Int,
            ColumnType::Int64 | ColumnType::UInt64 => Self::BigInt,
            ColumnType::Decimal => Self::Decimal,
            ColumnType::Float32 | ColumnType::Float64 => Self::Float,
            ColumnType::Text | ColumnType::Enum | ColumnType::Other => Self::String,
            ColumnType::Bytes => Self::Bytes,
            ColumnType::Date => Self::Date,
            ColumnType::Time => Self::Time,
            ColumnType::TimeTz => Self::TimeTz,
            ColumnType::Timestamp => Self::LocalDateTime,
            ColumnType::TimestampTz => Self::DateTime,
            ColumnType::Interval => Self::Duration,
            ColumnType::Uuid => Self::Uuid,
            // A source's array has any number of dimensions, which no list type can say.
            ColumnType::Json | ColumnType::Array(_) => Self::Json,
        }
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Boolean => "Boolean",
            Self::Int => "Int",
            Self::Float => "Float",
            Self::String => "String",
            Self::BigInt => "BigInt",
            Self::Decimal => "Decimal",
            Self::Bytes => "Bytes",
            Self::Date => "Date",
            Self::Time => "Time",
            Self::TimeTz => "TimeTz",
            Self::LocalDateTime => "LocalDateTime",
            Self::DateTime => "DateTime",
            Self::Duration => "Duration",
            Self::Uuid => "UUID",
            Self::Json => "JSON",
        }
    }

    /// What it holds, for people; `None` for those of the language.
    pub(super) fn doc(self) -> Option<&'static str> {
        Some(match self {
            Self::Boolean | Self::Int | Self::Float | Self::String => return None,
            Self::BigInt => {
                "64-bit integer. A number up to 2^53 in magnitude and a string beyond, so that none is rounded."
            }
            Self::Decimal => "Exact decimal, as a string such as \"-12.50\".",
            Self::Bytes => "Bytes in base64.",
            Self::Date => "Calendar date, `2026-01-31`.",
            Self::Time => "Time of day without zone, `23:59:59.5`.",
            Self::TimeTz => "Time of day with its offset, `23:59:59+01:00`.",
            Self::LocalDateTime => "Date and time without zone, `2026-01-31T23:59:59`.",
            Self::DateTime => "Instant, `2026-01-31T23:59:59Z`.",
            Self::Duration => "ISO 8601 duration, `P1Y2M3DT4H5M6.5S`.",
            Self::Uuid => "UUID in its hyphenated form.",
            Self::Json => "Any JSON value.",
        })
    }

    /// The operators a filter of this scalar has.
    pub(super) fn operators(self) -> &'static [Operator] {
        use Operator::{Contains, Eq, Exists, Gt, Gte, In, Lt, Lte, Ne, Nin, StartsWith};
        match self {
            Self::Boolean => &[Eq, Ne, Exists],
            Self::String => &[Eq, Ne, In, Nin, Gt, Gte, Lt, Lte, StartsWith, Contains, Exists],
            Self::Duration | Self::Bytes => &[Eq, Ne, In, Nin, Exists],
            Self::Json => &[Exists],
            _ => &[Eq, Ne, In, Nin, Gt, Gte, Lt, Lte, Exists],
        }
    }
}

impl Catalog {
    /// Names everything. `models` in any order: names do not depend on it.
    pub(super) fn new(models: &[Arc<Visibility>]) -> Self {
        let mut models: Vec<&Arc<Visibility>> = models.iter().collect();
        models.sort_by(|a, b| a.shape.model.cmp(&b.shape.model));
        let (mut types, mut fields, mut followed) = (Taken::types(), Taken::empty(), Taken::empty());
        // Models first, so that no nested type takes the name of a model, and no list that of what follows one document.
        let own: Vec<(String, (String, String))> = models
            .iter()
            .map(|visibility| {
                let shape = &visibility.shape;
                let name = types.claim(names::type_name(&shape.model), "Document");
                let point = fields.claim(names::field_name(&shape.model), "Document");
                let changed = followed.claim(format!("{point}Changed"), "Document");
                (name, (point, changed))
            })
            .collect();
        let (mut roots, mut changes) = (BTreeMap::new(), BTreeMap::new());
        let mut named = Vec::with_capacity(models.len());
        for (number, (visibility, (name, own))) in models.into_iter().zip(own).enumerate() {
            let live = visibility.live;
            let taken = (&mut types, &mut fields, &mut followed);
            let model = Model::new(visibility.clone(), name, own, taken);
            // A channel without live streams has nothing to subscribe to.
            if live {
                changes.insert(model.changed.clone(), (number, RootKind::Point));
                changes.insert(model.list_changed.clone(), (number, RootKind::Connection));
            }
            roots.insert(model.point.clone(), (number, RootKind::Point));
            roots.insert(model.by_ids.clone(), (number, RootKind::ByIds));
            roots.insert(model.connection.clone(), (number, RootKind::Connection));
            named.push(model);
        }
        Self { models: named, roots, changes }
    }
}

impl Model {
    fn new(
        visibility: Arc<Visibility>,
        name: String,
        (point, changed): (String, String),
        (types, fields, followed): (&mut Taken, &mut Taken, &mut Taken),
    ) -> Self {
        let shape = &visibility.shape;
        let plural = names::plural(&point);
        let connection = fields.claim(plural.clone(), "List");
        let list_changed = followed.claim(format!("{connection}Changed"), "List");
        let by_ids = fields.claim(format!("{}ByIds", plural.strip_suffix("List").unwrap_or(&plural)), "List");
        let connection_type = types.claim(format!("{name}Connection"), "Of");
        let edge_type = types.claim(format!("{name}Edge"), "Of");
        let where_type = (!shape.indexes.is_empty()).then(|| types.claim(format!("{name}Where"), "Of"));
        let sortable = shape.indexes.iter().any(|index| !index.many);
        let order_type = sortable.then(|| types.claim(format!("{name}OrderBy"), "Of"));
        let object = ObjectType::new(name, &shape.fields, types);
        let mut paths = Taken::empty();
        let where_fields =
            shape.indexes.iter().map(|index| paths.claim(names::path_name(&index.name), "_nested")).collect();
        Self {
            visibility,
            object,
            point,
            changed,
            list_changed,
            by_ids,
            connection,
            connection_type,
            edge_type,
            where_type,
            order_type,
            where_fields,
        }
    }

    /// What its documents look like.
    pub(super) fn shape(&self) -> &ModelShape {
        &self.visibility.shape
    }

    /// The index an item of `orderBy` stands for, and whether it descends.
    pub(super) fn order(&self, item: &str) -> Option<(&str, bool)> {
        let (field, descending) = match item.strip_suffix("_DESC") {
            Some(field) => (field, true),
            None => (item.strip_suffix("_ASC")?, false),
        };
        let at = self.where_fields.iter().position(|name| name == field)?;
        Some((&self.shape().indexes[at].name, descending))
    }

    /// The path of the index a field of `where` stands for.
    pub(super) fn path(&self, where_field: &str) -> Option<&str> {
        let at = self.where_fields.iter().position(|name| name == where_field)?;
        Some(&self.shape().indexes[at].name)
    }
}

impl ObjectType {
    fn new(name: String, fields: &[ShapeField], types: &mut Taken) -> Self {
        let members: Vec<Member> = fields
            .iter()
            .map(|field| {
                let kind = match &field.kind {
                    FieldType::Scalar(kind) => MemberKind::Leaf(Scalar::of(kind)),
                    FieldType::Nested { cardinality, fields } => {
                        let nested = types.claim(format!("{name}{}", names::type_name(&field.name)), "Nested");
                        let nested = Self::new(nested, fields, types);
                        match cardinality {
                            Cardinality::Many => MemberKind::Array(nested),
                            Cardinality::One => MemberKind::Object(nested),
                        }
                    }
                };
                // A float can be NaN, for which GraphQL has only null and an error.
                let required = field.required && !matches!(kind, MemberKind::Leaf(Scalar::Float));
                Member { name: field.name.clone(), doc: field.doc.clone(), required, kind }
            })
            .collect();
        let keys = members.iter().map(|member| quoted(&member.name, false)).collect();
        Self { name, members, keys }
    }

    /// The place of a member.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|member| member.name == name)
    }
}
