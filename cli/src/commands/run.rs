//! `headwater run`, `connect`, `project` and `serve`: roles until told to stop, all in one process or one alone.

use std::process::ExitCode;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::block_on;
use crate::arguments::{ConnectArguments, Global, ProjectArguments, RunArguments};
use crate::config::Configuration;
use crate::control::Control;
use crate::failure::{Failure, Outcome};
use crate::pipeline::{Pipeline, PipelineOptions};
use crate::roles::Roles;
use crate::{crash, logging};

pub(super) fn run(global: &Global, arguments: &RunArguments) -> Outcome {
    start(global, |_| Ok(PipelineOptions { bench_route: arguments.bench_route, ..PipelineOptions::default() }))
}

pub(super) fn connect(global: &Global, arguments: &ConnectArguments) -> Outcome {
    start(global, |configuration| {
        configuration.select_sources(&arguments.source)?;
        Ok(PipelineOptions { roles: Roles::CONNECT, ..PipelineOptions::default() })
    })
}

pub(super) fn project(global: &Global, arguments: &ProjectArguments) -> Outcome {
    start(global, |configuration| {
        configuration.select_models(&arguments.model)?;
        let name = match (&arguments.name, arguments.model.is_empty()) {
            (Some(name), _) => name.clone(),
            (None, true) => PipelineOptions::default().projector,
            (None, false) => arguments.model.join("-"),
        };
        Ok(PipelineOptions { roles: Roles::PROJECT, projector: name, ..PipelineOptions::default() })
    })
}

pub(super) fn serve(global: &Global, arguments: &RunArguments) -> Outcome {
    start(global, |_| {
        Ok(PipelineOptions { roles: Roles::SERVE, bench_route: arguments.bench_route, ..PipelineOptions::default() })
    })
}

/// Runs the roles that `select` picks from the configuration, until told to stop.
fn start(global: &Global, select: impl FnOnce(&mut Configuration) -> Result<PipelineOptions, Failure>) -> Outcome {
    logging::start(global.log_format, "info");
    crash::arm()?;
    let mut configuration = Configuration::load(&global.config)?;
    let options = select(&mut configuration)?;
    options.roles.check(&configuration)?;
    block_on(|stop| async move {
        let roles = options.roles.names().join(", ");
        // Starting waits for engines that are away, and holds nothing that a stop would have to put in order.
        let started = tokio::select! {
            started = Pipeline::start(&configuration, options) => started,
            () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
        };
        let mut pipeline = started?;
        reload_on_hangup(pipeline.control(), stop.clone())?;
        let (api, admin) = pipeline.addresses();
        let api = api.map(tracing::field::display);
        tracing::info!(
            roles,
            api,
            %admin,
            sources = configuration.connectors.len(),
            models = configuration.models.len(),
            "running"
        );
        // Either may be dropped: what ended stays ended and is found by the stop.
        let outcome = tokio::select! {
            failure = pipeline.ended() => Err(failure),
            () = stop.cancelled() => Ok(ExitCode::SUCCESS),
        };
        tracing::info!("stopping");
        let stopped = pipeline.stop().await;
        let code = outcome?;
        stopped?;
        tracing::info!("stopped");
        Ok(code)
    })
}

/// SIGHUP reads the models again, as `POST /reload` of the admin port does.
fn reload_on_hangup(control: Arc<Control>, stop: CancellationToken) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup =
        signal(SignalKind::hangup()).map_err(|error| Failure::caused("cannot listen to signals", &error))?;
    tokio::spawn(async move {
        loop {
            // A dropped arm has taken no signal.
            tokio::select! {
                Some(()) = hangup.recv() => {
                    if let Err(error) = control.read_again().await {
                        tracing::error!(error = error.detail, "the models were not read again");
                    }
                }
                () = stop.cancelled() => return,
            }
        }
    });
    Ok(())
}
