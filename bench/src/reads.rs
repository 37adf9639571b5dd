//! `rest_point_read`, `rest_point_read_uncached`, `rest_point_read_authenticated`, `graphql_point_read`: requests per
//! second that the real binary answers over loopback, beside a static route of the same binary with a body of the same
//! size. wrk asks for random documents; the static route gets the same random numbers, and headers, so that asking costs
//! the same. With authentication every customer has a token of their own, sees only what is theirs, and is limited.
//!
//! `rest_list_20`: lists of twenty documents by an index, beside a static body of that size.
//!
//! `overload`: the slowest of a hundred answers at twice the load that saturates the server, beside that at half of it.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use headwater_test_servers::{Postgres, free_port};
use tempfile::TempDir;

use crate::load::{self, Rows};
use crate::report::{Demand, Figure, median};

/// `headwater run` over a small loaded database.
pub(crate) struct Server {
    child: Child,
    postgres: Postgres,
    folder: TempDir,
    address: String,
    customers: u64,
    /// One a customer, from 1 on; empty where nobody is asked.
    tokens: Vec<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary beside this one, as `make bench` builds it.
fn binary() -> PathBuf {
    std::env::current_exe().expect("we run from a file").with_file_name("headwater")
}

impl Server {
    pub(crate) fn start(asks: bool) -> Self {
        Self::start_with(asks, "", ROWS)
    }

    /// Over these rows, asking nobody who they are.
    pub(crate) fn over(rows: Rows) -> Self {
        Self::start_with(false, "", rows)
    }

