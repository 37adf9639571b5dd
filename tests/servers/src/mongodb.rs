//! A MongoDB server: a replica set of one node, so that it has transactions and change streams.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Certificates;
use crate::command::command;
use crate::free_port;

const USER: &str = "headwater";
const PASSWORD: &str = "headwater-secret";
const START_MAX: Duration = Duration::from_secs(60);

/// What the server says when it takes writes.
const PRIMARY: &str = "Transition to primary complete";

/// What a server that is no replica set says when it takes connections.
const LISTENING: &str = "Waiting for connections";

/// How a server is to be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MongoOptions {
    /// Whether it is a replica set. Off for tests of what is said then.
    pub replica_set: bool,
    /// Whether connections must be encrypted, and the certificates generated.
    pub tls: bool,
    /// Whether clients must log in, as the user `headwater`.
    pub auth: bool,
    /// Further arguments of `mongod`.
    pub arguments: Vec<String>,
}

impl Default for MongoOptions {
    fn default() -> Self {
        Self { replica_set: true, tls: false, auth: false, arguments: Vec::new() }
    }
}

/// A running server, empty at first. With authentication there is the user `headwater`, who may do everything.
#[derive(Debug)]
pub struct Mongo {
    folder: TempDir,
    port: u16,
    options: MongoOptions,
    child: Option<Child>,
    watchdog: Child,
    certificates: Option<Certificates>,
}

impl Mongo {
    /// Starts a server with the default options.
    pub fn start() -> Self {
        Self::start_with(&MongoOptions::default())
    }

    /// Starts a server.
    pub fn start_with(options: &MongoOptions) -> Self {
        let folder = tempfile::Builder::new().prefix("headwater-mongodb-").tempdir().expect("a temporary folder");
        let file = |name: &str| folder.path().join(name);
        std::fs::create_dir(file("data")).expect("the folder is writable");
        if options.auth {
            // Members of a replica set that asks for passwords prove themselves by a shared secret.
            std::fs::write(file("key"), "headwater0test0secret0").expect("the folder is writable");
            let only_owner = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(file("key"), only_owner).expect("the file is ours");
        }
        let certificates = options.tls.then(|| {
            let certificates = Certificates::generate(folder.path());
            let read = |path: &Path| std::fs::read(path).expect("generated just now");
            let both = [read(&certificates.server_cert), read(&certificates.server_key)].concat();
            std::fs::write(file("server.pem"), both).expect("the folder is writable");
            certificates
        });
        let watchdog = watchdog(folder.path());
        let mut server = Self { folder, port: 0, options: options.clone(), child: None, watchdog, certificates };
        server.start_on_free_port();
        if options.replica_set {
            server.initiate();
        }
        if options.tls || options.auth {
            server.kill();
            server.resume();
        }
        server
    }

