//! Bad configuration is refused with its place and a suggestion; bad events are set aside; the rest goes on.

use crate::shop;
use headwater_tests::World;

fn refused(world: &World, words: &[&str]) {
    for command in [&["check"][..], &["run"][..]] {
        let output = world.cli(command);
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{command:?} accepted it: {text}");
        for word in words {
            assert!(text.contains(word), "{command:?} does not say {word:?}: {text}");
        }
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[test]
fn mistakes_in_files_are_shown_with_file_line_and_suggestion() {
    let world = shop::world();
    world.write_config("projektor: {}\n");
    refused(&world, &["headwater.yaml:6", "projektor", "projector"]);
    world.write_config("");

    world.write_model(
        "invoice",
        &shop::INVOICE.replace("indexes: [status, customer.id]", "indexes: [status, customer.di]"),
    );
    refused(&world, &["invoice.yaml:", "customer.di", "customer.id"]);
    world.write_model("invoice", &shop::INVOICE.replace("billing.invoices", "biling.invoices"));
    refused(&world, &["invoice.yaml:", "biling", "billing"]);
    world.write_model("invoice", shop::INVOICE);

    world.write_connector(&shop::TABLES, "  sslmode: require\n");
    refused(&world, &["billing.yaml:", "sslmode"]);
    std::fs::write(
        world.path("connectors/billing.yaml"),
        "source: billing\npostgres: { host: h, database: d, user: u, password: '${HEADWATER_NOT_SET}', tables: [a] }\n",
    )
    .unwrap();
    refused(&world, &["billing.yaml:2", "HEADWATER_NOT_SET"]);
}

#[test]
fn a_missing_column_or_table_is_found_by_check_with_the_nearest_name() {
    let world = shop::world();
    world.write_model("invoice", &shop::INVOICE.replace("total: total", "total: totl"));
    let output = world.cli(&["check"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("totl") && text.contains("total"), "{text}");

    world.write_model("invoice", shop::INVOICE);
    let mut tables = shop::TABLES.to_vec();
    tables[0] = "custmers";
    world.write_connector(&tables, "");
    let output = world.cli(&["check"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("custmers") && text.contains("customers"), "{text}");
}

/// Somebody changes the database at night, and the process starts again for another reason: readers of everything else, and
/// of what was there, must not pay for it. What is new is refused.
#[test]
fn a_change_of_the_database_does_not_keep_a_start_from_serving_what_was_there() {
    const NOTE: &str =
        "model: note\nversion: 1\nroot: { table: billing.notes, key: id }\nfields: { id: id, body: body }\n";
    let world = shop::world();
    world.postgres.psql(
        "create table notes (id int primary key, body text); insert into notes values (1, 'a note');
         create table extras (id int primary key); insert into customers values (1, 'Ada', null, 1, 0)",
    );
    world.write_connector(&[&shop::TABLES[..], &["notes", "extras"]].concat(), "");
    world.write_model("note", NOTE);
    let mut running = world.start_ready();
    world.document_when("/v1/note/1", "the note", |doc| doc["body"] == "a note");
    assert!(running.stop().success());
    world.postgres.psql("alter table notes rename column body to words; drop table extras");

    let mut running = world.start_ready();
    for said in ["note.yaml:4", "has no column `body`", "billing.yaml:", "the database has no table `public.extras`"] {
        assert!(world.log().contains(said), "{said:?} is not told: {}", world.log());
    }
    world.postgres.psql("update customers set full_name = 'Ada L.' where id = 1");
    world.document_when("/v1/customer_account/1", "a change of another model", |doc| doc["name"] == "Ada L.");
    assert_eq!(world.get("/v1/note/1").unwrap().status, 200);
    assert!(running.stop().success());

    world.write_model("remark", &NOTE.replace("model: note", "model: remark"));
    let output = world.cli(&["run"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("remark.yaml:4") && text.contains("body"), "{text}");
    assert!(!text.contains("note.yaml:4:") || text.contains("does not fit its tables any more"), "{text}");
    assert!(!text.contains("panicked"), "{text}");

    // A table is taken out for one start, so that it is read again: also under a model that has not been served yet.
    world.write_model("remark", &NOTE.replace("model: note", "model: remark").replace("body: body", "body: words"));
    world.write_connector(&shop::TABLES, "");
    let mut running = world.start();
    world.postgres.psql("update customers set full_name = 'Ada M.' where id = 1");
    world.document_when("/v1/customer_account/1", "a change of another model", |doc| doc["name"] == "Ada M.");
    assert!(running.stop().success());
    world.write_connector(&[&shop::TABLES[..], &["notes"]].concat(), "");
    let mut running = world.start();
    world.document_when("/v1/remark/1", "the note, read again", |doc| doc["body"] == "a note");
    assert!(running.stop().success());
}

#[test]
fn a_value_that_cannot_be_represented_becomes_a_dead_letter_and_stops_nothing() {
    let world = shop::world();
    world.write_model(
        "payment",
        "model: payment\nversion: 1\nroot: { table: billing.payments, key: id }\nfields: { amount: amount }\n",
    );
    let mut running = world.start_ready();
    world.postgres.psql(
        "insert into customers values (1, 'Ada', null, 1, 0), (2, 'Bob', null, 1, 0);
         insert into invoices values (1, 1, 1, 'open', 1, null), (1, 2, 2, 'open', 1, null);
         insert into payments values (1, 1, 1, '294270-01-01 00:00:00+00', 5, 'card');
         insert into payments values (2, 1, 2, '2026-01-01 00:00:00+00', 6, 'card');",
    );
    world.document_when("/v1/customer_account/2", "the good payment", |doc| doc["invoices"][0]["paid"] == "6.00");
    // What does not need the value has the row; what needs it is not served, because it would be wrong.
    world.document_when("/v1/payment/1", "the other payment", |doc| doc["amount"] == "5.00");
    world.wait_status("/v1/customer_account/1", 404);
    let output = world.cli(&["dead-letters", "list", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("payments") && text.contains("paid_at"), "{text}");
    assert!(text.contains("another letter says so"), "{text}");
    let output = world.cli(&["verify", "--wait", "240"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("payment: 2 documents, all as the source says"), "{text}");
    assert!(text.contains("1 root left out: its document is a dead letter"), "{text}");

    world.postgres.psql("update payments set paid_at = '2026-02-02 00:00:00+00' where id = 1");
    world.document_when("/v1/customer_account/1", "the mended payment", |doc| doc["invoices"][0]["paid"] == "5.00");
    assert!(running.stop().success());
}

#[test]
fn a_row_whose_key_cannot_be_represented_is_told_of_by_verify() {
    let model = "model: day\nversion: 1\nroot: { table: billing.days, key: at }\nfields: { n: n }\n";
    let world = World::new("create table days (at timestamp primary key, n int)", &["days"], &[("day", model)]);
    let mut running = world.start_ready();
    world.postgres.psql("insert into days values ('294270-01-01', 1), ('2026-01-01', 2)");
    world.document_when("/v1/day/2026-01-01T00:00:00", "the good day", |doc| doc["n"] == 2);
    let output = world.cli(&["verify", "--wait", "240", "--model", "day"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("1 row of the source is in no document: its key cannot be represented"), "{text}");
    let output = world.cli(&["verify", "--wait", "240", "--model", "day", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["equal"], &report["models"][0]["unrepresentable"]), (&false.into(), &1.into()), "{report}");
    assert_eq!(report["models"][0]["differences"], serde_json::json!({}), "{report}");
    assert!(running.stop().success());
}

#[test]
fn a_document_that_cannot_be_built_is_set_aside_and_can_be_retried() {
    let world = shop::world_with_a_bad_tag();
    let mut running = world.start_ready();
    world.document_when("/v1/tag/2", "a good one", |doc| doc["number"] == 2);
    world.wait_status("/v1/tag/3", 404);
    let output = world.cli(&["dead-letters", "list", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("\"tag\"") && text.contains("number"), "{text}");
    assert!(!text.contains("seven"), "row values must not be printed: {text}");

    world.postgres.psql("update tags set label = '7' where id = 3");
    world.document_when("/v1/tag/3", "the mended one", |doc| doc["number"] == 7);
    let output = world.cli(&["dead-letters", "retry"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(running.stop().success());
}

#[test]
fn bad_query_parameters_are_named() {
    let world = shop::world();
    world.postgres.psql("insert into customers values (1, 'Ada', 'a@example.com', 1, 0)");
    let mut running = world.start_ready();
    for (path, status, words) in [
        ("/v1/customer_account?filter[emial][eq]=x", 400, &["emial", "email"][..]),
        ("/v1/customer_account?filter[email][like]=x", 400, &["like"]),
        ("/v1/customer_account?filter[n][gt]=abc", 400, &["n", "integer"]),
        ("/v1/customer_account?limt=5", 400, &["limt", "limit"]),
        ("/v1/customer_account?limit=0", 400, &["limit"]),
        ("/v1/customer_account?sort=invoices.status", 400, &["invoices.status"]),
        ("/v1/customer_account?after=forged", 400, &["after"]),
        ("/v1/customer_account?fields=nme", 400, &["nme", "name"]),
        ("/v1/custmer_account/1", 404, &["customer_account"]),
        ("/v1/customer_account/abc", 404, &[]),
        ("/v1/customer_account/1~2", 404, &[]),
    ] {
        let answer = world.get(path).unwrap();
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.header("content-type").starts_with("application/problem+json"), "{path}: {:?}", answer.headers);
        let problem = answer.json();
        assert!(problem["requestId"].is_string() && problem["code"].is_string(), "{path}: {problem}");
        for word in words {
            assert!(answer.body.contains(word), "{path} does not say {word:?}: {}", answer.body);
        }
    }
    assert!(running.stop().success());
}
