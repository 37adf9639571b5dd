//! A small shop: the schema, models and workload of the tests. Every kind of relation, and every kind of change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use headwater_tests::World;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub(crate) const SCHEMA: &str = "
create table customers (id bigint primary key, full_name text not null, email text, tariff_id int, n bigint not null default 0);
create table tariffs (id int primary key, name text not null, fee numeric(12,4));
create table invoices (company smallint, number int, customer_id bigint, status text not null, total numeric(14,2),
                       issued_on date, primary key (company, number));
create table invoice_lines (id bigint primary key, company smallint, number int, description text, amount numeric(14,2));
create table payments (id bigint primary key, company smallint, number int, paid_at timestamptz, amount numeric(14,2), method text);
create table tags (id int primary key, label text not null);
create table customer_tags (customer_id bigint, tag_id int, since date, primary key (customer_id, tag_id));
alter table invoices replica identity full;
insert into tariffs select n, 'tariff ' || n, n * 1.25 from generate_series(1, 5) n;
insert into tags select n, 'tag ' || n from generate_series(1, 6) n;
";

pub(crate) const TABLES: [&str; 7] =
    ["customers", "tariffs", "invoices", "invoice_lines", "payments", "tags", "customer_tags"];

pub(crate) const CUSTOMER_ACCOUNT: &str = "
model: customer_account
version: 1
root: { table: billing.customers, key: id }
fields: { id: id, name: full_name, email: email, n: n }
nest:
  tariff: { one: billing.tariffs, on: { id: tariff_id }, fields: [name, fee] }
  tags: { many: billing.tags, through: { table: billing.customer_tags, on: { customer_id: id } }, on: { id: tag_id }, order: [label], fields: [id, label] }
  invoices:
    many: billing.invoices
    on: { customer_id: id }
    where: { status: { ne: draft } }
    order: [-issued_on]
    fields: [company, number, issued_on, status, total]
    nest:
      lines: { many: billing.invoice_lines, on: { company: company, number: number }, fields: [id, description, amount] }
      payments: { many: billing.payments, on: { company: company, number: number }, order: [paid_at], fields: [id, paid_at, amount, method] }
    compute:
      paid: { sum: payments.amount }
compute:
  unpaid_total: { sum: invoices.total, where: { invoices.status: { in: [open, overdue] } } }
  invoice_count: { count: invoices }
  largest_line: { max: invoices.lines.amount }
indexes: [email, invoices.status, unpaid_total, n]
";

pub(crate) const INVOICE: &str = "
model: invoice
version: 1
root: { table: billing.invoices, key: [company, number], where: { status: { ne: draft } } }
fields: { company: company, number: number, status: status, total: total, label: { concat: [company, number], separator: '/' } }
nest:
  customer:
    one: billing.customers
    on: { id: customer_id }
    fields: { id: id, name: full_name }
    nest:
      tariff: { one: billing.tariffs, on: { id: tariff_id }, fields: [name] }
  lines: { many: billing.invoice_lines, on: { company: company, number: number }, order: [-amount], limit: 3, fields: [description, amount] }
compute:
  line_count: { count: lines }
indexes: [status, customer.id]
";

pub(crate) fn world() -> World {
    World::new(SCHEMA, &TABLES, &[("customer_account", CUSTOMER_ACCOUNT), ("invoice", INVOICE)])
}

/// A world with a model of tags, of which that of the third cannot be built: its label is no number.
pub(crate) fn world_with_a_bad_tag() -> World {
    let world = world();
    world.write_model(
        "tag",
        "model: tag\nversion: 1\nroot: { table: billing.tags, key: id }\n\
         fields: { id: id, number: { column: label, cast: integer } }\nindexes: [number]\n",
    );
    world.postgres.psql("update tags set label = id::text; update tags set label = 'seven' where id = 3");
    world
}

