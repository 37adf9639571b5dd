//! The work: 50,000 customers and 250,000 invoices in two transactions, a million invoice lines in a thousand, as in the
//! measurements the limits were first taken from. Lines come with their invoice, as a billing run writes them; invoices
//! belong to customers in no order.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use headwater_test_servers::{Postgres, PostgresOptions};

/// Rows of each kind for 1.0 of scale.
const CUSTOMERS: u64 = 50_000;
const INVOICES: u64 = 250_000;
const LINES: u64 = 1_000_000;

pub(crate) const TABLES: [&str; 3] = ["customers", "invoices", "invoice_lines"];

pub(crate) const SCHEMA: &str = "
create table customers (id int primary key, full_name text not null, email text, city text, created_at timestamptz);
create table invoices (id int primary key, customer_id int not null, number text not null, status text not null,
                       issued_on date, due_on date, total numeric(14,2));
create table invoice_lines (id int primary key, invoice_id int not null, position int, description text,
                            quantity numeric(10,2), amount numeric(14,2));
alter table customers replica identity full;
alter table invoices replica identity full;
alter table invoice_lines replica identity full;
";

pub(crate) const MODEL: &str = "
model: customer_account
version: 1
root: { table: billing.customers, key: id }
fields: { id: id, name: full_name, email: email, city: city }
nest:
  invoices:
    many: billing.invoices
    on: { customer_id: id }
    order: [-issued_on]
    fields: [id, number, issued_on, due_on, status, total]
    nest:
      lines: { many: billing.invoice_lines, on: { invoice_id: id }, order: [position], fields: [position, description, quantity, amount] }
compute:
  unpaid_total: { sum: invoices.total, where: { invoices.status: { in: [open, overdue] } } }
  invoice_count: { count: invoices }
indexes: [email, unpaid_total]
";

/// How much work: 1.0 is what the figures are defined for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale(pub(crate) f64);

impl Scale {
    fn of(self, n: u64) -> u64 {
        ((n as f64 * self.0) as u64).max(1000)
    }

    pub(crate) fn rows(self) -> Rows {
        Rows { customers: self.of(CUSTOMERS), invoices: self.of(INVOICES), lines: self.of(LINES) }
    }
}

/// Rows of each table. The same number of invoices belongs to each customer, of lines to each invoice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub(crate) customers: u64,
    pub(crate) invoices: u64,
    pub(crate) lines: u64,
}

impl Rows {
    pub(crate) fn in_all(self) -> u64 {
        self.customers + self.invoices + self.lines
    }
}

/// A server with the empty schema.
pub(crate) fn server() -> Postgres {
    let options = PostgresOptions::default()
        .setting("max_wal_size", "8GB")
        .setting("checkpoint_timeout", "1h")
        .setting("shared_buffers", "512MB")
        .setting("wal_sender_timeout", "0");
    let postgres = Postgres::start_with(&options);
    postgres.psql(SCHEMA);
    postgres
}

/// Writes all rows.
pub(crate) fn write(postgres: &Postgres, Rows { customers, invoices, lines }: Rows) {
    postgres.psql(&format!(
        "insert into customers select n, 'Customer number ' || n, 'c' || n || '@example.com', 'City ' || n % 997, \
         '2020-01-01'::timestamptz + n * interval '1 minute' from generate_series(1, {customers}) n"
    ));
    postgres.psql(&format!(
        "insert into invoices select n, 1 + (n::bigint * 7919) % {customers}, 'INV-' || lpad(n::text, 9, '0'), \
         (array['open','paid','paid','overdue'])[1 + n % 4], date '2024-01-01' + n % 700, date '2024-01-15' + n % 700, \
         (n % 100000) / 100.0 from generate_series(1, {invoices}) n"
    ));
    let batch = (lines / 1000).max(1);
    postgres.psql(&format!(
        "do $$ begin for batch in 0..{last} loop \
           insert into invoice_lines select n, 1 + (n - 1) * {invoices}::bigint / {lines}, n % 4, \
             'Line item number ' || n || ' of the invoice', 1 + n % 9, (n % 10000) / 100.0 \
           from generate_series(batch * {batch} + 1, least((batch + 1) * {batch}, {lines})) n; \
           commit; end loop; end $$",
        last = lines.div_ceil(batch) - 1
    ));
}

/// Position at which the server's log ends now.
pub(crate) fn wal_end(postgres: &Postgres) -> String {
    postgres.psql("select pg_current_wal_insert_lsn()").trim().to_string()
}

/// The limit of capture: the reference client reading the log from `slot` up to `end` into nothing. Rows per second.
pub(crate) fn reference_client(postgres: &Postgres, slot: &str, publication: &str, end: &str, rows: u64) -> f64 {
    let mut child = Command::new(program("pg_recvlogical"))
        .env("PGPASSWORD", postgres.password())
        .args(["-h", "127.0.0.1", "-p", &postgres.port().to_string(), "-U", postgres.user(), "-d", postgres.database()])
        .args(["--slot", slot, "--start", "--no-loop", "-f", "/dev/null", "--endpos", end])
        .args(["-o", "proto_version=1", "-o", &format!("publication_names={publication}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("pg_recvlogical starts");
    let begin = Instant::now();
    // It ends by itself at `end`, which it notices with the first message behind it: give it one now and then.
    loop {
        if child.try_wait().expect("the child is ours").is_some() {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(600), "pg_recvlogical did not reach {end}");
        std::thread::sleep(Duration::from_millis(5));
    }
    rows as f64 / begin.elapsed().as_secs_f64()
}

/// A program of PostgreSQL: in `PG_BIN`, or where Debian puts the newest version, or on the `PATH`.
fn program(name: &str) -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path().join("bin"));
    let mut folders: Vec<PathBuf> = std::env::var_os("PG_BIN").map(PathBuf::from).into_iter().chain(debian).collect();
    folders.sort();
    folders.reverse();
    folders.iter().map(|folder| folder.join(name)).find(|path| path.exists()).unwrap_or_else(|| Path::new(name).into())
}
