//! REST: paths and parameters into reads, documents into answers.

mod array;
mod asked;
mod asked_json;
mod compressed;
mod describe;
mod format;
mod list;
mod page;
mod parameters;
mod point;
mod reference;
mod respond;
mod route;

pub(crate) use list::{FollowedList, followed_list};
pub(crate) use parameters::parse as parameters;
pub(crate) use point::selection;
pub(crate) use route::answer;