/// A writer that changes the shop until told to stop.
pub(crate) struct Workload {
    stop: Arc<AtomicBool>,
    paused: Arc<AtomicBool>,
    /// Transactions committed.
    pub(crate) committed: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Workload {
    /// Starts writing with the choices that `seed` gives.
    pub(crate) fn start(world: &World, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let paused = Arc::new(AtomicBool::new(false));
        let committed = Arc::new(AtomicU64::new(0));
        let url = world.postgres.url();
        let thread = std::thread::spawn({
            let (stop, paused, committed) = (stop.clone(), paused.clone(), committed.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(write(&url, seed, &stop, &paused, &committed));
            }
        });
        Self { stop, paused, committed, thread: Some(thread) }
    }

    /// Holds back further transactions, or lets them go on: what is compared while everything changes can only be told
    /// to be changing.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Stops after the transaction under way.
    pub(crate) fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.committed.load(Ordering::Relaxed)
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn write(url: &str, seed: u64, stop: &AtomicBool, paused: &AtomicBool, committed: &AtomicU64) {
    let (mut client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut random = SmallRng::seed_from_u64(seed);
    while !stop.load(Ordering::Relaxed) {
        if paused.load(Ordering::Relaxed) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            continue;
        }
        let transaction = client.transaction().await.unwrap();
        let mut statements = String::new();
        for _ in 0..random.random_range(1..8) {
            statements.push_str(&change(&mut random));
            statements.push(';');
        }
        transaction.batch_execute(&statements).await.unwrap_or_else(|error| panic!("{error:?}\n{statements}"));
        if random.random_bool(0.05) {
            transaction.rollback().await.unwrap();
        } else {
            transaction.commit().await.unwrap();
            committed.fetch_add(1, Ordering::Relaxed);
        }
        if random.random_bool(0.1) {
            tokio::time::sleep(std::time::Duration::from_millis(random.random_range(0..10))).await;
        }
    }
    drop(client);
    connection.await.unwrap().unwrap();
}

/// One random change. Keys are drawn from small ranges, so that changes meet one another.
fn change(random: &mut SmallRng) -> String {
    let customer = random.random_range(1..=60);
    let other = random.random_range(1..=60);
    let invoice = format!("({}, {})", random.random_range(1..=2), random.random_range(1..=100));
    let moved = format!("({}, {})", random.random_range(1..=2), random.random_range(1..=100));
    let child = random.random_range(1..=400);
    let amount = random.random_range(-500..100_000) as f64 / 100.0;
    let status = ["draft", "open", "overdue", "paid"][random.random_range(0..4)];
    let pair = |pair: &str| pair.trim_matches(['(', ')']).to_string();
    let invoice_values = pair(&invoice);
    match random.random_range(0..24) {
        0..=2 => format!(
            "insert into customers values ({customer}, 'name {amount}', 'c{customer}@example.com', {}, 0) \
             on conflict (id) do update set full_name = excluded.full_name, tariff_id = excluded.tariff_id",
            random.random_range(1..=6)
        ),
        3..=5 => format!("update customers set n = n + 1 where id = {customer}"),
        6 => format!("delete from customers where id = {customer} and id <> 1"),
        7 => format!(
            "update customers set id = {other} where id = {customer} and id <> 1 \
             and not exists (select from customers where id = {other})"
        ),
        8..=10 => format!(
            "insert into invoices values ({invoice_values}, {customer}, '{status}', {amount}, date '2026-01-01' + {child}) \
             on conflict (company, number) do update set status = excluded.status, total = excluded.total"
        ),
        11 => format!("update invoices set customer_id = {customer} where (company, number) = {invoice}"),
        12 => format!("update invoices set customer_id = null where (company, number) = {invoice}"),
        13 => format!(
            "update invoices set (company, number) = {moved} where (company, number) = {invoice} \
             and not exists (select from invoices where (company, number) = {moved})"
        ),
        14 => format!("delete from invoices where (company, number) = {invoice}"),
        15..=17 => format!(
            "insert into invoice_lines values ({child}, {invoice_values}, 'line {child}', {amount}) on conflict (id) \
             do update set amount = excluded.amount, company = excluded.company, number = excluded.number"
        ),
        18 => format!("delete from invoice_lines where id = {child}"),
        19..=20 => format!(
            "insert into payments values ({child}, {invoice_values}, now(), {amount}, 'card') on conflict (id) \
             do update set amount = excluded.amount"
        ),
        21 => format!(
            "update tariffs set fee = {amount}, name = 'tariff ' || {child} where id = {}",
            random.random_range(1..=5)
        ),
        22 => format!(
            "insert into customer_tags values ({customer}, {}, date '2026-01-01') on conflict do nothing",
            random.random_range(1..=6)
        ),
        _ if random.random_bool(0.02) => "truncate payments".into(),
        _ => format!("delete from customer_tags where customer_id = {customer}"),
    }
}
