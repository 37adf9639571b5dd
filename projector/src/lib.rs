//! The projector: folds change events into documents.
//!
//! One thread reads the log (`projector`) and feeds a [`Fold`], whose step is the micro-batch: records are decoded
//! (`records`), rows applied by source position (`apply`), the roots they can reach found (`ascend`), the documents
//! of those roots rebuilt as a whole (`evaluate`), and everything committed together with the offsets it came from
//! (`fold`). Between micro-batches new versions are built from the rows (`background`). What a document *is* says
//! [`naive`], in the plainest way; property tests and `headwater verify` hold the two against each other.

mod apply;
mod ascend;
mod background;
mod build;
mod catalog;
mod changes;
mod clock;
mod columns;
mod dead_letters;
mod error;
mod evaluate;
mod expression;
mod fold;
mod found;
mod fresh;
mod frozen;
mod handle;
mod held;
mod keys;
mod late;
mod level;
mod metrics;
pub mod naive;
mod observer;
mod plan;
mod projector;
mod records;
mod replay;
mod resolved;
mod rounds;
mod same_log;
mod shape;
mod shared;
mod status;
mod sweep;
mod times;
mod told;
mod too_large;
mod truncations;
mod typing;
mod version;
mod versions;

pub use dead_letters::{ListedLetter, RetryOutcome};
pub use error::{Error, ErrorKind};
pub use fold::{Fold, FoldOptions, Folded, Letters};
pub use fresh::Freshness;
pub use handle::{ProjectorHandle, ProjectorOptions, start};
pub use metrics::ProjectorMetrics;
pub use plan::model_shape;
pub use records::Input;
pub use replay::ReplayFrom;
pub use same_log::{check_ends, check_log, check_shared_log};
pub use shared::{Applied, Passed, Share, ShareOptions, WorkerOptions, start_shared};
pub use status::{ConsumerStatus, ModelState, ModelStatus, Phase, Progress, ProjectorStatus};
pub use version::ReplayPart;
