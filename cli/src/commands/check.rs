//! `headwater check`: is everything ready, and if not, what to do.

use std::collections::BTreeMap;
use std::process::ExitCode;

use headwater_connectors::postgres::{self, Finding, Severity};
use headwater_schemas::TableId;
use serde_json::json;

use super::block_on;
use crate::arguments::{CheckArguments, Global};
use crate::config::{Configuration, columns_read};
use crate::failure::Outcome;
use crate::logging;
use crate::output::say;
use crate::preflight::Catalogs;
use crate::table::table;

pub(super) fn execute(global: &Global, arguments: &CheckArguments) -> Outcome {
    logging::start(global.log_format, "warn");
    let configuration = Configuration::load(&global.config)?;
    let json = arguments.json;
    block_on(|_| async move {
        let mut findings: Vec<(String, Finding)> = Vec::new();
        for connector in &configuration.connectors {
            let config = &connector.config;
            let mut wanted: BTreeMap<TableId, Vec<String>> = BTreeMap::new();
            let read = configuration.models.iter().flat_map(|file| columns_read(&file.model));
            for (table, columns) in read.filter(|(table, _)| *table.source == *config.source) {
                let known = wanted.entry(table).or_default();
                known.extend(columns);
                known.sort_unstable();
                known.dedup();
            }
            let wanted: Vec<_> = wanted.into_iter().collect();
            let found = postgres::check(config, &wanted).await;
            findings.extend(found.into_iter().map(|finding| (config.source.clone(), finding)));
        }
        let catalogs = Catalogs::ask(&configuration.connectors).await;
        let mut diagnostics = catalogs.missing.iter().map(|(_, missing)| missing.clone()).collect::<Vec<_>>();
        diagnostics.extend(catalogs.check(&configuration.models));

        let wrong = !diagnostics.is_empty() || findings.iter().any(|(_, finding)| finding.severity == Severity::Error);
        if json {
            let findings: Vec<_> = findings
                .iter()
                .map(|(source, finding)| {
                    json!({ "source": source, "severity": finding.severity, "subject": finding.subject,
                            "problem": finding.problem, "remedy": finding.remedy })
                })
                .collect();
            let diagnostics: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
            say!("{}", json!({ "ok": !wrong, "findings": findings, "diagnostics": diagnostics }));
        } else {
            show(&configuration, &findings);
            for diagnostic in &diagnostics {
                say!("\n{diagnostic}");
            }
        }
        Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    })
}

fn show(configuration: &Configuration, findings: &[(String, Finding)]) {
    let (connectors, models) = (configuration.connectors.len(), configuration.models.len());
    say!("{} is read; connectors: {connectors}, models: {models}\n", configuration.file.display());
    let mut out = table(&["", "SOURCE", "WHAT", "FINDING", "REMEDY"]);
    for (source, finding) in findings {
        let word = match finding.severity {
            Severity::Ok => "ok",
            Severity::Warning => "WARNING",
            Severity::Error => "ERROR",
        };
        out.add_row([word, source, &finding.subject, &finding.problem, &finding.remedy]);
    }
    say!("{out}");
    let of = |severity| findings.iter().filter(|(_, finding)| finding.severity == severity).count();
    say!("\nerrors: {}, warnings: {}", of(Severity::Error), of(Severity::Warning));
}
