//! headwater-bench
