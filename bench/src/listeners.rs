//! `live_listeners`: memory of the real binary per idle listener of a live document, and how long after a commit one of
//! them hears of it while all the others have nothing to hear.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::load::Scale;
use crate::reads::Server;
use crate::report::{Demand, Figure, median};

/// Listeners for 1.0 of scale.
const LISTENERS: f64 = 10_000.0;
/// Changes, each heard by one listener.
const CHANGES: usize = 20;

fn follow(server: &Server, n: u64) -> TcpStream {
    let mut stream = TcpStream::connect(server.socket_address()).expect("the server accepts; see `ulimit -n`");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let head = format!("GET /v1/customer_account/{n}?fields=id,name HTTP/1.1\r\nHost: bench\r\n");
    stream.write_all(format!("{head}Accept: text/event-stream\r\n\r\n").as_bytes()).expect("sent");
    hear(&mut stream);
    stream
}

/// Reads up to the end of an event.
fn hear(stream: &mut TcpStream) {
    let (mut heard, mut piece) = (Vec::new(), [0; 1024]);
    while !heard.windows(6).any(|part| part == b"data: ") || !heard.ends_with(b"\n\n\r\n") {
        let count = stream.read(&mut piece).expect("an event comes");
        assert!(count > 0, "the stream ended: {}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&piece[..count]);
    }
}

pub(crate) async fn measure(scale: Scale) -> Vec<Figure> {
    let server = Server::start(false);
    let count = ((LISTENERS * scale.0) as u64).max(100);
    // Whatever the first connections make once is no listener's.
    drop((1..=50).map(|n| follow(&server, n)).collect::<Vec<_>>());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = server.resident_bytes();
    let mut listeners: Vec<TcpStream> = (0..count).map(|n| follow(&server, 1 + n % server.customers())).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let each = server.resident_bytes().saturating_sub(before) as f64 / count as f64;

    let (client, connection) =
        tokio_postgres::connect(&server.database_url(), tokio_postgres::NoTls).await.expect("the server accepts");
    tokio::spawn(connection);
    let update = client.prepare("update customers set full_name = $1 where id = $2").await.expect("a statement");
    let mut waits = Vec::new();
    for change in 0..CHANGES {
        let at = change * 37 % count.min(server.customers()) as usize;
        let (name, id) = (format!("Another name {change}"), 1 + at as i32);
        client.execute(&update, &[&name, &id]).await.expect("updated");
        let committed = Instant::now();
        tokio::task::block_in_place(|| hear(&mut listeners[at]));
        waits.push(committed.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    vec![
        Figure::new("live_listener_bytes", each, "bytes each", None, Demand::Report),
        Figure::new("live_change_heard", median(&mut waits), "ms", None, Demand::Report),
        Figure::new("live_listeners", count as f64, "listeners", None, Demand::Report),
    ]
}
