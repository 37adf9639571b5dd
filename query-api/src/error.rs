//! What can go wrong when the API is started. What goes wrong in a request is a [`crate::problem::Problem`].

use std::net::SocketAddr;

/// An error of the query API.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} (`{setting}`); is another process there? Stop it or choose another port")]
    Listen {
        /// The setting that names it.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The trusted documents cannot be used.
    #[error("{}: {message} (`api.graphql.trusted_documents`)", path.display())]
    TrustedDocuments {
        /// The folder or file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        message: String,
        /// What the operating system said.
        #[source]
        source: Option<std::io::Error>,
    },
    /// The models make no GraphQL schema.
    #[error("the models make no GraphQL schema: {message}; REST is not affected")]
    Schema {
        /// What is wrong with it.
        message: String,
    },
}

/// What the caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again later.
    Retryable,
    /// Stop and tell a person.
    Fatal,
}

impl Error {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Listen { .. } | Self::Schema { .. } | Self::TrustedDocuments { .. } => ErrorKind::Fatal,
        }
    }
}
