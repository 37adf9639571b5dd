//! Running the servers' own programs.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The user that servers run as when the tests run as root, which PostgreSQL refuses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// The user `postgres` if this process is root; `None` if the server can run as whoever we are.
    pub(crate) fn for_servers() -> Option<Self> {
        let id = |arguments: &[&str]| -> Option<u32> {
            let output = Command::new("id").args(arguments).output().ok()?;
            String::from_utf8(output.stdout).ok()?.trim().parse().ok()
        };
        if id(&["-u"]) != Some(0) {
            return None;
        }
        let user = id(&["-u", "postgres"]).zip(id(&["-g", "postgres"])).map(|(uid, gid)| Self { uid, gid });
        Some(user.expect("running as root needs the user `postgres`: apt-get install postgresql"))
    }

    /// Gives the user a file or folder.
    pub(crate) fn give(self, path: &Path) {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .unwrap_or_else(|error| panic!("cannot give {} to the server's user: {error}", path.display()));
    }
}

/// A command that runs as `user`, in a process group of its own so that Ctrl-C in the terminal leaves cleaning up to us.
pub(crate) fn command(program: &Path, user: Option<User>) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").env("TZ", "UTC").process_group(0);
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

/// Runs to the end and panics with the output unless it succeeded.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
}

/// Finds a program of PostgreSQL: in `PG_BIN`, on the `PATH`, or where Debian puts the newest version.
pub(crate) fn postgres_program(name: &str) -> PathBuf {
    let named = std::env::var_os("PG_BIN").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.filter_map(io::Result::ok).map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    let version = |path: &Path| path.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    debian.sort_by_key(|path| std::cmp::Reverse(version(path)));
    named
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(debian)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| {
            panic!("`{name}` not found in PG_BIN, PATH or /usr/lib/postgresql: apt-get install postgresql")
        })
}
