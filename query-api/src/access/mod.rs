//! Who may see what, and how much.
//!
//! A request meets, in this order: the [`gate`] (is there room?), the limit of its address ([`limiter`]), [`authenticate`]
//! (who asks? [`jwt`] over the [`keys`] of an issuer, or an [`api_key`]), what of its caller is
//! being answered, and the limit of its principal. What stays open to tell of changes takes one of its caller's places
//! ([`Gate::begin_stream`]). What a caller sees of a model is its
//! [`visibility`], which the [`policy`] makes of rules, roles and the model's shape; which documents, its [`binding`]s;
//! reads go through [`documents`]. [`audit`] tells what was denied.

mod address;
mod api_key;
mod audit;
mod authenticate;
mod binding;
mod cors;
mod crypto;
mod documents;
mod gate;
mod jwt;
mod keys;
mod limiter;
pub(crate) mod options;
mod policy;
mod principal;
mod token_cache;
mod visibility;

pub(crate) use audit::{Denial, denied};
pub(crate) use authenticate::X_API_KEY;
pub(crate) use binding::Bound;
pub(crate) use gate::{Admitted, Gate, Refusal};
pub use jwt::mixed as mixed_algorithms;
pub(crate) use policy::Policy;
pub use principal::ROLES_MAX;
pub(crate) use principal::{Caller, Principal, Roles, limited};
pub(crate) use visibility::Visibility;
