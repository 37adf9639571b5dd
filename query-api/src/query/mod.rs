//! Queries by declared index, the same for REST and GraphQL: conditions become ranges of keys ([`Condition`]), a walk is
//! chosen ([`ListQuery`]), and places in it are handed out signed ([`CursorKey`]).

mod condition;
mod containing;
mod cursor;
mod list;
mod ranges;
mod small;

pub(crate) use condition::{CONDITIONS_MAX, Condition, VALUES_MAX, key_of, unknown_index};
pub(crate) use cursor::CursorKey;
pub(crate) use list::{Count, ListPage, ListQuery, ListRequest, Sort};
