//! What `/status` of the admin port says, for people.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::Table;
use serde_json::{Value, json};

use crate::table::{bytes, count, span, table};

/// For how long the document store has been silent, where that is too long.
pub(crate) const SILENT_SECONDS: &str = "document_store_silent_seconds";

/// The processes that are still starting, each with what it waits for.
pub(crate) const STARTING: &str = "starting";

/// The processes that do not answer, each with the reason.
pub(crate) const UNREACHABLE: &str = "unreachable";

/// How far each consumer group is.
pub(crate) const GROUPS: &str = "groups";

/// The status as tables: sources, models, consumers; rates are between `before` and `now`, where there was a before.
pub(crate) fn status_text(now: &Value, before: Option<&Value>) -> String {
    let away = items(now, UNREACHABLE).chain(items(now, STARTING));
    let away: Vec<&str> = away.filter_map(Value::as_str).collect();
    let mut parts = Vec::new();
    if !away.is_empty() {
        parts.push(away.join("\n"));
        // Where nobody else was asked there is nothing more to tell.
        if items(now, "roles").next().is_none() {
            return parts.concat();
        }
    }
    parts.push(sources(now, before).to_string());
    parts.extend(items(now, "sources").filter_map(snapshot_bars));
    parts.push(models(now).to_string());
    if !now["projector"].is_null() {
        parts.push(projector(now, before).to_string());
        parts.push(groups(now).to_string());
    }
    if let Some(letters) = now["dead_letters"].as_u64().filter(|letters| *letters > 0) {
        parts.push(format!("{} dead letters: headwater dead-letters list", count(letters)));
    }
    let late = behind(now);
    if !late.is_empty() {
        parts.push(late.join("\n"));
    }
    if let Some(seconds) = now[SILENT_SECONDS].as_u64() {
        let silent = span(Duration::from_secs(seconds));
        parts.push(format!(
            "the document store has not been heard of for {silent}: readers see what is kept, as it was"
        ));
    }
    if let Some(error) = now["projector"]["last_error"].as_str() {
        parts.push(format!("projector: {error}"));
    }
    for source in items(now, "sources") {
        parts.extend(troubles(source));
    }
    for one in items(now, "channel_problems") {
        let (channel, model) = (text(one, "channel"), text(one, "model"));
        parts.push(format!("channel {channel}, {model}: {}; {}", text(one, "problem"), text(one, "remedy")));
    }
    for model in items(now, "models") {
        if let Some(problem) = model["problem"].as_str() {
            parts.push(format!("{}: {problem}", text(model, "model")));
        }
        if let Some(missed) = overtaken(model) {
            parts.push(format!("{}: {missed}", text(model, "model")));
        }
    }
    parts.join("\n\n")
}

fn sources(now: &Value, before: Option<&Value>) -> Table {
    let mut out =
        table(&["SOURCE", "PHASE", "POSITION", "NOT CAPTURED", "DOCUMENTS AS OF", "KEPT FOR US", "EVENTS", "EVENTS/S"]);
    for source in items(now, "sources") {
        let name = text(source, "source");
        let earlier = before.and_then(|before| items(before, "sources").find(|one| one["source"] == source["source"]));
        let behind = source["frontier"]["at_micros"].as_i64().map(|at| age(now, at));
        out.add_row([
            name.clone(),
            phase_words(&source["phase"]),
            text(source, "source_position"),
            source["lag_bytes"].as_u64().map_or("?".into(), bytes),
            behind.map_or("?".into(), |age| format!("{} ago", span(age))),
            source["retained_wal_bytes"].as_u64().map_or("?".into(), bytes),
            source["events_total"].as_u64().map_or("?".into(), count),
            rate(now, before, &source["events_total"], earlier.map(|one| &one["events_total"])),
        ]);
    }
    out
}

fn models(now: &Value) -> Table {
    let mut out = table(&["MODEL", "VERSION", "STATE", "DOCUMENTS", "FRESH IN (P50, P99)", "DEFINITION"]);
    for model in items(now, "models") {
        let mut state = text(model, "state");
        if let Some(share) = progress_of(model).filter(|_| state == "building") {
            state = format!("building {:.0} %", share * 100.0);
        }
        out.add_row([
            text(model, "model"),
            version_of(model),
            state,
            model["documents"].as_u64().map_or("?".into(), count),
            freshness(model),
            text(model, "definition_hash"),
        ]);
    }
    out
}

