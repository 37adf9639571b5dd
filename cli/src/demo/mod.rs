//! `headwater demo`: everything at once, on a database of its own.

mod files;
mod postgres;
mod view;
mod web;

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use headwater_query_api::Admin;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::postgres::DemoPostgres;
use self::view::{Freshness, View};
use crate::client::Client;
use crate::config::{Configuration, Environment};
use crate::control::Control;
use crate::failure::Failure;
use crate::output::say;
use crate::pipeline::{Pipeline, PipelineOptions};
use crate::table::count;
use crate::verify::{ModelReport, VerifyOptions, summary, verify};
use crate::workload::{SPOTLIGHT_CUSTOMER, Spotlight, Tally, WorkloadOptions, create, work};

/// Wanted port of the example's page; another where it is taken.
const WEB_PORT: u16 = 8088;
/// How often the view is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(250);
/// How often something happens to the watched customer.
const SPOTLIGHT_EVERY: Duration = Duration::from_millis(400);
/// A change that is not readable by then is not measured.
const READABLE_MAX: Duration = Duration::from_secs(5);

/// How the demo is run.
#[derive(Clone, Debug)]
pub(crate) struct DemoOptions {
    /// A database to use instead of one of its own.
    pub(crate) database: Option<tokio_postgres::Config>,
    /// Kafka to use in place of the embedded log.
    pub(crate) kafka: Option<String>,
    /// MongoDB to use in place of the embedded store of documents.
    pub(crate) mongodb: Option<String>,
    /// Changed rows per second.
    pub(crate) rate: u32,
    /// Ends by itself.
    pub(crate) duration: Option<Duration>,
    /// Wanted port of the query API; another where it is taken.
    pub(crate) port: u16,
    /// Wanted port of the admin listener, likewise.
    pub(crate) admin_port: u16,
}

/// The demo's folder: configuration, data, log. Gone when it is dropped.
pub(crate) struct DemoFolder(TempDir);

