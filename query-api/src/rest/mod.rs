//! REST: paths and parameters into reads, documents into answers.

mod array;
mod describe;
mod list;
mod parameters;
mod point;
mod reference;
mod respond;
mod route;

pub(crate) use parameters::parse as parameters;
pub(crate) use point::selection;
pub(crate) use route::answer;
