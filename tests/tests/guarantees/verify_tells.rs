//! `headwater verify` finds nothing where all is well, and finds what is not.

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
    assert!(report.contains("customer_account") && report.contains('2'), "{report}");
    assert!(!report.contains("Eve"), "row values must not be printed: {report}");

    // The next change of the row heals it.
    world.postgres.psql("update customers set n = n + 1 where id = 2");
    world.verify();
    assert!(running.stop().success());
}
