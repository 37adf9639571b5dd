//! headwater-connectors
