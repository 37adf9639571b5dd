//! `versus_legacy`: point reads beside the answer that Headwater's document replaces, which is the same JSON, built by one
//! query in the source's database for each request: over HTTP as ours, by a server that does nothing else, over a pool of
//! connections and a prepared statement, with the indexes that such a query needs. `versus_legacy_five_years` is the same
//! for customers with sixty invoices each: a query's time grows with what it gathers.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_postgres::{Client, NoTls, Statement};

use crate::load::Rows;
use crate::reads::{ROUNDS, ROWS, SECONDS, Server};
use crate::report::{Demand, Figure, median};

/// Connections of the pool: more than the processors can work on.
const CONNECTIONS: usize = 16;
/// Invoices of a customer's five years, monthly.
const FIVE_YEARS: Rows = Rows { customers: 1000, invoices: 60_000, lines: 240_000 };

/// Without them every request would go through all invoices.
const INDEXES: &str = "create index on invoices (customer_id); create index on invoice_lines (invoice_id);
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
async fn assert_same(url: &str, documents: impl Iterator<Item = (u64, String)>) {
    let (client, statement) = connect(url).await;
    for (n, document) in documents {
        let row = client.query_one(&statement, &[&(n as i32)]).await.expect("the customer is there");
        let parsed = |text: &str| serde_json::from_str::<Value>(text).expect("both are JSON");
        assert_eq!(parsed(row.get(0)), parsed(&document), "customer {n}");
    }
}

/// Clients in turn: each takes several queries at once, so that none waits for one to be free.
struct Pool {
    clients: Vec<(Client, Statement)>,
    next: AtomicUsize,
}

impl Pool {
    /// The customer of a path that ends with their number.
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let n: i32 = request.uri().path().rsplit('/').next().and_then(|n| n.parse().ok()).expect("a customer's number");
        let (client, statement) = &self.clients[self.next.fetch_add(1, Ordering::Relaxed) % self.clients.len()];
        let row = client.query_one(statement, &[&n]).await.expect("the customer is there");
        let body = Bytes::copy_from_slice(row.get::<_, &str>(0).as_bytes());
        Ok(Response::builder().header("content-type", "application/json").body(Full::new(body)).expect("it is whole"))
    }
}

/// Answers over HTTP until the runtime ends.
async fn serve(url: &str) -> SocketAddr {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(connect(url).await);
    }
    let pool = Arc::new(Pool { clients, next: AtomicUsize::default() });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("somebody connects");
            stream.set_nodelay(true).expect("a socket of ours");
            let pool = pool.clone();
            let service = service_fn(move |request| {
                let pool = pool.clone();
                async move { pool.answer(request).await }
            });
            // wrk leaves when its time is up, in the middle of an answer.
            tokio::spawn(
                async move { http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok() },
            );
        }
    });
    address
}

pub(crate) fn measure(runtime: &tokio::runtime::Runtime) -> Vec<Figure> {
    vec![beside(runtime, "versus_legacy", ROWS), beside(runtime, "versus_legacy_five_years", FIVE_YEARS)]
}

fn beside(runtime: &tokio::runtime::Runtime, name: &str, rows: Rows) -> Figure {
    let server = Server::over(rows);
    let url = server.database_url();
    runtime.block_on(async {
        let (client, _) = connect(&url).await;
        client.batch_execute(INDEXES).await.expect("the tables are there");
        assert_same(&url, (1..=50).map(|n| (n, server.document(n).expect("every customer has a document")))).await;
    });
    println!("  documents of {} bytes on average", server.body_len());
    let legacy = format!("http://{}", runtime.block_on(serve(&url)));
    let point = "wrk.format('GET', '/v1/customer_account/' .. n)";
    server.wrk("warm", point, 1);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(server.wrk_at(&legacy, "legacy", point, SECONDS));
        ours.push(server.wrk("point", point, SECONDS));
    }
    let demand = Demand::RatioAtLeast(20.0, "ratio ≥ 20");
    Figure::new(name, median(&mut ours), "requests/s", Some(median(&mut theirs)), demand)
}
