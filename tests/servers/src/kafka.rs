//! An Apache Kafka broker.

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Certificates;
use crate::command::{command, run};
use crate::free_port;

const START_MAX: Duration = Duration::from_secs(90);

/// How a broker is to be set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaOptions {
    /// Further lines of `server.properties`, last one wins: `("log.retention.check.interval.ms", "200")`.
    pub settings: Vec<(String, String)>,
    /// Whether there are listeners that ask for a password ([`Kafka::sasl_bootstrap`], PLAIN and SCRAM) and that
    /// encrypt and want a client certificate ([`Kafka::tls_bootstrap`]).
    pub secured: bool,
}

impl KafkaOptions {
    /// Adds a line of `server.properties`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}

/// A running broker, which is its own controller (KRaft), with one partition for each of Kafka's own topics. Topics are
/// never created by use.
///
/// The programs are those of `KAFKA_HOME` (its `libs/*.jar`), else what `scripts/need.sh servers` put into the cache.
#[derive(Debug)]
pub struct Kafka {
    folder: TempDir,
    ports: Ports,
    child: Option<Child>,
    watchdog: Child,
    certificates: Option<Certificates>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ports {
    plain: u16,
    controller: u16,
    sasl: u16,
    tls: u16,
}

impl Kafka {
    /// Starts a broker with the default options.
    pub fn start() -> Self {
        Self::start_with(&KafkaOptions::default())
    }

    /// Starts a broker.
    pub fn start_with(options: &KafkaOptions) -> Self {
        let folder = tempfile::Builder::new().prefix("headwater-kafka-").tempdir().expect("a temporary folder");
        let certificates = options.secured.then(|| Certificates::generate(folder.path()));
        let watchdog = watchdog(folder.path());
        let mut kafka = Self { folder, ports: Ports::default(), child: None, watchdog, certificates };
        let mut why = String::new();
        for _ in 0..5 {
            // Someone may take a port between our looking and the broker's binding: then others are tried.
            kafka.ports = free_ports();
            kafka.write_settings(options);
            kafka.format(options);
            match kafka.launch() {
                Ok(()) => return kafka,
                Err(said) => why = said,
            }
            std::fs::remove_dir_all(kafka.data()).ok();
        }
        panic!("Kafka did not start:\n{why}");
    }

    /// Where clients connect without encryption and password. Stays the same over restarts.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports.plain)
    }

