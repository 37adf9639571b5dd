//! Columns that a message lacks, asked of the database.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use super::connect::{Sql, failed};
use super::copy::CopyLine;
use crate::Error;

/// Columns of one row that were asked for, in the order of the query; `None` when there is no such row. See
/// [`Step::Lacks`](super::transaction::Step::Lacks).
pub(super) type Fetched = Option<Vec<Option<Vec<u8>>>>;

/// What `query` finds once the transaction can be seen; `None` when the table is no longer as it expects.
pub(super) async fn row(sql: &Sql, xid: u32, query: &str) -> Result<Option<Fetched>, Error> {
    until_visible(sql, xid).await?;
    first_row(sql, query).await
}

/// How long a commit that stays invisible is waited for in one go, before the status says so.
const VISIBLE_WITHIN: Duration = Duration::from_secs(5);

/// Waits until other sessions see what the transaction did. A commit is sent to us as soon as it is written, which is a
/// moment before it can be seen: a query in that moment would not find the row it is about. With synchronous replication
/// that moment lasts until the standby has answered. What was gathered of the transaction by then comes again.
async fn until_visible(sql: &Sql, xid: u32) -> Result<(), Error> {
    let begin = Instant::now();
    while begin.elapsed() < VISIBLE_WITHIN {
        let rows = sql.rows("see whether a commit is visible", "SELECT pg_current_snapshot()::text").await?;
        let snapshot = rows.first().and_then(|row| row.try_get(0).ok().flatten()).unwrap_or_default();
        if is_visible(snapshot, xid) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Err(Error::NotReady {
        problem: format!(
            "transaction {xid}, of which columns are to be fetched that were not sent, is in the log and cannot be seen yet: it \
             seems to wait for a synchronous standby"
        ),
        remedy: "bring the standby back, or change synchronous_standby_names; until then this is tried again".into(),
    })
}

/// Whether a snapshot (`xmin:xmax:xip,xip,…`, transactions as 64 bits) sees a committed transaction (32 bits, as the
/// stream names it): it began before `xmax` and is not among those in progress.
fn is_visible(snapshot: &str, xid: u32) -> bool {
    let low = |text: &str| text.parse::<u64>().ok().map(|xid| xid as u32);
    let mut parts = snapshot.split(':').skip(1);
    let Some(xmax) = parts.next().and_then(low) else { return true };
    // Transaction numbers go round: the difference tells which comes first.
    let begun = (xid.wrapping_sub(xmax) as i32) < 0;
    begun && !parts.next().unwrap_or_default().split(',').filter_map(low).any(|running| running == xid)
}

/// Whether a query failed since its table is no longer as it expects: names that are not there, other types, no privilege
/// (classes 42 and 3F). Whatever else it was may pass.
fn is_of_another_table(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code().starts_with("42") || code.code().starts_with("3F"))
}

/// The texts of the first row, if there is one; `None` when the server cannot answer, because the table is no longer as
/// the query expects.
async fn first_row(sql: &Sql, query: &str) -> Result<Option<Fetched>, Error> {
    let failed = |source| failed("fetch the columns of a row that were not sent", source);
    // As a copy: bytes that are not UTF-8 come, too, as they do in the stream.
    let copied = match sql.client.copy_out(&format!("COPY ({query}) TO STDOUT")).await {
        Ok(lines) => lines,
        Err(source) if is_of_another_table(&source) => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let mut lines = pin!(copied);
    let (mut line, mut found) = (CopyLine::default(), None);
    while let Some(copied) = lines.next().await {
        line.read(&copied.map_err(failed)?);
        let texts = || line.cells.iter().map(|cell| cell.text(&line.bytes).map(<[u8]>::to_vec)).collect();
        found.get_or_insert_with(texts);
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::is_visible;

    #[test]
    fn a_commit_is_visible_once_it_is_no_longer_in_progress() {
        assert!(is_visible("10:20:11,15", 12));
        assert!(!is_visible("10:20:11,15", 15), "in progress");
        assert!(!is_visible("10:20:", 20), "not begun");
        assert!(is_visible("4294967290:4294967300:4294967297", u32::MAX - 2), "before the numbers went round");
        assert!(!is_visible("4294967290:4294967300:4294967297", 1), "in progress in the next round");
    }
}
