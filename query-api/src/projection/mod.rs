//! Documents as bytes: parts of the stored JSON are found and copied, never parsed into a tree.

mod array;
mod cbor;
mod mask;
mod scan;
mod select;
mod text;
mod values;

pub(crate) use array::array_page;
pub(crate) use cbor::write_cbor;
pub(crate) use mask::{How, Shown};
pub(crate) use scan::Torn;
pub(crate) use select::{Selection, suggestion};
pub(crate) use text::any_text;
pub(crate) use values::{index_keys, walked_key};
