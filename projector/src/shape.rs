//! What the documents of a model look like to readers, derived from the types of the columns they are made of.

use headwater_schemas::model::definition::{Aggregate, Cardinality, Compute, Expression, Field, Node, ReadModel};
use headwater_schemas::model::{FieldType, IndexShape, Literal, ModelShape, Operator, Predicate, ShapeField};
use headwater_schemas::{ColumnType, TableId};

use crate::Error;
use crate::expression::cast_name;
use crate::plan::{Tables, column_type};
use crate::typing;

/// The document type of a model over these tables.
pub(crate) fn of(model: &ReadModel, tables: &Tables) -> Result<ModelShape, Error> {
    let deriving = Deriving { model, tables };
    let root = &model.root;
    let key = root.key.iter().map(|column| deriving.column(&root.table, column)).collect::<Result<_, _>>()?;
    let fields = deriving.members(&model.node, &root.table, &root.key, "")?;
    let indexes = model.indexes.iter().map(|index| deriving.index(&fields, &index.path)).collect::<Result<_, _>>()?;
    Ok(ModelShape { model: model.name.clone(), version: model.version, doc: model.doc.clone(), key, fields, indexes })
}

/// Whether values of two column types can be equal as join keys.
pub(crate) fn comparable(a: &ColumnType, b: &ColumnType) -> bool {
    fn family(kind: &ColumnType) -> u8 {
        use ColumnType as T;
        match kind {
            T::Bool => 0,
            T::Int32 | T::Int64 | T::UInt64 | T::Decimal | T::Float32 | T::Float64 => 1,
            T::Text | T::Uuid | T::Json | T::Enum | T::Other => 2,
            T::Bytes => 3,
            T::Date | T::Timestamp | T::TimestampTz => 4,
            T::Time => 5,
            T::TimeTz => 6,
            T::Array(_) => 7,
            T::Interval => 8,
        }
    }
    family(a) == family(b)
}

/// Refuses a condition of `place` that holds for no value of `name`, which is of a type that people call `called`, or for
/// every one.
pub(crate) fn fits(
    model: &str,
    place: &str,
    name: &str,
    (kind, called): (&ColumnType, &str),
    operator: Operator,
    literals: &[Literal],
) -> Result<(), Error> {
    match operator.unfit(kind, literals) {
        None => Ok(()),
        Some(literal) => Err(Error::NeverCompared {
            model: model.into(),
            place: place.into(),
            name: name.into(),
            why: format!("is of the type {called} and cannot be compared with {literal} (`{}`)", operator.word()),
        }),
    }
}

/// What a relation nests, and of which table.
type Level<'m> = (&'m Node, &'m TableId);

struct Deriving<'m> {
    model: &'m ReadModel,
    tables: &'m Tables,
}

