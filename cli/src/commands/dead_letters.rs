//! `headwater dead-letters`: what could not be processed.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::arguments::{AdminAddress, DeadLettersCommand, Global};
use crate::client::Client;
use crate::failure::Outcome;
use crate::output::say;
use crate::report::{age, items};
use crate::table::{span, table};

/// As many as the admin port gives at once.
const LIMIT: usize = 10_000;

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
    let mut out = table(&["OFFSET", "AGE", "STAGE", "WHERE", "CAUSE"]);
    for item in &letters {
        let letter = &item["letter"];
        let text = |name: &str| letter[name].as_str().unwrap_or_default().to_string();
        let place = [text("model"), text("root"), text("table"), text("position")];
        let place: Vec<String> = place.into_iter().filter(|part| !part.is_empty()).collect();
        let at = letter["at_millis"].as_i64().map_or(Duration::ZERO, |at| age(&now, at.saturating_mul(1000)));
        out.add_row([item["offset"].to_string(), span(at), text("stage"), place.join(" "), text("cause")]);
    }
    say!("{out}\n\nOnce the cause is mended: headwater dead-letters retry [--offset N]");
    Ok(ExitCode::SUCCESS)
}

fn retry(admin: &Client, offset: Option<u64>, as_json: bool) -> Outcome {
    let request = offset.map_or(json!({}), |offset| json!({ "offset": offset }));
    let outcome = admin.post("/dead-letters/retry", &request)?;
    let number = |name: &str| outcome[name].as_u64().unwrap_or(0);
    if as_json {
        say!("{outcome}");
    } else {
        say!(
            "{} tried again: {} went well, {} failed as before",
            number("retried"),
            number("resolved"),
            number("failed")
        );
        if number("skipped") > 0 {
            say!(
                "{} cannot be tried again here: the source could not represent a value; change the row, and it is sent anew",
                number("skipped")
            );
        }
    }
    Ok(if number("failed") > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
