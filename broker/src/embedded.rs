//! The embedded engine: an append log in LMDB.
