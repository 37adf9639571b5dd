//! `headwater verify` finds nothing where all is well, and finds what is not.

use std::fs;
use std::time::Duration;

use headwater_tests::wait_until;

use crate::shop;

#[test]
fn verify_reports_a_difference_by_root() {
    let world = shop::world();
    world.postgres.psql(
        "insert into customers values (1, 'Ada', null, 1, 0), (2, 'Bob', null, 1, 0);
         insert into invoices values (1, 1, 1, 'open', 10, null);",
    );
    let mut running = world.start_ready();
    world.verify();

    // A change that never reaches the stream: its table leaves the publication for a moment.
    let publication = world.postgres.psql("select pubname from pg_publication").trim().to_string();
    world.postgres.psql(&format!("alter publication {publication} drop table customers"));
    world.postgres.psql("update customers set full_name = 'Eve' where id = 2");
    world.postgres.psql(&format!("alter publication {publication} add table customers"));

    let output = world.cli(&["verify", "--model", "customer_account"]);
    let report = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{report}");
    let lines = || report.lines();
    assert!(lines().any(|line| line.starts_with("customer_account: ") && line.contains("1 differences")), "{report}");
    let roots: Vec<&str> = lines().filter(|line| line.starts_with("  ")).collect();
    assert!(roots.len() == 1 && roots[0].starts_with("  2: "), "{report}");
    assert!(!report.contains("Eve"), "row values must not be printed: {report}");

    // With the table's next change it is noticed that others passed by: the table is read again.
    world.postgres.psql("update customers set n = n + 1 where id = 2");
    wait_until("the table to be read again", Duration::from_secs(30), || {
        let output = world.cli(&["verify"]);
        output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    assert!(running.stop().success());
}

#[test]
fn verify_asks_for_a_token_where_callers_are_asked_who_they_are() {
    let world = shop::world();
    let settings = fs::read_to_string(world.path("headwater.yaml")).unwrap();
    let key = "a".repeat(64);
    let guarded = format!(
        "api: {{ auth: {{ api_keys: [{{ name: reports, sha256: {key}, roles: [support] }}] }}, \
         access: {{ customer_account: {{}}, invoice: {{}} }},"
    );
    fs::write(world.path("headwater.yaml"), settings.replace("api: {", &guarded)).unwrap();
    world.postgres.psql("insert into customers values (1, 'Ada', null, 1, 0)");
    let mut running = world.start_ready();
    let output = world.cli(&["verify", "--model", "customer_account"]);
    let report = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(2), "{report}");
    assert!(report.contains("HEADWATER_API_TOKEN") && report.contains("docs/access.md"), "{report}");
    assert!(running.stop().success());
}
