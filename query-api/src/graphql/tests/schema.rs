//! The generated schema.

use headwater_store::VersionId;

use super::fixture::{customers, tariffs};
use crate::access::Visibility;
use crate::graphql::{GraphQl, GraphQlLimits, sdl_for};

/// To accept a change: `UPDATE_GOLDEN=1 cargo test -p headwater-query-api`, then look at the difference.
#[test]
fn the_schema_is_as_agreed() {
    let sdl = sdl_for(&[tariffs(), customers()]);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/graphql/tests/schema.graphql");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &sdl).expect("written");
    }
    assert_eq!(sdl, std::fs::read_to_string(path).expect("the golden schema"));
}

#[test]
fn names_that_meet_are_kept_apart() {
    let named = |model: &str| {
        let mut shape = customers();
        shape.model = model.into();
        shape
    };
    let names = ["query", "string", "customer", "customers", "customer_invoices", "page_info", "a__b", "a_b"];
    let models: Vec<_> = names.iter().map(|name| Visibility::everything(VersionId(1), named(name))).collect();
    GraphQl::new(&models, GraphQlLimits::default()).expect("a schema");
    let sdl = sdl_for(&names.map(named));
    for part in [
        "type QueryDocument {",
        "  customer(id: ID!): Customer\n",
        "  customers(id: ID!): Customers\n",
        "  customersList(",
        "  customersChanged(id: ID!): Customers\n",
        "  customersListChanged(where: CustomerWhere,",
        "type CustomerInvoices {",
        "type CustomerInvoicesNested {",
    ] {
        assert!(sdl.contains(part), "{part}\n{sdl}");
    }
}

#[test]
fn a_schema_without_models_is_a_schema() {
    assert!(GraphQl::new(&[], GraphQlLimits::default()).is_ok());
}