    /// Where clients show [`Self::user`] and [`Self::password`], if it was started secured.
    pub fn sasl_bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports.sasl)
    }

    /// Where clients use TLS and show a certificate, if it was started secured.
    pub fn tls_bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports.tls)
    }

    /// A user that the secured listener knows.
    pub fn user(&self) -> &'static str {
        "headwater"
    }

    /// That user's password.
    pub fn password(&self) -> &'static str {
        "headwater-secret"
    }

    /// The certificates, if it was started secured.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// Process id of the running broker; `None` while stopped.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Where the broker writes what it has to say.
    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Stops as an administrator would.
    pub fn stop(&mut self) {
        self.end("TERM");
    }

    /// Ends the broker at once, as a power cut would (but for what the disk already took).
    pub fn kill(&mut self) {
        self.end("KILL");
    }

    /// Starts a stopped or killed broker again on the same ports and data.
    pub fn resume(&mut self) {
        assert!(self.child.is_none(), "the broker is already running");
        let deadline = Instant::now() + START_MAX;
        while let Err(why) = self.launch() {
            assert!(Instant::now() < deadline, "Kafka did not start again:\n{why}");
            sleep(Duration::from_millis(200));
        }
    }

    /// Takes the end of a transaction from the end of a partition, while the broker is stopped: as if it had been killed
    /// before writing it.
    pub fn forget_marker(&self, topic: &str, partition: u32) {
        /// The bit in the attributes of a batch that says that it holds a marker and no records.
        const CONTROL: u8 = 1 << 5;
        assert!(self.child.is_none(), "the broker is running");
        let folder = self.data().join(format!("{topic}-{partition}"));
        let files = std::fs::read_dir(folder).expect("the partition has a folder");
        let paths = files.map(|file| file.expect("it can be read").path());
        // Named by their first offset.
        let newest = paths.filter(|path| path.extension().is_some_and(|it| it == "log")).max();
        let path = newest.expect("the partition has a segment");
        let segment = std::fs::read(&path).expect("it can be read");
        let (mut at, mut last) = (0, 0);
        while at < segment.len() {
            let len: [u8; 4] = segment[at + 8..at + 12].try_into().expect("four bytes");
            (last, at) = (at, at + 12 + u32::from_be_bytes(len) as usize);
        }
        assert!(at == segment.len() && segment[last + 22] & CONTROL != 0, "the last batch is no end of a transaction");
        File::options().write(true).open(&path).and_then(|file| file.set_len(last as u64)).expect("writable");
    }

    /// Stops and starts.
    pub fn restart(&mut self) {
        self.stop();
        self.resume();
    }

    /// A command that runs one of Kafka's own programs by its class: `org.apache.kafka.tools.ProducerPerformance`.
    pub fn program(class: &str) -> Command {
        let mut java = command(Path::new("java"), None);
        java.args(["-Xmx384m", "-Xms64m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
        java.arg("-cp").arg(class_path()).arg(class);
        java
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn settings_file(&self) -> PathBuf {
        self.folder.path().join("server.properties")
    }

    fn write_settings(&self, options: &KafkaOptions) {
        let Ports { plain, controller, sasl, tls } = self.ports;
        let mut listeners = format!("PLAIN://127.0.0.1:{plain}");
        if options.secured {
            listeners.push_str(&format!(",SASL://127.0.0.1:{sasl},TLS://127.0.0.1:{tls}"));
        }
        let mut settings: Vec<(String, String)> = [
            ("process.roles", "broker,controller"),
            ("node.id", "1"),
            ("controller.quorum.voters", &format!("1@127.0.0.1:{controller}")),
            ("listeners", &format!("{listeners},CONTROLLER://127.0.0.1:{controller}")),
            ("advertised.listeners", &listeners),
            ("listener.security.protocol.map", "PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,CONTROLLER:PLAINTEXT"),
            ("controller.listener.names", "CONTROLLER"),
            ("inter.broker.listener.name", "PLAIN"),
            ("log.dirs", &self.data().display().to_string()),
            ("auto.create.topics.enable", "false"),
            ("offsets.topic.replication.factor", "1"),
            ("offsets.topic.num.partitions", "1"),
            ("transaction.state.log.replication.factor", "1"),
            ("transaction.state.log.min.isr", "1"),
            ("transaction.state.log.num.partitions", "1"),
            ("share.coordinator.state.topic.replication.factor", "1"),
            ("share.coordinator.state.topic.min.isr", "1"),
            ("group.initial.rebalance.delay.ms", "0"),
            ("num.network.threads", "2"),
            ("num.io.threads", "2"),
            ("num.recovery.threads.per.data.dir", "1"),
            ("background.threads", "2"),
            ("log.cleaner.threads", "1"),
            ("log.cleaner.dedupe.buffer.size", "4194304"),
            // A started broker is an idle one: nothing of the cluster's own waits for others.
            ("controlled.shutdown.enable", "false"),
            ("broker.heartbeat.interval.ms", "500"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        if let Some(certificates) = &self.certificates {
            let (user, password) = (self.user(), self.password());
            let pem = |path: &Path| std::fs::read_to_string(path).expect("it was just made").replace('\n', "\\n");
            let login =
                |module: &str, rest: &str| format!("org.apache.kafka.common.security.{module} required {rest};");
            let plain = login("plain.PlainLoginModule", &format!("user_{user}=\"{password}\""));
            let scram = login("scram.ScramLoginModule", "");
            let secured = [
                ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned()),
                ("listener.name.sasl.plain.sasl.jaas.config", plain),
                ("listener.name.sasl.scram-sha-256.sasl.jaas.config", scram.clone()),
                ("listener.name.sasl.scram-sha-512.sasl.jaas.config", scram),
                ("listener.name.tls.ssl.client.auth", "required".into()),
                ("listener.name.tls.ssl.keystore.type", "PEM".into()),
                ("listener.name.tls.ssl.keystore.certificate.chain", pem(&certificates.server_cert)),
                ("listener.name.tls.ssl.keystore.key", pem(&certificates.server_key)),
                ("listener.name.tls.ssl.truststore.type", "PEM".into()),
                ("listener.name.tls.ssl.truststore.certificates", pem(&certificates.ca)),
            ];
            settings.extend(secured.map(|(name, value)| (name.to_owned(), value)));
        }
        settings.extend(options.settings.iter().cloned());
        let lines: String = settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        std::fs::write(self.settings_file(), lines).expect("the folder is writable");
    }

    fn format(&self, options: &KafkaOptions) {
        let mut format = Self::program("kafka.tools.StorageTool");
        format.args(["format", "-t", "aGVhZHdhdGVyLWthZmthMQ", "-c"]).arg(self.settings_file());
        if options.secured {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                let (user, password) = (self.user(), self.password());
                format.args(["--add-scram", &format!("{mechanism}=[name={user},password={password}]")]);
            }
        }
        run(&mut format);
    }

    /// One attempt to start; what the broker said when it ended instead.
    fn launch(&mut self) -> Result<(), String> {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("the folder is writable");
        let errors = log.try_clone().expect("a second handle");
        let mut server = command(Path::new("java"), None);
        // Quick to start, small, and with few threads.
        server.args(["-Xmx384m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]);
        server.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"]).arg(class_path()).arg("kafka.Kafka");
        server.arg(self.settings_file()).current_dir(self.folder.path());
        let mut child = server.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("there is java");
        std::fs::write(self.folder.path().join("pid"), child.id().to_string()).expect("the folder is writable");
        let deadline = Instant::now() + START_MAX;
        loop {
            if child.try_wait().expect("it is our child").is_some() {
                return Err(self.log_tail());
            }
            if self.listens() {
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

    /// Whether all of its listeners are open: it opens them one after another.
    fn listens(&self) -> bool {
        let secured = self.certificates.is_some();
        let ports = [Some(self.ports.plain), secured.then_some(self.ports.sasl), secured.then_some(self.ports.tls)];
        ports.into_iter().flatten().all(|port| TcpStream::connect(("127.0.0.1", port)).is_ok())
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn end(&mut self, signal: &str) {
        let Some(mut child) = self.child.take() else { return };
        Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().ok();
        let deadline = Instant::now() + Duration::from_secs(30);
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                child.kill().ok();
                child.wait().ok();
                return;
            }
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // Nothing of it is needed any more: the quickest end will do.
        self.end("KILL");
        if let Some(mut pipe) = self.watchdog.stdin.take() {
            pipe.write_all(b"done\n").ok();
        }
        self.watchdog.wait().ok();
    }
}

/// Ends the broker and removes its folder when this process dies without dropping it, killed by a time limit for example:
/// the pipe to the watchdog then closes without the word `done`.
fn watchdog(folder: &Path) -> Child {
    const SCRIPT: &str =
        "read -r word; [ \"$word\" = done ] && exit; kill -s KILL \"$(cat \"$0/pid\")\"; rm -rf \"$0\"";
    let mut shell = command(Path::new("/bin/sh"), None);
    shell.arg("-c").arg(SCRIPT).arg(folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().expect("there is a shell")
}

fn free_ports() -> Ports {
    Ports { plain: free_port(), controller: free_port(), sasl: free_port(), tls: free_port() }
}

/// The jars: of `KAFKA_HOME`, or of the cache.
fn class_path() -> String {
    let home = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let libs = match home("KAFKA_HOME") {
        Some(kafka) => kafka.join("libs"),
        None => home("XDG_CACHE_HOME")
            .or_else(|| home("HOME").map(|home| home.join(".cache")))
            .unwrap_or_else(|| PathBuf::from("/var/cache"))
            .join("headwater/kafka"),
    };
    assert!(
        libs.is_dir(),
        "Kafka is not in KAFKA_HOME and not in {}: run scripts/need.sh kafka, or set KAFKA_HOME",
        libs.display()
    );
    format!("{}/*", libs.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_survives_a_kill_and_is_gone_afterwards() {
        let mut server = Kafka::start_with(&KafkaOptions { secured: true, ..KafkaOptions::default() });
        let bootstrap = server.bootstrap();
        server.kill();
        server.resume();
        assert_eq!(server.bootstrap(), bootstrap);
        server.restart();
        for address in [server.bootstrap(), server.sasl_bootstrap(), server.tls_bootstrap()] {
            assert!(TcpStream::connect(&address).is_ok(), "{address}");
        }
        let (pid, folder) = (server.pid().expect("it runs"), server.folder.path().to_owned());
        drop(server);
        assert!(!folder.exists());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
