//! Headwater as separate processes over one Kafka and one MongoDB.

use std::fs::{self, File};
use std::time::Duration;

use headwater_test_servers::{Kafka, Mongo, free_port};

use crate::{Answer, Running, World, get, wait_until};

/// A broker and a document store for the processes of one [`World`].
pub struct Cluster {
    /// The broker.
    pub kafka: Kafka,
    /// The document store.
    pub mongo: Mongo,
}

/// One process of several: a role, with ports and a data folder of its own.
pub struct Process {
    /// What it is called in messages; also names its configuration and log.
    pub name: String,
    arguments: Vec<String>,
    api_port: u16,
    admin_port: u16,
    running: Option<Running>,
}

impl Cluster {
    /// Starts both.
    pub fn start() -> Self {
        Self { kafka: Kafka::start(), mongo: Mongo::start() }
    }

    /// The lines of `headwater.yaml` that choose these engines; rows are kept by `rows`, `embedded` or `mongodb`.
    pub fn settings(&self, rows: &str) -> String {
        format!(
            "broker: {{ kafka: {{ servers: ['{}'], partitions: 4, replication: 1 }} }}\n\
             store: {{ rows: {rows}, mongodb: {{ uri: '{}' }} }}\n",
            self.kafka.bootstrap(),
            self.mongo.url()
        )
    }
}

impl Process {
    /// Prepares a process that runs `headwater` with `arguments`; [`Self::start`] starts it.
    pub fn new(world: &World, name: &str, arguments: &[&str], settings: &str) -> Self {
        let (api_port, admin_port) = (free_port(), free_port());
        let text = format!(
            "data: data-{name}\nconnectors: [connectors/*.yaml]\nmodels: [models/*.yaml]\n\
             api: {{ listen: 127.0.0.1:{api_port} }}\nadmin: {{ listen: 127.0.0.1:{admin_port} }}\n{settings}"
        );
        fs::write(world.path(&format!("{name}.yaml")), text).unwrap();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self { name: name.into(), arguments, api_port, admin_port, running: None }
    }

    /// Starts it, or starts it again.
    pub fn start(&mut self, world: &World) {
        let log = File::options().create(true).append(true).open(world.path(&format!("{}.log", self.name))).unwrap();
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let child = world
            .command_with(&format!("{}.yaml", self.name), &arguments)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.running = Some(Running::of(child));
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
        }
    }

    /// The running process.
    ///
    /// # Panics
    /// When it was not started, or was killed.
    pub fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("it was started")
    }

    /// Address of its query API.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.api_port)
    }

    /// Address of its admin port.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.admin_port)
    }

    /// GET from its admin port.
    pub fn admin(&self, path: &str) -> Result<Answer, String> {
        get(&self.admin_url(path))
    }

    /// What it printed.
    pub fn log(&self, world: &World) -> String {
        fs::read_to_string(world.path(&format!("{}.log", self.name))).unwrap_or_default()
    }

    /// The end of what it printed.
    pub fn log_tail(&self, world: &World) -> String {
        let log = self.log(world);
        let from = log.lines().count().saturating_sub(25);
        log.lines().skip(from).collect::<Vec<_>>().join("\n")
    }

    /// What it says of itself: its status, and the end of its log.
    pub fn account(&self, world: &World) -> String {
        let status = self.admin("/status").map_or_else(|error| error, |answer| answer.body);
        format!("--- {}\n{status}\n{}", self.name, self.log_tail(world))
    }

    /// Waits until it answers that it is ready.
    pub fn wait_ready(&mut self, world: &World, patience: Duration) {
        wait_until(&format!("{} to be ready", self.name), patience, || {
            if let Some(status) = self.running().ended() {
                panic!("{} ended with {status}:\n{}", self.name, self.log_tail(world));
            }
            match self.admin("/readyz") {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("{} {}\n{}", answer.status, answer.body, self.log_tail(world))),
                Err(error) => Err(format!("{error}\n{}", self.log_tail(world))),
            }
        });
    }

    /// Resident memory without mapped files, in MiB.
    pub fn memory_mib(&mut self) -> u64 {
        let id = self.running().id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) / 1024
    }
}
