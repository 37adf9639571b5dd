//! `headwater replay`: a new version of a model from the log, beside the one that serves.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::arguments::{Global, ReplayArguments};
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::output::say;
use crate::report::{items, overtaken, version_of};
use crate::table::{count, span};

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The status is at most about a second old: a version that was just begun may not be in it yet.
const LISTED_WITHIN: Duration = Duration::from_secs(5);

pub(super) fn execute(global: &Global, arguments: &ReplayArguments) -> Outcome {
    let admin = Client::admin(arguments.address.admin.as_deref(), &global.config)?;
    let start = Instant::now();
    let begun = admin.post("/replay", &json!({ "model": arguments.model, "from": arguments.from }));
    let begun = begun.map_err(|failure| match failure.has_code("unknown_model") {
        true => failure.with_status(2),
        false => failure,
    })?;
    let version = begun["version_id"].clone();
    if arguments.no_wait {
        return report(arguments, &json!({ "model": arguments.model, "version_id": version, "done": false }), || {
            format!("version {} of {} is being built beside the one that serves", version_of(&begun), arguments.model)
        });
    }
    let bar = progress_bar(arguments);
    let mut listed = false;
    let built = loop {
        let status = admin.json("/status")?;
        let found = items(&status, "models").find(|model| model["version_id"] == version);
        listed |= found.is_some();
        if !listed && start.elapsed() < LISTED_WITHIN {
            std::thread::sleep(LOOK_EVERY);
            continue;
        }
        let Some(model) = found else {
            bar.finish_and_clear();
            return Err(Failure::new(format_args!(
                "version {} of {} was given up: a newer definition or replay took its place",
                version_of(&begun),
                arguments.model
            )));
        };
        if model["state"] == "active" {
            // It serves, and is not what was asked for.
            if let Some(missed) = overtaken(model) {
                bar.finish_and_clear();
                return Err(Failure::new(format_args!(
                    "version {} of {} serves, but {missed}",
                    version_of(model),
                    arguments.model
                )));
            }
            break model.clone();
        }
        if let Some(problem) = model["problem"].as_str() {
            bar.finish_and_clear();
            return Err(Failure::new(format_args!("{}: {problem}", arguments.model)));
        }
        show(&bar, &model["progress"]);
        std::thread::sleep(LOOK_EVERY);
    };
    bar.finish_and_clear();
    let elapsed = start.elapsed();
    let documents = built["documents"].as_u64().unwrap_or(0);
    let done = json!({
        "model": arguments.model, "version_id": version, "version": built["version"], "done": true,
        "documents": documents, "seconds": elapsed.as_secs_f64(),
    });
    report(arguments, &done, || {
        let (model, version) = (&arguments.model, version_of(&built));
        format!("{model}: version {version} serves {} documents, after {}", count(documents), span(elapsed))
    })
}

fn progress_bar(arguments: &ReplayArguments) -> ProgressBar {
    let silent = arguments.quiet || arguments.json || !std::io::stderr().is_terminal();
    let target = if silent { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    let style = ProgressStyle::with_template("{msg:<28} {bar:40} {human_pos}/{human_len} {prefix}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// What is being done, how much of it, how fast, and how long it will take.
fn show(bar: &ProgressBar, progress: &Value) {
    let number = |name: &str| progress[name].as_u64().unwrap_or(0);
    bar.set_message(match progress["phase"].as_str() {
        Some("reading") => "1 of 2: reading the log",
        Some("building") => "2 of 2: building documents",
        _ => "waiting",
    });
    bar.set_length(number("total"));
    bar.set_position(number("done"));
    let mut speed = format!("{}/s", count(progress["per_second"].as_f64().unwrap_or(0.0) as u64));
    if let Some(left) = progress["remaining_seconds"].as_f64() {
        let left = Duration::try_from_secs_f64(left).unwrap_or_default();
        speed.push_str(&format!(", {} left", span(left)));
    }
    bar.set_prefix(speed);
}

fn report(arguments: &ReplayArguments, json: &Value, text: impl FnOnce() -> String) -> Outcome {
    if arguments.json {
        say!("{json}");
    } else if !arguments.quiet {
        say!("{}", text());
    }
    Ok(ExitCode::SUCCESS)
}
