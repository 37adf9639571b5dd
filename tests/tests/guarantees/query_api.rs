//! The query API over documents made by the whole pipeline.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use headwater_tests::{World, get, get_with, post, project_root, python, succeeded, wait_until};
use serde_json::{Value, json};

use crate::shop;

fn world_with_customers() -> World {
    let world = shop::world();
    world.postgres.psql(
        "insert into customers select n, 'name ' || n, 'c' || n || '@example.com', 1 + n % 5, n % 10 from generate_series(1, 50) n;
         insert into invoices select 1, n, 1 + n % 50, (array['open','paid','overdue'])[1 + n % 3], n, date '2026-01-01' + n
           from generate_series(1, 200) n;",
    );
    world
}

fn ids(list: &Value) -> Vec<i64> {
    list["data"].as_array().unwrap().iter().map(|doc| doc["id"].as_i64().unwrap()).collect()
}

#[test]
fn rest_reads_lists_pages_and_batches() {
    let world = world_with_customers();
    let mut running = world.start_ready();

    // Point read, validators, request id, freshness.
    let answer = get_with(&world.url("/v1/customer_account/7"), &[("x-request-id", "abc-123")]).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-request-id"), "abc-123");
    assert!(answer.header("x-data-as-of").starts_with("20"), "{:?}", answer.headers);
    let etag = answer.header("etag").to_string();
    let again = get_with(&world.url("/v1/customer_account/7"), &[("if-none-match", &etag)]).unwrap();
    assert_eq!((again.status, again.body.as_str()), (304, ""));

    // Field selection keeps the order of the document.
    let chosen = world.get("/v1/customer_account/7?fields=id,invoices.total,unpaid_total").unwrap().json();
    let members: Vec<&String> = chosen.as_object().unwrap().keys().collect();
    assert_eq!(members, ["id", "invoices", "unpaid_total"]);
    assert_eq!(chosen["invoices"][0].as_object().unwrap().len(), 1);

    // Filter, sort, cursor: the pages together are the list, each document once.
    let mut seen = Vec::new();
    let mut path = "/v1/customer_account?filter[n][gte]=3&sort=-n&limit=7".to_string();
    loop {
        let page = world.get(&path).unwrap();
        assert_eq!(page.status, 200, "{}", page.body);
        let page = page.json();
        seen.extend(
            page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|doc| (doc["n"].as_i64().unwrap(), doc["id"].as_i64().unwrap())),
        );
        assert_eq!(page["page"]["hasMore"], json!(page["page"]["next"].is_string()));
        match page["page"]["next"].as_str() {
            Some(next) => path = format!("/v1/customer_account?filter[n][gte]=3&sort=-n&limit=7&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 35);
    assert!(seen.windows(2).all(|pair| pair[0].0 >= pair[1].0), "{seen:?}");
    let mut unique = seen.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), 35);

    let one = world.get("/v1/customer_account?filter[email][eq]=c9@example.com&count=exact").unwrap().json();
    assert_eq!((ids(&one), &one["count"]["value"]), (vec![9], &json!(1)), "{one}");
    let open = world.get("/v1/customer_account?filter[invoices.status][in]=open,overdue&limit=100").unwrap().json();
    assert_eq!(ids(&open).len(), 50);
    let batch = world.get("/v1/customer_account?ids=3,999,1").unwrap().json();
    assert_eq!(batch["data"][0]["id"], 3);
    assert!(batch["data"][1].is_null());
    assert_eq!(batch["data"][2]["id"], 1);
    let inner = world.get("/v1/customer_account/7/invoices?limit=2").unwrap().json();
    assert_eq!(inner["data"].as_array().unwrap().len(), 2);
    assert_eq!(inner["page"]["hasMore"], true);

    for path in ["/livez", "/readyz", "/startupz"] {
        assert_eq!(world.admin(path).unwrap().status, 200, "{path}");
    }
    let metrics = world.admin("/metrics").unwrap().body;
    for stage in ["headwater_capture", "headwater_log", "headwater_projector", "headwater_store", "headwater_api"] {
        assert!(metrics.contains(stage), "no metric of {stage}:\n{metrics}");
    }
    assert!(metrics.contains("freshness"), "{metrics}");
    for page in ["/console", "/graphiql"] {
        assert!(world.admin(page).unwrap().body.contains("<html"), "{page}");
    }
    assert!(running.stop().success());
}

