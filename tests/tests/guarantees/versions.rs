//! Definitions change and models are replayed while readers are served.

use std::time::Duration;

use headwater_tests::{post, wait_until};
use serde_json::json;

use crate::shop::{self, Workload};

#[test]
fn a_changed_definition_is_built_beside_the_old_one_and_switched() {
    let world = shop::world();
    world.postgres.psql("insert into customers select n, 'name ' || n, null, 1, 0 from generate_series(1, 3000) n");
    let mut running = world.start_ready();
    let before = world.get("/v1/customer_account/1").unwrap();
    assert!(before.json().get("display").is_none());

    // Reloaded without a restart; while the new version is built, the old one answers every read.
    let changed = shop::CUSTOMER_ACCOUNT.replace(
        "fields: { id: id, name: full_name,",
        "fields: { id: id, display: { concat: [id, full_name] }, name: full_name,",
    );
    assert_ne!(changed, shop::CUSTOMER_ACCOUNT);
    world.write_model("customer_account", &changed);
    let answer = post(&world.admin_url("/reload"), &json!({})).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    wait_until("the new version", Duration::from_secs(30), || {
        let answer = world.get("/v1/customer_account/1").unwrap();
        assert_eq!(answer.status, 200, "a reader saw the switch: {}", answer.body);
        if answer.json()["display"] == "1name 1" { Ok(()) } else { Err(answer.body) }
    });
    world.verify();

    // A definition with a mistake is refused with its place; the rest runs on.
    world.write_model("customer_account", &changed.replace("order: [-issued_on]", "ordr: [-issued_on]"));
    let answer = post(&world.admin_url("/reload"), &json!({})).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["refused"].as_array().map(Vec::len), Some(1), "{}", answer.body);
    assert!(answer.body.contains("customer_account.yaml:") && answer.body.contains("order"), "{}", answer.body);
    world.postgres.psql("update customers set n = 77 where id = 1");
    world.document_when("/v1/customer_account/1", "a change after the refused reload", |doc| doc["n"] == 77);
    assert!(running.stop().success());

    // The same on start: the old version serves while a third one is built.
    world.write_model("customer_account", shop::CUSTOMER_ACCOUNT);
    let mut running = world.start_ready();
    world.document_when("/v1/customer_account/1", "the first definition again", |doc| {
        doc.get("display").is_none() && doc["n"] == 77
    });
    world.verify();
    assert!(running.stop().success());
}