    /// The port it listens on, at 127.0.0.1. Stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The user's password, where one is asked for.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// A connection string, credentials and certificates included.
    pub fn url(&self) -> String {
        let Self { options, port, .. } = self;
        let login = if options.auth { format!("{USER}:{PASSWORD}@") } else { String::new() };
        let mut settings = Vec::new();
        if options.replica_set {
            settings.push("replicaSet=rs0".to_owned());
        }
        if options.auth {
            settings.push("authSource=admin".into());
        }
        if let Some(certificates) = &self.certificates {
            settings.push(format!("tls=true&tlsCAFile={}", certificates.ca.display()));
        }
        format!("mongodb://{login}127.0.0.1:{port}/?{}", settings.join("&"))
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

    /// Stops as an administrator would.
    pub fn stop(&mut self) {
        self.end("TERM");
    }

    /// Ends the server at once, as a power cut would (but for what the disk already took).
    pub fn kill(&mut self) {
        self.end("KILL");
    }

    /// Starts a stopped or killed server again on the same port and data, and waits until it takes writes.
    pub fn resume(&mut self) {
        assert!(self.child.is_none(), "the server is already running");
        let deadline = Instant::now() + START_MAX;
        let ready = if self.options.replica_set { PRIMARY } else { LISTENING };
        while let Err(why) = self.launch(true, ready) {
            assert!(Instant::now() < deadline, "MongoDB did not start again:\n{why}");
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
            match self.launch(false, LISTENING) {
                Ok(()) => return,
                Err(said) => why = said,
            }
        }
        panic!("MongoDB did not start:\n{why}");
    }

    /// One attempt to start, with or without TLS and authentication; what the server said when it ended instead.
    fn launch(&mut self, guarded: bool, ready: &str) -> Result<(), String> {
        let file = |name: &str| self.folder.path().join(name);
        let said_before = self.said(ready);
        let mut server = command(&mongod(), None);
        server.current_dir(self.folder.path()).arg("--dbpath").arg(file("data"));
        server.args(["--port", &self.port.to_string(), "--bind_ip", "127.0.0.1", "--nounixsocket"]);
        // A small footprint: several may run at a time.
        server.args(["--wiredTigerCacheSizeGB", "0.5", "--oplogSize", "256"]);
        server.args(["--setParameter", "diagnosticDataCollectionEnabled=false"]);
        server.args(["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"]);
        // What a killed process leaves open is in the way of others for so long; as advised for shared rows.
        server.args(["--setParameter", "transactionLifetimeLimitSeconds=10"]);
        server.arg("--logappend").arg("--logpath").arg(self.log_path()).arg("--pidfilepath").arg(file("pid"));
        if self.options.replica_set {
            server.args(["--replSet", "rs0"]);
        }
        if guarded && self.options.auth {
            server.arg("--auth");
            if self.options.replica_set {
                server.arg("--keyFile").arg(file("key"));
            }
        }
        if let Some(certificates) = self.certificates.as_ref().filter(|_| guarded) {
            server.args(["--tlsMode", "requireTLS", "--tlsAllowConnectionsWithoutCertificates"]);
            server.arg("--tlsCertificateKeyFile").arg(file("server.pem")).arg("--tlsCAFile").arg(&certificates.ca);
        }
        server.args(&self.options.arguments);
        let output = File::options().create(true).append(true).open(file("output")).expect("the folder is writable");
        server.stdin(Stdio::null()).stdout(output.try_clone().expect("a second handle")).stderr(output);
        let mut child = server.spawn().expect("the program was found");
        let deadline = Instant::now() + START_MAX;
        loop {
            if child.try_wait().expect("it is our child").is_some() {
                return Err(self.log_tail());
            }
            if self.said(ready) > said_before {
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

    /// Makes the replica set and, where one is asked for, the user.
    fn initiate(&self) {
        let host = format!("127.0.0.1:{}", self.port);
        let member = document(&[int("_id", 0), text("host", &host)]);
        let config =
            document(&[text("_id", "rs0"), nested(ARRAY, "members", &document(&[nested(DOCUMENT, "0", &member)]))]);
        self.run(&[nested(DOCUMENT, "replSetInitiate", &config)]);
        let deadline = Instant::now() + START_MAX;
        while self.said(PRIMARY) == 0 {
            assert!(Instant::now() < deadline, "MongoDB did not become primary:\n{}", self.log_tail());
            sleep(Duration::from_millis(20));
        }
        if self.options.auth {
            let roles = document(&[text("0", "root")]);
            self.run(&[text("createUser", USER), text("pwd", PASSWORD), nested(ARRAY, "roles", &roles)]);
        }
    }

    /// Runs a command on the database `admin` of a server that asks for no login, as one `OP_MSG` of the wire protocol
    /// (<https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>).
    fn run(&self, elements: &[Vec<u8>]) {
        const OP_MSG: u32 = 2013;
        let command = document(&[elements, &[text("$db", "admin")]].concat());
        let mut message = Vec::new();
        let length = u32::try_from(16 + 4 + 1 + command.len()).expect("a small command");
        for word in [length, 1, 0, OP_MSG, 0] {
            message.extend_from_slice(&word.to_le_bytes());
        }
        message.push(0);
        message.extend_from_slice(&command);
        // It says that it waits for connections a moment before it does.
        let deadline = Instant::now() + START_MAX;
        let mut socket = loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(socket) => break socket,
                Err(error) => assert!(Instant::now() < deadline, "the server does not listen: {error}"),
            }
            sleep(Duration::from_millis(20));
        };
        socket.set_read_timeout(Some(START_MAX)).expect("not zero");
        socket.write_all(&message).expect("the server reads");
        let mut length = [0; 4];
        socket.read_exact(&mut length).expect("the server answers");
        let mut answer = vec![0; u32::from_le_bytes(length) as usize - 4];
        socket.read_exact(&mut answer).expect("the server answers");
        let done = answer.windows(12).any(|window| window == [&b"\x01ok\0"[..], &1_f64.to_le_bytes()].concat());
        assert!(done, "MongoDB refused a command: {}", String::from_utf8_lossy(&answer));
    }

    fn said(&self, words: &str) -> usize {
        std::fs::read_to_string(self.log_path()).unwrap_or_default().matches(words).count()
    }

    fn log_tail(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        let log = read("output") + &read("log");
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn end(&mut self, signal: &str) {
        let Some(mut child) = self.child.take() else { return };
        signal_process(&child, signal);
        let deadline = Instant::now() + START_MAX;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                signal_process(&child, "KILL");
                child.wait().ok();
                return;
            }
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Mongo {
    fn drop(&mut self) {
        // Nothing of it is needed any more: the quickest end will do.
        self.end("KILL");
        if let Some(mut pipe) = self.watchdog.stdin.take() {
            pipe.write_all(b"done\n").ok();
        }
        self.watchdog.wait().ok();
    }
}

const DOCUMENT: u8 = 3;
const ARRAY: u8 = 4;

/// A BSON document of these elements.
fn document(elements: &[Vec<u8>]) -> Vec<u8> {
    let elements = elements.concat();
    let length = i32::try_from(elements.len() + 5).expect("a small document");
    [&length.to_le_bytes()[..], &elements, &[0]].concat()
}

fn nested(kind: u8, name: &str, document: &[u8]) -> Vec<u8> {
    [&[kind], name.as_bytes(), &[0], document].concat()
}

fn text(name: &str, value: &str) -> Vec<u8> {
    let length = i32::try_from(value.len() + 1).expect("a small text");
    [&[2], name.as_bytes(), &[0], &length.to_le_bytes(), value.as_bytes(), &[0]].concat()
}

fn int(name: &str, value: i32) -> Vec<u8> {
    [&[16], name.as_bytes(), &[0], &value.to_le_bytes()[..]].concat()
}

fn signal_process(child: &Child, signal: &str) {
    Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().ok();
}

/// Ends the server and removes its folder when this process dies without dropping it, killed by a time limit for
/// example: the pipe to the watchdog then closes without the word `done`.
fn watchdog(folder: &Path) -> Child {
    const SCRIPT: &str = "read -r word; [ \"$word\" = done ] && exit; \
        kill -s KILL \"$(cat \"$0/pid\")\"; sleep 1; rm -rf \"$0\"";
    let mut shell = command(Path::new("/bin/sh"), None);
    shell.arg("-c").arg(SCRIPT).arg(folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().expect("there is a shell")
}

/// The server's program: `MONGOD`, on the `PATH`, or where `scripts/need.sh mongodb` puts it.
fn mongod() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::var_os("MONGOD")
        .map(PathBuf::from)
        .into_iter()
        .chain(std::env::split_paths(&path).map(|folder| folder.join("mongod")))
        .chain(cache.map(|cache| cache.join("headwater/mongodb/mongod")))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("`mongod` not found in MONGOD, PATH or the cache: run `scripts/need.sh mongodb`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_survives_a_kill_and_is_gone_afterwards() {
        let mut server = Mongo::start();
        server.kill();
        server.resume();
        server.restart();
        server.run(&[int("ping", 1)]);
        let (pid, folder) = (server.pid().expect("it runs"), server.folder().to_owned());
        drop(server);
        assert!(!folder.exists());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn tls_and_logins_can_be_demanded() {
        let server = Mongo::start_with(&MongoOptions { tls: true, auth: true, ..Default::default() });
        assert!(server.url().contains("tls=true"));
        assert!(server.pid().is_some());
    }
}
