//! `headwater verify`: is what is served what the source's tables say?

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use super::block_on;
use crate::arguments::{Global, VerifyArguments};
use crate::client::Client;
use crate::config::{Configuration, ModelFile, unknown_name};
use crate::failure::{Failure, Outcome};
use crate::logging;
use crate::output::say;
use crate::verify::{VerifyOptions, summary, verify};

pub(super) fn execute(global: &Global, arguments: &VerifyArguments) -> Outcome {
    // Whatever keeps us from comparing is not a difference.
    let cannot = |failure: Failure| failure.with_status(2);
    logging::start(global.log_format, "warn").map_err(cannot)?;
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
        let begun = Instant::now();
        let mut reports = Vec::new();
        for file in models {
            // Nothing is left behind by an interrupted comparison: it only reads.
            let report = tokio::select! {
                report = verify(&file.model, &options, &api, &admin) => report.map_err(cannot)?,
                () = stop.cancelled() => return Err(cannot(Failure::new("interrupted"))),
            };
            if !arguments.json {
                summary::lines(&report).iter().for_each(|line| say!("{line}"));
            }
            reports.push(report);
        }
        let (wrong, changing) = summary::tally(&reports);
        let took = begun.elapsed();
        if arguments.json {
            say!(
                "{}",
                json!({ "equal": wrong == 0 && changing == 0, "models": reports, "compared": summary::compared(&reports),
                        "differences": wrong, "changing": changing, "seconds": took.as_secs_f64() })
            );
        } else {
            say!("{}", summary::total(&reports, took));
        }
        Ok(match (wrong, changing) {
            (0, 0) => ExitCode::SUCCESS,
            (0, _) => ExitCode::from(2),
            _ => ExitCode::from(1),
        })
    })
}

fn chosen<'c>(configuration: &'c Configuration, wanted: Option<&str>) -> Result<Vec<&'c ModelFile>, Failure> {
    let Some(wanted) = wanted else { return Ok(configuration.models.iter().collect()) };
    match configuration.models.iter().find(|file| file.model.name == wanted) {
        Some(file) => Ok(vec![file]),
        None => Err(unknown_name("model", wanted, configuration.models.iter().map(|file| file.model.name.as_str()))),
    }
}
