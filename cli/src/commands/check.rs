//! `headwater check`: is everything ready, and if not, what to do.

use std::collections::BTreeSet;
use std::process::ExitCode;

use headwater_connectors::postgres::{self, Finding, Severity};
use headwater_schemas::{Diagnostic, TableId};
use serde_json::{Value, json};

use super::{block_on, unless_stopped};
use crate::arguments::{CheckArguments, Global};
use crate::config::Configuration;
use crate::engines;
use crate::failure::Outcome;
use crate::logging;
use crate::output::say;
use crate::preflight::Catalogs;
use crate::table::table;

pub(super) fn execute(global: &Global, arguments: &CheckArguments) -> Outcome {
    logging::start(global.log_format, "warn")?;
    let json = arguments.json;
    let configuration = match Configuration::load(&global.config) {
        Ok(configuration) => configuration,
        Err(diagnostics) if json => {
            say!("{}", as_json(&[], &diagnostics, false));
            return Ok(ExitCode::FAILURE);
        }
        Err(diagnostics) => return Err(diagnostics.into()),
    };
    block_on(|stop| async move {
        // Nothing is left behind by an interrupted look: it only reads.
        let (findings, diagnostics) = unless_stopped(&stop, look(&configuration)).await?;
        let is_wrong = |(_, finding): &(String, Finding)| finding.severity == Severity::Error;
        let ok = diagnostics.is_empty() && !findings.iter().any(is_wrong);
        if json {
            say!("{}", as_json(&findings, &diagnostics, ok));
        } else {
            show(&configuration, &findings, &diagnostics);
        }
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// What is found at each source and engine, and what does not fit it in the files; each thing once.
async fn look(configuration: &Configuration) -> (Vec<(String, Finding)>, Vec<Diagnostic>) {
    let catalogs = Catalogs::ask(&configuration.connectors).await;
    let named: BTreeSet<&TableId> = configuration.models.iter().flat_map(|file| file.model.tables()).collect();
    let named = named.into_iter().filter(|table| catalogs.tables.contains_key(*table));
    let wanted: Vec<(TableId, Vec<String>)> = named.map(|table| (table.clone(), Vec::new())).collect();
    let mut findings: Vec<(String, Finding)> = Vec::new();
    for connector in &configuration.connectors {
        let config = &connector.config;
        // What models name is held against the catalogs below, which tells the place in their files. They do not know what a
        // publication has.
        let found = postgres::check(config, if config.postgres.tables.is_empty() { &wanted } else { &[] }).await;
        findings.extend(found.into_iter().map(|finding| (config.source.clone(), finding)));
    }
    // So is what the connectors' files name. Of a table that cannot be captured there may be more to say than that.
    findings.retain(|(source, finding)| {
        let is_missing = |(table, _): &(TableId, Diagnostic)| {
            let name = format!("{}.{}", table.schema, table.table);
            *table.source == **source
                && finding.subject == format!("table {name}")
                && finding.problem == format!("table {name} does not exist")
        };
        !catalogs.missing.iter().any(is_missing)
    });
    for (name, subject, found) in engines::look(configuration).await {
        let (severity, problem) = match found {
            Ok(()) => (Severity::Ok, "answers, and is as it must be".to_owned()),
            // With what is to be done.
            Err(problem) => (Severity::Error, problem),
        };
        findings.push((name.to_owned(), Finding { severity, subject, problem, remedy: String::new() }));
    }
    let mut diagnostics: Vec<Diagnostic> = catalogs.missing.iter().map(|(_, missing)| missing.clone()).collect();
    diagnostics.extend(catalogs.check(&configuration.models));
    (findings, diagnostics)
}

fn as_json(findings: &[(String, Finding)], diagnostics: &[Diagnostic], ok: bool) -> Value {
    let finding = |(source, finding): &(String, Finding)| {
        json!({ "source": source, "severity": finding.severity, "subject": finding.subject,
                "problem": finding.problem, "remedy": finding.remedy })
    };
    let diagnostic = |of: &Diagnostic| json!({ "file": of.file, "line": of.line, "column": of.column, "message": of.message, "help": of.help });
    json!({ "ok": ok, "findings": findings.iter().map(finding).collect::<Vec<_>>(),
            "diagnostics": diagnostics.iter().map(diagnostic).collect::<Vec<_>>() })
}

fn show(configuration: &Configuration, findings: &[(String, Finding)], diagnostics: &[Diagnostic]) {
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
    for diagnostic in diagnostics {
        say!("\n{diagnostic}");
    }
    say!("\nerrors: {}, warnings: {}", of(Severity::Error) + diagnostics.len(), of(Severity::Warning));
}
