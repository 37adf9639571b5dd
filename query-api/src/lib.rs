//! headwater-query-api