    /// With these lines of the API's settings besides.
    fn start_with(asks: bool, settings: &str, rows: Rows) -> Self {
        let postgres = load::server();
        load::write(&postgres, rows);
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
                 api:\n  listen: 127.0.0.1:{api}\n{settings}{}admin: {{ listen: 127.0.0.1:{admin} }}\n",
                if asks { ACCESS } else { "" }
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
            postgres,
            folder,
            address: format!("http://127.0.0.1:{api}"),
            customers: if asks { rows.customers.min(TOKENS) } else { rows.customers },
            tokens: if asks { (1..=rows.customers.min(TOKENS)).map(token).collect() } else { Vec::new() },
        };
        let begin = Instant::now();
        while server.document(server.customers).is_none() {
            assert!(
                begin.elapsed() < Duration::from_secs(120),
                "the server did not become ready:\n{}",
                fs::read_to_string(server.folder.path().join("run.log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// Where it listens, without the scheme.
    pub(crate) fn socket_address(&self) -> &str {
        self.address.trim_start_matches("http://")
    }

    /// Documents there are, with ids from 1 on.
    pub(crate) fn customers(&self) -> u64 {
        self.customers
    }

    /// Where the source's rows are changed.
    pub(crate) fn database_url(&self) -> String {
        self.postgres.url()
    }

    /// Memory of the process that no file stands behind, in bytes: pages of the store are the operating system's.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).expect("the process runs");
        let kib = figure_of(&status, "RssAnon:").trim_end_matches("kB").trim();
        kib.parse::<u64>().expect("a number") * 1024
    }

    /// Mean size of a document, in bytes.
    pub(crate) fn body_len(&self) -> usize {
        let lengths: Vec<usize> = (1..=200).map(|n| self.document(n).map_or(0, |body| body.len())).collect();
        lengths.iter().sum::<usize>() / lengths.len()
    }

    pub(crate) fn document(&self, n: u64) -> Option<String> {
        self.get(n, &format!("/v1/customer_account/{n}"))
    }

    /// What the customer reads there.
    fn get(&self, n: u64, path: &str) -> Option<String> {
        let request = ureq::get(format!("{}{path}", self.address));
        let request = match self.tokens.get(n as usize - 1) {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        request.call().ok()?.body_mut().read_to_string().ok()
    }

    /// Requests per second, with `request` (Lua: an expression over `n`, a random customer) asked for `seconds`.
    pub(crate) fn wrk(&self, name: &str, request: &str, seconds: u32) -> f64 {
        self.wrk_at(&self.address, name, request, seconds)
    }

    /// The same of another server.
    pub(crate) fn wrk_at(&self, address: &str, name: &str, request: &str, seconds: u32) -> f64 {
        let text = self.load(address, name, request, seconds, 32);
        assert!(!text.contains("Non-2xx"), "{name} was answered with errors:\n{text}");
        figure_of(&text, "Requests/sec:").parse().unwrap_or_else(|_| panic!("wrk said:\n{text}"))
    }

    /// What wrk says of so many connections.
    fn load(&self, address: &str, name: &str, request: &str, seconds: u32, connections: u32) -> String {
        let script = self.folder.path().join(format!("{name}.lua"));
        fs::write(
            &script,
            format!(
                "{}request = function()\n  local n = math.random(1, {})\n  return {request}\nend\n",
                self.headers(),
                self.customers
            ),
        )
        .expect("writable");
        let program = std::env::var("WRK").unwrap_or_else(|_| "wrk".into());
        let output = Command::new(&program)
            .args(["-t1", "--latency", &format!("-c{connections}"), &format!("-d{seconds}s"), "-s"])
            .arg(&script)
            .arg(address)
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}; `scripts/need.sh bench` installs it"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Lua: the headers of each customer.
    fn headers(&self) -> String {
        let mut out = String::from("local heads = {\n");
        for token in &self.tokens {
            writeln!(out, "{{['authorization'] = 'Bearer {token}'}},").expect("a String takes everything");
        }
        out + "}\n"
    }
}

/// What stands behind a word in wrk's report.
fn figure_of<'t>(text: &'t str, word: &str) -> &'t str {
    let found = text.lines().find_map(|line| line.trim().strip_prefix(word));
    found.unwrap_or_else(|| panic!("wrk said:\n{text}")).trim()
}

/// The slowest of a hundred answers, in milliseconds; it says so where some were turned away, whose time is among them.
fn p99(text: &str) -> f64 {
    if let Some(line) = text.lines().find(|line| line.contains("Non-2xx")) {
        println!("  {}: the figure is of them, too", line.trim());
    }
    let figure = figure_of(text, "99%");
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0)];
    let in_millis = units.iter().find_map(|(unit, factor)| {
        figure.strip_suffix(unit).and_then(|number| number.parse::<f64>().ok()).map(|number| number * factor)
    });
    in_millis.unwrap_or_else(|| panic!("wrk said:\n{text}"))
}

/// Customers that have a token.
const TOKENS: u64 = 1000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Everything that costs something: a token, an owner, and both limits.
const ACCESS: &str = "
  auth: { jwt: [{ issuer: bench, audience: headwater, algorithms: [HS256], secret: 0123456789abcdef0123456789abcdef }] }
  access: { customer_account: { owner: { claim: customer_id } } }
  limits: { principal: { rate: 1000000/s }, address: { rate: 1000000/s } }
";

/// The token of a customer.
fn token(n: u64) -> String {
    let encode = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes);
    let claims = format!(
        r#"{{"iss":"bench","aud":"headwater","sub":"customer-{n}","customer_id":{n},"exp":4102444800,"scope":"read:invoices"}}"#
    );
    let message = format!("{}.{}", encode(br#"{"alg":"HS256","typ":"JWT"}"#), encode(claims.as_bytes()));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{message}.{}", encode(ring::hmac::sign(&key, message.as_bytes()).as_ref()))
}

pub(crate) const ROUNDS: usize = 3;
pub(crate) const SECONDS: u32 = 5;
/// A twentieth of what `projection_throughput` is measured with.
pub(crate) const ROWS: Rows = Rows { customers: 2500, invoices: 12_500, lines: 50_000 };

/// Requests beside those of the static route, in turns.
fn beside(server: &Server, name: &str, request: &str, fixed: &str, (least, words): (f64, &'static str)) -> Figure {
    server.wrk("warm", request, 1);
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        limits.push(server.wrk("static", fixed, SECONDS));
        ours.push(server.wrk(name, request, SECONDS));
    }
    let demand = Demand::RatioAtLeast(least, words);
    Figure::new(name, median(&mut ours), "requests/s", Some(median(&mut limits)), demand)
}

pub(crate) fn measure(rest: bool, graphql: bool) -> Vec<Figure> {
    let server = Server::start(false);
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
        [("rest_point_read", point, 0.85, "ratio ≥ 0.85"), ("graphql_point_read", graph.as_str(), 0.5, "ratio ≥ 0.5")]
    {
        if (name == "rest_point_read" && !rest) || (name == "graphql_point_read" && !graphql) {
            continue;
        }
        figures.push(beside(&server, name, request, &fixed, (least, words)));
    }
    figures
}

/// Point reads that go to the store each time.
pub(crate) fn measure_uncached() -> Vec<Figure> {
    let server = Server::start_with(false, "  cache: { bytes: 0 }\n", ROWS);
    let fixed = format!("wrk.format('GET', '/bench/static?bytes={}&n=' .. n)", server.body_len());
    let point = "wrk.format('GET', '/v1/customer_account/' .. n)";
    vec![beside(&server, "rest_point_read_uncached", point, &fixed, (0.6, "ratio ≥ 0.6"))]
}

/// Point reads of callers who show who they are.
pub(crate) fn measure_authenticated() -> Vec<Figure> {
    let server = Server::start(true);
    let bytes = server.body_len();
    let fixed = format!("wrk.format('GET', '/bench/static?bytes={bytes}&n=' .. n, heads[n])");
    let point = "wrk.format('GET', '/v1/customer_account/' .. n, heads[n])";
    vec![beside(&server, "rest_point_read_authenticated", point, &fixed, (0.7, "ratio ≥ 0.7"))]
}

/// Lists of twenty documents by an index: the customers that owe so much or more.
pub(crate) fn measure_lists() -> Vec<Figure> {
    let server = Server::start(false);
    let path = "/v1/customer_account?limit=20&filter%5Bunpaid_total%5D%5Bgte%5D=";
    let lengths: Vec<usize> =
        (0..100).filter_map(|n| Some(server.get(1, &format!("{path}{}", n * 5))?.len())).collect();
    assert_eq!(lengths.len(), 100, "a list was not answered");
    let bytes = lengths.iter().sum::<usize>() / lengths.len();
    println!("  lists of {bytes} bytes on average");
    let fixed = format!("wrk.format('GET', '/bench/static?bytes={bytes}&n=' .. n)");
    let list = format!("wrk.format('GET', '{path}' .. n % 500)");
    vec![beside(&server, "rest_list_20", &list, &fixed, (0.4, "ratio ≥ 0.4"))]
}

/// Load at which the server is saturated: connections that double until throughput grows by less than a tenth.
fn saturating(server: &Server, point: &str) -> u32 {
    let (mut connections, mut before) = (2, 0.0);
    loop {
        let text = server.load(&server.address, "saturate", point, 2, connections);
        let now: f64 = figure_of(&text, "Requests/sec:").parse().unwrap_or(0.0);
        if now < before * 1.1 || connections >= 256 {
            return connections / 2;
        }
        (before, connections) = (now, connections * 2);
    }
}

/// How long answers take at twice the load that saturates, and at half of it.
pub(crate) fn measure_overload() -> Vec<Figure> {
    let server = Server::start(false);
    let point = "wrk.format('GET', '/v1/customer_account/' .. n)";
    server.wrk("warm", point, 1);
    let saturated = saturating(&server, point).max(2);
    println!("  {saturated} connections saturate the server");
    let (mut half, mut twice) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        half.push(p99(&server.load(&server.address, "half", point, SECONDS, saturated / 2)));
        twice.push(p99(&server.load(&server.address, "twice", point, SECONDS, saturated * 2)));
    }
    vec![Figure::new(
        "overload",
        median(&mut twice),
        "ms (p99)",
        Some(median(&mut half)),
        Demand::RatioAtMost(3.0, "ratio ≤ 3"),
    )]
}
