//! Whether the server's log is the one that was captured so far.
//!
//! A standby that took over, or a server that was restored, may lack the end of what was captured. The server does not
//! mind: asked for changes behind the end of its log, it begins there once the log is long enough, and what was written
//! until then is skipped without a word. A log's *timeline* gets a new number at each such turn, and its history says
//! where the earlier ones were left.

use pgwire_replication::{IdentifySystem, ReplicationClient};

use super::catalog::Server;
use super::checkpoint::Checkpoint;
use super::lsn::Lsn;
use crate::Error;

/// Compares the server's log with the checkpoint: `Some` says what is missing in it.
pub(super) async fn missing(
    checkpoint: &Checkpoint,
    server: &Server,
    system: &IdentifySystem,
    session: &mut ReplicationClient,
) -> Result<Option<String>, Error> {
    let (captured, end) = (checkpoint.captured(), Lsn(system.xlogpos.0));
    let (now, then) = (system.timeline, checkpoint.timeline);
    if end < captured && server.in_recovery && now == then {
        return Err(Error::NotReady {
            problem: format!("the server is at {end}, before what is captured ({captured}), and reads on in its log"),
            remedy: "nothing is to be done: it is looked at again".into(),
        });
    }
    if end < captured {
        return Ok(Some(format!(
            "the server's log ends at {end}, before what is captured ({captured}): it was restored from an older copy, or is a \
             standby that took over before it had everything"
        )));
    }
    // A checkpoint from before timelines were looked at has none.
    if now == then || then == 0 {
        return Ok(None);
    }
    if now < then {
        return Ok(Some(format!("the server is on timeline {now}, and capture was on timeline {then} already")));
    }
    let failed = |source| Error::Replication { action: "read the history of the timeline", source };
    let history = session.timeline_history(now).await.map_err(failed)?;
    Ok(match left_at(&String::from_utf8_lossy(&history.content), then) {
        Some(left) if left >= captured => None,
        Some(left) => Some(format!(
            "the server, now on timeline {now}, left timeline {then} at {left}, before what is captured of it ({captured}): it \
             was restored from an older copy, or is a standby that took over before it had everything"
        )),
        None => Some(format!("what was captured, on timeline {then}, is no part of the server's timeline {now}")),
    })
}

/// Where a history of timelines says that one was left. Its lines are `timeline  position  reason`.
fn left_at(history: &str, timeline: u32) -> Option<Lsn> {
    history.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let is_it = words.next()?.parse::<u32>().ok()? == timeline;
        is_it.then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_says_where_a_timeline_was_left() {
        let history =
            "1\t0/3000158\tno recovery target specified\n\n# a comment\n2\t1/A0\tbefore 2026-01-01 00:00:00+00\n";
        assert_eq!(left_at(history, 1), Some(Lsn(0x300_0158)));
        assert_eq!(left_at(history, 2), Some(Lsn(0x1_0000_00A0)));
        assert_eq!(left_at(history, 3), None);
    }
}
