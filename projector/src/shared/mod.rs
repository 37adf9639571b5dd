//! One projection shared by several workers, in any number of processes.
//!
//! Rows lie in one store, documents in another, and dirty roots travel through topics of the log, one per version. A worker
//! has some partitions of the sources ([`applying`]: events into rows and dirty roots) and some of the dirty topics
//! ([`building`]: dirty roots into documents); one of the workers also leads ([`leading`]). Who has what may change at any
//! moment, and a worker may learn of it late or never: every step is safe in the hands of one who should not do it any
//! more. `docs/adr/0009-two-stage-projector.md` says why the documents come out right.
//!
//! [`Share`] is a worker's part, step by step, each of which may be the last thing it does; property tests drive it in any
//! interleaving. The thread that runs it is [`runtime`].

mod agreement;
mod applying;
mod assignment;
mod building;
mod leading;
mod pending;
mod runtime;
mod share;
mod start;
mod telling;
mod view;

pub(crate) use agreement::Agreement;
pub use applying::Applied;
pub use building::Passed;
pub use share::{Share, ShareOptions};
pub use start::{WorkerOptions, start_shared};
