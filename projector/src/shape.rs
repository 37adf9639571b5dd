//! What the documents of a model look like to readers, derived from the types of the columns they are made of.

use headwater_schemas::model::definition::{Aggregate, Cardinality, CastType, Compute, Expression, Node, ReadModel};
use headwater_schemas::model::{FieldType, IndexShape, Literal, ModelShape, ShapeField};
use headwater_schemas::{ColumnType, TableId};

use crate::Error;
use crate::plan::{Tables, column_type};

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
            let kind = FieldType::Scalar(self.expression(&field.expression, table)?);
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
        let (mut node, mut table) = (node, None);
        for name in &compute.relations {
            let relation = node.relations.iter().find(|relation| relation.name == *name).ok_or_else(unknown)?;
            (node, table) = (&relation.node, Some(&relation.table));
        }
        let over = match (&compute.field, table) {
            (None, _) => None,
            (Some(name), Some(table)) => {
                let field = node.fields.iter().find(|field| field.name == *name).ok_or_else(unknown)?;
                Some((name, self.expression(&field.expression, table)?))
            }
            (Some(_), None) => return Err(unknown()),
        };
        Ok(match (compute.function, over) {
            (Aggregate::Count, _) => ColumnType::Int64,
            (Aggregate::Exists, _) => ColumnType::Bool,
            (Aggregate::Min | Aggregate::Max, Some((_, kind))) => kind,
            (Aggregate::Sum | Aggregate::Avg, Some((name, kind))) => {
                if !comparable(&kind, &ColumnType::Decimal) {
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

    fn expression(&self, expression: &Expression, table: &TableId) -> Result<ColumnType, Error> {
        Ok(match expression {
            Expression::Column(name) => self.column(table, name)?,
            Expression::Constant(literal) => match literal {
                Literal::Bool(_) => ColumnType::Bool,
                Literal::Number(text) if text.parse::<i64>().is_ok() => ColumnType::Int64,
                Literal::Number(text) if text.parse::<u64>().is_ok() => ColumnType::UInt64,
                Literal::Number(_) => ColumnType::Decimal,
                Literal::Text(_) | Literal::Null => ColumnType::Text,
            },
            Expression::Concat { parts, .. } => {
                for part in parts {
                    self.expression(part, table)?;
                }
                ColumnType::Text
            }
            Expression::Coalesce(parts) => {
                let kinds = parts.iter().map(|part| self.expression(part, table)).collect::<Result<Vec<_>, _>>()?;
                let first = kinds.first().cloned().unwrap_or(ColumnType::Text);
                let numbers = kinds.iter().all(|kind| comparable(kind, &ColumnType::Decimal));
                match kinds.iter().all(|kind| *kind == first) {
                    true => first,
                    // Parts of several types: numbers are a decimal to readers, and everything has a text.
                    false if numbers => ColumnType::Decimal,
                    false => ColumnType::Text,
                }
            }
            Expression::Cast { of, to } => {
                self.expression(of, table)?;
                match to {
                    CastType::Text => ColumnType::Text,
                    CastType::Integer => ColumnType::Int64,
                    CastType::Decimal => ColumnType::Decimal,
                    CastType::Float => ColumnType::Float64,
                    CastType::Boolean => ColumnType::Bool,
                    CastType::Date => ColumnType::Date,
                    CastType::Timestamp => ColumnType::TimestampTz,
                    CastType::Json => ColumnType::Json,
                }
            }
        })
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
