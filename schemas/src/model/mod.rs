//! Read models: what documents are made of the rows. A model is data, written in YAML by the user; see
//! [`definition`] for its shape.

pub mod definition;
mod json_schema;
mod parse;
mod predicate;
mod shape;

pub use json_schema::json_schema;
pub use parse::{ParseContext, parse};
pub use predicate::{Literal, Operator, Predicate};
pub use shape::{FieldType, IndexShape, ModelShape, ShapeField};
