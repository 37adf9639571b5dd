//! A committed change is in the documents soon, whatever kind of change it was.

use serde_json::json;

use crate::shop;

#[test]
fn every_kind_of_change_reaches_its_documents() {
    let world = shop::world();
    world.postgres.psql(
        "insert into customers values (7, 'Ada', 'ada@example.com', 1, 0), (8, 'Bob', null, null, 0);
         insert into invoices values (1, 10, 7, 'open', 100.50, '2026-01-02');
         insert into invoice_lines values (1, 1, 10, 'first', 60.25), (2, 1, 10, 'second', 40.25);
         insert into customer_tags values (7, 2, '2026-01-01'), (7, 1, '2026-01-01');",
    );
    let mut running = world.start_ready();

    let ada = world.document_when("/v1/customer_account/7", "the snapshot", |doc| doc["invoice_count"] == 1);
    assert_eq!(
        ada,
        json!({
            "id": 7, "name": "Ada", "email": "ada@example.com", "n": 0,
            "tariff": {"name": "tariff 1", "fee": "1.2500"},
            "tags": [{"id": 1, "label": "tag 1"}, {"id": 2, "label": "tag 2"}],
            "invoices": [{
                "company": 1, "number": 10, "issued_on": "2026-01-02", "status": "open", "total": "100.50",
                "lines": [
                    {"id": 1, "description": "first", "amount": "60.25"},
                    {"id": 2, "description": "second", "amount": "40.25"}
                ],
                "payments": [], "paid": "0"
            }],
            "unpaid_total": "100.50", "invoice_count": 1, "largest_line": "60.25"
        })
    );

    // A payment, in a transaction with the invoice's new status.
    world.postgres.psql(
        "begin; insert into payments values (1, 1, 10, '2026-01-03 10:00:00+02', 100.50, 'card');
         update invoices set status = 'paid' where number = 10; commit;",
    );
    let ada = world.document_when("/v1/customer_account/7", "the payment", |doc| doc["unpaid_total"] == "0");
    assert_eq!(ada["invoices"][0]["paid"], "100.50");
    assert_eq!(ada["invoices"][0]["payments"][0]["paid_at"], "2026-01-03T08:00:00Z");

    // Moved to another customer.
    world.postgres.psql("update invoices set customer_id = 8 where number = 10;");
    world.document_when("/v1/customer_account/8", "the moved invoice", |doc| doc["invoice_count"] == 1);
    world.document_when("/v1/customer_account/7", "its absence", |doc| doc["invoice_count"] == 0);

    // A row that many documents look up.
    world.postgres.psql("update tariffs set name = 'renamed' where id = 1;");
    world.document_when("/v1/customer_account/7", "the tariff", |doc| doc["tariff"]["name"] == "renamed");

    // A changed key, of a parent and of a root.
    world.postgres.psql("update invoices set number = 11 where number = 10;");
    world.document_when("/v1/invoice/1~11", "the new key", |doc| doc["label"] == "1/11" && doc["line_count"] == 0);
    world.wait_status("/v1/invoice/1~10", 404);
    world.postgres.psql("update customers set id = 70 where id = 7;");
    world.wait_status("/v1/customer_account/7", 404);
    world.document_when("/v1/customer_account/70", "the new root", |doc| doc["tags"] == json!([]));

    // Late parent: the line's invoice comes after it.
    world.postgres.psql("insert into invoice_lines values (9, 2, 1, 'early', 5);");
    world.postgres.psql("insert into invoices values (2, 1, 8, 'open', 5, null);");
    world.document_when("/v1/invoice/2~1", "the early line", |doc| doc["line_count"] == 1);

    // Filtered out, deleted, truncated.
    world.postgres.psql("update invoices set status = 'draft' where company = 2;");
    world.wait_status("/v1/invoice/2~1", 404);
    world.postgres.psql("delete from customers where id = 70; truncate invoice_lines;");
    world.wait_status("/v1/customer_account/70", 404);
    world.postgres.psql("update invoices set status = 'open' where company = 2;");
    world.document_when("/v1/invoice/2~1", "no lines", |doc| doc["line_count"] == 0);

    // A column added while streaming does not disturb the ones in use.
    world
        .postgres
        .psql("alter table customers add column vip boolean; update customers set n = 5, vip = true where id = 8;");
    world.document_when("/v1/customer_account/8", "n", |doc| doc["n"] == 5);

    world.verify();
    assert!(running.stop().success(), "{}", world.log());
}

#[test]
fn a_value_of_several_columns_has_one_type() {
    let world = shop::world();
    world.write_model(
        "payment",
        "model: payment
version: 1
root: { table: billing.payments, key: id }
fields:
  id: id
  code: { coalesce: [method, id] }
  amount: { coalesce: [amount, { constant: 0 }] }
  invoice: { coalesce: [number, id] }
indexes: [code, amount]
",
    );
    world.postgres.psql("insert into payments values (7, 1, null, null, null, null), (8, 1, 10, null, 12.50, 'card');");
    let mut running = world.start_ready();
    let seven = world.document_when("/v1/payment/7", "the snapshot", |_| true);
    assert_eq!(seven, json!({"id": 7, "code": "7", "amount": "0", "invoice": 7}));
    let eight = world.document_when("/v1/payment/8", "the snapshot", |_| true);
    assert_eq!(eight, json!({"id": 8, "code": "card", "amount": "12.50", "invoice": 10}));
    // Found by what it shows.
    for condition in ["filter[code][eq]=7", "filter[amount][eq]=0"] {
        let found = world.get(&format!("/v1/payment?{condition}")).unwrap().json();
        assert_eq!(found["data"], json!([seven]), "{condition}: {found}");
    }
    world.verify();
    assert!(running.stop().success(), "{}", world.log());
}
