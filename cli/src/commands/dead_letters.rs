//! `headwater dead-letters`: what could not be processed.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::arguments::{AdminAddress, DeadLettersCommand, Global};
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::output::say;
use crate::report::{age, items};
use crate::table::{count, span, table};

/// As many as the admin port gives at once.
const LIMIT: usize = 10_000;
/// How often it is drawn that a retry goes on.
const DRAW_EVERY: Duration = Duration::from_millis(100);

pub(super) fn execute(global: &Global, command: &DeadLettersCommand) -> Outcome {
    let connect = |address: &AdminAddress| Client::admin(address.admin.as_deref(), &global.config);
    match command {
        DeadLettersCommand::List { address, json } => list(&connect(address)?, *json),
        DeadLettersCommand::Retry { address, offset, json } => retry(&connect(address)?, *offset, *json),
    }
}

fn list(admin: &Client, as_json: bool) -> Outcome {
    let answer = admin.json(&format!("/dead-letters?limit={LIMIT}"))?;
    let letters: Vec<&Value> = items(&answer, "dead_letters").collect();
    if as_json {
        letters.iter().for_each(|letter| say!("{letter}"));
        return Ok(ExitCode::SUCCESS);
    }
    if letters.is_empty() {
        say!("There are no dead letters.");
        return Ok(ExitCode::SUCCESS);
    }
    let now = admin.json("/status")?;
    // They are counted now and then: as many as are listed are there in any case.
    let all = now["dead_letters"].as_u64().unwrap_or(0).max(letters.len() as u64);
    let mut out = table(&["OFFSET", "AGE", "STAGE", "WHERE", "CAUSE"]);
    for item in &letters {
        let letter = &item["letter"];
        let text = |name: &str| letter[name].as_str().unwrap_or_default().to_string();
        let place = [text("model"), text("root"), text("table"), text("position")];
        let place: Vec<String> = place.into_iter().filter(|part| !part.is_empty()).collect();
        let at = letter["at_millis"].as_i64().map_or(Duration::ZERO, |at| age(&now, at.saturating_mul(1000)));
        out.add_row([item["offset"].to_string(), span(at), text("stage"), place.join(" "), text("cause")]);
    }
    say!("{out}\n\n{}", how_many(letters.len() as u64, all));
    say!("Once the cause is mended: headwater dead-letters retry [--offset N]");
    Ok(ExitCode::SUCCESS)
}

fn how_many(shown: u64, all: u64) -> String {
    let older = if shown < all { ", the newest" } else { "" };
    format!("showing {} of {}{older}", count(shown), count(all))
}

fn retry(admin: &Client, offset: Option<u64>, as_json: bool) -> Outcome {
    let request = offset.map_or(json!({}), |offset| json!({ "offset": offset }));
    let waiting = waiting(as_json);
    let outcome = admin.post_and_wait("/dead-letters/retry", &request);
    waiting.finish_and_clear();
    let outcome = outcome?;
    if let Some(offset) = offset
        && is_nothing(&outcome)
    {
        return Err(Failure::new(format_args!(
            "there is no dead letter at offset {offset}, or it was resolved; `headwater dead-letters list` shows those \
             that there are"
        )));
    }
    if as_json {
        say!("{outcome}");
    } else {
        told(&outcome).iter().for_each(|line| say!("{line}"));
    }
    // Whether what is queued goes well, later letters tell.
    Ok(if number(&outcome, "failed") > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Tells who sits at a terminal that it goes on: there may be very many letters.
fn waiting(as_json: bool) -> ProgressBar {
    if as_json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::default_spinner());
    bar.set_message("trying again …");
    bar.enable_steady_tick(DRAW_EVERY);
    bar
}

/// Whether a retry found no letter at all.
fn is_nothing(outcome: &Value) -> bool {
    ["retried", "skipped", "elsewhere"].into_iter().all(|name| number(outcome, name) == 0)
}

/// What a retry did, in sentences.
fn told(outcome: &Value) -> Vec<String> {
    let number = |name: &str| number(outcome, name);
    let (retried, resolved, failed, queued) =
        (number("retried"), number("resolved"), number("failed"), number("queued"));
    let mut lines = Vec::new();
    if queued == 0 {
        lines.push(format!("{retried} tried again: {resolved} went well, {failed} failed as before"));
    } else {
        lines.push(format!("{retried} tried again: {queued} queued, {resolved} went well, {failed} failed as before"));
        lines.push(
            "the workers build what is queued; what cannot be built is a new letter: see headwater dead-letters list"
                .to_string(),
        );
    }
    let records = number("skipped_records");
    let values = number("skipped").saturating_sub(records);
    if values > 0 {
        lines.push(format!(
            "{values} cannot be tried again here: the source could not represent a value; change the row, and it is \
             sent anew"
        ));
    }
    if records > 0 {
        lines.push(format!(
            "{records} cannot be tried again here: a record of the log could not be read; change its row at the \
             source, and it is sent anew"
        ));
    }
    let elsewhere = number("elsewhere");
    if elsewhere > 0 {
        lines.push(format!(
            "{elsewhere} are about models or tables that this projector does not have: ask the one that has, by --admin; \
             one that nobody wants any more is done with when --offset names it"
        ));
    }
    lines
}

fn number(outcome: &Value, name: &str) -> u64 {
    outcome[name].as_u64().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::answering;

    #[test]
    fn letters_that_are_not_shown_are_told_of() {
        assert_eq!(how_many(3, 3), "showing 3 of 3");
        assert_eq!(how_many(10_000, 12_345), format!("showing {} of {}, the newest", count(10_000), count(12_345)));
    }

    #[test]
    fn a_letter_that_is_not_there_is_told() {
        const NOTHING: &str = "200 OK\r\ncontent-length: 49\r\nconnection: close\r\n\r\n\
                               {\"retried\":0,\"resolved\":0,\"failed\":0,\"skipped\":0}";
        let (admin, thread) = answering(&[NOTHING, NOTHING]);
        let failure = retry(&admin, Some(7), false).unwrap_err();
        assert!(failure.to_string().contains("no dead letter at offset 7"), "{failure}");
        retry(&admin, None, false).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn what_is_queued_or_skipped_did_not_go_well() {
        let alone =
            json!({ "retried": 3, "resolved": 2, "failed": 1, "queued": 0, "skipped": 0, "skipped_records": 0 });
        assert_eq!(told(&alone), ["3 tried again: 2 went well, 1 failed as before"]);
        let shared = json!({ "retried": 3, "resolved": 0, "failed": 0, "queued": 3, "skipped": 5, "skipped_records": 4,
                     "elsewhere": 2 });
        let lines = told(&shared);
        assert_eq!(lines[0], "3 tried again: 3 queued, 0 went well, 0 failed as before");
        assert!(lines[1].contains("headwater dead-letters list"), "{lines:?}");
        assert!(lines[2].starts_with("1 cannot") && lines[2].contains("represent"), "{lines:?}");
        assert!(lines[3].starts_with("4 cannot") && lines[3].contains("record of the log"), "{lines:?}");
        assert!(lines[4].starts_with("2 are about") && lines[4].contains("--admin"), "{lines:?}");
        assert_eq!(lines.len(), 5);
    }
}
