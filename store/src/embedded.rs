//! The embedded engine: rows, documents and offsets in one LMDB environment.
