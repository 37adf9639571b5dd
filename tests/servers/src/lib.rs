//! Real database servers for tests and benches.
