//! What a process does of the whole.

use crate::config::{Configuration, StoreEngine};
use crate::failure::Failure;

/// The roles of a process. All in one process, or each in processes of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Roles {
    /// Captures sources into the broker.
    pub(crate) connect: bool,
    /// Folds the broker's events into documents.
    pub(crate) project: bool,
    /// Serves documents.
    pub(crate) serve: bool,
}

impl Roles {
    /// All of them.
    pub(crate) const ALL: Self = Self { connect: true, project: true, serve: true };
    /// Capture alone.
    pub(crate) const CONNECT: Self = Self { connect: true, project: false, serve: false };
    /// Projection alone.
    pub(crate) const PROJECT: Self = Self { connect: false, project: true, serve: false };
    /// Serving alone.
    pub(crate) const SERVE: Self = Self { connect: false, project: false, serve: true };

    /// Their names.
    pub(crate) fn names(self) -> Vec<&'static str> {
        let all = [(self.connect, "connect"), (self.project, "project"), (self.serve, "serve")];
        all.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect()
    }

    /// Whether the log is needed.
    pub(crate) fn need_log(self) -> bool {
        self.connect || self.project
    }

    /// Whether documents are read or written.
    pub(crate) fn need_documents(self) -> bool {
        self.project || self.serve
    }

    /// Refuses to take apart what one process keeps inside itself.
    pub(crate) fn check(self, configuration: &Configuration) -> Result<(), Failure> {
        let settings = &configuration.settings;
        if self.connect != self.project && self.need_log() && settings.broker.kafka.is_none() {
            return Err(Failure::new(format_args!(
                "capture and projection can be processes of their own only over a broker that both reach: configure \
                 `broker.kafka` in {}, or use `headwater run`, which does all in one process",
                configuration.file.display()
            ))
            .with_status(2));
        }
        if self.project != self.serve && self.need_documents() && settings.store.documents() != StoreEngine::Mongodb {
            return Err(Failure::new(format_args!(
                "projection and serving can be processes of their own only over a document store that both reach: \
                 configure `store.mongodb` in {}, or use `headwater run`, which does all in one process",
                configuration.file.display()
            ))
            .with_status(2));
        }
        Ok(())
    }
}
