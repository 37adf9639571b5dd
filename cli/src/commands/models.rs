//! `headwater models`: what documents there are, for people and for programs.

use std::collections::BTreeMap;
use std::process::ExitCode;

use headwater_projector::model_shape;
use headwater_query_api::{json_schema, openapi, sdl_for};
use headwater_schemas::model::ModelShape;
use serde_json::{Value, json};

use super::{block_on, unless_stopped};
use crate::arguments::{Global, ModelsArguments};
use crate::client::Client;
use crate::config::{Configuration, Purpose, unknown_name};
use crate::failure::{Failure, Outcome, chain};
use crate::logging;
use crate::output::say;
use crate::preflight::Catalogs;
use crate::report::{items, version_of};
use crate::table::{count, table};

pub(super) fn execute(global: &Global, arguments: &ModelsArguments) -> Outcome {
    logging::start(global.log_format, "warn")?;
    let print = &arguments.print;
    if print.json_schema || print.graphql || print.openapi {
        return describe(global, arguments);
    }
    list(global, arguments)
}

/// What is declared, beside what serves where a Headwater runs.
fn list(global: &Global, arguments: &ModelsArguments) -> Outcome {
    let configuration = Configuration::load_for(&global.config, Purpose::Definitions)?;
    let given = arguments.address.admin.as_deref();
    let status = match (Client::admin(given, &global.config)?.json("/status"), given) {
        (Ok(status), _) => status,
        // Whoever names a process wants to know of it; where none is named, none may run.
        (Err(failure), Some(_)) => return Err(failure),
        (Err(_), None) => Value::Null,
    };
    let mut rows = Vec::new();
    for file in configuration.models.iter().filter(|file| wanted(arguments, &file.model.name)) {
        let model = &file.model;
        let hash = model.hash();
        let serving = items(&status, "models").find(|one| one["model"] == model.name && one["state"] == "active");
        rows.push(json!({
            "model": model.name,
            "version": model.version,
            "definition_hash": hash,
            "version_id": serving.filter(|one| one["definition_hash"] == hash).map(|one| one["version_id"].clone()),
            "root": model.root.table.to_string(),
            "indexes": model.indexes.iter().map(|index| index.name()).collect::<Vec<_>>(),
            "file": file.file,
            "running": !status.is_null(),
            "serves": serving.is_some_and(|one| one["definition_hash"] == hash),
            "documents": serving.map(|one| one["documents"].clone()),
        }));
    }
    if rows.is_empty() {
        return Err(no_such_model(&configuration, arguments));
    }
    if arguments.print.json {
        say!("{}", Value::Array(rows));
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = table(&["MODEL", "VERSION", "SERVES", "DOCUMENTS", "ROOT", "INDEXES", "FILE"]);
    for row in &rows {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_string();
        let indexes: Vec<&str> = items(row, "indexes").filter_map(Value::as_str).collect();
        let serves = match (row["running"] == true, row["serves"] == true) {
            (false, _) => "not running",
            (true, true) => "yes",
            (true, false) => "not yet",
        };
        out.add_row([
            text("model"),
            if row["version_id"].is_null() { row["version"].to_string() } else { version_of(row) },
            serves.to_string(),
            row["documents"].as_u64().map_or(String::new(), count),
            text("root"),
            indexes.join(", "),
            text("file"),
        ]);
    }
    say!("{out}");
    Ok(ExitCode::SUCCESS)
}

/// Prints a description made from the definitions and the types that the sources' catalogs say; nothing needs to run but
/// the databases.
fn describe(global: &Global, arguments: &ModelsArguments) -> Outcome {
    let configuration = Configuration::load(&global.config)?;
    let print = &arguments.print;
    block_on(|stop| async move {
        // Nothing is left behind: it only reads.
        let catalogs = unless_stopped(&stop, Catalogs::ask(&configuration.connectors)).await?;
        if let Some((source, why)) = catalogs.silent.first() {
            return Err(Failure::new(format_args!(
                "the source `{source}` does not answer, and only it knows the columns' types: {why}"
            )));
        }
        let wrong = catalogs.check(&configuration.models);
        if !wrong.is_empty() {
            return Err(wrong.into());
        }
        let mut shapes: Vec<ModelShape> = Vec::new();
        for file in configuration.models.iter().filter(|file| wanted(arguments, &file.model.name)) {
            shapes.push(model_shape(&file.model, &catalogs.tables).map_err(|error| Failure::new(chain(&error)))?);
        }
        if shapes.is_empty() {
            return Err(no_such_model(&configuration, arguments));
        }
        if print.graphql {
            say!("{}", sdl_for(&shapes).trim_end());
        } else if print.openapi {
            say!("{:#}", openapi(&shapes));
        } else {
            let schemas: BTreeMap<&str, Value> = shapes.iter().map(|it| (it.model.as_str(), json_schema(it))).collect();
            match (arguments.model.as_ref(), schemas.into_values().collect::<Vec<_>>()) {
                (Some(_), mut one) => say!("{:#}", one.remove(0)),
                (None, all) => say!("{:#}", Value::Array(all)),
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn wanted(arguments: &ModelsArguments, name: &str) -> bool {
    arguments.model.as_deref().is_none_or(|model| model == name)
}

fn no_such_model(configuration: &Configuration, arguments: &ModelsArguments) -> Failure {
    let names = configuration.models.iter().map(|file| file.model.name.as_str());
    match &arguments.model {
        Some(wanted) => unknown_name("model", wanted, names),
        None => Failure::new(format_args!("{} declares no models", configuration.file.display())),
    }
}
