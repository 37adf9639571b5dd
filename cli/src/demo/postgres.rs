//! A PostgreSQL server of the demo's own: in a temporary folder, on a free loopback port, gone afterwards.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::TempDir;

use crate::failure::Failure;

const PATIENCE: Duration = Duration::from_secs(60);

/// A running server with an empty database `billing` and the superuser `headwater`.
pub(super) struct DemoPostgres {
    server: Child,
    /// Stops the server and removes the folder should this process be killed.
    guard: Child,
    folder: TempDir,
    port: u16,
    password: String,
}

impl DemoPostgres {
    /// Starts it; takes a second or two.
    pub(super) fn start() -> Result<Self, Failure> {
        let programs = programs()?;
        let user = server_user()?;
        let folder = tempfile::Builder::new()
            .prefix("headwater-demo-")
            .tempdir()
            .map_err(|error| Failure::caused("cannot make a temporary folder", &error))?;
        let cannot_write = |error| Failure::caused(format_args!("cannot write in {}", folder.path().display()), &error);
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).map_err(cannot_write)?;
        }
        let password = format!("{:032x}", rand::random::<u128>());
        let password_file = folder.path().join("password");
        std::fs::write(&password_file, &password).map_err(cannot_write)?;
        let data = folder.path().join("data");
        let mut initdb = command(&programs.join("initdb"), user);
        initdb.current_dir(folder.path()).args(["-U", "headwater", "-E", "UTF8", "--locale=C", "--no-sync"]);
        initdb.args(["--auth=scram-sha-256", "--no-instructions", "-D"]).arg(&data).arg("--pwfile").arg(&password_file);
        let output = initdb.output().map_err(|error| Failure::caused("cannot run initdb", &error))?;
        if !output.status.success() {
            return Err(Failure::new(format_args!("initdb failed:\n{}", String::from_utf8_lossy(&output.stderr))));
        }

        let port = free_port().map_err(|error| Failure::caused("there is no free loopback port", &error))?;
        let log = File::create(folder.path().join("log")).map_err(cannot_write)?;
        let errors = log.try_clone().map_err(cannot_write)?;
        let mut postgres = command(&programs.join("postgres"), user);
        postgres.current_dir(folder.path()).arg("-D").arg(&data).args(["-p", &port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "wal_level=logical",
            "timezone=UTC",
            "log_min_messages=warning",
        ] {
            postgres.args(["-c", setting]);
        }
        postgres.stdin(Stdio::null()).stdout(log).stderr(errors);
        let server = postgres.spawn().map_err(|error| Failure::caused("cannot run postgres", &error))?;
        let guard = guard(folder.path()).map_err(|error| Failure::caused("cannot run /bin/sh", &error))?;
        Ok(Self { server, guard, folder, port, password })
    }

    /// Waits until it takes connections, and creates the database.
    pub(super) async fn ready(&mut self) -> Result<tokio_postgres::Config, Failure> {
        let deadline = Instant::now() + PATIENCE;
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("headwater").password(&self.password).dbname("postgres");
        let client = loop {
            match crate::workload::connect(&config).await {
                Ok(client) => break client,
                Err(failure) => {
                    let ended = self.server.try_wait().is_ok_and(|status| status.is_some());
                    if ended || Instant::now() > deadline {
                        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                        return Err(Failure::new(format_args!("PostgreSQL did not start: {failure}\n{log}")));
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        client
            .batch_execute("CREATE DATABASE billing")
            .await
            .map_err(|error| Failure::caused("cannot create the database", &error))?;
        config.dbname("billing");
        Ok(config)
    }

    /// Its port on 127.0.0.1.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for DemoPostgres {
    fn drop(&mut self) {
        // A fast shutdown: sessions are ended, the server's other processes and shared memory go with it.
        let told = i32::try_from(self.server.id()).ok().and_then(Pid::from_raw);
        let told = told.is_some_and(|id| kill_process(id, Signal::INT).is_ok());
        let deadline = Instant::now() + Duration::from_secs(10);
        while told && Instant::now() < deadline && matches!(self.server.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.server.kill().ok();
        self.server.wait().ok();
        // The guard reads a word instead of the end of its input, and leaves without doing anything.
        if let Some(mut input) = self.guard.stdin.take() {
            input.write_all(b"done\n").ok();
        }
        self.guard.wait().ok();
    }
}

/// A shell that waits for the end of its input, which comes when this process dies in whatever way, and then cleans up.
fn guard(folder: &Path) -> std::io::Result<Child> {
    const SCRIPT: &str = "read -r word && exit 0; read -r pid <\"$0/data/postmaster.pid\" && kill -INT \"$pid\" && sleep 2; rm -rf \"$0\"";
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(SCRIPT).arg(folder).process_group(0);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

fn command(program: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    // A group of its own: Ctrl-C is for us, who then stop the server in order.
    command.env("LC_ALL", "C").env("TZ", "UTC").process_group(0);
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The folder with `initdb` and `postgres`: PG_BIN, on the PATH, or Debian's newest.
fn programs() -> Result<PathBuf, Failure> {
    let mut debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect())
        .unwrap_or_default();
    debian.sort_by_key(|bin| {
        let version = bin.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse::<u32>().ok());
        std::cmp::Reverse(version)
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::var_os("PG_BIN")
        .map(PathBuf::from)
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(debian)
        .find(|bin| bin.join("initdb").is_file() && bin.join("postgres").is_file())
        .ok_or_else(|| {
            Failure::new(
                "PostgreSQL's programs `initdb` and `postgres` are not in PG_BIN, PATH or /usr/lib/postgresql; install \
                 PostgreSQL (`apt-get install postgresql`), or name a database with --database-url",
            )
        })
}

/// Whom the server runs as: PostgreSQL refuses to run as root, and then there is the user `postgres`.
fn server_user() -> Result<Option<(u32, u32)>, Failure> {
    if !getuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    ids.map(Some).ok_or_else(|| {
        Failure::new(
            "PostgreSQL refuses to run as root, and there is no user `postgres`; run the demo as another user, or name a \
             database with --database-url",
        )
    })
}
