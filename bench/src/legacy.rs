//! The answer that Headwater's document replaces: the same JSON, built by one query in the source's database for each
//! request, over a pool of connections and a prepared statement, with the indexes that such a query needs.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_postgres::{Client, NoTls, Statement};

/// Connections of the pool, each with one request under way: more than the processors can work on.
const CONNECTIONS: u64 = 16;

/// Without them every request would go through all invoices.
pub(crate) const INDEXES: &str = "create index on invoices (customer_id); create index on invoice_lines (invoice_id);
analyze customers, invoices, invoice_lines;";

const QUERY: &str = "
select json_build_object(
  'id', c.id, 'name', c.full_name, 'email', c.email, 'city', c.city,
  'invoices', coalesce((
    select json_agg(json_build_object(
      'id', i.id, 'number', i.number, 'issued_on', i.issued_on, 'due_on', i.due_on, 'status', i.status,
      'total', i.total::text,
      'lines', coalesce((
        select json_agg(json_build_object('position', l.position, 'description', l.description,
          'quantity', l.quantity::text, 'amount', l.amount::text) order by l.position, l.id)
        from invoice_lines l where l.invoice_id = i.id), '[]'::json)) order by i.issued_on desc, i.id)
    from invoices i where i.customer_id = c.id), '[]'::json),
  'unpaid_total', (select coalesce(sum(total), 0)::text from invoices i
    where i.customer_id = c.id and i.status in ('open', 'overdue')),
  'invoice_count', (select count(*) from invoices i where i.customer_id = c.id))::text
from customers c where c.id = $1";

async fn connect(url: &str) -> (Client, Statement) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("the server accepts connections");
    tokio::spawn(connection);
    let statement = client.prepare(QUERY).await.expect("the query is right");
    (client, statement)
}

/// Panics unless the query makes the JSON of these documents.
pub(crate) async fn assert_same(url: &str, documents: impl Iterator<Item = (u64, String)>) {
    let (client, statement) = connect(url).await;
    for (n, document) in documents {
        let row = client.query_one(&statement, &[&(n as i32)]).await.expect("the customer is there");
        let parsed = |text: &str| serde_json::from_str::<Value>(text).expect("both are JSON");
        assert_eq!(parsed(row.get(0)), parsed(&document), "customer {n}");
    }
}

/// Requests for random customers that the database answers in a second.
pub(crate) async fn requests_per_second(url: &str, customers: u64, time: Duration) -> f64 {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(connect(url).await);
    }
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (start, (client, statement)) in (1u64..).zip(clients) {
        tasks.spawn(async move {
            let (mut count, mut n) = (0u64, start);
            while begin.elapsed() < time {
                // Steps of a prime: every customer in an order that no page of the table follows.
                n = (n + 7919 * start) % customers;
                let row = client.query_one(&statement, &[&(n as i32 + 1)]).await.expect("the customer is there");
                assert!(!row.get::<_, &str>(0).is_empty(), "an answer is not empty");
                count += 1;
            }
            count
        });
    }
    let count: u64 = tasks.join_all().await.into_iter().sum();
    count as f64 / begin.elapsed().as_secs_f64()
}
