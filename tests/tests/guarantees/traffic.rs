//! What a fleet has to stand: writers in both sources, and readers of both servers who notice what goes backwards.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use headwater_tests::{World, get};

use crate::distributed::Fleet;
use crate::shop::Workload;

pub(crate) struct Traffic {
    workload: Workload,
    contacts: JoinHandle<u64>,
    idle: Arc<AtomicBool>,
    readers: Readers,
}

/// Those who read on when nobody writes any more.
pub(crate) struct Readers {
    watchers: [JoinHandle<u64>; 2],
    stop: Arc<AtomicBool>,
}

impl Traffic {
    /// Starts all of it; `seed` gives the choices of the first source's writer.
    pub(crate) fn start(world: &World, fleet: &mut Fleet, seed: u64) -> Self {
        let (stop, idle) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let workload = Workload::start(world, seed);
        let contacts = count_contacts(world, idle.clone());
        let urls = ["serve-1", "serve-2"].map(|name| {
            let server = fleet.named(name);
            ["customer_account/1", "contact_card/1", "contact_card/11"].map(|path| server.url(&format!("/v1/{path}")))
        });
        let watchers = urls.map(|urls| watch(urls.to_vec(), stop.clone()));
        Self { workload, contacts, idle, readers: Readers { watchers, stop } }
    }

    /// Ends the writers; answers with the transactions of the first source, and the rounds of contacts in the second.
    pub(crate) fn end_writing(self) -> (u64, u64, Readers) {
        let transactions = self.workload.finish();
        self.idle.store(true, Ordering::Relaxed);
        (transactions, self.contacts.join().unwrap(), self.readers)
    }
}

impl Readers {
    /// Ends the readers; answers how often they read.
    pub(crate) fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.watchers.into_iter().map(|it| it.join().expect("a reader saw something go backwards")).sum()
    }
}

/// Reads documents of one server over and over: a counter or a stamp that decreases was written out of order.
fn watch(urls: Vec<String>, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut counters: HashMap<String, i64> = HashMap::new();
        let mut stamps: HashMap<(String, String), u64> = HashMap::new();
        let mut reads = 0;
        while !stop.load(Ordering::Relaxed) {
            for url in &urls {
                let Ok(answer) = get(url) else { continue };
                if answer.status != 200 {
                    continue;
                }
                reads += 1;
                let n = answer.json()["n"].as_i64().unwrap();
                let last = counters.insert(url.clone(), n).unwrap_or(i64::MIN);
                assert!(n >= last, "{url}: the counter went back from {last} to {n}");
                // An ETag is the version and the stamp.
                let etag = answer.header("etag").trim_matches('"').to_string();
                let (version, rest) = etag.split_once('-').expect("version and stamp");
                let stamp: u64 = rest.split('-').next().unwrap().parse().unwrap();
                let last = stamps.insert((url.clone(), version.to_string()), stamp).unwrap_or(0);
                assert!(stamp >= last, "{url}: version {version}'s stamp went back from {last} to {stamp}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        reads
    })
}

/// Counts up in the second source.
fn count_contacts(world: &World, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    let url = world.postgres.url().replace("/billing", "/crm");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            let connection = tokio::spawn(connection);
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                client.batch_execute("update contacts set n = n + 1 where id % 10 = 1").await.unwrap();
                rounds += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            drop(client);
            connection.await.unwrap().unwrap();
            rounds
        })
    })
}
