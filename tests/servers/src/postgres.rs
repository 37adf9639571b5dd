//! A PostgreSQL server.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Certificates;
use crate::command::{User, command, postgres_program, run};
use crate::free_port;

const PASSWORD: &str = "headwater-secret";
const START_MAX: Duration = Duration::from_secs(60);

/// How a server is to be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresOptions {
    /// Whether commits wait for the disk. On by default; off for tests that only need many rows.
    pub fsync: bool,
    /// Whether connections over TCP must be encrypted, and the certificates generated.
    pub tls: bool,
    /// Whether clients must also show a certificate with the name of their user. Needs `tls`.
    pub client_certificate: bool,
    /// Further lines of `postgresql.conf`, last one wins: `("wal_level", "replica")`.
    pub settings: Vec<(String, String)>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { fsync: true, tls: false, client_certificate: false, settings: Vec::new() }
    }
}

impl PostgresOptions {
    /// Adds a line of `postgresql.conf`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}

/// A running server with an empty database `billing` and the superuser `headwater`, who logs in over TCP with a
/// password (SCRAM-SHA-256). Runs with `wal_level = logical` and room for 20 replication slots.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    port: u16,
    user: Option<User>,
    child: Option<Child>,
    watchdog: Child,
    certificates: Option<Certificates>,
}

impl Postgres {
    /// Starts a server with the default options.
    pub fn start() -> Self {
        Self::start_with(&PostgresOptions::default())
    }

    /// Starts a server.
    pub fn start_with(options: &PostgresOptions) -> Self {
        let user = User::for_servers();
        let folder = tempfile::Builder::new().prefix("headwater-postgres-").tempdir().expect("a temporary folder");
        if let Some(user) = user {
            user.give(folder.path());
        }
        let data = folder.path().join("data");
        let password_file = folder.path().join("password");
        std::fs::write(&password_file, PASSWORD).expect("the folder is writable");
        let mut initdb = command(&postgres_program("initdb"), user);
        initdb.current_dir(folder.path()).args(["-U", "headwater", "-E", "UTF8", "--locale=C", "--no-sync"]);
        initdb.args(["--auth-local=trust", "--auth-host=scram-sha-256", "--no-instructions"]);
        run(initdb.arg("--pwfile").arg(&password_file).arg("-D").arg(&data));

        let certificates = options.tls.then(|| {
            let certificates = Certificates::generate(folder.path());
            if let Some(user) = user {
                user.give(&certificates.server_key);
            }
            let only_owner = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&certificates.server_key, only_owner).expect("the key is ours");
            certificates
        });
        write_settings(&data, folder.path(), options, certificates.as_ref());