/// How soon changes were readable of late; only the projector knows.
fn freshness(model: &Value) -> String {
    let Some(freshness) = model.get("freshness") else { return "?".into() };
    let within = |name: &str| seconds(&freshness[name]).map(span);
    match (within("p50_seconds"), within("p99_seconds")) {
        (Some(half), Some(nearly_all)) => format!("{half}, {nearly_all}"),
        _ => "no change yet".into(),
    }
}

/// How far each consumer group is behind the end of the log: in records, and in time where it is furthest.
fn groups(now: &Value) -> Table {
    let mut out = table(&["CONSUMER GROUP", "PARTITIONS", "BEHIND", "IN TIME"]);
    for group in items(now, GROUPS) {
        out.add_row([
            text(group, "group"),
            text(group, "partitions"),
            group["lag"].as_u64().map_or("?".into(), |lag| format!("{} records", count(lag))),
            seconds(&group["lag_seconds"]).map_or("?".into(), span),
        ]);
    }
    out
}

/// The consumer groups of all consumers: their partitions, the records they are behind by, and the longest time.
pub(crate) fn groups_of(now: &Value) -> Value {
    let mut groups: BTreeMap<&str, (u64, u64, Option<f64>)> = BTreeMap::new();
    for one in items(now, "consumers") {
        let Some(name) = one["group"].as_str() else { continue };
        let (partitions, lag, late) = groups.entry(name).or_insert((0, 0, Some(0.0)));
        *partitions += 1;
        *lag += one["lag"].as_u64().unwrap_or(0);
        *late = late.zip(one["lag_seconds"].as_f64()).map(|(a, b)| a.max(b));
    }
    groups
        .into_iter()
        .map(|(group, (partitions, lag, late))| {
            json!({ "group": group, "partitions": partitions, "lag": lag, "lag_seconds": late })
        })
        .collect()
}

fn projector(now: &Value, before: Option<&Value>) -> Table {
    let mut out = table(&["PROJECTOR", "BEHIND", "EVENTS", "EVENTS/S", "DOCUMENTS WRITTEN", "DOCUMENTS/S"]);
    let projector = &now["projector"];
    let earlier = |name: &str| before.map(|before| &before["projector"][name]);
    out.add_row([
        projector["last_error"].as_str().map_or("running", |_| "retrying").to_string(),
        projector["lag_events"].as_u64().map_or("?".into(), |lag| format!("{} events", count(lag))),
        projector["events_total"].as_u64().map_or("?".into(), count),
        rate(now, before, &projector["events_total"], earlier("events_total")),
        projector["documents_written_total"].as_u64().map_or("?".into(), count),
        rate(now, before, &projector["documents_written_total"], earlier("documents_written_total")),
    ]);
    out
}

/// One line a topic partition that is behind, in events and in time.
fn behind(now: &Value) -> Vec<String> {
    let late = items(now, "consumers").filter(|one| one["lag"].as_u64().unwrap_or(0) > 0);
    late.map(|one| {
        let age = seconds(&one["lag_seconds"]).map(|age| format!(", {}", span(age))).unwrap_or_default();
        format!("  {}-{}: {} events{age} behind", text(one, "topic"), one["partition"], one["lag"])
    })
    .collect()
}

/// What the replay that made a version did not do, where retention overtook it.
pub(crate) fn overtaken(model: &Value) -> Option<String> {
    let missed = model["replay_missed"].as_u64().filter(|missed| *missed > 0)?;
    Some(format!(
        "its replay was overtaken by retention, which removed {} records before they were read again: rows that only those \
         would have mended are as before; `headwater verify` tells which those are; raise the retention of its topics and \
         replay again, or have the tables read again, by taking them out of their connector's `tables` for one start",
        count(missed)
    ))
}

/// A version as people call it: by the number that its author gave it, where that is known, and by its own, which no other
/// version of any model has: a replay makes a new version of the same author's number.
pub(crate) fn version_of(model: &Value) -> String {
    let own = text(model, "version_id");
    match model["version"].as_u64() {
        Some(number) => format!("{number} (#{own})"),
        None => format!("#{own}"),
    }
}

/// How much of a version is built, from 0 to 1.
pub(crate) fn progress_of(model: &Value) -> Option<f64> {
    let (done, total) = (model["progress"]["done"].as_f64()?, model["progress"]["total"].as_f64()?);
    (total > 0.0).then(|| (done / total).clamp(0.0, 1.0))
}

