//! A disk that is soon full.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the disk is mounted, for the test that runs on it.
const MOUNTED_AT: &str = "HEADWATER_TEST_SMALL_DISK";
/// What mounts it and runs the rest of its arguments.
const MOUNT: &str = "mount -t tmpfs -o size=$1 tmpfs \"$0\" && shift && exec \"$@\"";

/// Runs `body` with a folder that is a file system of its own of so many mebibytes, in memory.
///
/// Best in a test binary of its own: programs that are being started have for a moment what other tests have locked.
///
/// Only the test's process and those that it starts see it, so that nothing is left of it however they end: the process of
/// the caller runs itself once more for the one test, whose name is `test`, in a mount namespace. Where the system does not
/// allow that, which a container may not, the test is left out, and says so.
///
/// # Panics
/// When the test on the disk fails.
pub fn on_small_disk(test: &str, mebibytes: u32, body: impl FnOnce(&Path)) {
    if let Some(folder) = std::env::var_os(MOUNTED_AT) {
        return body(&PathBuf::from(folder));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let on_disk = |program: &[&str]| {
        let mut command = Command::new("unshare");
        if crate::command::User::for_servers().is_none() {
            command.args(["--user", "--map-current-user", "--keep-caps"]);
        }
        command.args(["--mount", "sh", "-c", MOUNT]).arg(folder.path()).arg(format!("{mebibytes}m")).args(program);
        command
    };
    let allowed = on_disk(&["true"]).output();
    if !allowed.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("left out: a file system cannot be mounted here: {allowed:?}");
        return;
    }
    let program = std::env::current_exe().expect("a test runs from a file");
    let program = program.to_str().expect("a path of a target folder is text");
    // Its report is not one of the caller's process: it is shown when something is wrong.
    let output = on_disk(&[program, "--exact", test, "--nocapture"]).env(MOUNTED_AT, folder.path()).output();
    let output = output.expect("it ran a moment ago");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{test} failed on a disk of {mebibytes} MiB: {}\n{}{}",
        output.status,
        said(&output.stdout),
        said(&output.stderr)
    );
}