#[test]
fn graphql_answers_what_rest_answers() {
    let world = world_with_customers();
    let mut running = world.start_ready();
    let query = |text: &str, variables: Value| {
        let answer = post(&world.url("/graphql"), &json!({"query": text, "variables": variables})).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    };
    let rest = world.get("/v1/customer_account/7").unwrap().json();
    let answer = query(
        "query One($id: ID!) { customerAccount(id: $id) { ...all renamed: name __typename } }
         fragment all on CustomerAccount { id unpaid_total invoices(first: 2) { number total lines { amount } } }",
        json!({"id": "7"}),
    );
    assert!(answer.get("errors").is_none(), "{answer}");
    let one = &answer["data"]["customerAccount"];
    assert_eq!(one["renamed"], rest["name"]);
    assert_eq!(one["unpaid_total"], rest["unpaid_total"]);
    assert_eq!(one["__typename"], "CustomerAccount");
    assert_eq!(one["invoices"].as_array().unwrap().len(), 2);
    assert_eq!(one["invoices"][1]["total"], rest["invoices"][1]["total"]);

    let answer = query("{ customerAccountsByIds(ids: [3, 999, 1]) { id } customerAccount(id: 999) { id } }", json!({}));
    assert_eq!(answer["data"]["customerAccountsByIds"], json!([{"id": 3}, null, {"id": 1}]));
    assert!(answer["data"]["customerAccount"].is_null());

    let mut after = Value::Null;
    let mut seen = Vec::new();
    loop {
        let answer = query(
            "query Page($after: String) { customerAccounts(where: {n: {gte: 3}}, orderBy: n_DESC, first: 8, after: $after) {
               nodes { id n } pageInfo { hasNextPage endCursor } totalCount } }",
            json!({"after": after}),
        );
        assert!(answer.get("errors").is_none(), "{answer}");
        let page = &answer["data"]["customerAccounts"];
        assert_eq!(page["totalCount"], 35);
        seen.extend(page["nodes"].as_array().unwrap().iter().map(|node| node["id"].as_i64().unwrap()));
        if page["pageInfo"]["hasNextPage"] != true {
            break;
        }
        after = page["pageInfo"]["endCursor"].clone();
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 35);

    let wrong = post(&world.url("/graphql"), &json!({"query": "{ customerAccount(id: 1) { nme } }"})).unwrap().json();
    assert!(wrong["errors"][0]["message"].as_str().unwrap().contains("nme"), "{wrong}");
    let introspection = query("{ __schema { queryType { name } types { name } } }", json!({}));
    assert!(introspection.to_string().contains("CustomerAccount"));
    assert!(running.stop().success());
}

#[test]
fn a_document_is_followed_live() {
    let world = world_with_customers();
    let mut running = world.start_ready();
    let address = world.url("").trim_start_matches("http://").to_string();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(
        stream,
        "GET /v1/customer_account/7 HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut next_document = || -> Value {
        loop {
            let line = lines.next().expect("the stream goes on").unwrap();
            if let Some(data) = line.strip_prefix("data: ").or_else(|| line.strip_prefix("data:"))
                && let Ok(document) = serde_json::from_str(data)
            {
                return document;
            }
        }
    };
    assert_eq!(next_document()["n"], 7);
    for n in [100, 101, 102] {
        world.postgres.psql(&format!("update customers set n = {n} where id = 7"));
        while next_document()["n"] != n {}
    }
    assert!(running.stop().success());
}

