//! What a comparison found, for people.

use std::time::Duration;

use super::ModelReport;
use super::compare::Difference;
use crate::table::{count, span};

/// Differences shown of one model; all are in the JSON.
const SHOWN_MAX: usize = 20;
/// Where rows whose key cannot be represented are told one by one.
const LETTERS: &str = "`headwater dead-letters list` says why";

/// How many documents and rows are wrong, and how many documents could not be compared.
pub(crate) fn tally(reports: &[ModelReport]) -> (u64, u64) {
    let all = || reports.iter().flat_map(|report| report.differences.values());
    let changing = all().filter(|difference| **difference == Difference::Changing).count();
    let lost: u64 = reports.iter().map(|report| report.unrepresentable).sum();
    ((all().count() - changing) as u64 + lost, changing as u64)
}

/// How many roots were compared.
pub(crate) fn compared(reports: &[ModelReport]) -> u64 {
    reports.iter().map(|report| report.compared).sum()
}

/// All of it in one line.
pub(crate) fn total(reports: &[ModelReport], took: Duration) -> String {
    let (wrong, changing) = tally(reports);
    let models = match reports.len() {
        1 => "1 model".to_owned(),
        n => format!("{n} models"),
    };
    let undecided = match changing {
        0 => String::new(),
        n => format!(", {} that kept changing", count(n)),
    };
    format!(
        "{models}, {} roots compared, {} differences{undecided}, {}",
        count(compared(reports)),
        count(wrong),
        span(took)
    )
}

/// What was found of one model, line by line.
pub(crate) fn lines(report: &ModelReport) -> Vec<String> {
    let (model, compared) = (&report.model, count(report.compared));
    let mut notes = Vec::new();
    if report.rounds > 1 {
        notes.push(format!("{} snapshots, because documents changed meanwhile", report.rounds));
    }
    match report.dead_letters {
        0 => {}
        1 => notes.push("1 root left out: its document is a dead letter".to_owned()),
        n => notes.push(format!("{} roots left out: their documents are dead letters", count(n))),
    }
    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
    if report.differences.is_empty() && report.unrepresentable == 0 {
        return vec![format!("{model}: {compared} documents, all as the source says{notes}")];
    }
    let differences = count(report.differences.len() as u64);
    let mut lines = vec![format!("{model}: {compared} documents, {differences} differences{notes}")];
    match report.unrepresentable {
        0 => {}
        1 => lines.push(format!("  1 row of the source is in no document: its key cannot be represented; {LETTERS}")),
        n => {
            let problem = "are in no document: their keys cannot be represented";
            lines.push(format!("  {} rows of the source {problem}; {LETTERS}", count(n)));
        }
    }
    for (id, difference) in report.differences.iter().take(SHOWN_MAX) {
        lines.push(format!("  {id}: {difference}"));
    }
    let more = report.differences.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        lines.push(format!("  … and {} more; all with `headwater verify --json`", count(more as u64)));
    }
    lines
}
