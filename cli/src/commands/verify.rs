//! `headwater verify`: is what is served what the source's tables say?

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::block_on;
use crate::arguments::{Global, VerifyArguments};
use crate::client::Client;
use crate::config::{Configuration, ModelFile};
use crate::failure::{Failure, Outcome};
use crate::logging;
use crate::output::say;
use crate::table::count;
use crate::verify::compare::Difference;
use crate::verify::{ModelReport, VerifyOptions, verify};

/// Differences shown of one model; all are in the JSON.
const SHOWN_MAX: usize = 20;
/// Where rows that cannot be represented are told one by one.
const LETTERS: &str = "`headwater dead-letters list` says why";

pub(super) fn execute(global: &Global, arguments: &VerifyArguments) -> Outcome {
    logging::start(global.log_format, "warn");
    // Whatever keeps us from comparing is not a difference.
    let cannot = |failure: Failure| failure.with_status(2);
    let configuration = Configuration::load(&global.config).map_err(|wrong| cannot(wrong.into()))?;
    let admin = Client::admin(arguments.address.admin.as_deref(), &global.config).map_err(cannot)?;
    let api = Client::api(arguments.api.as_deref(), &global.config).map_err(cannot)?;
    let models = chosen(&configuration, arguments.model.as_deref()).map_err(cannot)?;
    let options = VerifyOptions {
        connectors: configuration.connector_configs(),
        sample: arguments.sample,
        wait: Duration::from_secs(arguments.wait),
    };
    block_on(|stop| async move {
        let mut reports = Vec::new();
        for file in models {
            // Nothing is left behind by an interrupted comparison: it only reads.
            let report = tokio::select! {
                report = verify(&file.model, &options, &api, &admin) => report.map_err(cannot)?,
                () = stop.cancelled() => return Err(cannot(Failure::new("interrupted"))),
            };
            if !arguments.json {
                show(&report);
            }
            reports.push(report);
        }
        let (wrong, changing) = tally(&reports);
        if arguments.json {
            say!("{}", json!({ "equal": wrong == 0 && changing == 0, "models": reports }));
        }
        Ok(match (wrong, changing) {
            (0, 0) => ExitCode::SUCCESS,
            (0, _) => ExitCode::from(2),
            _ => ExitCode::from(1),
        })
    })
}

/// How many documents and rows are wrong, and how many documents could not be compared.
fn tally(reports: &[ModelReport]) -> (u64, u64) {
    let all = || reports.iter().flat_map(|report| report.differences.values());
    let changing = all().filter(|difference| **difference == Difference::Changing).count();
    let lost: u64 = reports.iter().map(|report| report.unrepresentable).sum();
    ((all().count() - changing) as u64 + lost, changing as u64)
}

fn chosen<'c>(configuration: &'c Configuration, wanted: Option<&str>) -> Result<Vec<&'c ModelFile>, Failure> {
    let Some(wanted) = wanted else { return Ok(configuration.models.iter().collect()) };
    let names = || configuration.models.iter().map(|file| file.model.name.as_str());
    match configuration.models.iter().find(|file| file.model.name == wanted) {
        Some(file) => Ok(vec![file]),
        None => {
            let help = match headwater_schemas::nearest(wanted, names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
            };
            Err(Failure::new(format_args!("there is no model `{wanted}`; {help}")))
        }
    }
}

fn show(report: &ModelReport) {
    let (model, compared) = (&report.model, count(report.compared));
    let mut notes = Vec::new();
    if report.rounds > 1 {
        notes.push(format!("{} snapshots, because documents changed meanwhile", report.rounds));
    }
    if report.dead_letters > 0 {
        notes.push(format!("{} roots left out: their documents are dead letters", count(report.dead_letters)));
    }
    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
    if report.differences.is_empty() && report.unrepresentable == 0 {
        say!("{model}: {compared} documents, all as the source says{notes}");
        return;
    }
    say!("{model}: {compared} documents, {} differences{notes}", count(report.differences.len() as u64));
    match report.unrepresentable {
        0 => {}
        1 => say!("  1 row of the source cannot be represented and is in no document; {LETTERS}"),
        n => say!("  {} rows of the source cannot be represented and are in no document; {LETTERS}", count(n)),
    }
    for (id, difference) in report.differences.iter().take(SHOWN_MAX) {
        say!("  {id}: {difference}");
    }
    let more = report.differences.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        say!("  … and {} more; all with --json", count(more as u64));
    }
}