/// What a connector is doing, in a few words.
pub(crate) fn phase_words(phase: &Value) -> String {
    let name = phase["name"].as_str().unwrap_or("?").replace('_', " ");
    match name.as_str() {
        "snapshotting" => {
            let tables = || phase["tables"].as_array().into_iter().flatten();
            let done: u64 = tables().filter_map(|table| table["rows_done"].as_u64()).sum();
            let estimate: u64 = tables().filter_map(|table| table["rows_estimate"].as_u64()).sum();
            match estimate {
                0 => format!("snapshot, {} rows", count(done)),
                all => format!("snapshot, {} of about {} rows", count(done), count(all.max(done))),
            }
        }
        "waiting for slot" => format!("waiting for {} open transactions", phase["open_transactions"]),
        "retrying" => format!("retrying, attempt {}", phase["attempt"]),
        _ => name,
    }
}

/// How far each table of a snapshot is, one line a table that is not done.
fn snapshot_bars(source: &Value) -> Option<String> {
    let left = items(&source["phase"], "tables").filter(|table| table["done"] != true);
    let lines: Vec<String> = left
        .map(|table| {
            let done = table["rows_done"].as_u64().unwrap_or(0);
            let name = format!("{} {}", text(source, "source"), text(table, "table"));
            match table["rows_estimate"].as_u64().filter(|all| *all > 0) {
                Some(all) => {
                    let (all, share) = (all.max(done), (done as f64 / all as f64).min(1.0));
                    format!("{} {name}: {} of about {} rows", bar(share), count(done), count(all))
                }
                None => format!("{} {name}: {} rows", bar(0.0), count(done)),
            }
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// `[######······] 50 %`
fn bar(share: f64) -> String {
    const WIDTH: usize = 24;
    let done = (share * WIDTH as f64) as usize;
    format!("[{}{}] {:>3.0} %", "#".repeat(done), "·".repeat(WIDTH - done), (share * 100.0).floor())
}

fn troubles(source: &Value) -> Vec<String> {
    let name = text(source, "source");
    let mut out = Vec::new();
    if let Some(error) = source["phase"]["error"].as_str() {
        out.push(format!("{name}: {error}"));
    }
    for (table, refusal) in source["refused_tables"].as_object().into_iter().flatten() {
        out.push(format!("{name}: {table} is not captured: {}; {}", text(refusal, "problem"), text(refusal, "remedy")));
    }
    out
}

fn rate(now: &Value, before: Option<&Value>, total: &Value, earlier: Option<&Value>) -> String {
    let elapsed = now["at_micros"].as_f64().zip(before.and_then(|before| before["at_micros"].as_f64()));
    match (elapsed, total.as_f64(), earlier.and_then(Value::as_f64)) {
        (Some((to, from)), Some(total), Some(earlier)) if to > from => {
            count(((total - earlier).max(0.0) / (to - from) * 1e6).round() as u64)
        }
        _ => "?".into(),
    }
}

/// How long before the status' own time something was.
pub(crate) fn age(now: &Value, at_micros: i64) -> Duration {
    let now = now["at_micros"].as_i64().unwrap_or(at_micros);
    Duration::from_micros(u64::try_from(now.saturating_sub(at_micros)).unwrap_or(0))
}

/// The members of a list.
pub(crate) fn items<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    value[name].as_array().into_iter().flatten()
}

fn seconds(value: &Value) -> Option<Duration> {
    value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

fn text(value: &Value, name: &str) -> String {
    match &value[name] {
        Value::String(text) => text.clone(),
        Value::Null => "?".to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use headwater_connectors::{Phase, TableProgress};

    use super::*;

    #[test]
    fn a_snapshot_shows_how_far_each_table_is() {
        let table = |table: &str, rows_done, rows_estimate, done| TableProgress {
            table: table.into(),
            rows_done,
            rows_estimate,
            done,
        };
        let tables = vec![
            table("public.invoices", 1_500, Some(3_000), false),
            table("public.lines", 70, Some(60), false),
            table("public.tags", 7, None, false),
            table("public.customers", 5, Some(5), true),
        ];
        let status = json!({ "sources": [{ "source": "billing", "phase": Phase::Snapshotting { tables } }] });
        let text = status_text(&status, None);
        for line in [
            "[############············]  50 % billing public.invoices: 1,500 of about 3,000 rows",
            "[########################] 100 % billing public.lines: 70 of about 70 rows",
            "[························]   0 % billing public.tags: 7 rows",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
        }
        assert!(!text.contains("public.customers"), "{text}");
        let streaming = json!({ "sources": [{ "source": "billing", "phase": Phase::Streaming }] });
        assert!(!status_text(&streaming, None).contains('%'));
    }
}
