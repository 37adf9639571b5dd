//! One database, one configuration, one Headwater.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use headwater_test_servers::{Postgres, free_port};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Answer, get, headwater};

/// Polls until `done` gives something; panics with `what` and the last state after `patience`.
pub fn wait_until<T>(what: &str, patience: Duration, mut done: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        let state = match done() {
            Ok(value) => return value,
            Err(state) => state,
        };
        assert!(start.elapsed() < patience, "waited {patience:?} for {what}; last seen: {state}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A PostgreSQL server and a folder with a configuration that reads it. Everything is gone when it is dropped.
pub struct World {
    /// The database.
    pub postgres: Postgres,
    folder: TempDir,
    api_port: u16,
    admin_port: u16,
}

/// A running `headwater run`. Killed on drop.
pub struct Running {
    child: Child,
}

impl World {
    /// A fresh database into which `schema` is loaded, and a configuration with these tables and models.
    pub fn new(schema: &str, tables: &[&str], models: &[(&str, &str)]) -> Self {
        Self::with_postgres(Postgres::start(), schema, tables, models)
    }

    /// The same over a server that is running already.
    pub fn with_postgres(postgres: Postgres, schema: &str, tables: &[&str], models: &[(&str, &str)]) -> Self {
        postgres.psql(schema);
        let world = Self {
            postgres,
            folder: tempfile::Builder::new().prefix("headwater-test-").tempdir().unwrap(),
            api_port: free_port(),
            admin_port: free_port(),
        };
        fs::create_dir_all(world.path("connectors")).unwrap();
        fs::create_dir_all(world.path("models")).unwrap();
        world.write_config("");
        world.write_connector(tables, "");
        for (name, yaml) in models {
            world.write_model(name, yaml);
        }
        world
    }

    /// The billing example: its schema, tables and models.
    pub fn billing() -> Self {
        let example = crate::project_root().join("examples/billing");
        let read = |path: &str| fs::read_to_string(example.join(path)).unwrap();
        let models: Vec<(String, String)> = fs::read_dir(example.join("models"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap()))
            .collect();
        let connector = read("connectors/billing.yaml");
        let tables: Vec<&str> = connector
            .lines()
            .skip_while(|line| !line.trim_start().starts_with("tables:"))
            .skip(1)
            .map_while(|line| line.trim_start().strip_prefix("- "))
            .map(|table| table.split('#').next().unwrap().trim())
            .collect();
        assert!(tables.len() > 3, "the tables of the example's connector were not understood");
        let models: Vec<(&str, &str)> = models.iter().map(|(name, yaml)| (name.as_str(), yaml.as_str())).collect();
        Self::new(&read("schema.sql"), &tables, &models)
    }

    /// A path in the configuration's folder.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Writes `headwater.yaml`, with further lines.
    pub fn write_config(&self, more: &str) {
        let text = format!(
            "data: data\nconnectors: [connectors/*.yaml]\nmodels: [models/*.yaml]\napi: {{ listen: 127.0.0.1:{} }}\n\
             admin: {{ listen: 127.0.0.1:{} }}\n{more}",
            self.api_port, self.admin_port
        );
        fs::write(self.path("headwater.yaml"), text).unwrap();
    }

    /// Writes the connector of the source `billing`, with further lines below `postgres:`.
    pub fn write_connector(&self, tables: &[&str], more: &str) {
        let text = format!(
            "source: billing\npostgres:\n  host: 127.0.0.1\n  port: {}\n  database: billing\n  user: headwater\n  \
             password: ${{HEADWATER_TEST_PASSWORD}}\n  tables: [{}]\n{more}",
            self.postgres.port(),
            tables.join(", ")
        );
        fs::write(self.path("connectors/billing.yaml"), text).unwrap();
    }

    /// Writes the connector of another source: a database of the same server, with a slot and publication of its own.
    pub fn write_source(&self, source: &str, database: &str, tables: &[&str]) {
        let text = format!(
            "source: {source}\npostgres:\n  host: 127.0.0.1\n  port: {}\n  database: {database}\n  user: headwater\n  \
             password: ${{HEADWATER_TEST_PASSWORD}}\n  tables: [{}]\n",
            self.postgres.port(),
            tables.join(", ")
        );
        fs::write(self.path(&format!("connectors/{source}.yaml")), text).unwrap();
    }

    /// Writes a read model.
    pub fn write_model(&self, name: &str, yaml: &str) {
        fs::write(self.path(&format!("models/{name}.yaml")), yaml).unwrap();
    }

    /// The command line of the binary with this configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_with("headwater.yaml", arguments)
    }

    /// The command line of the binary with another configuration file in the same folder.
    pub fn command_with(&self, config: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(headwater());
        command
            .args(arguments)
            .arg("--config")
            .arg(self.path(config))
            .env("HEADWATER_TEST_PASSWORD", self.postgres.password())
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs a subcommand to its end.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts `headwater run`, its output appended to `run.log`.
    pub fn start(&self) -> Running {
        self.start_with(&[])
    }

    /// The same with environment variables.
    pub fn start_with(&self, environment: &[(&str, &str)]) -> Running {
        let log = File::options().create(true).append(true).open(self.path("run.log")).unwrap();
        let child = self
            .command(&["run"])
            .envs(environment.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Running { child }
    }

    /// Starts and waits until it is ready to serve every model.
    pub fn start_ready(&self) -> Running {
        let mut running = self.start();
        self.wait_ready(&mut running);
        running
    }

    /// Waits until the process answers that it is ready, and serves every model.
    pub fn wait_ready(&self, running: &mut Running) {
        wait_until("readyz", Duration::from_secs(60), || {
            if let Some(status) = running.ended() {
                panic!("headwater ended with {status}:\n{}", self.log());
            }
            match self.admin("/readyz") {
                Ok(answer) if answer.status == 200 => self.every_model_serves(),
                Ok(answer) => Err(format!("{} {}\n{}", answer.status, answer.body, self.log_tail())),
                Err(error) => Err(format!("{error}\n{}", self.log_tail())),
            }
        });
    }

    /// A start over a store is ready before a model that is new there is built.
    fn every_model_serves(&self) -> Result<(), String> {
        let status = self.admin("/status")?.json();
        let models = status["models"].as_array().ok_or_else(|| status.to_string())?;
        let is_active = |other: &Value, name: &Value| other["model"] == *name && other["state"] == "active";
        let serves = |model: &Value| models.iter().any(|other| is_active(other, &model["model"]));
        if !models.is_empty() && models.iter().all(serves) { Ok(()) } else { Err(status["models"].to_string()) }
    }

    /// What `headwater run` has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("run.log")).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let from = log.lines().count().saturating_sub(30);
        log.lines().skip(from).collect::<Vec<_>>().join("\n")
    }

    /// Address of the query API.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.api_port)
    }

    /// Address of the admin port.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.admin_port)
    }

    /// GET from the query API.
    pub fn get(&self, path: &str) -> Result<Answer, String> {
        get(&self.url(path))
    }

    /// GET from the admin port.
    pub fn admin(&self, path: &str) -> Result<Answer, String> {
        get(&self.admin_url(path))
    }

    /// Waits until a document satisfies `check`, and returns it.
    pub fn document_when(&self, path: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        wait_until(&format!("{path}: {what}"), Duration::from_secs(30), || match self.get(path) {
            Ok(answer) if answer.status == 200 && check(&answer.json()) => Ok(answer.json()),
            Ok(answer) => Err(format!("{} {}\n{}", answer.status, answer.body, self.log_tail())),
            Err(error) => Err(format!("{error}\n{}", self.log_tail())),
        })
    }

    /// Waits until a path answers with `status`.
    pub fn wait_status(&self, path: &str, status: u16) {
        wait_until(&format!("{path} to answer {status}"), Duration::from_secs(30), || match self.get(path) {
            Ok(answer) if answer.status == status => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.body)),
            Err(error) => Err(error),
        });
    }

    /// Runs `headwater verify` and panics with its report unless it finds nothing.
    pub fn verify(&self) {
        // A machine with more to do than processors takes its time to fold what a workload wrote.
        self.verify_with(&["--wait", "240"]);
    }

    /// The same with further arguments.
    pub fn verify_with(&self, more: &[&str]) {
        let output = self.cli(&[&["verify"], more].concat());
        assert!(
            output.status.success(),
            "verify: {}\n{}\n{}\n--- run.log\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.log_tail()
        );
    }

    /// The folder of the configuration.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Running {
    /// A process that was started.
    pub(crate) fn of(child: Child) -> Self {
        Self { child }
    }

    /// Exit status, once the process has ended by itself.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// SIGKILL: no chance to clean up.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        self.signal(libc::SIGTERM);
        wait_until("the process to end after SIGTERM", Duration::from_secs(40), || {
            self.ended().ok_or_else(|| "still running".into())
        })
    }

    /// Sends a signal.
    #[allow(unsafe_code)]
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).unwrap();
        // SAFETY: kill(2) with the id of a child that has not been waited for; it has no memory effects.
        unsafe { libc::kill(pid, signal) };
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
