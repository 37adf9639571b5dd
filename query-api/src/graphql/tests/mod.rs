//! GraphQL over a real embedded store.

mod fixture;
mod hostile;
mod introspection;
mod lists;
mod property;
mod queries;
mod schema;
mod speed;