impl DemoFolder {
    /// Makes it.
    pub(crate) fn new() -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("headwater-demo-").tempdir();
        folder.map(Self).map_err(|error| Failure::caused("cannot make a temporary folder", &error))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Runs until the time is over or `stop`.
pub(crate) async fn run(options: DemoOptions, folder: DemoFolder, stop: CancellationToken) -> Result<(), Failure> {
    let mut server = match options.database {
        Some(_) => None,
        None => {
            say!("Starting a PostgreSQL of its own …");
            // Takes a second or two. A signal is heard meanwhile, and answered when there is a server that can be removed.
            let started = tokio::task::spawn_blocking(DemoPostgres::start).await;
            Some(started.map_err(|error| Failure::caused("the start of PostgreSQL broke", &error))??)
        }
    };
    let database = tokio::select! {
        database = database(&options, server.as_mut()) => database?,
        () = stop.cancelled() => return Ok(()),
    };
    let (api_port, admin_port, web_port) = (usable(options.port), usable(options.admin_port), usable(WEB_PORT));
    let engines = files::Engines { kafka: options.kafka.as_deref(), mongodb: options.mongodb.as_deref() };
    let file = files::write(folder.path(), &database, &engines, &files::Ports { api_port, admin_port, web_port })?;
    let configuration = Configuration::load_with(&file, &Environment::new())?;
    let through = match (&options.kafka, &options.mongodb) {
        (None, None) => "",
        (Some(_), None) => " over Kafka",
        (None, Some(_)) => " over MongoDB",
        (Some(_), Some(_)) => " over Kafka and MongoDB",
    };
    say!("Starting capture, projection and the query API{through} …");
    let Some(mut pipeline) = Pipeline::start(&configuration, PipelineOptions::default(), &stop).await? else {
        return Ok(());
    };
    let control = pipeline.control();
    let page = CancellationToken::new();
    let _page = page.clone().drop_guard();

    let outcome = tokio::select! {
        outcome = async {
            web::start(web_port, api_port, page).await?;
            wait_until_ready(&control, &stop).await?;
            if stop.is_cancelled() {
                return Ok(());
            }
            print_addresses(&file, api_port, admin_port, web_port);
            let place = match &server {
                Some(server) => format!("PostgreSQL of its own, port {}", server.port()),
                None => "the given PostgreSQL".to_string(),
            };
            show(&options, &configuration, &database, place, &control, &stop).await
        } => outcome,
        failure = pipeline.ended() => Err(failure),
    };
    say!("\nStopping …");
    let stopped = pipeline.stop().await;
    drop(server);
    outcome.and(stopped)
}

/// The example in a database: the given one, or that of `server`.
async fn database(options: &DemoOptions, server: Option<&mut DemoPostgres>) -> Result<tokio_postgres::Config, Failure> {
    let database = match (&options.database, server) {
        (Some(given), _) => given.clone(),
        (None, Some(server)) => server.ready().await?,
        (None, None) => return Err(Failure::new("the demo has no database; please report this")),
    };
    say!("Creating the billing example: 500 customers, 2,000 invoices …");
    create(&database).await?;
    Ok(database)
}

/// The view, until the end; then the summary.
async fn show(
    options: &DemoOptions,
    configuration: &Configuration,
    database: &tokio_postgres::Config,
    place: String,
    control: &Control,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let api = Client::api(None, &configuration.file)?;
    let admin = Client::admin(None, &configuration.file)?;
    let tally = Arc::new(Tally::default());
    let users = CancellationToken::new();
    // Ctrl-C ends the users' work at once, an error of the pipeline by dropping this guard.
    let _guard = users.clone().drop_guard();
    let mut workload = start_workload(options, database, tally.clone(), users.clone());
    let (measured, mut measurements) = tokio::sync::mpsc::channel(64);
    let spotlight = tokio::spawn(watch_customer(Spotlight::new(database).await?, api.clone(), measured, users.clone()));

    let mut view = View::new(place);
    let start = Instant::now();
    let mut redraw = tokio::time::interval(DRAW_EVERY);
    while !stop.is_cancelled() && options.duration.is_none_or(|duration| start.elapsed() < duration) {
        // Every arm may be dropped while it waits: a message stays in its channel, a tick comes again.
        tokio::select! {
            _ = redraw.tick() => view.draw(&control.overview(), tally.rows.load(Ordering::Relaxed)),
            Some(seen) = measurements.recv() => {
                if let Some(freshness) = seen.freshness {
                    view.measured(freshness);
                }
                view.document(seen.document);
            }
            ended = &mut workload => return ended.unwrap_or_else(|error| Err(Failure::caused("the workload broke", &error))),
            () = stop.cancelled() => {}
        }
    }
    view.draw(&control.overview(), tally.rows.load(Ordering::Relaxed));
    users.cancel();
    workload.await.unwrap_or_else(|error| Err(Failure::caused("the workload broke", &error)))?;
    spotlight.await.ok();
    summarise(&tally, start.elapsed(), view.freshness());
    compare(configuration, &api, &admin).await
}

fn start_workload(
    options: &DemoOptions,
    database: &tokio_postgres::Config,
    tally: Arc<Tally>,
    stop: CancellationToken,
) -> JoinHandle<Result<(), Failure>> {
    let workload = WorkloadOptions {
        database: database.clone(),
        rate: options.rate,
        duration: None,
        connections: 4,
        seed: rand::random(),
    };
    let idle = options.rate == 0;
    tokio::spawn(async move {
        if idle {
            stop.cancelled().await;
            return Ok(());
        }
        work(workload, tally, stop).await
    })
}

/// What was seen of the watched customer.
struct Seen {
    document: Option<serde_json::Value>,
    /// Time from the commit to the first answer that was another.
    freshness: Option<Duration>,
}

/// Changes the watched customer's invoices and reads the document until it is another.
async fn watch_customer(
    mut spotlight: Spotlight,
    api: Client,
    to: tokio::sync::mpsc::Sender<Seen>,
    stop: CancellationToken,
) {
    let path = format!("/v1/customer_account/{SPOTLIGHT_CUSTOMER}");
    let mut before = api.find(&path).ok().flatten();
    while !stop.is_cancelled() {
        let committed = spotlight.step().await;
        let (client, path, old) = (api.clone(), path.clone(), before.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let start = committed.unwrap_or_else(Instant::now);
            loop {
                let now = client.find(&path).ok().flatten();
                if now != old {
                    return (now, committed.map(|at| at.elapsed()));
                }
                if committed.is_none() || start.elapsed() > READABLE_MAX {
                    return (now, None);
                }
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        let Ok((now, freshness)) = looked.await else { return };
        let document = now.as_deref().and_then(|body| serde_json::from_str(body).ok());
        before = now;
        // A view that has gone, or does not keep up, misses a measurement and nothing else.
        to.try_send(Seen { document, freshness }).ok();
        tokio::select! {
            () = tokio::time::sleep(SPOTLIGHT_EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn wait_until_ready(control: &Control, stop: &CancellationToken) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !stop.is_cancelled() {
        match control.ready() {
            Ok(()) => return Ok(()),
            Err(why) if Instant::now() > deadline => {
                return Err(Failure::new(format_args!("not ready within two minutes: {why}; see the messages above")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    Ok(())
}

fn print_addresses(file: &Path, api_port: u16, admin_port: u16, web_port: u16) {
    let api = format!("http://127.0.0.1:{api_port}");
    let admin = format!("http://127.0.0.1:{admin_port}");
    say!(
        "
Try, in another terminal:
  curl {api}/v1/customer_account/{SPOTLIGHT_CUSTOMER}
  curl -N -H 'Accept: text/event-stream' {api}/v1/customer_account/{SPOTLIGHT_CUSTOMER}
  curl -g '{api}/v1/customer_account?filter[invoices.status][eq]=overdue&sort=-unpaid_total&limit=3'
  curl '{api}/v1/tariff?fields=code,name,account_count&sort=-account_count'
  curl {api}/graphql -H 'content-type: application/json' \\
       -d '{{\"query\":\"{{ customerAccount(id: {SPOTLIGHT_CUSTOMER}) {{ name unpaid_total }} }}\"}}'
  headwater status --watch --admin {admin}
  headwater verify --config {}
In a browser:
  http://127.0.0.1:{web_port}/       a customer's invoices, live
  {api}/docs        what the API offers, to try out
  {admin}/console   {admin}/graphiql   {api}/openapi.json
",
        file.display()
    );
}

fn summarise(tally: &Tally, elapsed: Duration, freshness: Option<Freshness>) {
    let rows = tally.rows.load(Ordering::Relaxed);
    say!(
        "\n{} rows changed in {} transactions, {:.0} rows/s",
        count(rows),
        count(tally.transactions.load(Ordering::Relaxed)),
        rows as f64 / elapsed.as_secs_f64().max(0.001),
    );
    if let Some(freshness) = freshness {
        say!("{freshness}");
    }
}

/// The proof at the end: every document against the tables.
async fn compare(configuration: &Configuration, api: &Client, admin: &Client) -> Result<(), Failure> {
    let options =
        VerifyOptions { connectors: configuration.connector_configs(), sample: None, wait: Duration::from_secs(60) };
    let mut reports = Vec::new();
    for file in &configuration.models {
        let report = verify(&file.model, &options, api, admin).await?;
        summary::lines(&report).iter().for_each(|line| say!("{line}"));
        reports.push(report);
    }
    judged(&reports)
}

/// Whether everything is as the source says.
fn judged(reports: &[ModelReport]) -> Result<(), Failure> {
    match summary::tally(reports) {
        (0, 0) => Ok(()),
        (0, _) => Err(Failure::new(
            "documents change faster than they can be compared; does somebody else write to the database?",
        )),
        _ => Err(Failure::new(
            "what is served is not what the source says; where no row above explains it, please report this",
        )),
    }
}

/// The port, or a free one where it is taken.
fn usable(port: u16) -> u16 {
    let try_port = |port| TcpListener::bind(("127.0.0.1", port)).and_then(|listener| listener.local_addr());
    try_port(port).or_else(|_| try_port(0)).map_or(port, |address| address.port())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_row_that_cannot_be_represented_is_told_and_is_no_success() {
        let whole = ModelReport {
            model: "invoice".into(),
            compared: 7,
            dead_letters: 0,
            unrepresentable: 0,
            rounds: 1,
            differences: BTreeMap::new(),
        };
        assert_eq!(summary::lines(&whole), ["invoice: 7 documents, all as the source says"]);
        judged(std::slice::from_ref(&whole)).unwrap();
        let lost = ModelReport { unrepresentable: 1, ..whole };
        let lines = summary::lines(&lost);
        assert!(lines[0].contains("0 differences") && lines[1].contains("1 row of the source"), "{lines:?}");
        judged(&[lost]).unwrap_err();
    }
}
