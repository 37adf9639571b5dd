//! Every command against a running world: what it says to people, what it says to scripts, and how it ends.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use headwater_tests::{Postgres, World, headwater, post, wait_until};
use serde_json::{Value, json};

use crate::shop::{self, Workload};

const PATIENCE: Duration = Duration::from_secs(90);

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn both(output: &Output) -> String {
    let text = stdout(output) + &String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// What a command that must go well printed.
fn said(world: &World, arguments: &[&str]) -> String {
    let output = world.cli(arguments);
    assert!(output.status.success(), "{arguments:?}: {}\n{}\n{}", output.status, both(&output), world.log());
    both(&output);
    stdout(&output)
}

fn said_json(world: &World, arguments: &[&str]) -> Value {
    let text = said(world, arguments);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?} is not JSON ({error}): {text}"))
}

/// A command must end with `code`, and its words must tell why.
fn refused(world: &World, arguments: &[&str], code: i32, words: &[&str]) {
    let output = world.cli(arguments);
    let text = both(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?} writes its failure for scripts to parse: {}", stdout(&output));
    contains(&text, words);
}

#[track_caller]
fn contains(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

fn world_with_rows() -> World {
    let world = shop::world();
    world.postgres.psql(
        "insert into customers select n, 'name ' || n, 'c' || n || '@example.com', 1 + n % 5, 0 from generate_series(1, 200) n;
         insert into invoices select 1, n, n, 'open', n, '2026-01-01' from generate_series(1, 100) n;",
    );
    world
}

#[test]
fn check_status_and_models_tell_how_it_stands() {
    let mut world = world_with_rows();

    // Before anything runs.
    let text = said(&world, &["check"]);
    contains(&text, &["billing", "wal_level", "errors: 0"]);
    let report = said_json(&world, &["check", "--json"]);
    assert_eq!(report["ok"], true, "{report}");
    let findings = report["findings"].as_array().unwrap();
    assert!(!findings.is_empty() && findings.iter().all(|finding| finding["severity"] != "error"), "{report}");
    assert!(findings.iter().all(|finding| finding["source"] == "billing" && finding["subject"].is_string()));
    for command in [&["status"][..], &["status", "--json"], &["dead-letters", "list"], &["dead-letters", "retry"]] {
        refused(&world, command, 1, &["headwater run", "admin.listen", "127.0.0.1"]);
    }
    refused(&world, &["replay", "--model", "invoice"], 1, &["headwater run", "admin.listen"]);
    contains(
        &said(&world, &["models"]),
        &["customer_account", "billing.public.invoices", "unpaid_total", "not running"],
    );
    let listed = said_json(&world, &["models", "--json"]);
    assert_eq!((listed[0]["model"].as_str(), listed[0]["serves"].as_bool()), (Some("customer_account"), Some(false)));
    assert_eq!(listed[0]["running"], false, "{listed}");
    // Whoever names a process asks about that one.
    refused(&world, &["models", "--admin", "http://127.0.0.1:1"], 1, &["http://127.0.0.1:1"]);
    let descriptions = [
        said(&world, &["models", "--json-schema"]),
        said(&world, &["models", "--graphql"]),
        said(&world, &["models", "--openapi"]),
    ];
    refused(&world, &["models", "--model", "invoic"], 2, &["invoic", "did you mean `invoice`"]);
    refused(&world, &["models", "--json", "--openapi"], 2, &["--openapi"]);
    refused(&world, &["retire", "--model", "invoice"], 1, &["invoice.yaml", "SIGHUP"]);
    refused(&world, &["retire", "--model", "gone"], 2, &["inside the process"]);

    let mut running = world.start_ready();
    let now = wait_until("everything to be folded", PATIENCE, || {
        let now = said_json(&world, &["status", "--json"]);
        let source = &now["sources"][0];
        let calm = source["phase"]["name"] == "streaming" && now["projector"]["lag_events"] == 0;
        // How far the server is ahead is asked for now and then, first some moments after the start.
        let known = source["frontier"]["snapshot_done"] == true && source["lag_bytes"].is_u64();
        if calm && known { Ok(now) } else { Err(now.to_string()) }
    });
    assert_eq!(now["ready"], true, "{now}");
    assert_eq!(now["sources"][0]["source"], "billing");
    assert!(now["sources"][0]["events_total"].as_u64() >= Some(300), "{now}");
    let documents: Vec<_> =
        now["models"].as_array().unwrap().iter().map(|one| (&one["model"], &one["documents"])).collect();
    assert!(documents.iter().any(|(model, number)| *model == "customer_account" && **number == 200), "{now}");
    assert!(documents.iter().any(|(model, number)| *model == "invoice" && **number == 100), "{now}");
    assert!(
        now["models"].as_array().unwrap().iter().all(|one| one["state"] == "active" && one["version"] == 1),
        "{now}"
    );
    let consumers = now["consumers"].as_array().unwrap();
    assert!(consumers.len() >= shop::TABLES.len() && consumers.iter().all(|one| one["lag"] == 0), "{now}");
    assert_eq!(now["dead_letters"], 0);
    let groups = now["groups"].as_array().unwrap();
    assert!(groups.len() == 1 && groups[0]["lag"] == 0 && groups[0]["lag_seconds"] == 0.0, "{now}");
    let text = said(&world, &["status"]);
    contains(&text, &["billing", "streaming", "customer_account", "active", "200", "invoice"]);
    contains(&text, &["CONSUMER GROUP", "headwater.projector", "0 records", "no change yet"]);
    a_change_shows_how_fresh_its_models_are(&world);
    // The admin address suffices, without a configuration.
    let elsewhere = Command::new(headwater())
        .current_dir("/")
        .args(["status", "--json", "--admin", &world.admin_url("")])
        .output()
        .unwrap();
    contains(&both(&elsewhere), &["\"ready\":true"]);
    watching_goes_on(&world);

    // Beside the running process: what serves, and the same descriptions as before it ran and as it gives them itself.
    let listed = said_json(&world, &["models", "--json", "--model", "invoice"]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!((&listed[0]["serves"], &listed[0]["documents"]), (&Value::Bool(true), &Value::from(100)), "{listed}");
    assert_eq!(listed[0]["running"], true, "{listed}");
    let metrics = world.admin("/metrics").unwrap().body;
    let told =
        ["headwater_ready 1", "headwater_dead_letters_unresolved 0", "headwater_model_problem{model=\"invoice\"} 0"];
    contains(&metrics, &told);
    contains(&said(&world, &["models"]), &["yes", "200"]);
    for (option, before) in ["--json-schema", "--graphql", "--openapi"].iter().zip(&descriptions) {
        assert_eq!(&said(&world, &["models", option]), before, "{option}");
    }
    let schema = said_json(&world, &["models", "--json-schema", "--model", "invoice"]);
    assert!(schema["properties"]["customer"].is_object() && schema["properties"]["line_count"].is_object(), "{schema}");
    contains(&descriptions[1], &["type CustomerAccount", "customerAccountsByIds"]);
    let openapi: Value = serde_json::from_str(&descriptions[2]).unwrap();
    let served = world.get("/openapi.json").unwrap().json();
    assert_eq!(openapi["paths"], served["paths"], "the printed description is not the served one");
    assert!(openapi["paths"].get("/v1/invoice/{id}").is_some());

    // A source that is away: the descriptions need it, the rest says what it can.
    world.postgres.kill();
    refused(&world, &["models", "--graphql"], 1, &["billing", "does not answer"]);
    let output = world.cli(&["check", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(report["ok"] == false && report.to_string().contains(&world.postgres.port().to_string()), "{report}");
    refused(&world, &["verify", "--model", "invoice"], 2, &["billing"]);
    assert!(running.stop().success());
}

/// Snapshot rows are as old as they are: only changes tell how fresh documents are, and only of the models that have them.
fn a_change_shows_how_fresh_its_models_are(world: &World) {
    world.postgres.psql("update customers set full_name = full_name || '.' where id = 1");
    let now = wait_until("the freshness of the accounts", PATIENCE, || {
        let now = said_json(world, &["status", "--json"]);
        let is_known = |one: &Value| one["model"] == "customer_account" && one["freshness"].is_object();
        if now["models"].as_array().unwrap().iter().any(is_known) { Ok(now) } else { Err(now.to_string()) }
    });
    for model in now["models"].as_array().unwrap().iter().filter(|one| one["freshness"].is_object()) {
        let seconds = |name: &str| model["freshness"][name].as_f64().unwrap();
        let (half, nearly_all) = (seconds("p50_seconds"), seconds("p99_seconds"));
        assert!(half > 0.0 && half <= nearly_all && nearly_all < 60.0 && seconds("last_seconds") > 0.0, "{now}");
    }
    contains(&said(world, &["status"]), &[" ms, "]);
}

/// `status --watch --json`: one object a line, again and again.
fn watching_goes_on(world: &World) {
    let mut watch = world.command(&["status", "--watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> = BufReader::new(watch.stdout.take().unwrap()).lines().take(2).map(Result::unwrap).collect();
    watch.kill().unwrap();
    watch.wait().unwrap();
    let times: Vec<i64> =
        lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["at_micros"].as_i64().unwrap()).collect();
    assert!(times[0] < times[1], "{times:?}");
}

#[test]
fn replay_and_verify_speak_to_people_and_to_scripts() {
    let world = world_with_rows();
    refused(&world, &["verify"], 2, &["headwater run"]);
    let mut running = world.start_ready();
    let invoice = |text: &Value| text["model"] == "invoice";

    let done = said_json(&world, &["replay", "--model", "invoice", "--json"]);
    assert!(invoice(&done) && done["done"] == true && done["documents"] == 100 && done["seconds"].is_f64(), "{done}");
    let next = said_json(&world, &["replay", "--model", "invoice", "--json", "--no-wait"]);
    assert!(invoice(&next) && next["done"] == false, "{next}");
    assert!(next["version_id"].as_u64() > done["version_id"].as_u64(), "{done} {next}");
    wait_until("the replay that was not waited for", PATIENCE, || {
        let now = said_json(&world, &["status", "--json"]);
        let models = now["models"].as_array().unwrap();
        let serves = models.iter().any(|one| one["version_id"] == next["version_id"] && one["state"] == "active");
        if serves { Ok(()) } else { Err(now.to_string()) }
    });
    assert_eq!(said(&world, &["replay", "--model", "invoice", "--quiet"]), "");
    let text = said(&world, &["replay", "--model", "customer_account", "--from", "0"]);
    contains(&text, &["customer_account", "200"]);
    // All call the version by one name.
    let listed = said_json(&world, &["models", "--json", "--model", "customer_account"]);
    let name = format!("{} (#{})", listed[0]["version"], listed[0]["version_id"]);
    assert!(name.starts_with("1 (#") && listed[0]["version_id"].is_u64(), "{listed}");
    contains(&text, &[&format!("version {name} serves")]);
    contains(&said(&world, &["status"]), &[&name]);
    contains(&said(&world, &["models"]), &[&name]);
    let said_of_offset = ["offset 1000000 is behind the end", "partition 0 of `headwater.billing.", "`earliest`"];
    refused(&world, &["replay", "--model", "invoice", "--from", "1000000"], 1, &said_of_offset);
    refused(&world, &["replay", "--model", "invoice", "--from", "yesterday"], 1, &["yesterday", "earliest"]);
    refused(&world, &["replay", "--model", "invoices"], 2, &["did you mean `invoice`"]);
    refused(&world, &["replay", "--model", "invoice", "--json", "--quiet"], 2, &["--quiet"]);
    refused(&world, &["replay"], 2, &["--model"]);

    let text = said(&world, &["verify"]);
    contains(&text, &["customer_account: 200", "invoice: 100"]);
    contains(text.lines().last().unwrap(), &["2 models, 300 roots compared, 0 differences, ", "s"]);
    let report = said_json(&world, &["verify", "--json", "--model", "invoice"]);
    assert_eq!(report["equal"], true, "{report}");
    assert!(report["compared"] == 100 && report["differences"] == 0 && report["seconds"].is_f64(), "{report}");
    assert_eq!(report["models"].as_array().unwrap().len(), 1);
    assert_eq!((&report["models"][0]["model"], &report["models"][0]["compared"]), (&"invoice".into(), &100.into()));
    let report = said_json(&world, &["verify", "--json", "--sample", "20", "--model", "customer_account"]);
    let compared = report["models"][0]["compared"].as_u64().unwrap();
    assert!((10..=40).contains(&compared), "about 20 of 200 were to be compared: {report}");
    refused(&world, &["verify", "--model", "invoces"], 2, &["did you mean `invoice`"]);
    refused(&world, &["verify", "--sample", "0"], 2, &["--sample"]);
    refused(&world, &["verify", "--api", "http://127.0.0.1:1"], 2, &["http://127.0.0.1:1", "api.listen"]);
    assert!(running.stop().success());
}

/// Ports are looked at before anything else begins: there is one error, and it names the address.
#[test]
fn a_port_that_is_taken_is_the_only_error_of_a_start() {
    let world = world_with_rows();
    for (url, setting) in [(world.url(""), "api.listen"), (world.admin_url(""), "admin.listen")] {
        let address = url.replace("http://", "");
        let _taken = TcpListener::bind(&address).unwrap();
        for _ in 0..3 {
            refused_start(&world, &[&address, setting, "choose another port"]);
        }
    }
    assert!(!world.path("data").exists(), "something began before");
    let mut running = world.start_ready();
    world.document_when("/v1/customer_account/1", "a document", |it| it["name"] == "name 1");
    assert!(running.stop().success());
}

/// `headwater run` must end with 1, say these words, and nothing else that went wrong.
fn refused_start(world: &World, words: &[&str]) {
    let output = world.cli(&["run"]);
    let text = both(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    contains(&text, words);
    assert!(!text.contains("in order") && !text.contains("ERROR"), "{text}");
}

#[test]
fn dead_letters_are_listed_and_retried() {
    let world = shop::world_with_a_bad_tag();
    let mut running = world.start_ready();
    let letters = || -> Vec<Value> {
        said(&world, &["dead-letters", "list", "--json"])
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let first = wait_until("a dead letter", PATIENCE, || letters().pop().ok_or_else(|| world.log()));
    assert!(first["offset"].is_u64() && first["letter"]["model"] == "tag", "{first}");
    contains(first["letter"]["cause"].as_str().unwrap(), &["number"]);
    contains(
        &said(&world, &["dead-letters", "list"]),
        &["tag", "number", "showing 1 of 1", "headwater dead-letters retry"],
    );
    // The status follows the log by a look at it every now and then.
    wait_until("the status to tell", PATIENCE, || match said(&world, &["status"]) {
        text if text.contains("dead letters: headwater dead-letters list") => Ok(()),
        text => Err(text),
    });

    // As long as the cause stands, a retry says so: in words, in JSON and by its exit status.
    let offset = first["offset"].to_string();
    let output = world.cli(&["dead-letters", "retry", "--offset", &offset]);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    contains(&both(&output), &["1 tried again", "1 failed"]);
    let output = world.cli(&["dead-letters", "retry", "--json"]);
    let outcome: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(output.status.code() == Some(1) && outcome["failed"].as_u64() >= Some(1), "{outcome}");

    world.postgres.psql("update tags set label = '7' where id = 3");
    world.document_when("/v1/tag/3", "the mended one", |doc| doc["number"] == 7);
    let outcome = said_json(&world, &["dead-letters", "retry", "--json"]);
    assert!(outcome["resolved"].as_u64() >= Some(1) && outcome["failed"] == 0, "{outcome}");
    assert!(letters().is_empty(), "{:?}", letters());
    contains(&said(&world, &["dead-letters", "list"]), &["no dead letters"]);
    contains(&said(&world, &["dead-letters", "retry"]), &["0 tried again"]);
    assert!(running.stop().success());
}

#[test]
fn told_to_stop_under_load_it_stops_in_order_and_resumes() {
    let world = world_with_rows();
    let workload = Workload::start(&world, 11);
    for round in 1..=2 {
        let mut running = world.start_ready();
        let before = workload.committed.load(Ordering::Relaxed);
        wait_until("some work", PATIENCE, || match workload.committed.load(Ordering::Relaxed) - before {
            done if done > 50 => Ok(()),
            done => Err(format!("{done} transactions")),
        });
        assert!(running.stop().success(), "{}", world.log());
        assert_eq!(world.log().matches("stopped").count(), round, "{}", world.log());
        assert!(!world.log().contains("did not end in order"), "{}", world.log());
        // The slot is free again for the next start, wherever that is.
        assert_eq!(world.postgres.psql("select count(*) from pg_replication_slots where active"), "0");
    }
    workload.finish();
    let mut running = world.start_ready();
    world.verify();
    assert!(running.stop().success());
}

#[test]
fn hangup_reads_the_models_again() {
    let world = world_with_rows();
    let mut running = world.start_ready();
    let changed = shop::INVOICE.replace("status: status, total", "state: status, status: status, total");
    world.write_model("invoice", &changed);
    running.signal(libc::SIGHUP);
    world.document_when("/v1/invoice/1~1", "the new field", |doc| doc["state"] == "open");

    world.write_model("invoice", &changed.replace("many: billing.invoice_lines", "mani: billing.invoice_lines"));
    running.signal(libc::SIGHUP);
    wait_until("the refusal in the log", PATIENCE, || {
        let log = world.log();
        if log.contains("refused") && log.contains("invoice.yaml:") && log.contains("mani") { Ok(()) } else { Err(log) }
    });
    world.postgres.psql("update invoices set status = 'paid' where number = 1");
    world.document_when("/v1/invoice/1~1", "a change after the refusal", |doc| doc["state"] == "paid");
    assert!(running.stop().success());
}

#[test]
fn a_reload_that_finds_no_files_leaves_the_models_as_they_are() {
    let world = world_with_rows();
    let mut running = world.start_ready();
    let versions = || -> Vec<Value> {
        let now = said_json(&world, &["status", "--json"]);
        let models = now["models"].as_array().unwrap().iter();
        models.map(|one| json!([one["model"], one["version_id"], one["state"]])).collect()
    };
    let before = versions();
    assert_eq!(before.len(), 2, "{before:?}");

    // The folder is gone, and then it is there and empty.
    fs::rename(world.path("models"), world.path("elsewhere")).unwrap();
    let refused_whole = || {
        let answer = post(&world.admin_url("/reload"), &json!({})).unwrap();
        assert_eq!(answer.status, 409, "{}", answer.body);
        contains(&answer.body, &["models_not_listed", "models/*.yaml"]);
    };
    refused_whole();
    running.signal(libc::SIGHUP);
    wait_until("the refusal in the log", PATIENCE, || {
        let log = world.log();
        if log.contains("the models were not read again") && log.contains("models/*.yaml") { Ok(()) } else { Err(log) }
    });
    fs::create_dir(world.path("models")).unwrap();
    refused_whole();
    fs::remove_dir(world.path("models")).unwrap();
    fs::rename(world.path("elsewhere"), world.path("models")).unwrap();
    assert_eq!(versions(), before);

    // A file that was renamed and has a mistake now: its model is not the one that is missing.
    fs::remove_file(world.path("models/invoice.yaml")).unwrap();
    world.write_model("bill", &shop::INVOICE.replace("many: billing.invoice_lines", "mani: billing.invoice_lines"));
    let answer = post(&world.admin_url("/reload"), &json!({})).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    contains(&answer.body, &["bill.yaml", "mani"]);
    assert_eq!(answer.json()["models"], json!(["customer_account", "invoice"]), "{}", answer.body);
    assert_eq!(versions(), before);
    world.postgres.psql("update invoices set status = 'paid' where number = 1");
    world.document_when("/v1/invoice/1~1", "a change after the refusals", |doc| doc["status"] == "paid");
    assert!(running.stop().success());
}

#[test]
fn a_model_that_is_added_and_not_built_yet_leaves_the_others_ready() {
    let mut world = world_with_rows();
    let mut running = world.start_ready();
    // Without the source nobody can say that there is no such table, and its rows never come.
    world.postgres.kill();
    world.write_model(
        "later",
        "model: later\nversion: 1\nroot: { table: billing.later, key: id }\nfields: { id: id }\n",
    );
    let answer = post(&world.admin_url("/reload"), &json!({})).unwrap();
    assert_eq!((answer.status, &answer.json()["refused"]), (200, &json!([])), "{}", answer.body);
    let now = wait_until("the new model in the status", PATIENCE, || {
        let output = world.cli(&["status", "--json"]);
        let now: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let models = now["models"].as_array().unwrap();
        let is_there = models.iter().any(|one| one["model"] == "later" && one["state"] == "building");
        if is_there { Ok((output.status.code(), now)) } else { Err(now.to_string()) }
    });
    let (code, now) = now;
    assert_eq!(code, Some(1), "a model waits for its table: {now}");
    assert_eq!(now["ready"], true, "{now}");
    let ready = world.admin("/readyz").unwrap();
    assert_eq!(ready.status, 200, "{}", ready.body);
    assert_eq!(world.get("/v1/invoice/1~1").unwrap().status, 200);
    assert!(running.stop().success());

    // So does a process that starts: a rollout with a new model must not take the others from their readers.
    let _running = world.start();
    wait_until("a start that is ready", PATIENCE, || match world.admin("/readyz") {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(format!("{} {}", answer.status, answer.body)),
        Err(error) => Err(error),
    });
    assert_eq!(world.get("/v1/invoice/1~1").unwrap().status, 200);
    let later = world.get("/v1/later/1").unwrap();
    assert_eq!((later.status, &later.json()["code"]), (503, &json!("model_building")), "{}", later.body);
}

#[test]
fn a_start_over_an_empty_store_is_ready_when_its_models_are_built() {
    let mut world = world_with_rows();
    world.postgres.kill();
    let mut running = world.start();
    wait_until("a start that is not ready", PATIENCE, || match world.admin("/readyz") {
        Ok(answer) if answer.status == 503 && answer.body.contains("not built yet") => Ok(()),
        Ok(answer) => Err(format!("{} {}", answer.status, answer.body)),
        Err(error) => Err(error),
    });
    world.postgres.resume();
    world.wait_ready(&mut running);
    assert_eq!(world.get("/v1/invoice/1~1").unwrap().status, 200);
    assert!(running.stop().success());
}

/// What is wrong in files is told to scripts as well: where, what, and the remedy.
#[test]
fn check_tells_scripts_where_a_mistake_is() {
    let world = shop::world();
    let report = || -> Value {
        let output = world.cli(&["check", "--json"]);
        assert_eq!(output.status.code(), Some(1), "{}", both(&output));
        serde_json::from_str(&stdout(&output)).unwrap()
    };
    world.write_config("projektor: {}\n");
    let told = report();
    assert_eq!((&told["ok"], &told["findings"]), (&json!(false), &json!([])), "{told}");
    let mistake = &told["diagnostics"][0];
    contains(mistake["file"].as_str().unwrap(), &["headwater.yaml"]);
    assert_eq!((&mistake["line"], &mistake["column"]), (&json!(6), &json!(1)), "{told}");
    contains(mistake["message"].as_str().unwrap(), &["projektor"]);
    contains(mistake["help"].as_str().unwrap(), &["projector"]);

    // A table that is not there, and a column: each is told once, and counted.
    world.write_config("");
    world.write_model("invoice", &shop::INVOICE.replace("total: total", "total: totl"));
    let mut tables = shop::TABLES.to_vec();
    tables.push("custmers");
    world.write_connector(&tables, "");
    let told = report();
    assert_eq!(told["diagnostics"].as_array().unwrap().len(), 2, "{told}");
    let findings = told["findings"].as_array().unwrap();
    assert!(findings.iter().all(|finding| finding["severity"] != "error"), "{told}");
    let text = both(&world.cli(&["check"]));
    contains(&text, &["errors: 2"]);
    assert_eq!((text.matches("custmers`").count(), text.matches("column `totl`").count()), (1, 1), "{text}");

    // What a publication lacks is told where that alone says what is captured, once for each table.
    world.write_model("invoice", shop::INVOICE);
    world.postgres.psql("create publication mine for table customers with (publish_via_partition_root = true)");
    world.write_connector(&[], "  publication: mine\n");
    let told = report();
    let lacks = |table: &str| {
        let subject = format!("table public.{table}");
        let findings = told["findings"].as_array().unwrap().iter();
        let of: Vec<&Value> = findings.filter(|it| it["subject"] == *subject && it["severity"] == "error").collect();
        of.iter().map(|finding| finding["remedy"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(lacks("invoices"), [r#"ALTER PUBLICATION "mine" ADD TABLE "public"."invoices""#], "{told}");
    assert_eq!((lacks("customers").len(), &told["diagnostics"]), (0, &json!([])), "{told}");

    // What cannot be reached, or does not let us in, comes with a remedy, too.
    world.write_connector(&shop::TABLES, "");
    let output = world.command(&["check", "--json"]).env("HEADWATER_TEST_PASSWORD", "wrong").output().unwrap();
    let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let findings = told["findings"].as_array().unwrap();
    let wrong: Vec<&Value> = findings.iter().filter(|finding| finding["severity"] == "error").collect();
    assert!(!wrong.is_empty() && wrong.iter().all(|finding| finding["remedy"] != ""), "{told}");
}

/// A source that takes connections and says nothing is looked at for a while.
#[test]
fn whoever_waits_for_a_look_can_break_it_off() {
    let world = shop::world();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let connector = fs::read_to_string(world.path("connectors/billing.yaml")).unwrap();
    let connector = connector.replace(&world.postgres.port().to_string(), &port);
    fs::write(world.path("connectors/billing.yaml"), connector).unwrap();
    for arguments in [&["check"][..], &["models", "--graphql"]] {
        let mut child = world.command(arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let _connection = silent.accept().unwrap();
        let start = Instant::now();
        assert!(Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap().success());
        let status = child.wait().unwrap();
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(status.code(), Some(130), "{arguments:?}: {text}");
        assert!(start.elapsed() < Duration::from_secs(4), "{arguments:?} went on to the end");
        contains(&text, &["interrupted"]);
    }
}

#[test]
fn the_log_is_of_one_form_to_its_last_line() {
    let world = shop::world();
    let refused = world.command(&["check"]).env("HEADWATER_LOG", "info,headwater=lowd").output().unwrap();
    let text = both(&refused);
    assert_eq!(refused.status.code(), Some(2), "{text}");
    contains(&text, &["HEADWATER_LOG", "lowd"]);

    let address = world.url("").replace("http://", "");
    let _taken = TcpListener::bind(&address).unwrap();
    let output = world.cli(&["run", "--log-format", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    let lines = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!((&last["level"], &last["status"]), (&json!("ERROR"), &json!(1)), "{last}");
    contains(last["message"].as_str().unwrap(), &[&address, "api.listen"]);
}

#[test]
fn help_explains_every_command() {
    let run = |arguments: &[&str]| Command::new(headwater()).current_dir("/").args(arguments).output().unwrap();
    let top = run(&["--help"]);
    assert!(top.status.success());
    let text = both(&top);
    contains(&text, &["Exit status", "headwater demo", "--config"]);
    let listed = text.split("Commands:").nth(1).unwrap().lines().skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = listed.filter_map(|line| line.split_whitespace().next()).collect();
    for command in ["run", "demo", "check", "status", "replay", "verify", "dead-letters", "models"] {
        assert!(commands.contains(&command), "{command} is not listed: {commands:?}");
        let (long, short, help) = (run(&[command, "--help"]), run(&[command, "-h"]), run(&["help", command]));
        assert!(long.status.success() && short.status.success() && help.status.success(), "{command}");
        contains(&stdout(&long), &["Usage: headwater", command]);
        assert_eq!(stdout(&long), stdout(&help), "{command}");
    }
    contains(&both(&run(&["--version"])), &["headwater", "."]);
    let wrong = run(&["statu"]);
    assert_eq!(wrong.status.code(), Some(2));
    contains(&both(&wrong), &["statu", "status"]);
    for command in [&["run"][..], &["check"], &["status"], &["verify"]] {
        let output = run(&[command, &["--config", "/nowhere/headwater.yaml"]].concat());
        assert!(!output.status.success(), "{command:?}");
        contains(&both(&output), &["/nowhere/headwater.yaml"]);
    }
}

#[test]
fn the_workload_makes_and_changes_the_example() {
    let postgres = Postgres::start();
    let work = |more: &[&str]| {
        let arguments =
            ["workload", "--database-url", &postgres.url(), "--seconds", "1", "--seed", "5", "--rate", "300"];
        let output = Command::new(headwater()).args(arguments).args(more).output().unwrap();
        assert!(output.status.success(), "{}", both(&output));
        stdout(&output)
    };
    contains(&work(&["--create"]), &["rows changed", "--seed 5"]);
    assert_eq!(work(&["--quiet"]), "");
    let output = Command::new(headwater()).args(["workload", "--database-url", "mysql:/x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    contains(&both(&output), &["--database-url"]);
}

/// Processes whose command line names `folder`.
fn processes_in(folder: &Path) -> Vec<String> {
    let folder = folder.to_string_lossy().into_owned();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&folder))
        .collect()
}

/// A folder in which a database server of another user may make its own.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("headwater-test-").tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

fn nothing_left_in(folder: &Path) {
    wait_until("nothing to be left of the demo", PATIENCE, || {
        let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        let processes = processes_in(folder);
        if files.is_empty() && processes.is_empty() { Ok(()) } else { Err(format!("{files:?} {processes:?}")) }
    });
}

/// What `make demo ENGINES=distributed` runs.
#[test]
fn the_demo_runs_over_kafka_and_mongodb_and_leaves_nothing_behind() {
    let folder = open_folder();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/with-engines.sh");
    let output = Command::new(script)
        .arg(headwater())
        .args(["demo", "--port", "0", "--admin-port", "0", "--seconds", "5"])
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = both(&output);
    assert!(output.status.success(), "{text}");
    contains(&text, &["Starting Kafka and MongoDB", "/v1/customer_account/", "rows changed"]);
    contains(&text, &["customer_account:", "all as the source says"]);
    assert!(!text.contains("differ"), "{text}");
    nothing_left_in(folder.path());
}

#[test]
fn the_demo_runs_by_itself_and_leaves_nothing_behind() {
    // Whatever it makes, it makes below this folder, to which its database server's user has access.
    let folder = open_folder();
    let demo = |more: &[&str]| {
        let mut command = Command::new(headwater());
        command.current_dir("/").env("TMPDIR", folder.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        command.args(["demo", "--port", "0", "--admin-port", "0"]).args(more);
        command
    };
    let nothing_left = || nothing_left_in(folder.path());

    let output = demo(&["--seconds", "5"]).output().unwrap();
    let text = both(&output);
    assert!(output.status.success(), "{text}");
    contains(&text, &["PostgreSQL of its own", "curl", "/v1/customer_account/", "/console", "rows changed"]);
    contains(&text, &["customer_account:", "all as the source says"]);
    assert!(!text.contains("differ"), "{text}");
    nothing_left();

    // Told to stop before anything runs, it does so soon, and tidies up.
    let mut child = demo(&[]).spawn().unwrap();
    let mut line = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    contains(&line, &["Starting a PostgreSQL"]);
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    assert!(!rest.contains("Starting capture"), "{rest}");
    nothing_left();

    // Told to stop in the middle, it tidies up as well.
    let mut child = demo(&[]).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("/console") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the demo ended before it showed its addresses");
    }
    assert!(!processes_in(folder.path()).is_empty(), "the server of the demo is not where it is looked for");
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    contains(&rest, &["rows changed"]);
    nothing_left();
}
