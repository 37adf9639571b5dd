//! Documents as bytes: parts of the stored JSON are found and copied, never parsed into a tree.

mod array;
mod scan;
mod select;
mod text;

pub(crate) use array::array_page;
pub(crate) use select::Selection;
pub(crate) use text::contains_text;
