//! Programs of others that look at what we serve. `scripts/need.sh tests` installs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::project_root;

fn cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    cache.unwrap_or_default().join("headwater")
}

/// The Python that has the tools.
pub fn python() -> PathBuf {
    match std::env::var_os("HEADWATER_PYTHON") {
        Some(python) => python.into(),
        None => Some(cache().join("python/bin/python")).filter(|python| python.exists()).unwrap_or("python3".into()),
    }
}

/// Set by who knows that there is no Node.js here: what needs it is left out.
const WITHOUT_NODE: &str = "HEADWATER_WITHOUT_NODE";

/// The folder with the packages for Node.js. `None`, and said so, where `HEADWATER_WITHOUT_NODE` is set.
///
/// # Panics
/// When there is no Node.js, or it has not the packages: a test that did nothing would count as passed.
pub fn node() -> Option<PathBuf> {
    if std::env::var_os(WITHOUT_NODE).is_some() {
        eprintln!("left out: {WITHOUT_NODE} is set");
        return None;
    }
    let is_there = Command::new("node").arg("--version").output().is_ok();
    assert!(
        is_there,
        "there is no Node.js: run scripts/need.sh tests, or set {WITHOUT_NODE}=1 to leave out what needs it"
    );
    let folder = cache().join("node");
    assert!(folder.join("node_modules").is_dir(), "{} is missing: run scripts/need.sh tests", folder.display());
    Some(folder)
}

/// Runs one of `tests/front-end/*.mjs` with these arguments in a real browser.
///
/// # Panics
/// With all that it said, unless it ends well.
pub fn browse(node: &Path, script: &str, arguments: &[&str]) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let chromium = std::env::var_os("HEADWATER_CHROMIUM").map(PathBuf::from).or_else(|| {
        std::env::split_paths(&path)
            .flat_map(|folder| ["chromium", "chromium-browser", "google-chrome"].map(|name| folder.join(name)))
            .find(|program| program.is_file())
    });
    let chromium = chromium.expect("there is no Chromium: run scripts/need.sh tests, or set HEADWATER_CHROMIUM");
    let output = Command::new("node")
        .arg(project_root().join("tests/front-end").join(script))
        .args(arguments)
        .env("HEADWATER_NODE", node)
        .env("HEADWATER_CHROMIUM", chromium)
        .output()
        .unwrap();
    succeeded(script, &output);
}

/// Panics with all that a program said, unless it ended well.
pub fn succeeded(what: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
