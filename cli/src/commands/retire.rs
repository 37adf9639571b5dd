//! `headwater retire`: takes a model out of service that nobody is left to retire.

use std::process::ExitCode;

use headwater_schemas::Diagnostic;
use headwater_store::mongodb::{MongoOptions, RetiredVersion, retire_model};

use super::{block_on, unless_stopped};
use crate::arguments::{Global, RetireArguments};
use crate::config::{Configuration, StoreEngine};
use crate::failure::{Failure, Outcome};
use crate::logging;
use crate::output::say;

pub(super) fn execute(global: &Global, arguments: &RetireArguments) -> Outcome {
    logging::start(global.log_format, "warn")?;
    // Sources are not asked, and with the last model its pattern names no file any more.
    let configuration = Configuration::load_settings_only(&global.config)?;
    let model = &arguments.model;
    let declared = configuration.read_models();
    // Of what cannot be read it is not known whether it declares the model.
    let unknown: Vec<Diagnostic> = declared.unlisted.into_iter().chain(declared.diagnostics).collect();
    if !unknown.is_empty() {
        return Err(unknown.into());
    }
    if let Some(declared) = declared.models.iter().find(|file| file.model.name == *model) {
        return Err(Failure::new(format_args!(
            "{} declares `{model}`: remove that file, and have its projector read the files again (SIGHUP), which retires \
             the model; this is for one whose projector has gone",
            declared.file
        )));
    }
    let store = &configuration.settings.store;
    let Some(mongodb) = store.mongodb.as_ref().filter(|_| store.documents() == StoreEngine::Mongodb) else {
        return Err(Failure::new(format_args!(
            "by {} documents are kept inside the process that projects: it retires a model itself, when it starts or reads \
             the files again (SIGHUP)",
            configuration.file.display()
        ))
        .with_status(2));
    };
    let options = MongoOptions::new(mongodb.uri.reveal(), mongodb.database.value.clone());
    block_on(|stop| async move {
        // What is broken off can be done again.
        let retired = unless_stopped(&stop, retire_model(&options, model)).await?;
        let retired = retired.map_err(|error| Failure::caused(format_args!("cannot retire `{model}`"), &error))?;
        if retired.is_empty() {
            return Err(Failure::new(format_args!(
                "no version of `{model}` is served or being built; `headwater status` lists those that are"
            )));
        }
        for RetiredVersion { projector, collection } in retired {
            say!(
                "{model} is served no more. Its projector was `{projector}`; its documents stay in the collection \
                 `{collection}` until somebody drops that."
            );
        }
        Ok(ExitCode::SUCCESS)
    })
}
