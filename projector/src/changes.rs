//! What a micro-batch changed in one table: the image before and after, per row.

use std::ops::Range;

use headwater_schemas::{DeadLetter, RowRef, TableId};
use headwater_store::{RowArena, SchemaId};

/// Changed rows of one table. Images after the change are borrowed from the events, or stand in `merged` where cells
/// were filled in; images before it stand in `old`.
#[derive(Debug)]
pub(crate) struct TableChanges<'b> {
    pub(crate) table: TableId,
    pub(crate) old: RowArena,
    pub(crate) merged: Vec<u8>,
    pub(crate) changes: Vec<Change<'b>>,
    /// About events whose rows the store cannot keep whole.
    pub(crate) refused: Vec<DeadLetter>,
}

/// One changed row.
#[derive(Debug)]
pub(crate) struct Change<'b> {
    pub(crate) key: &'b [u8],
    /// Place in `old`.
    pub(crate) old: Option<usize>,
    pub(crate) new: Option<(SchemaId, NewImage<'b>)>,
}

/// Where the image after a change stands.
#[derive(Clone, Debug)]
pub(crate) enum NewImage<'b> {
    Event(RowRef<'b>),
    Merged(Range<usize>),
}

/// A row and the schema it is read by.
pub(crate) type Image<'r> = (SchemaId, RowRef<'r>);

impl<'b> TableChanges<'b> {
    pub(crate) fn new(table: TableId) -> Self {
        Self { table, old: RowArena::default(), merged: Vec::new(), changes: Vec::new(), refused: Vec::new() }
    }

    /// The row before the change; `None` where there was none.
    pub(crate) fn before(&self, change: &Change<'_>) -> Option<Image<'_>> {
        let slot = &self.old.slots()[change.old?];
        Some((slot.schema, self.old.row(slot)?))
    }

    /// The row after the change; `None` where it is gone.
    pub(crate) fn after(&self, change: &Change<'b>) -> Option<Image<'_>> {
        let (schema, image) = change.new.as_ref()?;
        Some((*schema, self.image(image)))
    }

    pub(crate) fn image(&self, image: &NewImage<'b>) -> RowRef<'_> {
        match image {
            NewImage::Event(row) => *row,
            NewImage::Merged(range) => RowRef(&self.merged[range.clone()]),
        }
    }
}
