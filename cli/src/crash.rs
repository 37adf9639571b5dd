//! Dying on purpose: for tests that show that nothing is lost wherever the process ends.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

use crate::failure::Failure;

/// Says where and when: `name@N` is the N-th time, from 1, that the fail point `name` is passed.
const VARIABLE: &str = "HEADWATER_CRASH_AT";

/// Sets what the variable asks for. Refuses it in a build without fail points, where it would do nothing.
pub(crate) fn arm() -> Result<(), Failure> {
    let Ok(wanted) = std::env::var(VARIABLE) else { return Ok(()) };
    if !cfg!(feature = "failpoints") {
        return Err(Failure::new(format_args!(
            "{VARIABLE} is set, but this build has no fail points; unset it, or build with `--features failpoints`"
        )));
    }
    let parsed = wanted.split_once('@').and_then(|(name, hit)| Some((name, hit.parse::<u64>().ok()?)));
    let Some((name, hit @ 1..)) = parsed else {
        return Err(Failure::new(format_args!("{VARIABLE}=`{wanted}` is not `name@N` with N from 1")));
    };
    let passed = AtomicU64::new(0);
    fail::cfg_callback(name, move || {
        if passed.fetch_add(1, Ordering::SeqCst) + 1 == hit {
            die();
        }
    })
    .map_err(|error| Failure::new(format_args!("{VARIABLE}=`{wanted}`: {error}")))
}

/// SIGKILL to this process: nothing is flushed, closed or cleaned up.
fn die() {
    if kill_process(getpid(), Signal::KILL).is_err() {
        std::process::abort();
    }
}
