//! Queries by declared index, the same for REST and GraphQL: conditions become ranges of keys ([`Condition`]), a walk is
//! chosen ([`ListQuery`]), and places in it are handed out signed ([`CursorKey`]). What is followed of a list is its
//! [`FirstPage`].

mod condition;
mod containing;
mod cursor;
mod first_page;
mod list;
mod ranges;
mod small;

pub(crate) use condition::{CONDITIONS_MAX, Condition, VALUES_MAX, key_of, unknown_index};
pub(crate) use cursor::{CursorKey, Fingerprint};
pub(crate) use first_page::{FirstPage, Member};
pub(crate) use list::{Count, ListPage, ListQuery, ListRequest, Sort};