impl Deriving<'_> {
    fn column(&self, table: &TableId, column: &str) -> Result<ColumnType, Error> {
        column_type(&self.model.name, &self.tables[table], column).cloned()
    }

    /// `required` are columns that are never null: the root's key.
    fn members(&self, node: &Node, table: &TableId, required: &[String], path: &str) -> Result<Vec<ShapeField>, Error> {
        let mut out = Vec::new();
        for field in &node.fields {
            self.casts(field, table, path)?;
            let kind = FieldType::Scalar(self.expression(&field.expression, table));
            let required = never_null(&field.expression, required);
            out.push(ShapeField { name: field.name.clone(), doc: field.doc.clone(), required, kind });
        }
        for relation in &node.relations {
            let schema = &self.tables[&relation.table];
            let key: Vec<String> =
                schema.key_columns().into_iter().map(|at| schema.columns[at].name.to_string()).collect();
            let fields = self.members(&relation.node, &relation.table, &key, &format!("{path}{}.", relation.name))?;
            out.push(ShapeField {
                name: relation.name.clone(),
                doc: relation.doc.clone(),
                required: relation.cardinality == Cardinality::Many,
                kind: FieldType::Nested { cardinality: relation.cardinality, fields },
            });
        }
        for compute in &node.computes {
            let kind = FieldType::Scalar(self.compute(node, compute, path)?);
            let required = matches!(compute.function, Aggregate::Sum | Aggregate::Count | Aggregate::Exists);
            out.push(ShapeField { name: compute.name.clone(), doc: compute.doc.clone(), required, kind });
        }
        Ok(out)
    }

    fn compute(&self, node: &Node, compute: &Compute, path: &str) -> Result<ColumnType, Error> {
        let unknown = || Error::UnknownPath {
            model: self.model.name.clone(),
            path: format!("{path}{}", compute.relations.join(".")),
        };
        let mut levels: Vec<Level<'_>> = Vec::with_capacity(compute.relations.len());
        for name in &compute.relations {
            let above = levels.last().map_or(node, |(node, _)| *node);
            let relation = above.relations.iter().find(|relation| relation.name == *name).ok_or_else(unknown)?;
            levels.push((&relation.node, &relation.table));
        }
        let over = match &compute.field {
            None => None,
            Some(name) => Some((name, self.field(levels.last(), name).ok_or_else(unknown)?)),
        };
        self.conditions(compute, &levels, path)?;
        Ok(match (compute.function, over) {
            (Aggregate::Count, _) => ColumnType::Int64,
            (Aggregate::Exists, _) => ColumnType::Bool,
            (Aggregate::Min | Aggregate::Max, Some((_, kind))) => kind,
            (Aggregate::Sum | Aggregate::Avg, Some((name, kind))) => {
                if !typing::is_number(&kind) {
                    return Err(Error::NotANumber {
                        model: self.model.name.clone(),
                        compute: format!("{path}{}", compute.name),
                        field: format!("{path}{}.{name}", compute.relations.join(".")),
                    });
                }
                ColumnType::Decimal
            }
            (_, None) => return Err(unknown()),
        })
    }

    /// Holds what the condition of a computed field compares with against the types of the fields it is compared with.
    fn conditions(&self, compute: &Compute, levels: &[Level<'_>], path: &str) -> Result<(), Error> {
        let comparisons = compute.filter.as_ref().map(Predicate::comparisons).unwrap_or_default();
        for (name, operator, literals) in comparisons {
            let unknown = || Error::UnknownPath { model: self.model.name.clone(), path: format!("{path}{name}") };
            let (relations, field) = name.rsplit_once('.').ok_or_else(unknown)?;
            let level = levels.get(relations.matches('.').count());
            let kind = self.field(level, field).ok_or_else(unknown)?;
            let place = format!("{path}{}", compute.name);
            let called = format!("{kind:?}");
            fits(&self.model.name, &place, &format!("{path}{name}"), (&kind, &called), operator, literals)?;
        }
        Ok(())
    }

    /// The type of a field of a nested level; `None` where there is no such field.
    fn field(&self, level: Option<&Level<'_>>, name: &str) -> Option<ColumnType> {
        let (node, table) = level?;
        let field = node.fields.iter().find(|field| field.name == *name)?;
        Some(self.expression(&field.expression, table))
    }

    /// Refuses a field with a cast that would leave every document without a form.
    fn casts(&self, field: &Field, table: &TableId, path: &str) -> Result<(), Error> {
        match typing::impossible_cast(&field.expression, &self.tables[table]) {
            None => Ok(()),
            Some((from, to)) => Err(Error::ImpossibleCast {
                model: self.model.name.clone(),
                field: format!("{path}{}", field.name),
                from,
                to: cast_name(to),
            }),
        }
    }

    /// The type of an expression's values. What is always null is null of a text.
    fn expression(&self, expression: &Expression, table: &TableId) -> ColumnType {
        typing::of(expression, &self.tables[table]).unwrap_or(ColumnType::Text)
    }

    fn index(&self, fields: &[ShapeField], path: &[String]) -> Result<IndexShape, Error> {
        let name = path.join(".");
        let unknown = || Error::UnknownPath { model: self.model.name.clone(), path: name.clone() };
        let (mut fields, mut many) = (fields, false);
        for (at, part) in path.iter().enumerate() {
            let field = fields.iter().find(|field| field.name == *part).ok_or_else(unknown)?;
            match &field.kind {
                FieldType::Scalar(kind) if at + 1 == path.len() => {
                    return Ok(IndexShape { name, kind: kind.clone(), many });
                }
                FieldType::Scalar(_) => break,
                FieldType::Nested { cardinality, fields: inner } => {
                    many |= *cardinality == Cardinality::Many;
                    fields = inner;
                }
            }
        }
        Err(unknown())
    }
}

fn never_null(expression: &Expression, required: &[String]) -> bool {
    match expression {
        Expression::Column(name) => required.contains(name),
        Expression::Constant(literal) => *literal != Literal::Null,
        Expression::Concat { parts, .. } | Expression::Coalesce(parts) => {
            parts.iter().any(|part| never_null(part, required))
        }
        Expression::Cast { of, .. } => never_null(of, required),
    }
}