        let watchdog = watchdog(folder.path());
        let mut server = Self { folder, port: 0, user, child: None, watchdog, certificates };
        server.start_on_free_port();
        server.psql_in("postgres", "CREATE DATABASE billing");
        server
    }

    /// The port it listens on, at 127.0.0.1. Stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The name of the superuser.
    pub fn user(&self) -> &'static str {
        "headwater"
    }

    /// The superuser's password.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// The name of the database.
    pub fn database(&self) -> &'static str {
        "billing"
    }

    /// A connection string for the database, password included.
    pub fn url(&self) -> String {
        format!("postgresql://headwater:{PASSWORD}@127.0.0.1:{}/billing", self.port)
    }

    /// The certificates, if it was started with TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// The folder with the server's files: `data`, `log` and the certificates.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the server writes what it has to say.
    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Process id of the running server; `None` while stopped.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Runs SQL in the database, each statement by itself as `psql` does, and gives the output unaligned without
    /// headers: columns separated by `|`, rows by newlines. Panics with the server's message when a statement fails.
    pub fn psql(&self, sql: &str) -> String {
        self.psql_in("billing", sql)
    }

    /// [`Self::psql`] in another database.
    pub fn psql_in(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(postgres_program("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "headwater", "-d", database, "-c", sql]);
        psql.env("PGOPTIONS", "-c client_min_messages=warning");
        psql.arg("-h").arg(self.folder.path()).arg("-p").arg(self.port.to_string());
        let output = run(&mut psql);
        String::from_utf8(output.stdout).expect("the database is UTF-8").trim_end().to_owned()
    }

    /// Runs a file of SQL in the database.
    pub fn psql_file(&self, file: &Path) {
        let mut psql = Command::new(postgres_program("psql"));
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "headwater", "-d", "billing"]);
        psql.env("PGOPTIONS", "-c client_min_messages=warning");
        psql.arg("-h").arg(self.folder.path()).arg("-p").arg(self.port.to_string()).arg("-f").arg(file);
        run(&mut psql);
    }

    /// Stops as an administrator would: open sessions are ended, everything is written (`fast` shutdown).
    pub fn stop(&mut self) {
        self.end("INT");
    }

    /// Ends every process of the server at once, as a power cut would (but for what the disk already took).
    pub fn kill(&mut self) {
        // PostgreSQL's processes notice the death of their parent and leave; the parent goes without a word.
        self.end("KILL");
        self.wait_for_shared_memory();
    }

    /// Starts a stopped or killed server again on the same port.
    pub fn resume(&mut self) {
        assert!(self.child.is_none(), "the server is already running");
        let deadline = Instant::now() + START_MAX;
        while let Err(why) = self.launch() {
            assert!(Instant::now() < deadline, "PostgreSQL did not start again:\n{why}");
            sleep(Duration::from_millis(100));
        }
    }

    /// Stops and starts.
    pub fn restart(&mut self) {
        self.stop();
        self.resume();
    }

    fn start_on_free_port(&mut self) {
        let mut why = String::new();
        for _ in 0..10 {
            // Someone may take the port between our looking and the server's binding: then another one is tried.
            self.port = free_port();
            match self.launch() {
                Ok(()) => return,
                Err(said) => why = said,
            }
        }
        panic!("PostgreSQL did not start:\n{why}");
    }

    /// One attempt to start; what the server said when it ended instead.
    fn launch(&mut self) -> Result<(), String> {
        let log_path = self.log_path();
        let log = File::options().create(true).append(true).open(&log_path).expect("the folder is writable");
        let errors = log.try_clone().expect("a second handle");
        let mut server = command(&postgres_program("postgres"), self.user);
        server.current_dir(self.folder.path()).arg("-D").arg(self.folder.path().join("data"));
        server.args(["-p", &self.port.to_string()]).stdin(Stdio::null()).stdout(log).stderr(errors);
        let mut child = server.spawn().expect("the program was found");
        let deadline = Instant::now() + START_MAX;
        loop {
            if child.try_wait().expect("it is our child").is_some() {
                return Err(self.log_tail());
            }
            let mut ready = Command::new(postgres_program("pg_isready"));
            ready.arg("-q").arg("-h").arg(self.folder.path()).arg("-p").arg(self.port.to_string());
            if ready.status().is_ok_and(|status| status.success()) {
                self.child = Some(child);
                return Ok(());
            }
            if Instant::now() > deadline {
                child.kill().ok();
                child.wait().ok();
                return Err(self.log_tail());
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn end(&mut self, signal: &str) {
        let Some(mut child) = self.child.take() else { return };
        signal_process(&child, signal);
        let deadline = Instant::now() + START_MAX;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                signal_process(&child, "QUIT");
                child.wait().ok();
                return;
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// After a kill the children of the server take a moment to leave; only then can it start again.
    fn wait_for_shared_memory(&self) {
        let socket = self.folder.path().join(format!(".s.PGSQL.{}.lock", self.port));
        std::fs::remove_file(socket).ok();
        sleep(Duration::from_millis(50));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Nothing of it is needed any more: the quickest end will do.
        self.end("QUIT");
        if let Some(mut pipe) = self.watchdog.stdin.take() {
            pipe.write_all(b"done\n").ok();
        }
        self.watchdog.wait().ok();
    }
}

fn signal_process(child: &Child, signal: &str) {
    Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().ok();
}

/// Ends the server and removes its folder when this process dies without dropping it, killed by a time limit for
/// example: the pipe to the watchdog then closes without the word `done`.
fn watchdog(folder: &Path) -> Child {
    const SCRIPT: &str = "read -r word; [ \"$word\" = done ] && exit; \
        kill -s QUIT \"$(head -n 1 \"$0/data/postmaster.pid\")\"; sleep 1; rm -rf \"$0\"";
    let mut shell = command(Path::new("/bin/sh"), None);
    shell.arg("-c").arg(SCRIPT).arg(folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().expect("there is a shell")
}

fn write_settings(data: &Path, folder: &Path, options: &PostgresOptions, certificates: Option<&Certificates>) {
    let on = |yes: bool| if yes { "on" } else { "off" };
    let mut settings = vec![
        ("listen_addresses".to_owned(), "127.0.0.1".to_owned()),
        ("unix_socket_directories".into(), folder.display().to_string()),
        ("wal_level".into(), "logical".into()),
        ("max_wal_senders".into(), "20".into()),
        ("max_replication_slots".into(), "20".into()),
        ("max_connections".into(), "100".into()),
        ("shared_buffers".into(), "64MB".into()),
        ("fsync".into(), on(options.fsync).into()),
        ("timezone".into(), "UTC".into()),
        ("log_min_messages".into(), "warning".into()),
    ];
    if let Some(certificates) = certificates {
        settings.push(("ssl".into(), "on".into()));
        settings.push(("ssl_ca_file".into(), certificates.ca.display().to_string()));
        settings.push(("ssl_cert_file".into(), certificates.server_cert.display().to_string()));
        settings.push(("ssl_key_file".into(), certificates.server_key.display().to_string()));
    }
    settings.extend(options.settings.iter().cloned());
    let mut text = std::fs::read_to_string(data.join("postgresql.conf")).expect("initdb wrote it");
    for (name, value) in settings {
        text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
    }
    std::fs::write(data.join("postgresql.conf"), text).expect("the folder is writable");

    let (kind, suffix) = match (options.tls, options.client_certificate) {
        (false, _) => ("host", ""),
        (true, false) => ("hostssl", ""),
        (true, true) => ("hostssl", " clientcert=verify-full"),
    };
    let rules = format!(
        "local all all trust\n\
         local replication all trust\n\
         {kind} all all 127.0.0.1/32 scram-sha-256{suffix}\n\
         {kind} replication all 127.0.0.1/32 scram-sha-256{suffix}\n"
    );
    std::fs::write(data.join("pg_hba.conf"), rules).expect("the folder is writable");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_survives_a_kill_and_is_gone_afterwards() {
        let mut server = Postgres::start();
        server.psql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)");
        server.kill();
        server.resume();
        server.restart();
        assert_eq!(server.psql("SELECT n FROM kept"), "1");
        assert_eq!(server.psql("SHOW wal_level"), "logical");
        let (pid, folder) = (server.pid().expect("it runs"), server.folder().to_owned());
        drop(server);
        assert!(!folder.exists());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn tls_can_be_demanded() {
        let server =
            Postgres::start_with(&PostgresOptions { tls: true, client_certificate: true, ..Default::default() });
        assert_eq!(server.psql("SHOW ssl"), "on");
        assert!(server.certificates().expect("generated").client_cert.exists());
    }
}
