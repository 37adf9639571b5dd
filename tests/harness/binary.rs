//! The binary under test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The root of the repository.
pub fn project_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The real binary, with the fail points built in. Built once, if it is not there already; `HEADWATER_BIN` names
/// another one.
pub fn headwater() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(given) = std::env::var_os("HEADWATER_BIN") {
            return given.into();
        }
        // The same selection and features as `scripts/test.sh`, so that this finds everything built: with a test among what
        // is built, what only tests need takes part in choosing the features of dependencies.
        let mut build = Command::new(env!("CARGO"));
        // What cargo tells us about this package would look like a change to build scripts that watch the environment
        // (ring's does), and half of everything would be built anew, back and forth.
        for (name, _) in std::env::vars_os() {
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                build.env_remove(name);
            }
        }
        let output = build
            .current_dir(project_root())
            .args(["build", "--workspace", "--bin", "headwater", "--test", "structure"])
            .args(["--features", "headwater/failpoints", "--message-format", "json-render-diagnostics"])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "the binary does not build");
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == "headwater")
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .expect("cargo names the executable it built")
    })
}