#[test]
fn the_openapi_document_is_valid() {
    let world = world_with_customers();
    let mut running = world.start_ready();
    let answer = world.get("/openapi.json").unwrap();
    assert_eq!(answer.status, 200);
    let openapi = answer.json();
    assert!(openapi["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in ["/v1/customer_account/{id}", "/v1/customer_account", "/v1/invoice/{id}"] {
        assert!(openapi["paths"].get(path).is_some(), "{path} is missing");
    }
    let file = world.path("openapi.json");
    std::fs::write(&file, &answer.body).unwrap();
    // An independent validator, installed by `make test`.
    let output = Command::new(python()).args(["-m", "openapi_spec_validator"]).arg(&file).output().unwrap();
    succeeded("openapi_spec_validator (make test installs it)", &output);
    assert!(running.stop().success());
}

/// The value of the first sample whose name and labels contain `name`.
fn sample(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Of what is scraped `docs/operations.md` has each family, and neither it nor `deploy/alerts.yaml` has one that is not there.
fn every_metric_is_described_and_alerts_name_no_other(scraped: &str) {
    // A family's line has no `_total`, which counters end with.
    let families: BTreeSet<&str> = scraped
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| name.starts_with("headwater_"))
        .collect();
    let family = |name: &str| {
        let ends = ["_total", "_bucket", "_sum", "_count", ""];
        ends.iter().find_map(|end| families.get(name.strip_suffix(end)?)).copied()
    };
    let described = named_in("docs/operations.md");
    let undescribed: Vec<_> =
        families.iter().filter(|known| !described.iter().any(|name| family(name) == Some(*known))).collect();
    assert!(undescribed.is_empty(), "not in docs/operations.md: {undescribed:?}");
    for name in described.iter().chain(&named_in("deploy/alerts.yaml")) {
        // A crate's name, as targets of log lines have it, the slot and publication of the example, and what is told only
        // where projectors share their rows, which `shared_projectors` reads.
        let others = ["headwater_connectors", "headwater_billing", "headwater_log_rebalances_total"];
        let is_other = others.contains(&name.as_str());
        assert!(is_other || family(name).is_some(), "{name} is no metric:\n{scraped}");
    }
}

/// The words of a file of the repository that could be metrics.
fn named_in(file: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(project_root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("headwater_") && *word != "headwater_").map(Into::into).collect()
}

#[test]
fn metrics_tell_freshness_and_lag() {
    let mut world = world_with_customers();
    let mut running = world.start_ready();
    let scrape = || world.admin("/metrics").unwrap().body;
    let patience = Duration::from_secs(60);
    wait_until("the snapshot to be folded", patience, || {
        let now = scrape();
        let calm = sample(&now, "headwater_projector_lag_records") == 0.0;
        if calm && sample(&now, "headwater_capture_streaming") == 1.0 { Ok(()) } else { Err(now) }
    });
    let before = scrape();
    let count = |text: &str| sample(text, "headwater_projector_freshness_seconds_count");
    for n in 1..=5 {
        world.postgres.psql(&format!("update customers set n = {} where id = 7", 1000 + n));
        world.document_when("/v1/customer_account/7", "the change", |doc| doc["n"] == 1000 + n);
    }
    let after = wait_until("every change to be measured", patience, || {
        let now = scrape();
        if count(&now) >= count(&before) + 5.0 { Ok(now) } else { Err(now) }
    });

    // A histogram: buckets only grow, the last holds all, and what was measured can be true.
    let buckets: Vec<f64> = after
        .lines()
        .filter(|line| line.starts_with("headwater_projector_freshness_seconds_bucket"))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(buckets.len() > 5 && buckets.is_sorted() && buckets.last() == Some(&count(&after)), "{buckets:?}");
    let sum = |text: &str| sample(text, "headwater_projector_freshness_seconds_sum");
    let mean = (sum(&after) - sum(&before)) / (count(&after) - count(&before));
    assert!(mean > 0.0 && mean < 30.0, "a mean freshness of {mean} s");
    for grows in
        ["headwater_capture_events_total", "headwater_projector_batches_total", "headwater_log_appended_records_total"]
    {
        assert!(sample(&after, grows) > sample(&before, grows), "{grows} does not grow:\n{after}");
    }
    for is_told in
        ["headwater_capture_lag_bytes{", "headwater_capture_lag_seconds{", "headwater_capture_retained_wal_bytes{"]
    {
        let line = after.lines().find(|line| line.starts_with(is_told)).unwrap_or_else(|| panic!("no {is_told}"));
        assert!(line.contains("source=\"billing\""), "{line}");
    }
    assert!(after.lines().filter(|line| line.starts_with("# HELP")).count() > 30 && after.ends_with("# EOF\n"));
    // Of what has labels nothing is scraped before the first has some, nor of what is not known.
    assert_eq!(world.get("/v1/nothing").unwrap().status, 404);
    assert!(!after.contains("headwater_capture_safe_wal_bytes"), "the server drops no slot");
    world.postgres.psql("alter system set max_slot_wal_keep_size = '1GB'");
    world.postgres.psql("select pg_reload_conf()");
    let all = wait_until("the limit to be seen", patience, || {
        let now = scrape();
        if now.contains("headwater_capture_safe_wal_bytes{") { Ok(now) } else { Err(now) }
    });
    every_metric_is_described_and_alerts_name_no_other(&all);

    // Cut off from the source, the metrics say so: nothing is streamed, and the age of what is captured grows.
    let age = |text: &str| sample(text, "headwater_capture_lag_seconds{");
    world.postgres.kill();
    wait_until("the lag to grow", patience, || {
        let now = get(&world.admin_url("/metrics"))?.body;
        let alarming = sample(&now, "headwater_capture_streaming") == 0.0 && age(&now) > age(&after);
        if alarming && sample(&now, "headwater_capture_retries_total") > 0.0 { Ok(()) } else { Err(now) }
    });
    assert!(running.stop().success());
}
