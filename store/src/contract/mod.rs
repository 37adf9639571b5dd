//! What every engine must do, as tests. An engine runs them all with [`contract_tests!`](crate::contract_tests).

// These are tests, though compiled as a library for the engines of other crates.
#![allow(clippy::unwrap_used, missing_docs)]

mod documents;
mod queries;
mod random;
mod rows;
mod sample;

use std::sync::Arc;

pub use documents::*;
pub use queries::*;
pub use random::Random;
pub use rows::*;

use crate::{DocumentReader, ProjectionStore};

/// Both sides of an open engine.
pub struct Opened {
    /// For the projector.
    pub writer: Arc<dyn ProjectionStore>,
    /// For readers.
    pub reader: Arc<dyn DocumentReader>,
}

/// Where an engine keeps its data for one test; empty at first.
pub trait Place {
    /// Opens the engine; again after what was opened before has been dropped.
    fn open(&self) -> Opened;

    /// Whether rows are counted that were not committed yet.
    fn counts_uncommitted_rows(&self) -> bool {
        true
    }

    /// How many random sets of documents are queried.
    fn random_cases(&self) -> u32 {
        600
    }
}

/// Makes one test of each part of the contract. The argument makes a [`Place`](crate::contract::Place).
#[macro_export]
macro_rules! contract_tests {
    ($place:expr) => {
        $crate::contract_tests! { $place =>
            a_batch_reads_its_own_writes
            a_dropped_batch_changed_nothing
            a_commit_survives_reopening
            rows_come_in_request_order
            tombstones_are_rows_but_not_joined
            removed_rows_leave_nothing
            joins_find_exactly_their_rows
            moved_rows_leave_their_old_entries
            rows_are_scanned_in_key_order
            reads_end_when_they_are_full
            visits_take_a_part_at_a_time
            a_dropped_join_index_is_empty
            schemas_keep_their_numbers
            notes_offsets_and_frontiers_are_kept
            documents_are_invisible_before_commit
            unchanged_documents_keep_their_stamp
            stamps_rise
            deleted_documents_leave_no_entries
            a_version_is_purged_in_slices
            listeners_hear_of_commits
            too_large_documents_are_refused
            documents_too_large_together_are_not_read
            readers_see_whole_batches
            pages_are_those_of_a_naive_evaluation
            long_values_and_ids_are_found
        }
    };
    ($place:expr => $($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                $crate::contract::$name(&$place).await;
            }
        )*
    };
}
