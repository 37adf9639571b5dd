//! headwater-projector
