//! `rest_point_read`, `graphql_point_read`: requests per second that the real binary answers over loopback, beside a
//! static route of the same binary with a body of the same size. wrk asks for random documents; the static route gets the
//! same random numbers, so that asking costs the same.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use headwater_test_servers::Postgres;
use tempfile::TempDir;

use crate::load::{self, Scale};
use crate::report::{Demand, Figure, median};

/// `headwater run` over a small loaded database.
struct Server {
    child: Child,
    _postgres: Postgres,
    folder: TempDir,
    address: String,
    customers: u64,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// The binary beside this one, as `make bench` builds it.
fn binary() -> PathBuf {
    std::env::current_exe().expect("we run from a file").with_file_name("headwater")
}

impl Server {
    fn start() -> Self {
        let postgres = load::server();
        let scale = Scale(0.05);
        load::write(&postgres, scale);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (api, admin) = (free_port(), free_port());
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("inside the folder")).expect("writable");
            fs::write(path, text).expect("writable");
        };
        write(
            "headwater.yaml",
            &format!(
                "data: data\nconnectors: [connectors/*.yaml]\nmodels: [models/*.yaml]\n\
                 api: {{ listen: 127.0.0.1:{api} }}\nadmin: {{ listen: 127.0.0.1:{admin} }}\n"
            ),
        );
        write(
            "connectors/billing.yaml",
            &format!(
                "source: billing\npostgres:\n  host: 127.0.0.1\n  port: {}\n  database: {}\n  user: {}\n  \
                 password: {}\n  tables: [{}]\n",
                postgres.port(),
                postgres.database(),
                postgres.user(),
                postgres.password(),
                load::TABLES.join(", ")
            ),
        );
        write("models/customer_account.yaml", load::MODEL);
        let log = fs::File::create(folder.path().join("run.log")).expect("writable");
        let child = Command::new(binary())
            .args(["run", "--bench-route", "--config"])
            .arg(folder.path().join("headwater.yaml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; run it through `make bench`", binary().display()));
        let server = Self {
            child,
            _postgres: postgres,
            folder,
            address: format!("http://127.0.0.1:{api}"),
            customers: scale.customers(),
        };
        let begin = Instant::now();
        let last = format!("{}/v1/customer_account/{}", server.address, server.customers);
        while body(&last).is_none() {
            assert!(
                begin.elapsed() < Duration::from_secs(120),
                "the server did not become ready:\n{}",
                fs::read_to_string(server.folder.path().join("run.log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// Mean size of a document, in bytes.
    fn body_len(&self) -> usize {
        let lengths: Vec<usize> = (1..=200)
            .map(|n| body(&format!("{}/v1/customer_account/{n}", self.address)).map_or(0, |body| body.len()))
            .collect();
        lengths.iter().sum::<usize>() / lengths.len()
    }

    /// Requests per second, with `request` (Lua: an expression over `n`, a random customer) asked for `seconds`.
    fn wrk(&self, name: &str, request: &str, seconds: u32) -> f64 {
        let script = self.folder.path().join(format!("{name}.lua"));
        fs::write(
            &script,
            format!("request = function()\n  local n = math.random(1, {})\n  return {request}\nend\n", self.customers),
        )
        .expect("writable");
        let program = std::env::var("WRK").unwrap_or_else(|_| "wrk".into());
        let output = Command::new(&program)
            .args(["-t1", "-c32", &format!("-d{seconds}s"), "-s"])
            .arg(&script)
            .arg(&self.address)
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}; `scripts/need.sh bench` installs it"));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(!text.contains("Non-2xx"), "{name} was answered with errors:\n{text}");
        text.lines()
            .find_map(|line| line.strip_prefix("Requests/sec:"))
            .and_then(|number| number.trim().parse().ok())
            .unwrap_or_else(|| panic!("wrk said:\n{text}"))
    }
}

fn body(url: &str) -> Option<String> {
    ureq::get(url).call().ok()?.body_mut().read_to_string().ok()
}

const ROUNDS: usize = 3;
const SECONDS: u32 = 5;

pub(crate) fn measure(rest: bool, graphql: bool) -> Vec<Figure> {
    let server = Server::start();
    let bytes = server.body_len();
    let fixed = format!("wrk.format('GET', '/bench/static?bytes={bytes}&n=' .. n)");
    let point = "wrk.format('GET', '/v1/customer_account/' .. n)";
    // The whole document, so that the body is as large as by REST.
    let query = "query($id: ID!) { customerAccount(id: $id) { id name email city invoices { id number issued_on due_on \
                 status total lines { position description quantity amount } } unpaid_total invoice_count } }";
    let graph = format!(
        "wrk.format('POST', '/graphql', {{['content-type'] = 'application/json'}}, \
         '{{\"query\":\"{query}\",\"variables\":{{\"id\":\"' .. n .. '\"}}}}')"
    );
    println!("  documents of {bytes} bytes on average");
    let mut figures = Vec::new();
    for (name, request, least, words) in
        [("rest_point_read", point, 0.6, "ratio ≥ 0.6"), ("graphql_point_read", graph.as_str(), 0.25, "ratio ≥ 0.25")]
    {
        if (name == "rest_point_read" && !rest) || (name == "graphql_point_read" && !graphql) {
            continue;
        }
        server.wrk("warm", request, 1);
        let (mut ours, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            limits.push(server.wrk("static", &fixed, SECONDS));
            ours.push(server.wrk(name, request, SECONDS));
        }
        figures.push(Figure::new(
            name,
            median(&mut ours),
            "requests/s",
            Some(median(&mut limits)),
            Demand::RatioAtLeast(least, words),
        ));
    }
    figures
}