/// A definition that fails for every row makes a version without documents: readers are not given it, however often it starts
/// anew, until enough of it can be built or somebody says that it is wanted so.
#[test]
fn a_version_whose_documents_cannot_be_built_does_not_take_over() {
    const TAG: &str = "model: tag\nroot: { table: billing.tags, key: id }\nfields: { id: id, number: label }\n";
    let world = shop::world();
    world.write_model("tag", TAG);
    let mut running = world.start_ready();
    let number = |id: u32| world.get(&format!("/v1/tag/{id}")).unwrap().json()["number"].clone();
    assert_eq!(number(1), "tag 1");
    let said = |words: &[&str]| {
        let output = world.cli(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let declare = |model: &str| {
        world.write_model("tag", model);
        let answer = post(&world.admin_url("/reload"), &json!({})).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    let is_held = |missing: u32| {
        let wanted = format!("{missing} of its 6 documents cannot be built, more than 10 %, such as ");
        wait_until("what is wrong", Duration::from_secs(60), || match said(&["status"]) {
            (Some(1), text) if text.contains(&wanted) => {
                let words =
                    ["the one before it serves on", "`headwater dead-letters retry`", "dead_letters_percent_max"];
                assert!(words.iter().all(|word| text.contains(word)), "{text}");
                Ok(())
            }
            told => Err(format!("{told:?}")),
        });
    };
    let is_well = || {
        wait_until("no problem", Duration::from_secs(60), || match said(&["status"]) {
            (Some(0), _) => Ok(()),
            (_, text) => Err(text),
        });
    };
    let broken = TAG.replace("number: label", "number: { column: label, cast: integer }");
    declare(&broken);
    is_held(6);
    // The one before follows what changes.
    world.postgres.psql("update tags set label = 'first' where id = 1");
    world.document_when("/v1/tag/1", "a change", |doc| doc["number"] == "first");
    assert!(running.stop().success());
    let mut running = world.start_ready();
    is_held(6);
    assert_eq!(number(2), "tag 2");

    // The data is mended: in part, and then enough of it.
    world.postgres.psql("update tags set label = id::text where id > 2");
    world.document_when("/v1/tag/3", "a change", |doc| doc["number"] == "3");
    assert_eq!(said(&["dead-letters", "retry"]).0, Some(1), "two fail as before");
    is_held(2);
    assert_eq!(number(3), "3", "still a text, of the one before");
    world.postgres.psql("update tags set label = '2' where id = 2");
    world.document_when("/v1/tag/2", "a change", |doc| doc["number"] == "2");
    said(&["dead-letters", "retry"]);
    world.document_when("/v1/tag/2", "the new version", |doc| doc["number"] == 2);
    assert_eq!(world.get("/v1/tag/1").unwrap().status, 404, "a single one that is missing holds nothing up");
    is_well();

    // Somebody wants it as it is.
    let dates = TAG.replace("number: label", "number: { column: label, cast: date }");
    declare(&dates);
    is_held(6);
    assert_eq!(number(3), 3);
    declare(&format!("{dates}dead_letters_percent_max: 100\n"));
    wait_until("the new version", Duration::from_secs(60), || match world.get("/v1/tag/3").unwrap() {
        answer if answer.status == 404 => Ok(()),
        answer => Err(answer.body),
    });
    is_well();
    assert!(running.stop().success());
}

/// What is served stays as it was, and says how old it is. Nobody is told that all is well until the definition follows: then
/// the documents are of all rows, also of those that nobody changed since.
#[test]
fn a_column_that_is_renamed_is_never_served_as_null() {
    const PERSON: &str =
        "model: person\nversion: 1\nroot: { table: billing.customers, key: id }\nfields: { id: id, name: full_name }\n";
    let world = shop::world();
    world.write_model("person", PERSON);
    world.postgres.psql(
        "insert into customers values (1, 'Ada', null, 1, 0);
         insert into invoices values (1, 1, 1, 'open', 10, null), (1, 2, 1, 'open', 5, null);",
    );
    let mut running = world.start_ready();
    world.verify();
    world.postgres.psql(
        "alter table invoices rename column total to amount; update invoices set amount = 12 where number = 1;
         update customers set full_name = 'Ada L.' where id = 1",
    );
    let said = |words: &[&str]| {
        let output = world.cli(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let is_told = |(code, text): (Option<i32>, String)| {
        let words =
            ["billing.public.invoices", "no column `total`", "change the model's definition", "give the table back"];
        assert!(code != Some(0) || words.iter().all(|word| !text.contains(word)), "{code:?}: {text}");
        if words.iter().all(|word| text.contains(word)) { Ok(()) } else { Err(text) }
    };
    let is_well = || {
        wait_until("no problem", Duration::from_secs(30), || match said(&["status"]) {
            (Some(0), _) => Ok(()),
            (_, text) => Err(text),
        });
    };
    let stays = |as_of: Option<&str>| {
        wait_until("the problem", Duration::from_secs(30), || is_told(said(&["status"])));
        is_told(said(&["verify"])).unwrap();
        world.document_when("/v1/person/1", "a change of another model", |doc| doc["name"] == "Ada L.");
        let invoice = world.get("/v1/invoice/1~1").unwrap();
        assert_eq!((invoice.status, &invoice.json()["total"]), (200, &json!("10.00")), "{}", invoice.body);
        world.document_when("/v1/customer_account/1", "the sum of before", |doc| doc["unpaid_total"] == "15.00");
        let told = invoice.header("x-data-as-of").to_string();
        std::thread::sleep(Duration::from_secs(2));
        let later = world.get("/v1/invoice/1~1").unwrap();
        assert_eq!(later.header("x-data-as-of"), as_of.unwrap_or(&told), "documents are as old as they were");
        told
    };
    let as_of = stays(None);
    assert!(running.stop().success());
    let mut running = world.start_ready();
    stays(Some(&as_of));

    let invoice = shop::INVOICE.replace("total: total", "total: amount");
    let account = shop::CUSTOMER_ACCOUNT.replace(
        "fields: [company, number, issued_on, status, total]",
        "fields: { company: company, number: number, issued_on: issued_on, status: status, total: amount }",
    );
    assert!(invoice != shop::INVOICE && account != shop::CUSTOMER_ACCOUNT);
    world.write_model("invoice", &invoice);
    world.write_model("customer_account", &account);
    let answer = post(&world.admin_url("/reload"), &json!({})).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    world.document_when("/v1/invoice/1~1", "the change", |doc| doc["total"] == "12.00");
    world.document_when("/v1/invoice/1~2", "a row that nobody changed", |doc| doc["total"] == "5.00");
    world.document_when("/v1/customer_account/1", "the sum", |doc| doc["unpaid_total"] == "17.00");
    is_well();
    world.verify();

    // And back: what is declared by then fits no more, until it is what it was.
    world
        .postgres
        .psql("alter table invoices rename column amount to total; update invoices set total = 13 where number = 1");
    wait_until("the problem", Duration::from_secs(30), || match said(&["status"]) {
        (Some(1), text) if text.contains("no column `amount`") => Ok(()),
        (_, text) => Err(text),
    });
    world
        .postgres
        .psql("alter table invoices rename column total to amount; update invoices set amount = 14 where number = 1");
    world.document_when("/v1/invoice/1~1", "the change", |doc| doc["total"] == "14.00");
    world.document_when("/v1/customer_account/1", "the sum", |doc| doc["unpaid_total"] == "19.00");
    is_well();
    world.verify();
    assert!(running.stop().success());
}

#[test]
fn a_replay_rebuilds_beside_the_serving_version() {
    let world = shop::world();
    world.postgres.psql("insert into customers select n, 'name ' || n, null, 1, 0 from generate_series(1, 5000) n");
    let mut running = world.start_ready();
    let workload = Workload::start(&world, 7);
    let etag = world.get("/v1/customer_account/1").unwrap().header("etag").to_string();

    for from in ["earliest", "2020-01-01T00:00:00Z", "0"] {
        let output = world.cli(&["replay", "--model", "customer_account", "--from", from]);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "--from {from}: {text}\n{}", world.log());
        let answer = world.get("/v1/customer_account/1").unwrap();
        assert_eq!(answer.status, 200);
        assert_ne!(answer.header("etag"), etag, "the version that serves is a new one");
    }
    let transactions = workload.finish();
    assert!(transactions > 0);
    world.verify();

    let output = world.cli(&["replay", "--model", "custmer_account", "--from", "earliest"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && text.contains("customer_account"), "the nearest name is told: {text}");
    assert!(running.stop().success());
}
