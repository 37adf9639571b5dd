//! `headwater run`, `connect`, `project` and `serve`: roles until told to stop, all in one process or one alone.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::block_on;
use crate::arguments::{ConnectArguments, Global, ProjectArguments, RunArguments};
use crate::config::{Configuration, Purpose};
use crate::control::Control;
use crate::failure::{Failure, Outcome};
use crate::pipeline::{Pipeline, PipelineOptions};
use crate::roles::Roles;
use crate::{crash, logging};

pub(super) fn run(global: &Global, arguments: &RunArguments) -> Outcome {
    start(global, Purpose::Whole, |_| {
        Ok(PipelineOptions { bench_route: arguments.bench_route, ..PipelineOptions::default() })
    })
}

pub(super) fn connect(global: &Global, arguments: &ConnectArguments) -> Outcome {
    start(global, Purpose::Capture(&arguments.source), |configuration| {
        configuration.select_sources(&arguments.source)?;
        Ok(PipelineOptions { roles: Roles::CONNECT, ..PipelineOptions::default() })
    })
}

pub(super) fn project(global: &Global, arguments: &ProjectArguments) -> Outcome {
    start(global, Purpose::Definitions, |configuration| {
        configuration.select_models(&arguments.model)?;
        let projector = arguments.name.clone().unwrap_or_else(|| projector_of(&arguments.model));
        Ok(PipelineOptions { roles: Roles::PROJECT, projector, ..PipelineOptions::default() })
    })
}

pub(super) fn serve(global: &Global, arguments: &RunArguments) -> Outcome {
    start(global, Purpose::Serve, |_| {
        Ok(PipelineOptions { roles: Roles::SERVE, bench_route: arguments.bench_route, ..PipelineOptions::default() })
    })
}

/// What the projector of these models is called where it is given no name: the same in whatever order they are given, and
/// however often.
fn projector_of(models: &[String]) -> String {
    let models: BTreeSet<&str> = models.iter().map(String::as_str).collect();
    match models.is_empty() {
        true => PipelineOptions::default().projector,
        false => models.into_iter().collect::<Vec<_>>().join("-"),
    }
}

/// Runs the roles that `select` picks from the configuration, until told to stop.
fn start(
    global: &Global,
    purpose: Purpose<'_>,
    select: impl FnOnce(&mut Configuration) -> Result<PipelineOptions, Failure>,
) -> Outcome {
    logging::start(global.log_format, "info")?;
    crash::arm()?;
    let mut configuration = Configuration::load_for(&global.config, purpose)?;
    let options = select(&mut configuration)?;
    options.roles.check(&configuration)?;
    block_on(|stop| async move {
        // From here on a SIGHUP ends nobody: one that comes while the roles start is answered once they run.
        let hangups = hangups()?;
        let roles = options.roles;
        if roles.project {
            configuration.tell_unasked();
        }
        // A start may wait for an engine for ever. What it has begun by then is ended in order.
        let Some(mut pipeline) = Pipeline::start(&configuration, options, &stop).await? else {
            return Ok(ExitCode::SUCCESS);
        };
        reload_on_hangup(hangups, pipeline.control(), stop.clone());
        let (api, admin) = pipeline.addresses();
        let api = api.map(tracing::field::display);
        tracing::info!(
            roles = roles.names().join(", "),
            api,
            %admin,
            sources = if roles.connect { configuration.connectors.len() } else { configuration.sources.len() },
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

/// The SIGHUPs that come from now on. Without anybody who listens, one would end the process.
fn hangups() -> Result<Signal, Failure> {
    signal(SignalKind::hangup()).map_err(|error| Failure::caused("cannot listen to signals", &error))
}

/// SIGHUP reads the models again, as `POST /reload` of the admin port does.
fn reload_on_hangup(mut hangups: Signal, control: Arc<Control>, stop: CancellationToken) {
    tokio::spawn(async move {
        loop {
            // A dropped arm has taken no signal.
            tokio::select! {
                Some(()) = hangups.recv() => {
                    if let Err(error) = control.read_again().await {
                        tracing::error!(error = error.detail, "the models were not read again");
                    }
                }
                () = stop.cancelled() => return,
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_projector_is_called_by_its_models_in_whatever_order() {
        let named = |models: &[&str]| projector_of(&models.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(named(&[]), "projector");
        assert_eq!(named(&["b", "a"]), "a-b");
        assert_eq!(named(&["a", "b", "a"]), "a-b");
    }
}
